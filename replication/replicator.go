package replication

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/replication/isr"
	"github.com/millrace/millrace/replication/liveness"
	"github.com/millrace/millrace/replication/peer"
	"github.com/millrace/millrace/replication/stream"
)

// replicator is the engine's Replicator in a cluster: it knows which partitions this node leads, has them pushed to their followers,
// and takes what other leaders push.
type replicator struct {
	engine   *engine.Engine
	hub      *peer.Hub
	broker   *liveness.Broker
	self     int32
	now      func() time.Time
	log      *slog.Logger
	config   stream.Config
	receiver *stream.Receiver
	proposer *proposer

	ctx         context.Context // ends with close
	cancel      context.CancelFunc
	unsubscribe func()
	busy        sync.WaitGroup

	led   sync.Map // *engine.Partition → *leading
	byKey sync.Map // stream.Key → *leading: whom a stream speaks of
	clock clock

	outgoing    pacer        // to followers that are far behind
	failureSaid atomic.Int64 // when it was last said that something cannot be copied

	mu     sync.Mutex // guards the fields below; never held across a call
	pushes map[int32]*push
	barred []int32 // brokers that may not be in sync
	barsAt uint64  // version of the image that says so
}

func newReplicator(n *Node, e *engine.Engine) *replicator {
	r := &replicator{
		engine: e, hub: n.hub, broker: n.broker, self: n.opts.Config.NodeID, now: n.opts.Now, log: n.log,
		clock: clock{wake: make(chan struct{}, 1)}, pushes: map[int32]*push{},
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.config = stream.Config{
		Self:   stream.Identity{Cluster: e.ClusterID(), Broker: r.self, BrokerEpoch: n.broker.Epoch()},
		Logger: n.log, Now: n.opts.Now,
	}
	r.receiver = stream.NewReceiver(r.config, r)
	r.proposer = newProposer(r)
	r.unsubscribe = e.Catalog().Subscribe(func(_, image *catalog.Image) { r.brokers(image) })
	r.brokers(e.Image())
	r.busy.Go(r.proposer.run)
	r.busy.Go(r.keepTime)
	r.busy.Go(r.keepLease)
	accept := func(ctx context.Context, c *peer.Conn) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(r.ctx, cancel)()
		if err := r.receiver.Serve(ctx, c); err != nil && ctx.Err() == nil {
			r.log.Debug("a stream from a leader has ended", "leader", c.Peer().NodeID, "error", err)
		}
	}
	n.hub.Handle(peer.Push, accept)
	n.hub.Handle(peer.Bulk, accept)
	return r
}

// close ends all streams. It may be called again.
func (r *replicator) close() {
	r.hub.Handle(peer.Push, nil)
	r.hub.Handle(peer.Bulk, nil)
	r.unsubscribe()
	r.mu.Lock()
	r.cancel() // with the lock: nothing is started behind it
	r.mu.Unlock()
	r.busy.Wait()
}

// start runs f in a goroutine, which close waits for; not when that was called. It does not block.
func (r *replicator) start(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() == nil {
		r.busy.Go(f)
	}
}

// bounds are the settings that decide who is in sync.
func (r *replicator) bounds(p *engine.Partition) isr.Config {
	c := isr.DefaultConfig()
	c.MaxLag = r.engine.Config().ReplicaLagTimeMax
	c.MinInSync = p.Config().MinInsyncReplicas
	return c
}

// Appended moves the high watermark if that is all, and wakes the streams.
func (r *replicator) Appended(p *engine.Partition, end int64) {
	if l, leads := r.led.Load(p); leads {
		l.(*leading).appended(end)
	}
}

// Changed begins to lead, leads on, or follows.
func (r *replicator) Changed(p *engine.Partition, role engine.Role) {
	key := stream.Key{TopicID: p.TopicID(), Partition: p.Index()}
	have, leads := r.led.Load(p)
	switch {
	case role.Leads && !leads:
		r.fence(key, role.Placed.LeaderEpoch)
		l := &leading{r: r, p: p, key: key, copies: map[int32]*stream.Partition{}}
		r.byKey.Store(key, l) // before a follower can answer
		r.led.Store(p, l)     // what is appended before assume counts there
		l.assume(role.Placed)
	case role.Leads:
		have.(*leading).assume(role.Placed)
	case leads:
		r.drop(p, have.(*leading))
	default:
		r.fence(key, role.Placed.LeaderEpoch)
	}
}

// fence refuses what leaders of earlier epochs send. It does not wait for what is under way: appends that are queued stay, in front of
// what this node takes as a leader, the log refuses others, and whoever leads or follows waits for a truncation.
func (r *replicator) fence(key stream.Key, epoch int32) {
	ended, cancel := context.WithCancel(r.ctx)
	cancel()
	_ = r.receiver.Fence(ended, key, epoch)
}

