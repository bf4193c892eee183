package segment

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/segment/vfs"
)

// stall is a disk that does not answer: one operation of the kind does not come back until it is let go.
type stall struct {
	fault vfs.Fault
	how   string // what meets it
	way   func(*DirOptions)
}

var stalls = []stall{
	{vfs.Fault{Op: vfs.OpWrite, Path: "*.log"}, "append", straightOnly},
	{vfs.Fault{Op: vfs.OpSync, Path: "*.log"}, "append", straightOnly},
	{vfs.Fault{Op: vfs.OpWrite, Path: "*.journal"}, "append", byJournal},
	{vfs.Fault{Op: vfs.OpSync, Path: "*.journal"}, "append", byJournal},
	{vfs.Fault{Op: vfs.OpOpen, Path: "*.log"}, "first append", straightOnly},
	{vfs.Fault{Op: vfs.OpMkdir, Path: "other-*"}, "first append", straightOnly},
	{vfs.Fault{Op: vfs.OpSyncDir, Path: "topics"}, "first append", straightOnly},
	{vfs.Fault{Op: vfs.OpSyncDir, Path: "other-*"}, "first append", straightOnly},
	{vfs.Fault{Op: vfs.OpRename, Path: startFile}, "delete records", straightOnly},
	{vfs.Fault{Op: vfs.OpSync, Path: startFile + ".tmp"}, "delete records", byJournal},
}

// A disk that stalls for a minute keeps nobody waiting beyond the deadline: what is queued and
// what comes is refused at once, reading goes on, and when the disk answers all is as before,
// without a restart. Nothing acknowledged is lost, no goroutine is left, no lock is held.
func TestAudit1StalledDisk(t *testing.T) {
	for _, s := range stalls {
		t.Run(s.fault.Op.String()+" "+s.fault.Path, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { s.run(t) })
		})
	}
}

