package engine

import (
	"slices"
	"sync"

	"github.com/millrace/millrace/engine/catalog"
)

// Role is what this node is to a partition, and what the catalogue says about it. It is never changed.
type Role struct {
	Leads   bool               // this node leads it
	Placed  *catalog.Partition // as in the image; not to be changed
	Replica bool               // this node holds it
}

func roleOf(placed *catalog.Partition, node int32) *Role {
	return &Role{Leads: placed.Leader == node, Replica: slices.Contains(placed.Replicas, node), Placed: placed}
}

// Role is the node's role now. It does not block.
func (p *Partition) Role() Role { return *p.role.Load() }

// Leads tells whether this node leads the partition.
func (p *Partition) Leads() bool { return p.role.Load().Leads }

// LeaderEpoch is the epoch of the partition's current leader.
func (p *Partition) LeaderEpoch() int32 { return p.role.Load().Placed.LeaderEpoch }

// assume makes a role true here: after it nothing is appended under an older epoch, and who waits for
// replicas of a partition that is led elsewhere by now has been told. It runs on the catalogue's goroutine.
func (p *Partition) assume(r *Role) {
	p.role.Store(r)
	p.at.Load().log.FenceBelow(r.Placed.LeaderEpoch)
	p.commits.lead(r.Leads)
	if !r.Leads {
		p.watchers.wake()
	}
	p.replicator.Changed(p, *r)
}

// EndWaits tells all who wait for other replicas that this node may lead no longer: ErrNotHere. What they appended
// stays, and may be committed yet. It does not block.
func (p *Partition) EndWaits() { p.commits.end() }

// Waits tells whether somebody waits for other replicas.
func (p *Partition) Waits() bool {
	p.commits.mu.Lock()
	defer p.commits.mu.Unlock()
	return len(p.commits.waiting) > 0
}

// commits are the appends that are durable here and wait for other replicas.
type commits struct {
	mu      sync.Mutex // guards the fields below; never held across a call
	open    bool       // this node leads
	waiting []commit   // by rising offset
}

// commit waits for the high watermark to reach an offset.
type commit struct {
	offset int64
	done   func(error)
}

// lead says whether this node leads; if not, all who wait are told.
func (c *commits) lead(leads bool) {
	c.mu.Lock()
	c.open = leads
	var ended []commit
	if !leads {
		ended, c.waiting = c.waiting, nil
	}
	c.mu.Unlock()
	for _, w := range ended {
		w.done(ErrNotHere)
	}
}

// end tells all who wait that another may lead.
func (c *commits) end() {
	c.mu.Lock()
	ended := c.waiting
	c.waiting = nil
	c.mu.Unlock()
	for _, w := range ended {
		w.done(ErrNotHere)
	}
}

// wait has done called when the high watermark has reached offset, or the partition is led elsewhere. watermark is asked
// once more, since it may have moved before anybody was waiting.
func (c *commits) wait(offset int64, watermark func() int64, done func(error)) {
	c.mu.Lock()
	var err error
	switch {
	case !c.open:
		err = ErrNotHere
	case watermark() < offset:
		at, _ := slices.BinarySearchFunc(c.waiting, offset+1, func(w commit, o int64) int { return int(min(max(w.offset-o, -1), 1)) })
		c.waiting = slices.Insert(c.waiting, at, commit{offset, done})
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	done(err)
}

// reached tells those who wait for an offset up to watermark.
func (c *commits) reached(watermark int64) {
	c.mu.Lock()
	n := 0
	for n < len(c.waiting) && c.waiting[n].offset <= watermark {
		n++
	}
	if n == 0 {
		c.mu.Unlock()
		return
	}
	ended := slices.Clone(c.waiting[:n])
	c.waiting = slices.Delete(c.waiting, 0, n)
	c.mu.Unlock()
	for _, w := range ended {
		w.done(nil)
	}
}
