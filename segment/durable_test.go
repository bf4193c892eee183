package segment

import (
	"context"
	"fmt"
	"syscall"
	"testing"

	"github.com/millrace/millrace/segment/vfs"
)

// mustSurvive fails when a power cut now would take records of a log away.
func mustSurvive(t *testing.T, fs *vfs.Mem, name string, records int64) {
	t.Helper()
	d := openDir(t, fs.Crash(1, 0))
	defer d.close(t)
	if end := d.open(t, name, 0, smallSegments()).LogEndOffset(); end != records {
		t.Fatalf("after a power cut the log of %s ends at %d, %d were acknowledged", name, end, records)
	}
}

// The folder of a log has a durable name before anything in it is acknowledged,
// also when the first round fills more than one segment.
func TestFirstRoundOverSeveralSegmentsIsDurable(t *testing.T) {
	fs := newMem(t)
	faulty := vfs.NewFaulty(fs)
	d := openDir(t, faulty)
	defer d.close(t)
	busy := d.open(t, "busy", 0, smallSegments())
	busy.mustAppend(t, makeBatch(t, 1, "x", 1))
	hold := make(chan struct{})
	faulty.Inject(vfs.Fault{Op: vfs.OpSync, Path: "*.log", Nth: 1, Stall: hold})
	first := make(chan Result, 1)
	if err := busy.Append(context.Background(), &Append{Batches: makeBatch(t, 1, "x", 1), Done: func(r Result) { first <- r }}); err != nil {
		t.Fatal(err)
	}
	l := d.open(t, "orders", 0, smallSegments())
	done := make(chan *vfs.Mem, 10)
	for i := range 10 {
		b := makeBatch(t, 10, fmt.Sprint(i), 1)
		if err := l.Append(context.Background(), &Append{Batches: b, Done: func(Result) { done <- fs.Crash(1, 0) }}); err != nil {
			t.Fatal(err)
		}
	}
	close(hold)
	<-first
	for i := range int64(10) {
		crashed := openDir(t, <-done)
		if end := crashed.open(t, "orders", 0, smallSegments()).LogEndOffset(); end < 10*(i+1) {
			t.Fatalf("after a power cut the log ends at %d, %d were acknowledged", end, 10*(i+1))
		}
		crashed.close(t)
	}
}

// … also when the first append failed, and left the folder behind.
func TestAppendBehindAFailedFirstOneIsDurable(t *testing.T) {
	fs := newMem(t)
	faulty := vfs.NewFaulty(fs, vfs.Fault{Op: vfs.OpWrite, Path: "*.log", Nth: 1, Err: syscall.ENOSPC})
	d := openDir(t, faulty, straightOnly)
	defer d.close(t)
	l := d.open(t, "orders", 0, smallSegments())
	if r := l.appendAndWait(t, makeBatch(t, 1, "x", 1)); r.Err == nil {
		t.Fatal("nothing failed: nothing is tested")
	}
	l.mustAppend(t, makeBatch(t, 1, "x", 1))
	mustSurvive(t, fs, "orders", 1)
}

// … and also when a process was killed before it had synced the name.
func TestAppendBehindAKilledFirstOneIsDurable(t *testing.T) {
	for _, op := range []vfs.Fault{{Op: vfs.OpSync, Path: "*.log"}, {Op: vfs.OpSyncDir, Path: "topics"}} {
		fs := newMem(t)
		fs.Record()
		faulty := vfs.NewFaulty(fs)
		d := openDir(t, faulty, straightOnly)
		var killed *vfs.Mem
		op.Nth, op.Do = 1, func() { killed = fs.Replay(fs.Ops()) }
		faulty.Inject(op)
		d.open(t, "orders", 0, smallSegments()).mustAppend(t, makeBatch(t, 1, "x", 1))
		d.close(t)
		d = openDir(t, killed)
		l := d.open(t, "orders", 0, smallSegments())
		mustSurvive(t, killed, "orders", l.LogEndOffset()) // readers have seen it
		r := l.mustAppend(t, makeBatch(t, 1, "y", 1))
		mustSurvive(t, killed, "orders", r.LastOffset+1)
		d.close(t)
	}
}
