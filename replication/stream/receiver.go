package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/batch"
)

// Receiver is a follower's side of all streams that come to a broker. All methods may be called concurrently.
type Receiver struct {
	cfg    Config
	host   Host
	counts Counts

	mu     sync.Mutex // guards what follows; a leaf
	owners map[Key]*inbound
	given  int64 // bytes of windows
}

// NewReceiver makes a receiver; it starts nothing.
func NewReceiver(cfg Config, host Host) *Receiver {
	cfg.setDefaults()
	return &Receiver{cfg: cfg, host: host, owners: make(map[Key]*inbound)}
}

// Counts is what came over all connections so far.
func (r *Receiver) Counts() *Counts { return &r.counts }

// Fence ends what is received of a partition under epochs below epoch: nothing of it is appended after Fence has returned
// without an error. It blocks until what is on its way to the disk is there, or ctx ends; the refusal holds then,
// too. To be called after Host.Follow has begun to refuse those epochs. For a partition that is removed, the epoch
// is math.MaxInt32.
func (r *Receiver) Fence(ctx context.Context, key Key, epoch int32) error {
	r.mu.Lock()
	p := r.owners[key]
	r.mu.Unlock()
	if p == nil || p.epoch >= epoch {
		return nil
	}
	return p.revoke(ctx, state{status: statusLaterEpoch, laterEpoch: epoch})
}

// Serve receives what a leader pushes over a connection until it breaks or ctx ends, and closes it. The error says why,
// and is never nil. It blocks, and has a few more goroutines meanwhile, which have ended when it returns; appends that are
// on their way to the disk may end later.
func (r *Receiver) Serve(ctx context.Context, conn Conn) error {
	defer conn.Close()
	r.counts.Connections.Add(1)
	ctx, cancel := context.WithCancelCause(ctx)
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	s := &receiving{r: r, wire: newWire(conn, &r.cfg, &r.counts), ctx: ctx, numbers: make(map[uint32]*inbound), wake: make(chan struct{}, 1)}
	err := s.begin()
	if err == nil {
		s.running.Go(func() { cancel(s.write()) })
		err = s.read()
	}
	cancel(err)
	_ = conn.Close()
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.running.Wait()
	s.end()
	return context.Cause(ctx)
}

// receiving is the follower's side of one connection: a reader, which is who calls Serve, a writer of answers, and
// workers for what the disk has to do beside appends.
type receiving struct {
	r       *Receiver
	wire    *wire
	ctx     context.Context
	peer    hello
	window  int64
	running sync.WaitGroup
	wake    chan struct{} // capacity 1: there is something for the writer

	// Of the reader.
	numbers   map[uint32]*inbound
	last      uint32 // number given out
	busyUntil time.Time

	mu       sync.Mutex // guards what follows, and what inbound says it guards; a leaf
	underWay int64      // bytes, by cost, that were received and not given back
	credit   int64      // of those, to be given back
	acks     []*inbound // with more on the disk than was told
	answers  []answer
	dead     []uint32 // numbers that the reader may forget
	chores   []chore
	workers  int
	ended    bool // no worker is begun any more
}

// answer is a STATE to be sent.
type answer struct {
	number uint32
	epoch  int32
	state  state
}

const (
	maxWorkers = 8
	leastRoom  = 1 << 20
)

// begin takes the leader's HELLO, and a window from the budget.
func (s *receiving) begin() error {
	m, err := readHello(s.wire)
	if err != nil {
		return err
	}
	if m.cluster != s.r.cfg.Self.Cluster || m.broker == s.r.cfg.Self.Broker {
		return fmt.Errorf("%w: broker %d of cluster %q came to broker %d of %q", ErrStranger, m.broker, m.cluster, s.r.cfg.Self.Broker, s.r.cfg.Self.Cluster)
	}
	s.peer = m
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	s.window = min(s.r.cfg.WindowBytes, s.r.cfg.BudgetBytes-s.r.given)
	if s.window < min(leastRoom, s.r.cfg.WindowBytes) {
		s.window = 0
		return ErrNoRoom
	}
	s.r.given += s.window
	return nil
}

// end gives back what the connection had. Appends may still be on their way to the disk.
func (s *receiving) end() {
	for _, p := range s.numbers {
		s.mu.Lock()
		p.stage = gone
		idle := p.users == 0
		s.mu.Unlock()
		if idle {
			s.r.forget(p)
		}
	}
	s.r.mu.Lock()
	s.r.given -= s.window
	s.r.mu.Unlock()
}

