// Package raftlog keeps what hashicorp/raft has to remember: the log and the few values
// of its stable store in one Badger ([Log]), and snapshots in files ([Snapshots]).
//
// Nothing is acknowledged before it is on the disk. A log with a hole or a damaged entry is
// an error that names the entry, never a shorter log: what is missing may have been counted
// for a majority.
//
// [Bounded] stands between raft and both. Raft waits for its disk for as long as that takes,
// and as a leader keeps sending heartbeats meanwhile, so that no other is elected: a disk that
// hangs stops the whole cluster. Bounded answers with an error when its bound has passed; after
// that the raft that was told so is finished, and a new one reads from the disk what is there.
package raftlog
