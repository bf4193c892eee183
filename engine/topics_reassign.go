package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/millrace/millrace/engine/catalog"
)

// PartitionName names a partition as clients do.
type PartitionName struct {
	Topic     string
	Partition int32
}

// Reassignment is the replicas that a client wants for one partition; nil ends a reassignment that is in progress.
type Reassignment struct {
	PartitionName
	Replicas []int32
}

// Reassign begins, changes and ends moves of partitions to other brokers, all in one change, and returns an error for each. With
// keepFactor another number of replicas is refused (KIP-860). It returns when the moves have begun; [catalog.Image.Reassigning] lists those
// in progress. It waits for the catalogue until ctx ends.
func (t Topics) Reassign(ctx context.Context, wanted []Reassignment, keepFactor bool) []error {
	image := t.settled(ctx, func(image *catalog.Image) bool {
		return slices.ContainsFunc(wanted, func(w Reassignment) bool { return w.in(image) == nil })
	})
	errs := make([]error, len(wanted))
	var command catalog.Reassign
	var of []int
	for i, w := range wanted {
		p := w.in(image)
		if errs[i] = t.checkReassignment(image, w, p); errs[i] != nil {
			continue
		}
		if !p.Reassigning() && slices.Equal(p.Replicas, w.Replicas) {
			continue // as it is
		}
		command.Partitions = append(command.Partitions, catalog.Reassignment{
			Topic: image.Topic(w.Topic).ID, Partition: w.Partition, Replicas: w.Replicas, KeepFactor: keepFactor,
		})
		of = append(of, i)
	}
	if len(of) == 0 {
		return errs
	}
	result, err := t.catalog.Propose(ctx, command)
	for n, i := range of {
		if err != nil {
			errs[i] = proposalError(err)
			continue
		}
		errs[i] = reassignmentError(result.Image, wanted[i], result.Errors[n])
	}
	return errs
}

// in finds the partition, nil when there is none.
func (n PartitionName) in(image *catalog.Image) *catalog.Partition {
	t := image.Topic(n.Topic)
	if t == nil || n.Partition < 0 || int(n.Partition) >= len(t.Partitions) {
		return nil
	}
	return &t.Partitions[n.Partition]
}

// checkReassignment judges what a client wants for one partition, in Kafka's order and words.
func (t Topics) checkReassignment(image *catalog.Image, w Reassignment, p *catalog.Partition) error {
	switch {
	case image.Topic(w.Topic) == nil:
		return refuse(ErrUnknownTopic, fmt.Sprintf("Unable to find a topic named %s.", w.Topic))
	case p == nil:
		return refuse(ErrUnknownTopic, fmt.Sprintf("Unable to find partition %s:%d.", w.Topic, w.Partition))
	case w.Replicas == nil && !p.Reassigning():
		return refuse(catalog.ErrNoReassignment, "")
	case w.Replicas == nil:
		return nil
	}
	return checkReplicas(t.registered(image), w.Replicas, 0)
}

// finalFactor is how many replicas a partition has when no reassignment is in progress any more.
func finalFactor(p *catalog.Partition) int {
	n := 0
	for _, id := range p.Replicas {
		if !slices.Contains(p.Removing, id) {
			n++
		}
	}
	return n
}

// reassignmentError puts the catalogue's verdict into Kafka's words. Some of it has been judged before: then something has changed meanwhile.
func reassignmentError(image *catalog.Image, w Reassignment, err error) error {
	switch {
	case errors.Is(err, catalog.ErrUnknownTopic):
		return refuse(ErrUnknownTopic, fmt.Sprintf("Unable to find a topic named %s.", w.Topic))
	case errors.Is(err, catalog.ErrUncleanCancel):
		return refuse(ErrInvalidAssignment, fmt.Sprintf("Unable to revert partition assignment for %s:%d because it would require an unclean leader election.",
			w.Topic, w.Partition))
	case errors.Is(err, catalog.ErrInvalidAssignment):
		return refuse(ErrInvalidAssignment, "The manual partition assignment includes a broker that is not registered any more.")
	case errors.Is(err, catalog.ErrFactorChanged):
		if p := w.in(image); p != nil {
			return refuse(ErrInvalidReplicationFactor, fmt.Sprintf("The replication factor is changed from %d to %d", finalFactor(p), len(w.Replicas)))
		}
		return refuse(ErrInvalidReplicationFactor, "")
	case errors.Is(err, catalog.ErrNoReassignment):
		return refuse(catalog.ErrNoReassignment, "")
	}
	return err
}
