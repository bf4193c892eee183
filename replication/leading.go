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

	mu     sync.Mutex // guards the fields below; held across no call but those of isr, which is pure, and of Push, which does not block
	state  *isr.Leader
	copies map[int32]*stream.Partition // by follower
	ended  bool
}

// step changes what is known, and does what follows from it: the high watermark moves, the in-sync set is asked for.
func (l *leading) step(change func(now time.Time)) {
	now := l.r.now()
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		return
	}
	change(now)
	watermark := l.state.HighWatermark()
	_, wants := l.state.Wanted(now)
	timed := !l.state.Deadline(now).IsZero()
	l.mu.Unlock()
	if watermark > l.p.HighWatermark() {
		l.p.AdvanceHighWatermark(watermark)
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

// assume takes over what the catalogue says, and has the partition pushed to its followers.
func (l *leading) assume(placed *catalog.Partition, barred []int32) {
	l.step(func(now time.Time) {
		s := stateOf(placed, barred)
		if l.state == nil {
			l.state = isr.NewLeader(l.r.bounds(l.p), l.r.self, l.r.broker.Epoch(), s, l.p.LogEndOffset(), l.p.HighWatermark(), now)
		} else {
			l.state.Changed(s, now)
		}
		for follower, c := range l.copies {
			if !slices.Contains(placed.Replicas, follower) || c.Epoch() != placed.LeaderEpoch {
				c.Stop()
				delete(l.copies, follower)
			}
		}
		for _, follower := range placed.Replicas {
			if follower != l.r.self && l.copies[follower] == nil {
				l.copies[follower] = l.r.pushTo(follower).Lead(l.key, source{l.p}, placed.LeaderEpoch)
			}
		}
	})
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
	return f.Log().Truncate(ctx, f.epoch, offset)
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
