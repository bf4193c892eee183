package coordinator

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/millrace/millrace/engine/group"
)

// shard holds the groups of one partition during one leadership, or stands for a partition that is led elsewhere.
type shard struct {
	c         *Coordinator
	partition int32
	epoch     int32 // of the leadership, here or elsewhere
	log       Log   // nil: not led here, and nothing below but the refusal is used
	ctx       context.Context
	cancel    context.CancelFunc
	gone      chan struct{} // closed when the leadership is over and whoever waits may know

	mu       sync.Mutex // guards all below; never held across I/O
	refusal  error      // why nothing is answered: loading, failed, over; nil while active
	loading  bool       // it may become active
	over     bool
	groups   map[string]*hosted
	waiters  map[group.Token]chan any
	tokens   group.Token
	queue    []*outgoing // not yet handed to the log
	draining bool        // a goroutine hands the queue to the log
	pending  int64       // bytes in the queue and in the log's hands
	pushed   int64       // writes that were ever queued
	settled  int64       // of those, the ones whose outcome is known
	changed  chan struct{}
	deleted  []group.DeletedTopic // while loading: what to drop afterwards
	live     int64                // estimate of what the groups take in the log
	grown    int64                // bytes appended since the live state was last written again
	end      int64                // offset after the last batch whose outcome is known
	retryAt  int64                // grown has to be more than that before a rewrite is tried again
	gated    bool                 // requests that write wait, so that the queue runs empty for a rewrite
	notes    []group.Note         // to be logged when the lock is free

	heard    time.Time     // when an outcome came last, or the first of what is on its way was queued
	watching bool          // watch is running
	watch    *time.Timer   // looks whether an outcome is overdue; at rest when nothing is on its way
	isLate   bool          // one is
	late     chan struct{} // closed while isLate

	settleMu sync.Mutex // a leaf: held for an append to a slice
	deaf     bool       // outcomes are of no interest any more
	turns    []*turn    // of batches in the log's hands, in order
	done     []outcome
	settling bool
}

// hosted is a group with what its shard keeps about it.
type hosted struct {
	*group.Group
	shard *shard
	live  int64
	timer timer
}

// outgoing is a write, or a whole rewrite, on its way to the log.
type outgoing struct {
	h       *hosted
	write   group.Write
	rewrite *rewrite
	bytes   int64
}

// outcome is what became of one batch.
type outcome struct {
	items      []*outgoing
	bytes      int64
	base, last int64
	err        error
}

func newShard(c *Coordinator, partition, epoch int32, log Log) *shard {
	s := &shard{
		c: c, partition: partition, epoch: epoch, log: log, refusal: ErrLoading, loading: true,
		waiters: map[group.Token]chan any{}, changed: make(chan struct{}), gone: make(chan struct{}), late: make(chan struct{}),
	}
	s.ctx, s.cancel = context.WithCancel(c.ctx)
	return s
}

// refused is why nothing is answered; nil while the shard is active. The lock is held.
func (s *shard) refused() error {
	if s.log != nil && s.ctx.Err() != nil {
		return ErrNotCoordinator // it is over, and close is on its way
	}
	return s.refusal
}

func (s *shard) logger() *slog.Logger { return s.c.opts.Logger.With("partition", s.partition) }

// unlock frees the lock, and then says what there is to say.
func (s *shard) unlock() {
	notes := s.notes
	s.notes = nil
	s.mu.Unlock()
	if len(notes) == 0 {
		return
	}
	log := s.logger()
	for _, n := range notes {
		level := slog.LevelInfo
		if n.Warn {
			level = slog.LevelWarn
		}
		log.Log(context.Background(), level, n.Message, n.Args...)
	}
}

// wakeWaiting lets everybody who waits for a change look again. The lock is held.
func (s *shard) wakeWaiting() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// fail refuses everything, for a reason, until the next election.
func (s *shard) fail(err error) {
	s.mu.Lock()
	defer s.unlock()
	if s.over {
		return
	}
	s.refusal, s.loading, s.deleted = err, false, nil
	s.wakeWaiting()
}

// step lets an event happen to a group and does what comes of it. The lock is held.
func (s *shard) step(h *hosted, ev group.Event) {
	events := []group.Event{ev}
	for len(events) > 0 {
		ev, events = events[0], events[1:]
		e := h.Step(s.c.opts.Now(), ev)
		s.notes = append(s.notes, e.Notes...)
		for _, r := range e.Replies {
			s.answer(r.Token, r.Response)
		}
		for _, w := range e.Writes {
			if err := check(w); err != nil {
				s.notes = append(s.notes, group.Note{Warn: true, Message: "cannot store", Args: []any{"group", h.ID(), "error", err}})
				events = append(events, group.Written{Write: w, Err: err})
				continue
			}
			s.push(&outgoing{h: h, write: w, bytes: sizeOf(w)})
		}
	}
	s.live += h.LiveBytes() - h.live
	h.live = h.LiveBytes()
	if h.Gone() && s.groups[h.ID()] == h {
		delete(s.groups, h.ID())
		s.c.timers.remove(h)
		return
	}
	s.c.timers.set(h, h.Wake())
}

func check(w group.Write) error {
	for _, r := range w.Records {
		if err := r.Check(); err != nil {
			return fmt.Errorf("%w: %v", ErrUnstorable, err)
		}
	}
	return nil
}

func sizeOf(w group.Write) int64 {
	var n int64
	for _, r := range w.Records {
		n += r.Size()
	}
	return n
}

// answer hands a response to whoever still waits for it.
func (s *shard) answer(t group.Token, response any) {
	if w := s.waiters[t]; w != nil {
		delete(s.waiters, t)
		w <- response
	}
}

// tick gives a group the time; the timers call it.
func (s *shard) tick(h *hosted) {
	s.mu.Lock()
	defer s.unlock()
	if s.refused() == nil && s.groups[h.ID()] == h {
		s.step(h, group.Tick{})
	}
}

// close ends the shard: everybody who waits is told to look elsewhere, whatever comes is refused, and the groups are
// forgotten. Outcomes of what is on its way are not heard any more.
func (s *shard) close() {
	s.cancel()
	s.settleMu.Lock()
	s.deaf, s.turns, s.done = true, nil, nil
	s.settleMu.Unlock()
	s.mu.Lock()
	defer s.unlock()
	if s.over {
		return
	}
	s.over, s.loading, s.refusal = true, false, ErrNotCoordinator
	for _, h := range s.groups {
		for _, r := range h.Step(s.c.opts.Now(), group.Unload{Err: ErrNotCoordinator}).Replies {
			s.answer(r.Token, r.Response)
		}
		s.c.timers.remove(h)
	}
	if s.watch != nil {
		s.watch.Stop()
	}
	s.c.Stats.PendingBytes.Add(-s.pending)
	s.groups, s.waiters, s.queue, s.deleted, s.pending = nil, nil, nil, nil, 0
	close(s.gone)
	s.wakeWaiting()
}
