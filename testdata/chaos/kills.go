package main

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"
)

// recovered waits until others lead what n led and everything is acknowledged again, and keeps how long that took.
func (s *scene) recovered(ctx context.Context, fault time.Time, n *node, metadata bool) error {
	if err := s.awaitOthersLead(ctx, n, metadata); err != nil {
		return err
	}
	s.note("others lead", time.Since(fault))
	return s.flows(ctx, fault)
}

// flows waits until everything is acknowledged again.
func (s *scene) flows(ctx context.Context, fault time.Time) error {
	if err := s.load.await(ctx, time.Now()); err != nil {
		return err
	}
	s.note("gap", s.load.gap(fault))
	return nil
}

// rejoins waits until all replicas are in sync.
func (s *scene) rejoins(ctx context.Context, since time.Time) error {
	_, err := s.awaitInSync(ctx, 60*time.Second)
	if err == nil {
		s.note("in sync again", time.Since(since))
	}
	return err
}

// again starts a node that has ended, and waits until it is in sync.
func (s *scene) again(ctx context.Context, n *node) error {
	begun := time.Now()
	if err := s.start(n); err != nil {
		return err
	}
	if err := s.awaitReady(ctx, n); err != nil {
		return err
	}
	s.note("ready after a start", time.Since(begun))
	return s.rejoins(ctx, begun)
}

func killLeader(ctx context.Context, s *scene) error {
	for round := range s.rounds {
		leader, err := s.leader(ctx, round%partitions)
		if err != nil {
			return err
		}
		fault := time.Now()
		if err := leader.kill(); err != nil {
			return err
		}
		if err := s.recovered(ctx, fault, leader, false); err != nil {
			return err
		}
		if err := s.again(ctx, leader); err != nil {
			return err
		}
	}
	return nil
}

func killController(ctx context.Context, s *scene) error {
	for range s.rounds {
		leader, err := s.controller(ctx)
		if err != nil {
			return err
		}
		fault := time.Now()
		if err := leader.kill(); err != nil {
			return err
		}
		if err := s.recovered(ctx, fault, leader, true); err != nil {
			return err
		}
		if err := s.again(ctx, leader); err != nil {
			return err
		}
	}
	return nil
}

func rollingRestart(ctx context.Context, s *scene) error {
	for range s.rounds {
		for _, n := range s.nodes {
			fault := time.Now()
			n.signal(syscall.SIGTERM)
			if err := n.wait(40 * time.Second); err != nil {
				return err
			}
			s.note("took to end", time.Since(fault))
			if err := s.again(ctx, n); err != nil {
				return err
			}
			if err := s.flows(ctx, fault); err != nil {
				return err
			}
		}
	}
	return nil
}

// paused stops a process for a while, and has it wake up in a world that has gone on.
func (s *scene) paused(ctx context.Context, n *node, metadata bool) error {
	fault := time.Now()
	n.signal(syscall.SIGSTOP)
	defer n.signal(syscall.SIGCONT)
	if err := s.recovered(ctx, fault, n, metadata); err != nil {
		return err
	}
	time.Sleep(time.Until(fault.Add(5 * time.Second)))
	woken := time.Now()
	n.signal(syscall.SIGCONT)
	if err := s.rejoins(ctx, woken); err != nil {
		return err
	}
	return s.flowsOn(ctx, woken)
}

// flowsOn is flows for what should not be noticed.
func (s *scene) flowsOn(ctx context.Context, since time.Time) error {
	if err := s.load.await(ctx, time.Now()); err != nil {
		return err
	}
	s.note("gap when it comes back", s.load.gap(since))
	return nil
}

func pauseLeader(ctx context.Context, s *scene) error {
	for round := range s.rounds {
		leader, err := s.leader(ctx, round%partitions)
		if err != nil {
			return err
		}
		if err := s.paused(ctx, leader, false); err != nil {
			return err
		}
	}
	return nil
}

func pauseController(ctx context.Context, s *scene) error {
	for range s.rounds {
		leader, err := s.controller(ctx)
		if err != nil {
			return err
		}
		if err := s.paused(ctx, leader, true); err != nil {
			return err
		}
	}
	return nil
}

func killAll(ctx context.Context, s *scene) error {
	for range s.rounds {
		for _, n := range s.nodes {
			n.signal(syscall.SIGKILL)
		}
		for _, n := range s.nodes {
			if err := n.wait(30 * time.Second); err != nil {
				return err
			}
		}
		begun := time.Now()
		if err := s.startAll(ctx); err != nil {
			return err
		}
		s.note("all ready", time.Since(begun))
		if err := s.load.await(ctx, begun); err != nil {
			return err
		}
		s.note("first ack of every partition", time.Since(begun))
		if err := s.rejoins(ctx, begun); err != nil {
			return err
		}
	}
	return nil
}

func replaceNode(ctx context.Context, s *scene) error {
	for round := range s.rounds {
		n := s.nodes[round%len(s.nodes)]
		fault := time.Now()
		if err := n.kill(); err != nil {
			return err
		}
		if err := s.recovered(ctx, fault, n, false); err != nil {
			return err
		}
		if err := os.Rename(n.data, fmt.Sprintf("%s-lost-%d", n.data, round)); err != nil {
			return err
		}
		n.peer += 10
		if err := s.again(ctx, n); err != nil {
			return err
		}
	}
	return nil
}
