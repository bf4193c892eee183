// Package segment keeps the records of partitions in files. It is the only room
// that knows file names, byte positions, checksums and fsync; what a record
// means to a client is decided above it.
//
// A [Dir] is one log directory. It holds the [Log] of every partition that is
// stored there and owns exactly one committer, the goroutine through which all
// bytes of the directory reach the disk:
//
//	Append … Append      many callers, each queues a batch and returns
//	      |
//	  committer          takes all that is queued in all logs as one round:
//	      |              gives out offsets, writes, one fdatasync per file that
//	      |              was touched (side by side), then publishes
//	      v
//	Done … Done          the callbacks: durable, at these offsets
//
// While a round syncs, the next one gathers, so the batch size follows the
// load by itself. With nothing queued the committer sleeps on a channel; there
// is no timer.
//
// Offsets are given out by the committer, not by Append: the order of the queue
// is the order of the log, and a round that fails has nothing behind it that
// would have to be taken back.
//
// # Files
//
//	DIR/topics/NAME-PARTITION.TOPICID/     TOPICID: 22 characters, URL-safe base64
//	    00000000000000000000.log           record batches, back to back (package batch)
//	    00000000000000000000.index         offset → position, sparse
//	    00000000000000000000.timeindex     timestamp → offset, sparse
//	    00000000000000000123.snapshot      producers as of offset 123 (package producer)
//	    leader-epoch-checkpoint            which epoch began at which offset
//	    log-start-offset                   where reading begins, when not at the first file
//	DIR/clean-shutdown                     present between a clean close and the next open
//
// All of them but log-start-offset are in Apache Kafka's own formats. Everything
// but the .log files and log-start-offset can be rebuilt from the .log files.
// Nothing is created before the first append.
package segment
