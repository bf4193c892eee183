package segment

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// After a clean close no end can be incomplete: records behind a damaged one stay,
// whatever the indexes have come to.
func TestDamageAfterACleanCloseCutsNothing(t *testing.T) {
	for _, indexes := range []string{"kept", "lost"} {
		t.Run("indexes "+indexes, func(t *testing.T) {
			fs := newMem(t)
			d := openDir(t, fs)
			l := d.open(t, "orders", 0, DefaultLogConfig())
			size := 0
			for i := range 10 {
				b := makeBatch(t, 2, fmt.Sprint(i), 1)
				size = len(b)
				l.mustAppend(t, b)
			}
			s := l.active()
			d.close(t)
			rewriteInPlace(t, fs, s.name(".log"), int64(3*size+batch.HeaderSize+4))
			if indexes == "lost" {
				if err := fs.Remove(s.name(".index")); err != nil {
					t.Fatal(err)
				}
			}
			d = openDir(t, fs)
			defer d.close(t)
			l = d.open(t, "orders", 0, DefaultLogConfig())
			if l.LogEndOffset() != 20 {
				t.Fatalf("log ends at %d, want 20", l.LogEndOffset())
			}
			if got, err := l.readAll(8); err != nil || len(got) != 12 {
				t.Errorf("behind the damage: %d records, %v", len(got), err)
			}
			if _, err := l.Read(nil, 6, 20, 1000, true); !errors.Is(err, ErrCorrupt) {
				t.Errorf("read of the damage: %v", err)
			}
		})
	}
}

// Damage in an old segment is met by its readers; it keeps neither the log nor the
// directory from being opened, also when epochs and producers have to be read
// from the records again.
func TestDamageInAnOldSegmentKeepsNothingClosed(t *testing.T) {
	fs := newMem(t)
	d := openDir(t, fs)
	l := d.open(t, "orders", 0, smallSegments())
	for i := range int32(20) {
		l.mustAppend(t, producedBatch(t, 3*i, 3))
	}
	old, path := (*l.segments.Load())[1], l.path
	d.close(t)
	rewriteInPlace(t, fs, old.name(".log"), 8) // the length of its first batch
	entries, err := fs.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".snapshot") || e.Name() == epochsFile {
			if err := fs.Remove(path + "/" + e.Name()); err != nil {
				t.Fatal(err)
			}
		}
	}
	d, err = tryOpenDir(fs)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close(t)
	l = d.open(t, "orders", 0, smallSegments())
	if r := l.mustAppend(t, producedBatch(t, 57, 3)); !r.Duplicate || r.BaseOffset != 57 {
		t.Errorf("the last batch again: %+v", r)
	}
	if _, err := l.Read(nil, old.base, 60, 1000, true); !errors.Is(err, ErrCorrupt) {
		t.Errorf("read of the damage: %v", err)
	}
	if !strings.Contains(d.log.String(), "damaged records") {
		t.Errorf("the log does not say it: %s", d.log)
	}
}

// A log start offset whose file is damaged is not believed: records that were
// deleted may show again, but none that were not are hidden, and none is
// numbered anew.
func TestDamagedLogStartOffset(t *testing.T) {
	damages := map[string]func(b []byte) []byte{
		"empty":    func(b []byte) []byte { return nil },
		"cut":      func(b []byte) []byte { return b[:len(b)/2] },
		"zeroed":   func(b []byte) []byte { clear(b); return b },
		"one bit":  func(b []byte) []byte { b[0] ^= 1; return b },
		"a number": func(b []byte) []byte { return []byte("99999999\n") },
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			fs := newMem(t)
			d := openDir(t, fs)
			l := d.open(t, "orders", 0, smallSegments())
			for i := range 40 {
				l.mustAppend(t, makeBatch(t, 3, fmt.Sprint(i), 1))
			}
			if err := l.DeleteRecordsBefore(t.Context(), 77); err != nil {
				t.Fatal(err)
			}
			path := l.path + "/" + startFile
			d.close(t)
			text, err := vfs.ReadFile(fs, path)
			if err != nil {
				t.Fatal(err)
			}
			if err := vfs.WriteFileAtomic(fs, path, damage(text)); err != nil {
				t.Fatal(err)
			}
			d, err = tryOpenDir(fs)
			if err != nil {
				t.Fatal(err)
			}
			defer d.close(t)
			l = d.open(t, "orders", 0, smallSegments())
			if start := l.LogStartOffset(); start > 77 || start < 60 {
				t.Errorf("log starts at %d", start)
			}
			if got, err := l.readAll(77); err != nil || len(got) != 43 {
				t.Errorf("%d records, %v", len(got), err)
			}
			if r := l.mustAppend(t, makeBatch(t, 1, "next", 1)); r.BaseOffset != 120 {
				t.Errorf("next record at %d", r.BaseOffset)
			}
			if !strings.Contains(d.log.String(), startFile) {
				t.Errorf("the log does not say it: %s", d.log)
			}
		})
	}
}

