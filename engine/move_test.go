package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// begins has a partition moved, and is done when that is recorded.
func begins(t *testing.T, e *Engine, p *Partition, dir string) {
	t.Helper()
	if errs := e.MoveReplicas(context.Background(), []Move{{p, dir}}); errs[0] != nil {
		t.Fatal(errs[0])
	}
}

// eventually waits for what has no signal of its own.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// moved waits until a partition lies in dir, and nothing of it anywhere else.
func moved(t *testing.T, e *Engine, p *Partition, dir string) {
	t.Helper()
	eventually(t, p.name+" lies in "+dir, func() bool { return p.LogDir() == dir })
	eventually(t, "nothing is left of the move of "+p.name, func() bool { return idle(e) && alone(t, e, p) })
	placed := e.Image().TopicByID(p.topicID).Partitions[p.index]
	if e.pathOf(placed.Dir(1)) != dir || placed.Futures != nil {
		t.Errorf("the catalogue says %s, future %v", e.pathOf(placed.Dir(1)), placed.Futures)
	}
}

func idle(e *Engine) bool {
	e.mover.mu.Lock()
	defer e.mover.mu.Unlock()
	return len(e.mover.jobs) == 0 && e.mover.workers == 0
}

// alone tells whether only the directory that p lies in has anything of it.
func alone(t *testing.T, e *Engine, p *Partition) bool {
	t.Helper()
	for _, d := range e.dirs {
		entries, err := e.options.FS.ReadDir(filepath.Join(d.path, "topics"))
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			if strings.HasPrefix(entry.Name(), p.name+".") && (d.path != p.LogDir() || strings.HasSuffix(entry.Name(), ".deleted") || strings.HasSuffix(entry.Name(), ".stray")) {
				return false
			}
		}
	}
	return true
}

// idempotent is a batch with one record of a producer.
func idempotent(t testing.TB, producer int64, sequence int32, value string) []byte {
	t.Helper()
	b := batch.NewBuilder(batch.BuilderOptions{Idempotent: true, ProducerID: producer, BaseSequence: sequence})
	b.Append(time.Now().UnixMilli(), nil, []byte(value), nil) // producers are forgotten by that
	built, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return built
}

func send(p *Partition, records []byte) <-chan ProduceResult {
	done := make(chan ProduceResult, 1)
	p.Produce(context.Background(), Produce{Records: records, Acks: -1, RequestVersion: 9, Timeout: 30 * time.Second}, func(r ProduceResult) { done <- r })
	return done
}

// values reads the records from an offset on, up to where View ends.
func values(p *Partition, from int64, into map[int64]string) (next int64, err error) {
	var v segment.View
	defer v.Release()
	if _, err := p.View(&v, from, 1<<20, true); err != nil {
		return from, err
	}
	for one, err := range batch.All(bytes.Join(v.Pieces, nil)) {
		if err != nil {
			return from, err
		}
		h, err := batch.Check(one)
		if err != nil {
			return from, err
		}
		for r, err := range batch.Records(one, 1<<20) {
			if err != nil {
				return from, err
			}
			if offset := h.Offset(&r); offset >= from {
				if _, twice := into[offset]; twice {
					return from, fmt.Errorf("offset %d came twice", offset)
				}
				into[offset] = string(r.Value)
			}
		}
		from = h.NextOffset()
	}
	return from, nil
}

// all reads the whole partition.
func all(t *testing.T, p *Partition) map[int64]string {
	t.Helper()
	got := map[int64]string{}
	for from := p.LogStartOffset(); from < p.HighWatermark(); {
		next, err := values(p, from, got)
		if err != nil || next == from {
			t.Fatalf("%s at %d: %v", p.name, from, err)
		}
		from = next
	}
	return got
}

