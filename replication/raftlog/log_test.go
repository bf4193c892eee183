package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/hashicorp/raft"
)

var discard = slog.New(slog.DiscardHandler)

func openLog(t testing.TB, dir string) *Log {
	t.Helper()
	l, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func entry(index, term uint64, bytes int) *raft.Log {
	e := &raft.Log{Index: index, Term: term, Type: raft.LogCommand, AppendedAt: time.Unix(0, int64(index)+1)}
	if bytes > 0 {
		e.Data = make([]byte, bytes)
		for i := range e.Data {
			e.Data[i] = byte(uint64(i)*7 + index + term)
		}
	}
	if index%3 == 0 {
		e.Extensions = []byte{1, byte(index)}
	}
	return e
}

func entries(from, to, term uint64, bytes int) (es []*raft.Log) {
	for i := from; i <= to; i++ {
		es = append(es, entry(i, term, bytes))
	}
	return es
}

func keep(t testing.TB, l *Log, es []*raft.Log) {
	t.Helper()
	if err := l.StoreLogs(es); err != nil {
		t.Fatal(err)
	}
}

// check compares a log with what it should hold.
func check(t testing.TB, l *Log, want []*raft.Log) {
	t.Helper()
	first, _ := l.FirstIndex()
	last, _ := l.LastIndex()
	wantFirst, wantLast := uint64(0), uint64(0)
	if len(want) > 0 {
		wantFirst, wantLast = want[0].Index, want[len(want)-1].Index
	}
	if first != wantFirst || last != wantLast {
		t.Fatalf("from %d to %d, want %d to %d", first, last, wantFirst, wantLast)
	}
	for _, e := range want {
		var have raft.Log
		if err := l.GetLog(e.Index, &have); err != nil {
			t.Fatal(err)
		}
		if have.Index != e.Index || have.Term != e.Term || have.Type != e.Type || !bytes.Equal(have.Data, e.Data) ||
			!bytes.Equal(have.Extensions, e.Extensions) || !have.AppendedAt.Equal(e.AppendedAt) {
			t.Fatalf("entry %d differs", e.Index)
		}
	}
	var none raft.Log
	for _, index := range []uint64{0, wantFirst - 1, wantLast + 1} {
		if err := l.GetLog(index, &none); index+1 > 0 && err != raft.ErrLogNotFound {
			t.Fatalf("entry %d: %v", index, err)
		}
	}
}

// TestLogAgainstModel: any history of appends, cuts and restarts ends as a slice would.
func TestLogAgainstModel(t *testing.T) {
	for seed := range uint64(1) {
		r := rand.New(rand.NewPCG(seed, 1))
		dir := t.TempDir()
		l := openLog(t, dir)
		var model []*raft.Log
		for range 70 {
			next, term := uint64(1+r.IntN(5)), uint64(r.IntN(9))
			if n := len(model); n > 0 {
				next = model[n-1].Index + 1
			}
			switch r.IntN(8) {
			default:
				size := r.IntN(2000)
				if r.IntN(10) == 0 {
					size = r.IntN(3 * pieceBytes)
				}
				es := entries(next, next+uint64(r.IntN(8)), term, size)
				keep(t, l, es)
				model = append(model, es...)
			case 0: // a snapshot was taken
				if n := len(model); n > 0 {
					cut := r.IntN(n)
					if err := l.DeleteRange(model[0].Index, model[cut].Index); err != nil {
						t.Fatal(err)
					}
					model = model[cut+1:]
				}
			case 1: // another leader
				if n := len(model); n > 0 {
					cut := r.IntN(n)
					if err := l.DeleteRange(model[cut].Index, model[n-1].Index); err != nil {
						t.Fatal(err)
					}
					model = model[:cut]
				}
			case 2: // an append whose end was not reported
				if n := len(model); n > 0 {
					cut := r.IntN(n)
					es := entries(model[cut].Index, model[cut].Index+uint64(r.IntN(4)), term+1, 100)
					keep(t, l, es)
					model = append(model[:cut:cut], es...)
				}
			case 3:
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				l = openLog(t, dir)
			}
			check(t, l, model)
		}
		l.Close()
		check(t, openLog(t, dir), model)
	}
}

// TestOneSyncPerBatch: a batch is one transaction and one sync, and only what fills transactions takes more.
func TestOneSyncPerBatch(t *testing.T) {
	disk := &testDisk{}
	l, err := Open(Options{Dir: t.TempDir(), Disk: disk})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	next := uint64(1)
	for _, tt := range []struct {
		name        string
		count, size int
		want        int
	}{{"one", 1, 100, 1}, {"raft's most", 1024, 100, 1}, {"a large one", 1, 700 << 10, 1}, {"larger than a transaction", 3, 900 << 10, 4}} {
		before, probes := l.store.commits, disk.probes.Load()
		keep(t, l, entries(next, next+uint64(tt.count)-1, 1, tt.size))
		if have := l.store.commits - before; have > tt.want || int(disk.probes.Load()-probes) != have {
			t.Errorf("%s: %d syncs, %d probes, want %d", tt.name, have, disk.probes.Load()-probes, tt.want)
		}
		next += uint64(tt.count)
	}
	before := l.store.commits
	if err := l.DeleteRange(1, 200); err != nil || l.store.commits != before+1 {
		t.Errorf("removing many entries took %d syncs, %v", l.store.commits-before, err)
	}
	for range 200 { // what was removed goes with what is written
		keep(t, l, entries(next, next, 1, 10))
		next++
	}
	if keys, _ := l.store.keys(entryKey(0, 0), entryKey(201, 0), 0); len(keys) != 0 {
		t.Errorf("%d removed entries are still stored", len(keys))
	}
	if n := l.store.commits - before; n != 201 {
		t.Errorf("%d syncs", n)
	}
}

// TestStable: the stable store keeps values, and an equal one costs no write.
func TestStable(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir)
	if v, err := l.Get([]byte("x")); v != nil || err != nil {
		t.Fatal(v, err)
	}
	if n, err := l.GetUint64([]byte("CurrentTerm")); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	for i := range uint64(3) {
		if err := errors.Join(l.SetUint64([]byte("CurrentTerm"), 7+i), l.Set([]byte("LastVoteCand"), fmt.Appendf(nil, "node %d", i))); err != nil {
			t.Fatal(err)
		}
	}
	before := l.store.commits
	if err := l.SetUint64([]byte("CurrentTerm"), 9); err != nil || l.store.commits != before {
		t.Fatal("an equal value was written", err)
	}
	l.Close()
	l = openLog(t, dir)
	n, _ := l.GetUint64([]byte("CurrentTerm"))
	v, _ := l.Get([]byte("LastVoteCand"))
	if n != 9 || string(v) != "node 2" {
		t.Fatal(n, string(v))
	}
	if _, err := l.GetUint64([]byte("LastVoteCand")); !errors.Is(err, ErrCorrupt) {
		t.Fatal(err)
	}
}

