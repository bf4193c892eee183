package segment

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// keptBatch holds n records from base on, of a leader epoch and, from 0 on, of a producer.
func keptBatch(t testing.TB, base int64, n int, epoch int32, producer int64, sequence int32) []byte {
	t.Helper()
	b := batch.NewBuilder(batch.BuilderOptions{
		BaseOffset: base, LeaderEpoch: epoch, Idempotent: producer >= 0, ProducerID: producer, BaseSequence: sequence,
	})
	for i := range int64(n) {
		b.Append(1_700_000_000_000+base+i, nil, fmt.Append(nil, "at ", base+i), nil)
	}
	built, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return built
}

func (l *Log) keep(b []byte) Result {
	done := make(chan Result, 1)
	if err := l.Append(context.Background(), &Append{Batches: b, Keep: true, LeaderEpoch: 99, Done: func(r Result) { done <- r }}); err != nil {
		return Result{Err: err}
	}
	return <-done
}

// Batches that keep what they are: offsets with gaps, epochs, producers, indexes; also after a crash.
func TestAppendKeeps(t *testing.T) {
	for _, way := range []func(*DirOptions){straightOnly, byJournal} {
		fs := newMem(t)
		d := openDir(t, fs, way)
		l := d.open(t, "orders", 0, smallSegments())
		row := append(keptBatch(t, 5, 3, 2, 7, 0), keptBatch(t, 10, 2, 4, 7, 3)...)
		if r := l.keep(row); r.Err != nil || r.BaseOffset != 5 || r.LastOffset != 11 {
			t.Fatalf("%+v", r)
		}
		for i, bad := range [][]byte{keptBatch(t, 11, 1, 4, -1, 0), append(keptBatch(t, 20, 3, 4, -1, 0), keptBatch(t, 22, 1, 4, -1, 0)...)} {
			if r := l.keep(bad); !errors.Is(r.Err, ErrOutOfOrder) || l.LogEndOffset() != 12 {
				t.Errorf("%d: %+v, log ends at %d", i, r, l.LogEndOffset())
			}
		}
		for base := int64(12); base < 60; base += 4 {
			if r := l.keep(keptBatch(t, base, 3, 5, 7, int32(base))); r.Err != nil { // a gap in the sequences: it is not checked
				t.Fatal(r.Err)
			}
		}
		check := func(l *Log) {
			t.Helper()
			values, err := l.readAll(0)
			if err != nil || len(values) != 5+12*3 || values[10] != "at 10" || values[58] != "at 58" || l.LogEndOffset() != 59 {
				t.Fatalf("%d records, end %d, %v", len(values), l.LogEndOffset(), err)
			}
			for offset, epoch := range map[int64]int32{5: 2, 7: 2, 10: 4, 12: 5, 58: 5} {
				if have := l.EpochAt(offset); have != epoch {
					t.Errorf("epoch %d at %d, want %d", have, offset, epoch)
				}
			}
			if at, found, err := l.OffsetForTimestamp(1_700_000_000_000+41, 59); err != nil || !found || at.Offset != 41 {
				t.Errorf("by timestamp: %+v %v %v", at, found, err)
			}
			known, err := l.Producers(context.Background())
			if err != nil || len(known) != 1 || known[0].LastSequence != 58 {
				t.Errorf("producers %+v, %v", known, err)
			}
		}
		check(l)
		again := openDir(t, fs.Crash(1, 0))
		check(again.open(t, "orders", 0, smallSegments()))
		again.close(t)
		d.close(t)
	}
}

