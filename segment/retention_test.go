package segment

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/segment/vfs"
)

func TestPlanRetention(t *testing.T) {
	const day = 24 * time.Hour
	now := time.UnixMilli(1_700_000_000_000)
	three := []view{{0, 100}, {10, 100}, {20, 50}} // ends at 25
	ages := func(days ...float64) []int64 {
		var timestamps []int64
		for _, d := range days {
			timestamps = append(timestamps, now.Add(-time.Duration(d*float64(day))).UnixMilli())
		}
		return timestamps
	}
	old := ages(9, 8, 7.5)
	for _, c := range []struct {
		name           string
		segments       []view
		start, hw      int64
		retention      time.Duration
		retentionBytes int64
		timestamps     []int64
		want           plan
	}{
		{"nothing is due", three, 0, 25, 7 * day, 1000, ages(3, 2, 1), plan{}},
		{"no bounds", three, 0, 25, -1, -1, old, plan{}},
		{"no segments", nil, 0, 0, 0, 0, nil, plan{}},
		{"old ones", three, 0, 25, 7 * day, -1, ages(9, 8, 1), plan{expired: 2}},
		{"exactly as old as allowed", three, 0, 25, 7 * day, -1, ages(7, 7, 7), plan{}},
		{"all, the active one too", three, 0, 25, 7 * day, -1, old, plan{expired: 3}},
		{"an empty active one stays", []view{{0, 100}, {10, 0}}, 0, 10, 7 * day, 0, old, plan{surplus: 1}},
		{"an empty log", []view{{10, 0}}, 10, 10, 0, 0, old, plan{}},
		{"a young one keeps older timestamps behind it", three, 0, 25, 7 * day, -1, ages(9, 1, 8), plan{expired: 1}},
		{"timestamps in the future", three, 0, 25, 7 * day, -1, ages(-400, 8, 8), plan{}},
		{"age cannot be told", three, 0, 25, 7 * day, -1, nil, plan{}},
		{"not behind the high watermark", three, 0, 19, 7 * day, 0, old, plan{surplus: 1}},
		{"not the active one before all of it is committed", three, 0, 24, 7 * day, -1, old, plan{expired: 2}},
		{"by size, keeping no less than allowed", three, 0, 25, -1, 149, old, plan{surplus: 1}},
		{"by size, to the byte", three, 0, 25, -1, 150, old, plan{surplus: 1}},
		{"by size, one byte short", three, 0, 25, -1, 151, old, plan{}},
		{"no bytes at all", three, 0, 25, -1, 0, old, plan{surplus: 3}},
		{"before the start", three, 20, 25, -1, -1, old, plan{breached: 2}},
		{"start within a segment", three, 19, 25, -1, -1, old, plan{breached: 1}},
		{"what went for its start counts no more", three, 10, 25, -1, 100, old, plan{breached: 1}},
		{"one reason after the other", []view{{0, 100}, {10, 100}, {20, 100}, {30, 100}}, 10, 40, 7 * day, 200, ages(9, 9, 8, 1), plan{breached: 1, surplus: 1, expired: 1}},
	} {
		cfg := LogConfig{Retention: c.retention, RetentionBytes: c.retentionBytes}
		end := int64(25)
		if n := len(c.segments); n == 4 {
			end = 40
		} else if n > 0 && c.segments[n-1].size == 0 {
			end = c.segments[n-1].base
		}
		got := planRetention(now, c.segments, c.start, end, c.hw, &cfg, func(i int) (int64, bool) {
			if i >= len(c.timestamps) {
				return 0, false
			}
			return c.timestamps[i], true
		})
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// inBubble opens a directory in a synctest bubble, looking for old segments as Kafka does.
func inBubble(o *DirOptions) {
	o.Now, o.RetentionDelay, o.RetentionInterval = time.Now, 30*time.Second, 5*time.Minute
}

// retained opens a log that retention may delete from.
func (d *testDir) retained(t testing.TB, name string, cfg LogConfig) *Log {
	t.Helper()
	l := d.open(t, name, 0, cfg)
	l.KeepFrom(l.LogEndOffset)
	return l
}

// namesIn lists the files of a log's folder.
func namesIn(t testing.TB, fs vfs.FS, l *Log) []string {
	t.Helper()
	entries, err := fs.ReadDir(l.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func bytesOf(t testing.TB, fs vfs.FS, folder string) (n int64) {
	t.Helper()
	entries, err := fs.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if info, err := e.Info(); e.IsDir() {
			n += bytesOf(t, fs, filepath.Join(folder, e.Name()))
		} else if err == nil {
			n += info.Size()
		}
	}
	return n
}

// A directory that is left alone for a year, with little coming in, does not grow: neither in
// bytes nor in files, whatever the policy; and a restart now and then changes nothing.
func TestAYearAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newMem(t)
		byAge, bySize, both, compact := DefaultLogConfig(), smallSegments(), smallSegments(), smallSegments()
		byAge.Retention, byAge.SegmentAge, byAge.SegmentJitter = 7*24*time.Hour, 24*time.Hour, time.Hour
		bySize.RetentionBytes = 5000
		both.Retention, both.RetentionBytes = 3*24*time.Hour, 20000
		configs := map[string]LogConfig{"age": byAge, "size": bySize, "both": both, "compact": compact, "idle": byAge}
		var d *testDir
		logs := map[string]*Log{}
		open := func() {
			d = openDir(t, fs, inBubble, func(o *DirOptions) { o.Jitter = func(n int64) int64 { return n / 2 } })
			for name, cfg := range configs {
				logs[name] = d.retained(t, name, cfg)
			}
		}
		open()
		logs["idle"].mustAppend(t, makeBatch(t, 3, "x", time.Now().UnixMilli()))
		most, files := int64(0), 0
		const rounds = 365 * 4
		for round := range rounds {
			for name, l := range logs {
				if name == "idle" || name == "compact" && round >= 20 {
					continue
				}
				l.mustAppend(t, makeBatch(t, 5, fmt.Sprintf("%s-%d", name, round), time.Now().UnixMilli()))
			}
			time.Sleep(6 * time.Hour)
			synctest.Wait()
			if round%100 == 50 {
				starts := map[string]int64{}
				for name, l := range logs {
					starts[name] = l.LogStartOffset()
				}
				d.close(t)
				if round%200 == 50 {
					fs = fs.Crash(uint64(round), 0.5)
				}
				open()
				for name, l := range logs {
					if l.LogStartOffset() != starts[name] {
						t.Fatalf("round %d: %s starts at %d after a restart, was %d", round, name, l.LogStartOffset(), starts[name])
					}
				}
			}
			if round == 100 {
				most = 2 * bytesOf(t, fs, "data")
				for _, l := range logs {
					files += 2 * len(namesIn(t, fs, l))
				}
			}
			if round > 100 {
				n := 0
				for _, l := range logs {
					n += len(namesIn(t, fs, l))
				}
				if size := bytesOf(t, fs, "data"); size > most || n > files {
					t.Fatalf("round %d: %d bytes in %d files, at most %d in %d are expected", round, size, n, most, files)
				}
			}
		}
		for name, want := range map[string]int64{"idle": 3, "compact": 0} {
			if got := logs[name].LogStartOffset(); got != want {
				t.Errorf("%s starts at %d, want %d", name, got, want)
			}
		}
		if size := logs["size"].SizeBytes(); size < 5000 || size > 5000+600 {
			t.Errorf("%d bytes remain where 5000 are kept", size)
		}
		for name, l := range logs {
			got, err := l.readAll(l.LogStartOffset())
			if err != nil || int64(len(got)) != l.LogEndOffset()-l.LogStartOffset() {
				t.Errorf("%s: %d records from %d to %d, %v", name, len(got), l.LogStartOffset(), l.LogEndOffset(), err)
			}
			oldest := int64(rounds-7*4-4-4) * 5 // a segment holds a day, at most, and goes when its last record is old enough
			if name == "age" && (l.LogStartOffset() < oldest || l.LogStartOffset() > int64(rounds-7*4)*5) {
				t.Errorf("age starts at %d, its end is %d", l.LogStartOffset(), l.LogEndOffset())
			}
			for _, f := range namesIn(t, fs, l) {
				if strings.HasSuffix(f, deletedSuffix) {
					t.Errorf("%s holds %s", name, f)
				}
			}
		}
		d.close(t)
	})
}