// TestGaps: what would leave a hole is refused, and nothing is written.
func TestGaps(t *testing.T) {
	l := openLog(t, t.TempDir())
	model := entries(5, 9, 1, 10)
	keep(t, l, model)
	for _, es := range [][]*raft.Log{entries(11, 12, 1, 1), entries(3, 12, 1, 1), {entry(10, 1, 1), entry(12, 1, 1)}, {entry(10, 1, 1), entry(10, 1, 1)}} {
		if err := l.StoreLogs(es); !errors.Is(err, ErrGap) {
			t.Errorf("entries from %d: %v", es[0].Index, err)
		}
	}
	if err := l.DeleteRange(6, 8); !errors.Is(err, ErrGap) {
		t.Error(err)
	}
	check(t, l, model)
	if err := l.DeleteRange(0, 99); err != nil {
		t.Fatal(err)
	}
	check(t, l, nil)
	keep(t, l, entries(1000, 1001, 2, 10)) // after a snapshot from the leader
	check(t, l, entries(1000, 1001, 2, 10))
}

// damage changes values behind the log's back.
func damage(t *testing.T, dir string, change func(txn *badger.Txn) error) {
	t.Helper()
	st, err := openStore(Options{Dir: dir, Logger: discard})
	if err != nil {
		t.Fatal(err)
	}
	defer st.close()
	if err := st.db.Update(change); err != nil {
		t.Fatal(err)
	}
}