// What is to follow something that failed, or never came, is not stored behind the gap.
func TestAppendFollows(t *testing.T) {
	d := openDir(t, newMem(t))
	defer d.close(t)
	l := d.open(t, "orders", 0, DefaultLogConfig())
	var results [4]Result
	var wg sync.WaitGroup
	for i, a := range []struct{ base, from int64 }{{5, 0}, {20, 10}, {22, 20}, {12, 7}} {
		wg.Add(1)
		err := l.Append(context.Background(), &Append{Batches: keptBatch(t, a.base, 2, 1, -1, 0), Keep: true, Follows: true, From: a.from, LeaderEpoch: 99,
			Done: func(r Result) { results[i] = r; wg.Done() }})
		if err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	for i, fails := range []bool{false, true, true, false} {
		if err := results[i].Err; fails != errors.Is(err, ErrOutOfOrder) || !fails && err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	if l.LogEndOffset() != 14 {
		t.Errorf("log ends at %d", l.LogEndOffset())
	}
}

// An index cannot say how far behind its segment's base an offset is when that is too far.
func TestAppendKeepsNoGapThatIsTooLarge(t *testing.T) {
	d := openDir(t, newMem(t))
	defer d.close(t)
	l := d.open(t, "orders", 0, DefaultLogConfig())
	if r := l.keep(keptBatch(t, 1<<32, 1, 0, -1, 0)); !errors.Is(r.Err, ErrOutOfOrder) {
		t.Errorf("%+v", r)
	}
	if r := l.keep(append(keptBatch(t, 0, 1, 0, -1, 0), keptBatch(t, 1<<31-1, 1, 0, -1, 0)...)); r.Err != nil {
		t.Error(r.Err)
	}
}

// A log that begins behind 0 does so after a power cut too, with records or without any.
func TestBegin(t *testing.T) {
	fs := newMem(t)
	d := openDir(t, fs, byJournal)
	l, err := d.Begin(context.Background(), testID("orders", 0), DefaultLogConfig(), 77, 70)
	if err != nil {
		t.Fatal(err)
	}
	look := func(fs vfs.FS, start, end int64, values string) {
		t.Helper()
		d := openDir(t, fs)
		defer d.close(t)
		l := d.open(t, "orders", 0, DefaultLogConfig())
		got, err := l.readAll(start)
		if err != nil || l.LogStartOffset() != start || l.LogEndOffset() != end || fmt.Sprint(got) != values {
			t.Errorf("%d to %d, %v, %v", l.LogStartOffset(), l.LogEndOffset(), got, err)
		}
	}
	look(fs.Crash(1, 0), 77, 77, "map[]")
	if _, err := d.Begin(context.Background(), testID("orders", 0), DefaultLogConfig(), 0, 0); !errors.Is(err, ErrExists) {
		t.Errorf("again: %v", err)
	}
	if _, err := l.Read(nil, 76, 80, 1000, true); !errors.Is(err, ErrOffsetOutOfRange) {
		t.Errorf("read before the start: %v", err)
	}
	if r := l.keep(keptBatch(t, 70, 10, 0, -1, 0)); r.Err != nil {
		t.Fatal(r.Err)
	}
	look(fs.Crash(2, 0), 77, 80, "map[77:at 77 78:at 78 79:at 79]")
	if err := l.Discard(context.Background()); err != nil {
		t.Fatal(err)
	}
	if l, err = d.Begin(context.Background(), testID("orders", 0), DefaultLogConfig(), 0, 0); err != nil {
		t.Fatalf("after it was discarded: %v", err)
	}
	if r := l.keep(keptBatch(t, 0, 1, 0, -1, 0)); r.Err != nil {
		t.Fatal(r.Err)
	}
	look(fs.Crash(3, 0), 0, 1, "map[0:at 0]")
	d.close(t)
}

// What came before Hold is done when it returns; what comes later is refused, until Unhold.
func TestHold(t *testing.T) {
	d := openDir(t, newMem(t))
	l := d.open(t, "orders", 0, DefaultLogConfig())
	done := make(chan Result, 100)
	for range 100 {
		if err := l.Append(context.Background(), &Append{Batches: makeBatch(t, 1, "x", 1), Done: func(r Result) { done <- r }}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Hold(context.Background()); err != nil {
		t.Fatal(err)
	}
	if len(done) != 100 || l.LogEndOffset() != 100 {
		t.Errorf("%d of 100 done, log ends at %d", len(done), l.LogEndOffset())
	}
	if r := l.appendAndWait(t, makeBatch(t, 1, "x", 1)); !errors.Is(r.Err, ErrHeld) {
		t.Errorf("append: %v", r.Err)
	}
	if err := l.DeleteRecordsBefore(context.Background(), 5); !errors.Is(err, ErrHeld) || l.LogStartOffset() != 0 {
		t.Errorf("move of the start: %v", err)
	}
	l.Unhold()
	l.mustAppend(t, makeBatch(t, 1, "x", 1))
	if err := l.DeleteRecordsBefore(context.Background(), 5); err != nil {
		t.Error(err)
	}
	if err := l.Hold(context.Background()); err != nil {
		t.Fatal(err)
	}
	other := d.open(t, "other", 0, DefaultLogConfig())
	if err := other.Hold(context.Background()); err != nil {
		t.Fatal(err)
	}
	other.Delete()
	if r := other.appendAndWait(t, makeBatch(t, 1, "x", 1)); !errors.Is(r.Err, ErrDeleted) {
		t.Errorf("append to one deleted while held: %v", r.Err)
	}
	d.close(t)
	if r := l.appendAndWait(t, makeBatch(t, 1, "x", 1)); !errors.Is(r.Err, ErrClosed) {
		t.Errorf("append to one closed while held: %v", r.Err)
	}
}

// A disk that does not answer keeps Hold no longer than its context.
func TestHoldOnAStalledDisk(t *testing.T) {
	faulty := vfs.NewFaulty(newMem(t))
	d := openDir(t, faulty)
	l := d.open(t, "orders", 0, DefaultLogConfig())
	release := make(chan struct{})
	faulty.Inject(vfs.Fault{Op: vfs.OpSync, Path: "*.journal", Stall: release})
	done := make(chan Result, 1)
	if err := l.Append(context.Background(), &Append{Batches: makeBatch(t, 1, "x", 1), Done: func(r Result) { done <- r }}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := l.Hold(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("hold: %v", err)
	}
	faulty.Heal()
	close(release)
	if err := l.Hold(context.Background()); err != nil || len(done) != 1 {
		t.Errorf("after the stall: %v, %d done", err, len(done))
	}
	d.close(t)
}

// copyLog copies all of from into to, and finishes the copy.
func copyLog(t *testing.T, to, from *Log) error {
	t.Helper()
	if err := from.Hold(context.Background()); err != nil {
		return err
	}
	for to.LogEndOffset() < from.LogEndOffset() {
		b, err := from.Read(nil, max(to.LogEndOffset(), from.LogStartOffset()), from.LogEndOffset(), 1000, true)
		if err != nil {
			return err
		}
		if r := to.keep(b); r.Err != nil {
			return r.Err
		}
	}
	return to.FinishCopy(context.Background(), from)
}

// A finished copy is what it is a copy of, producers of deleted records included, after a power cut too.
func TestFinishCopy(t *testing.T) {
	for name, settings := range map[string]struct {
		way  func(*DirOptions)
		late bool
	}{"straight": {straightOnly, false}, "by journal": {byJournal, false}, "flushed late": {straightOnly, true}} {
		fs, there := newMem(t), newMem(t)
		d, e := openDir(t, fs, settings.way), openDir(t, there, settings.way)
		cfg := smallSegments()
		if settings.late {
			cfg.FlushMessages = 1 << 40
		}
		from := d.open(t, "orders", 0, cfg)
		from.mustAppend(t, keptBatch(t, 0, 4, 0, 7, 0))
		for i := range 20 {
			from.mustAppend(t, keptBatch(t, 0, 2, 0, 8, int32(2*i)))
		}
		if err := from.DeleteRecordsBefore(context.Background(), 11); err != nil {
			t.Fatal(err)
		}
		to, err := e.Begin(context.Background(), from.ID(), cfg, 5, 4) // as if it had begun there before the start moved
		if err != nil {
			t.Fatal(err)
		}
		if err := copyLog(t, to, from); err != nil {
			t.Fatal(name, err)
		}
		want, _ := from.readAll(11)
		check := func(what string, l *Log) {
			t.Helper()
			got, err := l.readAll(l.LogStartOffset())
			if err != nil || !maps.Equal(got, want) || l.LogStartOffset() != 11 || l.LogEndOffset() != 44 {
				t.Errorf("%s %s: %d of %d records from %d to %d, %v", name, what, len(got), len(want), l.LogStartOffset(), l.LogEndOffset(), err)
			}
			if r := l.appendAndWait(t, keptBatch(t, 0, 2, 0, 8, 38)); !r.Duplicate || r.BaseOffset != 42 {
				t.Errorf("%s %s: the last batch again: %+v", name, what, r)
			}
			if r := l.appendAndWait(t, keptBatch(t, 0, 4, 0, 7, 0)); !r.Duplicate || r.BaseOffset != 0 {
				t.Errorf("%s %s: a batch that was deleted, again: %+v", name, what, r)
			}
		}
		again := openDir(t, there.Crash(1, 0))
		check("after a power cut", again.open(t, "orders", 0, cfg))
		again.close(t)
		check("at once", to)
		if r := to.appendAndWait(t, keptBatch(t, 0, 1, 0, 8, 40)); r.Err != nil || r.BaseOffset != 44 {
			t.Errorf("%s: the next batch: %+v", name, r)
		}
		e.close(t)
		again = openDir(t, there)
		if end := again.open(t, "orders", 0, cfg).LogEndOffset(); end != 45 {
			t.Errorf("%s: after a restart the log ends at %d", name, end)
		}
		again.close(t)
		d.close(t)
	}
}

// What is not the same is not finished.
func TestFinishCopyRefuses(t *testing.T) {
	faulty := vfs.NewFaulty(newMem(t))
	d, e := openDir(t, newMem(t)), openDir(t, faulty)
	from := d.open(t, "orders", 0, DefaultLogConfig())
	from.mustAppend(t, keptBatch(t, 0, 4, 0, 7, 0))
	to, err := e.Begin(context.Background(), from.ID(), DefaultLogConfig(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := to.FinishCopy(context.Background(), from); !errors.Is(err, ErrOutOfOrder) {
		t.Errorf("without the records: %v", err)
	}
	faulty.Inject(vfs.Fault{Op: vfs.OpSync, Path: "*.snapshot*", Err: syscall.EIO})
	if err := copyLog(t, to, from); !errors.Is(err, ErrFenced) {
		t.Errorf("without the producers: %v", err)
	}
	d.close(t)
	e.Close(context.Background())
}

// What is old drives out of memory nothing that was just written.
func TestCopyLeavesTheTailsOfOthers(t *testing.T) {
	d := openDir(t, newMem(t), straightOnly, func(o *DirOptions) { o.TailBytes = 4 * chunkSize })
	defer d.close(t)
	other := d.open(t, "other", 0, DefaultLogConfig())
	other.mustAppend(t, makeBatch(t, 1, strings.Repeat("x", chunkSize), 1))
	l, err := d.Begin(context.Background(), testID("orders", 0), DefaultLogConfig(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	big := func(base int64) []byte {
		b := batch.NewBuilder(batch.BuilderOptions{BaseOffset: base})
		b.Append(1, nil, []byte(strings.Repeat("y", 3*chunkSize/2)), nil)
		built, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		return built
	}
	for i := range int64(200) {
		if r := l.keep(big(i)); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	if len(other.active().tailChunks()) == 0 {
		t.Error("what was written to the other log is no longer in memory")
	}
	if n := len(d.committer.resident); n > 100 {
		t.Errorf("%d chunks are remembered", n)
	}
	if got, err := l.readAll(0); err != nil || len(got) != 200 {
		t.Errorf("%d records, %v", len(got), err)
	}
}

// Discard leaves nothing, and says so when there is something left.
func TestDiscard(t *testing.T) {
	fs := vfs.NewFaulty(newMem(t))
	d := openDir(t, fs, straightOnly)
	l := d.open(t, "orders", 0, DefaultLogConfig())
	l.mustAppend(t, makeBatch(t, 1, "x", 1))
	if err := l.Discard(context.Background()); err != nil {
		t.Fatal(err)
	}
	if left, err := fs.ReadDir(filepath.Join("data", topicsFolder)); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
	l = d.open(t, "orders", 0, DefaultLogConfig())
	l.mustAppend(t, makeBatch(t, 1, "x", 1))
	fs.Inject(vfs.Fault{Op: vfs.OpRename, Path: "*", Err: syscall.EIO})
	if err := l.Discard(context.Background()); !errors.Is(err, ErrExists) {
		t.Errorf("what cannot be renamed: %v", err)
	}
	if _, err := d.Begin(context.Background(), testID("orders", 0), DefaultLogConfig(), 0, 0); !errors.Is(err, ErrExists) {
		t.Errorf("begin where something is left: %v", err)
	}
	d.Close(context.Background())
}

// When the journal cannot say that a log was deleted, a recovery would mix its batches with those of the next.
func TestBeginAfterADeletionThatIsNotInTheJournal(t *testing.T) {
	fs := vfs.NewFaulty(newMem(t))
	d := openDir(t, fs, byJournal)
	l := d.open(t, "orders", 0, DefaultLogConfig())
	l.mustAppend(t, makeBatch(t, 1, "x", 1))
	fs.Inject(vfs.Fault{Op: vfs.OpWrite, Path: "*.journal", Nth: 1, Err: syscall.ENOSPC})
	l.Delete()
	if _, err := d.Begin(context.Background(), testID("orders", 0), DefaultLogConfig(), 0, 0); !errors.Is(err, ErrExists) {
		t.Errorf("begin: %v", err)
	}
	d.close(t)
	d = openDir(t, fs)
	l, err := d.Begin(context.Background(), testID("orders", 0), DefaultLogConfig(), 0, 0)
	if err != nil {
		t.Fatalf("after a restart: %v", err)
	}
	if r := l.keep(keptBatch(t, 0, 1, 0, -1, 0)); r.Err != nil {
		t.Error(r.Err)
	}
	d.close(t)
}
