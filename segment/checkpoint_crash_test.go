package segment

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// Rot in the header of a batch that the checkpoint covers, behind its last index entry, is no torn end: what
// follows was durable, since the checkpoint says so.
func TestHeaderRotBelowACheckpointIsNoTornTail(t *testing.T) {
	for _, in := range []int64{8 + 1, batch.MagicAt} { // length, magic
		t.Run(fmt.Sprint(in), func(t *testing.T) {
			fs, name, _ := tenBatches(t)
			text, err := vfs.ReadFile(fs, name+".log")
			if err != nil {
				t.Fatal(err)
			}
			at := int64(0)
			for range 3 { // of ten, seven of which the checkpoint covers
				h, err := batch.ReadHeader(text[at:])
				if err != nil {
					t.Fatal(err)
				}
				at += int64(h.Size())
			}
			rewriteInPlace(t, fs, name+".log", at+in)
			d := openDir(t, fs)
			defer d.close(t)
			l := d.open(t, "orders", 0, DefaultLogConfig())
			if l.LogEndOffset() != 30 {
				t.Errorf("the log ends at %d, want 30: %s", l.LogEndOffset(), d.log)
				return
			}
			if got, err := l.readAll(12); err != nil || len(got) != 18 {
				t.Errorf("behind the damage: %d records, %v", len(got), err)
			}
		})
	}
}

// A checkpoint that reaches behind the end of the segment is removed: new batches of the same size could bring the
// file to its length again, and it would be believed, with what it knows of the old ones.
func TestStaleCheckpointOfAShorterSegment(t *testing.T) {
	fs, name, size := tenBatches(t)
	truncate(t, fs, name+".log", 5*size)
	d := openDir(t, fs)
	l := d.open(t, "orders", 0, DefaultLogConfig())
	if l.LogEndOffset() != 15 {
		t.Fatalf("ends at %d", l.LogEndOffset())
	}
	// the client, told of its lost records, begins again with the same batches
	for i := int32(5); i < 7; i++ {
		b := producedBatch(t, 3*i, 3)
		if r := l.mustAppend(t, b); r.Duplicate {
			t.Fatal("duplicate")
		}
	}
	// another producer, of batches that are as long
	fs2 := killed(fs)
	d2 := openDir(t, fs2)
	defer d2.close(t)
	if strings.Contains(d2.log.String(), "shorter") {
		t.Fatalf("%s", d2.log)
	}
	l2 := d2.open(t, "orders", 0, DefaultLogConfig())
	if l2.active().saved > 0 {
		t.Errorf("the stale checkpoint was believed: saved=%d size=%d, %s", l2.active().saved, l2.active().size.Load(), d2.log)
	}
}

// The same, and what would come of it: a producer whose batches were lost is told that they are there.
func TestStaleCheckpointAnswersDuplicate(t *testing.T) {
	fs, name, size := tenBatches(t)
	truncate(t, fs, name+".log", 5*size)
	d := openDir(t, fs)
	l := d.open(t, "orders", 0, DefaultLogConfig())
	for i := range 2 { // somebody else, without a producer id, in batches of that size
		b := otherBatch(t, 3, fmt.Sprint("els", i))
		if int64(len(b)) != size {
			t.Fatalf("%d bytes, want %d", len(b), size)
		}
		l.mustAppend(t, b)
	}
	fs2 := killed(fs)
	d2 := openDir(t, fs2)
	defer d2.close(t)
	l2 := d2.open(t, "orders", 0, DefaultLogConfig())
	r := l2.appendAndWait(t, producedBatch(t, 18, 3)) // the batch of the offsets 18 to 20, which is gone
	if r.Duplicate {
		values, _ := l2.readAll(0)
		t.Errorf("sequence 18 is answered as a duplicate: %+v; the log holds %v", r, values)
	}
}

func otherBatch(t testing.TB, n int, prefix string) []byte {
	t.Helper()
	b := batch.NewBuilder(batch.BuilderOptions{})
	for i := range n {
		b.Append(1_700_000_000_000, nil, fmt.Appendf(nil, "%s-%d", prefix, i), nil)
	}
	built, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return built
}