// After a clean restart the index goes on where it was: entries do not drift apart.
func TestIndexGoesOnAfterACleanRestart(t *testing.T) {
	fs := newMem(t)
	d := openDir(t, fs)
	cfg := DefaultLogConfig()
	cfg.IndexIntervalBytes = 200
	for restart := range 10 {
		l := d.open(t, "orders", 0, cfg)
		l.mustAppend(t, makeBatch(t, 3, "x", 1))
		before := l.active().writer
		d.close(t)
		d = openDir(t, fs)
		after := d.open(t, "orders", 0, cfg).active().writer
		if after.sinceEntry != before.sinceEntry || len(after.offsets) != len(before.offsets) {
			t.Fatalf("restart %d: %d bytes since entry %d, before %d since %d", restart, after.sinceEntry, len(after.offsets), before.sinceEntry, len(before.offsets))
		}
	}
	d.close(t)
}

// Damage that announces a huge batch costs recovery no memory.
func TestRecoveryReadsInConstantMemory(t *testing.T) {
	fs := newMem(t)
	d := openDir(t, fs)
	l := d.open(t, "orders", 0, DefaultLogConfig())
	large := makeBatch(t, 1, strings.Repeat("x", 1<<20), 1)
	for range 40 {
		l.mustAppend(t, append([]byte(nil), large...))
	}
	name := l.active().name(".log")
	fs = fs.Crash(1, 1)
	d.close(t)
	file, err := fs.OpenFile(name, vfs.ReadWrite, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, tt := range []struct {
		name  string
		whole int // batches
	}{{"intact", 40}, {"wild length", 3}} {
		if tt.whole < 40 {
			if _, err := file.WriteAt([]byte{0x02}, int64(len(large)*tt.whole+8)); err != nil { // 32 MiB more
				t.Fatal(err)
			}
		}
		walk := walker{file: file, end: int64(len(large) * 40), whole: true}
		n := 0
		for walk.next() {
			n++
		}
		if n != tt.whole || cap(walk.window) > walkWindow {
			t.Errorf("%s: %d batches, want %d, in a window of %d bytes; %v", tt.name, n, tt.whole, cap(walk.window), walk.err)
		}
	}
}

// After a crash, rot in the middle is told from the end that a crash leaves: where
// the journal knows that more had been acknowledged, nothing is cut, and everything
// before and behind the damage is served.
func TestRotAfterACrashCutsNothing(t *testing.T) {
	for _, where := range []struct {
		name string
		byte int // of the damaged batch
	}{{"payload", batch.HeaderSize + 4}, {"CRC", batch.MagicAt + 1}, {"length", 8}, {"magic", batch.MagicAt}} {
		t.Run(where.name, func(t *testing.T) {
			fs := newMem(t)
			d := openDir(t, fs)
			l := d.open(t, "orders", 0, DefaultLogConfig())
			size := 0
			for i := range 10 {
				b := makeBatch(t, 2, fmt.Sprint(i), 1)
				size = len(b)
				l.mustAppend(t, b)
			}
			d.flush(t)
			l.mustAppend(t, makeBatch(t, 2, "x", 1)) // in the journal, behind what will be damaged
			crashed := fs.Crash(1, 0)
			d.close(t)
			rewriteInPlace(t, crashed, l.active().name(".log"), int64(3*size+where.byte))
			d = openDir(t, crashed)
			defer d.close(t)
			l = d.open(t, "orders", 0, DefaultLogConfig())
			if l.LogEndOffset() != 22 {
				t.Fatalf("log ends at %d, want 22: %s", l.LogEndOffset(), d.log)
			}
			for from := range int64(22) {
				got, err := l.Read(nil, from, 22, 1, true)
				if from == 6 || from == 7 {
					if !errors.Is(err, ErrCorrupt) {
						t.Errorf("read of the damage at %d: %v", from, err)
					}
				} else if h, herr := batch.Check(got); err != nil || herr != nil || h.BaseOffset > from || h.LastOffset() < from {
					t.Errorf("read at %d: offsets %d to %d, %v, %v", from, h.BaseOffset, h.LastOffset(), err, herr)
				}
			}
			if said := d.log.String(); !strings.Contains(said, "firstOffset=6 lastOffset=7") || !strings.Contains(said, fmt.Sprintf("position=%d", 3*size)) {
				t.Errorf("the log does not say what is damaged: %s", said)
			}
			if r := l.mustAppend(t, makeBatch(t, 1, "next", 1)); r.BaseOffset != 22 {
				t.Errorf("the next record is at %d", r.BaseOffset)
			}
		})
	}
}
