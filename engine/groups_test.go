package engine

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/engine/coordinator"
	"github.com/millrace/millrace/engine/group"
	"github.com/millrace/millrace/segment"
)

func commitOffset(e *Engine, offset int64) error {
	r := e.Groups().Commit(context.Background(), "g", group.Commit{Generation: -1, RetentionMs: -1, Topics: []group.CommitTopic{{
		Topic: "t", Partitions: []group.CommitPartition{{Offset: offset, LeaderEpoch: -1}}}}})
	if r.Err != nil {
		return r.Err
	}
	return r.Topics[0].Partitions[0].Err
}

// committedOffset waits while the groups are being loaded.
func committedOffset(t *testing.T, e *Engine) int64 {
	t.Helper()
	for begun := time.Now(); ; time.Sleep(time.Millisecond) {
		got, err := e.Groups().FetchOffsets(context.Background(), "g", []coordinator.FetchTopic{{Topic: "t", Partitions: []int32{0}}}, false, false)
		if err == nil {
			return got[0].Offsets[0].Offset
		}
		if !errors.Is(err, coordinator.ErrLoading) || time.Since(begun) > time.Minute {
			t.Fatal(err)
		}
	}
}

// TestGroupsOfOneNode: a node that is alone leads all partitions of __consumer_offsets from when they are made, and from its
// start; when they are deleted they can be made again.
func TestGroupsOfOneNode(t *testing.T) {
	dir := t.TempDir()
	few := map[string]string{"offsets.topic.num.partitions": "3"}
	e := openEngine(t, dir, few)
	if err := e.Groups().EnsureTopic(context.Background()); err != nil {
		t.Fatal(err)
	}
	if p, exists := e.Groups().PartitionFor("g"); !exists || p != coordinator.PartitionFor("g", 3) {
		t.Errorf("partition %d, %v", p, exists)
	}
	if err := commitOffset(e, 7); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	e = openEngine(t, dir, few)
	if have := committedOffset(t, e); have != 7 {
		t.Errorf("have %d after a restart", have)
	}
	name := OffsetsTopic
	deleted, err := e.Topics().Delete(context.Background(), []TopicRef{{Name: &name}})
	if err != nil || deleted[0].Err != nil {
		t.Fatal(err, deleted)
	}
	if err := commitOffset(e, 8); !errors.Is(err, coordinator.ErrNotCoordinator) {
		t.Errorf("commit without a topic: %v", err)
	}
	if err := e.Groups().EnsureTopic(context.Background()); err != nil {
		t.Fatal(err)
	}
	if have := committedOffset(t, e); have != -1 {
		t.Errorf("have %d in a new topic", have)
	}
	if err := commitOffset(e, 9); err != nil {
		t.Error(err)
	}
}

// TestOffsetsTopicGrows: what a group had stays with its partition; groups of the new ones can be stored.
func TestOffsetsTopicGrows(t *testing.T) {
	e := openEngine(t, t.TempDir(), map[string]string{"offsets.topic.num.partitions": "1"})
	if err := e.Groups().EnsureTopic(context.Background()); err != nil {
		t.Fatal(err)
	}
	grown := e.Topics().CreatePartitions(context.Background(), []MorePartitions{{Topic: OffsetsTopic, Count: 4}}, false)
	if grown[0].Err != nil {
		t.Fatal(grown)
	}
	if p, _ := e.Groups().PartitionFor("g"); p != coordinator.PartitionFor("g", 4) {
		t.Errorf("partition %d", p)
	}
	if err := commitOffset(e, 9); err != nil {
		t.Error(err)
	}
}

// TestLogOfAFormerLeadership: what was begun in one epoch is not written in another, though this node leads again.
func TestLogOfAFormerLeadership(t *testing.T) {
	e := openEngine(t, t.TempDir(), map[string]string{"offsets.topic.num.partitions": "1"})
	if err := e.Groups().EnsureTopic(context.Background()); err != nil {
		t.Fatal(err)
	}
	now := offsetsTopics{e}.OffsetsLog(0, 0)
	former := offsetsTopics{e}.OffsetsLog(0, -1)
	if err := commitOffset(e, 7); err != nil {
		t.Fatal(err)
	}
	end := now.LogEndOffset()
	b, err := now.Read(0, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := former.Append(context.Background(), b, nil); !errors.Is(err, coordinator.ErrNotLeader) {
		t.Errorf("append: %v", err)
	}
	if err := former.DeleteRecordsBefore(end); !errors.Is(err, coordinator.ErrNotLeader) {
		t.Errorf("deletion: %v", err)
	}
	if err := former.WaitCommitted(context.Background(), end+1); !errors.Is(err, coordinator.ErrNotLeader) {
		t.Errorf("waiting: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := now.WaitCommitted(ctx, end+1); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for what does not come: %v", err)
	}
	waited := make(chan error, 1)
	go func() { waited <- now.WaitCommitted(context.Background(), end+1) }()
	if err := commitOffset(e, 8); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Errorf("waiting for what comes: %v", err)
	}
}

func TestAppendErrorsOfGroups(t *testing.T) {
	disk := errors.New("I/O error")
	tests := []struct{ err, want error }{
		{nil, nil},
		{ErrNotHere, coordinator.ErrNotLeader},
		{segment.ErrClosed, coordinator.ErrNotLeader},
		{ErrUnknownPartition, coordinator.ErrNoPartition},
		{segment.ErrDeleted, coordinator.ErrNoPartition},
		{ErrNotEnoughReplicas, coordinator.ErrNotEnoughReplicas},
		{segment.ErrQueueFull, coordinator.ErrTimedOut},
		{segment.ErrTooLarge, coordinator.ErrTooLarge},
		{disk, disk},
	}
	for _, tt := range tests {
		err := tt.err
		if err != nil {
			err = fmt.Errorf("append: %w", err)
		}
		if have := appendError(err); !errors.Is(have, tt.want) || tt.err != nil && !errors.Is(have, tt.err) {
			t.Errorf("%v: have %v, want %v", tt.err, have, tt.want)
		}
	}
}

// slow takes its time with a role.
type slow struct{ Solo }

func (slow) Changed(*Partition, Role) { time.Sleep(50 * time.Millisecond) }

// When one change of the catalogue has this node lead many partitions of __consumer_offsets, none is loaded before its role is known: that would
// fail, and not be tried again.
func TestGroupsOfManyPartitionsElectedAtOnce(t *testing.T) {
	e := openEngine(t, t.TempDir(), map[string]string{"offsets.topic.num.partitions": "10"})
	if err := e.Groups().EnsureTopic(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := commitOffset(e, 7); err != nil {
		t.Fatal(err)
	}
	index, _ := e.Groups().PartitionFor("g")
	id := e.Image().Topic(OffsetsTopic).ID
	p := partitionOf(e, id, index)
	if index < 2 {
		t.Fatalf("partition %d is not the last to be told of", index)
	}
	p.replicator = manual{}
	p.LowerHighWatermark(0) // as where other replicas have yet to speak
	partitionOf(e, id, 1).replicator = slow{}
	result, err := e.catalog.Propose(t.Context(), catalog.RegisterBroker{Broker: catalog.Broker{ID: e.NodeID(), Incarnation: [16]byte{1}}})
	if err != nil || result.Errors[0] != nil {
		t.Fatal(err, result.Errors)
	}
	if p.LeaderEpoch() == 0 || !p.Leads() {
		t.Fatalf("epoch %d", p.LeaderEpoch())
	}
	p.AdvanceHighWatermark(p.LogEndOffset())
	if have := committedOffset(t, e); have != 7 {
		t.Errorf("have %d", have)
	}
}