// Removed forgets a partition.
func (r *replicator) Removed(p *engine.Partition) {
	if have, leads := r.led.Load(p); leads {
		r.drop(p, have.(*leading))
	}
	r.fence(stream.Key{TopicID: p.TopicID(), Partition: p.Index()}, math.MaxInt32)
}

func (r *replicator) drop(p *engine.Partition, l *leading) {
	r.led.Delete(p)
	r.byKey.CompareAndDelete(l.key, l)
	l.end()
}

// brokers takes over who may be in sync, unless what it was told last is newer. It is called on the metadata's goroutine, and once before.
func (r *replicator) brokers(image *catalog.Image) {
	barred := barredIn(image)
	r.mu.Lock()
	same := slices.Equal(barred, r.barred) || image.Version() < r.barsAt
	if !same {
		r.barred = barred
	}
	r.barsAt = max(r.barsAt, image.Version())
	r.mu.Unlock()
	if same {
		return
	}
	r.led.Range(func(_, v any) bool {
		v.(*leading).assume(nil)
		return true
	})
}

func (r *replicator) bars() []int32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.barred
}

func barredIn(image *catalog.Image) []int32 {
	var barred []int32
	for _, b := range image.Brokers() {
		if !b.Active() {
			barred = append(barred, b.ID)
		}
	}
	return barred
}

// The streams tell what has become of what they push.

// Acked says that a follower has everything up to end on its disk.
func (o observer) Acked(p *stream.Partition, followerEpoch, end int64) {
	o.step(p, func(l *isr.Leader, now time.Time) { l.Acked(o.follower, followerEpoch, end, now) })
}

// Lost says that the connection is broken.
func (o observer) Lost(p *stream.Partition) {
	o.step(p, func(l *isr.Leader, now time.Time) { l.Lost(o.follower, now) })
}

// Fenced says that a follower knows of a later leader: the catalogue will say so soon.
func (o observer) Fenced(p *stream.Partition, epoch int32) {
	if epoch == math.MaxInt32 {
		return // its replica is being removed
	}
	o.r.log.Info("a follower knows of a later leader of a partition that this node believes to lead", "partition", o.name(p), "follower", o.follower, "epoch", p.Epoch(), "known", epoch)
}

// Failed tells the operator that a partition cannot be pushed at the moment.
func (o observer) Failed(p *stream.Partition, err error) {
	if errors.Is(err, stream.ErrNotFollower) || errors.Is(err, stream.ErrUnknownPartition) {
		return // it has not heard of it yet
	}
	const rarely = 10 * time.Second
	now, said := o.r.now().UnixNano(), o.r.failureSaid.Load()
	if now-said >= int64(rarely) && o.r.failureSaid.CompareAndSwap(said, now) {
		o.r.log.Warn("a partition cannot be copied to a follower, which is tried again; there may be more", "partition", o.name(p), "follower", o.follower, "error", err)
	}
}

// observer hears of the streams to one follower.
type observer struct {
	r        *replicator
	follower int32
}

// step changes what is known of what a stream's partition belongs to; nothing when this node does not lead it any more, or anew.
func (o observer) step(p *stream.Partition, change func(l *isr.Leader, now time.Time)) {
	have, found := o.r.byKey.Load(p.Key())
	if !found {
		return
	}
	l := have.(*leading)
	l.step(func(now time.Time) {
		if l.copies[o.follower] == p {
			change(l.state, now)
		}
	})
}

func (o observer) name(p *stream.Partition) string {
	if have, found := o.r.byKey.Load(p.Key()); found {
		return have.(*leading).p.Name()
	}
	return catalog.TopicID(p.Key().TopicID).String()
}

// Follow gives a stream the log of a partition that its leader leads.
func (r *replicator) Follow(ctx context.Context, key stream.Key, leader, epoch int32) (stream.Sink, error) {
	p, err := r.engine.Partition(key.TopicID, key.Partition)
	switch {
	case errors.Is(err, engine.ErrNotHere):
		return nil, stream.ErrUnknownPartition
	case err != nil:
		return nil, err
	}
	// What an earlier leader has begun to cut, and did not wait for, must not be taken for what is here.
	if cut := p.Log().Truncation(); cut != nil {
		select {
		case <-cut:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	switch placed := p.Role().Placed; {
	case placed.LeaderEpoch > epoch:
		return nil, &stream.EpochError{Current: placed.LeaderEpoch}
	case placed.LeaderEpoch < epoch || placed.Leader != leader:
		return nil, stream.ErrNotFollower
	}
	if _, leads := r.byKey.Load(key); leads {
		return nil, stream.ErrNotFollower // it is about to hear that it does no longer
	}
	return follower{p, epoch}, nil
}
