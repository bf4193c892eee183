// Package controller drives the catalogue's state machine (engine/catalog) over several nodes: the same commands,
// the same images, through hashicorp/raft instead of straight into Badger.
//
// A [Controller] offers what a catalog.Catalog does (Image, Propose, Subscribe, Err, Close), on every
// node: reading is an atomic pointer to this node's image, proposing goes to the leader wherever it
// is. A proposal has an id of its own, so that it can be sent again after an unknown outcome
// and is applied once.
//
// Each node has one raft at a time. One whose disk has failed or stalled is shut down, and another is begun when the disk
// answers (see replication/raftlog). The state machine outlives it.
package controller
