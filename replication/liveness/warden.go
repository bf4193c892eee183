package liveness

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/replication/peer"
)

// PingMethod is the name of the request that asks a node who it is: the answer is its incarnation.
const PingMethod = "ping"

// Warden fences brokers that have gone, while this node leads the metadata. Heard and Lost may be called at any time, by anybody.
type Warden struct {
	meta  Metadata
	peers Peers
	self  int32
	own   [16]byte // incarnation of this process
	now   func() time.Time
	log   *slog.Logger
	wake  chan struct{} // something has changed; capacity one

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	done   sync.WaitGroup

	pause time.Duration // before another attempt to fence somebody; of run alone, as is said
	said  time.Time     // when it was last said that one has failed

	mu     sync.Mutex // guards the fields below; never held across a call
	judge  *Judge     // nil while another leads
	closed bool
}

// NewWarden begins; self and incarnation are of this process. Close ends it.
func NewWarden(meta Metadata, peers Peers, self int32, incarnation [16]byte, now func() time.Time, log *slog.Logger) *Warden {
	w := &Warden{meta: meta, peers: peers, self: self, own: incarnation, now: now, log: log, wake: make(chan struct{}, 1)}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	stop := meta.Subscribe(func(_, new *catalog.Image) {
		for _, e := range new.Events() {
			if e.Kind == catalog.BrokerRegistered || e.Kind == catalog.BrokerChanged {
				signal(w.wake)
				return
			}
		}
	})
	w.done.Go(func() {
		defer stop()
		w.run()
	})
	return w
}

// Close ends it, and waits for its goroutines.
func (w *Warden) Close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.cancel()
	w.done.Wait()
}

// ErrNotLeading says that another node leads the metadata, and wants to have the heartbeats.
var ErrNotLeading = errors.New("liveness: this node does not lead the metadata")

// Heard takes a heartbeat.
func (w *Warden) Heard(body []byte) error {
	b, err := decodeHeartbeat(body)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.judge == nil {
		return ErrNotLeading
	}
	w.judge.Heard(b, w.now())
	return nil
}

// Lost tells that the connection to a node is gone: it is asked whether it is still there. It does not block.
func (w *Warden) Lost(node int32) {
	w.mu.Lock()
	leads := w.judge != nil
	w.mu.Unlock()
	if leads {
		w.ask(node)
	}
}

// ask finds out, in a goroutine of its own, whether a process has ended. There are at most as many as there are brokers and lost connections.
func (w *Warden) ask(node int32) {
	b, found := w.meta.Image().Broker(node)
	if !found || b.Fenced || node == w.self {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	w.done.Go(func() {
		ctx, cancel := context.WithTimeout(w.ctx, Lease)
		defer cancel()
		if !w.gone(ctx, b) {
			return
		}
		w.mu.Lock()
		if w.judge != nil {
			w.judge.Gone(Standing{node, b.Epoch}, w.now())
		}
		w.mu.Unlock()
		signal(w.wake)
	})
}

// gone tells whether a process has ended. One that is just about to may still take a connection and drop it, so it is asked again; when ctx
// ends before that is known, the lease decides.
func (w *Warden) gone(ctx context.Context, b catalog.Broker) bool {
	for {
		answer, err := w.peers.Call(ctx, b.ID, PingMethod, nil)
		switch {
		case errors.Is(err, peer.ErrNotListening):
			return true
		case err == nil:
			return string(answer) != string(b.Incarnation[:])
		}
		timer := time.NewTimer(askAgain)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return false
		}
	}
}

// askAgain is the pause before a node that was not understood is asked again.
const askAgain = 50 * time.Millisecond

// run fences whoever is overdue. It ends with Close.
func (w *Warden) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	due := w.now()
	for {
		leader, known, changed := w.meta.Leadership()
		leads, wait := known && leader == w.self, time.Hour
		if frozen := w.now().Sub(due) > Lease/2; !leads || frozen { // what others have said while this process stood still is yet to be heard
			w.mu.Lock()
			w.judge = nil
			w.mu.Unlock()
		}
		if leads {
			wait = w.look()
		}
		due = w.now().Add(wait)
		timer.Reset(wait)
		select {
		case <-w.wake:
		case <-changed:
		case <-timer.C:
		case <-w.ctx.Done():
			return
		}
	}
}

// look fences those who are overdue, and says when to look again.
func (w *Warden) look() time.Duration {
	var standing []Standing
	for _, b := range w.meta.Image().Brokers() {
		switch {
		case b.Fenced:
		case b.ID != w.self:
			standing = append(standing, Standing{b.ID, b.Epoch})
		case b.Incarnation != w.own: // an earlier start of this node
			if !w.fence(Standing{b.ID, b.Epoch}) {
				return w.pause
			}
		}
	}
	w.mu.Lock()
	fresh := w.judge == nil
	if fresh {
		w.judge = NewJudge(Lease)
	}
	now := w.now()
	w.judge.Know(standing, now)
	overdue := w.judge.Overdue(now)
	next, any := w.judge.Next()
	w.mu.Unlock()
	if fresh { // whoever died with the leader before this one was noticed by nobody
		for _, b := range standing {
			w.ask(b.ID)
		}
	}
	for _, b := range overdue {
		if !w.fence(b) {
			return w.pause
		}
	}
	switch {
	case len(overdue) > 0:
		return 0
	case any:
		return max(next.Sub(now), time.Millisecond)
	}
	return time.Hour
}

// rarely is how long nothing is said of attempts that have failed after one was.
const rarely = 10 * time.Second

// fence tells whether there is nothing left to do about a broker; if not, w.pause is how long to wait.
func (w *Warden) fence(b Standing) bool {
	ctx, cancel := context.WithTimeout(w.ctx, proposalTime)
	defer cancel()
	result, err := w.meta.Propose(ctx, catalog.FenceBroker{ID: b.ID, Epoch: b.Epoch})
	if err == nil {
		err = result.Errors[0]
	}
	w.pause = min(max(2*w.pause, firstPause), lastPause)
	switch {
	case err == nil:
		w.pause = 0
		w.log.Warn("a broker was fenced: nothing was heard of it; others lead what it led, as far as there are replicas in sync", "node", b.ID)
	case errors.Is(err, catalog.ErrStaleBrokerEpoch):
		w.pause = 0
	default:
		if now := w.now(); w.ctx.Err() == nil && now.Sub(w.said) >= rarely {
			w.said = now
			w.log.Warn("a broker of which nothing was heard could not be fenced, which is tried again; there may be more", "node", b.ID, "error", err)
		}
		return false
	}
	return true
}
