package liveness

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/engine/catalog"
)

// Times of the life of brokers.
const (
	// Lease is how long a broker counts as alive after a heartbeat. One whose connection is lost is asked at once, so this is for those
	// that have frozen or are cut off.
	Lease = 2 * time.Second
	// heartbeatEvery leaves room for three to get lost.
	heartbeatEvery = 500 * time.Millisecond
	proposalTime   = 5 * time.Second
	farewellTime   = 2 * time.Second // the last of a cluster to leave has nobody who takes its word
	firstPause     = 50 * time.Millisecond
	lastPause      = time.Second
)

// HeartbeatMethod is the name of the request by which brokers say that they are there: id and epoch, big endian.
const HeartbeatMethod = "heartbeat"

// Metadata is the cluster's catalogue as this room uses it.
type Metadata interface {
	Image() *catalog.Image
	Propose(ctx context.Context, cmd catalog.Command) (catalog.Result, error)
	Subscribe(fn func(old, new *catalog.Image)) (stop func())
	// Leadership is who leads the metadata, false while nobody is known to; changed is closed when that may be another.
	Leadership() (node int32, known bool, changed <-chan struct{})
}

// Peers leads to other nodes.
type Peers interface {
	Call(ctx context.Context, node int32, method string, body []byte) ([]byte, error)
}

