package stream

import (
	"errors"
	"fmt"
)

// ackEvent is for the observer.
type ackEvent struct {
	p      *Partition
	number uint32
	end    int64
}

// tell tells the observer, unless the partition has moved to the other stream: that one's reader speaks for it then.
func (s *sending) tell(e ackEvent) {
	e.p.tell.Lock()
	defer e.p.tell.Unlock()
	if s.current(mark{e.p, e.number}) {
		s.push.observer.Acked(e.p, s.peer.brokerEpoch, e.end)
	}
}

// read takes what the follower says until the connection ends.
func (s *sending) read() error {
	if err := s.readHello(); err != nil {
		return err
	}
	close(s.ready)
	for {
		h, err := s.wire.next()
		if err != nil {
			return err
		}
		switch h.kind {
		case kindState, kindAck, kindCredit, kindHeartbeat:
		default:
			return fmt.Errorf("%w: a follower sent a frame of kind %d", ErrProtocol, h.kind)
		}
		body, err := s.wire.small(h)
		if err != nil {
			return err
		}
		switch h.kind {
		case kindState:
			err = s.state(h, body)
		case kindAck:
			err = s.acks(body)
		case kindCredit:
			err = s.credit(int64(order.Uint64(body)))
		}
		if err != nil {
			return err
		}
	}
}

// readHello takes the follower's HELLO.
func (s *sending) readHello() error {
	m, err := readHello(s.wire)
	if err != nil {
		return err
	}
	if self := s.push.cfg.Self; m.cluster != self.Cluster || m.broker != s.push.follower {
		return fmt.Errorf("%w: broker %d of cluster %q, broker %d of %q was expected", ErrStranger, m.broker, m.cluster, s.push.follower, self.Cluster)
	}
	if m.window < smallestBuffer {
		return fmt.Errorf("%w: a window of %d bytes", ErrProtocol, m.window)
	}
	s.peer, s.window = m, m.window
	return nil
}

// readHello takes the first frame of a connection.
func readHello(w *wire) (hello, error) {
	h, err := w.next()
	if err != nil {
		return hello{}, err
	}
	if h.kind != kindHello {
		return hello{}, fmt.Errorf("%w: the first frame is of kind %d", ErrProtocol, h.kind)
	}
	body, err := w.small(h)
	if err != nil {
		return hello{}, err
	}
	var m hello
	if err := m.read(body); err != nil {
		return hello{}, err
	}
	if m.version != version {
		return hello{}, fmt.Errorf("%w: it speaks version %d, this broker %d", ErrStranger, m.version, version)
	}
	return m, nil
}

// state judges where a follower's log stands.
func (s *sending) state(h header, body []byte) error {
	var m state
	if err := m.read(body); err != nil {
		return err
	}
	u := s.push
	u.mu.Lock()
	p := s.lane.byNumber[h.number]
	if p == nil || p.epoch != h.epoch { // it is of the past
		u.mu.Unlock()
		return nil
	}
	if m.status != statusOpen {
		lost := s.refused(p, &m)
		u.mu.Unlock()
		s.tellRefusal(p, lost, &m)
		return nil
	}
	if p.stage != negotiating || p.ask != 0 {
		u.mu.Unlock()
		return fmt.Errorf("%w: STATE that nobody has asked for", ErrProtocol)
	}
	known := append(m.epochs[:len(m.epochs):len(m.epochs)], p.known...)
	u.mu.Unlock()

	v, to := u.compare(p.source, m.start, m.end, known, m.more)

	u.mu.Lock()
	if p.number != h.number || p.stage != negotiating {
		u.mu.Unlock()
		return nil
	}
	lost := false
	p.known = nil
	p.rounds++
	switch {
	case v == agree:
		p.stage, p.sent, p.markSent, p.startSent, p.told = pushing, m.end, -1, -1, true
		p.acked.Store(m.end)
	case p.rounds > maxRounds:
		p.leave()
		p.rest(u.cfg.Now())
		lost, p.told = p.told, false
	case v == askMore:
		p.known, p.ask, p.to = known, kindMore, to
	case v == truncate:
		p.ask, p.to = kindTruncate, to
	case v == reset:
		p.ask, p.to = kindReset, to
	}
	given := p.stage == waiting
	u.enqueue(p)
	u.mu.Unlock()
	switch {
	case v == agree:
		s.tell(ackEvent{p, h.number, m.end})
	case given:
		if lost {
			u.observer.Lost(p)
		}
		u.observer.Failed(p, fmt.Errorf("%w: after %d rounds the follower's log is at %d to %d", ErrDiverged, maxRounds, m.start, m.end))
	case v != askMore:
		u.cfg.Logger.Info("a follower's log has parted from the leader's", "topicId", fmt.Sprintf("%x", p.key.TopicID), "partition", p.key.Partition,
			"leaderEpoch", p.epoch, "logStartOffset", m.start, "logEndOffset", m.end, "reset", v == reset, "to", to)
	}
	return nil
}

// maxRounds bounds the negotiation of one partition: 64 epochs each.
const maxRounds = 1024

// refused takes a partition from the connection, which the follower does not hold (any more). With the lock held; lost
// tells whether that is news.
func (s *sending) refused(p *Partition, m *state) (lost bool) {
	delete(s.lane.byNumber, p.number)
	p.number, p.known, p.ask = 0, nil, 0
	p.acked.Store(-1)
	lost, p.told = p.told, false
	if m.status == statusLaterEpoch && m.laterEpoch > p.epoch {
		p.stage = fenced
		return lost
	}
	p.rest(s.push.cfg.Now())
	return lost
}

func (s *sending) tellRefusal(p *Partition, lost bool, m *state) {
	o := s.push.observer
	if lost {
		o.Lost(p)
	}
	var why error
	switch m.status {
	case statusLaterEpoch:
		if m.laterEpoch > p.epoch {
			s.push.counts.Refused.Add(1)
			o.Fenced(p, m.laterEpoch)
			return
		}
		why = ErrNotFollower
	case statusNotFollower:
		why = ErrNotFollower
	case statusUnknown:
		why = ErrUnknownPartition
	case statusSuperseded:
		why = ErrSuperseded
	default:
		why = ErrStorage
	}
	if m.reason != "" {
		why = fmt.Errorf("%w: %s", why, m.reason)
	}
	o.Failed(p, why)
}

// acks takes what has become durable at the follower.
func (s *sending) acks(body []byte) error {
	u := s.push
	var bad error
	events := s.events[:0]
	u.mu.Lock()
	err := readAcks(body, func(a ack) {
		p := s.lane.byNumber[a.number]
		switch {
		case p == nil || p.epoch != a.epoch || p.stage != pushing:
		case a.end > p.sent:
			bad = fmt.Errorf("%w: a follower acknowledges up to %d, it was sent up to %d", ErrProtocol, a.end, p.sent)
		case a.end > p.acked.Load():
			p.acked.Store(a.end)
			p.retry = 0
			events = append(events, ackEvent{p, a.number, a.end})
		}
	})
	u.mu.Unlock()
	for _, e := range events {
		s.tell(e)
	}
	clear(events)
	s.events = events
	return errors.Join(err, bad)
}

// credit takes bytes that are no longer under way.
func (s *sending) credit(n int64) error {
	if n < 0 || s.underWay.Add(-n) < 0 {
		return fmt.Errorf("%w: credit for %d bytes more than were sent", ErrProtocol, n)
	}
	if s.starving.Load() && s.roomy() {
		s.lane.signal()
	}
	return nil
}
