package segment

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// At each operation of a truncation or reset the power goes: the log is as it was, or as it is to be, in all that can be seen
// of it; and what is appended then, of a newer epoch, is what is there after another power cut.
func TestCrashAtEveryOperationOfATruncation(t *testing.T) {
	cuts := map[string]func(l *Log) error{
		"the last batch":     func(l *Log) error { return l.Truncate(context.Background(), 0, 39) },
		"of some segments":   func(l *Log) error { return l.Truncate(context.Background(), 0, 17) },
		"all":                func(l *Log) error { return l.Truncate(context.Background(), 0, 1) },
		"reset to before":    func(l *Log) error { return l.Reset(context.Background(), 0, 3) },
		"reset within":       func(l *Log) error { return l.Reset(context.Background(), 0, 20) },
		"reset to behind it": func(l *Log) error { return l.Reset(context.Background(), 0, 100) },
	}
	ways := map[string]func(*DirOptions){
		"straight": straightOnly, "by journal": byJournal, "checkpoints": often,
		"both": func(o *DirOptions) { o.DirectBytes, o.JournalFileBytes, o.FlushInterval = 130, 4096, time.Hour },
	}
	for way, settings := range ways {
		for name, do := range cuts {
			cfg := smallSegments()
			if way == "by journal" || way == "both" && len(name)%2 == 0 {
				cfg = DefaultLogConfig()
			}
			if testing.Short() && (way == "straight" || way == "both") {
				continue
			}
			fs := newMem(t)
			fs.Record()
			d := openDir(t, fs, settings)
			l := d.open(t, "orders", 0, cfg)
			fill(t, l, 0, 26)
			d.flush(t)
			fill(t, l, 26, 40)
			d.settle(t)
			before, begun := l.sight(t).String(), fs.Ops()
			if err := do(l); err != nil {
				t.Fatal(err)
			}
			after, done := l.sight(t).String(), fs.Ops()
			d.settle(t)
			seen := map[string]int{}
			for n := begun; n <= done; n++ {
				for seed, keep := range []float64{0, 0.5, 1} {
					cut := fs.Replay(n).Crash(uint64(seed), keep)
					cut.Record()
					d2 := openDir(t, cut, settings)
					l2 := d2.open(t, "orders", 0, cfg)
					got := l2.sight(t).String()
					seen[got]++
					if got != after && (got != before || n == done) {
						t.Fatalf("%s, %s, keep %v, after operation %d of %d to %d (%s):\n%v\nbefore\n%v\nafter\n%v", way, name, keep, n, begun, done, fs.Op(n), got, before, after)
					}
					end := l2.LogEndOffset()
					if (n+seed)%4 > 0 {
						d2.close(t)
						continue
					}
					for i := range int64(4) {
						if r := l2.keep(keptBatch(t, end+i, 1, 50, 9, int32(i))); r.Err != nil {
							t.Fatal(r.Err)
						}
					}
					want := l2.sight(t).String()
					d3 := openDir(t, cut.Crash(uint64(seed), keep), settings)
					if got := d3.open(t, "orders", 0, cfg).sight(t).String(); got != want {
						t.Fatalf("%s, %s, keep %v, after operation %d (%s), and appends:\n%v\nwant\n%v", way, name, keep, n, fs.Op(n), got, want)
					}
					d3.close(t)
					d2.close(t)
				}
			}
			if len(seen) != 2 {
				t.Errorf("%s, %s: %d states", way, name, len(seen))
			}
			d.close(t)
		}
	}
}

// A crash while an open carries out what another crash has cut short.
func TestCrashWhileATruncationIsFinished(t *testing.T) {
	fs := newMem(t)
	fs.Record()
	d := openDir(t, fs, often)
	l := d.open(t, "orders", 0, smallSegments())
	fill(t, l, 0, 40)
	d.settle(t)
	l.mustTruncate(t, 17)
	after := l.sight(t).String()
	for n := 1; n <= fs.Ops(); n++ {
		if !strings.HasPrefix(fs.Op(n), "remove") || !strings.HasSuffix(fs.Op(n), ".log") {
			continue
		}
		first := fs.Replay(n).Crash(uint64(n), 0.5) // the note is durable
		first.Record()
		openDir(t, first, often).close(t)
		for m := range first.Ops() + 1 {
			d := openDir(t, first.Replay(m).Crash(uint64(m), 0.5), often)
			if got := d.open(t, "orders", 0, smallSegments()).sight(t).String(); got != after {
				t.Fatalf("after operation %d (%s), and again after %d (%s):\n%v\nwant\n%v", n, fs.Op(n), m, first.Op(m), got, after)
			}
			d.close(t)
		}
	}
	d.close(t)
}