// A power cut at every operation of a look, which leaves an active segment, and at every one of the
// removal after it, loses nothing that is kept, shows nothing again that a reader was told is gone, and
// leaves no file behind.
func TestRetentionCutAtEveryOperation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, bytes := range []int64{0, 500} { // all goes, or some
			fs := newMem(t)
			cfg := smallSegments()
			cfg.RetentionBytes = -1
			d := openDir(t, fs, inBubble)
			l := d.retained(t, "orders", cfg)
			for i := range 12 {
				l.mustAppend(t, makeBatch(t, 3, fmt.Sprint(i), time.Now().UnixMilli()))
			}
			end := l.LogEndOffset()
			fs.Record()
			type told struct {
				start int64
				ops   int
			}
			var starts []told
			cfg.RetentionBytes = bytes
			l.SetConfig(cfg)
			time.Sleep(31 * time.Second)
			synctest.Wait()
			starts = append(starts, told{l.LogStartOffset(), fs.Ops()})
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			if l.LogStartOffset() == 0 || bytes == 0 && l.LogStartOffset() != end {
				t.Fatalf("retention has left %d to %d", l.LogStartOffset(), end)
			}
			t.Logf("%d operations, log starts at %d of %d", fs.Ops(), l.LogStartOffset(), end)
			for n := range fs.Ops() + 1 {
				for seed := range uint64(6) {
					crashed := fs.Replay(n).Crash(seed, []float64{0, 0.5, 1}[seed%3])
					d := openDir(t, crashed, inBubble)
					again := d.retained(t, "orders", cfg)
					if again.LogEndOffset() != end {
						t.Fatalf("after %d operations (%s) the log ends at %d, want %d", n, fs.Op(max(n, 1)), again.LogEndOffset(), end)
					}
					start := again.LogStartOffset()
					for _, s := range starts {
						if n >= s.ops && start < s.start {
							t.Fatalf("after %d operations (%s) the log starts at %d, but %d was told", n, fs.Op(n), start, s.start)
						}
					}
					got, err := again.readAll(start)
					if err != nil || int64(len(got)) != end-start {
						t.Fatalf("after %d operations (%s): %d records from %d to %d, %v", n, fs.Op(max(n, 1)), len(got), start, end, err)
					}
					if r := again.mustAppend(t, makeBatch(t, 1, "y", time.Now().UnixMilli())); r.BaseOffset != end {
						t.Fatalf("after %d operations the next record is at %d, want %d", n, r.BaseOffset, end)
					}
					time.Sleep(10 * time.Minute)
					synctest.Wait()
					have := map[string]bool{}
					for _, s := range *again.segments.Load() {
						have[filepath.Base(s.name(""))] = true
					}
					for _, name := range namesIn(t, crashed, again) {
						number, suffix, _ := strings.Cut(name, ".")
						if suffix == "log" && !have[number] || strings.HasPrefix(suffix, "index") && !have[number] || strings.HasSuffix(name, deletedSuffix) {
							t.Fatalf("after %d operations (%s) %s is left", n, fs.Op(max(n, 1)), name)
						}
					}
					d.close(t)
				}
			}
			d.close(t)
		}
	})
}

