package catalog

import (
	"errors"
	"fmt"
)

// Of opening.
var (
	// ErrFutureFormat means that the directory was written by a newer millrace.
	ErrFutureFormat = errors.New("catalog: written in a newer format than this version reads")
	// ErrClusterMismatch means that the directory belongs to another cluster.
	ErrClusterMismatch = errors.New("catalog: belongs to another cluster")
)

// Of a whole command.
var (
	// ErrClosed means that the catalog was closed before the command was taken up.
	ErrClosed = errors.New("catalog: closed")
	// ErrTooLarge means that the command does not fit into one transaction. Nothing was changed.
	ErrTooLarge = errors.New("catalog: change too large for one transaction")
	// ErrNoSpace means that the disk is too full to change anything safely. Nothing
	// was changed; changes are taken again once there is room.
	ErrNoSpace = errors.New("catalog: disk too full for a change")
	// ErrStalled means that the disk has not answered for longer than it may. Changes are
	// taken again when it does. Whether the change that met it takes effect is not known.
	ErrStalled = errors.New("catalog: the disk does not answer")
	// ErrFailed means that an earlier write failed, so the state on the disk is
	// not known; reading goes on, changes are refused until the catalog is opened again.
	ErrFailed = errors.New("catalog: refuses changes after a failed write")
	// ErrUnknownCommand means that an encoded command has a kind or version that is not known here.
	ErrUnknownCommand = errors.New("catalog: unknown command")
)

// Of one item of a command, see [Result].
var (
	// ErrTopicExists means that a topic of this name exists.
	ErrTopicExists = errors.New("catalog: topic exists")
	// ErrUnknownTopic means that no topic has this id or name.
	ErrUnknownTopic = errors.New("catalog: unknown topic")
	// ErrConflict means that what the change was planned on has changed meanwhile; plan again.
	ErrConflict = errors.New("catalog: changed meanwhile")
	// ErrInvalid means that the item contradicts itself, for instance a topic without partitions.
	ErrInvalid = errors.New("catalog: invalid item")
)

// CorruptError says which stored value could not be read.
type CorruptError struct {
	Key string // quoted key in Badger
	Err error
}

// Error names the key and what was wrong with its value.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("catalog: corrupt value at %s: %v", e.Key, e.Err)
}

// Unwrap returns what was wrong with the value.
func (e *CorruptError) Unwrap() error { return e.Err }