// Readers, appends, flushes and truncations at the same time: whoever reads gets what was appended there, and nothing is said
// about damage. A view that is held stays what it is.
func TestTruncateUnderReaders(t *testing.T) {
	for name, settings := range map[string]func(*DirOptions){
		"mixed":   func(o *DirOptions) { o.DirectBytes, o.FlushInterval = 300, time.Millisecond },
		"no tail": func(o *DirOptions) { o.TailBytes, o.FlushInterval, o.CheckpointBytes = 1, time.Millisecond, 2000 },
	} {
		t.Run(name, func(t *testing.T) {
			d := openDir(t, newMem(t), settings)
			cfg := smallSegments()
			cfg.SegmentBytes = 20_000
			l := d.open(t, "orders", 0, cfg)
			var stop atomic.Bool
			var readers sync.WaitGroup
			for reader := range 4 {
				readers.Go(func() {
					var v View
					from, reads := int64(reader), 0
					for !stop.Load() {
						_, err := l.View(&v, from, l.LogEndOffset(), 3000, true)
						if err != nil && !errors.Is(err, ErrOffsetOutOfRange) {
							t.Errorf("read at %d: %v", from, err)
							return
						}
						b := v.AppendTo(nil)
						next := from
						for one, err := range batch.All(b) {
							h, bad := batch.Check(one)
							if err != nil || bad != nil || h.LastOffset() < next {
								t.Errorf("read at %d: %v, %v, %+v", from, err, bad, h)
								return
							}
							next = h.NextOffset()
							reads++
						}
						if from = next; len(b) == 0 {
							from = max(0, l.LogEndOffset()-int64(reads%200))
						}
						if _, _, err := l.OffsetForTimestamp(1_700_000_000_000+from, 1<<40); err != nil && reads%16 == 0 {
							t.Errorf("by time: %v", err)
						}
						if string(v.AppendTo(nil)) != string(b) {
							t.Error("a view has changed")
						}
						v.Release()
					}
				})
			}
			end := int64(0)
			for round := range int32(60) {
				for range 12 {
					if r := l.keep(keptBatch(t, end, 1+int(end%5), round, -1, 0)); r.Err != nil {
						t.Fatal(r.Err)
					}
					end = l.LogEndOffset()
				}
				l.mustTruncate(t, max(0, end-1-int64(round)))
				end = l.LogEndOffset()
			}
			stop.Store(true)
			readers.Wait()
			if strings.Contains(d.log.String(), "level=ERROR") || strings.Contains(d.log.String(), "level=WARN") {
				t.Error(d.log)
			}
			d.close(t)
		})
	}
}

