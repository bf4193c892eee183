// Package replication is the room for what spans nodes: discovery by gossip,
// the controller on Raft (metadata only), and the streams by which a leader pushes
// records to its followers. It plugs into the engine by implementing
// engine.Replicator, which decides when an append counts as committed; a node
// that is alone uses engine.Solo and needs nothing from here.
//
// A millrace of this version is one node. Built so far, and used by nothing yet: the metadata
// of several nodes (replication/controller, on replication/raftlog), the streams by which leaders push
// (replication/stream), and in-sync sets (replication/isr).
package replication