// Producers and a consumer go on while the partition moves to and fro: every acknowledged record is
// there once, at its offset, in the order of its producer; nobody sees an error.
func TestMoveUnderLoad(t *testing.T) {
	a, b, both := twoDirs(t)
	e := mustOpen(t, vfs.OS(), both)
	id := createTopic(t, e, "orders", 1, nil)
	p := partitionOf(e, id, 0)
	filling := strings.Repeat("x", 20_000)
	for i := range int32(300) { // about 6 MB, which are copied before the log is held
		if r := <-send(p, idempotent(t, 1, i, filling)); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	if _, err := p.DeleteRecordsBefore(context.Background(), 33); err != nil {
		t.Fatal(err)
	}
	const producers = 3
	var acked [producers]map[int64]string
	stop, written := make(chan struct{}), make(chan struct{})
	var group, reading sync.WaitGroup
	for n := range producers {
		acked[n] = map[int64]string{}
		group.Go(func() { // up to five in flight, as a client has
			type flight struct {
				value string
				done  <-chan ProduceResult
			}
			var flying []flight
			for sequence, last := int32(0), int64(-1); ; sequence++ {
				over := false
				select {
				case <-stop:
					over = true
				default:
					value := fmt.Sprintf("%d-%d", n, sequence)
					flying = append(flying, flight{value, send(p, idempotent(t, int64(10+n), sequence, value))})
				}
				for len(flying) > 0 && (over || len(flying) == 5) {
					r := <-flying[0].done
					if r.Err != nil || r.BaseOffset <= last {
						t.Errorf("%s: %+v behind %d", flying[0].value, r, last)
						return
					}
					last = r.BaseOffset
					acked[n][r.BaseOffset] = flying[0].value
					flying = flying[1:]
				}
				if over {
					return
				}
			}
		})
	}
	seen := map[int64]string{}
	reading.Go(func() {
		w := NewWaiter()
		p.Watch(w)
		defer p.Unwatch(w)
		for from := int64(300); ; {
			next, err := values(p, from, seen)
			if err != nil {
				t.Errorf("consumer at %d: %v", from, err)
				return
			}
			if next > from {
				from = next
				continue
			}
			select {
			case <-w.C:
			case <-written:
				if from == p.HighWatermark() {
					return
				}
			}
		}
	})
	for _, dir := range []string{b, a, b} {
		begins(t, e, p, dir)
		moved(t, e, p, dir)
	}
	close(stop)
	group.Wait()
	close(written)
	reading.Wait()
	total := 0
	for n := range acked {
		total += len(acked[n])
	}
	if total < 10 || int64(total) != p.HighWatermark()-300 || len(seen) != total {
		t.Fatalf("%d acknowledged, %d seen, log ends at %d", total, len(seen), p.HighWatermark())
	}
	stored := all(t, p)
	for n := range acked {
		for offset, value := range acked[n] {
			if stored[offset] != value || seen[offset] != value {
				t.Errorf("offset %d: acknowledged %q, stored %q, seen %q", offset, value, stored[offset], seen[offset])
			}
		}
		last := int32(len(acked[n]) - 1)
		if r := <-send(p, idempotent(t, int64(10+n), last, fmt.Sprintf("%d-%d", n, last))); r.Err != nil || acked[n][r.BaseOffset] == "" || int64(total) != p.HighWatermark()-300 {
			t.Errorf("the last batch again: %+v", r)
		}
	}
	if p.LogStartOffset() != 33 || len(stored) != total+300-33 {
		t.Errorf("log begins at %d, %d records", p.LogStartOffset(), len(stored))
	}
	t.Logf("%d records during three moves", total)
}

// What is remembered beside the records, and what may happen to a partition afterwards, is as before.
func TestMoveCarriesEverything(t *testing.T) {
	a, b, both := twoDirs(t)
	e := mustOpen(t, vfs.OS(), both)
	id := createTopic(t, e, "orders", 1, map[string]string{"segment.bytes": "1048576"})
	p := partitionOf(e, id, 0)
	for i := range int32(10) {
		<-send(p, idempotent(t, 5, i, fmt.Sprint("early ", i)))
	}
	p.epoch.Store(3)
	for i := range int32(10) {
		<-send(p, idempotent(t, 6, i, strings.Repeat("late", 100_000)))
	}
	if _, err := p.DeleteRecordsBefore(context.Background(), 10); err != nil {
		t.Fatal(err)
	}
	want := all(t, p)
	begins(t, e, p, b)
	moved(t, e, p, b)
	check := func(what string, e *Engine) {
		t.Helper()
		p := partitionOf(e, id, 0)
		p.epoch.Store(3)
		got := all(t, p)
		if len(got) != 10 || got[19] != want[19] || p.LogStartOffset() != 10 || p.HighWatermark() != 20 || p.LogDir() != b {
			t.Errorf("%s: %d records, %d to %d in %s", what, len(got), p.LogStartOffset(), p.HighWatermark(), p.LogDir())
		}
		if epoch := p.EpochAt(12); epoch != 3 {
			t.Errorf("%s: epoch %d", what, epoch)
		}
		if r := <-send(p, idempotent(t, 5, 9, "early 9")); r.Err != nil || r.BaseOffset != 9 {
			t.Errorf("%s: the last batch of a producer whose records are deleted: %+v", what, r)
		}
		if at, found, err := p.OffsetForTimestamp(1000); err != nil || !found || at.Offset != 10 {
			t.Errorf("%s: by timestamp %+v %v %v", what, at, found, err)
		}
		if max := p.at.Load().log.SizeBytes(); max < 1<<20 {
			t.Errorf("%s: %d bytes", what, max)
		}
	}
	check("after the move", e)
	if n := [2]int32{e.dirOf(a).placed.Load(), e.dirOf(b).placed.Load()}; n != [2]int32{0, 1} {
		t.Errorf("partitions in the directories: %v", n)
	}
	closeNow(t, e)
	e = mustOpen(t, vfs.OS(), both)
	check("after a restart", e)
	p = partitionOf(e, id, 0)
	if start, err := p.DeleteRecordsBefore(context.Background(), -1); err != nil || start != 20 {
		t.Errorf("delete all: %d, %v", start, err)
	}
	begins(t, e, p, a) // with nothing in it
	moved(t, e, p, a)
	closeNow(t, e)
	e = mustOpen(t, vfs.OS(), both)
	p = partitionOf(e, id, 0)
	if p.LogStartOffset() != 20 || p.HighWatermark() != 20 {
		t.Errorf("an empty log that ends at 20: %d to %d", p.LogStartOffset(), p.HighWatermark())
	}
	if r := <-send(p, idempotent(t, 6, 10, "next")); r.Err != nil || r.BaseOffset != 20 {
		t.Errorf("the next batch: %+v", r)
	}
}

// A partition without a record moves without a file, and several in one change.
func TestMoveOfEmptyPartitions(t *testing.T) {
	_, b, both := twoDirs(t)
	e := mustOpen(t, vfs.OS(), both)
	id := createTopic(t, e, "orders", 20, nil)
	var moves []Move
	for i := range int32(20) {
		moves = append(moves, Move{partitionOf(e, id, i), b})
	}
	before := e.Image().Version()
	for _, err := range e.MoveReplicas(context.Background(), moves) {
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range int32(20) {
		moved(t, e, partitionOf(e, id, i), b)
	}
	if changes := e.Image().Version() - before; changes != 21 {
		t.Errorf("%d changes of the catalogue", changes)
	}
	for _, err := range e.MoveReplicas(context.Background(), moves) { // they are there
		if err != nil {
			t.Error(err)
		}
	}
	closeNow(t, e)
	e = mustOpen(t, vfs.OS(), both)
	if where := whereAbouts(e, id, 20); where != strings.Repeat("b", 20) {
		t.Errorf("after a restart: %s", where)
	}
}

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
	if got := all(t, p); len(got) != 41 {
		t.Errorf("%d records", len(got))
	}
	begins(t, e, p, b)
	moved(t, e, p, b)
	if got := all(t, p); len(got) != 41 {
		t.Errorf("%d records", len(got))
	}
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
	if got := all(t, p); len(got) != 41 {
		t.Errorf("%d records", len(got))
	}
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
	if got := all(t, p); len(got) != 40 {
		t.Errorf("%d records", len(got))
	}
}

// A clean close in the middle does not wait for the copying, and the next start begins it anew.
func TestCloseDuringAMove(t *testing.T) {
	e, p, _, reached, release, a, b := slowly(t, vfs.Fault{Op: vfs.OpSync, Path: copied, Nth: 3})
	begins(t, e, p, b)
	<-reached
	time.AfterFunc(20*time.Millisecond, release)
	closeNow(t, e)
	offline := mustOpen(t, vfs.OS(), a) // without the directory it waits
	p = partitionOf(offline, p.topicID, 0)
	if r := <-send(p, idempotent(t, 5, 40, "alone")); r.Err != nil {
		t.Error(r.Err)
	}
	eventually(t, "it waits", func() bool { return idle(offline) })
	if offline.Image().Topic("orders").Partitions[0].Futures == nil {
		t.Error("the move is forgotten")
	}
	closeNow(t, offline)
	e = mustOpen(t, vfs.OS(), a+","+b)
	p = partitionOf(e, p.topicID, 0)
	moved(t, e, p, b)
	if got := all(t, p); len(got) != 41 {
		t.Errorf("%d records", len(got))
	}
}

// A kill, or a power cut, at any operation of moves: the records are whole in one place, and the move goes on.
func TestCrashDuringAMove(t *testing.T) {
	for _, test := range []struct {
		name          string
		records, size int
		there         bool // and back again
	}{
		{"large", 60, 30_000, false},
		{"by journal", 10, 100, false},
		{"to and fro", 10, 100, true},
	} {
		t.Run(test.name, func(t *testing.T) { crashDuringMoves(t, test.records, test.size, test.there) })
	}
}

func crashDuringMoves(t *testing.T, records, size int, andBack bool) {
	a, b, both := twoDirs(t)
	mem := vfs.NewMem()
	inCatalog := filepath.Join(a, catalogFolder)
	open := func(fs *vfs.Mem) *Engine { // Badger is on the real file system
		t.Helper()
		if err := vfs.MkdirAllDurable(fs, inCatalog, 0o755); err != nil {
			t.Fatal(err)
		}
		e, err := openOn(t, fs, both)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	if err := os.MkdirAll(inCatalog, 0o755); err != nil {
		t.Fatal(err)
	}
	mem.Record()
	e := open(mem)
	id := createTopic(t, e, "orders", 1, map[string]string{"segment.bytes": "1048576"})
	p := partitionOf(e, id, 0)
	want := map[int64]string{}
	for i := range int32(records) {
		value := fmt.Sprint(i, strings.Repeat("x", size))
		r := <-send(p, idempotent(t, 5, i, value))
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		want[r.BaseOffset] = value
	}
	if _, err := p.DeleteRecordsBefore(context.Background(), 7); err != nil {
		t.Fatal(err)
	}
	last := int64(records - 1)
	type state struct {
		ops  int // of the file system, when the catalogue had this state
		copy string
	}
	var states []state
	stop := e.Catalog().Subscribe(func(_, _ *catalog.Image) { // the catalogue stands still meanwhile
		s := state{mem.Ops(), t.TempDir()}
		if err := os.CopyFS(s.copy, os.DirFS(inCatalog)); err != nil {
			t.Error(err)
		}
		states = append(states, s)
	})
	begins(t, e, p, b)
	moved(t, e, p, b)
	if andBack {
		begins(t, e, p, a)
		moved(t, e, p, a)
		begins(t, e, p, b)
		moved(t, e, p, b)
	}
	stop()
	ops := mem.Ops()
	closeNow(t, e)
	if len(states) != 2 && !andBack || len(states) != 6 && andBack {
		t.Fatalf("%d changes of the catalogue", len(states))
	}
	step := max((ops-states[0].ops)/15, 1)
	if testing.Short() {
		step *= 4
	}
	for n := states[0].ops; n <= ops; n += step {
		at := states[0]
		for _, s := range states {
			if s.ops <= n {
				at = s
			}
		}
		for _, keep := range []float64{0, 0.5, 1} {
			if err := os.RemoveAll(inCatalog); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(inCatalog, os.DirFS(at.copy)); err != nil {
				t.Fatal(err)
			}
			what := fmt.Sprintf("crash at %d of %d (%s), keep %v", n, ops, mem.Op(n), keep)
			e := open(mem.Replay(n).Crash(uint64(n), keep))
			placed, p := e.Image().TopicByID(id).Partitions[0], partitionOf(e, id, 0)
			to := e.pathOf(placed.Dir(1))
			if future := placed.Future(1); future != (catalog.DirID{}) {
				to = e.pathOf(future)
			}
			if r := <-send(p, idempotent(t, 5, int32(last), want[last])); r.Err != nil || r.BaseOffset != last || p.HighWatermark() != last+1 {
				t.Errorf("%s: the last batch again: %+v, log ends at %d", what, r, p.HighWatermark())
			}
			moved(t, e, p, to)
			got := all(t, p)
			if len(got) != records-7 || p.LogStartOffset() != 7 {
				t.Errorf("%s: %d records from %d on", what, len(got), p.LogStartOffset())
			}
			for offset, value := range got {
				if want[offset] != value {
					t.Errorf("%s: offset %d is wrong", what, offset)
				}
			}
			closeNow(t, e)
			if t.Failed() {
				return
			}
		}
	}
}

// What a move has left is removed at the next start if the partition's new place has all of it, else set aside.
func TestLeftoversOfAMove(t *testing.T) {
	a, b, both := twoDirs(t)
	e := mustOpen(t, vfs.OS(), both)
	p := partitionOf(e, createTopic(t, e, "orders", 1, nil), 0)
	<-send(p, idempotent(t, 5, 0, "x"))
	closeNow(t, e)
	folder, err := filepath.Glob(filepath.Join(a, "topics", "orders-0.*"))
	if err != nil || len(folder) != 1 {
		t.Fatal(folder, err)
	}
	kept := t.TempDir()
	if err := os.CopyFS(kept, os.DirFS(folder[0])); err != nil {
		t.Fatal(err)
	}
	e = mustOpen(t, vfs.OS(), both)
	p = partitionOf(e, p.topicID, 0)
	begins(t, e, p, b)
	moved(t, e, p, b)
	closeNow(t, e)
	if err := os.CopyFS(folder[0], os.DirFS(kept)); err != nil {
		t.Fatal(err)
	}
	e = mustOpen(t, vfs.OS(), both)
	p = partitionOf(e, p.topicID, 0)
	moved(t, e, p, b)
	closeNow(t, e)
	if err := os.CopyFS(folder[0], os.DirFS(kept)); err != nil {
		t.Fatal(err)
	}
	there, err := filepath.Glob(filepath.Join(b, "topics", "orders-0.*"))
	if err != nil || len(there) != 1 {
		t.Fatal(there, err)
	}
	if err := os.RemoveAll(there[0]); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, vfs.OS(), both)
	left, err := filepath.Glob(filepath.Join(a, "topics", "*"))
	if err != nil || !slices.Equal(left, []string{folder[0] + ".stray"}) {
		t.Errorf("left %v, %v", left, err)
	}
}

// Refused before anything is recorded.
func TestMovesThatAreRefused(t *testing.T) {
	_, b, both := twoDirs(t)
	e := mustOpen(t, vfs.OS(), both)
	p := partitionOf(e, createTopic(t, e, "orders", 1, nil), 0)
	before := e.Image().Version()
	gone := partitionOf(e, createTopic(t, e, "gone", 1, nil), 0)
	if _, err := e.Topics().Delete(context.Background(), []TopicRef{{ID: gone.topicID}}); err != nil {
		t.Fatal(err)
	}
	errs := e.MoveReplicas(context.Background(), []Move{{p, "/nowhere"}, {gone, b}, {p, p.LogDir()}})
	if !errors.Is(errs[0], ErrUnknownLogDir) || !errors.Is(errs[1], ErrUnknownPartition) || errs[2] != nil {
		t.Errorf("%v", errs)
	}
	if changes := e.Image().Version() - before; changes != 2 {
		t.Errorf("%d changes", changes)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if errs := e.MoveReplicas(ctx, []Move{{p, b}}); !errors.Is(errs[0], context.Canceled) {
		t.Errorf("%v", errs)
	}
}

// The limit on how fast partitions move holds, and to lift it has an effect at once.
func TestMoveIsPaced(t *testing.T) {
	a, b, both := twoDirs(t)
	e := mustOpen(t, vfs.OS(), both)
	p := partitionOf(e, createTopic(t, e, "orders", 1, nil), 0)
	for i := range int32(40) { // 8 MB, of which about a half is copied before the log is held
		<-send(p, idempotent(t, 5, i, strings.Repeat("x", 200_000)))
	}
	limit := func(configs map[string]string) {
		t.Helper()
		change := catalog.ConfigChange{Type: catalog.ResourceBroker, Name: "1", Configs: configs}
		res, err := e.Catalog().Propose(context.Background(), catalog.AlterConfigs{Base: e.Image().Version(), Changes: []catalog.ConfigChange{change}})
		if err != nil || res.Errors[0] != nil {
			t.Fatal(err, res.Errors)
		}
	}
	limit(map[string]string{"replica.alter.log.dirs.io.max.bytes.per.second": "1000"})
	begins(t, e, p, b)
	eventually(t, "something is copied", func() bool { m, ok := e.Moving(e.Image().Topic("orders"), 0); return ok && m.SizeBytes > 0 })
	time.Sleep(100 * time.Millisecond)
	if m, ok := e.Moving(e.Image().Topic("orders"), 0); !ok || m.SizeBytes > 2<<20 || p.LogDir() != a {
		t.Errorf("in %s, %v %+v", p.LogDir(), ok, m)
	}
	limit(nil)
	moved(t, e, p, b)
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
		if got := all(t, p); len(got) != 41 {
			t.Errorf("%d records", len(got))
		}
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
	if got := all(t, p); len(got) != 40 {
		t.Errorf("%d records", len(got))
	}
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

// A reader that has found its log, and not its files any more, reads on where the partition lies now.
func TestReadersOfALogThatHasMoved(t *testing.T) {
	for name, read := range map[string]func(*Partition) error{
		"view": func(p *Partition) error {
			got := map[int64]string{}
			next, err := values(p, 0, got)
			if err == nil && next == 0 {
				err = errors.New("nothing")
			}
			return err
		},
		"read": func(p *Partition) error {
			b, err := p.Read(nil, 0, 1<<20, true)
			if err == nil && len(b) == 0 {
				err = errors.New("nothing")
			}
			return err
		},
		"available": func(p *Partition) error {
			n, err := p.AvailableBytes(0)
			if err == nil && n < 2_000_000 {
				err = fmt.Errorf("%d bytes", n)
			}
			return err
		},
	} {
		_, b, both := twoDirs(t)
		e := mustOpen(t, vfs.OS(), both)
		p := partitionOf(e, createTopic(t, e, "orders", 1, map[string]string{"segment.bytes": "1048576"}), 0)
		for i := range int32(10) {
			<-send(p, idempotent(t, 5, i, strings.Repeat("x", 200_000)))
		}
		closeNow(t, e)
		faulty := vfs.NewFaulty(vfs.OS())
		e = mustOpen(t, faulty, both)
		p = partitionOf(e, p.topicID, 0)
		happened := false
		faulty.Inject(vfs.Fault{Op: vfs.OpOpen, Path: "00000000000000000000.index", Nth: 1, Do: func() {
			happened = true
			begins(t, e, p, b)
			moved(t, e, p, b)
		}})
		if err := read(p); err != nil || !happened {
			t.Errorf("%s: %v (moved meanwhile: %v)", name, err, happened)
		}
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
	if got := all(t, p); len(got) != 41 {
		t.Errorf("%d records", len(got))
	}
}

// A copy is kept as long as what it was copied from cannot be read: it may be all there is.
func TestCopyOfAnOfflineDirectoryIsKept(t *testing.T) {
	a, b, both := twoDirs(t)
	faulty := vfs.NewFaulty(vfs.OS())
	e := mustOpen(t, faulty, both)
	p := partitionOf(e, spread(t, e, "orders", 2), 1)
	for i := range int32(40) {
		<-send(p, idempotent(t, 5, i, strings.Repeat("x", 200_000)))
	}
	let, reached := make(chan struct{}), make(chan struct{})
	faulty.Inject(vfs.Fault{Op: vfs.OpSync, Path: filepath.Join(a, "topics/orders-1.*/*"), Nth: 3, Stall: let, Do: sync.OnceFunc(func() { close(reached) })})
	begins(t, e, p, a)
	<-reached
	time.AfterFunc(20*time.Millisecond, func() { close(let) })
	closeNow(t, e)
	e = mustOpen(t, vfs.OS(), a)
	if where := whereAbouts(e, p.topicID, 2); where != "a-" {
		t.Errorf("without the directory: %s", where)
	}
	if left, err := filepath.Glob(filepath.Join(a, "topics/orders-1.*/*.log")); err != nil || len(left) == 0 {
		t.Errorf("the copy is gone: %v, %v", left, err)
	}
	closeNow(t, e)
	e = mustOpen(t, vfs.OS(), both)
	p = partitionOf(e, p.topicID, 1)
	moved(t, e, p, a)
	if got := all(t, p); len(got) != 41 || p.LogDir() == b {
		t.Errorf("%d records in %s", len(got), p.LogDir())
	}
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
