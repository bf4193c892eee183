package replication

import (
	"testing"

	"github.com/millrace/millrace/engine"
)

// A machine is lost with its disk, and another takes its place, under its id, at another address, before gossip has
// forgotten the first.
func TestReplaced(t *testing.T) {
	all := machines(t, 3, "min.insync.replicas", "2")
	start(t, all...)
	settle(t, all)
	id := create(t, all[0], engine.NewTopic{Name: "orders", Partitions: 3, ReplicationFactor: 3})
	for index := range int32(3) {
		_, p := leaderOf(t, all, id, index)
		mustProduce(t, p, "before")
	}
	lost := all[2]
	lost.stop()
	lost.props["log.dirs"], lost.props["peer.listener"] = t.TempDir(), "127.0.0.1:0"
	start(t, lost)
	for index := range int32(3) {
		inSync(t, all[0], id, index, 3)
		_, p := leaderOf(t, all, id, index)
		mustProduce(t, p, "after")
		same(t, all, id, index)
	}
}
