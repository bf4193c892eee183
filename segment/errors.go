package segment

import (
	"errors"
	"fmt"
)

// Appending.
var (
	// ErrClosed says that the log or its directory has been closed.
	ErrClosed = errors.New("segment: closed")
	// ErrDeleted says that the log has been deleted.
	ErrDeleted = errors.New("segment: log deleted")
	// ErrFenced says that the log directory accepts no appends, since an earlier
	// write or sync failed and what the disk holds is no longer certain. It stays
	// so until the directory is opened again.
	ErrFenced = errors.New("segment: log directory fenced after an I/O error")
	// ErrNoSpace says that the disk is full: the append was taken back whole, and
	// a later one succeeds once there is room.
	ErrNoSpace = errors.New("segment: no space left in log directory")
	// ErrNoDescriptors says that the process has as many files open as it may: the
	// append was taken back whole, and a later one may succeed.
	ErrNoDescriptors = errors.New("segment: no file descriptor left")
	// ErrQueueFull says that the disk has not kept up: there was no room in the queue
	// for as long as the append would wait.
	ErrQueueFull = errors.New("segment: queue full")
	// ErrStaleEpoch says that the append comes from a leader who was succeeded.
	ErrStaleEpoch = errors.New("segment: leader epoch is stale")
	// ErrTooLarge says that one append is larger than a segment can be.
	ErrTooLarge = errors.New("segment: append larger than segment.bytes")
)

// Reading.
var (
	// ErrOffsetOutOfRange says that an offset lies before the log start offset or
	// behind the end of what may be read.
	ErrOffsetOutOfRange = errors.New("segment: offset out of range")
	// ErrCorrupt says that bytes on the disk are not what was written; a
	// *CorruptError says where.
	ErrCorrupt = errors.New("segment: corrupt")
)

// Opening.
var (
	// ErrFormat says that a file is of a format that this version does not know.
	ErrFormat = errors.New("segment: unknown format")
)

// CorruptError says which bytes of which file are damaged. It is an ErrCorrupt.
type CorruptError struct {
	File     string
	Position int64 // bytes from the start of the file
	Offset   int64 // the first offset that cannot be read
	Cause    error
}

// Error names the file, the position and the cause.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("segment: corrupt batch in %s at byte %d (offset %d): %v", e.File, e.Position, e.Offset, e.Cause)
}

// Unwrap gives ErrCorrupt and the cause.
func (e *CorruptError) Unwrap() []error { return []error{ErrCorrupt, e.Cause} }
