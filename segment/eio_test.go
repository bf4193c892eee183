package segment

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"

	"github.com/millrace/millrace/segment/vfs"
)

// An I/O error fences the directory wherever the committer meets it, and for good, also when the
// next operation would succeed; what was acknowledged before is there after a power cut, and
// nothing that was not is given out twice.
func TestIOErrorsFenceWhereverTheyAreMet(t *testing.T) {
	for name, faults := range map[string][]vfs.Fault{
		"short write":             {{Op: vfs.OpWrite, Path: "*.log", Nth: 1, Err: syscall.EIO, Short: 70}},
		"sync, once":              {{Op: vfs.OpSync, Path: "*.log", Nth: 1, Err: syscall.EIO}},
		"sync: no space":          {{Op: vfs.OpSync, Path: "*.log", Nth: 1, Err: syscall.ENOSPC}},
		"roll: write of an index": {{Op: vfs.OpWrite, Path: "*.index", Nth: 1, Err: syscall.EIO}},
		"roll: sync of an index":  {{Op: vfs.OpSync, Path: "*.timeindex", Nth: 1, Err: syscall.EIO}},
		"roll: snapshot":          {{Op: vfs.OpSync, Path: "*.snapshot", Nth: 1, Err: syscall.EIO}},
		"roll: next file":         {{Op: vfs.OpOpen, Path: "*00[1-9]*.log", Nth: 1, Err: syscall.EIO}},
		"taking back": {
			{Op: vfs.OpWrite, Path: "*.log", Nth: 1, Err: syscall.ENOSPC, Short: 70},
			{Op: vfs.OpTruncate, Path: "*.log", Nth: 1, Err: syscall.EIO},
		},
	} {
		t.Run(name, func(t *testing.T) {
			fs := newMem(t)
			faulty := vfs.NewFaulty(fs)
			d := openDir(t, faulty, straightOnly)
			defer d.Close(context.Background()) // it is fenced
			l := d.open(t, "orders", 0, smallSegments())
			next := int32(0)
			for ; next < 6; next += 2 {
				l.mustAppend(t, producedBatch(t, next, 2))
			}
			faulty.Inject(faults...)
			met := error(nil)
			for n := 0; n < 10 && met == nil; n++ {
				if r := l.appendAndWait(t, producedBatch(t, next, 2)); r.Err != nil {
					met = r.Err
				} else {
					next += 2
				}
			}
			if !errors.Is(met, ErrFenced) {
				t.Fatalf("met %v", met)
			}
			acknowledged := l.LogEndOffset()
			if acknowledged != int64(next) {
				t.Errorf("log ends at %d, %d records were acknowledged", acknowledged, next)
			}
			faulty.Heal()
			for range 3 {
				if r := l.appendAndWait(t, producedBatch(t, next, 2)); !errors.Is(r.Err, ErrFenced) {
					t.Errorf("the disk is well again, nobody knows what it holds: %v", r.Err)
				}
			}
			if got, err := l.readAll(0); err != nil || len(got) != int(next) {
				t.Errorf("%d records while fenced, want %d: %v", len(got), next, err)
			}
			for seed := range uint64(5) {
				again := openDir(t, fs.Crash(seed, 0.5))
				l := again.open(t, "orders", 0, smallSegments())
				got, err := l.readAll(0)
				if err != nil || len(got) < int(next) {
					t.Errorf("seed %d: %d records after a power cut, want %d: %v", seed, len(got), next, err)
				}
				for i := range l.LogEndOffset() {
					if want := fmt.Sprintf("seq-%d", i); got[i] != want {
						t.Errorf("seed %d: offset %d holds %q", seed, i, got[i])
					}
				}
				// The producer tries again what it was not told of: once in the log, in its place.
				if r := l.mustAppend(t, producedBatch(t, next, 2)); r.BaseOffset != int64(next) {
					t.Errorf("seed %d: sent again: %+v", seed, r)
				}
				again.close(t)
			}
		})
	}
}

// Of the files of one round that are synced side by side, one fails: its records are not acknowledged,
// those of the others are, since they are on the disk; and the directory is fenced.
func TestOneFileOfARoundFails(t *testing.T) {
	fs := newMem(t)
	faulty := vfs.NewFaulty(fs)
	d := openDir(t, faulty, straightOnly)
	defer d.Close(context.Background()) // it is fenced
	logs := make([]*Log, 8)
	for i := range logs {
		logs[i] = d.open(t, "orders", int32(i), DefaultLogConfig())
		logs[i].mustAppend(t, makeBatch(t, 1, "first", 1))
	}
	hold, reached := make(chan struct{}), make(chan struct{})
	faulty.Inject(vfs.Fault{Op: vfs.OpSync, Path: "data/topics/orders-0.*/*.log", Nth: 1, Stall: hold, Do: func() { close(reached) }})
	first := make(chan Result, 1)
	if err := logs[0].Append(t.Context(), &Append{Batches: makeBatch(t, 1, "holds the disk", 1), Done: func(r Result) { first <- r }}); err != nil {
		t.Fatal(err)
	}
	<-reached // what is queued from here on is one round
	faulty.Inject(vfs.Fault{Op: vfs.OpSync, Path: "data/topics/orders-3.*/*.log", Nth: 1, Err: syscall.EIO})
	results := make([]Result, len(logs))
	var told sync.WaitGroup
	for i, l := range logs {
		told.Add(1)
		if err := l.Append(t.Context(), &Append{Batches: makeBatch(t, 1, "second", 1), Done: func(r Result) { results[i] = r; told.Done() }}); err != nil {
			t.Fatal(err)
		}
	}
	close(hold)
	told.Wait()
	if r := <-first; r.Err != nil {
		t.Error(r.Err)
	}
	again := openDir(t, fs.Crash(1, 0))
	defer again.close(t)
	for i, r := range results {
		// Those that are stamped when the sync has failed already are refused, too.
		if failed := errors.Is(r.Err, ErrFenced); i == 3 && !failed || r.Err != nil && !failed {
			t.Errorf("partition %d: %v", i, r.Err)
		}
		end := again.open(t, "orders", int32(i), DefaultLogConfig()).LogEndOffset()
		if r.Err == nil && end <= r.LastOffset {
			t.Errorf("partition %d: acknowledged at %d, after a power cut the log ends at %d", i, r.LastOffset, end)
		}
	}
	if !errors.Is(d.Err(), ErrFenced) {
		t.Errorf("directory: %v", d.Err())
	}
}
