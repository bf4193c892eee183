package segment

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/producer"
	"github.com/millrace/millrace/segment/vfs"
)

func producedBatch(t testing.TB, sequence int32, n int) []byte {
	t.Helper()
	b := batch.NewBuilder(batch.BuilderOptions{Idempotent: true, ProducerID: 7, BaseSequence: sequence})
	for i := range n {
		b.Append(1_700_000_000_000, nil, fmt.Appendf(nil, "seq-%d", int(sequence)+i), nil) // the time of openDir's clock
	}
	built, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return built
}

// A full disk refuses appends, takes nothing back that was acknowledged, and
// lets writing go on as soon as there is room, sequence numbers included.
func TestFullDiskRefusesAndResumes(t *testing.T) {
	for _, where := range []struct {
		name  string
		fault vfs.Fault
	}{
		{"write", vfs.Fault{Op: vfs.OpWrite, Path: "*.log", Err: syscall.ENOSPC}},
		{"short write", vfs.Fault{Op: vfs.OpWrite, Path: "*.log", Err: syscall.ENOSPC, Short: 70}},
		{"roll: index", vfs.Fault{Op: vfs.OpWrite, Path: "*.index", Err: syscall.ENOSPC}},
		{"roll: next file", vfs.Fault{Op: vfs.OpOpen, Path: "*00[1-9]*.log", Err: syscall.ENOSPC}},
	} {
		t.Run(where.name, func(t *testing.T) {
			fs := newMem(t)
			faulty := vfs.NewFaulty(fs)
			d := openDir(t, faulty, straightOnly)
			l := d.open(t, "orders", 0, smallSegments())
			for i := range int32(3) {
				l.mustAppend(t, producedBatch(t, 2*i, 2))
			}
			faulty.Inject(where.fault)
			next := int32(6)
			refused := false
			for range 5 {
				end := l.LogEndOffset()
				r := l.appendAndWait(t, producedBatch(t, next, 2))
				if r.Err == nil {
					next += 2
					continue
				}
				refused = true
				if !errors.Is(r.Err, ErrNoSpace) {
					t.Fatalf("append on a full disk: %v", r.Err)
				}
				if l.LogEndOffset() != end {
					t.Fatalf("the log moved from %d to %d", end, l.LogEndOffset())
				}
			}
			if !refused {
				t.Fatal("nothing was refused: nothing is tested")
			}
			faulty.Heal()
			for range 6 {
				r := l.mustAppend(t, producedBatch(t, next, 2))
				if r.BaseOffset != int64(next) || r.Duplicate {
					t.Fatalf("%+v, want offset %d", r, next)
				}
				next += 2
			}
			if r := l.mustAppend(t, producedBatch(t, next-2, 2)); !r.Duplicate || r.BaseOffset != int64(next-2) {
				t.Errorf("the last batch sent again: %+v", r)
			}
			fs = fs.Crash(5, 0)
			d.close(t)
			d = openDir(t, fs, straightOnly)
			defer d.close(t)
			got, err := d.open(t, "orders", 0, smallSegments()).readAll(0)
			if err != nil || len(got) != int(next) {
				t.Errorf("%d records after a restart, want %d: %v", len(got), next, err)
			}
		})
	}
}

// An I/O error fences the directory: nothing is acknowledged after it, what was
// is readable, and a restart reads what is really there.
func TestFailedWriteOrSyncFences(t *testing.T) {
	for _, fault := range []vfs.Fault{
		{Op: vfs.OpSync, Path: "*.log", Nth: 1, Err: syscall.EIO},
		{Op: vfs.OpWrite, Path: "*.log", Nth: 1, Err: syscall.EIO},
		{Op: vfs.OpSyncDir, Path: "other-*", Nth: 1, Err: syscall.EIO},
		{Op: vfs.OpSyncDir, Path: "topics", Nth: 1, Err: syscall.EIO},
	} {
		t.Run(fault.Op.String()+fault.Path, func(t *testing.T) {
			fs := newMem(t)
			faulty := vfs.NewFaulty(fs)
			d := openDir(t, faulty, straightOnly)
			l := d.open(t, "orders", 0, DefaultLogConfig())
			l.mustAppend(t, makeBatch(t, 3, "good", 1))
			faulty.Inject(fault)
			other := d.open(t, "other", 0, DefaultLogConfig())
			if r := other.appendAndWait(t, makeBatch(t, 1, "bad", 1)); !errors.Is(r.Err, ErrFenced) || !errors.Is(r.Err, syscall.EIO) {
				t.Errorf("append that meets the error: %v", r.Err)
			}
			if r := l.appendAndWait(t, makeBatch(t, 1, "later", 1)); !errors.Is(r.Err, ErrFenced) {
				t.Errorf("append after the error: %v", r.Err)
			}
			if other.LogEndOffset() != 0 || l.LogEndOffset() != 3 || d.Err() == nil {
				t.Errorf("logs end at %d and %d, %v", other.LogEndOffset(), l.LogEndOffset(), d.Err())
			}
			if got, err := l.readAll(0); err != nil || len(got) != 3 {
				t.Errorf("read while fenced: %v, %v", got, err)
			}
			if n := strings.Count(d.log.String(), "fenced"); n != 1 {
				t.Errorf("the log says it %d times: %s", n, d.log)
			}
			if err := d.Close(context.Background()); !errors.Is(err, ErrFenced) {
				t.Errorf("close: %v", err)
			}
			again := openDir(t, fs.Crash(1, 0))
			defer again.close(t)
			if got, err := again.open(t, "orders", 0, DefaultLogConfig()).readAll(0); err != nil || len(got) != 3 {
				t.Errorf("after a restart: %v, %v", got, err)
			}
		})
	}
}

