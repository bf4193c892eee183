package replication

import (
	"sync"
	"time"
)

// clock has those partitions that time changes.
type clock struct {
	wake chan struct{} // there are some; capacity one

	mu          sync.Mutex // guards the fields below; never held across a call
	list, spare []*leading // each once, see leading.watched
}

// keepTime lets time pass for those partitions that it changes, while there are any. It ends with close.
func (r *replicator) keepTime() {
	const often = 250 * time.Millisecond
	timer := time.NewTimer(often)
	defer timer.Stop()
	running := true
	for {
		select {
		case <-r.clock.wake:
			if !running {
				timer.Reset(often)
				running = true
			}
			continue
		case <-timer.C:
			running = false
		case <-r.ctx.Done():
			return
		}
		all := r.clock.take()
		for _, l := range all {
			l.watched.Store(false)
			l.step(func(now time.Time) { l.state.Tick(now) }) // has it watched again, if need be
		}
		r.clock.giveBack(all)
	}
}

// watch has time pass for l. It does not block.
func (r *replicator) watch(l *leading) {
	r.clock.mu.Lock()
	r.clock.list = append(r.clock.list, l)
	r.clock.mu.Unlock()
	select {
	case r.clock.wake <- struct{}{}:
	default:
	}
}

func (c *clock) take() []*leading {
	c.mu.Lock()
	defer c.mu.Unlock()
	taken := c.list
	c.list, c.spare = c.spare[:0], nil
	return taken
}

// giveBack has the memory of a list used again.
func (c *clock) giveBack(list []*leading) {
	clear(list)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spare = list
}
