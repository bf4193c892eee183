package replication

import "github.com/millrace/millrace/engine"

// FollowerEnd tells how far a follower of a partition is that this node leads, and makes the replicator one of [engine.FollowerEnds]. A
// follower's log begins no later than the leader's.
func (r *replicator) FollowerEnd(p *engine.Partition, broker int32) (logStart, logEnd int64, known bool) {
	have, leads := r.led.Load(p)
	if !leads {
		return 0, 0, false
	}
	l := have.(*leading)
	l.mu.Lock()
	end := l.state.End(broker)
	l.mu.Unlock()
	return p.LogStartOffset(), end, end >= 0
}

var _ engine.FollowerEnds = (*replicator)(nil)