// Idempotence holds across restarts of every kind: a batch sent again is
// answered with its first offset, one out of order is refused.
func TestProducersAreRememberedAcrossRestarts(t *testing.T) {
	for _, clean := range []bool{true, false} {
		for _, rolls := range []int32{1, 12} {
			t.Run(fmt.Sprintf("clean=%v batches=%d", clean, rolls), func(t *testing.T) {
				fs := newMem(t)
				d := openDir(t, fs)
				l := d.open(t, "orders", 0, smallSegments())
				for i := range rolls {
					l.mustAppend(t, producedBatch(t, 3*i, 3))
				}
				crashed := fs.Crash(3, 0)
				d.close(t)
				if clean {
					crashed = fs
				}
				d = openDir(t, crashed)
				defer d.close(t)
				l = d.open(t, "orders", 0, smallSegments())
				last := 3 * (rolls - 1)
				if r := l.mustAppend(t, producedBatch(t, last, 3)); !r.Duplicate || r.BaseOffset != int64(last) || r.LastOffset != int64(last)+2 {
					t.Errorf("the last batch again: %+v", r)
				}
				if r := l.appendAndWait(t, producedBatch(t, last+6, 3)); !errors.Is(r.Err, producer.ErrOutOfOrderSequence) {
					t.Errorf("a batch out of order: %v", r.Err)
				}
				if r := l.mustAppend(t, producedBatch(t, last+3, 3)); r.Duplicate || r.BaseOffset != int64(last)+3 {
					t.Errorf("the next batch: %+v", r)
				}
				active, err := l.Producers(context.Background())
				if err != nil || len(active) != 1 || active[0].ProducerID != 7 {
					t.Errorf("producers %+v, %v", active, err)
				}
			})
		}
	}
}

func TestDuplicateWithinOneRound(t *testing.T) {
	faulty := vfs.NewFaulty(newMem(t))
	d := openDir(t, faulty)
	defer d.close(t)
	l := d.open(t, "orders", 0, DefaultLogConfig())
	l.mustAppend(t, producedBatch(t, 0, 2))
	hold := make(chan struct{})
	faulty.Inject(vfs.Fault{Op: vfs.OpSync, Path: "*.log", Nth: 1, Stall: hold})
	results := make(chan Result, 4)
	for _, sequence := range []int32{2, 4, 4, 2} {
		if err := l.Append(context.Background(), &Append{Batches: producedBatch(t, sequence, 2), Done: func(r Result) { results <- r }}); err != nil {
			t.Fatal(err)
		}
	}
	close(hold)
	for i, want := range []Result{{BaseOffset: 2, LastOffset: 3}, {BaseOffset: 4, LastOffset: 5}, {BaseOffset: 4, LastOffset: 5, Duplicate: true}, {BaseOffset: 2, LastOffset: 3, Duplicate: true}} {
		got := <-results
		if got.Err != nil || got.BaseOffset != want.BaseOffset || got.LastOffset != want.LastOffset || got.Duplicate != want.Duplicate {
			t.Errorf("append %d: %+v, want %+v", i, got, want)
		}
	}
	if l.LogEndOffset() != 6 {
		t.Errorf("log ends at %d", l.LogEndOffset())
	}
}

