package coordinator

import (
	"context"

	"github.com/millrace/millrace/engine/group"
)

// ticket is a request that waits for its answer.
type ticket struct {
	shard    *shard
	token    group.Token
	event    group.Event
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
	for s.refusal == nil && s.full(groupID) {
		changed := s.changed
		s.unlock()
		select {
		case <-changed:
		case <-c.opts.Stall(s.partition).Done(): // what is being waited for is a record on its way
			t.answered <- group.Failed(event(0), ErrNotAvailable)
			return t
		case <-ctx.Done():
			t.answered <- group.Failed(event(0), ErrNotAvailable)
			return t
		}
		s.mu.Lock()
	}
	defer s.unlock()
	if s.refusal != nil {
		t.answered <- group.Failed(event(0), s.refusal)
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

// wait gives the answer, or gives up when ctx ends, or when a record is on its way and the disk has
// stalled; what has been begun goes on.
func (t *ticket) wait(ctx context.Context) any {
	if t.shard == nil {
		return <-t.answered // refused before it got to a group
	}
	for over := false; !over; {
		select {
		case a := <-t.answered:
			return a
		case <-ctx.Done():
			over = true
		case <-t.shard.c.opts.Stall(t.shard.partition).Done():
			changed, unsettled := t.shard.unsettled()
			if over = unsettled; over {
				break
			}
			select { // it waits for other members, or for what has just been settled
			case a := <-t.answered:
				return a
			case <-changed:
			case <-ctx.Done():
				over = true
			}
		}
	}
	t.shard.mu.Lock()
	delete(t.shard.waiters, t.token)
	t.shard.unlock()
	select {
	case a := <-t.answered: // it came at the last moment
		return a
	default:
		return group.Failed(t.event, ErrNotAvailable)
	}
}

// unsettled tells whether a record is on its way to the log, and gives what ends when the next one is settled.
func (s *shard) unsettled() (changed <-chan struct{}, unsettled bool) {
	s.mu.Lock()
	defer s.unlock()
	return s.changed, s.settled < s.pushed
}

// settledSoFar waits until the outcome of everything that is on its way to the log now is known.
func (s *shard) settledSoFar(ctx context.Context) error {
	s.mu.Lock()
	target := s.pushed
	for s.refusal == nil && s.settled < target {
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
	return s.refusal
}
