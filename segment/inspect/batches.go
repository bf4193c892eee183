package inspect

import (
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// Options say how to read a .log file.
type Options struct {
	// From is where to begin: 0, or the position of a batch.
	From int64
	// End is where to end; 0 is the end of the file when it is opened.
	End int64
	// Structure leaves the CRC out: headers, lengths and the order of offsets alone are looked at.
	Structure bool
	// Base is the least offset of the first batch; 0 takes it from the file's name, when there is one.
	Base int64
	// Unordered does without a look at the order of offsets.
	Unordered bool
}

// Batches steps through the batches of a .log file. It reads ahead on a goroutine of its own, two MiB at a time, so that reading
// and checking overlap, and holds a few of them, whatever a batch announces. What it holds goes with Close.
//
//	b, err := inspect.OpenBatches(fs, name, inspect.Options{})
//	for {
//		for b.Next() { … b.Header() … }
//		if !b.Resume() { break } // b.Err() says what was met
//	}
//
// Not for concurrent use.
type Batches struct {
	name   string
	opts   Options
	reader *reader
	size   int64 // where to end

	header   batch.Header
	position int64 // of the header; of what was met, after Next has answered false
	next     int64 // where the batch behind it begins
	least    int64 // the offset that it may have at least
	padding  int64
	err      error
	failed   bool // err is the file system's
	whole    []byte
	held     []byte // the batch, when it lies in the window
}

// maxHeld is the longest batch that Bytes gives: more than any server takes (message.max.bytes is an int32, and
// a request is 100 MiB unless told otherwise), and as much as a segment holds.
const maxHeld = 1 << 30

// OpenBatches opens a .log file for reading.
func OpenBatches(fsys vfs.FS, name string, o Options) (*Batches, error) {
	r, err := openReader(fsys, name)
	if err != nil {
		return nil, err
	}
	b := &Batches{name: name, opts: o, reader: r, size: r.size, next: o.From, least: o.Base}
	if o.End > 0 {
		b.size = min(b.size, o.End)
	}
	if base, suffix, ok := segment.ParseFile(filepath.Base(name)); ok && o.Base == 0 && suffix == "log" {
		b.least = base
	}
	if o.Unordered {
		b.least = math.MinInt64
	}
	r.start(o.From, b.size)
	return b, nil
}

// Close lets go of the file.
func (b *Batches) Close() error { return b.reader.close() }

// Name is the file's.
func (b *Batches) Name() string { return b.name }

// Size is where reading ends: the length of the file when it was opened, or Options.End.
func (b *Batches) Size() int64 { return b.size }

// Header is that of the batch that Next has gone to.
func (b *Batches) Header() batch.Header { return b.header }

// Position is where the batch begins; after Next has answered false, where it would have begun.
func (b *Batches) Position() int64 { return b.position }

// NextOffset is the least offset that the next batch may have.
func (b *Batches) NextOffset() int64 { return b.least }

// Padding is how many zeros lie between the last batch and the end of the file, once Next has answered false.
func (b *Batches) Padding() int64 { return b.padding }

// Err says why Next has answered false: nil at the end of the file, a *Damage, or what the file system says.
func (b *Batches) Err() error { return b.err }

// Next goes to the next batch; false at the end, or at what is no whole batch, with a CRC that holds, behind the one before it.
func (b *Batches) Next() bool {
	if b.err != nil {
		return false
	}
	b.held = nil
	b.position = b.next
	left := b.size - b.position
	if left <= 0 {
		return false
	}
	head, err := b.reader.peek(b.position, int(min(left, batch.HeaderSize)))
	if err != nil {
		b.ended(err)
		return false
	}
	h, err := batch.ReadHeader(head)
	if err == nil && int64(h.Size()) > left {
		err = fmt.Errorf("%w: batch of %d bytes, file ends after %d", batch.ErrTruncated, h.Size(), left)
	}
	if err != nil {
		if b.isPadding(left) {
			b.padding = left
			return false
		}
		if left < batch.HeaderSize {
			err = fmt.Errorf("%w: %d bytes where a batch should begin", batch.ErrTruncated, left)
		}
		if b.err == nil {
			b.damaged(b.position, nil, err)
		}
		return false
	}
	if err := b.check(h); err != nil {
		if !b.failed {
			met := h // h itself is to stay where it is: there is one for each batch
			b.damaged(b.position, &met, err)
		}
		b.ended(b.err)
		return false
	}
	b.header = h
	b.next = b.position + int64(h.Size())
	if !b.opts.Unordered {
		b.least = h.NextOffset()
	}
	return true
}

// ended judges an error of reading. A file that has become shorter since it was opened, as a server cuts the padding of a segment that it
// writes, ends where it ends now.
func (b *Batches) ended(err error) {
	b.err, b.failed = err, !errors.As(err, new(*Damage))
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		return
	}
	size, err := b.reader.file.Size()
	if err != nil || size >= b.size {
		return
	}
	b.size, b.err, b.failed = max(size, b.position), nil, false
	if size > b.position {
		b.damaged(b.position, nil, fmt.Errorf("%w: file ends after %d bytes of a batch", batch.ErrTruncated, size-b.position))
	}
}

