package segment

import (
	"errors"
	"fmt"
	"io"

	"github.com/millrace/millrace/segment/batch"
)

// errRead says that the file system could not read, which says nothing about
// what the file holds.
var errRead = errors.New("segment: read")

// source is bytes of a segment: its file, or a reader of it.
type source interface {
	io.ReaderAt
	Name() string
}

// walker steps through the batches of a file, one after the other, in constant
// memory: damage may announce a batch of any length.
type walker struct {
	file      source
	position  int64 // of header; after next has answered false, where walking ended
	end       int64 // bytes of the file to walk
	whole     bool  // read each batch whole and check its CRC
	readAhead int   // bytes to read at once; 0 is walkWindow
	header    batch.Header
	err       error // why next answered false before the end was reached
	expect    int64 // the least offset that the next batch may begin with

	started bool
	window  []byte // bytes of the file from windowAt on
	at      int64
}

const (
	walkWindow = 64 << 10 // to walk a whole file
	seekWindow = 4 << 10  // to find one batch behind an index entry
)

// next goes to the next batch; false at the end, or at the first bytes that are
// not a whole batch, which err then describes. After an errMisplaced it may be asked to go on.
func (w *walker) next() bool {
	w.err = nil
	if w.started {
		w.position += int64(w.header.Size())
	}
	w.started = true
	if w.position == w.end {
		return false
	}
	b, err := w.bytesAt(w.position, batch.HeaderSize)
	if err != nil {
		w.err = err
		return false
	}
	if w.header, err = batch.ReadHeader(b); err != nil {
		w.err = err
		return false
	}
	size := w.header.Size()
	if int64(size) > w.end-w.position {
		w.err = fmt.Errorf("%w: batch of %d bytes, file ends after %d", batch.ErrTruncated, size, w.end-w.position)
		return false
	}
	if w.whole {
		if w.err = w.checkSum(size); w.err != nil {
			return false
		}
	}
	if misplaced(&w.header, w.expect, w.follower) {
		w.err = fmt.Errorf("%w: %d where %d belongs", errMisplaced, w.header.BaseOffset, w.expect)
		return false
	}
	w.expect = w.header.NextOffset()
	return true
}

// errMisplaced says that a batch has a base offset, which its CRC does not cover, that cannot be its own.
var errMisplaced = fmt.Errorf("%w: base offset", batch.ErrCorrupt)

// misplaced tells whether the base offset of a batch cannot be its own: what it holds was there before,
// or will be there again. A gap may be in front of a batch, but whoever has one in front is wrong when the one that follows him
// begins before his end. follower, which is asked in that case alone, gives that one, if there is one.
func misplaced(h *batch.Header, expect int64, follower func() (batch.Header, bool)) bool {
	if h.BaseOffset <= expect {
		return h.BaseOffset < expect
	}
	after, ok := follower()
	return ok && after.BaseOffset < h.NextOffset()
}

// follower reads the header behind the present batch.
func (w *walker) follower() (batch.Header, bool) {
	at := w.position + int64(w.header.Size())
	if w.end-at < batch.HeaderSize {
		return batch.Header{}, false
	}
	b, err := w.bytesAt(at, batch.HeaderSize)
	if err != nil {
		return batch.Header{}, false
	}
	h, err := batch.ReadHeader(b)
	return h, err == nil
}

// checkSum compares the CRC of the batch at the position with what it covers, a window at a time.
func (w *walker) checkSum(size int) error {
	var sum uint32
	for at := batch.ChecksumFrom; at < size; {
		n := min(size-at, walkWindow)
		b, err := w.bytesAt(w.position+int64(at), n)
		if err != nil {
			return err
		}
		sum = batch.Checksum(sum, b)
		at += n
	}
	if sum != w.header.CRC {
		return fmt.Errorf("%w: stored CRC %08x, computed %08x", batch.ErrCorrupt, w.header.CRC, sum)
	}
	return nil
}

// bytesAt gives the n bytes at a position of the file; fewer are left only in a torn header.
func (w *walker) bytesAt(position int64, n int) ([]byte, error) {
	if left := w.end - position; int64(n) > left {
		return nil, fmt.Errorf("%w: %d bytes where a batch should begin", batch.ErrTruncated, left)
	}
	if from := position - w.at; from >= 0 && from+int64(n) <= int64(len(w.window)) {
		return w.window[from : from+int64(n)], nil
	}
	ahead := w.readAhead
	if ahead == 0 {
		ahead = walkWindow
	}
	want := int(min(int64(max(n, ahead)), w.end-position))
	if cap(w.window) < want {
		w.window = make([]byte, want)
	}
	w.window, w.at = w.window[:want], position
	if _, err := w.file.ReadAt(w.window, position); err != nil && !errors.Is(err, io.EOF) {
		w.window = w.window[:0]
		return nil, fmt.Errorf("%w: %s at %d: %w", errRead, w.file.Name(), position, err)
	}
	return w.window[:n], nil
}

// readHeader reads the header of the batch at a position.
func readHeader(f source, position int64) (batch.Header, error) {
	var b [batch.HeaderSize]byte
	if _, err := f.ReadAt(b[:], position); err != nil {
		return batch.Header{}, fmt.Errorf("%w: %s at %d: %w", errRead, f.Name(), position, err)
	}
	return batch.ReadHeader(b[:])
}
