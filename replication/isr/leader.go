package isr

import (
	"slices"
	"time"
)

// Config holds the bounds of one partition.
type Config struct {
	// MaxLag is how long a member of the in-sync set may not have been caught up; replica.lag.time.max.ms, default 30 s.
	MaxLag time.Duration
	// MaxLost is how long a member's connection may be broken. Default 2 s, the time after which its lease is over, too.
	MaxLost time.Duration
	// MinInSync is min.insync.replicas. Default 1.
	MinInSync int
	// Retry is the pause after a change was refused. Default 500 ms.
	Retry time.Duration
}

// DefaultConfig returns the defaults above.
func DefaultConfig() Config {
	return Config{MaxLag: 30 * time.Second, MaxLost: 2 * time.Second, MinInSync: 1, Retry: 500 * time.Millisecond}
}

// State is what the controller has decided about the partition. The slices are read, not kept.
type State struct {
	LeaderEpoch    int32
	PartitionEpoch int32 // counts the changes of everything here but Barred
	Replicas       []int32
	InSync         []int32 // with the leader
	Barred         []int32 // may not join the in-sync set: brokers that are fenced or shutting down
}

// Member is a broker of an in-sync set, with the epoch of its registration: -1 when it is not known.
type Member struct {
	Broker int32
	Epoch  int64
}

// Change is an in-sync set that is to replace the one of PartitionEpoch; on any other it must be refused.
type Change struct {
	LeaderEpoch    int32
	PartitionEpoch int32
	InSync         []Member // rising; the leader is one of them
}

// Has tells whether a broker is in the wanted set.
func (c *Change) Has(broker int32) bool {
	return slices.ContainsFunc(c.InSync, func(m Member) bool { return m.Broker == broker })
}

// unknown is the end offset of a follower that has not spoken in this leader epoch.
const unknown = -1

// follower is what the leader knows of one.
type follower struct {
	id       int32
	epoch    int64 // of the broker's registration
	end      int64 // everything before it is on its disk
	caughtUp time.Time
	// When it spoke last, and where the leader's log ended then: having that much later means it was caught up then.
	spoke    time.Time
	spokeEnd int64
	lostAt   time.Time // zero while connected
	regress  bool      // it has less than it had acknowledged
}

// Leader is the state machine of one partition that this broker leads. For one goroutine at a time; no method blocks.
type Leader struct {
	cfg       Config
	self      int32
	selfEpoch int64

	state      State
	epochStart int64 // where the leader's log ended when the leader epoch began
	end        int64
	watermark  int64
	followers  []follower // all replicas but the leader
	pending    *Change
	retryAt    time.Time // nothing is proposed before
}

// NewLeader begins to lead. brokerEpoch is of this broker's registration, end is where its log ends
// and highWatermark what it knows of that from before.
func NewLeader(cfg Config, self int32, brokerEpoch int64, s State, end, highWatermark int64, now time.Time) *Leader {
	l := &Leader{cfg: cfg, self: self, selfEpoch: brokerEpoch, end: end, watermark: min(highWatermark, end)}
	l.adopt(s)
	l.begin(now)
	l.advance(now)
	return l
}

// begin starts a leader epoch: nobody has spoken in it. Members of the in-sync set have MaxLag to do so.
func (l *Leader) begin(now time.Time) {
	l.epochStart = l.end
	for i := range l.followers {
		f := &l.followers[i]
		*f = follower{id: f.id, epoch: -1, end: unknown, spokeEnd: unknown}
		if l.inSync(f.id) {
			f.caughtUp = now
		}
	}
}

// adopt takes over what the controller has decided, with a slot for each follower.
func (l *Leader) adopt(s State) {
	old := l.followers
	l.state = State{s.LeaderEpoch, s.PartitionEpoch, slices.Clone(s.Replicas), slices.Clone(s.InSync), slices.Clone(s.Barred)}
	l.followers = make([]follower, 0, len(s.Replicas))
	for _, id := range s.Replicas {
		if id == l.self {
			continue
		}
		f := follower{id: id, epoch: -1, end: unknown, spokeEnd: unknown}
		if i := slices.IndexFunc(old, func(f follower) bool { return f.id == id }); i >= 0 {
			f = old[i]
		}
		l.followers = append(l.followers, f)
	}
}

// Changed takes what the controller has decided. What is older than what is known is passed over, but Barred always
// counts. Any other partition epoch than the pending change's base ends that change: either it is
// what was decided, or it can no longer be. With a later leader epoch everybody has to speak anew.
func (l *Leader) Changed(s State, now time.Time) {
	if s.PartitionEpoch < l.state.PartitionEpoch || s.LeaderEpoch < l.state.LeaderEpoch {
		return
	}
	if s.PartitionEpoch > l.state.PartitionEpoch {
		l.pending, l.retryAt = nil, time.Time{}
	}
	fresh := s.LeaderEpoch > l.state.LeaderEpoch
	before := l.state.InSync
	l.adopt(s)
	if fresh {
		l.begin(now)
	}
	for i := range l.followers {
		// One that the controller has added has as long as one that was there at the beginning.
		if f := &l.followers[i]; l.inSync(f.id) && !slices.Contains(before, f.id) && f.caughtUp.IsZero() {
			f.caughtUp = now
		}
	}
	l.advance(now)
}