// check looks at the CRC and the offset of the batch at the position.
func (b *Batches) check(h batch.Header) error {
	if !b.opts.Structure {
		sum, err := b.sum(h)
		if err != nil {
			b.err, b.failed = err, true
			return err
		}
		if sum != h.CRC {
			return fmt.Errorf("%w: stored CRC %08x, computed %08x", batch.ErrCorrupt, h.CRC, sum)
		}
	}
	if h.BaseOffset < b.least {
		return fmt.Errorf("%w: offset %d follows %d", errOrder, h.BaseOffset, b.least-1)
	}
	return nil
}

// sum computes the CRC of the batch at the position.
func (b *Batches) sum(h batch.Header) (uint32, error) {
	size := h.Size()
	if whole := b.reader.whole(b.position, size); whole != nil {
		b.held = whole
		return batch.Checksum(0, whole[batch.ChecksumFrom:]), nil
	}
	sum := uint32(0)
	for at := batch.ChecksumFrom; at < size; {
		piece, err := b.reader.piece(b.position+int64(at), size-at)
		if err != nil {
			return 0, err
		}
		sum = batch.Checksum(sum, piece)
		at += len(piece)
	}
	return sum, nil
}

// Bytes is the batch that Next has gone to; it holds until the next call of Next. A batch longer than
// what is read at once is read again, into memory of its own; one longer than 1 GiB gives ErrTooLong.
func (b *Batches) Bytes() ([]byte, error) {
	size := b.header.Size()
	if b.held != nil {
		return b.held, nil
	}
	if whole := b.reader.whole(b.position, size); whole != nil {
		b.held = whole
		return whole, nil
	}
	if size > maxHeld {
		return nil, fmt.Errorf("%w: %s: batch at %d of %d bytes", ErrTooLong, b.name, b.position, size)
	}
	if cap(b.whole) < size {
		b.whole = make([]byte, size)
	}
	b.held = b.whole[:size]
	if err := b.reader.read(b.held, b.position); err != nil {
		b.held = nil
		return nil, err
	}
	return b.held, nil
}

// isPadding tells whether there is nothing but zeros from the position on, and no more than a server leaves.
func (b *Batches) isPadding(left int64) bool {
	if left >= vfs.BlockSize {
		return false
	}
	rest, err := b.reader.peek(b.position, int(left))
	if err != nil {
		b.err, b.failed = err, true
		return false
	}
	return segment.IsZero(rest)
}

// Resume goes on behind damage: to the next batch that is whole, with a CRC that holds and an offset that may stand there, which
// the next call of Next gives. It answers false when there is none, and when Err is no damage; Err is as it was then.
func (b *Batches) Resume() bool {
	var damage *Damage
	if !errors.As(b.err, &damage) {
		return false
	}
	met := b.err
	for at := damage.Position + 1; at+batch.HeaderSize <= b.size; {
		window, err := b.reader.most(at, batch.HeaderSize)
		if err != nil {
			b.err, b.failed = err, true
			return false
		}
		for i := 0; i+batch.HeaderSize <= len(window); i++ {
			if window[i+batch.MagicAt] != batch.Magic {
				continue
			}
			h, err := batch.ReadHeader(window[i:])
			position := at + int64(i)
			if err != nil || h.BaseOffset < b.least || int64(h.Size()) > b.size-position {
				continue
			}
			intact, err := b.intact(position, h)
			if err != nil {
				b.err, b.failed = err, true
				return false
			}
			if intact {
				b.err, b.next = nil, position
				return true
			}
		}
		at += int64(len(window) - batch.HeaderSize + 1)
	}
	b.err = met
	return false
}

// intact tells whether the CRC of a batch at a position holds, whatever Options.Structure says.
func (b *Batches) intact(position int64, h batch.Header) (bool, error) {
	sum, err := b.reader.sum(position+batch.ChecksumFrom, int64(h.Size()-batch.ChecksumFrom))
	return sum == h.CRC, err
}
