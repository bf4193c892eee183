package stream

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/segment"
)

// Push is a leader's side of the streams to one follower: all partitions that this broker leads and that one follows, on a
// normal stream and, while some of them are far behind, a bulk stream. It outlives connections; see Run. All
// methods may be called concurrently, and none blocks but Run.
type Push struct {
	cfg      Config
	follower int32
	observer Observer
	counts   Counts
	compare  func(leader lineage, start, end int64, epochs []segment.EpochEntry, more bool) (verdict, int64)

	mu           sync.Mutex // guards what follows, and what Partition and lane say it guards; a leaf, never held across a call
	parts        map[Key]*Partition
	normal, bulk lane
}

// NewPush makes the streams to a follower; it starts nothing.
func NewPush(cfg Config, follower int32, observer Observer) *Push {
	cfg.setDefaults()
	cfg.Logger = cfg.Logger.With("follower", follower)
	u := &Push{cfg: cfg, follower: follower, observer: observer, compare: compare, parts: make(map[Key]*Partition)}
	u.normal = lane{push: u, wake: make(chan struct{}, 1)}
	u.bulk = lane{push: u, wake: make(chan struct{}, 1)}
	return u
}

// Counts is what went over all connections so far.
func (u *Push) Counts() *Counts { return &u.counts }

// Lead begins to push a partition that this broker leads in an epoch; what was led before under the same key is stopped.
func (u *Push) Lead(key Key, source Source, epoch int32) *Partition {
	p := &Partition{push: u, key: key, source: source, epoch: epoch, lane: &u.normal, far: u.cfg.FarBytes}
	p.acked.Store(-1)
	u.mu.Lock()
	if old := u.parts[key]; old != nil {
		old.stop()
	}
	u.parts[key] = p
	u.enqueue(p)
	u.mu.Unlock()
	return p
}

// stage is how far a partition is on its connection.
type stage int

const (
	waiting     stage = iota // to be opened, not before retryAt
	negotiating              // something was asked, or is about to be: ask
	pushing
	fenced  // until it is led anew
	stopped // for good
)

// Partition is one that is pushed to one follower.
type Partition struct {
	push   *Push
	key    Key
	source Source
	epoch  int32
	queued atomic.Bool  // it is in a list, or about to be: nothing more to do for Wake
	acked  atomic.Int64 // what the follower has on its disk; -1: not known on this connection
	tell   sync.Mutex   // held while the observer is told of acked, so that it hears in order; before push.mu

	// Guarded by push.mu. What a writer alone changes it may read without.
	lane    *lane
	next    *Partition // in the lane's list
	listed  *lane      // in whose list it is, or by whose writer it is set aside
	stage   stage
	number  uint32 // on this connection; 0: not opened
	ask     kind   // what to send next while negotiating; 0: nothing
	to      int64  // with it
	rounds  int    // of negotiation
	known   []segment.EpochEntry
	sent    int64 // the follower has it, or it is on its way
	burst   int64 // bytes sent since it was opened; -1 once it has caught up
	far     int64 // as much of burst is too much for the normal stream
	told    bool  // the observer has it for connected
	retryAt time.Time
	retry   time.Duration

	// Of the writer of its lane.
	markSent, startSent int64 // high watermark and log start that were told last
	marked              bool
}

// Key names it.
func (p *Partition) Key() Key { return p.key }

// Epoch is the leader epoch.
func (p *Partition) Epoch() int32 { return p.epoch }

// Wake says that the log's end or start, or the high watermark, has moved. It may be called by the committer's goroutine:
// it takes a lock for a moment at most.
func (p *Partition) Wake() {
	if p.queued.Swap(true) {
		return
	}
	p.push.mu.Lock()
	p.push.enqueue(p)
	p.push.mu.Unlock()
}

// Stop ends the pushing, for good. What is on its way may still arrive.
func (p *Partition) Stop() {
	p.push.mu.Lock()
	defer p.push.mu.Unlock()
	if p.push.parts[p.key] == p {
		delete(p.push.parts, p.key)
	}
	p.stop()
}

// Acked is the offset before which the follower has everything on its disk, -1 while that is not known.
func (p *Partition) Acked() int64 { return p.acked.Load() }

// Lag is how many offsets the follower is behind the end of the leader's log, -1 while that is not known.
func (p *Partition) Lag() int64 {
	acked := p.acked.Load()
	if acked < 0 {
		return -1
	}
	return max(0, p.source.LogEndOffset()-acked)
}

