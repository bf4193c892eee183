package coordinator

import (
	"container/heap"
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// timers wakes groups when they want to. One goroutine sleeps until the earliest of all, and for ever when
// there is none.
type timers struct {
	now   func() time.Time
	wakes *atomic.Int64
	kick  chan struct{} // the earliest has changed

	mu    sync.Mutex // a leaf: taken under a shard's lock, and takes none
	queue timerHeap
}

// timer is when a group is to be woken, and its place in the heap.
type timer struct {
	at    time.Time
	index int // -1: not in the heap
}

func newTimers(now func() time.Time, wakes *atomic.Int64) *timers {
	return &timers{now: now, wakes: wakes, kick: make(chan struct{}, 1)}
}

// set has the group woken at that time, or not at all when it is zero.
func (t *timers) set(h *hosted, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case at.IsZero():
		if h.timer.index >= 0 {
			heap.Remove(&t.queue, h.timer.index)
		}
		return
	case h.timer.index >= 0 && h.timer.at.Equal(at):
		return
	case h.timer.index >= 0:
		h.timer.at = at
		heap.Fix(&t.queue, h.timer.index)
	default:
		h.timer.at = at
		heap.Push(&t.queue, h)
	}
	if h.timer.index == 0 {
		select {
		case t.kick <- struct{}{}:
		default:
		}
	}
}

func (t *timers) remove(h *hosted) { t.set(h, time.Time{}) }

// due takes the groups whose time has come, and says how long there is until the next; negative for never.
func (t *timers) due() (ready []*hosted, wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	for len(t.queue) > 0 {
		first := t.queue[0]
		if d := first.timer.at.Sub(now); d > 0 {
			return ready, d
		}
		ready = append(ready, heap.Pop(&t.queue).(*hosted))
	}
	return ready, -1
}

// run wakes groups until ctx ends.
func (t *timers) run(ctx context.Context) {
	sleep := time.NewTimer(time.Hour)
	sleep.Stop()
	defer sleep.Stop()
	for {
		select {
		case <-t.kick: // what it tells is looked at now
		default:
		}
		ready, wait := t.due()
		for _, h := range ready {
			h.shard.tick(h)
		}
		if len(ready) > 0 {
			continue // the ticks have set new times
		}
		if wait >= 0 {
			sleep.Reset(wait)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.kick:
			sleep.Stop()
		case <-sleep.C:
		}
		t.wakes.Add(1)
	}
}

// timerHeap has the earliest first.
type timerHeap []*hosted

func (q timerHeap) Len() int           { return len(q) }
func (q timerHeap) Less(i, j int) bool { return q[i].timer.at.Before(q[j].timer.at) }
func (q timerHeap) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].timer.index, q[j].timer.index = i, j
}

// Push is for package heap.
func (q *timerHeap) Push(x any) {
	h := x.(*hosted)
	h.timer.index = len(*q)
	*q = append(*q, h)
}

// Pop is for package heap.
func (q *timerHeap) Pop() any {
	old := *q
	h := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	h.timer.index = -1
	return h
}
