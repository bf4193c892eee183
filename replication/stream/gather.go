package stream

import (
	"fmt"
	"math"
	"time"
)

// job is what a writer does for one partition, as it was when it came out of the list.
type job struct {
	p      *Partition
	number uint32
	stage  stage
	ask    kind
	to     int64
}

// pop takes the next partition out of the lane's list. With the lock held.
func (l *lane) pop() *Partition {
	p := l.first
	if p == nil {
		return nil
	}
	if l.first = p.next; l.first == nil {
		l.last = nil
	}
	p.next, p.listed = nil, nil
	p.queued.Store(false) // before its offsets are looked at: what moves from now on wakes it again
	return p
}

// nextJob finds something to do; p is nil when there is nothing.
func (s *sending) nextJob(now time.Time) job {
	l, u := s.lane, s.push
	u.mu.Lock()
	defer u.mu.Unlock()
	for {
		p := l.pop()
		if p == nil {
			return job{}
		}
		if p.lane != l {
			u.enqueue(p)
			continue
		}
		switch p.stage {
		case waiting:
			if p.retryAt.After(now) {
				s.resting = append(s.resting, p)
				p.listed = l
				p.queued.Store(true)
				continue
			}
			l.numbers++
			p.number, p.stage, p.ask, p.rounds, p.burst = l.numbers, negotiating, kindOpen, 0, 0
			p.marked = false
			l.byNumber[p.number] = p
		case negotiating:
			if p.ask == 0 {
				continue
			}
		case pushing:
		default:
			continue
		}
		j := job{p, p.number, p.stage, p.ask, p.to}
		p.ask = 0
		return j
	}
}

// gather fills one write with what there is to send, each partition in its turn, and tells when to look again
// if nothing wakes the writer before.
func (s *sending) gather(now time.Time) (until time.Duration) {
	s.comeBack(now)
	for s.viewCount < maxViews && s.bytes < gatherBytes && len(s.arena) < gatherArena {
		j := s.nextJob(now)
		if j.p == nil {
			break
		}
		if j.stage == negotiating {
			s.control(j)
		} else {
			s.advance(j, now)
		}
	}
	s.tellCloses()
	return min(s.tellMarks(now), s.patience(now))
}

// comeBack puts partitions that were set aside back into the list, when what they wait for has come.
func (s *sending) comeBack(now time.Time) {
	if len(s.hungry)+len(s.resting) == 0 {
		return
	}
	s.push.mu.Lock()
	defer s.push.mu.Unlock()
	if s.roomy() && !s.held.After(now) {
		s.starving.Store(false)
		s.lane.putFirst(s.hungry)
		clear(s.hungry)
		s.hungry = s.hungry[:0]
	}
	kept := s.resting[:0]
	for _, p := range s.resting {
		if p.stage == waiting && p.retryAt.After(now) {
			kept = append(kept, p)
		} else {
			s.lane.put(p)
		}
	}
	clear(s.resting[len(kept):])
	s.resting = kept
}

// patience is how long those that were set aside wait at least, but for the follower's disk: that wakes the writer.
func (s *sending) patience(now time.Time) time.Duration {
	until := time.Hour
	if wait := s.held.Sub(now); len(s.hungry) > 0 && wait > 0 {
		until = wait
	}
	if len(s.resting) > 0 {
		s.push.mu.Lock()
		defer s.push.mu.Unlock()
		for _, p := range s.resting {
			until = min(until, max(0, p.retryAt.Sub(now)))
		}
	}
	return until
}

// roomy tells whether there is room for what the writer waits for.
func (s *sending) roomy() bool {
	under := s.underWay.Load()
	return under == 0 || s.window-under >= s.need.Load()
}

// frame appends a small frame to the write.
func (s *sending) frame(h header, body func([]byte) []byte) {
	at := len(s.arena)
	s.arena = appendFrame(s.arena, h, body)
	s.pieces = append(s.pieces, s.arena[at:])
	s.push.counts.FramesOut.Add(1)
}

// control sends what is asked of the follower.
func (s *sending) control(j job) {
	h := header{kind: j.ask, number: j.number, epoch: j.p.epoch}
	switch j.ask {
	case kindOpen:
		m := open{j.p.key, max(0, j.p.source.LogStartOffset())}
		s.frame(h, m.append)
	case kindMore:
		s.frame(h, func(dst []byte) []byte { return order.AppendUint32(dst, uint32(j.to)) })
	case kindTruncate, kindReset:
		if j.ask == kindReset {
			s.push.counts.Resets.Add(1)
		} else {
			s.push.counts.Truncations.Add(1)
		}
		s.frame(h, func(dst []byte) []byte { return order.AppendUint64(dst, uint64(j.to)) })
	}
}

