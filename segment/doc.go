// Package segment keeps the records of partitions in files. It is the only room
// that knows file names, byte positions, checksums and fsync; what a record
// means to a client is decided above it.
//
// A [Dir] is one log directory. It holds the [Log] of every partition that is
// stored there and owns exactly one committer, the goroutine through which all
// records of the directory reach the disk:
//
//	Append … Append      many callers, each queues a batch and returns
//	      |
//	  committer          takes all that is queued in all logs as one round: gives out offsets;
//	      |              what is large goes straight into its segment, what is small through
//	      v              the journal; syncs, then publishes
//	Done … Done          the callbacks: durable, at these offsets
//
// While a round syncs, the next one gathers, so the batch size follows the
// load by itself. With nothing queued the committer sleeps on a channel.
//
// Offsets are given out by the committer, not by Append: the order of the queue
// is the order of the log, and a round that fails has nothing behind it that
// would have to be taken back.
//
// DESIGN.md lists the files. Logs, indexes, snapshots and epochs are in Apache Kafka's own
// formats. Everything but the .log files and log-start-offset, and the notes of a truncation, can be rebuilt from the .log
// files. Nothing is created before the first append.
package segment