// forget is for a partition that is received no more and of which nothing is under way.
func (r *Receiver) forget(p *inbound) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.owners[p.key] == p {
		delete(r.owners, p.key)
	}
}

// read takes frames until the connection ends.
func (s *receiving) read() error {
	for {
		h, err := s.wire.next()
		if err != nil {
			return err
		}
		s.bury()
		if h.kind == kindAppend {
			err = s.append(h)
		} else {
			err = s.control(h)
		}
		if err != nil {
			return err
		}
	}
}

// bury forgets numbers that have been refused.
func (s *receiving) bury() {
	s.mu.Lock()
	dead := s.dead
	s.dead = nil
	s.mu.Unlock()
	for _, number := range dead {
		delete(s.numbers, number)
	}
}

// control takes a frame without records.
func (s *receiving) control(h header) error {
	switch h.kind {
	case kindOpen, kindMore, kindTruncate, kindReset, kindWatermarks, kindClose, kindHeartbeat:
	default:
		return fmt.Errorf("%w: a leader sent a frame of kind %d", ErrProtocol, h.kind)
	}
	body, err := s.wire.small(h)
	if err != nil {
		return err
	}
	switch h.kind {
	case kindHeartbeat:
		return nil
	case kindWatermarks:
		return readWatermarks(body, s.watermark)
	case kindOpen:
		return s.open(h, body)
	}
	p := s.numbers[h.number]
	if p == nil { // refused meanwhile
		return nil
	}
	if p.epoch != h.epoch {
		return s.otherEpoch(h)
	}
	switch h.kind {
	case kindClose:
		delete(s.numbers, h.number)
		p.close()
	case kindMore:
		below := int32(order.Uint32(body))
		s.mu.Lock()
		ready := p.stage == receivable
		s.mu.Unlock()
		if ready {
			m := stateOf(p.sink, below)
			s.mu.Lock()
			s.answer(p, m)
			s.mu.Unlock()
		}
	default:
		to := int64(order.Uint64(body))
		if to < 0 {
			return fmt.Errorf("%w: TRUNCATE to %d", ErrProtocol, to)
		}
		return s.busy(p, chore{p: p, kind: h.kind, to: to})
	}
	return nil
}

// otherEpoch refuses a frame that speaks of another epoch than its partition was opened with.
func (s *receiving) otherEpoch(h header) error {
	s.r.counts.Refused.Add(1)
	return fmt.Errorf("%w: a frame of kind %d is of leader epoch %d, its partition was opened with another", ErrProtocol, h.kind, h.epoch)
}

// open makes a partition of an OPEN; the answer comes when what is under way for it elsewhere has ended.
func (s *receiving) open(h header, body []byte) error {
	var m open
	if err := m.read(body); err != nil {
		return err
	}
	if h.number <= s.last || len(s.numbers) >= s.r.cfg.MaxPartitions || h.epoch < 0 {
		return fmt.Errorf("%w: OPEN with number %d and epoch %d, of %d partitions", ErrProtocol, h.number, h.epoch, len(s.numbers))
	}
	s.last = h.number
	p := &inbound{s: s, key: m.key, number: h.number, epoch: h.epoch, stage: busy}
	s.numbers[h.number] = p
	s.work(chore{p: p, kind: kindOpen})
	return nil
}

// busy hands a partition to a worker; the leader sends nothing for it before the answer.
func (s *receiving) busy(p *inbound, c chore) error {
	s.mu.Lock()
	if p.stage == gone {
		s.mu.Unlock()
		return nil
	}
	bad := p.stage != receivable || p.appends > 0
	p.stage = busy
	s.mu.Unlock()
	if bad {
		return fmt.Errorf("%w: a frame of kind %d out of turn", ErrProtocol, c.kind)
	}
	s.work(c)
	return nil
}

// watermark takes what the leader has committed, and where its log starts.
func (s *receiving) watermark(m watermark) error {
	p := s.numbers[m.number]
	if p == nil {
		return nil
	}
	if p.epoch != m.epoch {
		return s.otherEpoch(header{kind: kindWatermarks, epoch: m.epoch})
	}
	s.mu.Lock()
	if p.stage != receivable {
		s.mu.Unlock()
		return nil
	}
	p.highWatermark, p.wantStart = max(p.highWatermark, m.highWatermark), max(p.wantStart, m.logStart)
	mark := min(p.highWatermark, p.durable)
	move := p.startToMove()
	s.mu.Unlock()
	p.sink.SetHighWatermark(mark)
	if move {
		s.work(chore{p: p, kind: kindWatermarks})
	}
	return nil
}