func (s stall) run(t *testing.T) {
	fs := newMem(t)
	faulty := vfs.NewFaulty(fs)
	stalledCalls := 0
	d := openDir(t, faulty, s.way, func(o *DirOptions) {
		o.Now = time.Now
		o.QueueBytes = 4096
		o.Stalled = func() { stalledCalls++ }
	})
	cfg := DefaultLogConfig()
	cfg.QueueBytes = 4096
	l := d.open(t, "orders", 0, cfg)
	for i := range 4 {
		l.mustAppend(t, makeBatch(t, 3, fmt.Sprintf("acknowledged-%d", i), 1))
	}
	hold := make(chan struct{})
	s.fault.Nth, s.fault.Stall = 1, hold
	faulty.Inject(s.fault)
	victim := l
	deleted := make(chan error, 1)
	switch s.how {
	case "first append":
		victim = d.open(t, "other", 0, cfg)
	case "delete records":
		go func() { deleted <- l.DeleteRecordsBefore(context.Background(), 3) }()
		synctest.Wait()
	}
	begun := time.Now()
	type told struct {
		Result
		after time.Duration
	}
	inRound, queued := make(chan told, 1), make(chan told, 1)
	tell := func(c chan told) func(Result) {
		return func(r Result) { c <- told{r, time.Since(begun)} }
	}
	if s.how != "delete records" {
		if err := victim.Append(t.Context(), &Append{Batches: makeBatch(t, 1, "in the round", 1), Done: tell(inRound)}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if faulty.Stalled() != 1 {
			t.Fatal("nothing stalls: nothing is tested")
		}
		if err := l.Append(t.Context(), &Append{Batches: makeBatch(t, 1, "queued", 1), Done: tell(queued)}); err != nil {
			t.Fatal(err)
		}
		// One that waits for room in the queue, and one that has less patience.
		blocked := make(chan error, 1)
		big := makeBatch(t, 1, strings.Repeat("x", 4096), 1)
		go func() {
			blocked <- l.Append(t.Context(), &Append{Batches: big, Patience: time.Minute, Done: func(Result) { t.Error("done") }})
		}()
		if err := l.Append(t.Context(), &Append{Batches: big, Patience: time.Second, Done: func(Result) { t.Error("done") }}); !errors.Is(err, ErrQueueFull) {
			t.Errorf("patience has ended: %v", err)
		}
		if err := <-blocked; !errors.Is(err, ErrStalled) || time.Since(begun) != 10*time.Second {
			t.Errorf("waiting for room: %v after %s", err, time.Since(begun))
		}
		if r := <-queued; !errors.Is(r.Err, ErrStalled) || r.after != 10*time.Second {
			t.Errorf("queued: %v after %s", r.Err, r.after)
		}
	} else {
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if err := <-deleted; !errors.Is(err, ErrStalled) {
			t.Errorf("the deletion that met it: %v", err)
		}
	}
	synctest.Wait()

	// The directory is stalled, and nothing waits.
	if err := d.Err(); !errors.Is(err, ErrStalled) || !strings.Contains(err.Error(), s.fault.Op.String()+" ") {
		t.Errorf("state: %v", err)
	}
	if op, file, since, ok := d.Stall(); !ok || op != s.fault.Op.String() || file == "" || time.Since(since) < 10*time.Second {
		t.Errorf("stall: %s %s %s %v", op, file, since, ok)
	}
	at := time.Now()
	for _, log := range []*Log{l, victim} {
		if err := log.Append(t.Context(), &Append{Batches: makeBatch(t, 1, "new", 1), Done: func(Result) { t.Error("done") }}); !errors.Is(err, ErrStalled) {
			t.Errorf("a new append: %v", err)
		}
	}
	if err := l.DeleteRecordsBefore(t.Context(), 1); !errors.Is(err, ErrStalled) {
		t.Errorf("delete records: %v", err)
	}
	if s.how != "delete records" { // else the committer is free to answer
		if _, err := l.Producers(t.Context()); !errors.Is(err, ErrStalled) {
			t.Errorf("producers: %v", err)
		}
	}
	if got, err := l.readAll(l.LogStartOffset()); err != nil || len(got) != 12-int(l.LogStartOffset()) {
		t.Errorf("reading: %d records, %v", len(got), err)
	}
	if waited := time.Since(at); waited != 0 {
		t.Errorf("something waited for %s", waited)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()

	// The disk answers, after a minute in all.
	time.Sleep(time.Until(begun.Add(time.Minute)))
	close(hold)
	synctest.Wait()
	if err := d.Err(); err != nil {
		t.Errorf("after the stall: %v", err)
	}
	if s.how != "delete records" {
		if r := <-inRound; r.Err != nil {
			t.Errorf("in the round: %v", r.Err)
		}
	}
	l.mustAppend(t, makeBatch(t, 1, "after it", 1))
	victim.mustAppend(t, makeBatch(t, 1, "after it", 1))
	if err := l.DeleteRecordsBefore(ctx, 4); err != nil && ctx.Err() == nil {
		t.Errorf("delete records after the stall: %v", err)
	}
	if d.Stalls() != 1 || stalledCalls != 1 {
		t.Errorf("counted %d stalls, told of %d", d.Stalls(), stalledCalls)
	}
	for _, line := range []string{"is slow", "log directory stalled", "no longer stalled"} {
		if n := strings.Count(d.log.String(), line); n != 1 {
			t.Errorf("the log says %q %d times", line, n)
		}
	}
	crashed := fs.Crash(3, 0)
	d.close(t)
	synctest.Wait()

	again := openDir(t, crashed, func(o *DirOptions) { o.Now = time.Now })
	if got, err := again.open(t, "orders", 0, cfg).readAll(4); err != nil || got[4] != "acknowledged-1-1" || got[11] != "acknowledged-3-2" {
		t.Errorf("after a power cut: %v, %v", got, err)
	}
	again.close(t)
}

// A stall that ends with an I/O error leaves the directory fenced, until a restart.
func TestStallThatEndsInAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newMem(t)
		faulty := vfs.NewFaulty(fs)
		d := openDir(t, faulty, straightOnly, func(o *DirOptions) { o.Now = time.Now })
		l := d.open(t, "orders", 0, DefaultLogConfig())
		l.mustAppend(t, makeBatch(t, 3, "good", 1))
		hold := make(chan struct{})
		faulty.Inject(vfs.Fault{Op: vfs.OpSync, Path: "*.log", Nth: 1, Stall: hold, Err: syscall.EIO})
		met := make(chan Result, 1)
		if err := l.Append(t.Context(), &Append{Batches: makeBatch(t, 1, "bad", 1), Done: func(r Result) { met <- r }}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		if err := d.Err(); !errors.Is(err, ErrStalled) || errors.Is(err, ErrFenced) {
			t.Errorf("while it stalls: %v", err)
		}
		close(hold)
		if r := <-met; !errors.Is(r.Err, ErrFenced) || !errors.Is(r.Err, syscall.EIO) {
			t.Errorf("the append that met it: %v", r.Err)
		}
		time.Sleep(time.Hour)
		if err := d.Err(); !errors.Is(err, ErrFenced) {
			t.Errorf("an hour later: %v", err)
		}
		if err := l.Append(t.Context(), &Append{Batches: makeBatch(t, 1, "later", 1)}); !errors.Is(err, ErrFenced) {
			t.Errorf("a later append: %v", err)
		}
		if err := d.Close(t.Context()); !errors.Is(err, ErrFenced) {
			t.Errorf("close: %v", err)
		}
		again := openDir(t, fs.Crash(1, 0))
		if got, err := again.open(t, "orders", 0, DefaultLogConfig()).readAll(0); err != nil || len(got) != 3 {
			t.Errorf("after a restart: %v, %v", got, err)
		}
		again.close(t)
	})
}

