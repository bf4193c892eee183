package stream

import (
	"context"
	"math"
	"slices"
	"time"
)

// chore is what a worker does for one partition, since it may wait for the disk.
type chore struct {
	p    *inbound
	kind kind // OPEN, TRUNCATE, RESET; WATERMARKS moves the log start
	to   int64
}

// work hands a chore to a worker; there are a few, and only while there is something to do. What waits is bounded by the
// partitions: each has two chores at most.
func (s *receiving) work(c chore) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.chores = append(s.chores, c)
	if s.workers < maxWorkers {
		s.workers++
		s.running.Go(s.worker)
	}
}

func (s *receiving) worker() {
	for {
		s.mu.Lock()
		if len(s.chores) == 0 || s.ctx.Err() != nil {
			s.workers--
			s.mu.Unlock()
			return
		}
		c := s.chores[0]
		s.chores[0] = chore{}
		s.chores = s.chores[1:]
		s.mu.Unlock()
		s.do(c)
	}
}

func (s *receiving) do(c chore) {
	p := c.p
	if !p.enter() {
		return
	}
	defer p.leave()
	ctx, cancel := context.WithTimeout(s.ctx, s.r.cfg.StorageTimeout)
	defer cancel()
	var err error
	switch c.kind {
	case kindOpen:
		err = s.take(ctx, p)
	case kindTruncate:
		err = p.sink.Truncate(ctx, c.to)
	case kindReset:
		err = p.sink.Reset(ctx, c.to)
	case kindWatermarks:
		s.moveStart(ctx, p)
		return
	}
	var m state
	if err == nil {
		m = stateOf(p.sink, math.MaxInt32)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.refuse(p, refusal(err))
		return
	}
	if p.stage == gone {
		return
	}
	p.stage, p.expected, p.durable, p.start = receivable, m.end, m.end, m.start
	s.answer(p, m)
}

// take makes p the one through which its partition is received, once nothing comes to the log through another any more.
func (s *receiving) take(ctx context.Context, p *inbound) error {
	r := s.r
	r.mu.Lock()
	before := r.owners[p.key]
	if before != nil && before.epoch > p.epoch {
		r.mu.Unlock()
		r.counts.Refused.Add(1)
		return &EpochError{Current: before.epoch}
	}
	r.owners[p.key] = p
	r.mu.Unlock()
	if before != nil {
		if err := before.revoke(ctx, state{status: statusSuperseded}); err != nil {
			return err
		}
	}
	sink, err := r.host.Follow(ctx, p.key, s.peer.broker, p.epoch)
	if err != nil {
		return err
	}
	p.sink = sink
	return nil
}

// startToMove tells whether a worker is to move the log's start. With the lock held.
func (p *inbound) startToMove() bool {
	if p.starting || p.wantStart <= p.start || p.wantStart > p.durable {
		return false
	}
	p.starting = true
	return true
}

// moveStart moves the log's start to the leader's.
func (s *receiving) moveStart(ctx context.Context, p *inbound) {
	s.mu.Lock()
	to := min(p.wantStart, p.durable)
	s.mu.Unlock()
	err := p.sink.MoveStart(ctx, to)
	s.mu.Lock()
	defer s.mu.Unlock()
	p.starting = false
	if err != nil {
		s.refuse(p, refusal(err))
		return
	}
	p.start = max(to, p.start)
}

// write sends answers, acknowledgements and credit until the connection ends: what has gathered meanwhile goes together.
func (s *receiving) write() error {
	cfg := &s.r.cfg
	me := hello{version: version, bulk: s.peer.bulk, broker: cfg.Self.Broker, brokerEpoch: cfg.Self.BrokerEpoch, window: s.window, cluster: cfg.Self.Cluster}
	if err := s.wire.write([][]byte{s.frame(nil, header{kind: kindHello}, me.append)}); err != nil {
		return err
	}
	wrote := cfg.Now()
	timer := time.NewTimer(cfg.Heartbeat)
	defer timer.Stop()
	var b []byte
	for {
		now := cfg.Now()
		b = s.collect(b[:0])
		if len(b) == 0 && now.Sub(wrote) >= cfg.Heartbeat {
			b = s.frame(b, header{kind: kindHeartbeat}, nil)
		}
		if len(b) > 0 {
			if err := s.wire.write([][]byte{b}); err != nil {
				return err
			}
			wrote = now
			continue
		}
		timer.Reset(wrote.Add(cfg.Heartbeat).Sub(now))
		select {
		case <-s.wake:
		case <-timer.C:
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		}
	}
}

// frame is appendFrame, counted.
func (s *receiving) frame(dst []byte, h header, body func([]byte) []byte) []byte {
	s.r.counts.FramesOut.Add(1)
	return appendFrame(dst, h, body)
}

// collect makes frames of what there is to tell: answers first, since what is acknowledged comes after its STATE.
func (s *receiving) collect(b []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.answers {
		a := &s.answers[i]
		b = s.frame(b, header{kind: kindState, number: a.number, epoch: a.epoch}, a.state.append)
	}
	s.answers = s.answers[:0]
	for row := range slices.Chunk(s.acks, maxList) {
		at := len(b)
		b = appendFrame(b, header{kind: kindAck}, func(dst []byte) []byte {
			for _, p := range row {
				p.acking = false
				if p.stage == receivable {
					m := ack{p.number, p.epoch, p.durable}
					dst = m.append(dst)
				}
			}
			return dst
		})
		if len(b) == at+headerSize { // all were refused meanwhile
			b = b[:at]
			continue
		}
		s.r.counts.FramesOut.Add(1)
		s.r.counts.AckFrames.Add(1)
	}
	clear(s.acks)
	s.acks = s.acks[:0]
	if s.credit > 0 {
		n := s.credit
		s.credit, s.underWay = 0, s.underWay-n
		b = s.frame(b, header{kind: kindCredit}, func(dst []byte) []byte { return order.AppendUint64(dst, uint64(n)) })
	}
	return b
}