// Bulk tells whether the partition is on the bulk stream.
func (p *Partition) Bulk() bool {
	p.push.mu.Lock()
	defer p.push.mu.Unlock()
	return p.lane == &p.push.bulk
}

// stop is Stop with the lock held.
func (p *Partition) stop() {
	p.stage = stopped
	p.leave()
}

// leave takes the partition from its connection, and has the follower told. With the lock held.
func (p *Partition) leave() {
	if p.number != 0 {
		l := p.lane
		delete(l.byNumber, p.number)
		l.closes = append(l.closes, header{kind: kindClose, number: p.number, epoch: p.epoch})
		l.signal()
	}
	p.number, p.known, p.ask = 0, nil, 0
	p.acked.Store(-1)
}

// rest has the partition opened again after a pause, which doubles each time. With the lock held.
func (p *Partition) rest(now time.Time) {
	cfg := &p.push.cfg
	p.retry = min(max(2*p.retry, cfg.MinRetry), cfg.MaxRetry)
	p.stage, p.retryAt = waiting, now.Add(p.retry)
	p.push.enqueue(p)
}

// moveTo has the partition opened on the other stream. With the lock held.
func (p *Partition) moveTo(l *lane) {
	p.leave()
	p.lane, p.stage, p.retryAt = l, waiting, time.Time{}
	p.push.counts.Moves.Add(1)
	p.push.enqueue(p)
}

// lane is one of the two streams, and the connection that it has at a time.
type lane struct {
	push *Push
	wake chan struct{} // capacity 1: there is something for the writer

	// Guarded by push.mu.
	running     bool       // Run
	connected   bool       // the follower has answered
	first, last *Partition // with something to do, in the order in which it came
	byNumber    map[uint32]*Partition
	closes      []header // to be told
	numbers     uint32   // given out on this connection
}

// enqueue puts p into its lane's list, unless it is in one. With the lock held.
func (u *Push) enqueue(p *Partition) {
	p.queued.Store(true)
	if p.listed == nil {
		p.lane.put(p)
	}
}

func (l *lane) put(p *Partition) {
	p.next, p.listed = nil, l
	if l.last == nil {
		l.first = p
	} else {
		l.last.next = p
	}
	l.last = p
	l.signal()
}

// putFirst puts what was set aside before what came later.
func (l *lane) putFirst(set []*Partition) {
	for i := len(set) - 1; i >= 0; i-- {
		p := set[i]
		p.next = l.first
		if l.first = p; l.last == nil {
			l.last = p
		}
	}
}

func (l *lane) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// isBulk tells which of the two it is.
func (l *lane) isBulk() bool { return l == &l.push.bulk }

// begin takes the lane for a connection.
func (l *lane) begin() bool {
	l.push.mu.Lock()
	defer l.push.mu.Unlock()
	if l.running {
		return false
	}
	l.running, l.numbers, l.closes = true, 0, nil
	l.byNumber = make(map[uint32]*Partition)
	return true
}

// open has all partitions of the lane opened: the follower has answered.
func (l *lane) open() {
	l.push.mu.Lock()
	defer l.push.mu.Unlock()
	l.connected = true
	for _, p := range l.push.parts {
		if p.lane == l {
			l.push.enqueue(p)
		}
	}
}

// end takes all partitions from the connection, and returns those that had been acknowledged. Nobody opens them before
// release: the observer is told first.
func (l *lane) end() (lost []*Partition) {
	u := l.push
	u.mu.Lock()
	defer u.mu.Unlock()
	l.first, l.last, l.connected, l.byNumber, l.closes = nil, nil, false, nil, nil
	for _, p := range u.parts {
		if p.lane != l {
			continue
		}
		if p.told {
			p.told = false
			lost = append(lost, p)
		}
		if p.number, p.known, p.ask = 0, nil, 0; p.stage != fenced {
			p.stage, p.retryAt = waiting, time.Time{}
		}
		p.acked.Store(-1)
	}
	return lost
}

// release lets another connection have the partitions: those of a bulk stream go to the normal one.
func (l *lane) release() {
	u := l.push
	u.mu.Lock()
	defer u.mu.Unlock()
	l.first, l.last, l.running = nil, nil, false
	for _, p := range u.parts {
		if p.listed == l {
			p.next, p.listed = nil, nil
			p.queued.Store(false)
		}
		if p.lane == l {
			p.lane = &u.normal
			u.enqueue(p)
		}
	}
}
