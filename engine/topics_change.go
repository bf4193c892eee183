package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/millrace/millrace/engine/catalog"
)

// TopicRef names a topic by its name or by its id, not by both.
type TopicRef struct {
	Name *string
	ID   catalog.TopicID
}

// DeletedTopic is what became of a [TopicRef].
type DeletedTopic struct {
	Name *string // nil when the topic was asked for by an id that no topic has
	ID   catalog.TopicID
	Err  error
}

// Delete deletes topics, all of them in one change. It fails as a whole only when
// topics may not be deleted.
func (t Topics) Delete(ctx context.Context, refs []TopicRef) ([]DeletedTopic, error) {
	if !t.config().DeleteTopics {
		return nil, refuse(ErrDeletionDisabled, "Topic deletion is disabled.")
	}
	image := t.settled(ctx, func(image *catalog.Image) bool {
		return slices.ContainsFunc(refs, func(ref TopicRef) bool { _, err := lookUp(image, ref); return err != nil })
	})
	deleted := setWrongRefsAside(refs)
	var command catalog.DeleteTopics
	var planned []int
	seen := map[catalog.TopicID]bool{}
	for _, ref := range singleRefs(refs) {
		topic, err := lookUp(image, ref)
		if err != nil {
			deleted = append(deleted, DeletedTopic{Name: ref.Name, ID: ref.ID, Err: err})
			continue
		}
		if seen[topic.ID] {
			err = refuse(ErrInvalidRequest, "The provided topic name maps to an ID that was already supplied.")
			deleted = append(deleted, DeletedTopic{Name: ref.Name, ID: ref.ID, Err: err})
			continue
		}
		seen[topic.ID] = true
		planned = append(planned, len(deleted))
		command.IDs = append(command.IDs, topic.ID)
		deleted = append(deleted, DeletedTopic{Name: &topic.Name, ID: topic.ID})
	}
	if len(planned) == 0 {
		return deleted, nil
	}
	result, err := t.catalog.Propose(ctx, command)
	for n, i := range planned {
		switch {
		case err != nil:
			deleted[i].Err = proposalError(err)
		case errors.Is(result.Errors[n], catalog.ErrUnknownTopic):
			deleted[i].Err = unknownTopicID()
		default:
			deleted[i].Err = result.Errors[n]
		}
	}
	return deleted, nil
}

func unknownTopic() error {
	return refuse(ErrUnknownTopic, "This server does not host this topic-partition.")
}

func unknownTopicID() error {
	return refuse(ErrUnknownTopicID, "This server does not host this topic ID.")
}

func lookUp(image *catalog.Image, ref TopicRef) (*catalog.Topic, error) {
	if ref.Name != nil {
		if topic := image.Topic(*ref.Name); topic != nil {
			return topic, nil
		}
		return nil, unknownTopic()
	}
	if topic := image.TopicByID(ref.ID); topic != nil {
		return topic, nil
	}
	return nil, unknownTopicID()
}

// refKey is a [TopicRef] that can be counted.
type refKey struct {
	name string
	id   catalog.TopicID
}

func (r TopicRef) key() refKey {
	if r.Name != nil {
		return refKey{name: *r.Name}
	}
	return refKey{id: r.ID}
}

// well reports whether exactly one of name and id is given.
func (r TopicRef) well() bool { return (r.Name != nil) != (r.ID != catalog.TopicID{}) }

func countRefs(refs []TopicRef) map[refKey]int {
	count := map[refKey]int{}
	for _, ref := range refs {
		if ref.well() {
			count[ref.key()]++
		}
	}
	return count
}

// setWrongRefsAside makes the results of references that are not taken at all.
func setWrongRefsAside(refs []TopicRef) []DeletedTopic {
	var aside []DeletedTopic
	count := countRefs(refs)
	for _, ref := range refs {
		why := ""
		switch {
		case ref.Name != nil && !ref.well():
			why = "You may not specify both topic name and topic id."
		case !ref.well():
			why = "Neither topic name nor id were specified."
		case count[ref.key()] < 2:
			continue
		case ref.Name != nil:
			why = "Duplicate topic name."
		default:
			why = "Duplicate topic id."
		}
		if ref.well() {
			count[ref.key()] = 0 // one result for all of them
		}
		aside = append(aside, DeletedTopic{Name: ref.Name, ID: ref.ID, Err: refuse(ErrInvalidRequest, why)})
	}
	return aside
}

func singleRefs(refs []TopicRef) []TopicRef {
	count := countRefs(refs)
	return slices.DeleteFunc(slices.Clone(refs), func(r TopicRef) bool { return !r.well() || count[r.key()] != 1 })
}

