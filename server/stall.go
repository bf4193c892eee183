package server

// wakeWriters lets every connection's writer look at its requests again: the disk that
// they wait for has stalled.
func (s *Server) wakeWriters() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		signal(c.pipe.wake)
	}
}

// stalled tells whether a disk does not answer.
func (s *Server) stalled() bool { return s.engine != nil && s.engine.Stalled() }

// stuck tells whether there is no use in waiting for the rest of a request: its
// records are all in the hands of disks that do not answer.
func (p *produceCall) stuck() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, part := range p.parts[:p.usedParts] {
		if !part.answered && (part.partition == nil || !part.partition.Stalled()) {
			return false
		}
	}
	return true
}

// late is what a produce request is told whose time is up before its records are durable:
// that the disk is the reason, when it is one operation of it that takes long.
func (part *producePart) late() error {
	if part.partition != nil {
		if err := part.partition.SlowDisk(); err != nil {
			return err
		}
	}
	return errTimedOut
}