// advance sends a partition's next records, or notes that its watermarks are to be told.
func (s *sending) advance(j job, now time.Time) {
	p := j.p
	end := p.source.LogEndOffset()
	if p.sent >= end {
		s.caughtUp(j)
		if !p.marked && (p.source.HighWatermark() != p.markSent || p.source.LogStartOffset() != p.startSent) {
			p.marked = true
			s.marks = append(s.marks, mark{p, j.number})
		}
		return
	}
	if s.starving.Load() || s.held.After(now) {
		s.setAside(p)
		return
	}
	n, need, err := s.view(p, end)
	if err == nil && n == 0 {
		s.push.counts.Starved.Add(1)
		s.need.Store(need)
		s.starving.Store(true)
		if s.setAside(p); s.roomy() { // it has become so meanwhile, and nobody has said so
			s.lane.signal()
		}
		return
	}
	var next int64
	if err == nil {
		next, err = s.appendFrame(j)
	}
	if err != nil {
		s.views[s.viewCount].Release()
		s.failed(j, now, err)
		return
	}
	s.viewCount++
	s.bytes += n
	s.underWay.Add(cost(n))
	if s.lane.isBulk() {
		if wait := s.push.cfg.Throttle(n); wait > 0 {
			s.held = now.Add(wait)
		}
	}
	s.moved(j, now, n, next, end)
}

// view fills the next view with p's next records: a turn's worth, or what there is room for, or one batch. It gives
// 0 when there is no room, and how much is needed.
func (s *sending) view(p *Partition, end int64) (n int, need int64, err error) {
	v := &s.views[s.viewCount]
	turn, under := s.push.cfg.TurnBytes, s.underWay.Load()
	need = min(cost(turn), s.window/2) // less would make many small frames of what is many records
	room := s.window - under
	if under > 0 && room < need {
		return 0, need, nil
	}
	most := int(min(int64(turn), room*sizeSteps/(sizeSteps+1))) // buffers are larger than what is in them
	if n, err = p.source.View(v, p.sent, end, most, false); n > 0 || err != nil {
		return n, 0, err
	}
	// The first batch is larger than that.
	if n, err = p.source.View(v, p.sent, end, most, true); err != nil {
		return 0, 0, err
	}
	if n == 0 {
		return 0, 0, fmt.Errorf("%w: no batch at offset %d of a log that ends at %d", ErrDiverged, p.sent, end)
	}
	if need = cost(n); under > 0 && need > room {
		v.Release()
		return 0, need, nil
	}
	return n, 0, nil
}

// appendFrame makes an APPEND of what is in the next view.
func (s *sending) appendFrame(j job) (next int64, err error) {
	p, v := j.p, &s.views[s.viewCount]
	size := 0
	for _, piece := range v.Pieces {
		size += len(piece)
	}
	mark, start := p.source.HighWatermark(), p.source.LogStartOffset()
	var head [appendHead]byte
	order.PutUint64(head[:], uint64(p.sent))
	order.PutUint64(head[8:], uint64(max(0, mark)))
	order.PutUint64(head[16:], uint64(max(0, start)))
	first, next, sum, err := walk(v.Pieces, checksum(0, head[:]))
	if err != nil {
		return 0, err
	}
	if first < p.sent {
		return 0, fmt.Errorf("%w: a batch begins at %d, the follower's log ends at %d", ErrDiverged, first, p.sent)
	}
	at := len(s.arena)
	s.arena = append(s.arena, make([]byte, headerSize)...)
	putHeader(s.arena[at:], header{appendHead + size, kindAppend, j.number, p.epoch, sum})
	s.arena = append(s.arena, head[:]...)
	s.pieces = append(append(s.pieces, s.arena[at:]), v.Pieces...)
	p.markSent, p.startSent = mark, start
	c := &s.push.counts
	c.FramesOut.Add(1)
	c.AppendFrames.Add(1)
	c.AppendBytes.Add(int64(size))
	return next, nil
}

// moved notes what has been sent of a partition, and whose turn it is.
func (s *sending) moved(j job, now time.Time, n int, next, end int64) {
	u, p := s.push, j.p
	needBulk := false
	u.mu.Lock()
	current := p.number == j.number && p.stage == pushing
	if current {
		p.sent = next
	}
	if current && p.burst >= 0 {
		p.burst += int64(n)
	}
	if current && next < end {
		far := p.burst > p.far && !s.lane.isBulk()
		if needBulk = far && !u.bulk.connected; far && !needBulk {
			p.moveTo(&u.bulk)
		} else {
			u.enqueue(p)
		}
	}
	u.mu.Unlock()
	if current && next >= end {
		s.caughtUp(j)
	}
	if needBulk && now.Sub(s.needSaid) > time.Second {
		s.needSaid = now
		u.cfg.NeedBulk()
	}
}

// caughtUp notes that everything was sent; on the bulk stream the partition has no more business then.
func (s *sending) caughtUp(j job) {
	u, p := s.push, j.p
	if p.burst < 0 {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case p.number != j.number || p.stage != pushing:
	case !s.lane.isBulk():
		p.burst, p.far = -1, u.cfg.FarBytes
	case u.normal.connected:
		p.far = min(4*p.far, math.MaxInt64/4) // much may come while it moves: it is not to move to and fro
		p.moveTo(&u.normal)
	}
}

