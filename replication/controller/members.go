package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// silent is when a follower counts as one that may be dead. Heartbeats come many times in it.
	silent = 2 * time.Second
	// lookAgain is how often the leader looks again while a member is silent or is catching up; otherwise it sleeps.
	lookAgain = 500 * time.Millisecond
	// nearly is how many entries a member may lack to become a voter: so many come on one heartbeat.
	nearly = 64
)

// Join makes a node a member, or gives a member another address. It gets everything, and becomes a voter when it has caught up and is
// needed. The leader does it; elsewhere it returns ErrNotLeader.
func (c *Controller) Join(ctx context.Context, node int32, address string) error {
	return c.change(ctx, func(in *instance, left time.Duration) raft.IndexFuture {
		for _, s := range in.servers() {
			if s.ID == serverID(node) && string(s.Address) == address {
				return nil
			}
		}
		return in.raft.AddNonvoter(serverID(node), raft.ServerAddress(address), 0, left)
	})
}

// Remove ends a node's membership. The leader does it, also for itself, after which another leads. A voter is not removed when those of the
// others that answer would be no majority.
func (c *Controller) Remove(ctx context.Context, node int32) error {
	var refused error
	err := c.change(ctx, func(in *instance, left time.Duration) raft.IndexFuture {
		found, voters, alive := false, 0, 0
		for _, m := range in.members() {
			switch {
			case m.ID == node:
				found = true
			case m.Voter:
				voters++
				if m.Alive {
					alive++
				}
			}
		}
		if !found {
			return nil
		}
		if alive < voters/2+1 {
			refused = ErrLastVoter
			return nil
		}
		return in.raft.RemoveServer(serverID(node), 0, left)
	})
	return errors.Join(refused, err)
}

// Members are the members as this node knows them, by the order in which they joined. Who is alive and how far they are only the leader knows.
func (c *Controller) Members() []Member {
	in := c.current.Load()
	if in == nil {
		return nil
	}
	return in.members()
}

// Addresses are where the other members are reached, as this node's part of the log has it: empty for a new node.
func (c *Controller) Addresses() []string {
	in := c.current.Load()
	if in == nil {
		return nil
	}
	var all []string
	for _, s := range in.servers() {
		if s.ID != c.roles.self {
			all = append(all, string(s.Address))
		}
	}
	return all
}

// change makes one change of members, one at a time, and waits for it.
func (c *Controller) change(ctx context.Context, begin func(in *instance, left time.Duration) raft.IndexFuture) error {
	ctx, cancel := context.WithTimeout(ctx, c.settings.ProposalTimeout)
	defer cancel()
	select {
	case <-c.changing:
	case <-ctx.Done():
		return ctx.Err()
	}
	in := c.current.Load()
	if in == nil || !c.leads() {
		c.changing <- struct{}{}
		return ErrNotLeader
	}
	result := make(chan error, 1)
	deadline, _ := ctx.Deadline() // there is one
	left := max(deadline.Sub(c.opts.Now()), time.Millisecond)
	helped := in.help(func() { // raft answers when the change is committed or leadership lost
		defer func() { c.changing <- struct{}{} }()
		if future := begin(in, left); future != nil {
			result <- future.Error()
			return
		}
		result <- nil
	})
	if !helped {
		c.changing <- struct{}{}
		return ErrNotLeader
	}
	select {
	case err := <-result:
		c.kick()
		if errors.Is(err, raft.ErrNotLeader) {
			return ErrNotLeader
		}
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, ctx.Err())
	}
}

func (in *instance) servers() []raft.Server {
	return in.raft.GetConfiguration().Configuration().Servers
}

func (in *instance) voters() (n int) {
	for _, s := range in.servers() {
		if s.Suffrage == raft.Voter {
			n++
		}
	}
	return n
}

// members is what the plan is made on.
func (in *instance) members() []Member {
	c, now := in.c, in.c.opts.Now()
	var all []Member
	for _, s := range in.servers() {
		m := Member{ID: nodeOf(s.ID), Voter: s.Suffrage == raft.Voter}
		if b, known := c.Image().Broker(m.ID); known {
			m.Rack = b.Rack
		}
		m.Alive = s.ID == c.roles.self || in.quiet(s.ID, now) < c.settings.DeadAfter
		if p, known := c.link.peer(s.ID); known && in.quiet(s.ID, now) < silent {
			m.CaughtUp = p.last+nearly >= in.raft.CommitIndex()
		}
		all = append(all, m)
	}
	return all
}

// quiet is for how long a follower has not answered.
func (in *instance) quiet(id raft.ServerID, now time.Time) time.Duration {
	since := time.Unix(0, in.since.Load())
	if p, known := in.c.link.peer(id); known && p.answered.After(since) {
		since = p.answered
	}
	return now.Sub(since)
}

// tend has the next change of voters made when this node leads, and says when to look again, 0 for when something happens.
func (c *Controller) tend(in *instance) time.Duration {
	if in.since.Load() == 0 || !c.leads() {
		return 0
	}
	members := in.members()
	step := PlanVoters(members, c.opts.NodeID, c.settings.Voters)
	if step.Kind != Stay {
		select {
		case <-c.changing:
			if !in.help(func() { c.carryOut(in, step) }) {
				c.changing <- struct{}{}
			}
		default: // one is under way, and kicks when it is done
		}
		return 0
	}
	now := c.opts.Now()
	for _, s := range in.servers() {
		if s.ID == c.roles.self {
			continue
		}
		if p, known := c.link.peer(s.ID); !known || in.quiet(s.ID, now) > silent ||
			s.Suffrage != raft.Voter && p.last+nearly < in.raft.CommitIndex() {
			return lookAgain
		}
	}
	return 0
}

// carryOut makes one change of voters; it has the token for that.
func (c *Controller) carryOut(in *instance, step Step) {
	defer c.kick()
	defer func() { c.changing <- struct{}{} }()
	var future raft.IndexFuture
	for _, s := range in.servers() {
		if s.ID != serverID(step.ID) {
			continue
		}
		switch step.Kind {
		case Promote:
			c.log.Info("a member becomes a voter", "node", step.ID)
			future = in.raft.AddVoter(s.ID, s.Address, 0, c.settings.ProposalTimeout)
		case Demote:
			c.log.Info("a voter loses its vote", "node", step.ID)
			future = in.raft.DemoteVoter(s.ID, 0, c.settings.ProposalTimeout)
		}
	}
	if future == nil {
		return
	}
	if err := future.Error(); err != nil {
		c.log.Warn("the voters could not be changed", "node", step.ID, "error", err)
	}
}