// A log that is always appended to while it is flushed gets checkpoints.
func TestCheckpointsOfABusyLog(t *testing.T) {
	fs := newMem(t)
	faulty := vfs.NewFaulty(fs)
	d := openDir(t, faulty, byJournal, func(o *DirOptions) { o.CheckpointBytes = 1000 })
	defer d.close(t)
	l := d.open(t, "orders", 0, DefaultLogConfig())
	for i := range 50 { // each flush sees one append come
		l.mustAppend(t, makeBatch(t, 20, fmt.Sprint("before", i), 1))
		hold, reached := make(chan struct{}), make(chan struct{})
		faulty.Inject(vfs.Fault{Op: vfs.OpSync, Path: "*.log", Nth: 1, Stall: hold, Do: func() { close(reached) }})
		if err := d.onCommitter(context.Background(), func() { d.committer.due = true }); err != nil {
			t.Fatal(err)
		}
		<-reached
		l.mustAppend(t, makeBatch(t, 1, fmt.Sprint("meanwhile", i), 1))
		close(hold)
		if err := d.onCommitter(context.Background(), func() { d.committer.awaitFlush() }); err != nil {
			t.Fatal(err)
		}
		faulty.Heal()
		d.settle(t)
	}
	if _, err := fs.Stat(l.active().name(checkpointSuffix)); err != nil {
		t.Errorf("after %d bytes and 50 flushes: %v", l.SizeBytes(), err)
	}
}