// setAside keeps a partition until there is room for its records.
func (s *sending) setAside(p *Partition) {
	s.push.mu.Lock()
	defer s.push.mu.Unlock()
	if p.listed == nil && p.lane == s.lane {
		p.listed = s.lane
		p.queued.Store(true)
		s.hungry = append(s.hungry, p)
	}
}

// failed takes a partition from the connection that cannot be read here, and tries again later.
func (s *sending) failed(j job, now time.Time, err error) {
	u, p := s.push, j.p
	u.mu.Lock()
	current, lost := p.number == j.number && p.stage == pushing, p.told
	if current {
		p.leave()
		p.rest(now)
		p.told = false
	}
	u.mu.Unlock()
	if current && lost {
		u.observer.Lost(p)
	}
	if current {
		u.observer.Failed(p, err)
	}
}

// tellCloses tells what the follower need not expect any more.
func (s *sending) tellCloses() {
	u := s.push
	u.mu.Lock()
	closes := s.lane.closes
	s.lane.closes = nil
	u.mu.Unlock()
	for _, h := range closes {
		s.frame(h, nil)
	}
}

// tellMarks tells watermarks that no APPEND has told, not too often, and when to look again.
func (s *sending) tellMarks(now time.Time) time.Duration {
	if len(s.marks) == 0 {
		return time.Hour
	}
	if wait := s.markedAt.Add(s.push.cfg.WatermarkPause).Sub(now); wait > 0 {
		return wait
	}
	at := len(s.arena)
	s.arena = append(s.arena, make([]byte, headerSize)...)
	n := 0
	for n < len(s.marks) && len(s.arena)-at < watermarkSize*maxList {
		m := s.marks[n]
		n++
		if !s.current(m) {
			continue
		}
		p := m.p
		p.marked = false
		mark, start := p.source.HighWatermark(), p.source.LogStartOffset()
		if mark != p.markSent || start != p.startSent {
			p.markSent, p.startSent = mark, start
			entry := watermark{m.number, p.epoch, max(0, mark), max(0, start)}
			s.arena = entry.append(s.arena)
		}
	}
	left := copy(s.marks, s.marks[n:])
	clear(s.marks[left:])
	s.marks = s.marks[:left]
	if len(s.arena) == at+headerSize {
		s.arena = s.arena[:at]
	} else {
		body := s.arena[at+headerSize:]
		putHeader(s.arena[at:], header{kind: kindWatermarks, length: len(body), sum: checksum(0, body)})
		s.pieces = append(s.pieces, s.arena[at:])
		s.push.counts.FramesOut.Add(1)
		s.markedAt = now
	}
	if left > 0 {
		return 0
	}
	return time.Hour
}

// current tells whether a partition is still pushed here under the number that it had. When the writer asks: until it opens
// the partition anew nobody else touches what belongs to the writer.
func (s *sending) current(m mark) bool {
	s.push.mu.Lock()
	defer s.push.mu.Unlock()
	return m.p.lane == s.lane && m.p.number == m.number && m.p.stage == pushing
}

// sent gives back what a write has held.
func (s *sending) sent() {
	for i := range s.viewCount {
		s.views[i].Release()
	}
	clear(s.pieces)
	if s.viewCount, s.bytes, s.arena, s.pieces = 0, 0, s.arena[:0], s.pieces[:0]; cap(s.arena) > 4*gatherArena {
		s.arena = nil
	}
}

// idle tells whether a bulk stream has had nothing to do for long.
func (s *sending) idle(now time.Time) bool {
	if !s.lane.isBulk() {
		return false
	}
	s.push.mu.Lock()
	defer s.push.mu.Unlock()
	if len(s.lane.byNumber) > 0 || s.lane.first != nil || len(s.resting) > 0 {
		s.usedAt = now
	}
	return now.Sub(s.usedAt) >= bulkIdle
}

// walk goes over the headers of whole batches that lie in pieces, and goes on with a checksum over what
// their own do not cover.
func walk(pieces [][]byte, sum uint32) (first, next int64, total uint32, err error) {
	const size = 27 // up to the last offset delta
	var copied [size]byte
	first = -1
	for i, off := 0, 0; i < len(pieces); {
		if off == len(pieces[i]) {
			i, off = i+1, 0
			continue
		}
		h := pieces[i][off:]
		if len(h) < size {
			n := copy(copied[:], h)
			for k := i + 1; n < size && k < len(pieces); k++ {
				n += copy(copied[n:], pieces[k])
			}
			if n < size {
				return 0, 0, 0, fmt.Errorf("%w: a view ends within a batch", ErrProtocol)
			}
			h = copied[:]
		}
		base := int64(order.Uint64(h))
		if first < 0 {
			first = base
		}
		next = base + int64(int32(order.Uint32(h[23:]))) + 1
		sum = checksum(sum, h[:prefixSize])
		for left := 12 + int(int32(order.Uint32(h[8:]))); left > 0; {
			if i == len(pieces) {
				return 0, 0, 0, fmt.Errorf("%w: a view ends within a batch", ErrProtocol)
			}
			n := min(left, len(pieces[i])-off)
			left, off = left-n, off+n
			if off == len(pieces[i]) {
				i, off = i+1, 0
			}
		}
	}
	return first, next, sum, nil
}
