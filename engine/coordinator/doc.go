// Package coordinator runs groups (package group) over the partitions of __consumer_offsets.
//
// A partition that this node leads has a shard, from Elected to Resigned: the groups whose ids hash to it, one lock, and the queue of records on their
// way to the log. A request takes the lock, steps its group, leaves the lock, and waits for its answer:
//
//	request ─ lock: Step ─ unlock ──────────────────── wait ─────────────────────────> answer
//	               └─ records ─> queue ─ drain: one batch of many ─> Log.Append            ^
//	                                                   done, in order ─ settle: lock, Step(Written)
//
// The lock is never held across I/O. Many commits are on their way at once: while the log writes one batch,
// the next gathers. What waits is bounded in bytes; beyond that requests wait in turn, each with its deadline.
//
// There is no compaction. A shard whose log has grown well beyond what is live writes all live state again at
// the end, and then moves the log's start there. A crash between the two leaves both, and reading both in
// order gives the same groups.
package coordinator
