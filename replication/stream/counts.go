package stream

import "sync/atomic"

// Counts is what went over the streams of a Push or a Receiver. Read them with Load; they only grow.
type Counts struct {
	Connections         atomic.Int64
	BytesIn, BytesOut   atomic.Int64 // on the wire
	FramesIn, FramesOut atomic.Int64
	AppendBytes         atomic.Int64 // of record batches, sent or received
	AppendFrames        atomic.Int64
	AckFrames           atomic.Int64
	Truncations, Resets atomic.Int64
	Moves               atomic.Int64 // of partitions between the normal and the bulk stream
	Starved             atomic.Int64 // times that a stream had to wait for the follower's disk
	Discarded           atomic.Int64 // APPENDs that came too late to be of use
	Refused             atomic.Int64 // frames and partitions of an earlier leader epoch
}
