package inspect

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

const (
	// chunkBytes is how much is read at once.
	chunkBytes = 2 << 20
	// headBytes is the room in front of a chunk for the batch that begins in the one before it.
	headBytes = 1 << 20
	// askBytes is for how much at once the page cache is asked for: when it has all of that, it is not asked for each chunk.
	askBytes = 16 << 20
	// chunks is how many there are: one is looked at while the others are read.
	chunks = 3
)

// reader reads a file ahead, in whole blocks. What is in the page cache is taken from there, the rest read past
// it where that can be done: taking pages for what is read once costs more than reading it.
type reader struct {
	name   string
	file   vfs.File
	direct vfs.File // nil where there is no direct I/O
	size   int64

	// askedFrom and askedTo enclose what the page cache has; of the goroutine that reads ahead.
	askedFrom, askedTo int64

	free   chan *chunk
	filled chan *chunk
	stop   chan struct{}
	ended  sync.WaitGroup
	window *chunk // what is looked at; nil before the first
	next   int64  // where the chunk behind it begins
	end    int64
	err    error // why nothing comes behind the window
}

// chunk is a piece of the file, and in front of it what was left of the one before.
type chunk struct {
	memory  []byte
	release func()
	from    int   // memory[from:to] is
	to      int   // …
	at      int64 // … the file from here on
	err     error
}

func openReader(fsys vfs.FS, name string) (*reader, error) {
	f, err := fsys.OpenFile(name, vfs.ReadOnly, 0)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	r := &reader{name: name, file: f, size: size}
	if size >= chunkBytes { // else it is not worth another descriptor
		if r.direct, err = fsys.OpenFile(name, vfs.ReadOnly|vfs.Direct, 0); err != nil {
			r.direct = nil
		}
	}
	return r, nil
}

// start begins to read ahead from a position up to end.
func (r *reader) start(from, end int64) {
	r.halt()
	r.end = end
	r.next = from &^ (vfs.BlockSize - 1)
	r.free, r.filled, r.stop = make(chan *chunk, chunks), make(chan *chunk, chunks), make(chan struct{})
	n := chunks
	if end-r.next <= chunkBytes {
		n = 1
	}
	for range n {
		c := new(chunk)
		c.memory, c.release = vfs.Aligned(headBytes + chunkLength(r.next, end))
		r.free <- c
	}
	next, stop, free, filled := r.next, r.stop, r.free, r.filled
	r.ended.Go(func() {
		defer close(filled)
		for next < end {
			var c *chunk
			select {
			case c = <-free:
			case <-stop:
				return
			}
			n := int(min(chunkBytes, end-next))
			c.from, c.at = headBytes, next
			got, err := r.fill(c.memory[headBytes:], next, n)
			c.to, c.err = headBytes+got, err
			select {
			case filled <- c:
			case <-stop:
				c.release()
				return
			}
			if err != nil {
				return
			}
			next += int64(n)
		}
	})
}

// chunkLength is what a chunk of a file needs that ends at end: small files are many.
func chunkLength(from, end int64) int {
	n := (end - from + vfs.BlockSize - 1) &^ (vfs.BlockSize - 1)
	return int(max(vfs.BlockSize, min(chunkBytes, n)))
}

// cached tells whether to read n bytes through the page cache.
func (r *reader) cached(at, n int64) bool {
	if at >= r.askedFrom && at+n <= r.askedTo {
		return true
	}
	most := min(askBytes, r.size-at)
	if cached, ok := vfs.Cached(r.file, at, most); !ok || cached == most {
		r.askedFrom, r.askedTo = at, at+most // where nobody knows, direct I/O is left alone
		return true
	}
	cached, _ := vfs.Cached(r.file, at, n)
	return cached >= n/2
}

// fill reads n bytes at an offset that is a multiple of the block size.
func (r *reader) fill(into []byte, at int64, n int) (int, error) {
	if r.direct != nil {
		if !r.cached(at, int64(n)) {
			whole := min(len(into), (n+vfs.BlockSize-1)&^(vfs.BlockSize-1))
			got, err := r.direct.ReadAt(into[:whole], at)
			if got >= n {
				return n, nil
			}
			if err != nil && !errors.Is(err, io.EOF) {
				r.direct.Close() // nothing is written through it
				r.direct = nil   // some file systems open so and read not
			}
		}
	}
	got, err := r.file.ReadAt(into[:n], at)
	if got == n {
		err = nil
	} else if errors.Is(err, io.EOF) {
		err = fmt.Errorf("%s: %w: it has become shorter while it was read", r.name, io.ErrUnexpectedEOF)
	}
	return got, err
}