// The dull twin of the time index: a scan over all records.
func TestOffsetForTimestampAgreesWithAScan(t *testing.T) {
	fs := newMem(t)
	d := openDir(t, fs)
	defer d.close(t)
	l := d.open(t, "orders", 0, smallSegments())
	var times []int64
	for i := range 60 {
		at := int64((i * 37 % 50) * 10) // out of order
		l.mustAppend(t, makeBatch(t, 3, "x", at))
		times = append(times, at, at+1, at+2)
	}
	first := int64(20)
	if err := l.DeleteRecordsBefore(context.Background(), first); err != nil {
		t.Fatal(err)
	}
	for ask := int64(-1); ask < 500; ask++ {
		want, found := int64(-1), false
		for offset, at := range times {
			if int64(offset) >= first && at >= ask {
				want, found = int64(offset), true
				break
			}
		}
		got, ok, err := l.OffsetForTimestamp(ask, l.LogEndOffset())
		if err != nil || ok != found || ok && (got.Offset != want || got.Timestamp != times[want]) {
			t.Fatalf("timestamp %d: %+v %v %v, want offset %d", ask, got, ok, err, want)
		}
	}
	want := int64(0)
	for offset, at := range times {
		if int64(offset) >= first && at > times[want] || int64(offset) == first {
			want = int64(offset)
		}
	}
	if got, ok, err := l.MaxTimestamp(); err != nil || !ok || got.Timestamp != times[want] {
		t.Errorf("max timestamp: %+v %v %v, want %d at %d", got, ok, err, times[want], want)
	}
}

// What was queued behind an append that fails does not overtake it: a producer
// that nobody knows yet may begin with any sequence number.
func TestNothingOvertakesAFailedAppend(t *testing.T) {
	faulty := vfs.NewFaulty(newMem(t))
	d := openDir(t, faulty, straightOnly)
	defer d.close(t)
	busy := d.open(t, "busy", 0, smallSegments())
	busy.mustAppend(t, makeBatch(t, 1, "x", 1))
	hold, reached := make(chan struct{}), make(chan struct{})
	faulty.Inject(
		vfs.Fault{Op: vfs.OpSync, Path: "*.log", Nth: 1, Stall: hold, Do: func() { close(reached) }},
		vfs.Fault{Op: vfs.OpWrite, Path: "data/topics/orders-*/*.log", Nth: 1, Err: syscall.ENOSPC},
	)
	if err := busy.Append(context.Background(), &Append{Batches: makeBatch(t, 1, "x", 1), Done: func(Result) {}}); err != nil {
		t.Fatal(err)
	}
	<-reached // what is queued from here on is one round
	l := d.open(t, "orders", 0, smallSegments())
	results := make(chan Result, 10)
	for i := range int32(10) { // more than a segment holds
		if err := l.Append(context.Background(), &Append{Batches: producedBatch(t, 10*i, 10), Done: func(r Result) { results <- r }}); err != nil {
			t.Fatal(err)
		}
	}
	close(hold)
	for i := range 10 {
		if r := <-results; !errors.Is(r.Err, ErrNoSpace) {
			t.Errorf("append %d: %+v", i, r)
		}
	}
	for i := range int32(10) { // the producer tries again
		if r := l.mustAppend(t, producedBatch(t, 10*i, 10)); r.BaseOffset != 10*int64(i) {
			t.Errorf("append %d, again: %+v", i, r)
		}
	}
}

// Producers that have not written for producer.id.expiration.ms are forgotten: at the
// next append to their log or the next question, without a timer, at most
// every ten minutes. A setting that became shorter counts at once.
func TestProducersExpire(t *testing.T) {
	var clock atomic.Int64
	clock.Store(time.Unix(1_700_000_000, 0).UnixMilli())
	pass := func(d time.Duration) { clock.Add(d.Milliseconds()) }
	d := openDir(t, newMem(t), func(o *DirOptions) { o.Now = func() time.Time { return time.UnixMilli(clock.Load()) } })
	defer d.close(t)
	l := d.open(t, "orders", 0, DefaultLogConfig())
	l.mustAppend(t, producedBatch(t, 0, 2))
	remembered := func(when string, want int) {
		t.Helper()
		if list, err := l.Producers(t.Context()); err != nil || len(list) != want {
			t.Errorf("%s: %d producers, %v; want %d", when, len(list), err, want)
		}
	}
	pass(24*time.Hour - time.Millisecond)
	remembered("just before", 1)
	pass(time.Millisecond)
	remembered("between two looks", 1)
	pass(expiryInterval)
	if r := l.mustAppend(t, producedBatch(t, 0, 2)); r.Duplicate { // too late to be taken for the first one
		t.Errorf("sent again after it was forgotten: %+v", r)
	}
	l.mustAppend(t, makeProduced(t, 8, clock.Load()))
	remembered("until the next look", 2)
	pass(expiryInterval)
	remembered("at the next look", 1)
	cfg := DefaultLogConfig()
	cfg.ProducerExpiration = time.Second
	l.SetConfig(cfg)
	remembered("with a shorter setting", 0)
}

func makeProduced(t testing.TB, producerID, timestamp int64) []byte {
	t.Helper()
	b := batch.NewBuilder(batch.BuilderOptions{Idempotent: true, ProducerID: producerID})
	b.Append(timestamp, nil, nil, nil)
	built, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return built
}
