package stream

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/millrace/millrace/segment"
)

// Conn is a connection to one other broker, such as a net.Conn. Close may be called more than once, and makes what waits in
// Read and Write return. A Conn that has WriteBuffers too is given the pieces of several frames at once.
type Conn interface {
	io.ReadWriteCloser
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}

// buffersWriter is a Conn that writes many pieces in one call (writev), without a copy. It may change the slice, but
// not what its elements point to.
type buffersWriter interface {
	WriteBuffers(pieces [][]byte) (int64, error)
}

// Key names a partition.
type Key struct {
	TopicID   [16]byte
	Partition int32
}

// Source is the leader's log of a partition; a segment.Log and its high watermark. All methods may be called concurrently.
// Only View may block, on the disk.
type Source interface {
	View(v *segment.View, from, limit int64, maxBytes int, oneAtLeast bool) (int, error)
	LogStartOffset() int64
	LogEndOffset() int64 // of what is durable
	HighWatermark() int64
	// EndOffsetForEpoch is segment.Log's: the largest epoch up to the one asked for, and where it ended; (-1, -1) when
	// there is none or it is later than all.
	EndOffsetForEpoch(epoch int32) (foundEpoch int32, endOffset int64)
}

// Sink is the follower's log of a partition. All methods may be called concurrently; those with a context may block until it
// ends. What they did not do by then may still happen, but not to what is appended after their return.
type Sink interface {
	// Append is segment.Log's, with Keep and Follows. The bytes belong to the log until Done, which must be called once if
	// Append returns nil, and never otherwise.
	Append(ctx context.Context, a *segment.Append) error
	LogStartOffset() int64
	LogEndOffset() int64          // of what is durable
	Epochs() []segment.EpochEntry // rising; not to be changed
	// Truncate removes what lies at and behind offset, durably.
	Truncate(ctx context.Context, offset int64) error
	// Reset removes everything, durably; the log then begins and ends at offset.
	Reset(ctx context.Context, offset int64) error
	// MoveStart makes offset the log start offset, durably, unless that is later already.
	MoveStart(ctx context.Context, offset int64) error
	// SetHighWatermark says what the leader has committed, never more than this log holds. It does not block.
	// A new leader may know of less for a moment than the one before: what was said stays true.
	SetHighWatermark(offset int64)
}

// Host is the broker of a [Receiver]: what it follows.
type Host interface {
	// Follow returns the log of a partition that this broker follows under that leader in that epoch. Else
	// ErrUnknownPartition, ErrNotFollower (also when this broker has not heard of the epoch yet), an *EpochError when
	// there is a later epoch, or any error of the log. It may block until ctx ends, but not for a Receiver.Fence, which waits for it.
	//
	// After it has returned a log, a later epoch must be told by Receiver.Fence before anybody else appends to it.
	Follow(ctx context.Context, key Key, leader, epoch int32) (Sink, error)
}

// Observer hears of what becomes of a [Push]. No method may block. They are called on the stream's goroutines, for one partition
// in order: after Lost nothing is acknowledged before the partition was opened again. What was under way when
// Partition.Stop returned may still be told.
type Observer interface {
	// Acked says that the follower, in the registration followerEpoch, has everything before end on its disk. It is called
	// once when the logs have come together, and then as that offset moves.
	Acked(p *Partition, followerEpoch, end int64)
	// Lost says that a partition that had been acknowledged has no connection.
	Lost(p *Partition)
	// Fenced says that the follower knows of a later leader epoch. The partition is not pushed any more.
	Fenced(p *Partition, epoch int32)
	// Failed says that the partition could not be pushed; it is tried again, with pauses of up to Config.MaxRetry. A
	// segment.CorruptError is of the leader's log.
	Failed(p *Partition, err error)
}

// Identity is who a broker is.
type Identity struct {
	Cluster     string
	Broker      int32
	BrokerEpoch int64 // of its registration
}

// Config holds the settings of both sides. Zero values mean the defaults.
type Config struct {
	Self   Identity
	Logger *slog.Logger
	Now    func() time.Time

	// Heartbeat is the longest that a side says nothing. Default 500 ms.
	Heartbeat time.Duration
	// Silence is how long nothing may come before the connection is closed. Default 2 s.
	Silence time.Duration
	// WriteTimeout is how long one write may take. Default 10 s: a peer that is alive but takes nothing.
	WriteTimeout time.Duration
	// MaxBatchBytes bounds a record batch. Default 128 MiB.
	MaxBatchBytes int

	// Leader.

	// TurnBytes is what one partition sends before it is another one's turn. Default 256 KiB, at most 1 MiB.
	TurnBytes int
	// FarBytes is how much the normal stream sends of a partition that has not caught up before it goes to the bulk
	// stream. Default 4 MiB.
	FarBytes int64
	// WatermarkPause is the least time between two frames that only tell high watermarks. Default 2 ms.
	WatermarkPause time.Duration
	// MinRetry and MaxRetry bound the pauses before a partition is opened again that was refused. Default 10 ms and 1 s.
	MinRetry, MaxRetry time.Duration
	// Throttle is told of bytes of records that go out on the bulk stream, and tells how long to wait before the next do. It must
	// not block: heartbeats go on meanwhile. Default: no wait.
	Throttle func(bytes int) time.Duration
	// NeedBulk is called when partitions wait for a bulk stream that is not there. It must not block. Default: nothing.
	NeedBulk func()

	// Follower.

	// WindowBytes is how much memory one stream may fill before it is on the disk. Default 16 MiB.
	WindowBytes int64
	// BudgetBytes bounds that over all streams of a receiver; a stream gets less than WindowBytes if need be, but not less
	// than 1 MiB. Default 128 MiB.
	BudgetBytes int64
	// QueuePatience is how long an append waits for room in the log's queue. Default 1 s; it must be less than Silence.
	QueuePatience time.Duration
	// StorageTimeout bounds Truncate, Reset, MoveStart and Follow. Default 10 s.
	StorageTimeout time.Duration
	// MaxPartitions bounds the partitions that are open on one stream. Default 100,000.
	MaxPartitions int
}

func (c *Config) setDefaults() {
	setDefault(&c.Heartbeat, 500*time.Millisecond)
	setDefault(&c.Silence, 2*time.Second)
	setDefault(&c.WriteTimeout, 10*time.Second)
	setDefault(&c.MaxBatchBytes, 128<<20)
	setDefault(&c.TurnBytes, 256<<10)
	c.TurnBytes = min(c.TurnBytes, frameBytes)
	setDefault(&c.FarBytes, 4<<20)
	setDefault(&c.WatermarkPause, 2*time.Millisecond)
	setDefault(&c.MinRetry, 10*time.Millisecond)
	setDefault(&c.MaxRetry, time.Second)
	setDefault(&c.WindowBytes, 16<<20)
	setDefault(&c.BudgetBytes, 128<<20)
	setDefault(&c.QueuePatience, time.Second)
	setDefault(&c.StorageTimeout, 10*time.Second)
	setDefault(&c.MaxPartitions, 100_000)
	if c.Throttle == nil {
		c.Throttle = func(int) time.Duration { return 0 }
	}
	if c.NeedBulk == nil {
		c.NeedBulk = func() {}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

func setDefault[T int | int64 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}
