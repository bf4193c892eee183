package engine

import (
	"sync"
	"sync/atomic"
)

// Waiter is woken by partitions that it watches. C has room for one signal, so
// that nobody who wakes ever blocks; after a signal, look again at everything
// that is waited for. One waiter may watch many partitions.
type Waiter struct {
	C chan struct{}
}

// NewWaiter makes a waiter that watches nothing.
func NewWaiter() *Waiter { return &Waiter{C: make(chan struct{}, 1)} }

func (w *Waiter) wake() {
	select {
	case w.C <- struct{}{}:
	default:
	}
}

// watchers are the waiters of one partition.
type watchers struct {
	count atomic.Int32 // lets wake return without the lock when nobody waits
	mu    sync.Mutex   // guards set
	set   map[*Waiter]struct{}
}

func (s *watchers) add(w *Waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.set == nil {
		s.set = make(map[*Waiter]struct{})
	}
	s.set[w] = struct{}{}
	s.count.Store(int32(len(s.set)))
}

func (s *watchers) remove(w *Waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.set, w)
	s.count.Store(int32(len(s.set)))
}

func (s *watchers) wake() {
	if s.count.Load() == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.set {
		w.wake()
	}
}