// MorePartitions is a topic that is to have more partitions.
type MorePartitions struct {
	Topic       string
	Count       int32     // of all its partitions
	Assignments [][]int32 // of the new ones; nil leaves it to the broker
}

// GrownTopic is what became of a [MorePartitions].
type GrownTopic struct {
	Topic string
	Err   error
}

// CreatePartitions adds partitions to topics, all in one change.
func (t Topics) CreatePartitions(ctx context.Context, topics []MorePartitions, validateOnly bool) []GrownTopic {
	count := map[string]int{}
	for _, topic := range topics {
		count[topic.Topic]++
	}
	var grown []GrownTopic
	var single []MorePartitions
	for _, topic := range topics {
		switch n := count[topic.Topic]; {
		case n == 1:
			single = append(single, topic)
		case n > 1:
			count[topic.Topic] = 0
			grown = append(grown, GrownTopic{topic.Topic, refuse(ErrInvalidRequest, "Duplicate topic name.")})
		}
	}
	for _, topic := range single {
		grown = append(grown, GrownTopic{Topic: topic.Topic})
	}
	results := grown[len(grown)-len(single):]
	t.grow(ctx, single, results, validateOnly)
	return grown
}

// grow plans and proposes until no topic has changed between the two.
func (t Topics) grow(ctx context.Context, topics []MorePartitions, results []GrownTopic, validateOnly bool) {
	open := make([]int, len(topics))
	for i := range open {
		open[i] = i
	}
	missing := func(image *catalog.Image) bool {
		return slices.ContainsFunc(topics, func(m MorePartitions) bool { return image.Topic(m.Topic) == nil })
	}
	for image := t.settled(ctx, missing); len(open) > 0; image = t.catalog.Image() {
		var command catalog.CreatePartitions
		var planned []int
		total := 0
		for _, i := range open {
			plan, err := t.planGrowth(image, topics[i])
			if total += len(plan.Partitions); err == nil && total > maxNewRecords {
				err = refuse(ErrTooMuchAtOnce, tooManyRecords)
			}
			results[i].Err = err
			if err == nil {
				command.Topics = append(command.Topics, plan)
				planned = append(planned, i)
			}
		}
		if validateOnly || len(planned) == 0 {
			return
		}
		result, err := t.catalog.Propose(ctx, command)
		open = nil
		for n, i := range planned {
			switch {
			case err != nil:
				results[i].Err = proposalError(err)
			case errors.Is(result.Errors[n], catalog.ErrConflict):
				open = append(open, i)
			case errors.Is(result.Errors[n], catalog.ErrUnknownTopic):
				results[i].Err = refuse(ErrUnknownTopic, "")
			default:
				results[i].Err = result.Errors[n]
			}
		}
	}
}

// planGrowth judges one topic and places its new partitions.
func (t Topics) planGrowth(image *catalog.Image, more MorePartitions) (catalog.MorePartitions, error) {
	topic := image.Topic(more.Topic)
	if topic == nil {
		return catalog.MorePartitions{}, refuse(ErrUnknownTopic, "")
	}
	have := len(topic.Partitions)
	plan := catalog.MorePartitions{ID: topic.ID, From: have}
	added := int(more.Count) - have
	switch {
	case added == 0:
		return plan, refuse(ErrInvalidPartitions, fmt.Sprintf("Topic already has %d partition(s).", have))
	case added < 0:
		return plan, refuse(ErrInvalidPartitions, fmt.Sprintf("The topic %s currently has %d partition(s); %d would not be an increase.", topic.Name, have, more.Count))
	case more.Assignments != nil && len(more.Assignments) != added:
		return plan, refuse(ErrInvalidAssignment, fmt.Sprintf("Attempted to add %d additional partition(s), but only %d assignment(s) were specified.", added, len(more.Assignments)))
	case added > maxNewPartitions:
		return plan, refuse(ErrTooMuchAtOnce, tooManyRecords)
	}
	factor := len(topic.Partitions[0].Replicas)
	if more.Assignments == nil {
		var why string
		if plan.Partitions, why = t.place(image, added, factor); why != "" {
			return plan, refuse(ErrInvalidReplicationFactor, why)
		}
		t.chooseDirs(plan.Partitions)
		return plan, nil
	}
	for i, replicas := range more.Assignments {
		p, err := t.assigned(image, int32(have+i), replicas, factor)
		if err != nil {
			return plan, err
		}
		plan.Partitions = append(plan.Partitions, p)
	}
	t.chooseDirs(plan.Partitions)
	return plan, nil
}
