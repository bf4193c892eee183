package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/millrace/millrace/engine/catalog"
)

// ElectLeaders has leaders elected, all in one change, and returns an error for each partition: of the catalogue's errors
// ErrElectionNotNeeded, ErrPreferredLeaderNotAvailable and ErrEligibleLeadersNotAvailable. It waits for the catalogue until ctx ends.
func (t Topics) ElectLeaders(ctx context.Context, kind catalog.ElectionKind, of []PartitionName) []error {
	image := t.settled(ctx, func(image *catalog.Image) bool {
		return slices.ContainsFunc(of, func(n PartitionName) bool { return n.in(image) == nil })
	})
	errs := make([]error, len(of))
	command := catalog.ElectLeaders{Kind: kind}
	var open []int
	for i, n := range of {
		topic, p := image.Topic(n.Topic), n.in(image)
		switch {
		case topic == nil:
			errs[i] = refuse(ErrUnknownTopic, "No such topic as "+n.Topic)
		case p == nil:
			errs[i] = refuse(ErrUnknownTopic, fmt.Sprintf("No such partition as %s-%d", n.Topic, n.Partition))
		case !needsElection(kind, p):
			errs[i] = electionError(n, catalog.ErrElectionNotNeeded)
		default:
			command.Partitions = append(command.Partitions, catalog.PartitionRef{Topic: topic.ID, Partition: n.Partition})
			open = append(open, i)
		}
	}
	if len(open) == 0 {
		return errs
	}
	result, err := t.catalog.Propose(ctx, command)
	for n, i := range open {
		if err != nil {
			errs[i] = proposalError(err)
			continue
		}
		errs[i] = electionError(of[i], result.Errors[n])
	}
	return errs
}

// needsElection tells whether a partition has not got the leader that an election of this kind would be for.
func needsElection(kind catalog.ElectionKind, p *catalog.Partition) bool {
	if kind == catalog.PreferredElection {
		return len(p.Replicas) == 0 || p.Leader != p.Replicas[0]
	}
	return p.Leader < 0
}

// electionError puts the catalogue's verdict into Kafka's words.
func electionError(n PartitionName, err error) error {
	switch {
	case errors.Is(err, catalog.ErrElectionNotNeeded):
		return refuse(catalog.ErrElectionNotNeeded, "Leader election not needed for topic partition.")
	case errors.Is(err, catalog.ErrPreferredLeaderNotAvailable):
		return refuse(catalog.ErrPreferredLeaderNotAvailable, "The preferred leader was not available.")
	case errors.Is(err, catalog.ErrEligibleLeadersNotAvailable):
		return refuse(catalog.ErrEligibleLeadersNotAvailable, "Eligible topic partition leaders are not available.")
	case errors.Is(err, catalog.ErrUnknownTopic):
		return refuse(ErrUnknownTopic, "No such topic as "+n.Topic)
	}
	return err
}