// A flush that is awaited while the round has stamped a part of the log makes no checkpoint that mixes what is
// published with what is stamped.
func TestCheckpointWhileAPartIsStamped(t *testing.T) {
	fs := newMem(t)
	faulty := vfs.NewFaulty(fs)
	d := openDir(t, faulty, byJournal, func(o *DirOptions) { o.CheckpointBytes = 16 })
	a := d.open(t, "orders", 0, DefaultLogConfig())
	a.mustAppend(t, makeBatch(t, 3, "a", 1))
	a.mustAppend(t, makeBatch(t, 3, "a", 1))
	// a large append of the log that is being flushed has to wait for the flush
	hold, reached := make(chan struct{}), make(chan struct{})
	faulty.Inject(vfs.Fault{Op: vfs.OpSync, Path: "*.log", Nth: 1, Stall: hold, Do: func() { close(reached) }})
	if err := d.onCommitter(context.Background(), func() { d.committer.due = true }); err != nil {
		t.Fatal(err)
	}
	<-reached
	done := make(chan Result, 1)
	if err := a.Append(context.Background(), &Append{Batches: makeBatch(t, 1, strings.Repeat("x", journalRound/3), 1), Done: func(r Result) { done <- r }}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	close(hold)
	if r := <-done; r.Err != nil {
		t.Fatal(r.Err)
	}
	d.settle(t)
	if _, err := fs.Stat(a.active().name(checkpointSuffix)); errors.Is(err, os.ErrNotExist) {
		t.Skip("no checkpoint was made")
	}
	d2 := openDir(t, killed(fs))
	defer d2.close(t)
	if strings.Contains(d2.log.String(), "checkpoint is not used") {
		t.Errorf("%s", d2.log)
	}
	d.close(t)
}

// A power cut within the clean close of more logs than SyncEach: no checkpoint is there before what it speaks of is synced. Else
// what the power cut took of a tail would be damage that readers meet for good.
func TestPowerCutDuringTheCloseOfUnsyncedLogs(t *testing.T) {
	fs := newMem(t)
	fs.Record()
	d := openDir(t, fs, func(o *DirOptions) { o.SyncEach, o.FlushInterval = 1, time.Hour })
	cfg := DefaultLogConfig()
	cfg.FlushMessages, cfg.FlushAfter = 1000, time.Hour
	var name string
	for p := range int32(2) {
		l := d.open(t, "orders", p, cfg)
		for i := range 4 {
			l.mustAppend(t, makeBatch(t, 1, fmt.Sprint(i, strings.Repeat("x", 3000)), 1))
		}
		if p == 0 {
			name = l.active().name("")
		}
	}
	d.close(t)
	for n := range fs.Ops() + 1 {
		if n == 0 || !strings.HasPrefix(fs.Op(n), "create "+name+".checkpoint") {
			continue
		}
		now := fs.Replay(n)
		if now.Dirty(name + ".log") {
			t.Error("there is a checkpoint of a log that is not synced")
		}
		// One of the states that Crash may give: all is kept but one sector of the log.
		cut := killed(now)
		f, err := cut.OpenFile(name+".log", vfs.ReadWrite, 0)
		if err == nil {
			_, err = f.WriteAt(make([]byte, vfs.SectorSize), 3*vfs.SectorSize) // within the first batch
		}
		if err != nil {
			t.Fatal(err)
		}
		d := openDir(t, cut)
		l := d.open(t, "orders", 0, cfg)
		if _, err := l.readAll(0); err != nil {
			t.Errorf("the log ends at %d: %v; %s", l.LogEndOffset(), err, d.log)
		}
		d.close(t)
		return
	}
	t.Fatal("no checkpoint")
}

// Killed within a clean close, opened, then a power cut: what readers have seen stays.
func TestKillDuringCloseThenPowerCut(t *testing.T) {
	fs := newMem(t)
	fs.Record()
	d := openDir(t, fs, func(o *DirOptions) { o.SyncEach, o.FlushInterval = 1, time.Hour })
	cfg := DefaultLogConfig()
	cfg.FlushMessages, cfg.FlushAfter = 1000, time.Hour
	for p := range int32(2) {
		d.open(t, "orders", p, cfg).mustAppend(t, makeBatch(t, 1, "x", 1))
	}
	before := fs.Ops()
	d.close(t)
	for n := before; n <= fs.Ops(); n++ {
		killed := fs.Replay(n)
		d, err := tryOpenDir(killed)
		if err != nil {
			t.Fatal(err)
		}
		again := openDir(t, killed.Crash(1, 0))
		for p := range int32(2) {
			seen := d.open(t, "orders", p, cfg).LogEndOffset()
			if end := again.open(t, "orders", p, cfg).LogEndOffset(); end < seen {
				t.Errorf("killed after %d (%s): partition %d ended at %d, and after a power cut at %d: %s", n, fs.Op(n), p, seen, end, again.log)
			}
		}
		again.close(t)
		d.close(t)
	}
}

// A segment that was sealed, and is active again since a crash took its successor, and has
// damage now, gets no new seal: the old one must not hide what came behind it.
func TestOldSealOfASegmentThatWentOn(t *testing.T) {
	fs := newMem(t)
	d := openDir(t, fs, straightOnly)
	l := d.open(t, "orders", 0, DefaultLogConfig())
	size := int64(0)
	for i := range 5 {
		b := makeBatch(t, 1, fmt.Sprint(i), 1)
		size = int64(len(b))
		l.mustAppend(t, b)
	}
	first := l.active()
	leave := func(d *testDir, l *Log) {
		if err := d.onCommitter(context.Background(), func() {
			if err := l.leave(); err != nil {
				t.Error(err)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	leave(d, l)
	next := l.active().name("")
	d.close(t)
	for _, suffix := range []string{".log", ".checkpoint"} { // its name was not durable
		if err := fs.Remove(next + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	rewriteInPlace(t, fs, first.name(".log"), 2*size+batch.MagicAt)
	d = openDir(t, fs, straightOnly)
	l = d.open(t, "orders", 0, DefaultLogConfig())
	if l.LogEndOffset() != 5 {
		t.Fatalf("ends at %d", l.LogEndOffset())
	}
	for i := range 5 {
		l.mustAppend(t, makeBatch(t, 1, fmt.Sprint("acked", i), 1))
	}
	leave(d, l)
	l.mustAppend(t, makeBatch(t, 1, "after", 1))
	d.close(t)
	d = openDir(t, fs, straightOnly)
	defer d.close(t)
	l = d.open(t, "orders", 0, DefaultLogConfig())
	got, err := l.readAll(3)
	for offset := int64(5); offset < 10; offset++ {
		if got[offset] == "" {
			t.Errorf("offset %d, which was acknowledged, is not served (%v): %s", offset, err, d.log)
			break
		}
	}
}

// The active segment is gone, its checkpoint is there.
func TestMissingActiveSegmentIsSaid(t *testing.T) {
	fs := newMem(t)
	d := openDir(t, fs, often)
	l := d.open(t, "orders", 0, smallSegments())
	for i := range 9 {
		l.mustAppend(t, makeBatch(t, 5, fmt.Sprint("some text of a record that fills", i), 1))
		d.settle(t)
	}
	end := l.LogEndOffset()
	fs = killed(fs)
	if err := fs.Remove(l.active().name(".log")); err != nil {
		t.Fatal(err)
	}
	d2 := openDir(t, fs)
	defer d2.close(t)
	l2 := d2.open(t, "orders", 0, smallSegments())
	if !strings.Contains(d2.log.String(), "level=ERROR") {
		t.Errorf("the log ends at %d instead of %d, and nothing is said: %s", l2.LogEndOffset(), end, d2.log)
	}
	d.close(t)
}

// The first segment is gone.
func TestMissingFirstSegmentIsSaid(t *testing.T) {
	fs := newMem(t)
	d := openDir(t, fs, often)
	l := d.open(t, "orders", 0, smallSegments())
	for i := range 9 {
		l.mustAppend(t, makeBatch(t, 5, fmt.Sprint("some text of a record that fills", i), 1))
	}
	d.close(t)
	if err := fs.Remove((*l.segments.Load())[0].name(".log")); err != nil {
		t.Fatal(err)
	}
	d = openDir(t, fs)
	defer d.close(t)
	l = d.open(t, "orders", 0, smallSegments())
	if !strings.Contains(d.log.String(), "level=ERROR") {
		t.Errorf("the log begins at %d instead of 0, and nothing is said: %s", l.LogStartOffset(), d.log)
	}
}

// A checkpoint that cannot be written for want of a descriptor, and one that meets an I/O error.
func TestFailedCheckpoint(t *testing.T) {
	for _, cause := range []error{syscall.EMFILE, syscall.EIO} {
		for _, op := range []vfs.Op{vfs.OpOpen, vfs.OpWrite} {
			t.Run(fmt.Sprint(cause, op), func(t *testing.T) {
				fs := newMem(t)
				faulty := vfs.NewFaulty(fs)
				d := openDir(t, faulty, often)
				l := d.open(t, "orders", 0, DefaultLogConfig())
				faulty.Inject(vfs.Fault{Op: op, Path: "*.checkpoint.tmp", Err: cause})
				l.mustAppend(t, makeBatch(t, 1, "x", 1))
				d.settle(t)
				r := l.appendAndWait(t, makeBatch(t, 1, "x", 1))
				d.settle(t)
				if r.Err != nil {
					t.Errorf("for want of a checkpoint nothing can be appended: %v", r.Err)
				}
				if strings.Contains(d.log.String(), "appends are refused") && r.Err == nil {
					t.Errorf("the log says what is not so: %s", d.log)
				}
				faulty.Heal()
				d.Close(context.Background())
			})
		}
	}
}

// No room: the temporary file goes.
func TestFullDiskLeavesNoTemporaryCheckpoint(t *testing.T) {
	fs := newMem(t)
	faulty := vfs.NewFaulty(fs)
	d := openDir(t, faulty, often)
	l := d.open(t, "orders", 0, DefaultLogConfig())
	faulty.Inject(vfs.Fault{Op: vfs.OpWrite, Path: "*.checkpoint.tmp", Err: syscall.ENOSPC, Short: 100})
	l.mustAppend(t, makeBatch(t, 1, "x", 1))
	d.settle(t)
	if _, err := fs.Stat(l.active().name(".checkpoint.tmp")); err == nil {
		t.Error("it takes up room on a full disk")
	}
	faulty.Heal()
	d.close(t)
}

// Producers after a crash: what the client has in flight (up to five batches) is found again.
func TestRetriesOfInFlightBatchesAfterACrash(t *testing.T) {
	for _, checkpoints := range []bool{false, true} {
		t.Run(fmt.Sprint("checkpoints=", checkpoints), func(t *testing.T) {
			fs := newMem(t)
			d := openDir(t, fs, straightOnly, func(o *DirOptions) {
				if checkpoints {
					o.CheckpointBytes = 16
				}
			})
			l := d.open(t, "orders", 0, DefaultLogConfig())
			for i := range int32(5) {
				l.mustAppend(t, producedBatch(t, 3*i, 3))
				d.settle(t)
			}
			d2 := openDir(t, killed(fs))
			defer d2.close(t)
			l2 := d2.open(t, "orders", 0, DefaultLogConfig())
			for i := range int32(5) { // no answer has come: it sends all again
				if r := l2.appendAndWait(t, producedBatch(t, 3*i, 3)); !r.Duplicate || r.BaseOffset != int64(3*i) {
					t.Errorf("batch %d: %+v", i, r)
				}
			}
			d.close(t)
		})
	}
}

// A log whose records end before its log start offset: its checkpoint is believed.
func TestCheckpointOfALogThatEndsBeforeItsStart(t *testing.T) {
	fs := newMem(t)
	d := openDir(t, fs)
	cfg := DefaultLogConfig()
	cfg.FlushMessages, cfg.FlushAfter = 1000, time.Hour
	l := d.open(t, "orders", 0, cfg)
	l.mustAppend(t, makeBatch(t, 3, "x", 1))
	if err := d.onCommitter(context.Background(), func() { d.committer.sealActive(l, true) }); err != nil {
		t.Fatal(err)
	}
	l.mustAppend(t, makeBatch(t, 3, "x", 1))
	if err := l.DeleteRecordsBefore(context.Background(), 6); err != nil {
		t.Fatal(err)
	}
	fs = fs.Crash(1, 0)
	for i := range 3 {
		d := openDir(t, fs)
		l := d.open(t, "orders", 0, cfg)
		if l.LogEndOffset() != 6 || i == 0 && l.SizeBytes() == 0 {
			t.Fatalf("ends at %d, %d bytes", l.LogEndOffset(), l.SizeBytes())
		}
		if strings.Contains(d.log.String(), "checkpoint is not used") {
			t.Errorf("open %d after a clean close: %s", i, d.log)
		}
		d.close(t)
	}
}

// A seal that cannot be read is not one that is damaged.
func TestSealThatCannotBeRead(t *testing.T) {
	fs := newMem(t)
	d := openDir(t, fs, often)
	l := d.open(t, "orders", 0, smallSegments())
	for i := range 9 {
		l.mustAppend(t, makeBatch(t, 5, fmt.Sprint("some text of a record that fills", i), 1))
	}
	d.close(t)
	faulty := vfs.NewFaulty(fs)
	faulty.Inject(vfs.Fault{Op: vfs.OpRead, Path: "*.sealed", Err: syscall.EIO})
	d, err := tryOpenDir(faulty)
	if err == nil {
		if strings.Contains(d.log.String(), "is damaged") {
			t.Errorf("%s", d.log)
		}
		faulty.Heal()
		d.close(t)
	}
}

// A checkpoint that was given up because of damage is removed too: the file may become as long again.
func TestCheckpointThatWasNotUsedStays(t *testing.T) {
	fs, name, _ := tenBatches(t)
	rewriteInPlace(t, fs, name+".log", 5*97+batch.MagicAt) // its sixth batch
	d := openDir(t, fs)
	if !strings.Contains(d.log.String(), "checkpoint is not used") {
		t.Skip(d.log.String())
	}
	l := d.open(t, "orders", 0, DefaultLogConfig())
	for i := range 2 {
		l.mustAppend(t, otherBatch(t, 3, fmt.Sprint("els", i)))
	}
	d2 := openDir(t, killed(fs))
	defer d2.close(t)
	if l := d2.open(t, "orders", 0, DefaultLogConfig()); l.active().saved > 0 {
		t.Errorf("it is believed now: saved %d of %d; %s", l.active().saved, l.active().size.Load(), d2.log)
	}
	d.close(t)
}

// Who deletes records waits for one checkpoint at most, whatever their number.
func TestCheckpointsGiveWay(t *testing.T) {
	faulty := vfs.NewFaulty(newMem(t))
	d := openDir(t, faulty, often)
	hold, reached := make(chan struct{}), make(chan struct{})
	faulty.Inject(vfs.Fault{Op: vfs.OpSync, Path: "*.checkpoint.tmp", Nth: 1, Stall: hold, Do: func() { close(reached) }})
	for p := range int32(5) {
		d.open(t, "orders", p, DefaultLogConfig()).mustAppend(t, makeBatch(t, 3, "x", 1))
	}
	<-reached
	var order []string
	d.mu.Lock()
	for i, save := range d.saves {
		d.saves[i] = func() { order = append(order, "checkpoint"); save() }
	}
	d.mu.Unlock()
	d.toJanitor(func() { order = append(order, "job") })
	close(hold)
	d.settle(t)
	d.close(t)
	if len(order) == 0 || order[0] != "job" {
		t.Errorf("the janitor has done: %v", order)
	}
}