// Segments that a power cut has brought back before the log start offset go with the next look,
// whatever the policy.
func TestSegmentsBeforeTheStartGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newMem(t)
		d := openDir(t, fs, inBubble)
		l := d.open(t, "orders", 0, smallSegments())
		for range 30 {
			l.mustAppend(t, makeBatch(t, 3, "x", 1))
		}
		if err := l.DeleteRecordsBefore(context.Background(), 70); err != nil {
			t.Fatal(err)
		}
		crashed := fs.Crash(1, 0)
		d.close(t)
		d = openDir(t, crashed, inBubble)
		defer d.close(t)
		l = d.open(t, "orders", 0, smallSegments())
		before := l.SizeBytes()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if segments := *l.segments.Load(); l.LogStartOffset() != 70 || l.SizeBytes() >= before || segments[1].base <= 70 {
			t.Errorf("log starts at %d, its first segments at %d and %d; %d of %d bytes", l.LogStartOffset(), segments[0].base, segments[1].base, l.SizeBytes(), before)
		}
	})
}

// When the disk is so full that segments go before the log start offset is written, a power cut in
// between does not take the log's end back.
func TestRetentionOnAFullDiskKeepsTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newMem(t)
		faulty := vfs.NewFaulty(fs)
		d := openDir(t, faulty, inBubble)
		cfg := smallSegments()
		l := d.retained(t, "orders", cfg)
		for range 12 {
			l.mustAppend(t, makeBatch(t, 3, "x", 1))
		}
		fs.Record()
		cfg.RetentionBytes = 0
		l.SetConfig(cfg)
		faulty.Inject(vfs.Fault{Op: vfs.OpRemove, Path: "*.log", Nth: 1, Do: faulty.Heal}, vfs.Fault{Op: vfs.OpWrite, Path: "log-start-offset*", Err: syscall.ENOSPC})
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if l.LogStartOffset() != 36 {
			t.Fatalf("log starts at %d", l.LogStartOffset())
		}
		d.close(t)
		for n := range fs.Ops() + 1 {
			for seed := range uint64(20) {
				d := openDir(t, fs.Replay(n).Crash(seed, 0.5*float64(seed%2)), inBubble)
				if end := d.open(t, "orders", 0, cfg).LogEndOffset(); end != 36 {
					t.Errorf("after %d operations (%s) the log ends at %d", n, fs.Op(max(1, n)), end)
				}
				d.close(t)
			}
		}
	})
}