// halt ends reading ahead.
func (r *reader) halt() {
	if r.stop == nil {
		return
	}
	close(r.stop)
	r.ended.Wait()
	for c := range r.filled {
		c.release()
	}
	for len(r.free) > 0 {
		(<-r.free).release()
	}
	if r.window != nil {
		r.window.release()
	}
	r.window, r.stop, r.err = nil, nil, nil
}

func (r *reader) close() error {
	r.halt()
	if r.direct != nil {
		r.direct.Close() // opened for reading: closing it cannot lose anything
	}
	return r.file.Close()
}

// advance takes the next chunk, and keeps what the window has from a position on, when there is room for it.
func (r *reader) advance(keep int64) error {
	c, ok := <-r.filled
	if !ok {
		return r.exhausted()
	}
	r.err = c.err
	if old := r.window; old != nil {
		if rest := int(old.at + int64(old.to-old.from) - keep); rest > 0 && rest <= headBytes && rest <= old.to-old.from {
			copy(c.memory[headBytes-rest:], old.memory[old.to-rest:old.to])
			c.from, c.at = headBytes-rest, keep
		}
		select {
		case r.free <- old:
		default:
			old.release()
		}
	}
	r.window = c
	if c.to == headBytes {
		return r.exhausted()
	}
	return nil
}

// exhausted says why there are no more bytes.
func (r *reader) exhausted() error {
	if r.err != nil {
		return r.err
	}
	return fmt.Errorf("%s: %w", r.name, io.ErrUnexpectedEOF)
}

// seek makes the window hold the byte at a position, and tells where in its memory that is.
func (r *reader) seek(position int64) (int, error) {
	if r.window != nil && position < r.window.at {
		r.start(position, r.end)
	}
	for r.window == nil || position >= r.window.at+int64(r.window.to-r.window.from) {
		ahead := int64(0)
		if r.window != nil {
			ahead = position - (r.window.at + int64(r.window.to-r.window.from))
		}
		if ahead > chunks*chunkBytes {
			r.start(position, r.end)
		}
		if err := r.advance(position); err != nil {
			return 0, err
		}
	}
	return r.window.from + int(position-r.window.at), nil
}

// peek gives n bytes at a position, which must not be more than headBytes and end before the end.
func (r *reader) peek(position int64, n int) ([]byte, error) {
	i, err := r.seek(position)
	if err == nil && i+n > r.window.to {
		if err = r.advance(position); err == nil {
			i, err = r.seek(position)
		}
	}
	if err == nil && i+n > r.window.to {
		err = r.exhausted()
	}
	if err != nil {
		return nil, err
	}
	return r.window.memory[i : i+n : i+n], nil
}

// most gives what the window has from a position on, n bytes at least.
func (r *reader) most(position int64, n int) ([]byte, error) {
	if _, err := r.peek(position, n); err != nil {
		return nil, err
	}
	i, err := r.seek(position)
	return r.window.memory[i:r.window.to:r.window.to], err
}

// whole gives n bytes at a position when they can lie in one window, nil when not (or when reading fails, which
// shows again when they are read piece by piece).
func (r *reader) whole(position int64, n int) []byte {
	if r.window != nil && position < r.window.at {
		return nil
	}
	i, err := r.seek(position)
	if err != nil {
		return nil
	}
	if i+n <= r.window.to {
		return r.window.memory[i : i+n : i+n]
	}
	if rest := r.window.to - i; rest > headBytes || n-rest > chunkBytes || position+int64(n) > r.end {
		return nil
	}
	if r.advance(position) != nil {
		return nil
	}
	if i, err = r.seek(position); err != nil || i+n > r.window.to {
		return nil
	}
	return r.window.memory[i : i+n : i+n]
}

// piece gives some bytes at a position, at most n.
func (r *reader) piece(position int64, n int) ([]byte, error) {
	i, err := r.seek(position)
	if err != nil {
		return nil, err
	}
	to := min(r.window.to, i+n)
	return r.window.memory[i:to:to], nil
}

// read reads bytes that have been read before, without a look at the window.
func (r *reader) read(into []byte, position int64) error {
	n, err := r.file.ReadAt(into, position)
	if n == len(into) {
		return nil
	}
	return err
}

// sum computes the CRC-32C of n bytes at a position, without a look at the window.
func (r *reader) sum(position, n int64) (uint32, error) {
	buf := make([]byte, min(n, 64<<10))
	sum := uint32(0)
	for n > 0 {
		b := buf[:min(n, int64(len(buf)))]
		if err := r.read(b, position); err != nil {
			return 0, err
		}
		sum = batch.Checksum(sum, b)
		position += int64(len(b))
		n -= int64(len(b))
	}
	return sum, nil
}
