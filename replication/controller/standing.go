package controller

import "time"

// Standing is how far the controller and its members are.
type Standing struct {
	Leader  int32
	Term    uint64
	Commit  uint64 // index of the last entry that is committed
	Members []MemberStanding
}

// MemberStanding is how far one member is.
type MemberStanding struct {
	ID    int32
	Voter bool
	Last  uint64    // index of the last entry that it has, 0 when it has not told
	Heard time.Time // when it answered last; zero when it has not, and for the leader
}

// Standing tells it on the leader; elsewhere it returns ErrNotLeader. It does not block.
func (c *Controller) Standing() (Standing, error) {
	in := c.current.Load()
	if in == nil || !c.leads() {
		return Standing{}, ErrNotLeader
	}
	s := Standing{Leader: nodeOf(c.roles.self), Term: in.raft.CurrentTerm(), Commit: in.raft.CommitIndex()}
	for _, m := range in.members() {
		standing := MemberStanding{ID: m.ID, Voter: m.Voter}
		if m.ID == s.Leader {
			standing.Last = in.raft.LastIndex()
		} else if p, known := c.link.peer(serverID(m.ID)); known {
			standing.Last, standing.Heard = p.last, p.answered
		}
		s.Members = append(s.Members, standing)
	}
	return s, nil
}
