package coordinator

import (
	"github.com/millrace/millrace/engine/group"
)

// Census counts the groups of this node.
type Census struct {
	ByState map[group.State]int // with every state but Dead, which is left at once
	Loading int                 // partitions of __consumer_offsets whose groups are not known yet
}

// Census counts the groups by state. It takes each partition's lock for a moment.
func (c *Coordinator) Census() Census {
	n := Census{ByState: map[group.State]int{group.Empty: 0, group.PreparingRebalance: 0, group.CompletingRebalance: 0, group.Stable: 0}}
	for _, s := range c.all() {
		s.mu.Lock()
		if s.loading {
			n.Loading++
		}
		for _, h := range s.groups {
			if h.Exists() {
				n.ByState[h.State()]++
			}
		}
		s.unlock()
	}
	return n
}
