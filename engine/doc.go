// Package engine answers what remains when files (package segment) and sockets
// (package server) are taken away: which partitions exist, who may read how
// far, when an append counts, what a topic's configuration means.
//
// An [Engine] holds the catalogue (what exists) and one [Partition] for every
// partition that lives on this node. It follows the catalogue's changes by
// subscription: when the call that creates a topic returns, its partitions can be
// produced to.
//
//	Partition.Produce   admit the batch, queue it in the log, answer once durable
//	Partition.Read      whole batches below the high watermark
//	Partition.Watch     be woken when the high watermark moves
//
// The high watermark is moved by a [Replicator]. [Solo], the replicator of a
// single node, moves it as soon as the log is durable here.
package engine
