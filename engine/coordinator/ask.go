package coordinator

import (
	"context"
	"time"

	"github.com/millrace/millrace/engine/group"
)

// ticket is a request that waits for its answer.
type ticket struct {
	shard    *shard
	token    group.Token
	event    group.Event
	hosted   *hosted
	answered chan any // has room for the one answer
}

// ask lets an event happen to a group and waits for the answer until ctx ends.
func (c *Coordinator) ask(ctx context.Context, groupID string, event func(group.Token) group.Event) any {
	return c.begin(ctx, groupID, event).wait(ctx)
}

// askBounded is ask for what is not meant to wait for other members.
func (c *Coordinator) askBounded(ctx context.Context, groupID string, event func(group.Token) group.Event) any {
	ctx, cancel := context.WithTimeout(ctx, c.opts.CommitTimeout)
	defer cancel()
	return c.ask(ctx, groupID, event)
}

// begin lets an event happen to a group, once there is room for what it may write.
func (c *Coordinator) begin(ctx context.Context, groupID string, event func(group.Token) group.Event) *ticket {
	t := &ticket{answered: make(chan any, 1)}
	s := c.shardOf(groupID)
	if s == nil {
		t.answered <- group.Failed(event(0), ErrNotCoordinator)
		return t
	}
	s.mu.Lock()
	for s.refused() == nil && s.full(groupID) {
		changed, late := s.changed, s.late
		s.unlock()
		refused := false
		select {
		case <-changed:
		case <-late:
			refused = true
		case <-c.opts.Stall(s.partition).Done(): // what is being waited for is a record on its way
			refused = true
		case <-ctx.Done():
			refused = true
		}
		if refused {
			t.answered <- group.Failed(event(0), ErrNotAvailable)
			return t
		}
		s.mu.Lock()
	}
	defer s.unlock()
	if err := s.refused(); err != nil {
		t.answered <- group.Failed(event(0), err)
		return t
	}
	s.tokens++
	t.shard, t.token = s, s.tokens
	t.event = event(t.token)
	h := s.groups[groupID]
	if h == nil {
		if !group.Creates(t.event) {
			t.answered <- group.Absent(t.event)
			return t
		}
		h = s.host(groupID)
		s.groups[groupID] = h
	}
	t.hosted = h
	s.waiters[t.token] = t.answered
	s.step(h, t.event)
	return t
}

// full tells whether a request has to wait before it may write: until there is room, until the queue has run
// empty for a rewrite, or until it is known whether the group has ended.
func (s *shard) full(groupID string) bool {
	h := s.groups[groupID]
	return s.gated || s.pending >= s.c.opts.MaxPending || h != nil && h.Deleting()
}

// wait gives the answer, or gives up when ctx ends, when this node no longer leads the partition, or when the answer
// depends on a record on its way that the log does not get done with. What has been begun goes on.
func (t *ticket) wait(ctx context.Context) any {
	if t.shard == nil {
		return <-t.answered // refused before it got to a group
	}
	answer, err := t.outlast(ctx)
	if err == nil {
		return answer
	}
	t.shard.mu.Lock()
	delete(t.shard.waiters, t.token)
	t.shard.unlock()
	select {
	case a := <-t.answered: // it came at the last moment, or with the end of the shard
		return a
	default:
		return group.Failed(t.event, err)
	}
}

// outlast waits for the answer for as long as there is reason to.
func (t *ticket) outlast(ctx context.Context) (answer any, err error) {
	s := t.shard
	var patience *time.Timer // runs once the outcome that is waited for is overdue
	var out <-chan time.Time
	for {
		w := s.waitingFor(t)
		switch {
		case w.stuck:
			return nil, ErrNotAvailable
		case w.overdue && patience == nil:
			patience = time.NewTimer(s.c.opts.CommitTimeout)
			defer patience.Stop()
			out = patience.C
		case !w.overdue:
			out = nil
		}
		select {
		case a := <-t.answered:
			return a, nil
		case <-s.gone:
			return nil, ErrNotCoordinator
		case <-ctx.Done():
			return nil, ErrNotAvailable
		case <-out:
			return nil, ErrNotAvailable
		case <-w.stall:
		case <-w.late:
		case <-w.changed:
		}
	}
}

// waiting is what a request waits for besides its answer.
type waiting struct {
	stuck                bool            // the disk has stalled with something in its hands
	overdue              bool            // so is an outcome, and the request's group waits for one
	stall, late, changed <-chan struct{} // when to look again
}

func (s *shard) waitingFor(t *ticket) waiting {
	stall := s.c.opts.Stall(s.partition)
	stalled := stall.Err() != nil
	s.mu.Lock()
	defer s.unlock()
	if s.over {
		return waiting{}
	}
	w := waiting{stuck: stalled && s.settled < s.pushed, overdue: s.isLate && t.hosted.InFlight() > 0}
	if stalled || s.isLate {
		w.changed = s.changed // it waits for other members, or for what has just been settled
	}
	if !stalled {
		w.stall = stall.Done()
	}
	if !s.isLate {
		w.late = s.late
	}
	return w
}

// settledSoFar waits until the outcome of everything that is on its way to the log now is known.
func (s *shard) settledSoFar(ctx context.Context) error {
	s.mu.Lock()
	target := s.pushed
	for s.refused() == nil && s.settled < target {
		changed := s.changed
		s.unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ErrNotCoordinator
		}
		s.mu.Lock()
	}
	defer s.unlock()
	return s.refused()
}
