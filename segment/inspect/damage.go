package inspect

import (
	"errors"
	"fmt"

	"github.com/millrace/millrace/segment/batch"
)

// Damage says that what stands at a position of a .log file is not the batch that should begin there.
type Damage struct {
	File     string
	Position int64
	Offset   int64  // the least offset that the batch could have had
	What     string // without place
	// Torn tells that the file ends before the batch does: as a crash leaves it, or as one finds it that a server is writing to.
	Torn bool
	// Header is that of a batch which lies in the file as a whole, and whose CRC does not hold or whose offset cannot stand there.
	Header *batch.Header
	Cause  error
}

// Error names file, position, offset and what.
func (d *Damage) Error() string {
	return fmt.Sprintf("%s: at byte %d (offset %d): %s", d.File, d.Position, d.Offset, d.What)
}

// Unwrap gives what batch says of it.
func (d *Damage) Unwrap() error { return d.Cause }

// errOrder says that a batch does not follow the one before it.
var errOrder = errors.New("out of order")

// ErrTooLong says that a batch is longer than what is held in memory.
var ErrTooLong = errors.New("inspect: batch too long")

func (b *Batches) damaged(position int64, header *batch.Header, cause error) {
	b.err = &Damage{File: b.name, Position: position, Offset: b.least, What: what(cause), Torn: errors.Is(cause, batch.ErrTruncated), Header: header, Cause: cause}
}

// what is a cause without the names of packages.
func what(cause error) string {
	text := cause.Error()
	for _, sentinel := range []error{batch.ErrCorrupt, batch.ErrTruncated, errOrder} {
		prefix := sentinel.Error() + ": "
		if len(text) > len(prefix) && text[:len(prefix)] == prefix {
			return text[len(prefix):]
		}
	}
	return text
}
