package replication

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/millrace/millrace/engine/catalog"
)

// proposer has the in-sync sets of partitions changed, those of many at once.
type proposer struct {
	r    *replicator
	wake chan struct{} // capacity one

	mu   sync.Mutex // guards open; never held across a call
	open []*leading
}

const (
	// gather is how long to wait for more changes: a broker that is lost is lost to many partitions.
	gather     = 5 * time.Millisecond
	mostAtOnce = 5000
	proposal   = 5 * time.Second
)

func newProposer(r *replicator) *proposer { return &proposer{r: r, wake: make(chan struct{}, 1)} }

// add has what l wants proposed. It does not block.
func (p *proposer) add(l *leading) {
	p.mu.Lock()
	p.open = append(p.open, l)
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *proposer) take() []*leading {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := min(len(p.open), mostAtOnce)
	taken := p.open[:n:n]
	p.open = p.open[n:]
	return taken
}

// run proposes until the replicator is closed.
func (p *proposer) run() {
	for {
		select {
		case <-p.wake:
		case <-p.r.ctx.Done():
			return
		}
		if !sleep(p.r.ctx, gather) {
			return
		}
		for open := p.take(); len(open) > 0; open = p.take() {
			p.propose(open)
		}
	}
}

// propose makes one change of the wishes of many, and tells each what became of it.
func (p *proposer) propose(open []*leading) {
	command := catalog.ChangeISR{Broker: p.r.self, BrokerEpoch: p.r.broker.Epoch()}
	var of []*leading
	for _, l := range open {
		if change, wanted := l.wish(); wanted {
			command.Changes, of = append(command.Changes, change), append(of, l)
		}
	}
	if len(of) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(p.r.ctx, proposal)
	defer cancel()
	result, err := p.r.engine.Catalog().Propose(ctx, command)
	if err != nil {
		if p.r.ctx.Err() == nil {
			p.r.log.Warn("the sets of replicas in sync could not be changed: acks=all may wait until they are", "partitions", len(of), "error", err)
		}
		if !sleep(p.r.ctx, gather) {
			return // otherwise run would never see the end
		}
		for _, l := range of { // perhaps it was done: the same is proposed until that is known
			if !l.asking.Swap(true) {
				p.add(l)
			}
		}
		return
	}
	for i, l := range of {
		if err := result.Errors[i]; err != nil {
			l.step(func(now time.Time) { l.state.Refused(now) })
			if !errors.Is(err, catalog.ErrConflict) && !errors.Is(err, catalog.ErrIneligibleReplica) {
				p.r.log.Info("the set of replicas in sync was not changed", "partition", l.p.Name(), "error", err)
			}
		}
	}
}
