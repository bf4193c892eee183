package replication

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/engine"
)

// A leader that neither its followers nor a majority of the metadata's voters hear says so to those who wait, long before they
// would give up.
func TestCutOff(t *testing.T) {
	all := machines(t, 3, "min.insync.replicas", "2")
	start(t, all...)
	settle(t, all)
	id := create(t, all[0], engine.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 3})
	leader, p := leaderOf(t, all, id, 0)
	inSync(t, leader, id, 0, 3)
	mustProduce(t, p, "before")
	var stopping sync.WaitGroup
	defer stopping.Wait()
	for _, m := range all {
		if m != leader {
			stopping.Go(m.stop)
		}
	}
	begun := time.Now()
	for {
		_, err := produce(t, p, "after")
		if errors.Is(err, engine.ErrNotHere) {
			break
		}
		if err != nil || time.Since(begun) > 15*time.Second { // those that stop may acknowledge at first
			t.Fatal(err)
		}
	}
	t.Logf("told after %s", time.Since(begun))
}