// TestDamage: a hole, a flipped bit or a lost piece stops the opening and is named.
func TestDamage(t *testing.T) {
	flip := func(key []byte, at int) func(txn *badger.Txn) error {
		return func(txn *badger.Txn) error {
			item, err := txn.Get(key)
			if err != nil {
				return err
			}
			v, _ := item.ValueCopy(nil)
			v[(at+len(v))%len(v)] ^= 4
			return txn.Set(key, v)
		}
	}
	remove := func(key []byte) func(txn *badger.Txn) error {
		return func(txn *badger.Txn) error { return txn.Delete(key) }
	}
	for _, tt := range []struct {
		name   string
		change func(txn *badger.Txn) error
		want   string
	}{
		{"hole", remove(entryKey(4, 0)), "entry 4"},
		{"first is missing", remove(entryKey(1, 0)), "entry 1"},
		{"last is missing", remove(entryKey(6, 0)), "entry 6"},
		{"last piece is missing", remove(entryKey(3, 1)), "entry 3"},
		{"first piece is missing", remove(entryKey(3, 0)), "entry 3"},
		{"bit in the data", flip(entryKey(2, 0), -1), "entry 2"},
		{"bit in the checksum", flip(entryKey(2, 0), 1), "entry 2"},
		{"bit in a second piece", flip(entryKey(3, 1), 100), "entry 3"},
		{"bit in the bounds", flip(keyBounds, -1), `value at "b"`},
		{"bit in the stable store", flip(stableKey([]byte("CurrentTerm")), -1), `value at "sCurrentTerm"`},
		{"an entry at another's place", func(txn *badger.Txn) error {
			item, _ := txn.Get(entryKey(2, 0))
			v, _ := item.ValueCopy(nil)
			return txn.Set(entryKey(5, 0), v)
		}, "entry 5"},
		{"future", func(txn *badger.Txn) error { return txn.Set(entryKey(2, 0), []byte{9, 0, 0, 0, 0, 0}) }, "newer format"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			l := openLog(t, dir)
			keep(t, l, entries(1, 2, 1, 50))
			keep(t, l, entries(3, 3, 1, 2*pieceBytes-500))
			keep(t, l, entries(4, 6, 1, 50))
			if err := l.SetUint64([]byte("CurrentTerm"), 3); err != nil {
				t.Fatal(err)
			}
			l.Close()
			damage(t, dir, tt.change)
			again, err := Open(Options{Dir: dir})
			if err == nil {
				again.Close()
			}
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrFutureFormat) || !bytes.Contains([]byte(err.Error()), []byte(tt.want)) {
				t.Fatalf("have %v, want it to name %s", err, tt.want)
			}
		})
	}
}

// TestDamageWhileOpen: rot that comes later is met when the entry is read.
func TestDamageWhileOpen(t *testing.T) {
	l := openLog(t, t.TempDir())
	keep(t, l, entries(1, 40, 1, 200<<10)) // more than is kept in memory
	key := entryKey(2, 0)
	if err := l.store.db.Update(func(txn *badger.Txn) error { return txn.Set(key, []byte("xxxxxxxxxxxx")) }); err != nil {
		t.Fatal(err)
	}
	var e raft.Log
	if err := l.GetLog(2, &e); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrFutureFormat) {
		t.Fatal(err)
	}
	if err := l.GetLog(3, &e); err != nil || e.Index != 3 {
		t.Fatal(err)
	}
}

// TestKilled: the directory as a kill leaves it (copied while it is open) holds all that was acknowledged,
// and removed entries do not come back.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir)
	model := entries(1, 300, 1, 3000)
	keep(t, l, model)
	if err := errors.Join(l.DeleteRange(1, 50), l.DeleteRange(290, 300), l.SetUint64([]byte("CurrentTerm"), 4)); err != nil {
		t.Fatal(err)
	}
	killed := filepath.Join(t.TempDir(), "killed")
	if err := os.CopyFS(killed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	again := openLog(t, killed)
	check(t, again, model[50:289])
	keep(t, again, entries(290, 291, 2, 10))
	check(t, again, append(model[50:289:289], entries(290, 291, 2, 10)...))
	if term, _ := again.GetUint64([]byte("CurrentTerm")); term != 4 {
		t.Fatal(term)
	}
}

