package engine

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/vfs"
)

// slowly opens an engine whose copies into b stand still at a file operation until they are let go.
func slowly(t *testing.T, at vfs.Fault) (e *Engine, p *Partition, faulty *vfs.Faulty, reached <-chan struct{}, release func(), a, b string) {
	t.Helper()
	a, b, both := twoDirs(t)
	faulty = vfs.NewFaulty(vfs.OS())
	e = mustOpen(t, faulty, both)
	p = partitionOf(e, createTopic(t, e, "orders", 1, nil), 0)
	for i := range int32(40) {
		if r := <-send(p, idempotent(t, 5, i, fmt.Sprint(i, strings.Repeat("x", 200_000)))); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	arrived, let := make(chan struct{}), make(chan struct{})
	once := sync.OnceFunc(func() { close(arrived) })
	at.Path = filepath.Join(b, at.Path)
	at.Stall, at.Nth = let, max(at.Nth, 1)
	at.Do = once
	faulty.Inject(at)
	release = sync.OnceFunc(func() { close(let) })
	t.Cleanup(release)
	return e, p, faulty, arrived, release, a, b
}

const copied = "topics/orders-0.*/*"

// A move that is no longer wanted ends where it is; one to elsewhere takes its place.
func TestMoveIsCancelled(t *testing.T) {
	e, p, _, reached, release, a, b := slowly(t, vfs.Fault{Op: vfs.OpSync, Path: copied, Nth: 3})
	begins(t, e, p, b)
	<-reached
	m, moving := e.Moving(e.Image().Topic("orders"), 0)
	if !moving || m.Dir != b || m.OffsetLag <= 0 || m.OffsetLag > 40 {
		t.Errorf("moving: %v, %+v", moving, m)
	}
	if r := <-send(p, idempotent(t, 5, 40, "meanwhile")); r.Err != nil {
		t.Error(r.Err)
	}
	begins(t, e, p, a)
	release()
	moved(t, e, p, a)
	if _, moving := e.Moving(e.Image().Topic("orders"), 0); moving {
		t.Error("still moving")
	}
	holdsAll(t, p, 41)
	begins(t, e, p, b)
	moved(t, e, p, b)
	holdsAll(t, p, 41)
}

// A topic that is deleted while a partition of it is being moved leaves nothing in either directory.
func TestTopicIsDeletedDuringAMove(t *testing.T) {
	e, p, _, reached, release, a, b := slowly(t, vfs.Fault{Op: vfs.OpSync, Path: copied, Nth: 3})
	begins(t, e, p, b)
	<-reached
	if _, err := e.Topics().Delete(context.Background(), []TopicRef{{ID: p.topicID}}); err != nil {
		t.Fatal(err)
	}
	if r := <-send(p, idempotent(t, 5, 40, "late")); !errors.Is(r.Err, ErrUnknownPartition) {
		t.Errorf("append: %v", r.Err)
	}
	release()
	eventually(t, "the copy is gone", func() bool {
		left, err := filepath.Glob(filepath.Join(b, "topics", "*"))
		return err == nil && len(left) == 0 && idle(e)
	})
	eventually(t, "the log is gone, or is to go", func() bool {
		left, err := filepath.Glob(filepath.Join(a, "topics", "*"))
		return err == nil && (len(left) == 0 || len(left) == 1 && strings.HasSuffix(left[0], ".deleted"))
	})
}

// A directory that fails in the middle: the partition stays where it is, nobody notices, the move is given up.
func TestMoveToAFailingDirectory(t *testing.T) {
	e, p, faulty, reached, release, a, b := slowly(t, vfs.Fault{Op: vfs.OpSync, Path: copied, Nth: 3, Err: syscall.EIO})
	begins(t, e, p, b)
	<-reached
	faulty.Heal()
	release()
	eventually(t, "the move is given up", func() bool {
		return e.Image().Topic("orders").Partitions[0].Futures == nil && idle(e)
	})
	if p.LogDir() != a {
		t.Fatal("it lies in a directory that has failed")
	}
	if r := <-send(p, idempotent(t, 5, 40, "after")); r.Err != nil {
		t.Error(r.Err)
	}
	holdsAll(t, p, 41)
	if errs := e.MoveReplicas(context.Background(), []Move{{p, b}}); !errors.Is(errs[0], segment.ErrFenced) {
		t.Errorf("again: %v", errs[0])
	}
}

// The same while the log is held: those that wait are let go.
func TestMoveFailsAtItsEnd(t *testing.T) {
	e, p, faulty, reached, release, a, b := slowly(t, vfs.Fault{Op: vfs.OpSync, Path: copied[:len(copied)-1] + "*.snapshot*", Err: syscall.EIO})
	begins(t, e, p, b)
	<-reached
	done := make(chan ProduceResult, 1)
	go func() { done <- <-send(p, idempotent(t, 5, 40, "meanwhile")) }()
	select {
	case r := <-done:
		t.Errorf("an append to a log that is held: %+v", r)
	case <-time.After(50 * time.Millisecond):
	}
	faulty.Heal()
	release()
	if r := <-done; r.Err != nil || r.BaseOffset != 40 {
		t.Errorf("the append that had to wait: %+v", r)
	}
	eventually(t, "the move is given up", func() bool { return e.Image().Topic("orders").Partitions[0].Futures == nil && idle(e) })
	if p.LogDir() != a || len(all(t, p)) != 41 {
		t.Errorf("in %s, %d records", p.LogDir(), len(all(t, p)))
	}
}

// A full disk is waited for: the copy goes, and the move is tried again.
func TestMoveToAFullDirectory(t *testing.T) {
	e, p, faulty, reached, release, _, b := slowly(t, vfs.Fault{Op: vfs.OpWrite, Path: copied, Nth: 3, Err: syscall.ENOSPC})
	begins(t, e, p, b)
	<-reached
	faulty.Heal()
	release()
	moved(t, e, p, b)
	holdsAll(t, p, 40)
}

// atTheEnd is slowly, at the last file operation before the catalogue is told.
func atTheEnd(t *testing.T) (e *Engine, p *Partition, faulty *vfs.Faulty, reached <-chan struct{}, release func(), a, b string) {
	return slowly(t, vfs.Fault{Op: vfs.OpSync, Path: "topics/orders-0.*/*.snapshot*"})
}

// The catalogue does not answer whether the partition lies elsewhere: until it does, nobody may append.
func TestMoveWhileTheCatalogueStalls(t *testing.T) {
	for _, cancelled := range []bool{false, true} {
		e, p, faulty, reached, release, a, b := atTheEnd(t)
		e.mover.proposal = 20 * time.Millisecond
		begins(t, e, p, b)
		<-reached
		stall, asked := make(chan struct{}), make(chan struct{})
		faulty.Inject(vfs.Fault{Op: vfs.OpSync, Path: probeFile, Stall: stall, Nth: 1, Do: sync.OnceFunc(func() { close(asked) })})
		cancel := make(chan []error, 1)
		if cancelled { // it is before the other one
			go func() { cancel <- e.MoveReplicas(context.Background(), []Move{{p, a}}) }()
			<-asked
		}
		release()
		<-asked
		done := make(chan ProduceResult, 1)
		go func() { done <- <-send(p, idempotent(t, 5, 40, "meanwhile")) }()
		select {
		case r := <-done:
			t.Fatalf("an append while nobody knows where to: %+v", r)
		case <-time.After(200 * time.Millisecond): // some proposals have gone unanswered by now
		}
		if got := all(t, p); len(got) != 40 {
			t.Errorf("%d records to read meanwhile", len(got))
		}
		close(stall)
		if r := <-done; r.Err != nil || r.BaseOffset != 40 {
			t.Errorf("the append that had to wait: %+v", r)
		}
		where := b
		if cancelled {
			where = a
			if errs := <-cancel; errs[0] != nil {
				t.Error(errs[0])
			}
		}
		moved(t, e, p, where)
		holdsAll(t, p, 41)
		closeNow(t, e)
		e = mustOpen(t, vfs.OS(), a+","+b)
		if got := all(t, partitionOf(e, p.topicID, 0)); len(got) != 41 {
			t.Errorf("%d records after a restart", len(got))
		}
	}
}

// The catalogue fails on it: nothing is appended until a restart knows where the partition lies.
func TestMoveWhenTheCatalogueFails(t *testing.T) {
	e, p, faulty, reached, release, a, b := atTheEnd(t)
	begins(t, e, p, b)
	<-reached
	faulty.Inject(vfs.Fault{Op: vfs.OpSync, Path: probeFile, Nth: 1, Err: syscall.EIO})
	release()
	eventually(t, "the catalogue has failed", func() bool { return e.catalog.Err() != nil })
	done := make(chan ProduceResult, 1)
	p.Produce(context.Background(), Produce{Records: idempotent(t, 5, 40, "x"), Acks: -1, RequestVersion: 9, Timeout: 50 * time.Millisecond}, func(r ProduceResult) { done <- r })
	if r := <-done; !errors.Is(r.Err, segment.ErrQueueFull) {
		t.Errorf("an append: %+v", r)
	}
	holdsAll(t, p, 40)
	e.Close(context.Background())
	e = mustOpen(t, vfs.OS(), a+","+b)
	p = partitionOf(e, p.topicID, 0)
	if r := <-send(p, idempotent(t, 5, 40, "x")); r.Err != nil || r.BaseOffset != 40 {
		t.Errorf("an append after a restart: %+v", r)
	}
	moved(t, e, p, b)
}

// A partition moves away from a directory that takes no more appends.
func TestMoveFromAFencedDirectory(t *testing.T) {
	a, b, both := twoDirs(t)
	faulty := vfs.NewFaulty(vfs.OS())
	e := mustOpen(t, faulty, both)
	p := partitionOf(e, createTopic(t, e, "orders", 1, nil), 0)
	<-send(p, idempotent(t, 5, 0, "x"))
	faulty.Inject(vfs.Fault{Op: vfs.OpSync, Path: filepath.Join(a, "journal", "*"), Err: syscall.EIO})
	if r := <-send(p, idempotent(t, 5, 1, "y")); !errors.Is(r.Err, segment.ErrFenced) {
		t.Fatalf("%+v", r)
	}
	begins(t, e, p, b)
	eventually(t, "it has moved", func() bool { return p.LogDir() == b && idle(e) })
	if r := <-send(p, idempotent(t, 5, 1, "y")); r.Err != nil || r.BaseOffset != 1 {
		t.Errorf("%+v", r)
	}
	if got := all(t, p); len(got) != 2 || got[1] != "y" {
		t.Errorf("%v", got)
	}
}

// A destination that does not answer while the log is held keeps nobody waiting for longer than a hold may take.
func TestMoveToADirectoryThatStalls(t *testing.T) {
	e, p, faulty, reached, release, _, b := atTheEnd(t)
	e.mover.patience = 100 * time.Millisecond
	begins(t, e, p, b)
	<-reached
	if r := <-send(p, idempotent(t, 5, 40, "meanwhile")); r.Err != nil || r.BaseOffset != 40 {
		t.Errorf("an append while the destination stalls: %+v", r)
	}
	faulty.Heal()
	release()
	moved(t, e, p, b)
	holdsAll(t, p, 41)
}

// Records that are deleted while they are copied are in nobody's way, even when they go faster than they are copied.
func TestRecordsAreDeletedDuringAMove(t *testing.T) {
	e, p, _, reached, release, _, b := slowly(t, vfs.Fault{Op: vfs.OpSync, Path: copied, Nth: 2})
	begins(t, e, p, b)
	<-reached
	if _, err := p.DeleteRecordsBefore(context.Background(), -1); err != nil {
		t.Fatal(err)
	}
	release()
	for i := int32(40); i < 400; i++ {
		if r := <-send(p, idempotent(t, 5, i, strings.Repeat("y", 30_000))); r.Err != nil {
			t.Fatal(r.Err)
		}
		if _, err := p.DeleteRecordsBefore(context.Background(), int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	moved(t, e, p, b)
	if got := all(t, p); len(got) != 1 || p.LogStartOffset() != 399 || p.HighWatermark() != 400 {
		t.Errorf("%d records, %d to %d", len(got), p.LogStartOffset(), p.HighWatermark())
	}
}
