package replication

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/replication/isr"
	"github.com/millrace/millrace/replication/stream"
	"github.com/millrace/millrace/segment"
)

// leading is a partition while this node leads it.
type leading struct {
	r   *replicator
	p   *engine.Partition
	key stream.Key

	asking  atomic.Bool // it is in the proposer's list
	watched atomic.Bool // it is among those that time changes

	mu      sync.Mutex                  // guards the fields below; held across no call but those of isr, which is pure, and of Push, which does not block
	placed  *catalog.Partition          // what the catalogue says
	state   *isr.Leader                 // nil until it begins
	copies  map[int32]*stream.Partition // by follower
	delayed bool                        // it begins when the log has been truncated for the leader before
	ended   bool
}

// step changes what is known, and does what follows from it: the high watermark moves, the in-sync set is asked for.
func (l *leading) step(change func(now time.Time)) {
	now := l.r.now()
	l.mu.Lock()
	if l.ended || l.state == nil {
		l.mu.Unlock()
		return
	}
	change(now)
	l.follow(now)
}

// follow does what follows from a change. It is called with the lock, and gives that back: who waits for the high watermark is told without it.
func (l *leading) follow(now time.Time) {
	raised := l.p.RaiseHighWatermark(l.state.HighWatermark()) // with the lock: after end it is no longer this leadership's
	_, wants := l.state.Wanted(now)
	timed := !l.state.Deadline(now).IsZero()
	l.mu.Unlock()
	if raised {
		l.p.TellHighWatermark()
		l.wakeCopies()
	}
	if wants && !l.asking.Swap(true) {
		l.r.proposer.add(l)
	}
	if timed && !l.watched.Swap(true) {
		l.r.watch(l)
	}
}

// wakeCopies says that there is something to tell the followers.
func (l *leading) wakeCopies() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.copies {
		c.Wake()
	}
}

func (l *leading) appended(end int64) {
	l.step(func(now time.Time) { l.state.Appended(end, now) })
	l.wakeCopies()
}

// assume takes over what the catalogue and the configuration say, and has the partition pushed to its followers. A nil placed is as it was.
func (l *leading) assume(placed *catalog.Partition) {
	now := l.r.now()
	l.mu.Lock()
	if placed != nil {
		l.placed = placed
	}
	if l.ended || l.placed == nil || l.state == nil && l.delay() {
		l.mu.Unlock()
		return
	}
	s := stateOf(l.placed, l.r.bars())
	if l.state == nil {
		end := l.p.LogEndOffset()
		l.p.LowerHighWatermark(end) // a truncation may have cut a whole batch
		l.state = isr.NewLeader(l.r.bounds(l.p), l.r.self, l.r.broker.Epoch(), s, end, l.p.HighWatermark(), now)
	} else {
		l.state.Changed(s, now)
		l.state.Configure(l.r.bounds(l.p), now)
	}
	for follower, c := range l.copies {
		if !slices.Contains(l.placed.Replicas, follower) || c.Epoch() != l.placed.LeaderEpoch {
			c.Stop()
			delete(l.copies, follower)
		}
	}
	for _, follower := range l.placed.Replicas {
		if follower != l.r.self && l.copies[follower] == nil {
			l.copies[follower] = l.r.pushTo(follower).Lead(l.key, source{l.p}, l.placed.LeaderEpoch)
		}
	}
	l.follow(now)
}

// delay tells whether the log is still being truncated for a leader before, and has assume called again when that has ended: a follower must not
// acknowledge what is about to go. The lock is held.
func (l *leading) delay() bool {
	cut := l.p.Log().Truncation()
	if cut == nil || l.delayed {
		return cut != nil
	}
	l.delayed = true
	l.r.start(func() {
		select {
		case <-cut:
			l.assume(nil)
		case <-l.r.ctx.Done():
		}
	})
	return true
}

// end stops the pushing: another leads.
func (l *leading) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	for _, c := range l.copies {
		c.Stop()
	}
	l.copies = nil
}

func stateOf(placed *catalog.Partition, barred []int32) isr.State {
	return isr.State{
		LeaderEpoch: placed.LeaderEpoch, PartitionEpoch: placed.PartitionEpoch, Replicas: placed.Replicas, InSync: placed.ISR, Barred: barred,
	}
}

// wish is the change of the in-sync set that is to be proposed, if there is one; it counts as proposed from then on.
func (l *leading) wish() (catalog.ISRChange, bool) {
	now := l.r.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asking.Store(false)
	if l.ended {
		return catalog.ISRChange{}, false
	}
	c, ok := l.state.Pending() // whose outcome is not known
	if !ok {
		if c, ok = l.state.Wanted(now); !ok {
			return catalog.ISRChange{}, false
		}
		l.state.Proposed(c, now)
	}
	change := catalog.ISRChange{Topic: l.key.TopicID, Partition: l.key.Partition, LeaderEpoch: c.LeaderEpoch, PartitionEpoch: c.PartitionEpoch}
	for _, m := range c.InSync {
		change.ISR = append(change.ISR, m.Broker)
		change.Epochs = append(change.Epochs, m.Epoch)
	}
	return change, true
}

// source is the leader's log, read as far as it is durable.
type source struct{ *engine.Partition }

func (s source) View(v *segment.View, from, limit int64, maxBytes int, oneAtLeast bool) (int, error) {
	return s.Log().View(v, from, limit, maxBytes, oneAtLeast)
}

func (s source) EndOffsetForEpoch(epoch int32) (int32, int64) {
	return s.Log().EndOffsetForEpoch(epoch)
}

// follower is the log of a partition that another node leads under an epoch. A log that is about to lie in another
// directory refuses for a moment, and is asked again.
type follower struct {
	*engine.Partition
	epoch int32
}

func (f follower) Append(ctx context.Context, a *segment.Append) error { return f.Log().Append(ctx, a) }
func (f follower) Epochs() []segment.EpochEntry                        { return f.Log().Epochs() }

func (f follower) Truncate(ctx context.Context, offset int64) error {
	if f.LeaderEpoch() != f.epoch {
		return stream.ErrNotFollower
	}
	f.LowerHighWatermark(offset)
	err := f.Log().Truncate(ctx, f.epoch, offset)
	f.LowerHighWatermark(f.LogEndOffset()) // a batch goes as a whole
	return err
}

func (f follower) Reset(ctx context.Context, offset int64) error {
	if f.LeaderEpoch() != f.epoch {
		return stream.ErrNotFollower
	}
	f.LowerHighWatermark(offset)
	return f.Log().Reset(ctx, f.epoch, offset)
}

func (f follower) MoveStart(ctx context.Context, offset int64) error {
	return f.Log().DeleteRecordsBefore(ctx, offset)
}

func (f follower) SetHighWatermark(offset int64) { f.AdvanceHighWatermark(offset) }
