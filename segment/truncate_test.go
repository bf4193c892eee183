package segment

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/segment/producer"
	"github.com/millrace/millrace/segment/vfs"
)

func (l *Log) mustTruncate(t testing.TB, offset int64) {
	t.Helper()
	if err := l.Truncate(context.Background(), 0, offset); err != nil {
		t.Fatalf("truncate to %d: %v", offset, err)
	}
}

// sight is what can be seen of a log.
type sight struct {
	start, end int64
	values     map[int64]string
	epochs     []EpochEntry
	producers  []producer.Info
	newest     TimedOffset
	at         []int64 // by timestamp
}

func (l *Log) sight(t testing.TB) (s sight) {
	t.Helper()
	s.start, s.end, s.epochs = l.LogStartOffset(), l.LogEndOffset(), l.Epochs()
	var err error
	if s.values, err = l.readAll(s.start); err != nil {
		t.Fatalf("read: %v", err)
	}
	if s.producers, err = l.Producers(context.Background()); err != nil {
		t.Fatal(err)
	}
	if s.newest, _, err = l.MaxTimestamp(); err != nil {
		t.Fatal(err)
	}
	for _, timestamp := range []int64{0, 1_700_000_000_003, 1_700_000_000_017, 1_700_000_000_040} {
		at, found, err := l.OffsetForTimestamp(timestamp, s.end)
		if err != nil {
			t.Fatal(err)
		}
		if !found {
			at.Offset = -1
		}
		s.at = append(s.at, at.Offset)
	}
	return s
}

func (s sight) String() string {
	return fmt.Sprintf("%d to %d, %d records, epochs %v, producers %+v, newest %+v, by time %v", s.start, s.end, len(s.values), s.epochs, s.producers, s.newest, s.at)
}

