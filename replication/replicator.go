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

	led   sync.Map      // *engine.Partition → *leading
	byKey sync.Map      // stream.Key → *leading: whom a stream speaks of
	timed chan *leading // those that time changes from now on

	outgoing    pacer        // to followers that are far behind
	failureSaid atomic.Int64 // when it was last said that something cannot be copied

	mu     sync.Mutex // guards the fields below; never held across a call
	pushes map[int32]*push
	barred []int32 // brokers that may not be in sync
}

func newReplicator(n *Node, e *engine.Engine) *replicator {
	r := &replicator{
		engine: e, hub: n.hub, broker: n.broker, self: n.opts.Config.NodeID, now: n.opts.Now, log: n.log,
		timed: make(chan *leading, 1024), pushes: map[int32]*push{},
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.config = stream.Config{
		Self:   stream.Identity{Cluster: e.ClusterID(), Broker: r.self, BrokerEpoch: n.broker.Epoch()},
		Logger: n.log, Now: n.opts.Now,
	}
	r.receiver = stream.NewReceiver(r.config, r)
	r.proposer = newProposer(r)
	image := e.Image()
	r.barred = barredIn(image)
	r.unsubscribe = e.Catalog().Subscribe(func(_, image *catalog.Image) { r.brokers(image) })
	r.busy.Go(r.proposer.run)
	r.busy.Go(r.keepTime)
	r.busy.Go(r.keepLease)
	accept := func(ctx context.Context, c *peer.Conn) {
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
	r.cancel()
	r.busy.Wait()
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
		l := &leading{r: r, p: p, key: key, copies: map[int32]*stream.Partition{}}
		r.byKey.Store(key, l) // before a follower can answer
		l.assume(role.Placed, r.bars())
		r.led.Store(p, l)
		l.appended(p.LogEndOffset()) // what came meanwhile was told to nobody
	case role.Leads:
		have.(*leading).assume(role.Placed, r.bars())
	case leads:
		r.drop(p, have.(*leading))
	}
	r.fence(key, role.Placed.LeaderEpoch)
}

// fence refuses what leaders of earlier epochs send. It does not wait for what is under way: the log refuses that, too.
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

// brokers takes over who may be in sync. It is called on the metadata's goroutine.
func (r *replicator) brokers(image *catalog.Image) {
	barred := barredIn(image)
	r.mu.Lock()
	same := slices.Equal(barred, r.barred)
	r.barred = barred
	r.mu.Unlock()
	if same {
		return
	}
	r.led.Range(func(_, v any) bool {
		l := v.(*leading)
		l.assume(l.p.Role().Placed, barred)
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
	if l := o.leading(p); l != nil {
		l.step(func(now time.Time) { l.state.Acked(o.follower, followerEpoch, end, now) })
	}
}

// Lost says that the connection is broken.
func (o observer) Lost(p *stream.Partition) {
	if l := o.leading(p); l != nil {
		l.step(func(now time.Time) { l.state.Lost(o.follower, now) })
	}
}

// Fenced says that a follower knows of a later leader: the catalogue will say so soon.
func (o observer) Fenced(p *stream.Partition, epoch int32) {
	o.r.log.Info("a follower knows of a later leader of a partition that this node believes to lead", "partition", o.name(p), "follower", o.follower, "epoch", p.Epoch(), "known", epoch)
}

// Failed says that a partition cannot be pushed for now.
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

// leading is what a stream's partition belongs to; nil when this node does not lead it any more, or anew.
func (o observer) leading(p *stream.Partition) *leading {
	have, found := o.r.byKey.Load(p.Key())
	if !found {
		return nil
	}
	l := have.(*leading)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.copies[o.follower] != p {
		return nil
	}
	return l
}

func (o observer) name(p *stream.Partition) string {
	if have, found := o.r.byKey.Load(p.Key()); found {
		return have.(*leading).p.Name()
	}
	return catalog.TopicID(p.Key().TopicID).String()
}

// Follow gives a stream the log of a partition that its leader leads.
func (r *replicator) Follow(_ context.Context, key stream.Key, leader, epoch int32) (stream.Sink, error) {
	p, err := r.engine.Partition(key.TopicID, key.Partition)
	switch {
	case errors.Is(err, engine.ErrNotHere):
		return nil, stream.ErrUnknownPartition
	case err != nil:
		return nil, err
	}
	switch placed := p.Role().Placed; {
	case placed.LeaderEpoch > epoch:
		return nil, &stream.EpochError{Current: placed.LeaderEpoch}
	case placed.LeaderEpoch < epoch || placed.Leader != leader:
		return nil, stream.ErrNotFollower
	}
	return follower{p, epoch}, nil
}

// keepTime lets time pass for those partitions that it changes, while there are any. It ends with close.
func (r *replicator) keepTime() {
	const often = 250 * time.Millisecond
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var watched []*leading
	for {
		select {
		case l := <-r.timed:
			if watched = append(watched, l); len(watched) == 1 {
				timer.Reset(often)
			}
			continue
		case <-timer.C:
		case <-r.ctx.Done():
			return
		}
		now := r.now()
		all := watched
		watched = watched[:0]
		for _, l := range all {
			l.watched.Store(false)
			l.mu.Lock()
			due := !l.ended && !l.state.Deadline(now).IsZero()
			l.mu.Unlock()
			if due && !l.watched.Swap(true) {
				watched = append(watched, l)
			}
			l.step(func(now time.Time) { l.state.Tick(now) })
		}
		clear(all[len(watched):])
		if len(watched) > 0 {
			timer.Reset(often)
		}
	}
}

// watch has time pass for l. It does not block.
func (r *replicator) watch(l *leading) {
	select {
	case r.timed <- l:
	default:
		l.watched.Store(false) // the next step tries again
	}
}