// While something else stalls, an append that fails is still taken back in the file: its bytes
// must not lie behind those of a shorter one that is written after the stall.
func TestFailedAppendIsTakenBackDuringAStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faulty := vfs.NewFaulty(newMem(t))
		d := openDir(t, faulty, straightOnly, func(o *DirOptions) { o.Now = time.Now })
		l := d.open(t, "orders", 0, DefaultLogConfig())
		l.mustAppend(t, makeBatch(t, 3, "good", 1))
		write, rename := make(chan struct{}), make(chan struct{})
		faulty.Inject(
			vfs.Fault{Op: vfs.OpRename, Path: startFile, Nth: 1, Stall: rename},
			vfs.Fault{Op: vfs.OpWrite, Path: "*.log", Nth: 1, Stall: write, Err: syscall.ENOSPC, Short: 70},
		)
		go l.DeleteRecordsBefore(context.Background(), 1)
		failed := make(chan Result, 1)
		if err := l.Append(t.Context(), &Append{Batches: makeBatch(t, 20, "no room", 1), Done: func(r Result) { failed <- r }}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		close(write)
		if r := <-failed; !errors.Is(r.Err, ErrNoSpace) || !errors.Is(d.Err(), ErrStalled) {
			t.Errorf("append: %v, directory: %v", r.Err, d.Err())
		}
		files, err := faulty.ReadDir(l.path)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if info, err := faulty.Stat(filepath.Join(l.path, f.Name())); err == nil && strings.HasSuffix(f.Name(), ".log") && info.Size() != l.SizeBytes() {
				t.Errorf("%s has %d bytes, its records %d", f.Name(), info.Size(), l.SizeBytes())
			}
		}
		close(rename)
		synctest.Wait()
		l.mustAppend(t, makeBatch(t, 1, "short", 1))
		d.close(t)
	})
}

// A close on a stalled disk ends with its context, and what it left behind ends with the stall.
func TestCloseDuringAStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faulty := vfs.NewFaulty(newMem(t))
		d := openDir(t, faulty, straightOnly, func(o *DirOptions) { o.Now = time.Now })
		l := d.open(t, "orders", 0, DefaultLogConfig())
		hold := make(chan struct{})
		faulty.Inject(vfs.Fault{Op: vfs.OpSync, Path: "*.log", Nth: 1, Stall: hold})
		if err := l.Append(t.Context(), &Append{Batches: makeBatch(t, 1, "x", 1), Done: func(Result) {}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(15 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		begun := time.Now()
		if err := d.Close(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != 5*time.Second {
			t.Errorf("close: %v after %s", err, time.Since(begun))
		}
		close(hold)
	}) // fails when a goroutine is left
}
