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

// stalled tells whether there is no use in waiting for appends that are under way.
func (s *Server) stalled() bool { return s.engine != nil && s.engine.Stalled() }

// late is what a produce request is told whose time is up before its records are durable:
// that the disk is the reason, when it is one operation of it that takes long.
func (s *Server) late() error {
	if s.engine != nil {
		if err := s.engine.SlowDisk(); err != nil {
			return err
		}
	}
	return errTimedOut
}