// A thousand logs in which nothing is old cost no file operation, and a look at them next to nothing.
func TestAudit2NothingToDeleteIsNoOperation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faulty := vfs.NewFaulty(newMem(t))
		cfg := DefaultLogConfig()
		cfg.Retention, cfg.RetentionBytes = 7*24*time.Hour, 1<<30
		d := openDir(t, faulty, inBubble)
		for i := range 1000 {
			d.retained(t, fmt.Sprint("idle", i), cfg).mustAppend(t, makeBatch(t, 1, "x", time.Now().UnixMilli()))
		}
		d.flush(t)
		before := faulty.Count(vfs.OpAny, "")
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if n := faulty.Count(vfs.OpAny, "") - before; n != 0 {
			t.Errorf("%d operations while idle", n)
		}
		d.close(t)
	})
}

// A damaged time index does not have young records deleted, nor one that is missing.
func TestRetentionDoesNotTrustATimeIndex(t *testing.T) {
	for _, segmentBytes := range []int64{2000, 1 << 20} {
		for _, damage := range []string{"old", "none", "empty", "gone", "old, killed", "none, killed", "empty, killed", "gone, killed"} {
			damage, killed := strings.CutSuffix(damage, ", killed")
			clean := !killed
			synctest.Test(t, func(t *testing.T) {
				fs := newMem(t)
				cfg := smallSegments()
				cfg.Retention, cfg.SegmentBytes = time.Hour, segmentBytes
				d := openDir(t, fs, inBubble)
				l := d.retained(t, "orders", cfg)
				for range 30 {
					l.mustAppend(t, makeBatch(t, 3, "x", time.Now().UnixMilli()))
				}
				indexes := []string{}
				for _, s := range *l.segments.Load() {
					indexes = append(indexes, s.name(".timeindex"))
				}
				if clean {
					d.close(t)
				} else {
					crashed := fs.Crash(1, 1)
					d.close(t)
					fs = crashed
				}
				for _, name := range indexes {
					text, err := vfs.ReadFile(fs, name)
					if err != nil {
						continue // of the active segment, which was not closed
					}
					switch damage {
					case "old":
						binary.BigEndian.PutUint64(text[len(text)-timeEntrySize:], 1)
						text = text[len(text)-timeEntrySize:]
					case "empty":
						text = nil
					case "gone":
						if err := fs.Remove(name); err != nil {
							t.Fatal(err)
						}
						continue
					}
					if err := vfs.WriteFileAtomic(fs, name, text); err != nil {
						t.Fatal(err)
					}
				}
				d = openDir(t, oldFS{fs}, inBubble)
				l = d.retained(t, "orders", cfg)
				time.Sleep(50 * time.Minute)
				synctest.Wait()
				if l.LogStartOffset() != 0 {
					t.Errorf("clean %v, index %s: records of 50 minutes are gone up to %d", clean, damage, l.LogStartOffset())
				}
				time.Sleep(20 * time.Minute)
				synctest.Wait()
				if l.LogStartOffset() != 90 {
					t.Errorf("clean %v, index %s: records of 70 minutes are gone up to %d only", clean, damage, l.LogStartOffset())
				}
				d.close(t)
			})
		}
	}
}

