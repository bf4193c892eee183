package segment

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

func TestAppendThenReadAcrossSegmentsAndRestarts(t *testing.T) {
	for _, clean := range []bool{true, false} {
		t.Run(fmt.Sprintf("clean=%v", clean), func(t *testing.T) {
			fs := newMem(t)
			want := make(map[int64]string)
			for restart := range 4 {
				d := openDir(t, fs)
				l := d.open(t, "orders", 0, smallSegments())
				if end := l.LogEndOffset(); end != int64(len(want)) {
					t.Fatalf("after restart %d the log ends at %d, want %d", restart, end, len(want))
				}
				for i := range 20 {
					prefix := fmt.Sprintf("r%d-b%d", restart, i)
					n := 1 + i%4
					r := l.mustAppend(t, makeBatch(t, n, prefix, int64(1000*restart+i)))
					if r.BaseOffset != int64(len(want)) || r.LastOffset != r.BaseOffset+int64(n)-1 {
						t.Fatalf("appended at %d to %d, want from %d", r.BaseOffset, r.LastOffset, len(want))
					}
					for j := range n {
						want[r.BaseOffset+int64(j)] = fmt.Sprintf("%s-%d", prefix, j)
					}
				}
				for from := range int64(len(want)) {
					got, err := l.readAll(from)
					if err != nil || len(got) != len(want)-int(from) {
						t.Fatalf("from %d: %d records, %v; want %d", from, len(got), err, len(want)-int(from))
					}
					for offset, value := range got {
						if want[offset] != value {
							t.Fatalf("offset %d holds %q, want %q", offset, value, want[offset])
						}
					}
				}
				if n := len(*l.segments.Load()); n < 3*(restart+1) {
					t.Errorf("%d segments after restart %d: rolling is not tested", n, restart)
				}
				if clean {
					d.close(t)
				} else {
					fs = fs.Crash(uint64(restart), 0)
					d.close(t)
				}
			}
		})
	}
}

func TestAcknowledgedMeansSynced(t *testing.T) {
	fs := newMem(t)
	d := openDir(t, fs)
	defer d.close(t)
	l := d.open(t, "orders", 0, smallSegments())
	for i := range 30 {
		done := make(chan []string, 1)
		err := l.Append(context.Background(), &Append{Batches: makeBatch(t, 2, "x", int64(i)), Done: func(Result) {
			done <- fs.Unsynced()
		}})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range <-done {
			// Indexes, snapshots and their names can be rebuilt.
			if strings.HasSuffix(name, ".log") || !strings.Contains(name, ".") || strings.HasSuffix(name, "topics") {
				t.Fatalf("append %d was acknowledged while %s was not synced", i, name)
			}
		}
	}
}

func TestNothingIsCreatedBeforeTheFirstAppend(t *testing.T) {
	fs := newMem(t)
	d := openDir(t, fs)
	for i := range int32(1000) {
		d.open(t, "empty", i, DefaultLogConfig())
	}
	entries, err := fs.ReadDir("data/topics")
	if err != nil || len(entries) != 0 {
		t.Errorf("%d folders, %v", len(entries), err)
	}
	d.close(t)
}

