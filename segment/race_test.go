package segment

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// Readers by offset and by time meet rolls, deletions of records and at last the
// deletion of the log: what they get is always what was appended there, and
// what they are refused was deleted.
func TestReadersMeetRollsAndDeletions(t *testing.T) {
	d := openDir(t, newMem(t), func(o *DirOptions) { o.OpenFiles = 4 })
	defer d.close(t)
	cfg := smallSegments()
	cfg.SegmentBytes = 300
	l := d.open(t, "orders", 0, cfg)
	const records = 1500
	var deleted atomic.Bool
	var readers sync.WaitGroup
	reader := func(read func() error) {
		readers.Add(1)
		go func() {
			defer readers.Done()
			for !deleted.Load() {
				if err := read(); err != nil && !deleted.Load() {
					t.Error(err)
					return
				}
			}
		}()
	}
	for range 2 { // a record's value and timestamp are its offset
		reader(func() error {
			from, end := l.LogStartOffset(), l.LogEndOffset()
			for from < end {
				b, err := l.Read(nil, from, end, 200, true)
				if errors.Is(err, ErrOffsetOutOfRange) && from < l.LogStartOffset() {
					return nil
				}
				if err != nil {
					return err
				}
				h, err := batch.Check(b)
				if err != nil || h.BaseOffset != from {
					return fmt.Errorf("read at %d: a batch of offset %d, %w", from, h.BaseOffset, err)
				}
				from = h.NextOffset()
			}
			return nil
		})
	}
	reader(func() error { // the newest record is found by its time, also while it is sealed
		end := l.LogEndOffset()
		if end == 0 {
			return nil
		}
		at, found, err := l.OffsetForTimestamp(end-1, end)
		if end-1 < l.LogStartOffset() {
			return nil
		}
		if err != nil || !found || at.Offset != end-1 {
			return fmt.Errorf("record at time %d: %+v, %v, %w", end-1, at, found, err)
		}
		return nil
	})
	reader(func() error {
		start, end := l.LogStartOffset(), l.LogEndOffset()
		if n, err := l.BytesFrom(start, end); (err != nil || n <= 0 && end > start) && start == l.LogStartOffset() {
			return fmt.Errorf("bytes from %d to %d: %d, %w", start, end, n, err)
		}
		return nil
	})
	for i := range int64(records) {
		r := l.appendAndWait(t, makeBatch(t, 1, fmt.Sprint(i), i))
		if r.Err != nil || r.BaseOffset != i {
			t.Fatalf("append %d: %+v", i, r)
		}
		if i%50 == 49 {
			if err := l.DeleteRecordsBefore(context.Background(), i-20); err != nil {
				t.Fatal(err)
			}
		}
	}
	deleted.Store(true)
	l.Delete()
	readers.Wait()
}

// Whoever waits for room in a queue, or for the disk, is told when the log is deleted
// or the directory is closed, or when their own time is up.
func TestNobodyWaitsForEver(t *testing.T) {
	for _, end := range []string{"delete", "close"} {
		t.Run(end, func(t *testing.T) {
			faulty := vfs.NewFaulty(newMem(t))
			d := openDir(t, faulty)
			cfg := DefaultLogConfig()
			cfg.QueueBytes = 100
			l := d.open(t, "orders", 0, cfg)
			l.mustAppend(t, makeBatch(t, 1, "x", 1))
			hold, stalled := make(chan struct{}), make(chan struct{})
			faulty.Inject(vfs.Fault{Op: vfs.OpSync, Path: "*.journal", Nth: 1, Stall: hold, Do: func() { close(stalled) }})
			results := make(chan error, 20)
			send := func() {
				err := l.Append(context.Background(), &Append{Batches: makeBatch(t, 1, "x", 1), Done: func(r Result) { results <- r.Err }})
				if err != nil {
					results <- err
				}
			}
			send()
			<-stalled
			for range 10 { // one has room in the queue, the others wait
				go send()
			}
			expired, cancel := context.WithCancel(context.Background())
			cancel()
			if _, err := l.Producers(expired); !errors.Is(err, context.Canceled) {
				t.Errorf("producers while the disk stalls: %v", err)
			}
			if err := l.DeleteRecordsBefore(expired, 1); err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("delete records while the disk stalls: %v", err)
			}
			if end == "delete" {
				l.Delete()
			} else {
				if err := d.Close(expired); !errors.Is(err, context.Canceled) {
					t.Errorf("close while the disk stalls: %v", err)
				}
			}
			close(hold)
			for range 11 {
				if err := <-results; err != nil && !errors.Is(err, ErrDeleted) && !errors.Is(err, ErrClosed) {
					t.Error(err)
				}
			}
			if end == "delete" {
				d.close(t)
			}
		})
	}
}

// A segment that is removed while a question is about to look into it is no error
// of the question.
func TestQuestionsMeetTheRemovalOfASegment(t *testing.T) {
	for name, ask := range map[string]func(l *Log) error{
		"by time": func(l *Log) error { _, _, err := l.OffsetForTimestamp(5, 30); return err },
		"newest":  func(l *Log) error { _, _, err := l.MaxTimestamp(); return err },
		"bytes":   func(l *Log) error { _, err := l.BytesFrom(1, 30); return err },
	} {
		t.Run(name, func(t *testing.T) {
			fs := newMem(t)
			d := openDir(t, fs)
			l := d.open(t, "orders", 0, smallSegments())
			for i := range int64(30) {
				l.mustAppend(t, makeBatch(t, 1, "x", 100-i)) // the newest lies in the first segment
			}
			first := (*l.segments.Load())[0].name(".log")
			d.close(t)
			faulty := vfs.NewFaulty(fs)
			d = openDir(t, faulty, func(o *DirOptions) { o.OpenFiles = 1 }) // no index is in memory, no old file is open
			defer d.close(t)
			l = d.open(t, "orders", 0, smallSegments())
			met := false
			faulty.Inject(vfs.Fault{Op: vfs.OpOpen, Path: first, Nth: 1, Do: func() {
				met = true
				if err := l.DeleteRecordsBefore(context.Background(), 20); err != nil {
					t.Error(err)
				}
			}})
			if err := ask(l); err != nil || !met {
				t.Errorf("%v; the removal was met: %v", err, met)
			}
		})
	}
}