// testDisk fails, stalls or is full as it is told.
type testDisk struct {
	probes atomic.Int64
	free   atomic.Uint64
	probe  atomic.Pointer[func() error]
}

func (d *testDisk) SyncDir(string) error               { return nil }
func (d *testDisk) Reserve(_, _ string, _ int64) error { return nil }
func (d *testDisk) Begin(string, string) (end func())  { return func() {} }
func (d *testDisk) FreeBytes(string) (uint64, error)   { return 1<<40 - d.free.Load(), nil }
func (d *testDisk) Probe(string) error {
	d.probes.Add(1)
	if f := d.probe.Load(); f != nil {
		return (*f)()
	}
	return nil
}

// TestFailedWrite: after a write of which nobody knows what it did, the log takes no other until it is opened again.
func TestFailedWrite(t *testing.T) {
	disk, dir := &testDisk{}, t.TempDir()
	l, err := Open(Options{Dir: dir, Disk: disk})
	if err != nil {
		t.Fatal(err)
	}
	keep(t, l, entries(1, 3, 1, 10))
	fault := errors.New("input/output error")
	broken := func() error { return fault }
	disk.probe.Store(&broken)
	if err := l.StoreLogs(entries(4, 4, 1, 10)); !errors.Is(err, fault) || !errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
	disk.probe.Store(nil)
	if err := l.StoreLogs(entries(4, 4, 1, 10)); !errors.Is(err, ErrFailed) {
		t.Fatal("a failed log takes writes", err)
	}
	if err := l.SetUint64([]byte("CurrentTerm"), 3); !errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
	l.Close()
	check(t, openLog(t, dir), entries(1, 3, 1, 10))
}

// TestFullDisk: a log that could not go on is refused before it is written, and written when there is room.
func TestFullDisk(t *testing.T) {
	disk := &testDisk{}
	l, err := Open(Options{Dir: t.TempDir(), Disk: disk})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	disk.free.Store(1<<40 - 1)
	next := uint64(1)
	for err == nil {
		if err = l.StoreLogs(entries(next, next, 1, 100<<10)); err == nil {
			next++
		}
	}
	if !errors.Is(err, ErrNoSpace) || next < 10 {
		t.Fatal(next, err)
	}
	check(t, l, entries(1, next-1, 1, 100<<10))
	disk.free.Store(0)
	keep(t, l, entries(next, next, 1, 10))
}

func BenchmarkStoreLogs(b *testing.B) {
	for _, batch := range []uint64{1, 64} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) {
			l := openLog(b, b.TempDir())
			next := uint64(1)
			for b.Loop() {
				keep(b, l, entries(next, next+batch-1, 1, 300))
				next += batch
			}
		})
	}
}

// TestLogBehindBounded: a disk that hangs under Badger is met within the bound, nothing that comes after it is written, and what was
// under way is there when the disk is back.
func TestLogBehindBounded(t *testing.T) {
	disk := &testDisk{}
	l, err := Open(Options{Dir: t.TempDir(), Disk: disk})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	keep(t, l, entries(1, 3, 1, 10))
	back := make(chan struct{})
	hang := func() error { <-back; return nil }
	disk.probe.Store(&hang)
	broken := make(chan error, 1)
	b := Bound(l, nil, 100*time.Millisecond, func(err error) { broken <- err })
	begun := time.Now()
	if err := b.StoreLogs(entries(4, 5, 1, 10)); !errors.Is(err, ErrStalled) || time.Since(begun) > 2*time.Second {
		t.Fatal(err, time.Since(begun))
	}
	if err := <-broken; !errors.Is(err, ErrStalled) {
		t.Error(err)
	}
	if err := errors.Join(b.StoreLog(entry(6, 1, 1)), b.Set([]byte("LastVoteCand"), nil), b.DeleteRange(1, 2)); !errors.Is(err, ErrStalled) {
		t.Error(err)
	}
	close(back)
	if err := b.Release(t.Context()); err != nil {
		t.Error(err)
	}
	check(t, l, entries(1, 5, 1, 10))
}
