package vfs

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// WatchOptions says when an operation is slow, when it is stalled, and who is told.
type WatchOptions struct {
	Now   func() time.Time // required
	Slow  time.Duration    // an operation that takes so long is reported; 0: a second
	Stall time.Duration    // one of the write path that takes so long makes the file system stalled; 0: ten seconds

	// Told is called when an operation has become slow, when the file system has become stalled and
	// when that is over: one call after the other, in the order in which it happened, with nothing
	// locked, on the goroutine of a timer or of an operation that has ended. It must not block. May be nil.
	Told func(WatchEvent)
}

// WatchKind says what a WatchEvent is about.
type WatchKind int

// What a Watched tells.
const (
	Slow      WatchKind = iota // an operation has become slow
	Stalled                    // the file system has become stalled
	Recovered                  // it is no longer; Took is for how long the operation that had stalled it did
)

// WatchEvent is something that a Watched tells.
type WatchEvent struct {
	Kind WatchKind
	Op   Op
	Name string
	Took time.Duration
}

// StallError says which operation has not come back for how long.
type StallError struct {
	Op    Op
	Name  string
	Since time.Time
	now   func() time.Time
}

// Seconds is how long the operation has been under way by now.
func (e *StallError) Seconds() float64 { return e.now().Sub(e.Since).Seconds() }

// Error names operation, file and seconds.
func (e *StallError) Error() string {
	return fmt.Sprintf("%s %s has not come back for %.0f s", e.Op, e.Name, e.Seconds())
}

// Watched is a file system that knows which of its operations are under way: a file operation has no
// deadline that the kernel would honour, so the one that never comes back is noticed from outside.
// It belongs outermost, around whatever else wraps the file system.
//
// An operation costs two short locks and a reading of the clock, and allocates nothing; no lock is
// held while it is under way. There is no goroutine: a timer fires when the oldest operation may have
// become slow or stalled, and none is set while nothing is under way.
//
// Only what writing needs makes the file system stalled: opening, mkdir, rename, write, truncate,
// allocate and sync, of files and directories. Reading and removing are reported when they are slow.
type Watched struct {
	inner   FS
	options WatchOptions
	timer   *time.Timer

	stall  atomic.Pointer[StallError]
	signal atomic.Pointer[stallSignal]

	mu      sync.Mutex // guards the fields below; never held across an operation or a call of Told
	lists   [2]running // reading and removing; the write path
	free    *Operation
	spare   int // length of free
	armed   time.Time
	fired   int // times that the timer has fired
	events  []WatchEvent
	telling bool
}

// stallSignal is a context that ends when the file system becomes stalled.
type stallSignal struct {
	ctx context.Context
	end context.CancelCauseFunc
}

// running holds operations in the order in which they began.
type running struct {
	first, last *Operation
	level       level
	said        Operation // the one that has reached the level; its links are not set
}

type level int

const (
	fine level = iota
	slow
	stalled
)

// Operation is one that is under way; see Watched.Begin.
type Operation struct {
	op         Op
	name       string
	begun      time.Time
	list       *running
	prev, next *Operation
}

// mostSpare bounds the operations that are kept for the next to use.
const mostSpare = 256

// Watch wraps a file system.
func Watch(inner FS, o WatchOptions) *Watched {
	if o.Slow == 0 {
		o.Slow = time.Second
	}
	if o.Stall == 0 {
		o.Stall = 10 * time.Second
	}
	o.Slow = min(o.Slow, o.Stall)
	w := &Watched{inner: inner, options: o}
	w.timer = time.AfterFunc(time.Hour, w.look)
	w.timer.Stop()
	w.signal.Store(newStallSignal())
	return w
}

func newStallSignal() *stallSignal {
	ctx, end := context.WithCancelCause(context.Background())
	return &stallSignal{ctx, end}
}

// Err is nil, or a *StallError while the file system is stalled.
func (w *Watched) Err() error {
	if s := w.stall.Load(); s != nil {
		return s
	}
	return nil
}

// Context ends, with a *StallError as its cause, when the file system becomes stalled. Ask again for
// each wait: it stays ended when the stall is over, and the next call gives a new one.
func (w *Watched) Context() context.Context { return w.signal.Load().ctx }