// fill appends batches of 2 records at offset, …, up to end: of two producers, with a new epoch every seven batches.
func fill(t testing.TB, l *Log, offset, end int64) {
	t.Helper()
	for ; offset < end; offset += 2 {
		if r := l.keep(keptBatch(t, offset, 2, int32(offset/14), offset%4, int32(offset))); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
}

// A log that was truncated is what it would be had it never been longer: at once, after a restart, after a kill and after
// a power cut; whatever the way that the records have gone to the disk, and wherever the cut is.
func TestTruncateIsAsNeverAppended(t *testing.T) {
	for way, settings := range map[string]func(*DirOptions){
		"straight": straightOnly, "by journal": byJournal, "checkpoints": often,
		"no tail": func(o *DirOptions) { o.TailBytes = 1 },
	} {
		for _, cfg := range []LogConfig{smallSegments(), DefaultLogConfig()} {
			for _, to := range []int64{0, 1, 2, 13, 14, 20, 31, 32, 39, 40, 41, 100} {
				want, end := to&^1, int64(40)
				want = min(want, end)
				fs := newMem(t)
				d := openDir(t, fs, settings)
				l := d.open(t, "orders", 0, cfg)
				fill(t, l, 0, end)
				if way == "straight" {
					d.flush(t)
				}
				l.mustTruncate(t, to)
				if d.settle(t); l.LogEndOffset() != want {
					t.Fatalf("%s: truncated to %d, ends at %d", way, to, l.LogEndOffset())
				}
				other := openDir(t, newMem(t), settings)
				twin := other.open(t, "orders", 0, cfg)
				fill(t, twin, 0, want)
				same := func(when string, l *Log) {
					t.Helper()
					if a, b := l.sight(t), twin.sight(t); a.String() != b.String() || !maps.Equal(a.values, b.values) {
						t.Errorf("%s, %s, truncated to %d:\n%v\nwant\n%v", way, when, to, a, b)
					}
				}
				same("at once", l)
				for when, fs := range map[string]*vfs.Mem{"killed": killed(fs), "without power": fs.Crash(1, 0)} {
					d := openDir(t, fs, settings)
					same(when, d.open(t, "orders", 0, cfg))
					d.close(t)
				}
				// … and it goes on as any other, with an epoch that begins in the midst of what was cut.
				goOn := func(l *Log) {
					t.Helper()
					for i := range int64(9) {
						if r := l.keep(keptBatch(t, want+3*i, 2, 77, 5, int32(3*i))); r.Err != nil {
							t.Fatal(r.Err)
						}
					}
				}
				goOn(l)
				goOn(twin)
				same("with more", l)
				for when, fs := range map[string]*vfs.Mem{"killed": killed(fs), "without power": fs.Crash(1, 0)} {
					d := openDir(t, fs, settings)
					same("with more, "+when, d.open(t, "orders", 0, cfg))
					d.close(t)
				}
				d.close(t)
				d = openDir(t, fs, settings)
				same("with more, closed", d.open(t, "orders", 0, cfg))
				if err := checkSeals(fs, "data/topics"); err != nil {
					t.Error(err)
				}
				d.close(t)
				other.close(t)
				if t.Failed() {
					t.FailNow()
				}
			}
		}
	}
}

// What was replicated before a truncation may not come back with a replay: the journal holds the old bytes, the new ones, of a newer
// epoch, went another way to the same offsets.
func TestCutRecordsDoNotComeBackFromTheJournal(t *testing.T) {
	for _, drop := range []string{"", voidFile} {
		fs := newMem(t)
		lossy := &forgettingRenames{FS: fs, name: drop}
		d := openDir(t, lossy, byJournal)
		l := d.open(t, "orders", 0, DefaultLogConfig())
		fill(t, l, 0, 40)
		l.mustTruncate(t, 20)
		if err := d.onCommitter(context.Background(), func() { d.Dir.opts.DirectBytes = 1 }); err != nil { // straight, from now on
			t.Fatal(err)
		}
		for base := int64(20); base < 40; base++ {
			if r := l.keep(keptBatch(t, base, 1, 9, -1, 0)); r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		again := openDir(t, fs.Crash(1, 0))
		l2 := again.open(t, "orders", 0, DefaultLogConfig())
		good := l2.LogEndOffset() == 40 && l2.EpochAt(39) == 9
		got, err := l2.readAll(0)
		good = good && err == nil && len(got) == 40
		if good != (drop == "") {
			t.Errorf("without %q: ends at %d, epochs %v, %d records, %v", drop, l2.LogEndOffset(), l2.Epochs(), len(got), err)
		}
		again.close(t)
		d.close(t)
	}
}

// forgettingRenames leaves out the renames to a name, and its removal.
type forgettingRenames struct {
	vfs.FS
	name string
}

func (f *forgettingRenames) Rename(from, to string) error {
	if path.Base(to) == f.name {
		return nil
	}
	return f.FS.Rename(from, to)
}

func (f *forgettingRenames) Remove(name string) error {
	if path.Base(name) == f.name {
		return nil
	}
	return f.FS.Remove(name)
}

// A log begins anew, before or behind what it had.
func TestReset(t *testing.T) {
	for _, way := range []func(*DirOptions){straightOnly, byJournal, often} {
		for _, to := range []int64{0, 7, 20, 33, 40, 1000} {
			fs := newMem(t)
			d := openDir(t, fs, way)
			l := d.open(t, "orders", 0, smallSegments())
			fill(t, l, 0, 40)
			if err := l.DeleteRecordsBefore(context.Background(), 15); err != nil {
				t.Fatal(err)
			}
			if err := l.Reset(context.Background(), 0, to); err != nil {
				t.Fatal(err)
			}
			look := func(fs vfs.FS, end int64, records int) {
				t.Helper()
				d := openDir(t, fs, way)
				l := d.open(t, "orders", 0, smallSegments())
				if s := l.sight(t); s.start != to || s.end != end || len(s.values) != records || records == 0 && (len(s.epochs) > 0 || len(s.producers) > 0) {
					t.Errorf("reset to %d: %v", to, s)
				}
				d.close(t)
			}
			if s := l.sight(t); s.start != to || s.end != to || len(s.values)+len(s.epochs)+len(s.producers) > 0 {
				t.Errorf("reset to %d: %v", to, s)
			}
			look(killed(fs), to, 0)
			look(fs.Crash(1, 0), to, 0)
			for i := range int64(5) {
				if r := l.keep(keptBatch(t, to+2*i, 2, 3, 7, int32(2*i))); r.Err != nil {
					t.Fatal(r.Err)
				}
			}
			look(killed(fs), to+10, 10)
			look(fs.Crash(2, 0), to+10, 10)
			d.close(t)
			look(fs, to+10, 10)
		}
	}
}

// Below the log start offset a truncation is a reset, and so it is within the batch that holds it: to where that one begins.
func TestTruncateBeforeTheStart(t *testing.T) {
	for to, want := range map[int64]int64{5: 5, 14: 14, 15: 14, 16: 16} {
		d := openDir(t, newMem(t))
		l := d.open(t, "orders", 0, smallSegments())
		fill(t, l, 0, 40)
		if err := l.DeleteRecordsBefore(context.Background(), 15); err != nil {
			t.Fatal(err)
		}
		l.mustTruncate(t, to)
		if start := min(want, 15); l.LogEndOffset() != want || l.LogStartOffset() != start {
			t.Errorf("truncated to %d: %d to %d, want %d to %d", to, l.LogStartOffset(), l.LogEndOffset(), start, want)
		}
		if r := l.keep(keptBatch(t, want, 2, 3, -1, 0)); r.Err != nil {
			t.Error(r.Err)
		}
		d.close(t)
	}
	d := openDir(t, newMem(t))
	defer d.close(t)
	if err := d.open(t, "orders", 0, smallSegments()).Truncate(context.Background(), 0, -1); !errors.Is(err, ErrOffsetOutOfRange) {
		t.Errorf("%v", err)
	}
}

// A log that nobody has written to gets no files when nothing is to be cut.
func TestTruncateOfAnEmptyLog(t *testing.T) {
	fs := newMem(t)
	d := openDir(t, fs)
	l := d.open(t, "orders", 0, DefaultLogConfig())
	l.mustTruncate(t, 0)
	l.mustTruncate(t, 7)
	if err := l.Reset(context.Background(), 0, 0); err != nil {
		t.Fatal(err)
	}
	if entries, err := fs.ReadDir("data/topics"); err != nil || len(entries) > 0 {
		t.Errorf("%v %v", entries, err)
	}
	if err := l.Reset(context.Background(), 0, 50); err != nil {
		t.Fatal(err)
	}
	d.close(t)
	d = openDir(t, fs)
	if l := d.open(t, "orders", 0, DefaultLogConfig()); l.LogStartOffset() != 50 || l.LogEndOffset() != 50 {
		t.Errorf("%d to %d", l.LogStartOffset(), l.LogEndOffset())
	}
	d.close(t)
}

// Notes that are damaged are not believed, and said; those of a later version keep the directory from being opened.
func TestDamagedNotesOfATruncation(t *testing.T) {
	for name, line := range map[string][]byte{cutFile: cut{base: 0, position: 0, end: 0}.encode(), voidFile: encodeVoid(roundNumber{1, 2})} {
		fs := newMem(t)
		d := openDir(t, fs)
		l := d.open(t, "orders", 0, DefaultLogConfig())
		fill(t, l, 0, 10)
		d.close(t)
		put := func(line []byte) {
			t.Helper()
			if err := vfs.WriteFileAtomic(fs, l.path+"/"+name, line); err != nil {
				t.Fatal(err)
			}
		}
		bad := append([]byte(nil), line...)
		bad[2] ^= 1
		put(bad)
		d = openDir(t, fs)
		if end := d.open(t, "orders", 0, DefaultLogConfig()).LogEndOffset(); end != 10 || !strings.Contains(d.log.String(), name) {
			t.Errorf("%s: ends at %d, %s", name, end, d.log)
		}
		d.close(t)
		put(encodeLine("2 1 2 3 4"))
		if _, err := tryOpenDir(fs); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s of a later version: %v", name, err)
		}
	}
}

func FuzzDecodeNotes(f *testing.F) {
	f.Add(cut{base: 7, position: 900, end: 50}.encode())
	f.Add(cut{base: 7, end: 7, whole: true}.encode())
	f.Add(encodeVoid(roundNumber{3, 8}))
	f.Add(encodeLine("1 7 0 9 1"))
	f.Fuzz(func(t *testing.T, line []byte) {
		if c, err := decodeCut(line); err == nil {
			if again, err := decodeCut(c.encode()); err != nil || again != c || c.end < c.base || c.whole && c.base != c.end {
				t.Errorf("%+v, again %+v, %v", c, again, err)
			}
		}
		if n, err := decodeVoid(line); err == nil {
			if again, err := decodeVoid(encodeVoid(n)); err != nil || again != n {
				t.Errorf("%+v, again %+v, %v", n, again, err)
			}
		}
	})
}

// The files of what was cut go, at once or with the next open.
func TestFilesOfWhatWasCutGo(t *testing.T) {
	for _, delay := range []time.Duration{0, time.Minute} {
		fs := newMem(t)
		d := openDir(t, fs)
		cfg := smallSegments()
		cfg.DeleteDelay = delay
		l := d.open(t, "orders", 0, cfg)
		fill(t, l, 0, 60)
		l.mustTruncate(t, 30)
		count := func() (logs, waiting int) {
			t.Helper()
			entries, err := fs.ReadDir(l.path)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if _, suffix, _ := parseFile(e.Name()); suffix == "log" {
					logs++
				} else if suffix == "log.deleted" {
					waiting++
				} else if suffix == "index.deleted" || e.Name() == cutFile {
					t.Errorf("there is %s", e.Name())
				}
			}
			return logs, waiting
		}
		if logs, waiting := count(); logs != len(*l.segments.Load()) || (waiting > 0) != (delay > 0) {
			t.Errorf("delay %v: %d logs of %d, %d wait", delay, logs, len(*l.segments.Load()), waiting)
		}
		fill(t, l, 30, 60) // the same names again
		d.close(t)
		d = openDir(t, fs)
		l = d.open(t, "orders", 0, cfg)
		d.settle(t)
		if logs, waiting := count(); logs != len(*l.segments.Load()) || waiting > 0 || l.LogEndOffset() != 60 {
			t.Errorf("after a restart: %d logs of %d, %d wait, ends at %d", logs, len(*l.segments.Load()), waiting, l.LogEndOffset())
		}
		d.close(t)
	}
}

// A leader who was succeeded cuts nothing, and appends nothing: what its successor has appended stays.
func TestFenceOfEarlierLeaders(t *testing.T) {
	d := openDir(t, newMem(t))
	l := d.open(t, "orders", 0, smallSegments())
	fill(t, l, 0, 10)
	l.FenceBelow(7)
	if err := l.Truncate(context.Background(), 6, 5); !errors.Is(err, ErrStaleEpoch) {
		t.Errorf("truncate: %v", err)
	}
	if err := l.Reset(context.Background(), 6, 5); !errors.Is(err, ErrStaleEpoch) {
		t.Errorf("reset: %v", err)
	}
	for _, keep := range []bool{true, false} {
		a := &Append{Batches: keptBatch(t, 10, 1, 6, -1, 0), LeaderEpoch: 6, Keep: keep, Done: func(Result) { t.Error("done") }}
		if err := l.Append(context.Background(), a); !errors.Is(err, ErrStaleEpoch) {
			t.Errorf("append, keep %v: %v", keep, err)
		}
	}
	if err := l.Truncate(context.Background(), 7, 4); err != nil || l.LogEndOffset() != 4 {
		t.Errorf("the leader's: %d, %v", l.LogEndOffset(), err)
	}
	d.close(t)
}
