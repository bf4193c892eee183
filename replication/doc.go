// Package replication makes a node one of several. It is what the engine declares as Cluster and
// Replicator, and puts the rooms below together: connections between nodes (peer), who is there (gossip,
// liveness), the catalogue over Raft (controller), and the streams by which leaders push records to their
// followers (stream, isr). A node that is alone uses engine.Solo and needs nothing from here.
package replication
