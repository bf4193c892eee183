package segment

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// A copy of a segment under another name is left out: nothing is served twice or hidden, and no offset is given
// out again.
func TestCopyOfASegmentIsLeftOut(t *testing.T) {
	for _, to := range []string{"in the middle", "at the end"} {
		t.Run(to, func(t *testing.T) {
			fs := newMem(t)
			d := openDir(t, fs, straightOnly)
			l := d.open(t, "orders", 0, smallSegments())
			for i := range 30 {
				l.mustAppend(t, makeBatch(t, 2, fmt.Sprint(i), 1))
			}
			segments := *l.segments.Load()
			from, name := segments[1], fmt.Sprintf("%020d.log", segments[1].base+1)
			if to == "at the end" {
				name = fmt.Sprintf("%020d.log", l.active().base+1)
			}
			killed := fs.Crash(1, 1)
			d.close(t)
			text, err := vfs.ReadFile(killed, from.name(".log"))
			if err != nil {
				t.Fatal(err)
			}
			if err := vfs.WriteFileAtomic(killed, filepath.Join(l.path, name), text); err != nil {
				t.Fatal(err)
			}
			d = openDir(t, killed, straightOnly)
			defer d.close(t)
			l = d.open(t, "orders", 0, smallSegments())
			if got, err := l.readAll(0); err != nil || len(got) != 60 || got[33] != "16-1" {
				t.Errorf("%d records, %v", len(got), err)
			}
			if r := l.mustAppend(t, makeBatch(t, 1, "next", 1)); r.BaseOffset != 60 {
				t.Errorf("the next record is at %d", r.BaseOffset)
			}
			if !strings.Contains(d.log.String(), SaidDuplicate) {
				t.Errorf("the log does not say it: %s", d.log)
			}
		})
	}
}

// A damaged round of the journal costs its own records alone: what lies behind it is replayed, of other logs and of the same.
func TestDamagedRoundOfTheJournal(t *testing.T) {
	fs := newMem(t)
	d := openDir(t, fs, byJournal)
	one, two := d.open(t, "one", 0, DefaultLogConfig()), d.open(t, "two", 0, DefaultLogConfig())
	for i := range 4 {
		one.mustAppend(t, makeBatch(t, 2, fmt.Sprint(i), 1))
		two.mustAppend(t, makeBatch(t, 3, fmt.Sprint(i), 1))
	}
	killed := fs.Crash(1, 1)
	d.close(t)
	rewriteInPlace(t, killed, "data/journal/00000001.journal", 3*vfs.BlockSize+100) // the second of one
	d = openDir(t, killed)
	defer d.close(t)
	one, two = d.open(t, "one", 0, DefaultLogConfig()), d.open(t, "two", 0, DefaultLogConfig())
	if got, err := two.readAll(0); err != nil || len(got) != 12 {
		t.Errorf("two has %d records, %v", len(got), err)
	}
	if got, err := one.readAll(4); err != nil || len(got) != 4 {
		t.Errorf("one has %d records behind the damage, %v", len(got), err)
	}
	if _, err := one.Read(nil, 2, 8, 1000, true); err == nil {
		t.Error("the records of the damaged round are served")
	}
	for _, said := range []string{SaidJournalDamaged, SaidDamaged} {
		if !strings.Contains(d.log.String(), said) {
			t.Errorf("the log does not say %q: %s", said, d.log)
		}
	}
}

// A record that holds a batch is not taken for one when the batch around it is damaged.
func TestBatchWithinARecord(t *testing.T) {
	fs := newMem(t)
	d := openDir(t, fs)
	l := d.open(t, "orders", 0, DefaultLogConfig())
	inner := makeBatch(t, 1, "inner", 1)
	batch.PutBaseOffset(inner, 3)
	first := makeBatch(t, 1, "first", 1)
	l.mustAppend(t, first)
	outer := batch.NewBuilder(batch.BuilderOptions{})
	outer.Append(1, nil, inner, nil)
	b, err := outer.Build()
	if err != nil {
		t.Fatal(err)
	}
	l.mustAppend(t, b)
	for range 5 {
		l.mustAppend(t, makeBatch(t, 1, "last", 1))
	}
	name := l.active().name(".log")
	d.close(t)
	if err := fs.Remove(strings.TrimSuffix(name, ".log") + checkpointSuffix); err != nil {
		t.Fatal(err)
	}
	rewriteInPlace(t, fs, name, int64(len(first)+batch.MagicAt+1)) // its CRC
	file, err := fs.OpenFile(name, vfs.ReadWrite, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		t.Fatal(err)
	}
	at, err := nextIntact(file, int64(len(first)), size, 1)
	if err != nil || at != int64(len(first)+len(b)) {
		t.Errorf("the next intact batch is found at %d, %v; want %d", at, err, len(first)+len(b))
	}
}
