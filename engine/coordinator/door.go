package coordinator

import "context"

// Log is what the coordinator needs of one partition of __consumer_offsets.
type Log interface {
	// Append queues one batch, built with offsets from 0. It may block while the log's queue is full, until ctx ends.
	// When it returns nil, done is called exactly once, with the offsets of the batch once it is committed (durable), or
	// with the reason why it never will be; a batch that is refused may hear so before those ahead of it. done does
	// not block.
	Append(ctx context.Context, batch []byte, done func(base, last int64, err error)) error
	LogStartOffset() int64
	HighWatermark() int64
	// Read returns whole batches from the one that holds the offset, at least one while there is one below the
	// high watermark, and about maxBytes.
	Read(from int64, maxBytes int) ([]byte, error)
	// DeleteRecordsBefore moves the log start offset forward, durably.
	DeleteRecordsBefore(offset int64) error
}

// Topics is the door to what exists.
type Topics interface {
	// EnsureOffsetsTopic creates __consumer_offsets if it does not exist. On return its partitions can be used.
	EnsureOffsetsTopic(ctx context.Context) error
	// OffsetsPartitions is how many partitions __consumer_offsets has; 0 while it does not exist.
	OffsetsPartitions() int32
	// OffsetsLog is a partition of __consumer_offsets; nil when this node does not lead it.
	OffsetsLog(partition int32) Log
	// TopicID is the id of the topic that bears the name now.
	TopicID(name string) (id [16]byte, ok bool)
}
