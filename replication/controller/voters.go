package controller

import "cmp"

// Member is what the plan of voters knows of one node.
type Member struct {
	ID       int32
	Rack     string
	Voter    bool
	Alive    bool // has answered lately, or is the leader itself
	CaughtUp bool // has all that is committed, or nearly
}

// StepKind is a change of one member.
type StepKind int8

// The steps of a plan.
const (
	Stay    StepKind = iota // nothing is to be changed now
	Promote                 // make a member a voter
	Demote                  // take its vote away; it stays a member
)

// Step is the next change of voters.
type Step struct {
	Kind StepKind
	ID   int32
}

// PlanVoters says which change brings the voters nearer to what they should be: an odd number, at most so many, of those that are alive, spread
// over racks. It is pure. One step is made at a time, and the next is planned on what that led to.
//
// No step is planned unless those that are alive are a majority before and after it. A dead voter keeps its vote until
// somebody is there to take its place: to take it away sooner would let fewer decide.
func PlanVoters(members []Member, leader int32, most int) Step {
	p := plan{leader: leader, racks: map[string]int{}}
	for _, m := range members {
		switch {
		case m.Voter:
			p.voters++
			if m.Alive {
				p.alive++
				p.racks[m.Rack]++
			} else {
				p.dead = append(p.dead, m)
			}
		case m.Alive && m.CaughtUp:
			p.able = append(p.able, m)
		}
	}
	if p.alive < p.voters/2+1 {
		return Step{}
	}
	want := min(p.voters+len(p.able), most)
	return p.step(members, max(1, want-1+want%2)) // odd
}

// plan counts the voters.
type plan struct {
	leader        int32
	voters, alive int
	racks         map[string]int // voters that are alive
	dead          []Member
	able          []Member // who could become a voter
}

func (p *plan) step(members []Member, want int) Step {
	best := p.best()
	switch {
	case p.voters > want:
		return p.demote(members)
	case best == nil:
		return Step{}
	case p.voters < want:
		return Step{Promote, best.ID}
	case len(p.dead) > 0: // its place is taken in the next step
		return Step{Demote, p.dead[0].ID}
	case p.racks[best.Rack]+2 <= p.crowd(members): // one of the crowded rack loses its vote in the next step
		return Step{Promote, best.ID}
	}
	return Step{}
}

// best is who should become a voter first: of the rack with the fewest, and the lowest id.
func (p *plan) best() *Member {
	var best *Member
	for i, m := range p.able {
		if best == nil || cmp.Or(cmp.Compare(p.racks[m.Rack], p.racks[best.Rack]), cmp.Compare(m.ID, best.ID)) < 0 {
			best = &p.able[i]
		}
	}
	return best
}

// crowd is the number of voters of the rack with the most, among those that could give one up.
func (p *plan) crowd(members []Member) int {
	most := 0
	for _, m := range members {
		if m.Voter && m.Alive && m.ID != p.leader {
			most = max(most, p.racks[m.Rack])
		}
	}
	return most
}

// demote takes the vote of one too many: of the most crowded rack, the highest id, never the leader.
func (p *plan) demote(members []Member) Step {
	if len(p.dead) > 0 {
		return Step{Demote, p.dead[0].ID}
	}
	var worst *Member
	for i, m := range members {
		if !m.Voter || m.ID == p.leader {
			continue
		}
		if worst == nil || cmp.Or(cmp.Compare(p.racks[m.Rack], p.racks[worst.Rack]), cmp.Compare(m.ID, worst.ID)) > 0 {
			worst = &members[i]
		}
	}
	if worst == nil {
		return Step{}
	}
	return Step{Demote, worst.ID}
}
