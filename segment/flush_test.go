package segment

import (
	"context"
	"fmt"
	"syscall"
	"testing"

	"github.com/millrace/millrace/segment/vfs"
)

// inTurns has a flush take two logs at a time, and a close sync all logs at once.
func inTurns(o *DirOptions) {
	byJournal(o)
	o.FlushLogs, o.SyncEach = 2, 1
}

// openLogs opens so many logs and appends a record to each.
func (d *testDir) openLogs(t *testing.T, n int) []*Log {
	t.Helper()
	logs := make([]*Log, n)
	for i := range logs {
		logs[i] = d.open(t, "orders", int32(i), DefaultLogConfig())
		logs[i].mustAppend(t, makeBatch(t, 1, "first", 1))
	}
	return logs
}

// mustHold opens what a crash has left: each of so many logs has so many records.
func mustHold(t *testing.T, fs vfs.FS, logs, records int) {
	t.Helper()
	d := openDir(t, fs)
	defer d.close(t)
	for i := range logs {
		got, err := d.open(t, "orders", int32(i), DefaultLogConfig()).readAll(0)
		if err != nil || len(got) != records {
			t.Errorf("log %d: %d of %d acknowledged records, %v", i, len(got), records, err)
		}
	}
}

// startFlush begins a flush between two rounds, and does not wait for it.
func (d *testDir) startFlush(t *testing.T) {
	t.Helper()
	if err := d.onCommitter(context.Background(), func() { d.committer.due = true }); err != nil {
		t.Fatal(err)
	}
}

// The files of the journal hold records of all logs that are flushed: they are used again when the last portion
// has ended, not before.
func TestJournalOutlivesThePortionsOfAFlush(t *testing.T) {
	const logs = 6
	fs := newMem(t)
	faulty := vfs.NewFaulty(fs)
	d := openDir(t, faulty, inTurns)
	defer d.close(t)
	all := d.openLogs(t, logs)
	hold, reached := make(chan struct{}), make(chan struct{})
	faulty.Inject(vfs.Fault{Op: vfs.OpSync, Path: "*.log", Nth: 3, Stall: hold, Do: func() { close(reached) }})
	d.startFlush(t)
	<-reached // in the second portion of three
	for _, l := range all {
		l.mustAppend(t, makeBatch(t, 1, "second", 1))
	}
	mustHold(t, fs.Crash(1, 0), logs, 2)
	close(hold)
	d.flush(t)
	// The third portion had both records of its logs, so the next flush had two portions.
	if n := faulty.Count(vfs.OpSync, "*.log"); n != 10 {
		t.Errorf("%d syncs of logs in two flushes, want 10", n)
	}
	if j := &d.committer.journal; len(j.old) > 0 || j.current != nil {
		t.Errorf("all is flushed, and %d files of the journal are needed", len(j.old))
	}
	for _, l := range all { // into files of the journal that are used again
		l.mustAppend(t, makeBatch(t, 1, "third", 1))
	}
	mustHold(t, fs.Crash(1, 0), logs, 3)
}

// A portion that fails ends its flush: what it had, and what had not begun, stays in the journal until the next one.
func TestAFailedPortionKeepsTheJournal(t *testing.T) {
	const logs = 6
	fs := newMem(t)
	faulty := vfs.NewFaulty(fs)
	d := openDir(t, faulty, inTurns)
	defer d.close(t)
	all := d.openLogs(t, logs)
	faulty.Inject(vfs.Fault{Op: vfs.OpWrite, Path: "*.log", Nth: 3, Err: syscall.ENOSPC})
	d.flush(t)
	if n := faulty.Count(vfs.OpSync, "*.log"); n > 3 {
		t.Errorf("%d logs were synced though the second portion of two has failed", n)
	}
	for _, l := range all {
		l.mustAppend(t, makeBatch(t, 1, "second", 1))
	}
	mustHold(t, fs.Crash(1, 0), logs, 2)
	d.flush(t)
	for _, l := range all {
		l.mustAppend(t, makeBatch(t, 1, "third", 1))
	}
	mustHold(t, fs.Crash(1, 0), logs, 3)
	if flushes := d.Stats().Flushes; flushes != 1 {
		t.Errorf("%d flushes have ended well, want 1", flushes)
	}
}

// A close during a flush waits for one portion; what the others would have written it writes itself, with
// one sync for all logs.
func TestCloseWaitsForOnePortion(t *testing.T) {
	for range 10 { // the committer takes one of two that have come
		closeDuringAFlush(t)
	}
}

func closeDuringAFlush(t *testing.T) {
	const logs = 20
	fs := newMem(t)
	faulty := vfs.NewFaulty(fs)
	d := openDir(t, faulty, inTurns)
	d.openLogs(t, logs)
	hold, reached := make(chan struct{}), make(chan struct{})
	faulty.Inject(vfs.Fault{Op: vfs.OpSync, Path: "*.log", Nth: 1, Stall: hold, Do: func() { close(reached) }})
	d.startFlush(t)
	<-reached
	closed := make(chan error, 1)
	if err := d.onCommitter(context.Background(), func() { // which finds both when it looks
		go func() { closed <- d.Close(context.Background()) }()
		<-d.stop
		close(hold)
		<-d.committer.flushing.done
	}); err != nil {
		t.Fatal(err)
	}
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	if n := faulty.Count(vfs.OpSync, "*.log"); n != 2 {
		t.Errorf("%d logs were synced one by one, one portion has 2", n)
	}
	crashed := fs.Crash(1, 0)
	if _, err := crashed.Stat("data/" + cleanMarker); err != nil {
		t.Errorf("not a clean close: %v", err)
	}
	mustHold(t, crashed, logs, 1)
}

// Appends that find the journal full wait for as many portions as it takes, and are not refused.
func TestAFullJournalWaitsForAllPortions(t *testing.T) {
	fs := newMem(t)
	d := openDir(t, fs, inTurns, func(o *DirOptions) { o.FlushLogs, o.JournalFileBytes, o.JournalBytes = 1, 4096, 64<<10 })
	defer d.close(t)
	all := make([]*Log, 10)
	for i := range all {
		all[i] = d.open(t, "orders", int32(i), DefaultLogConfig())
	}
	for n := range 10 {
		for _, l := range all {
			l.mustAppend(t, makeBatch(t, 1, fmt.Sprint("value", n), 1))
		}
	}
	if d.Stats().Flushes == 0 {
		t.Error("the journal was never full: nothing is tested")
	}
	mustHold(t, fs.Crash(1, 0), len(all), 10)
}

// A close does not touch the files of logs that a flush has brought everything into.
func TestCloseLeavesWhatIsFlushed(t *testing.T) {
	const logs = 5
	faulty := vfs.NewFaulty(newMem(t))
	d := openDir(t, faulty, inTurns)
	all := d.openLogs(t, logs)
	d.flush(t)
	all[0].mustAppend(t, makeBatch(t, 1, "second", 1))
	count := func() int {
		return faulty.Count(vfs.OpOpen, "*.log") + faulty.Count(vfs.OpWrite, "*.log") + faulty.Count(vfs.OpTruncate, "*.log")
	}
	before := count()
	d.close(t)
	if n := count() - before; n < 1 || n > 3 {
		t.Errorf("%d operations on the files of logs, one of which had something to write", n)
	}
}
