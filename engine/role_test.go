package engine

import (
	"errors"
	"testing"

	"github.com/millrace/millrace/engine/catalog"
)

// led makes node 1 the leader of p under an epoch, alone in sync among replicas.
func led(p *Partition, epoch int32, replicas ...int32) {
	p.assume(roleOf(&catalog.Partition{Leader: 1, LeaderEpoch: epoch, Replicas: replicas, ISR: []int32{1}}, 1))
}

// follows makes another node its leader.
func follows(p *Partition, epoch int32) {
	p.assume(roleOf(&catalog.Partition{Leader: 2, LeaderEpoch: epoch, Replicas: []int32{1, 2}, ISR: []int32{1, 2}}, 1))
}

// manual leaves the high watermark to the test.
type manual struct{ Solo }

func (manual) Appended(*Partition, int64) {}

// acks=all is answered when the high watermark has passed the records, in whatever order they are told of, and not before.
func TestAcksAllWaitsForTheHighWatermark(t *testing.T) {
	e := openEngine(t, t.TempDir(), nil)
	p := partitionOf(e, createTopic(t, e, "orders", 1, nil), 0)
	p.replicator = manual{}
	led(p, 1, 1, 2)
	first, second := make(chan ProduceResult, 1), make(chan ProduceResult, 1)
	ask := func(acks int16, done chan ProduceResult) {
		p.Produce(t.Context(), Produce{Records: records(t, "a", "b"), Acks: acks, RequestVersion: 9}, func(r ProduceResult) { done <- r })
	}
	ask(-1, first)
	ask(-1, second)
	alone := make(chan ProduceResult, 1)
	ask(1, alone)
	if r := <-alone; r.Err != nil || r.BaseOffset != 4 { // behind the others, so these are durable
		t.Fatalf("acks=1: %+v", r)
	}
	p.AdvanceHighWatermark(1)
	select {
	case r := <-first:
		t.Fatalf("answered at 1: %+v", r)
	default:
	}
	p.AdvanceHighWatermark(3)
	if r := <-first; r.Err != nil || r.BaseOffset != 0 {
		t.Fatalf("at 3: %+v", r)
	}
	select {
	case r := <-second:
		t.Fatalf("answered at 3: %+v", r)
	default:
	}
	p.AdvanceHighWatermark(4)
	if r := <-second; r.Err != nil || r.BaseOffset != 2 {
		t.Fatalf("at 4: %+v", r)
	}
}

func TestAcksAllWithTooFewAfterTheAppend(t *testing.T) {
	e := openEngine(t, t.TempDir(), nil)
	p := partitionOf(e, createTopic(t, e, "careful", 1, map[string]string{"min.insync.replicas": "2"}), 0)
	p.replicator = manual{}
	p.assume(roleOf(&catalog.Partition{Leader: 1, LeaderEpoch: 1, Replicas: []int32{1, 2}, ISR: []int32{1, 2}}, 1))
	done := make(chan ProduceResult, 1)
	p.Produce(t.Context(), Produce{Records: records(t, "a"), Acks: -1, RequestVersion: 9}, func(r ProduceResult) { done <- r })
	led(p, 1, 1, 2)
	eventually(t, "the record is durable", func() bool { return p.LogEndOffset() == 1 })
	p.AdvanceHighWatermark(1)
	if r := <-done; !errors.Is(r.Err, ErrNotEnoughReplicasAfterAppend) {
		t.Fatalf("%+v", r)
	}
}