// append takes an APPEND: nothing of it goes on that is not what the leader has sent.
func (s *receiving) append(h header) error {
	var head [appendHead]byte
	if _, err := io.ReadFull(s.wire.in, head[:]); err != nil {
		return err
	}
	n := h.length - appendHead
	from, mark, start := int64(order.Uint64(head[:])), int64(order.Uint64(head[8:])), int64(order.Uint64(head[16:]))
	p := s.numbers[h.number]
	if p != nil && p.epoch != h.epoch {
		return s.otherEpoch(h)
	}
	taken, err := s.admit(p, from, cost(n))
	if err != nil {
		return err
	}
	if !taken {
		s.r.counts.Discarded.Add(1)
		_, err := s.wire.in.Discard(n)
		s.giveBack(cost(n))
		return err
	}
	a := takeArrival(p, n)
	next, err := s.receive(a, from, h, head[:])
	if err != nil {
		a.drop()
		return err
	}
	s.mu.Lock()
	p.expected = next
	p.highWatermark, p.wantStart = max(p.highWatermark, mark), max(p.wantStart, start)
	s.mu.Unlock()
	s.r.counts.AppendFrames.Add(1)
	s.r.counts.AppendBytes.Add(int64(n))
	s.store(a, from)
	return nil
}

// admit notes that records are under way, and tells whether they belong to what is received.
func (s *receiving) admit(p *inbound, from, cost int64) (taken bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.underWay > 0 && s.underWay+cost > s.window {
		return false, fmt.Errorf("%w: %d bytes under way, of %d", ErrProtocol, s.underWay+cost, s.window)
	}
	s.underWay += cost
	switch {
	case p == nil || p.stage == gone:
		return false, nil
	case p.stage == busy:
		return false, fmt.Errorf("%w: APPEND out of turn", ErrProtocol)
	case from != p.expected:
		return false, fmt.Errorf("%w: APPEND from offset %d, %d follows", ErrProtocol, from, p.expected)
	}
	p.users++
	p.appends++
	return true, nil
}

// receive reads the batches of an APPEND and checks each byte; next is the offset behind them.
func (s *receiving) receive(a *arrival, from int64, h header, head []byte) (next int64, err error) {
	b := a.buf.b
	if _, err := io.ReadFull(s.wire.in, b); err != nil {
		return 0, err
	}
	next, sum, err := checkBatches(b, checksum(0, head), from, h.epoch)
	if err == nil && sum != h.sum {
		err = errors.New("the frame's checksum is another")
	}
	if err != nil {
		return 0, fmt.Errorf("%w: damaged APPEND: %w", ErrProtocol, err)
	}
	return next, nil
}

// checkBatches checks that b is whole batches, undamaged, rising from an offset on and of no later epoch, and goes on with a
// checksum over what their own do not cover.
func checkBatches(b []byte, sum uint32, from int64, epoch int32) (next int64, total uint32, err error) {
	for next = from; len(b) > 0; {
		h, err := batch.Check(b)
		if err != nil {
			return 0, 0, err
		}
		if h.BaseOffset < next || h.NextOffset() <= h.BaseOffset || h.PartitionLeaderEpoch > epoch {
			return 0, 0, fmt.Errorf("a batch of offsets %d to %d and epoch %d, where %d of epoch %d at most belongs", h.BaseOffset, h.LastOffset(), h.PartitionLeaderEpoch, next, epoch)
		}
		sum = checksum(sum, b[:prefixSize])
		next, b = h.NextOffset(), b[h.Size():]
	}
	return next, sum, nil
}

// store hands batches to the log. When its queue stays full the partition is refused, and for a moment others
// are not waited for either, so that the leader is heard.
func (s *receiving) store(a *arrival, from int64) {
	patience := s.r.cfg.QueuePatience
	if s.r.cfg.Now().Before(s.busyUntil) {
		patience = time.Millisecond
	}
	p := a.p
	done := a.Done
	a.Append = segment.Append{Batches: a.buf.b, LeaderEpoch: p.epoch, Keep: true, Follows: true, From: from, Patience: patience, Done: done}
	if err := p.sink.Append(s.ctx, &a.Append); err != nil {
		if errors.Is(err, segment.ErrQueueFull) {
			s.busyUntil = s.r.cfg.Now().Add(s.r.cfg.QueuePatience)
		}
		a.done(segment.Result{Err: err})
	}
}

// giveBack notes memory that is free again.
func (s *receiving) giveBack(cost int64) {
	s.mu.Lock()
	s.credit += cost
	s.mu.Unlock()
	s.signal()
}

func (s *receiving) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
