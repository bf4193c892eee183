package engine

import (
	"testing"
	"time"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/segment/batch"
)

// Retention follows the settings in force, those of the topic before those of the broker, also
// when they change while the broker runs; it touches no topic whose cleanup.policy has no delete.
func TestRetentionFollowsTheSettings(t *testing.T) {
	e := openEngine(t, t.TempDir(), map[string]string{
		"log.retention.check.interval.ms": "5", "log.initial.task.delay.ms": "0", "log.retention.hours": "-1", "log.segment.delete.delay.ms": "0",
	})
	fill := func(topic string, configs map[string]string) *Partition {
		t.Helper()
		p := partitionOf(e, createTopic(t, e, topic, 1, configs), 0)
		b := batch.NewBuilder(batch.BuilderOptions{})
		b.Append(time.Now().Add(-10*24*time.Hour).UnixMilli(), []byte("k"), []byte("x"), nil)
		records, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan ProduceResult, 1)
		p.Produce(t.Context(), Produce{Records: records, Acks: -1, RequestVersion: 9}, func(r ProduceResult) { done <- r })
		if r := <-done; r.Err != nil {
			t.Fatal(r.Err)
		}
		return p
	}
	set := func(kind catalog.ResourceType, name string, configs map[string]string) {
		t.Helper()
		result, err := e.Catalog().Propose(t.Context(), catalog.AlterConfigs{Base: e.Image().Version(), Changes: []catalog.ConfigChange{{Type: kind, Name: name, Configs: configs}}})
		if err != nil || result.Errors[0] != nil {
			t.Fatal(err, result.Errors)
		}
	}
	goes := func(what string, p *Partition) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); p.LogStartOffset() == 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: nothing was deleted", what)
			}
		}
	}
	kept := map[string]*Partition{
		"compacted": fill("compacted", map[string]string{"cleanup.policy": "compact"}),
		"own":       fill("own", map[string]string{"retention.ms": "31536000000"}),
		"sized":     fill("sized", map[string]string{"retention.ms": "-1"}),
	}
	goes("the topic's own retention", fill("short", map[string]string{"retention.ms": "1000"}))
	inherits := fill("inherits", nil)
	both := fill("both", map[string]string{"cleanup.policy": "compact,delete"})
	for range 2 { // a look that began before the broker's settings may end behind them
		goes("the next topic", fill("later"+time.Now().Format("150405.000000000"), map[string]string{"retention.bytes": "0"}))
	}
	if inherits.LogStartOffset() != 0 {
		t.Error("log.retention.hours=-1 does not keep records")
	}
	set(catalog.ResourceBroker, "", map[string]string{"log.retention.ms": "3600000"})
	goes("the broker's retention", inherits)
	goes("delete beside compact", both)
	for name, p := range kept {
		if p.LogStartOffset() != 0 {
			t.Errorf("%s lost its records", name)
		}
	}
	set(catalog.ResourceTopic, "sized", map[string]string{"retention.ms": "-1", "retention.bytes": "0"})
	goes("a topic's new size", kept["sized"])
	set(catalog.ResourceTopic, "compacted", map[string]string{"cleanup.policy": "delete"})
	goes("a policy that deletes now", kept["compacted"])
}
