package segment

import (
	"errors"
	"fmt"
	"io"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// errRead says that the file system could not read, which says nothing about
// what the file holds.
var errRead = errors.New("segment: read")

// walker steps through the batches of a file, one after the other, in constant
// memory (one batch at most).
type walker struct {
	file      vfs.File
	position  int64 // of header; after next has answered false, where walking ended
	end       int64 // bytes of the file to walk
	whole     bool  // read each batch whole and check its CRC
	readAhead int   // bytes to read at once; 0 is walkWindow
	header    batch.Header
	err       error // why next answered false before the end was reached

	started bool
	window  []byte // bytes of the file from windowAt on
	at      int64
}

const (
	walkWindow = 64 << 10 // to walk a whole file
	seekWindow = 4 << 10  // to find one batch behind an index entry
)

// next goes to the next batch; false at the end, or at the first bytes that are
// not a whole batch, which err then describes.
func (w *walker) next() bool {
	if w.started {
		w.position += int64(w.header.Size())
	}
	w.started = true
	if w.position == w.end {
		return false
	}
	b, err := w.bytes(batch.HeaderSize)
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
	if !w.whole {
		return true
	}
	if b, err = w.bytes(size); err == nil {
		_, err = batch.Check(b)
	}
	w.err = err
	return err == nil
}

// bytes gives the n bytes at the position; fewer are left only in a torn header.
func (w *walker) bytes(n int) ([]byte, error) {
	if left := w.end - w.position; int64(n) > left {
		return nil, fmt.Errorf("%w: %d bytes where a batch should begin", batch.ErrTruncated, left)
	}
	if from := w.position - w.at; from >= 0 && from+int64(n) <= int64(len(w.window)) {
		return w.window[from : from+int64(n)], nil
	}
	ahead := w.readAhead
	if ahead == 0 {
		ahead = walkWindow
	}
	want := int(min(int64(max(n, ahead)), w.end-w.position))
	if cap(w.window) < want {
		w.window = make([]byte, want)
	}
	w.window, w.at = w.window[:want], w.position
	if _, err := w.file.ReadAt(w.window, w.position); err != nil && !errors.Is(err, io.EOF) {
		w.window = w.window[:0]
		return nil, fmt.Errorf("%w: %s at %d: %w", errRead, w.file.Name(), w.position, err)
	}
	return w.window[:n], nil
}

// readHeader reads the header of the batch at a position.
func readHeader(f vfs.File, position int64) (batch.Header, error) {
	var b [batch.HeaderSize]byte
	if _, err := f.ReadAt(b[:], position); err != nil {
		return batch.Header{}, fmt.Errorf("%w: %s at %d: %w", errRead, f.Name(), position, err)
	}
	return batch.ReadHeader(b[:])
}
