package replication

import (
	"testing"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/segment/vfs"
)

// A node whose disk does not answer has others lead while that is so, and comes back by itself.
func TestStalledDisk(t *testing.T) {
	all := machines(t, 3, "min.insync.replicas", "2", "log.dir.stall.timeout.ms", "1000")
	sick := all[0]
	disk := vfs.NewFaulty(vfs.OS())
	sick.fs = disk
	start(t, all...)
	settle(t, all)
	id := create(t, sick, engine.NewTopic{Name: "orders", Partitions: 3, ReplicationFactor: 3})
	for index := range int32(3) {
		_, p := leaderOf(t, all, id, index)
		mustProduce(t, p, "before")
		inSync(t, all[1], id, index, 3)
	}
	thaw := make(chan struct{})
	disk.Inject(vfs.Fault{Op: vfs.OpWrite, Path: "*.journal", Stall: thaw})
	func() {
		defer close(thaw)
		for index := range int32(3) { // nobody notices a disk that nothing is written to
			_, p := leaderOf(t, all, id, index)
			p.Produce(t.Context(), engine.Produce{Records: record(t, "during"), Acks: -1, RequestVersion: 9}, func(engine.ProduceResult) {})
		}
		for index := range int32(3) {
			eventually(t, "others lead and are in sync", func() bool {
				placed := all[1].engine.Image().TopicByID(id).Partitions[index]
				return placed.Leader != sick.id && placed.Leader >= 0 && len(placed.ISR) == 2
			})
			_, p := leaderOf(t, all[1:], id, index)
			mustProduce(t, p, "during")
		}
	}()
	disk.Heal()
	for index := range int32(3) {
		inSync(t, all[1], id, index, 3)
		same(t, all, id, index)
	}
}
