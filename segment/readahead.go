package segment

import (
	"io"

	"github.com/millrace/millrace/segment/vfs"
)

const (
	// aheads is how many segments may have something read ahead, each scratchBytes at most.
	aheads = 8
	// aheadReaders is how many goroutines read ahead.
	aheadReaders = 2
)

// ahead is the next part of a segment for a reader that goes through it: read past
// the page cache while that reader is busy with the part before. Whoever takes it out
// of segmentFile.ahead owns it.
type ahead struct {
	segment *segmentFile
	from    int64 // a multiple of vfs.BlockSize
	end     int64 // what is behind it may not be in the file yet
	slot    int   // of Dir.aheadSlots; another may have it by now
	buf     []byte
	n       int           // bytes that were read; set before done is closed
	done    chan struct{} // closed when the reading has ended
}

// readAhead has the part behind a read fetched, unless something else of the
// segment is being fetched. It does not block. What nobody came for makes room.
func (d *Dir) readAhead(s *segmentFile, next, end int64) {
	from := next &^ (vfs.BlockSize - 1)
	if s.ahead.Load() != nil || end-next < leastDirectRead {
		return
	}
	a := &ahead{segment: s, from: from, end: min(end, from+scratchBytes), done: make(chan struct{})}
	d.aheadMu.Lock()
	a.slot = d.aheadNext % aheads
	old := d.aheadSlots[a.slot]
	if old != nil && !old.over() { // the disk does not keep up
		d.aheadMu.Unlock()
		return
	}
	d.aheadSlots[a.slot] = a
	d.aheadNext++
	d.aheadMu.Unlock()
	if old != nil && old.segment.ahead.CompareAndSwap(old, nil) {
		d.dropAhead(old)
	}
	if !s.ahead.CompareAndSwap(nil, a) {
		close(a.done)
		return
	}
	select {
	case d.aheadWork <- a:
	default:
		close(a.done) // nothing was read: whoever takes it reads by himself
	}
}

func (a *ahead) over() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}

// dropAhead gives back the memory of what was read and is owned by the caller.
func (d *Dir) dropAhead(a *ahead) {
	if a.buf != nil {
		d.scratchFree <- a.buf
		a.buf = nil
	}
}

// runAhead is a goroutine that reads ahead. It ends when the directory is closed.
func (d *Dir) runAhead() {
	for {
		select {
		case a := <-d.aheadWork:
			d.fetchAhead(a)
			close(a.done)
		case <-d.stop:
			return
		}
	}
}

func (d *Dir) fetchAhead(a *ahead) {
	if a.buf = d.scratch(); a.buf == nil {
		return
	}
	h := d.writeHandle(a.segment)
	f, err := d.files.acquire(h)
	if err != nil {
		return // the reader meets it
	}
	defer d.files.release(h)
	n, err := f.ReadAt(a.buf[:roundUp(a.end-a.from)], a.from)
	if err == nil || err == io.EOF {
		a.n = min(n, int(a.end-a.from))
	}
}

// takeAhead copies what was read ahead of position off; 0 when there is nothing.
func (d *Dir) takeAhead(s *segmentFile, p []byte, off int64) int {
	a := s.ahead.Load()
	if a == nil || off < a.from || off >= a.end || !s.ahead.CompareAndSwap(a, nil) {
		return 0
	}
	select {
	case <-a.done:
	case <-d.stop:
		return 0
	}
	n := 0
	if skip := off - a.from; skip < int64(a.n) {
		n = copy(p, a.buf[skip:a.n])
	}
	if off+int64(n) >= a.from+int64(a.n) || !d.keepAhead(a) {
		d.dropAhead(a)
	}
	return n
}

// keepAhead puts back what was taken and not used up. Without a slot nothing would
// ever make it give way.
func (d *Dir) keepAhead(a *ahead) bool {
	d.aheadMu.Lock()
	defer d.aheadMu.Unlock()
	return d.aheadSlots[a.slot] == a && a.segment.ahead.CompareAndSwap(nil, a)
}
