package vfs

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// told gathers what a Watched tells.
type told struct {
	mu     sync.Mutex
	events []string
}

func (o *told) tell(e WatchEvent) {
	o.mu.Lock()
	defer o.mu.Unlock()
	kind := [...]string{"slow", "stalled", "recovered"}[e.Kind]
	o.events = append(o.events, fmt.Sprintf("%s %s %s %s", kind, e.Op, e.Name, e.Took))
}

func (o *told) list() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.events)
}

// An operation that does not come back is told at a second and at the deadline, to the
// instant; when it does come back, that is told, and all is as before.
func TestWatchTellsOfAStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		faulty := NewFaulty(NewMem(), Fault{Op: OpSync, Nth: 1, Stall: hold})
		var o told
		w := Watch(faulty, WatchOptions{Now: time.Now, Told: o.tell})
		f, err := w.OpenFile("log", ReadWrite|Create, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		before := w.Context()
		go f.Sync()
		time.Sleep(999 * time.Millisecond)
		synctest.Wait()
		if len(o.list()) != 0 || w.Oldest() != nil {
			t.Errorf("before a second: %v, %v", o.list(), w.Oldest())
		}
		time.Sleep(9 * time.Second)
		synctest.Wait()
		if w.Err() != nil || before.Err() != nil || w.Oldest() == nil {
			t.Errorf("before the deadline: %v, %v, %v", w.Err(), before.Err(), w.Oldest())
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		var stall *StallError
		if !errors.As(w.Err(), &stall) || stall.Op != OpSync || stall.Name != "log" || stall.Seconds() != 10 || before.Err() == nil {
			t.Errorf("at the deadline: %v, %v", w.Err(), before.Err())
		}
		time.Sleep(50 * time.Second)
		if got := w.Err().Error(); got != "sync log has not come back for 60 s" {
			t.Error(got)
		}
		close(hold)
		synctest.Wait()
		if w.Err() != nil || w.Context().Err() != nil || w.Oldest() != nil {
			t.Errorf("after it: %v, %v, %v", w.Err(), w.Context().Err(), w.Oldest())
		}
		want := []string{"slow sync log 1s", "stalled sync log 10s", "recovered sync log 1m0s"}
		if got := o.list(); !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
	})
}

// Several operations may stall at a time and come back in any order: the file system is
// stalled for as long as one of them is older than the deadline.
func TestWatchOfSeveral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o told
		w := Watch(NewMem(), WatchOptions{Now: time.Now, Told: o.tell})
		first := w.Begin(OpWrite, "a")
		time.Sleep(5 * time.Second)
		second := w.Begin(OpRename, "b")
		reading := w.Begin(OpRead, "c")
		time.Sleep(6 * time.Second)
		third := w.Begin(OpSync, "d")
		time.Sleep(5 * time.Second) // 16, 11, 5 seconds
		synctest.Wait()
		w.End(first)
		var stall *StallError
		if !errors.As(w.Err(), &stall) || stall.Name != "b" {
			t.Errorf("the second is as old: %v", w.Err())
		}
		w.End(second)
		if w.Err() != nil {
			t.Errorf("the third is young: %v", w.Err())
		}
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if !errors.As(w.Err(), &stall) || stall.Name != "d" {
			t.Errorf("the third has become old: %v", w.Err())
		}
		w.End(third)
		time.Sleep(time.Minute)
		if w.Err() != nil {
			t.Errorf("a slow reader stalls nothing: %v", w.Err())
		}
		w.End(reading)
		want := []string{
			"slow write a 1s", "slow read c 1s", "stalled write a 10s", "recovered write a 16s",
			"stalled sync d 10s", "recovered sync d 11s",
		}
		if got := o.list(); !slices.Equal(got, want) {
			t.Errorf("told\n%q, want\n%q", got, want)
		}
	})
}

// Watching wakes nobody while nothing is under way, and next to nobody while much is.
func TestAudit2IdleWatchNeverWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := Watch(NewMem(), WatchOptions{Now: time.Now})
		f, err := w.OpenFile("log", ReadWrite|Create, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		for range 10_000 {
			if _, err := f.WriteAt([]byte("x"), 0); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		if busy := w.wakes(); busy > 11 {
			t.Errorf("woke %d times in ten seconds of work", busy)
		}
		time.Sleep(2 * time.Second)
		before := w.wakes()
		time.Sleep(24 * time.Hour)
		if n := w.wakes() - before; n != 0 {
			t.Errorf("woke %d times in an idle day", n)
		}
	})
}

func (w *Watched) wakes() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fired
}

func TestWatchAllocatesNothing(t *testing.T) {
	w := Watch(NewMem(), WatchOptions{Now: time.Now})
	f, err := w.OpenFile("log", ReadWrite|Create, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(1000, func() { f.Size() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkWatch(b *testing.B) {
	w := Watch(NewMem(), WatchOptions{Now: time.Now})
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			w.End(w.Begin(OpWrite, "log"))
		}
	})
}