// A node that leads no longer says so to those who wait and to those who come, and takes nothing under the old epoch.
func TestLeadershipLost(t *testing.T) {
	e := openEngine(t, t.TempDir(), nil)
	p := partitionOf(e, createTopic(t, e, "orders", 1, nil), 0)
	p.replicator = manual{}
	led(p, 4, 1, 2)
	waiting := make(chan ProduceResult, 1)
	p.Produce(t.Context(), Produce{Records: records(t, "a"), Acks: -1, RequestVersion: 9}, func(r ProduceResult) { waiting <- r })
	eventually(t, "the record is durable", func() bool { return p.LogEndOffset() == 1 })
	watcher := NewWaiter()
	p.Watch(watcher)
	follows(p, 5)
	if r := <-waiting; !errors.Is(r.Err, ErrNotHere) {
		t.Errorf("the waiting one: %+v", r)
	}
	<-watcher.C
	for _, acks := range []int16{-1, 0, 1} {
		if r := produce(t, p, acks, "late"); !errors.Is(r.Err, ErrNotHere) {
			t.Errorf("acks=%d: %v", acks, r.Err)
		}
	}
	if _, err := p.DeleteRecordsBefore(t.Context(), 0); !errors.Is(err, ErrNotHere) {
		t.Errorf("delete: %v", err)
	}
	for epoch, want := range map[int32]error{4: ErrFencedLeaderEpoch, 5: ErrNotHere, 6: ErrUnknownLeaderEpoch, -1: ErrNotHere} {
		if err := p.CheckLeader(epoch); !errors.Is(err, want) {
			t.Errorf("epoch %d: %v", epoch, err)
		}
	}
	p.AdvanceHighWatermark(1) // the new leader has the record after all: nobody is answered twice
	led(p, 6, 1, 2)
	if r := produce(t, p, 1, "mine again"); r.Err != nil || r.BaseOffset != 1 {
		t.Errorf("%+v", r)
	}
}

// An append that becomes durable when another node leads is not acknowledged, whatever that one has committed at its offset.
func TestNotCommittedUnderAnotherLeader(t *testing.T) {
	e := openEngine(t, t.TempDir(), nil)
	p := partitionOf(e, createTopic(t, e, "orders", 1, nil), 0)
	p.replicator = manual{}
	led(p, 1, 1, 2)
	follows(p, 2)
	p.AdvanceHighWatermark(10)
	told := make(chan error, 1)
	p.whenCommitted(3, func(err error) { told <- err })
	if err := <-told; !errors.Is(err, ErrNotHere) {
		t.Errorf("told %v", err)
	}
}

// What concerns a partition that could not be made when its topic was is no reason to fall over.
func TestChangeOfAPartitionThatWasNotMade(t *testing.T) {
	e := openEngine(t, t.TempDir(), nil)
	id := createTopic(t, e, "orders", 2, nil)
	e.partitions.Delete(id)
	if err := e.changePartition(e.Image().TopicByID(id), 1); err != nil {
		t.Fatal(err)
	}
	if p := partitionOf(e, id, 1); !p.Leads() {
		t.Error("it is not there")
	}
}

// observed counts what a replicator is told.
type observed struct {
	Solo
	changed *int
}

func (o observed) Changed(*Partition, Role) { *o.changed++ }

// A replicator hears of another min.insync.replicas, of the topic's and of the broker's: it decides what is committed.
func TestReplicatorHearsOfConfigs(t *testing.T) {
	e := openEngine(t, t.TempDir(), nil)
	p := partitionOf(e, createTopic(t, e, "orders", 1, nil), 0)
	changed := 0
	p.replicator = observed{changed: &changed}
	for i, resource := range []catalog.ConfigChange{
		{Type: catalog.ResourceTopic, Name: "orders", Configs: map[string]string{"min.insync.replicas": "2"}},
		{Type: catalog.ResourceBroker, Configs: map[string]string{"min.insync.replicas": "3"}},
	} {
		result, err := e.catalog.Propose(t.Context(), catalog.AlterConfigs{Base: e.Image().Version(), Changes: []catalog.ConfigChange{resource}})
		if err != nil || result.Errors[0] != nil {
			t.Fatal(err, result.Errors)
		}
		if changed != i+1 {
			t.Fatalf("told %d times after change %d", changed, i)
		}
	}
}
