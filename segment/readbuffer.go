package segment

import (
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/millrace/millrace/segment/vfs"
)

const (
	// leastDirectRead is what is worth a read past the page cache, and a buffer of the pool.
	leastDirectRead = 64 << 10
	// oldBytes is how much of a file is read at once, unless a batch is larger.
	oldBytes = 2 << 20
	// readBufferClasses: 64 KiB, 128 KiB, … oldBytes, which is a huge page.
	readBufferClasses = 6
	// readBuffersKept is how much memory is kept while nobody uses it.
	readBuffersKept = 16 << 20
)

// readBuffer is aligned memory for a piece of a file. It goes back to the pool
// when its last holder has released it.
type readBuffer struct {
	mem   []byte
	free  func()
	freed runtime.Cleanup // does it for those that are forgotten with their directory
	class int             // readBufferClasses for one that is too large to be kept
	refs  atomic.Int32
	from  *readBuffers
}

// readBuffers is the pool of them. How many are in use is bounded by those who
// read: what a consumer is sent is charged to a budget before it is read.
type readBuffers struct {
	mu    sync.Mutex // guards the fields below; a leaf
	kept  [readBufferClasses][]*readBuffer
	bytes int // of those kept
}

// get gives a buffer for n bytes from anywhere in a file, which its caller holds.
func (p *readBuffers) get(n int) *readBuffer {
	class, size := 0, leastDirectRead
	for size < n && class < readBufferClasses {
		class, size = class+1, size*2
	}
	p.mu.Lock()
	if class < readBufferClasses && len(p.kept[class]) > 0 {
		last := len(p.kept[class]) - 1
		b := p.kept[class][last]
		p.kept[class] = p.kept[class][:last]
		p.bytes -= len(b.mem)
		p.mu.Unlock()
		b.refs.Store(1)
		return b
	}
	p.mu.Unlock()
	b := &readBuffer{class: class, from: p}
	var free func()
	b.mem, free = vfs.Aligned(int(roundUp(int64(max(n, size)))) + 2*vfs.BlockSize)
	b.freed = runtime.AddCleanup(b, func(free func()) { free() }, free)
	b.free = free
	b.refs.Store(1)
	return b
}

func (b *readBuffer) hold() { b.refs.Add(1) }

func (b *readBuffer) release() {
	if b.refs.Add(-1) > 0 {
		return
	}
	p := b.from
	p.mu.Lock()
	keep := b.class < readBufferClasses && p.bytes+len(b.mem) <= readBuffersKept
	if keep {
		p.kept[b.class] = append(p.kept[b.class], b)
		p.bytes += len(b.mem)
	}
	p.mu.Unlock()
	if !keep {
		b.freed.Stop()
		b.free()
	}
}

// Old records that are read for the first time are read past the page cache: taking
// pages for what is mostly read once costs more than reading it, and takes them from
// what is read often. Who reads the same again goes through the page cache, and
// finds it filled from then on.

// seen remembers which parts of a segment have been read, by cells of leastDirectRead.
type seen struct{ bits []atomic.Uint64 }

// mark tells whether the n bytes at off were read before, and notes that they are. A
// cell that is only touched at its front says nothing: the read before ended there.
func (s *segmentFile) mark(off int64, n int) bool {
	first, last := off/leastDirectRead, (off+int64(n)-1)/leastDirectRead
	m := s.seen.Load()
	if m == nil || last/64 >= int64(len(m.bits)) {
		larger := &seen{make([]atomic.Uint64, last/64+8)}
		if m != nil {
			for i := range m.bits {
				larger.bits[i].Store(m.bits[i].Load())
			}
		}
		s.seen.CompareAndSwap(m, larger) // another reader's may win; a lost mark costs one more read of the disk
		if m = s.seen.Load(); last/64 >= int64(len(m.bits)) {
			return false
		}
	}
	asked := min((off+leastDirectRead-1)/leastDirectRead, last)
	again := m.bits[asked/64].Load()&(1<<(asked%64)) != 0
	for cell := first; cell <= last; cell++ {
		if bit := uint64(1) << (cell % 64); m.bits[cell/64].Load()&bit == 0 {
			m.bits[cell/64].Or(bit)
		}
	}
	return again
}

// readOld reads the n bytes at a position of a segment's file. The buffer is held by
// the caller, also when fewer are there; it is nil when none are. Blocks on the disk.
func (d *Dir) readOld(s *segmentFile, position int64, n int, past bool) (b *readBuffer, got []byte, err error) {
	h, from := &s.handle, position
	if past {
		h, from = &s.direct, position&^(vfs.BlockSize-1)
	}
	f, err := d.files.acquire(h)
	if err != nil {
		return nil, nil, err
	}
	defer d.files.release(h)
	skip := int(position - from)
	b = d.readBuffers.get(n)
	mem := b.mem[:n]
	if past {
		mem = b.mem[:roundUp(int64(skip+n))]
	}
	read, err := f.ReadAt(mem, from)
	if read = min(read, skip+n); read <= skip {
		b.release()
		return nil, nil, err
	}
	if read == skip+n {
		err = nil
	}
	return b, b.mem[skip:read:read], err
}
