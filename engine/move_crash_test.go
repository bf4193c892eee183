package engine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/segment/vfs"
)

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
	holdsAll(t, p, 41)
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
