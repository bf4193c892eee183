package coordinator

import "context"

// Log is one leadership of one partition of __consumer_offsets: what the coordinator may do with the log while this node
// leads it in one epoch. When that is over, Append and DeleteRecordsBefore refuse with ErrNotLeader, although the node may
// lead again in another epoch: what a former leadership brings late must not come to lie behind what a later one wrote.
type Log interface {
	// Append queues one batch, built with offsets from 0. It may block while the log's queue is full, until ctx ends.
	// When it returns nil, done is called exactly once: with the offsets of the batch once it is committed (durable on all
	// replicas in sync), or with the reason why nobody waits for that any longer, in the words of errors.go. After a
	// reason the batch may still be in the log. A batch that is refused may hear so before those ahead of it. done
	// does not block.
	Append(ctx context.Context, batch []byte, done func(base, last int64, err error)) error
	LogStartOffset() int64
	// LogEndOffset is at least, as soon as this node leads, the end of what any leader before has acknowledged.
	LogEndOffset() int64
	HighWatermark() int64
	// WaitCommitted returns nil once the high watermark has reached an offset, and the error of ctx when that ends first.
	// Any other error says that it will not.
	WaitCommitted(ctx context.Context, offset int64) error
	// Read returns whole batches from the one that holds the offset, at least one while there is one below the
	// high watermark, and about maxBytes.
	Read(from int64, maxBytes int) ([]byte, error)
	// DeleteRecordsBefore moves the log start offset forward, durably.
	DeleteRecordsBefore(offset int64) error
}

// Topics is the door to what exists.
type Topics interface {
	// EnsureOffsetsTopic creates __consumer_offsets if it does not exist. On return it does; its partitions are told by
	// TopicCreated and Elected, which may come a little later when another node was faster.
	EnsureOffsetsTopic(ctx context.Context) error
	// OffsetsLog is a partition of __consumer_offsets that this node leads in that epoch; nil when it cannot be used here.
	// It does not block.
	OffsetsLog(partition, epoch int32) Log
	// TopicID is the id of the topic that bears the name now.
	TopicID(name string) (id [16]byte, ok bool)
}