// oldFS has files that nobody has changed for long.
type oldFS struct{ vfs.FS }

func (o oldFS) Stat(name string) (os.FileInfo, error) {
	info, err := o.FS.Stat(name)
	return oldInfo{info}, err
}

type oldInfo struct{ fs.FileInfo }

func (oldInfo) ModTime() time.Time { return time.Unix(1, 0) }

// Records without a timestamp are as old as the last change of their file, and a segment of them is
// left when it was made segment.ms ago.
func TestRetentionWithoutTimestamps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultLogConfig()
		cfg.Retention, cfg.SegmentAge = time.Hour, 10*time.Minute
		fs := newMem(t)
		d := openDir(t, fs, inBubble)
		l := d.retained(t, "orders", cfg)
		for range 3 {
			l.mustAppend(t, makeBatch(t, 1, "x", -1))
			time.Sleep(11 * time.Minute)
		}
		if n := len(*l.segments.Load()); n != 3 {
			t.Errorf("%d segments, want 3", n)
		}
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if l.LogStartOffset() != 0 {
			t.Errorf("on a file system that tells no times records are gone up to %d", l.LogStartOffset())
		}
		d.close(t)
		d = openDir(t, oldFS{fs}, inBubble)
		l = d.retained(t, "orders", cfg)
		time.Sleep(time.Minute)
		synctest.Wait()
		if l.LogStartOffset() != 3 {
			t.Errorf("log starts at %d, want 3", l.LogStartOffset())
		}
		d.close(t)
	})
}

// A log that was found on the disk, and whose settings are not known yet, loses nothing; nor one without
// a high watermark.
func TestRetentionWaitsForSettings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newMem(t)
		cfg := smallSegments()
		cfg.Retention, cfg.RetentionBytes = 0, 0
		d := openDir(t, fs, inBubble)
		l := d.open(t, "orders", 0, cfg)
		for range 12 {
			l.mustAppend(t, makeBatch(t, 3, "x", 1))
		}
		time.Sleep(time.Hour)
		d.close(t)
		d = openDir(t, fs, inBubble)
		time.Sleep(time.Hour)
		l = d.open(t, "orders", 0, cfg)
		limit := int64(20)
		if l.LogStartOffset() != 0 {
			t.Errorf("log starts at %d", l.LogStartOffset())
		}
		l.KeepFrom(func() int64 { return limit })
		time.Sleep(time.Hour)
		synctest.Wait()
		if start := l.LogStartOffset(); start == 0 || start > limit {
			t.Errorf("log starts at %d, the high watermark is %d", start, limit)
		}
		d.close(t)
	})
}

// The lines about deletions name partition, reason and amount, once a minute at most; a segment from the
// future is said.
func TestRetentionIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := openDir(t, newMem(t), inBubble, func(o *DirOptions) { o.RetentionInterval = time.Second })
		defer d.close(t)
		cfg := smallSegments()
		cfg.RetentionBytes = 1000
		l := d.retained(t, "orders", cfg)
		for range 1000 {
			l.mustAppend(t, makeBatch(t, 3, "x", time.Now().UnixMilli()))
			time.Sleep(time.Second)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		said := d.log.String()
		if n := strings.Count(said, "deleted old segments"); n < 10 || n > 18 {
			t.Errorf("%d lines in %s", n, said)
		}
		if !strings.Contains(said, "partition=orders-0 why=retention.bytes=1000") && !strings.Contains(said, `partition=orders-0 why="retention.bytes=1000"`) {
			t.Errorf("said: %s", said)
		}
		cfg.Retention, cfg.RetentionBytes = time.Hour, -1
		l.SetConfig(cfg)
		for range 12 {
			l.mustAppend(t, makeBatch(t, 3, "x", time.Now().Add(100*time.Hour).UnixMilli()))
		}
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if n := strings.Count(d.log.String(), "in the future"); n < 1 || n > 4 {
			t.Errorf("the future was said %d times", n)
		}
	})
}
