package coordinator

import "time"

// A record that is in the log of the leader but not on enough replicas has no outcome, perhaps for long. Who waits for one
// is told so in the end, as in Kafka, also joins and syncs, which have no deadline of their own: CommitTimeout after it
// was noticed, which is when there was no outcome for CommitTimeout.

// watchOutcomes sees to it that somebody looks whether an outcome is overdue. The lock is held.
func (s *shard) watchOutcomes(after time.Duration) {
	switch {
	case s.watching:
		return // it comes too early at worst, and looks again
	case s.watch == nil:
		s.watch = time.AfterFunc(after, s.lookForOutcomes)
	default:
		s.watch.Reset(after)
	}
	s.watching = true
}

// lookForOutcomes is what the watch does, on a goroutine of its own that only takes the lock.
func (s *shard) lookForOutcomes() {
	s.mu.Lock()
	defer s.unlock()
	s.watching = false
	if s.over || s.isLate || s.settled == s.pushed {
		return
	}
	if left := s.c.opts.CommitTimeout - s.c.opts.Now().Sub(s.heard); left > 0 {
		s.watchOutcomes(left)
		return
	}
	s.isLate = true
	close(s.late)
}

// heardOutcome notes that the log goes on. The lock is held.
func (s *shard) heardOutcome() {
	s.heard = s.c.opts.Now()
	if s.isLate {
		s.isLate = false
		s.late = make(chan struct{})
	}
	if s.settled < s.pushed {
		s.watchOutcomes(s.c.opts.CommitTimeout)
	}
}
