package stream

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/segment"
)

// Run pushes over a connection until it breaks or ctx ends, and closes it; each of the two streams may have one at a time. A
// bulk stream that nobody needs ends with nil after ten seconds, any other with an error. It blocks, and has
// one more goroutine meanwhile, which has ended when it returns.
func (u *Push) Run(ctx context.Context, bulk bool, conn Conn) error {
	l := &u.normal
	if bulk {
		l = &u.bulk
	}
	defer conn.Close()
	if !l.begin() {
		return errors.New("stream: there is a connection already")
	}
	u.counts.Connections.Add(1)
	ctx, cancel := context.WithCancelCause(ctx)
	closeConn := context.AfterFunc(ctx, func() { _ = conn.Close() })
	s := &sending{lane: l, push: u, wire: newWire(conn, &u.cfg, &u.counts), ctx: ctx, ready: make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		cancel(s.read())
	}()
	err := s.write()
	cancel(err)
	closeConn()
	_ = conn.Close()
	<-done
	for i := range s.views {
		s.views[i].Release()
	}
	for _, p := range l.end() {
		u.observer.Lost(p)
	}
	l.release()
	if cause := context.Cause(ctx); !errors.Is(cause, errIdle) {
		return cause
	}
	return nil
}

// errIdle ends a bulk stream that is not needed.
var errIdle = errors.New("stream: bulk stream is not needed")

const bulkIdle = 10 * time.Second

// sending is the leader's side of one connection: a writer, which is who calls write, and a reader.
type sending struct {
	lane  *lane
	push  *Push
	wire  *wire
	ctx   context.Context
	ready chan struct{} // closed when the follower has answered

	// Set by the reader before ready is closed.
	peer   hello
	window int64

	underWay atomic.Int64 // bytes of APPENDs, by cost, that the follower has not given back
	starving atomic.Bool  // the writer waits for that to become less
	need     atomic.Int64 // by this much at least

	// Of the writer.
	hungry   []*Partition // they wait for the window
	resting  []*Partition // they wait for their retryAt
	held     time.Time    // the throttle has nothing sent before
	marks    []mark       // watermarks to be told
	markedAt time.Time
	needSaid time.Time
	usedAt   time.Time // a bulk stream had a partition

	// One write: what goes out together.
	arena     []byte
	pieces    [][]byte
	views     [maxViews]segment.View
	viewCount int
	bytes     int // of batches

	events []ackEvent // of the reader, used again
}

type mark struct {
	p      *Partition
	number uint32
}

const (
	maxViews    = 64
	gatherBytes = 1 << 20  // of batches in one write, about
	gatherArena = 64 << 10 // of everything else
)

// write writes until the connection ends.
func (s *sending) write() error {
	cfg := &s.push.cfg
	me := hello{version: version, bulk: s.lane.isBulk(), broker: cfg.Self.Broker, brokerEpoch: cfg.Self.BrokerEpoch, cluster: cfg.Self.Cluster}
	if err := s.wire.write([][]byte{appendFrame(nil, header{kind: kindHello}, me.append)}); err != nil {
		return err
	}
	select {
	case <-s.ready:
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
	s.lane.open()
	wrote := cfg.Now()
	s.usedAt = wrote
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := cfg.Now()
		until := s.gather(now)
		if len(s.arena) == 0 && now.Sub(wrote) >= cfg.Heartbeat {
			s.frame(header{kind: kindHeartbeat}, nil)
		}
		if len(s.arena) > 0 {
			err := s.wire.write(s.pieces)
			s.sent()
			if err != nil {
				return err
			}
			wrote = now
			continue
		}
		if s.idle(now) {
			return errIdle
		}
		timer.Reset(min(until, wrote.Add(cfg.Heartbeat).Sub(now)))
		select {
		case <-s.lane.wake:
		case <-timer.C:
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		}
	}
}
