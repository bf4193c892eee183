package segment

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/segment/vfs"
)

// Before the disk is full to the last byte appends are refused, with a reason, and
// accepted again as soon as there is room; what was acknowledged reaches its segment.
func TestReserveIsKept(t *testing.T) {
	fs := newMem(t)
	d := openDir(t, fs)
	l := d.open(t, "orders", 0, DefaultLogConfig())
	l.mustAppend(t, makeBatch(t, 1, "x", 1))
	fs.SetSpace(mostReserve-1, 1<<40)
	d.committer.room.since = lookEveryBytes // look now
	if r := l.appendAndWait(t, makeBatch(t, 1, "y", 1)); !errors.Is(r.Err, ErrNoSpace) || d.Err() != nil {
		t.Fatalf("append into the reserve: %+v", r)
	}
	d.flush(t)
	if got, err := l.readAll(0); err != nil || len(got) != 1 || l.active().flushed != l.active().size.Load() {
		t.Errorf("%d records, %v; %d of %d bytes are in the file", len(got), err, l.active().flushed, l.active().size.Load())
	}
	if err := l.DeleteRecordsBefore(t.Context(), 1); err != nil {
		t.Errorf("delete on a full disk: %v", err)
	}
	fs.SetSpace(mostReserve, 1<<40)
	if r := l.mustAppend(t, makeBatch(t, 1, "z", 1)); r.BaseOffset != 1 {
		t.Errorf("append once there is room: %+v", r)
	}
	// A small disk keeps a share of itself.
	fs.SetSpace(40_000, 1_000_000)
	d.committer.room.since = lookEveryBytes
	if r := l.appendAndWait(t, makeBatch(t, 1, "y", 1)); !errors.Is(r.Err, ErrNoSpace) {
		t.Errorf("append on a small disk: %+v", r)
	}
	d.close(t)
}

// A journal that cannot be brought into the segments does not grow without bound: appends are refused, and
// taken again when a flush succeeds.
func TestAudit7JournalIsBounded(t *testing.T) {
	faulty := vfs.NewFaulty(newMem(t))
	d := openDir(t, faulty, byJournal, func(o *DirOptions) { o.JournalBytes = 50_000 })
	l := d.open(t, "orders", 0, DefaultLogConfig())
	faulty.Inject(vfs.Fault{Op: vfs.OpWrite, Path: "*.log", Err: syscall.ENOSPC})
	var err error
	appended := 0
	for range 100 {
		if err = l.appendAndWait(t, makeBatch(t, 1, "x", 1)).Err; err != nil {
			break
		}
		appended++
	}
	if !errors.Is(err, ErrNoSpace) || appended < 5 || d.Err() != nil {
		t.Fatalf("after %d appends: %v; directory: %v", appended, err, d.Err())
	}
	if got, err := l.readAll(0); err != nil || len(got) != appended {
		t.Errorf("%d records, %v", len(got), err)
	}
	faulty.Heal()
	if r := l.mustAppend(t, makeBatch(t, 1, "y", 1)); r.BaseOffset != int64(appended) {
		t.Errorf("append once there is room: %+v", r)
	}
	d.close(t)
}

// Whole blocks are written, but the padding behind the last batch does not stay: tools that read the file
// of a running broker stumble over it.
func TestPaddingIsTrimmed(t *testing.T) {
	fs := newMem(t)
	d := openDir(t, fs, straightOnly, func(o *DirOptions) { o.Now, o.FlushInterval = time.Now, time.Millisecond })
	defer d.close(t)
	l := d.open(t, "orders", 0, DefaultLogConfig())
	for range 3 {
		l.mustAppend(t, makeBatch(t, 1, "x", 1))
		time.Sleep(2 * time.Millisecond) // a flush is due
		d.flush(t)
		info, err := fs.Stat(l.active().name(".log"))
		if err != nil || info.Size() != l.SizeBytes() {
			t.Fatalf("the file has %d bytes, its records %d, %v", info.Size(), l.SizeBytes(), err)
		}
	}
}
