// Package placement plans which brokers should hold which replicas. It is pure: it is told what is, and answers with what should be; somebody else
// has it done. The same question always gets the same answer, whatever the order in which it is asked.
//
// Two questions: Drain (everything that one broker holds goes to others) and Rebalance (racks, then the number of replicas, then bytes, then
// leaderships are spread evenly). Both move as little as they can and never put two replicas of a partition on one broker. A rebalance never has
// the replicas of a partition in fewer racks than before; a drain does when the racks that are left leave no choice.
package placement

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Broker is one that exists.
type Broker struct {
	ID     int32
	Rack   string // empty: unknown, which counts as a rack of its own
	Active bool   // it may be given replicas
}

// Partition is one partition as it is placed.
type Partition struct {
	Topic     string
	Partition int32
	Replicas  []int32 // the first is the preferred leader; may name brokers that do not exist any more
	SizeBytes int64   // of one replica
}

// Cluster is what is there.
type Cluster struct {
	Brokers    []Broker
	Partitions []Partition
}

// Change is a partition whose replicas should be others, or in another order.
type Change struct {
	Topic     string
	Partition int32
	From, To  []int32
	SizeBytes int64 // of one replica
}

// Adding returns the brokers to which the partition is copied.
func (c Change) Adding() []int32 { return without(c.To, c.From) }

// Removing returns the brokers that no longer hold it afterwards.
func (c Change) Removing() []int32 { return without(c.From, c.To) }

// CopiedBytes is how much is copied between brokers.
func (c Change) CopiedBytes() int64 { return int64(len(c.Adding())) * c.SizeBytes }

// Load is what a broker has to bear.
type Load struct {
	Broker   int32
	Replicas int
	Bytes    int64
	Leads    int // partitions of which it is the preferred leader
}

// ErrNoBroker says that there is no broker to which a replica could go.
var ErrNoBroker = errors.New("no other active broker is there for it: start one more node")

// Loads returns what each broker bears, by id, before the changes or, with them, after.
func Loads(c Cluster, changes []Change) []Load {
	s := newState(c)
	for _, ch := range changes {
		if i, found := s.find(ch.Topic, ch.Partition); found {
			s.set(i, ch.To)
		}
	}
	var all []Load
	for _, b := range s.brokers {
		all = append(all, *s.load[b.ID])
	}
	return all
}

// state is a cluster while it is changed. Partitions and brokers are sorted.
type state struct {
	brokers []Broker
	parts   []Partition
	from    [][]int32 // replicas before any change
	rack    map[int32]string
	load    map[int32]*Load
}

func newState(c Cluster) *state {
	s := &state{brokers: slices.Clone(c.Brokers), parts: slices.Clone(c.Partitions), rack: map[int32]string{}, load: map[int32]*Load{}}
	slices.SortFunc(s.brokers, func(a, b Broker) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(s.parts, func(a, b Partition) int {
		return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	for _, b := range s.brokers {
		s.load[b.ID] = &Load{Broker: b.ID}
		s.rack[b.ID] = b.Rack
	}
	for i := range s.parts {
		s.from = append(s.from, s.parts[i].Replicas)
		s.count(i, 1)
	}
	return s
}

func (s *state) find(topic string, partition int32) (int, bool) {
	return slices.BinarySearchFunc(s.parts, partition, func(p Partition, partition int32) int {
		return cmp.Or(strings.Compare(p.Topic, topic), cmp.Compare(p.Partition, partition))
	})
}

// count adds a partition to what its brokers bear, or takes it away with -1.
func (s *state) count(i, sign int) {
	p := &s.parts[i]
	for n, id := range p.Replicas {
		l := s.load[id]
		if l == nil {
			continue // a broker that is gone bears nothing
		}
		l.Replicas += sign
		l.Bytes += int64(sign) * p.SizeBytes
		if n == 0 {
			l.Leads += sign
		}
	}
}

// set gives a partition other replicas.
func (s *state) set(i int, replicas []int32) {
	s.count(i, -1)
	s.parts[i].Replicas = replicas
	s.count(i, 1)
}

// move has a partition held by to in place of from, at the same position.
func (s *state) move(i int, from, to int32) { s.set(i, replaced(s.parts[i].Replicas, from, to)) }

// changes returns what differs from the beginning.
func (s *state) changes() []Change {
	var all []Change
	for i, p := range s.parts {
		if !slices.Equal(p.Replicas, s.from[i]) {
			all = append(all, Change{p.Topic, p.Partition, slices.Clone(s.from[i]), slices.Clone(p.Replicas), p.SizeBytes})
		}
	}
	return all
}

// active returns the brokers that may be given replicas.
func (s *state) active() []int32 {
	var ids []int32
	for _, b := range s.brokers {
		if b.Active {
			ids = append(ids, b.ID)
		}
	}
	return ids
}

// crowding counts the replicas that share a rack with one before them: 0 is a perfect spread.
func (s *state) crowding(replicas []int32) int {
	crowded := 0
	for i, id := range replicas {
		rack := s.rack[id]
		if rack != "" && slices.ContainsFunc(replicas[:i], func(other int32) bool { return s.rack[other] == rack }) {
			crowded++
		}
	}
	return crowded
}

// lightest returns the broker, of those given that do not hold the partition yet, that should take it in place of from: the one with the best spread
// over racks, then with the fewest bytes, then replicas, then replicas of the same topic.
func (s *state) lightest(i int, from int32, candidates []int32) (int32, error) {
	p := s.parts[i]
	best, found := int32(-1), false
	var bestKey [4]int64
	for _, id := range candidates {
		if slices.Contains(p.Replicas, id) {
			continue
		}
		l := s.load[id]
		key := [4]int64{int64(s.crowding(replaced(p.Replicas, from, id))), l.Bytes, int64(l.Replicas), int64(s.ofTopic(p.Topic, id))}
		if !found || slices.Compare(key[:], bestKey[:]) < 0 {
			best, bestKey, found = id, key, true
		}
	}
	if !found {
		return -1, fmt.Errorf("%s-%d on %v: %w", p.Topic, p.Partition, p.Replicas, ErrNoBroker)
	}
	return best, nil
}

// ofTopic counts the replicas of a topic that a broker holds.
func (s *state) ofTopic(topic string, id int32) int {
	n := 0
	first, _ := s.find(topic, -1)
	for i := first; i < len(s.parts) && s.parts[i].Topic == topic; i++ {
		if slices.Contains(s.parts[i].Replicas, id) {
			n++
		}
	}
	return n
}

func replaced(replicas []int32, from, to int32) []int32 {
	out := slices.Clone(replicas)
	for n, id := range out {
		if id == from {
			out[n] = to
		}
	}
	return out
}

// front puts one replica first and leaves the others in their order.
func front(replicas []int32, first int32) []int32 {
	return append([]int32{first}, without(replicas, []int32{first})...)
}

func without(a, b []int32) []int32 {
	var out []int32
	for _, id := range a {
		if !slices.Contains(b, id) {
			out = append(out, id)
		}
	}
	return out
}