// Appends that come while the log is being cut wait, and follow the new end.
func TestAppendsWaitForATruncation(t *testing.T) {
	faulty := vfs.NewFaulty(newMem(t))
	d := openDir(t, faulty)
	l := d.open(t, "orders", 0, DefaultLogConfig())
	fill(t, l, 0, 40)
	hold, reached := make(chan struct{}), make(chan struct{})
	faulty.Inject(vfs.Fault{Op: vfs.OpSync, Path: "truncation.tmp", Nth: 1, Stall: hold, Do: func() { close(reached) }})
	cut := make(chan error, 1)
	go func() { cut <- l.Truncate(context.Background(), 0, 20) }()
	<-reached
	if err := l.Truncate(context.Background(), 0, 10); !errors.Is(err, ErrHeld) {
		t.Errorf("another one meanwhile: %v", err)
	}
	appended := make(chan Result, 1)
	if err := l.Append(context.Background(), &Append{Batches: makeBatch(t, 1, "x", 1), LeaderEpoch: 9, Done: func(r Result) { appended <- r }}); err != nil {
		t.Fatal(err)
	}
	d.open(t, "others", 0, DefaultLogConfig()).mustAppend(t, makeBatch(t, 1, "x", 1)) // who does not wait
	if len(appended) > 0 {
		t.Error("appended while the log is being cut")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Hold(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	l.Unhold()
	close(hold)
	if err := <-cut; err != nil {
		t.Fatal(err)
	}
	if r := <-appended; r.Err != nil || r.BaseOffset != 20 || l.EpochAt(20) != 9 {
		t.Errorf("%+v, epochs %v", r, l.Epochs())
	}
	d.close(t)
}

// Who has waited for long enough may append: what comes then is not cut, be the truncation under way or not begun.
func TestTruncateIsGivenUp(t *testing.T) {
	for _, underWay := range []bool{false, true} {
		faulty := vfs.NewFaulty(newMem(t))
		d := openDir(t, faulty)
		l := d.open(t, "orders", 0, DefaultLogConfig())
		fill(t, l, 0, 40)
		hold := make(chan struct{})
		ctx, cancel := context.WithCancel(context.Background())
		want := int64(40)
		if underWay {
			want = 20
			faulty.Inject(vfs.Fault{Op: vfs.OpSync, Path: "truncation.tmp", Nth: 1, Stall: hold, Do: cancel})
		} else {
			busy := make(chan struct{})
			d.toJanitor(func() { close(busy); <-hold })
			<-busy
			cancel()
		}
		if err := l.Truncate(ctx, 0, 20); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		appended := make(chan Result, 1)
		if err := l.Append(context.Background(), &Append{Batches: makeBatch(t, 1, "x", 1), Done: func(r Result) { appended <- r }}); err != nil {
			t.Fatal(err)
		}
		close(hold)
		if r := <-appended; r.Err != nil || r.BaseOffset != want {
			t.Errorf("%+v, want offset %d", r, want)
		}
		d.settle(t)
		if l.LogEndOffset() != want+1 {
			t.Errorf("ends at %d", l.LogEndOffset())
		}
		l.mustTruncate(t, 10)
		d.close(t)
	}
}

// A full disk: nothing is done. Any other failure behind the note fences, and the next open does what was begun.
func TestTruncateOnABadDisk(t *testing.T) {
	for _, path := range []string{"truncation.tmp", voidFile + ".tmp", "*.journal", "*.log"} {
		for _, op := range []vfs.Op{vfs.OpWrite, vfs.OpSync, vfs.OpTruncate} {
			for _, cause := range []error{syscall.ENOSPC, syscall.EIO} {
				t.Run(fmt.Sprint(path, op, cause), func(t *testing.T) {
					fs := newMem(t)
					faulty := vfs.NewFaulty(fs)
					d := openDir(t, faulty, byJournal)
					l := d.open(t, "orders", 0, DefaultLogConfig())
					fill(t, l, 0, 40)
					before := l.sight(t).String()
					faulty.Inject(vfs.Fault{Op: op, Path: path, Err: cause})
					err := l.Truncate(context.Background(), 0, 20)
					faulty.Heal()
					switch {
					case err == nil:
						if l.LogEndOffset() != 20 {
							t.Errorf("ends at %d", l.LogEndOffset())
						}
						d.close(t)
					case errors.Is(err, ErrFenced):
						d.Close(context.Background())
					case errors.Is(err, ErrNoSpace):
						if got := l.sight(t).String(); got != before {
							t.Errorf("%v, want %v", got, before)
						}
						l.mustTruncate(t, 20)
						d.close(t)
					default:
						t.Errorf("%v", err)
					}
					noted := err == nil || !errors.Is(err, ErrFenced)
					d = openDir(t, fs)
					l = d.open(t, "orders", 0, DefaultLogConfig())
					if end := l.LogEndOffset(); end != 20 && (noted || end != 40) {
						t.Errorf("after %v it ends at %d", err, end)
					}
					l.mustAppend(t, makeBatch(t, 1, "x", 1))
					d.close(t)
				})
			}
		}
	}
}

// The directory is closed while a log is being cut.
func TestCloseDuringATruncation(t *testing.T) {
	fs := newMem(t)
	for _, at := range []string{"truncation.tmp", "*.log"} {
		faulty := vfs.NewFaulty(fs)
		d := openDir(t, faulty)
		l := d.open(t, "orders", 0, DefaultLogConfig())
		if err := l.Reset(context.Background(), 0, 0); err != nil {
			t.Fatal(err)
		}
		fill(t, l, 0, 40)
		d.flush(t)
		hold, reached := make(chan struct{}), make(chan struct{})
		faulty.Inject(vfs.Fault{Op: vfs.OpSync, Path: at, Nth: 1, Stall: hold, Do: func() { close(reached) }})
		cut := make(chan error, 1)
		go func() { cut <- l.Truncate(context.Background(), 0, 20) }()
		<-reached
		refused := make(chan error, 1)
		if err := l.Append(context.Background(), &Append{Batches: makeBatch(t, 1, "x", 1), Done: func(r Result) { refused <- r.Err }}); err != nil {
			t.Fatal(err)
		}
		closed := make(chan error, 1)
		go func() { closed <- d.Close(context.Background()) }()
		if err := <-cut; !errors.Is(err, ErrClosed) {
			t.Errorf("%v", err)
		}
		close(hold)
		if err := <-closed; err != nil {
			t.Fatal(err)
		}
		if err := <-refused; !errors.Is(err, ErrClosed) {
			t.Errorf("%v", err)
		}
		d = openDir(t, fs)
		l = d.open(t, "orders", 0, DefaultLogConfig())
		if got, err := l.readAll(0); err != nil || l.LogEndOffset() != 20 || len(got) != 20 || strings.Contains(d.log.String(), "level=ERROR") {
			t.Errorf("ends at %d, %d records, %v: %s", l.LogEndOffset(), len(got), err, d.log)
		}
		d.close(t)
	}
}