// Oldest is the operation of the write path that has been under way for longest, when that is long
// enough to be slow; nil when there is none.
func (w *Watched) Oldest() *StallError {
	w.mu.Lock()
	defer w.mu.Unlock()
	first := w.lists[1].first
	if first == nil || w.options.Now().Sub(first.begun) < w.options.Slow {
		return nil
	}
	return w.errorOf(first)
}

func (w *Watched) errorOf(o *Operation) *StallError {
	return &StallError{Op: o.op, Name: o.name, Since: o.begun, now: w.options.Now}
}

// writes tells whether an operation is one of the write path.
func (o Op) writes() bool {
	switch o {
	case OpOpen, OpMkdir, OpRename, OpSyncDir, OpLock, OpWrite, OpTruncate, OpAllocate, OpSync:
		return true
	}
	return false
}

// Begin notes that an operation has begun, for what does not go through the file system itself. End
// is to follow.
func (w *Watched) Begin(op Op, name string) *Operation {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := w.free
	if o == nil {
		o = new(Operation)
	} else {
		w.free = o.next
		w.spare--
	}
	list := &w.lists[0]
	if op.writes() {
		list = &w.lists[1]
	}
	*o = Operation{op: op, name: name, begun: w.options.Now(), list: list, prev: list.last}
	if list.last == nil {
		list.first = o
	} else {
		list.last.next = o
	}
	list.last = o
	if o.prev == nil {
		w.arm(o.begun, o.begun.Add(w.options.Slow))
	}
	return o
}

// arm sets the timer, unless it fires before that anyway; w.mu is held.
func (w *Watched) arm(now, at time.Time) {
	if w.armed.IsZero() || at.Before(w.armed) {
		w.armed = at
		w.timer.Reset(at.Sub(now))
	}
}

// End notes that an operation has come back, however it went.
func (w *Watched) End(o *Operation) {
	w.mu.Lock()
	list := o.list
	if o.prev == nil {
		list.first = o.next
	} else {
		o.prev.next = o.next
	}
	if o.next == nil {
		list.last = o.prev
	} else {
		o.next.prev = o.prev
	}
	oldest := o.prev == nil
	*o = Operation{}
	if w.spare < mostSpare {
		o.next, w.free = w.free, o
		w.spare++
	}
	if !oldest || list.level == fine {
		w.mu.Unlock()
		return
	}
	w.judge(list, w.options.Now())
	w.tell()
}

// look runs when the timer fires.
func (w *Watched) look() {
	w.mu.Lock()
	w.armed = time.Time{}
	w.fired++
	now := w.options.Now()
	for i := range w.lists {
		w.judge(&w.lists[i], now)
	}
	w.tell()
}

// judge sees how long the oldest operation of a list has taken, and sets the timer for when that may
// matter next; w.mu is held.
func (w *Watched) judge(list *running, now time.Time) {
	reached, next := fine, w.options.Slow
	if list.first != nil {
		switch age := now.Sub(list.first.begun); {
		case age >= w.options.Stall:
			reached = stalled
		case age >= w.options.Slow:
			reached, next = slow, w.options.Stall
		}
		if reached != stalled { // the end of a stall is noticed by End
			w.arm(now, list.first.begun.Add(next))
		}
	}
	before := list.level
	list.level = reached
	if reached > before {
		list.said = *list.first
		w.note(Slow, &list.said, now, before == fine)
	}
	if list != &w.lists[1] {
		return
	}
	switch {
	case reached == stalled:
		w.stall.Store(w.errorOf(list.first)) // perhaps another one than before
		if before != stalled {
			w.note(Stalled, list.first, now, true)
			w.signal.Load().end(w.stall.Load())
		}
	case before == stalled:
		w.stall.Store(nil)
		w.signal.Store(newStallSignal())
		w.note(Recovered, &list.said, now, true)
	}
}

func (w *Watched) note(kind WatchKind, o *Operation, now time.Time, really bool) {
	if really && w.options.Told != nil {
		w.events = append(w.events, WatchEvent{Kind: kind, Op: o.op, Name: o.name, Took: now.Sub(o.begun)})
	}
}

// tell gives up w.mu and tells what there is to tell, unless another goroutine is at it.
func (w *Watched) tell() {
	if w.telling {
		w.mu.Unlock()
		return
	}
	w.telling = true
	for len(w.events) > 0 {
		events := w.events
		w.events = nil
		w.mu.Unlock()
		for _, e := range events {
			w.options.Told(e)
		}
		w.mu.Lock()
	}
	w.telling = false
	w.mu.Unlock()
}
