// Package isr is what a partition's leader knows of its followers, and what follows from it: the high
// watermark, and the in-sync set that the leader should ask the controller for.
//
// It is pure: no goroutine, no lock, no clock. A [Leader] is fed with what happens, each time with the
// instant at which it did, and asked for the consequences. The rules are Kafka's
// (Partition.scala, Replica.scala; KIP-497 maximal in-sync set, KIP-903 broker epochs, KIP-966 no
// high watermark below min.insync.replicas); where a leader that pushes differs, the method says so.
package isr
