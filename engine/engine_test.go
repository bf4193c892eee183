package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/engine/config"
	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

func openEngine(t testing.TB, dir string, properties map[string]string) *Engine {
	t.Helper()
	all := map[string]string{"log.dirs": dir, "node.id": "1"}
	for k, v := range properties {
		all[k] = v
	}
	cfg, _, err := config.ParseBroker(all)
	if err != nil {
		t.Fatal(err)
	}
	e, err := Open(context.Background(), Options{
		FS: vfs.OS(), Config: cfg, Now: time.Now, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return e
}

// partitionOf is nil for one that is not here.
func partitionOf(e *Engine, id catalog.TopicID, index int32) *Partition {
	p, _ := e.Partition(id, index)
	return p
}

func createTopic(t testing.TB, e *Engine, name string, partitions int, configs map[string]string) catalog.TopicID {
	t.Helper()
	topic := catalog.NewTopic{Name: name, Configs: configs}
	copy(topic.ID[:], name)
	for range partitions {
		topic.Partitions = append(topic.Partitions, catalog.Partition{Leader: 1, Replicas: []int32{1}, ISR: []int32{1}})
	}
	result, err := e.Catalog().Propose(context.Background(), catalog.CreateTopics{Topics: []catalog.NewTopic{topic}})
	if err != nil || result.Errors[0] != nil {
		t.Fatal(err, result.Errors)
	}
	return topic.ID
}

func produce(t testing.TB, p *Partition, acks int16, values ...string) ProduceResult {
	t.Helper()
	done := make(chan ProduceResult, 1)
	p.Produce(context.Background(), Produce{Records: records(t, values...), Acks: acks, RequestVersion: 9}, func(r ProduceResult) { done <- r })
	return <-done
}

func records(t testing.TB, values ...string) []byte {
	t.Helper()
	b := batch.NewBuilder(batch.BuilderOptions{})
	for _, v := range values {
		b.Append(1000, nil, []byte(v), nil)
	}
	made, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// Audit 10: a topic can be produced to as soon as it has been created.
func TestAudit10TopicIsReadyWhenItsCreationReturns(t *testing.T) {
	dir := t.TempDir()
	e := openEngine(t, dir, nil)
	for i := range 20 {
		id := createTopic(t, e, fmt.Sprintf("orders%d", i), 3, nil)
		for index := range int32(3) {
			p := partitionOf(e, id, index)
			if p == nil {
				t.Fatalf("partition %d is not there", index)
			}
			if r := produce(t, p, -1, "a", "b"); r.Err != nil || r.BaseOffset != 0 {
				t.Fatalf("%+v", r)
			}
			if p.HighWatermark() != 2 {
				t.Errorf("high watermark %d", p.HighWatermark())
			}
		}
	}
}

func TestPartitionsComeBackAfterARestart(t *testing.T) {
	dir := t.TempDir()
	e := openEngine(t, dir, nil)
	id := createTopic(t, e, "orders", 2, map[string]string{"segment.bytes": "1048576"})
	produce(t, partitionOf(e, id, 1), -1, "a", "b", "c")
	cluster := e.ClusterID()
	if err := e.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	e = openEngine(t, dir, nil)
	if e.ClusterID() != cluster {
		t.Errorf("cluster id %s, was %s", e.ClusterID(), cluster)
	}
	p := partitionOf(e, id, 1)
	if p == nil || p.HighWatermark() != 3 || p.Config().SegmentBytes != 1<<20 {
		t.Fatalf("partition %+v", p)
	}
	b, err := p.Read(nil, 0, 1<<20, true)
	if err != nil || len(b) == 0 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if _, err := p.Read(nil, 4, 1<<20, true); !errors.Is(err, ErrOffsetOutOfRange) {
		t.Errorf("read above the high watermark: %v", err)
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	dir := t.TempDir()
	e := openEngine(t, dir, nil)
	o := e.options
	if _, err := Open(context.Background(), o); !errors.Is(err, ErrDirectoryInUse) {
		t.Errorf("second open: %v", err)
	}
}

func TestWatchersWakeOnAppendAndOnDeletion(t *testing.T) {
	e := openEngine(t, t.TempDir(), nil)
	id := createTopic(t, e, "orders", 1, nil)
	p := partitionOf(e, id, 0)
	w := NewWaiter()
	p.Watch(w)
	defer p.Unwatch(w)
	produce(t, p, 1, "a")
	<-w.C
	if _, err := e.Catalog().Propose(context.Background(), catalog.DeleteTopics{IDs: []catalog.TopicID{id}}); err != nil {
		t.Fatal(err)
	}
	<-w.C
	if !p.Gone() || partitionOf(e, id, 0) != nil {
		t.Error("the deleted partition is still there")
	}
	if r := produce(t, p, 1, "late"); !errors.Is(r.Err, ErrUnknownPartition) {
		t.Errorf("produce to a deleted partition: %v", r.Err)
	}
}

func TestMinInsyncReplicasAndInternalTopics(t *testing.T) {
	e := openEngine(t, t.TempDir(), nil)
	id := createTopic(t, e, "careful", 1, map[string]string{"min.insync.replicas": "2"})
	p := partitionOf(e, id, 0)
	if r := produce(t, p, -1, "a"); r.Err != nil {
		t.Errorf("acks=all of a partition with one replica, as Kafka: %v", r.Err)
	}
	led(p, 1, 1, 2)
	if r := produce(t, p, -1, "a"); !errors.Is(r.Err, ErrNotEnoughReplicas) {
		t.Errorf("acks=all with one of two: %v", r.Err)
	}
	if r := produce(t, p, 1, "a"); r.Err != nil {
		t.Errorf("acks=1: %v", r.Err)
	}
	id = createTopic(t, e, OffsetsTopic, 1, nil)
	if r := produce(t, partitionOf(e, id, 0), 1, "a"); !errors.Is(r.Err, ErrInternalTopic) {
		t.Errorf("produce to an internal topic: %v", r.Err)
	}
}

func TestMetaRefusesDamageAndOthers(t *testing.T) {
	good := meta{ClusterID: newClusterID(), NodeID: 7}.encode()
	if m, err := decodeMeta(good); err != nil || m.NodeID != 7 {
		t.Fatalf("%+v %v", m, err)
	}
	for i := range good[:len(good)-1] {
		bad := append([]byte(nil), good...)
		bad[i] ^= 1
		if m, err := decodeMeta(bad); err == nil {
			t.Errorf("byte %d flipped is taken as %+v", i, m)
		}
	}
}

func TestDeleteRecordsFollowsThePolicy(t *testing.T) {
	e := openEngine(t, t.TempDir(), nil)
	ctx := context.Background()
	p := partitionOf(e, createTopic(t, e, "plain", 1, nil), 0)
	produce(t, p, 1, "a", "b", "c")
	if start, err := p.DeleteRecordsBefore(ctx, 2); start != 2 || err != nil || p.LogStartOffset() != 2 {
		t.Errorf("delete before 2: %d, %v", start, err)
	}
	if start, err := p.DeleteRecordsBefore(ctx, -1); start != 3 || err != nil {
		t.Errorf("delete all: %d, %v", start, err)
	}
	if _, err := p.DeleteRecordsBefore(ctx, 4); !errors.Is(err, ErrOffsetOutOfRange) {
		t.Errorf("delete behind the end: %v", err)
	}
	compacted := partitionOf(e, createTopic(t, e, "compacted", 1, map[string]string{"cleanup.policy": "compact"}), 0)
	if _, err := compacted.DeleteRecordsBefore(ctx, 0); !errors.Is(err, ErrPolicyViolation) {
		t.Errorf("delete from a compacted topic: %v", err)
	}
	internal := partitionOf(e, createTopic(t, e, OffsetsTopic, 1, nil), 0)
	if _, err := internal.DeleteRecordsBefore(ctx, 0); !errors.Is(err, ErrInternalTopic) {
		t.Errorf("delete from an internal topic: %v", err)
	}
}
