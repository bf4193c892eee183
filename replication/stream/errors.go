package stream

import (
	"errors"
	"fmt"
)

// What ends a connection.
var (
	// ErrProtocol says that the other side sent what it must not: damaged, unknown, too large or out of turn.
	ErrProtocol = errors.New("stream: protocol violated")
	// ErrStranger says that the other side is not who it should be, of another cluster, or of an unknown version.
	ErrStranger = errors.New("stream: wrong peer")
	// ErrSilent says that nothing came from the other side for Config.Silence.
	ErrSilent = errors.New("stream: peer is silent")
	// ErrNoRoom says that the receiver has given its memory to other streams.
	ErrNoRoom = errors.New("stream: no memory left for another stream")
)

// What a follower says of one partition; see Host.Follow and Observer.Failed.
var (
	// ErrUnknownPartition says that the follower knows no such partition. It is asked again.
	ErrUnknownPartition = errors.New("stream: unknown partition")
	// ErrNotFollower says that the follower does not follow this leader in this epoch, perhaps not yet. It is asked again.
	ErrNotFollower = errors.New("stream: not a follower")
	// ErrStorage says that the follower's log does not take the records. It is asked again.
	ErrStorage = errors.New("stream: storage error at the follower")
	// ErrDiverged says that the logs could not be brought together.
	ErrDiverged = errors.New("stream: logs do not come together")
	// ErrSuperseded says that the partition was opened on another connection, or with a later epoch.
	ErrSuperseded = errors.New("stream: opened elsewhere")
)

// EpochError says that a follower knows of a later leader epoch than the leader that has spoken: that one leads no more.
type EpochError struct{ Current int32 }

// Error names the epoch.
func (e *EpochError) Error() string {
	return fmt.Sprintf("stream: leader epoch %d is known", e.Current)
}
