package segment

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/millrace/millrace/segment/vfs"
)

// A log that is written at its end and deleted at its start, as the coordinator
// does with what it has written anew, stays small, although its segments are large.
func TestLogThatIsDeletedAsItGrowsStaysSmall(t *testing.T) {
	fs := newMem(t)
	d := openDir(t, fs)
	l := d.open(t, "offsets", 0, DefaultLogConfig())
	growth, live := strings.Repeat("g", 100<<10), strings.Repeat("l", 50<<10)
	for round := range 15 {
		for range 10 {
			l.mustAppend(t, makeBatch(t, 1, growth, 1))
		}
		start := l.LogEndOffset()
		l.mustAppend(t, makeBatch(t, 1, live, 1))
		if err := l.DeleteRecordsBefore(context.Background(), start); err != nil {
			t.Fatal(err)
		}
		if size := l.SizeBytes(); size > 3<<20 {
			t.Fatalf("round %d: %d bytes, of which %d are live", round, size, len(live))
		}
		if got, err := l.readAll(start); err != nil || len(got) != 1 {
			t.Fatalf("%d records, %v", len(got), err)
		}
		end := l.LogEndOffset()
		fs = fs.Crash(uint64(round), 0)
		d.close(t)
		d = openDir(t, fs)
		l = d.open(t, "offsets", 0, DefaultLogConfig())
		if l.LogStartOffset() != start || l.LogEndOffset() != end {
			t.Fatalf("after a power cut the log holds %d to %d, want %d to %d", l.LogStartOffset(), l.LogEndOffset(), start, end)
		}
	}
	d.close(t)
}

// Records can be deleted on a full disk, where the log start offset has no room
// before segments are removed.
func TestDeleteRecordsOnAFullDisk(t *testing.T) {
	fs := newMem(t)
	faulty := vfs.NewFaulty(fs)
	d := openDir(t, faulty)
	defer d.close(t)
	l := d.open(t, "orders", 0, smallSegments())
	for range 40 {
		l.mustAppend(t, makeBatch(t, 3, "x", 1))
	}
	full := vfs.Fault{Op: vfs.OpWrite, Err: syscall.ENOSPC}
	faulty.Inject(vfs.Fault{Op: vfs.OpRemove, Path: "*.log", Nth: 1, Do: faulty.Heal}, full)
	before := l.SizeBytes()
	if err := l.DeleteRecordsBefore(context.Background(), 77); err != nil {
		t.Fatal(err)
	}
	if l.SizeBytes() >= before/2 || l.LogStartOffset() != 77 {
		t.Errorf("%d of %d bytes remain, from %d on", l.SizeBytes(), before, l.LogStartOffset())
	}
	// Without a segment that could go, there is nothing to be done.
	faulty.Inject(full)
	if err := l.DeleteRecordsBefore(context.Background(), 78); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("delete on a disk that stays full: %v", err)
	}
	faulty.Heal()
	if l.LogStartOffset() != 77 || d.Err() != nil {
		t.Errorf("log starts at %d, %v", l.LogStartOffset(), d.Err())
	}
}

func FuzzDecodeStart(f *testing.F) {
	f.Add(encodeStart(77))
	f.Add([]byte("1 77\n"))
	f.Add([]byte("77\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, text []byte) {
		offset, err := decodeStart(text)
		if err != nil {
			return
		}
		if again, err := decodeStart(encodeStart(offset)); err != nil || again != offset || offset < 0 {
			t.Errorf("%q is read as %d, which is read as %d, %v", text, offset, again, err)
		}
	})
}