// Broker is this node's own part: it registers, says that it is there, and takes its leave. Register, Serve and Leave are
// called once, in this order; Alive, LeaseLeft and Epoch at any time.
type Broker struct {
	meta  Metadata
	peers Peers
	self  catalog.Broker
	fresh bool
	now   func() time.Time
	log   *slog.Logger

	well    func() bool // nil: always
	epoch   atomic.Int64
	heard   atomic.Int64  // when the last heartbeat that was answered was sent, in nanoseconds of the clock
	changed chan struct{} // the image has changed; capacity one
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

// NewBroker makes the part of the node that self describes, but for what only the registration gives. fresh says that its disk has
// nothing of what a node with its id may have acknowledged.
func NewBroker(meta Metadata, peers Peers, self catalog.Broker, fresh bool, now func() time.Time, log *slog.Logger) *Broker {
	return &Broker{meta: meta, peers: peers, self: self, fresh: fresh, now: now, log: log, changed: make(chan struct{}, 1)}
}

// WellWhen gives what tells whether this node can do its work: while it cannot, and somebody else can, it has itself fenced, and is heard no
// more. It must not block. It is called before Serve.
func (b *Broker) WellWhen(well func() bool) { b.well = well }

// Register makes this node known, fenced until Serve. It tries until ctx ends: what was registered under this id before
// has to be fenced first. ErrDirInUse and ErrUnsupportedFeature of the catalogue end it at once.
func (b *Broker) Register(ctx context.Context) error {
	b.self.Fenced = true
	said := false
	return b.insist(ctx, func(ctx context.Context) error {
		result, err := b.meta.Propose(ctx, catalog.RegisterBroker{Broker: b.self, Unclean: b.fresh})
		if err == nil {
			err = result.Errors[0]
		}
		switch {
		case err == nil:
			registered, _ := result.Image.Broker(b.self.ID)
			b.epoch.Store(registered.Epoch)
			return nil
		case errors.Is(err, catalog.ErrDirInUse), errors.Is(err, catalog.ErrUnsupportedFeature), errors.Is(err, catalog.ErrInvalid):
			return final{fmt.Errorf("this node cannot register: %w", err)}
		case errors.Is(err, catalog.ErrBrokerInUse) && !said:
			said = true
			b.log.Warn("another process, or an earlier start of this one, still counts as this node: waiting until it does no longer", "node", b.self.ID)
		}
		return err
	})
}

// final is an error that trying again does not help against.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// insist calls f until it succeeds, fails for good, or ctx ends.
func (b *Broker) insist(ctx context.Context, f func(context.Context) error) error {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		attempt, cancel := context.WithTimeout(ctx, proposalTime)
		err := f(attempt)
		cancel()
		var end final
		if err == nil || errors.As(err, &end) {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
}

// Epoch is that of this node's registration.
func (b *Broker) Epoch() int64 { return b.epoch.Load() }

// Alive tells whether the metadata's leader has heard this node within its lease.
func (b *Broker) Alive() bool { return b.LeaseLeft() > 0 }

// LeaseLeft is for how long the metadata's leader will still count this node as alive if it hears nothing more. When that is not
// positive, another node may lead by now what this one believes to lead.
func (b *Broker) LeaseLeft() time.Duration {
	return Lease - time.Duration(b.now().UnixNano()-b.heard.Load())
}

// Serve has this node take part from now on: it is not fenced, or not for long, until Leave. It returns when that has been so once, or ctx ends.
func (b *Broker) Serve(ctx context.Context) error {
	running, cancel := context.WithCancel(context.Background())
	b.cancel = cancel
	stop := b.meta.Subscribe(func(_, _ *catalog.Image) { signal(b.changed) })
	b.done.Go(func() { b.heartbeats(running) })
	b.done.Go(func() {
		defer stop()
		b.stayIn(running)
	})
	return b.insist(ctx, b.unfence)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// heartbeats tells whoever leads the metadata that this node is there. It ends with ctx.
func (b *Broker) heartbeats(ctx context.Context) {
	body := binary.BigEndian.AppendUint32(nil, uint32(b.self.ID))
	body = binary.BigEndian.AppendUint64(body, uint64(b.Epoch()))
	ticker := time.NewTicker(heartbeatEvery)
	defer ticker.Stop()
	sick := false
	for {
		leader, known, changed := b.meta.Leadership()
		switch {
		case !b.fit():
			sick = true
			b.fenceSelf(ctx)
		case sick:
			sick = false
			signal(b.changed) // stayIn asks to be let in again
		}
		if known && !sick {
			sent := b.now().UnixNano()
			attempt, cancel := context.WithTimeout(ctx, Lease/2)
			if _, err := b.peers.Call(attempt, leader, HeartbeatMethod, body); err == nil {
				b.heard.Store(sent)
			}
			cancel()
		}
		select {
		case <-ticker.C:
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// decodeHeartbeat reads what heartbeats sends.
func decodeHeartbeat(body []byte) (Standing, error) {
	if len(body) != 12 {
		return Standing{}, fmt.Errorf("liveness: a heartbeat of %d bytes", len(body))
	}
	return Standing{ID: int32(binary.BigEndian.Uint32(body)), Epoch: int64(binary.BigEndian.Uint64(body[4:]))}, nil
}

// stayIn has this node unfenced whenever it was fenced although it is there. It ends with ctx.
func (b *Broker) stayIn(ctx context.Context) {
	for {
		select {
		case <-b.changed:
		case <-ctx.Done():
			return
		}
		if me, found := b.meta.Image().Broker(b.self.ID); !found || !me.Fenced || me.Epoch != b.Epoch() || !b.fit() {
			continue
		}
		if err := b.insist(ctx, b.unfence); err == nil {
			b.log.Warn("this node was fenced, since it was not heard or not well for too long, and takes part again", "node", b.self.ID)
		}
	}
}

// fit tells whether this node should take part: it is well, or nobody else is there, and clients can read from it at least.
func (b *Broker) fit() bool {
	if b.well == nil || b.well() {
		return true
	}
	return !slices.ContainsFunc(b.meta.Image().Brokers(), func(o catalog.Broker) bool { return o.ID != b.self.ID && !o.Fenced })
}

// fenceSelf has others lead what this node leads. When the metadata cannot be told, the silence is what tells.
func (b *Broker) fenceSelf(ctx context.Context) {
	me, found := b.meta.Image().Broker(b.self.ID)
	if !found || me.Fenced || me.Epoch != b.Epoch() {
		return
	}
	attempt, cancel := context.WithTimeout(ctx, Lease)
	defer cancel()
	if err := b.propose(attempt, catalog.FenceBroker{ID: b.self.ID, Epoch: b.Epoch()}); err == nil {
		b.log.Warn("this node cannot write, and has others lead what it led", "node", b.self.ID)
	}
}

func (b *Broker) unfence(ctx context.Context) error {
	if me, found := b.meta.Image().Broker(b.self.ID); found && !me.Fenced && me.Epoch == b.Epoch() {
		return nil
	}
	return b.propose(ctx, catalog.UnfenceBroker{ID: b.self.ID, Epoch: b.Epoch()})
}

func (b *Broker) propose(ctx context.Context, cmd catalog.Command) error {
	result, err := b.meta.Propose(ctx, cmd)
	if err == nil {
		err = result.Errors[0]
	}
	if errors.Is(err, catalog.ErrStaleBrokerEpoch) {
		return final{fmt.Errorf("another process has registered as this node: %w", err)}
	}
	return err
}

// Leave gives this node's leaderships to others, as far as there are any, and ends its part. It waits until ctx ends.
func (b *Broker) Leave(ctx context.Context) error {
	if b.cancel == nil {
		return nil
	}
	attempt, cancel := context.WithTimeout(ctx, farewellTime)
	defer cancel()
	err := b.propose(attempt, catalog.StopBroker{ID: b.self.ID, Epoch: b.Epoch()})
	b.cancel()
	b.done.Wait()
	return err
}