func TestRoundsBatchConcurrentAppends(t *testing.T) {
	faulty := vfs.NewFaulty(newMem(t))
	hold := make(chan struct{})
	d := openDir(t, faulty)
	l := d.open(t, "orders", 0, DefaultLogConfig())
	l.mustAppend(t, makeBatch(t, 1, "first", 1))
	before := faulty.Count(vfs.OpSync, "*.journal")
	faulty.Inject(vfs.Fault{Op: vfs.OpSync, Path: "*.journal", Nth: 1, Stall: hold})
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Add(1)
		err := l.Append(context.Background(), &Append{Batches: makeBatch(t, 1, fmt.Sprint(i), 1), Done: func(r Result) {
			if r.Err != nil || r.BaseOffset != int64(i)+1 {
				t.Errorf("append %d: offset %d, %v", i, r.BaseOffset, r.Err)
			}
			wg.Done()
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	close(hold)
	wg.Wait()
	if syncs := faulty.Count(vfs.OpSync, "*.journal") - before; syncs > 2 {
		t.Errorf("100 appends took %d syncs; the ones that came during the first sync belong into one round", syncs)
	}
	d.close(t)
}

// Audit 2 and 3: with nothing to do, nothing is written and nothing is synced.
func TestAudit2IdleMakesNoOperations(t *testing.T) {
	faulty := vfs.NewFaulty(newMem(t))
	d := openDir(t, faulty)
	for i := range int32(50) {
		d.open(t, "idle", i, DefaultLogConfig()).mustAppend(t, makeBatch(t, 1, "x", 1))
	}
	d.flush(t)
	before := faulty.Count(vfs.OpAny, "")
	for range 1000 { // every goroutine has had its chance to run
		if err := d.onCommitter(context.Background(), func() {}); err != nil {
			t.Fatal(err)
		}
	}
	if n := faulty.Count(vfs.OpAny, "") - before; n != 0 {
		t.Errorf("%d operations while idle", n)
	}
	d.close(t)
}

// Audit 4: the queue is bounded in bytes, for each log and for the directory.
func TestAudit4QueueIsBounded(t *testing.T) {
	faulty := vfs.NewFaulty(newMem(t))
	d := openDir(t, faulty)
	cfg := DefaultLogConfig()
	cfg.QueueBytes = 4096
	l := d.open(t, "orders", 0, cfg)
	other := d.open(t, "others", 0, DefaultLogConfig())
	l.mustAppend(t, makeBatch(t, 1, "first", 1))
	hold := make(chan struct{})
	faulty.Inject(vfs.Fault{Op: vfs.OpSync, Path: "*.journal", Nth: 1, Stall: hold})
	var wg sync.WaitGroup
	queued := 0
	for ctx, cancel := context.WithCancel(context.Background()); ; {
		b := makeBatch(t, 10, "queued", 1)
		if !l.queue.TryAcquire(int64(len(b))) {
			cancel() // what does not fit waits for its context
			if err := l.Append(ctx, &Append{Batches: b, Done: func(Result) {}}); !errors.Is(err, context.Canceled) {
				t.Fatalf("append to a full queue: %v", err)
			}
			if err := l.Append(context.Background(), &Append{Batches: b, Patience: time.Nanosecond, Done: func(Result) {}}); !errors.Is(err, ErrQueueFull) {
				t.Fatalf("append to a full queue: %v", err)
			}
			break
		}
		l.queue.Release(int64(len(b)))
		wg.Add(1)
		if err := l.Append(ctx, &Append{Batches: b, Done: func(Result) { wg.Done() }}); err != nil {
			t.Fatal(err)
		}
		queued += len(b)
	}
	if queued > 4096 || queued < 3000 {
		t.Errorf("%d bytes were queued, the bound is 4096", queued)
	}
	wg.Add(1)
	if err := other.Append(context.Background(), &Append{Batches: makeBatch(t, 1, "x", 1), Done: func(Result) { wg.Done() }}); err != nil {
		t.Errorf("another log is held up by a full queue: %v", err)
	}
	close(hold)
	wg.Wait()
	if r := l.appendAndWait(t, makeBatch(t, 10, "after", 1)); r.Err != nil {
		t.Errorf("append after the queue has emptied: %v", r.Err)
	}
	d.close(t)
}

func TestDeletedLogFreesItsFilesAndRefusesAppends(t *testing.T) {
	fs := newMem(t)
	d := openDir(t, fs)
	atOnce := smallSegments()
	atOnce.DeleteDelay = 0
	l := d.open(t, "orders", 3, atOnce)
	for range 30 {
		l.mustAppend(t, makeBatch(t, 3, "x", 1))
	}
	l.Delete()
	if r := l.appendAndWait(t, makeBatch(t, 1, "late", 1)); !errors.Is(r.Err, ErrDeleted) {
		t.Errorf("append to a deleted log: %v", r.Err)
	}
	again := d.open(t, "orders", 3, smallSegments())
	if again == l || again.LogEndOffset() != 0 {
		t.Errorf("the deleted log is still there")
	}
	waitForJanitor(t, d)
	if entries, _ := fs.ReadDir("data/topics"); len(entries) != 0 {
		t.Errorf("files are left: %v", entries)
	}
	d.close(t)
}

func waitForJanitor(t *testing.T, d *testDir) {
	t.Helper()
	done := make(chan struct{})
	d.toJanitor(func() { close(done) })
	<-done
}

func TestDeleteRecordsMovesTheStartDurably(t *testing.T) {
	fs := newMem(t)
	d := openDir(t, fs)
	l := d.open(t, "orders", 0, smallSegments())
	for i := range 40 {
		l.mustAppend(t, makeBatch(t, 3, fmt.Sprint(i), 1))
	}
	before := l.SizeBytes()
	if err := l.DeleteRecordsBefore(context.Background(), 77); err != nil {
		t.Fatal(err)
	}
	if err := l.DeleteRecordsBefore(context.Background(), 121); !errors.Is(err, ErrOffsetOutOfRange) {
		t.Errorf("delete behind the end: %v", err)
	}
	if l.SizeBytes() >= before/2 {
		t.Errorf("%d of %d bytes remain", l.SizeBytes(), before)
	}
	fs = fs.Crash(1, 0)
	d.close(t)
	d = openDir(t, fs)
	defer d.close(t)
	l = d.open(t, "orders", 0, smallSegments())
	if l.LogStartOffset() != 77 || l.LogEndOffset() != 120 {
		t.Fatalf("log holds %d to %d, want 77 to 120", l.LogStartOffset(), l.LogEndOffset())
	}
	if _, err := l.Read(nil, 76, 120, 1000, true); !errors.Is(err, ErrOffsetOutOfRange) {
		t.Errorf("read before the start: %v", err)
	}
	if got, err := l.readAll(77); err != nil || len(got) != 43 || got[77] != "25-2" {
		t.Errorf("%d records, first %q, %v", len(got), got[77], err)
	}
	// Everything may be deleted, and the next offset stays.
	if err := l.DeleteRecordsBefore(context.Background(), 120); err != nil {
		t.Fatal(err)
	}
	if r := l.mustAppend(t, makeBatch(t, 1, "next", 1)); r.BaseOffset != 120 {
		t.Errorf("next record at %d, want 120", r.BaseOffset)
	}
}

func TestIndexesAreRebuiltWhenMissingOrWrong(t *testing.T) {
	damages := map[string]func(t *testing.T, fs vfs.FS, name string){
		"missing": func(t *testing.T, fs vfs.FS, name string) {
			if err := fs.Remove(name); err != nil {
				t.Fatal(err)
			}
		},
		"empty": func(t *testing.T, fs vfs.FS, name string) { rewrite(t, fs, name, func(b []byte) []byte { return nil }) },
		"torn": func(t *testing.T, fs vfs.FS, name string) {
			rewrite(t, fs, name, func(b []byte) []byte { return b[:len(b)-3] })
		},
		"zeroed": func(t *testing.T, fs vfs.FS, name string) {
			rewrite(t, fs, name, func(b []byte) []byte { clear(b); return b })
		},
		"garbage": func(t *testing.T, fs vfs.FS, name string) {
			rewrite(t, fs, name, func(b []byte) []byte {
				for i := range b {
					b[i] = byte(i * 37)
				}
				return b
			})
		},
	}
	for name, damage := range damages {
		for _, suffix := range []string{".index", ".timeindex"} {
			t.Run(name+suffix, func(t *testing.T) {
				fs := newMem(t)
				d := openDir(t, fs)
				l := d.open(t, "orders", 0, smallSegments())
				for i := range 40 {
					l.mustAppend(t, makeBatch(t, 3, fmt.Sprint(i), int64(10*i)))
				}
				want, _ := l.readAll(0)
				path := l.path
				d.close(t)
				entries, _ := fs.ReadDir(path)
				n := 0
				for _, e := range entries {
					if strings.HasSuffix(e.Name(), suffix) {
						n++
						damage(t, fs, path+"/"+e.Name())
					}
				}
				if n < 4 {
					t.Fatalf("only %d %s files", n, suffix)
				}
				d = openDir(t, fs)
				defer d.close(t)
				l = d.open(t, "orders", 0, smallSegments())
				for from := range int64(120) {
					got, err := l.readAll(from)
					if err != nil || len(got) != len(want)-int(from) {
						t.Fatalf("from %d: %d records, %v", from, len(got), err)
					}
				}
				for i := range 40 {
					at, found, err := l.OffsetForTimestamp(int64(10*i), 120)
					if err != nil || !found || at.Offset != int64(3*i) {
						t.Fatalf("timestamp %d: %+v %v %v, want offset %d", 10*i, at, found, err, 3*i)
					}
				}
			})
		}
	}
}

func rewrite(t *testing.T, fs vfs.FS, name string, change func([]byte) []byte) {
	t.Helper()
	b, err := vfs.ReadFile(fs, name)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) == 0 {
		return
	}
	if err := vfs.WriteFileAtomic(fs, name, change(b)); err != nil {
		t.Fatal(err)
	}
}

func TestCorruptBatchIsNotServedAndWhatLiesAroundItIs(t *testing.T) {
	fs := newMem(t)
	d := openDir(t, fs, straightOnly, func(o *DirOptions) { o.TailBytes = 1 })
	l := d.open(t, "orders", 0, DefaultLogConfig())
	size := 0
	for i := range 10 {
		b := makeBatch(t, 2, fmt.Sprint(i), 1)
		size = len(b)
		l.mustAppend(t, b)
	}
	defer d.close(t)
	settle(t, d) // nothing of it is in memory any more
	rewriteInPlace(t, fs, l.active().name(".log"), int64(5*size+batch.HeaderSize+4))
	if _, err := l.Read(nil, 10, 20, 1000, true); !errors.Is(err, ErrCorrupt) {
		t.Errorf("read of a damaged batch: %v", err)
	}
	var where *CorruptError
	if _, err := l.Read(nil, 11, 20, 1000, true); !errors.As(err, &where) || where.Position != int64(5*size) {
		t.Errorf("read of a damaged batch: %v, want position %d", err, 5*size)
	}
	if b, err := l.Read(nil, 0, 20, 1<<20, true); err != nil || len(b) != 5*size {
		t.Errorf("read before the damage: %d bytes, %v; want %d", len(b), err, 5*size)
	}
	if got, err := l.readAll(12); err != nil || len(got) != 8 {
		t.Errorf("read behind the damage: %d records, %v", len(got), err)
	}
	if !strings.Contains(d.log.String(), "damaged records") {
		t.Errorf("the log does not say it: %s", d.log)
	}
}

func rewriteInPlace(t *testing.T, fs vfs.FS, name string, position int64) {
	t.Helper()
	f, err := fs.OpenFile(name, vfs.ReadWrite, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], position); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x40
	if _, err := f.WriteAt(b[:], position); err != nil {
		t.Fatal(err)
	}
}
