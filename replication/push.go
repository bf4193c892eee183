package replication

import (
	"context"
	"time"

	"github.com/millrace/millrace/replication/peer"
	"github.com/millrace/millrace/replication/stream"
)

// push is the streams to one follower, and the goroutines that keep them connected.
type push struct {
	*stream.Push
	bulk     chan struct{} // a bulk stream is needed; capacity one
	incoming pacer         // of the follower
}

// pushTo gives the streams to a follower, and makes them when there are none.
func (r *replicator) pushTo(follower int32) *stream.Push {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.pushes[follower]; p != nil {
		return p.Push
	}
	p := &push{bulk: make(chan struct{}, 1)}
	cfg := r.config
	cfg.NeedBulk = func() {
		select {
		case p.bulk <- struct{}{}:
		default:
		}
	}
	cfg.Throttle = func(bytes int) time.Duration { return r.throttle(follower, bytes) }
	p.Push = stream.NewPush(cfg, follower, observer{r, follower})
	r.pushes[follower] = p
	if r.ctx.Err() == nil {
		r.busy.Go(func() { r.keepConnected(follower, p.Push) })
		r.busy.Go(func() { r.bulkWhenNeeded(follower, p) })
	}
	return p.Push
}

const (
	firstDial = 20 * time.Millisecond
	lastDial  = time.Second
)

// keepConnected has the normal stream connected whenever the follower can be reached. It ends with close.
func (r *replicator) keepConnected(follower int32, p *stream.Push) {
	pause := firstDial
	for r.ctx.Err() == nil {
		begun := r.now()
		r.connect(follower, peer.Push, p)
		if r.now().Sub(begun) > lastDial {
			pause = firstDial
		}
		if !sleep(r.ctx, pause) {
			return
		}
		pause = min(2*pause, lastDial)
	}
}

// bulkWhenNeeded connects the bulk stream when partitions wait for it. It ends with close.
func (r *replicator) bulkWhenNeeded(follower int32, p *push) {
	for {
		select {
		case <-p.bulk:
		case <-r.ctx.Done():
			return
		}
		r.connect(follower, peer.Bulk, p.Push)
		if !sleep(r.ctx, firstDial) {
			return
		}
	}
}

// connect pushes over one connection until that breaks.
func (r *replicator) connect(follower int32, kind peer.Kind, p *stream.Push) {
	ctx, cancel := context.WithTimeout(r.ctx, 2*lastDial)
	conn, err := r.hub.Dial(ctx, follower, kind)
	cancel()
	if err == nil {
		err = p.Run(r.ctx, kind == peer.Bulk, conn)
	}
	if err != nil && r.ctx.Err() == nil {
		r.log.Debug("a stream to a follower has ended, or was not begun", "follower", follower, "kind", kind.String(), "error", err)
	}
}

// sleep waits, and returns false when ctx has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
