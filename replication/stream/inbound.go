package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/millrace/millrace/segment"
)

// reception is whether a partition takes records.
type reception int

const (
	busy       reception = iota // a worker has it; the leader waits for a STATE
	receivable                  // APPENDs are taken
	gone                        // refused, closed, or opened elsewhere: for good
)

// inbound is a partition as it was opened on one connection.
type inbound struct {
	s      *receiving
	key    Key
	number uint32
	epoch  int32
	sink   Sink // set before it becomes receivable

	// Guarded by s.mu.
	stage         reception
	users         int           // appends, and what a worker does: they touch the log
	appends       int           // of those
	idle          chan struct{} // closed when there are none; nil: nobody waits for that
	expected      int64         // the next APPEND's from
	durable       int64
	acking        bool // in s.acks
	highWatermark int64
	wantStart     int64 // the leader's log start
	start         int64 // the log's
	starting      bool  // a worker moves that
}

// enter is called before the log is touched, and tells whether that may be.
func (p *inbound) enter() bool {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if p.stage == gone {
		return false
	}
	p.users++
	return true
}

// leave is the reverse of enter.
func (p *inbound) leave() {
	p.s.mu.Lock()
	last := p.left()
	p.s.mu.Unlock()
	if last {
		p.s.r.forget(p)
	}
}

// left notes that one has left; last tells that nothing is to come either. With the lock held.
func (p *inbound) left() (last bool) {
	if p.users--; p.users > 0 {
		return false
	}
	if p.idle != nil {
		close(p.idle)
		p.idle = nil
	}
	return p.stage == gone
}

// revoke refuses everything from now on, tells the leader, and waits until nobody touches the log.
func (p *inbound) revoke(ctx context.Context, why state) error {
	s := p.s
	s.mu.Lock()
	if p.stage != gone {
		s.refuse(p, why)
	}
	if p.users == 0 {
		s.mu.Unlock()
		s.r.forget(p)
		return nil
	}
	if p.idle == nil {
		p.idle = make(chan struct{})
	}
	idle := p.idle
	s.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("appends of leader epoch %d are still under way: %w", p.epoch, context.Cause(ctx))
	}
}

// close ends it because the leader has said so; what has come already is appended.
func (p *inbound) close() {
	s := p.s
	s.mu.Lock()
	p.stage = gone
	idle := p.users == 0
	s.mu.Unlock()
	if idle {
		s.r.forget(p)
	}
}

// refuse has the leader told that a partition is not received any more. With the lock held.
func (s *receiving) refuse(p *inbound, why state) {
	if p.stage == gone {
		return
	}
	p.stage = gone
	why.reason = why.reason[:min(len(why.reason), maxText)]
	s.dead = append(s.dead, p.number)
	s.answer(p, why)
}

// answer has a STATE sent. With the lock held.
func (s *receiving) answer(p *inbound, m state) {
	s.answers = append(s.answers, answer{p.number, p.epoch, m})
	s.signal()
}

// refusal is what the leader is told of an error.
func refusal(err error) state {
	m := state{status: statusStorage, reason: err.Error()}
	var later *EpochError
	switch {
	case errors.As(err, &later):
		m.status, m.laterEpoch = statusLaterEpoch, later.Current
	case errors.Is(err, ErrNotFollower):
		m.status = statusNotFollower
	case errors.Is(err, ErrUnknownPartition):
		m.status = statusUnknown
	}
	return m
}

// stateOf tells where a log stands, with its last epochs below one.
func stateOf(sink Sink, below int32) state {
	m := state{start: sink.LogStartOffset(), end: sink.LogEndOffset()}
	m.end = max(m.start, m.end)
	epochs := sink.Epochs()
	for len(epochs) > 0 && epochs[len(epochs)-1].Epoch >= below {
		epochs = epochs[:len(epochs)-1]
	}
	if n := len(epochs); n > maxEpochs {
		epochs, m.more = epochs[n-maxEpochs:], true
	}
	m.epochs = epochs
	return m
}

// arrival is the batches of one APPEND on their way to the disk.
type arrival struct {
	segment.Append
	p   *inbound
	buf *buffer
}

var arrivals sync.Pool

func takeArrival(p *inbound, n int) *arrival {
	a, ok := arrivals.Get().(*arrival)
	if !ok {
		a = new(arrival)
		a.Done = a.done
	}
	a.p, a.buf = p, takeBuffer(n)
	return a
}

// done says what has become of the batches. The committer's goroutine calls it.
func (a *arrival) done(r segment.Result) {
	p := a.p
	s := p.s
	s.mu.Lock()
	told := false
	move := false
	switch {
	case r.Err != nil:
		s.refuse(p, refusal(r.Err))
	case p.stage == receivable:
		p.durable = max(p.durable, r.LastOffset+1)
		told = true
		if !p.acking {
			p.acking = true
			s.acks = append(s.acks, p)
		}
		move = p.startToMove()
	}
	mark := min(p.highWatermark, p.durable)
	s.credit += cost(len(a.buf.b))
	p.appends--
	last := p.left()
	s.mu.Unlock()
	if told {
		p.sink.SetHighWatermark(mark)
	}
	if move {
		s.work(chore{p: p, kind: kindWatermarks})
	}
	if last {
		s.r.forget(p)
	}
	s.signal()
	a.free()
}

// drop is for batches that never come to the log, on a connection that ends.
func (a *arrival) drop() {
	a.p.leave()
	a.free()
}

func (a *arrival) free() {
	a.buf.free()
	a.Append = segment.Append{Done: a.Done}
	a.p, a.buf = nil, nil
	arrivals.Put(a)
}
