package segment

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A log may be in the committer's list twice: what was queued when a disk stalled was refused, and the next append put it there
// again. Then a second append comes while the first is being stamped: it must not get the place of the first.
func TestALogTwiceInARound(t *testing.T) {
	var hook atomic.Pointer[func()]
	d := openDir(t, newMem(t), straightOnly, func(o *DirOptions) {
		o.Now = func() time.Time {
			if f := hook.Swap(nil); f != nil {
				(*f)()
			}
			return time.Now()
		}
	})
	defer d.close(t)
	l := d.open(t, "orders", 0, DefaultLogConfig())
	l.mustAppend(t, makeBatch(t, 1, "zero", 1))
	var done sync.WaitGroup
	results := make([]Result, 2)
	send := func(i int) {
		done.Add(1)
		err := l.Append(context.Background(), &Append{Batches: makeBatch(t, 1, fmt.Sprint("value", i), 1), Done: func(r Result) {
			results[i] = r
			done.Done()
		}})
		if err != nil {
			t.Error(err)
			done.Done()
		}
	}
	second := func() { send(1) } // when the committer looks at the clock to stamp the first
	if err := d.onCommitter(context.Background(), func() {
		send(0)
		d.schedule(l)
		hook.Store(&second)
	}); err != nil {
		t.Fatal(err)
	}
	done.Wait()
	for i, r := range results {
		if r.Err != nil || r.BaseOffset != int64(i+1) {
			t.Errorf("append %d: %+v", i, r)
		}
	}
	d.flush(t)
	if got, err := l.readAll(0); err != nil || fmt.Sprint(got) != "map[0:zero-0 1:value0-0 2:value1-0]" {
		t.Errorf("the log holds %v, %v", got, err)
	}
}

// The large parts of a round are handed out while others are being stamped: all come to the disk, together with small ones, and a
// journal that is full in between is flushed before any of them begins.
func TestLargePartsBeginEarly(t *testing.T) {
	fs := newMem(t)
	d := openDir(t, fs, func(o *DirOptions) { o.DirectBytes, o.JournalBytes, o.JournalFileBytes = 20_000, 64<<10, 16<<10 })
	const logs, rounds = 12, 30
	all := make([]*Log, logs)
	for i := range all {
		all[i] = d.open(t, "orders", int32(i), DefaultLogConfig())
	}
	for n := range rounds {
		var done sync.WaitGroup
		for i, l := range all {
			size := 100
			if (i+n)%2 == 0 {
				size = 30_000
			}
			done.Add(1)
			err := l.Append(context.Background(), &Append{Batches: makeBatch(t, 1, fmt.Sprintf("%d/%d/%s/", i, n, strings.Repeat("x", size)), 1), Done: func(r Result) {
				if r.Err != nil || r.BaseOffset != int64(n) {
					t.Errorf("log %d round %d: %+v", i, n, r)
				}
				done.Done()
			}})
			if err != nil {
				t.Fatal(err)
			}
		}
		done.Wait()
	}
	// As after a power cut: nothing was closed.
	again := openDir(t, fs.Crash(1, 0))
	for i := range logs {
		values, err := again.open(t, "orders", int32(i), DefaultLogConfig()).readAll(0)
		if err != nil {
			t.Fatal(err)
		}
		for n := range int64(rounds) {
			if !strings.HasPrefix(values[n], fmt.Sprintf("%d/%d/", i, n)) {
				t.Fatalf("log %d has %d records, the one at %d is another", i, len(values), n)
			}
		}
	}
	again.close(t)
	d.close(t)
}