// Configure changes the bounds.
func (l *Leader) Configure(cfg Config, now time.Time) {
	l.cfg = cfg
	l.advance(now)
}

// Appended says that the leader's own log is durable up to end.
func (l *Leader) Appended(end int64, now time.Time) {
	if end <= l.end {
		return
	}
	for i := range l.followers {
		// A follower that is pushed to says nothing while it has everything: it was caught up until now.
		if f := &l.followers[i]; f.end >= l.end && f.lostAt.IsZero() {
			f.caughtUp = latest(f.caughtUp, now)
			f.spoke, f.spokeEnd = now, l.end
		}
	}
	l.end = end
	l.advance(now)
}

// Acked says that a follower, in the registration brokerEpoch, is connected and has everything before end on its disk. An end below
// the one before is believed: the follower has lost something. One of an older registration than is known is not.
func (l *Leader) Acked(broker int32, brokerEpoch int64, end int64, now time.Time) {
	f := l.follower(broker)
	if f == nil || brokerEpoch < f.epoch {
		return
	}
	f.epoch, f.lostAt = brokerEpoch, time.Time{}
	// The leader's log is what counts: more than that is nobody's business.
	f.end = min(end, l.end)
	switch {
	case f.end >= l.end:
		f.caughtUp = latest(f.caughtUp, now)
	case f.spokeEnd != unknown && f.end >= f.spokeEnd:
		f.caughtUp = latest(f.caughtUp, f.spoke)
	}
	f.spoke, f.spokeEnd = now, l.end
	f.regress = f.end < l.watermark && l.inSync(broker)
	l.advance(now)
}

// Lost says that the connection to a follower is broken. Until it acknowledges something it counts as lost.
func (l *Leader) Lost(broker int32, now time.Time) {
	f := l.follower(broker)
	if f == nil || !f.lostAt.IsZero() {
		return
	}
	if f.end >= l.end {
		f.caughtUp = latest(f.caughtUp, now)
	}
	f.lostAt = now
	l.advance(now)
}

// Tick lets time pass. See Deadline.
func (l *Leader) Tick(now time.Time) { l.advance(now) }

// Proposed says that a change is on its way to the controller. Until Changed or Refused it is pending: those that it adds
// count for the high watermark, and those that it takes out do so still.
func (l *Leader) Proposed(c Change, now time.Time) {
	l.pending = &c
	l.advance(now)
}

// Refused says that the pending change was not made and will not be. When that is not known, it stays pending and is
// to be proposed again.
func (l *Leader) Refused(now time.Time) {
	l.pending, l.retryAt = nil, now.Add(l.cfg.Retry)
	l.advance(now)
}

// Pending is the change that is under way, if any.
func (l *Leader) Pending() (c Change, ok bool) {
	if l.pending == nil {
		return Change{}, false
	}
	return *l.pending, true
}

// HighWatermark is the offset before which every member of the maximal in-sync set has everything. It never falls.
func (l *Leader) HighWatermark() int64 { return l.watermark }

// End is what a follower has acknowledged in this leader epoch, -1 when nothing.
func (l *Leader) End(broker int32) int64 {
	if f := l.follower(broker); f != nil {
		return f.end
	}
	return unknown
}

// BelowMinimum tells whether the in-sync set is smaller than min.insync.replicas (of no more than there are replicas): then the
// high watermark does not move, and producers with acks=all are to be refused.
func (l *Leader) BelowMinimum() bool {
	return len(l.state.InSync) < min(l.cfg.MinInSync, len(l.state.Replicas))
}

func (l *Leader) follower(id int32) *follower {
	for i := range l.followers {
		if l.followers[i].id == id {
			return &l.followers[i]
		}
	}
	return nil
}

func (l *Leader) inSync(id int32) bool { return slices.Contains(l.state.InSync, id) }

// maximal tells whether a broker is in the in-sync set, or may be without the leader knowing yet.
func (l *Leader) maximal(id int32) bool {
	return l.inSync(id) || l.pending != nil && l.pending.Has(id)
}

// joining tells whether a follower is about to join the in-sync set: were it not waited for, the high watermark would
// run ahead of it while records keep coming, and it would never be there.
func (l *Leader) joining(f *follower, now time.Time) bool {
	return f.end != unknown && f.lostAt.IsZero() && l.eligible(f.id) && !f.caughtUp.IsZero() && now.Sub(f.caughtUp) <= l.cfg.MaxLag
}

func (l *Leader) eligible(id int32) bool { return !slices.Contains(l.state.Barred, id) }

func (l *Leader) advance(now time.Time) {
	if l.BelowMinimum() {
		return
	}
	least := l.end
	for i := range l.followers {
		if f := &l.followers[i]; f.end < least && (l.maximal(f.id) || l.joining(f, now)) {
			least = f.end
		}
	}
	l.watermark = max(l.watermark, least)
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
