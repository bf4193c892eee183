package main

import (
	"context"
	"time"
)

// cutFor is how long a cut lasts.
const cutFor = 8 * time.Second

// isolated cuts a node off, as cut does it, and connects it again.
func (s *scene) isolated(ctx context.Context, n *node, moves, metadata bool, cut func()) error {
	fault := time.Now()
	cut()
	defer s.net.heal()
	if moves {
		if err := s.recovered(ctx, fault, n, metadata); err != nil {
			return err
		}
		time.Sleep(time.Until(fault.Add(cutFor)))
	} else {
		time.Sleep(time.Until(fault.Add(cutFor)))
		if err := s.flows(ctx, fault); err != nil {
			return err
		}
	}
	healed := time.Now()
	s.net.heal()
	if err := s.rejoins(ctx, healed); err != nil {
		return err
	}
	return s.flowsOn(ctx, healed)
}

// follower is a node that leads neither the metadata nor, as far as that is possible, the partition.
func (s *scene) plainLeader(ctx context.Context, round int) (*node, error) {
	controller, err := s.controller(ctx)
	if err != nil {
		return nil, err
	}
	for p := range partitions {
		n, err := s.leader(ctx, (round+p)%partitions)
		if err != nil || n != controller {
			return n, err
		}
	}
	return controller, nil
}

func cutLeader(ctx context.Context, s *scene) error {
	for round := range s.rounds {
		n, err := s.plainLeader(ctx, round)
		if err != nil {
			return err
		}
		if err := s.isolated(ctx, n, true, false, func() { s.net.apart(int(n.id), rule{cut: true}) }); err != nil {
			return err
		}
	}
	return nil
}

// cutFollower cuts the link between two nodes that can both reach the third.
func cutFollower(ctx context.Context, s *scene) error {
	for round := range s.rounds {
		a, b := round%3+1, (round+1)%3+1
		if err := s.isolated(ctx, s.nodes[a-1], false, false, func() { s.net.between(a, b, rule{cut: true}) }); err != nil {
			return err
		}
	}
	return nil
}

// cutOneWay has the others hear nothing of a leader, which hears them, and the other way round.
func cutOneWay(ctx context.Context, s *scene) error {
	for round := range s.rounds {
		n, err := s.plainLeader(ctx, round)
		if err != nil {
			return err
		}
		err = s.isolated(ctx, n, true, false, func() {
			for _, other := range s.nodes {
				switch {
				case other == n:
				case round%2 == 0:
					s.net.set(int(n.id), int(other.id), rule{cut: true})
				default:
					s.net.set(int(other.id), int(n.id), rule{cut: true})
				}
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func cutController(ctx context.Context, s *scene) error {
	for range s.rounds {
		n, err := s.controller(ctx)
		if err != nil {
			return err
		}
		if err := s.isolated(ctx, n, true, true, func() { s.net.apart(int(n.id), rule{cut: true}) }); err != nil {
			return err
		}
	}
	return nil
}

// cutFlapping cuts a node off for two seconds of every four.
func cutFlapping(ctx context.Context, s *scene) error {
	for round := range s.rounds {
		n, err := s.plainLeader(ctx, round)
		if err != nil {
			return err
		}
		fault := time.Now()
		defer s.net.heal()
		for range 5 {
			s.net.apart(int(n.id), rule{cut: true})
			time.Sleep(2 * time.Second)
			s.net.heal()
			time.Sleep(2 * time.Second)
		}
		healed := time.Now()
		if err := s.flows(ctx, fault); err != nil {
			return err
		}
		if err := s.rejoins(ctx, healed); err != nil {
			return err
		}
	}
	return nil
}

// slowLink has everything between the nodes take longer, and some of it not arrive.
func slowLink(ctx context.Context, s *scene) error {
	for range s.rounds {
		begun := time.Now()
		defer s.net.heal()
		for _, n := range s.nodes {
			s.net.apart(int(n.id), rule{delay: 50 * time.Millisecond, loss: 0.05})
		}
		time.Sleep(30 * time.Second)
		if err := s.flows(ctx, begun); err != nil {
			return err
		}
		s.net.heal()
		if err := s.rejoins(ctx, time.Now()); err != nil {
			return err
		}
	}
	return nil
}
