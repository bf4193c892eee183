package placement

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

// brokers makes active brokers 1, 2, …, one for each rack given.
func brokers(racks ...string) []Broker {
	var all []Broker
	for i, r := range racks {
		all = append(all, Broker{int32(i + 1), r, true})
	}
	return all
}

// parts makes partitions of one topic with these replicas, all of one size.
func parts(size int64, replicas ...[]int32) []Partition {
	var all []Partition
	for i, r := range replicas {
		all = append(all, Partition{"t", int32(i), r, size})
	}
	return all
}

func write(changes []Change) []string {
	all := []string{}
	for _, c := range changes {
		all = append(all, fmt.Sprintf("%s-%d %v → %v", c.Topic, c.Partition, c.From, c.To))
	}
	return all
}

type list = []string

func TestDrain(t *testing.T) {
	tests := []struct {
		name string
		c    Cluster
		node int32
		want []string
		err  error
	}{
		{"nothing there", Cluster{brokers("", ""), parts(1, []int32{1})}, 2, list{}, nil},
		{"to the only other", Cluster{brokers("", ""), parts(1, []int32{1}, []int32{2})}, 1, list{"t-0 [1] → [2]"}, nil},
		{"each to who has least", Cluster{brokers("", "", ""), parts(1, []int32{1}, []int32{1}, []int32{2})}, 1, list{"t-0 [1] → [3]", "t-1 [1] → [2]"}, nil},
		{"the largest first", Cluster{brokers("", "", ""), []Partition{{"t", 0, []int32{1}, 1}, {"t", 1, []int32{1}, 10}, {"t", 2, []int32{1}, 5}, {"t", 3, []int32{1}, 4}}}, 1,
			list{"t-0 [1] → [3]", "t-1 [1] → [2]", "t-2 [1] → [3]", "t-3 [1] → [3]"}, nil},
		{"the free rack before the free disk", Cluster{brokers("a", "b", "b", "a"), []Partition{{"t", 0, []int32{2, 1}, 5}, {"u", 0, []int32{4}, 100}}}, 1, list{"t-0 [2 1] → [2 4]"}, nil},
		{"who holds it already leads", Cluster{brokers("", "", "", ""), parts(1, []int32{1, 2, 3})}, 1, list{"t-0 [1 2 3] → [2 4 3]"}, nil},
		{"who leads least leads", Cluster{brokers("", "", "", ""), parts(1, []int32{1, 2, 3}, []int32{2, 3, 4})}, 1, list{"t-0 [1 2 3] → [3 4 2]"}, nil},
		{"a broker that is gone", Cluster{brokers("", "", ""), parts(1, []int32{9, 1, 2})}, 9, list{"t-0 [9 1 2] → [1 3 2]"}, nil},
		{"a leader that is fenced is none", Cluster{[]Broker{{1, "", true}, {2, "", false}, {3, "", true}}, parts(1, []int32{1, 2})}, 1, list{"t-0 [1 2] → [3 2]"}, nil},
		{"nowhere to go", Cluster{brokers("", "", ""), parts(1, []int32{1, 2, 3}, []int32{2})}, 1, nil, ErrNoBroker},
		{"not to one that is fenced", Cluster{append(brokers("", ""), Broker{3, "", false}), parts(1, []int32{1, 2})}, 1, nil, ErrNoBroker},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Drain(tt.c, tt.node)
			if !errors.Is(err, tt.err) || (err == nil && !reflect.DeepEqual(write(got), tt.want)) {
				t.Fatalf("got %v, %v\nwant %v, %v", write(got), err, tt.want, tt.err)
			}
		})
	}
}

func TestRebalance(t *testing.T) {
	tests := []struct {
		name string
		c    Cluster
		want []string
	}{
		{"even already", Cluster{brokers("", ""), parts(5, []int32{1}, []int32{2})}, list{}},
		{"nobody is there", Cluster{nil, parts(5, []int32{1})}, list{}},
		{"one more is no reason", Cluster{brokers("", ""), parts(0, []int32{1}, []int32{2}, []int32{1})}, list{}},
		{"a new broker takes its share", Cluster{brokers("", "", ""), parts(3, []int32{1}, []int32{1}, []int32{2}, []int32{2}, []int32{1}, []int32{2})},
			list{"t-0 [1] → [3]", "t-2 [2] → [3]"}},
		{"three on three are only led anew", Cluster{brokers("", "", ""), parts(3, []int32{1, 2, 3}, []int32{1, 2, 3}, []int32{1, 2, 3})},
			list{"t-0 [1 2 3] → [2 1 3]", "t-1 [1 2 3] → [3 1 2]"}},
		{"leaderships are handed on in a chain", Cluster{brokers("", "", ""), parts(0, []int32{1, 2}, []int32{1, 2}, []int32{2, 3}, []int32{9, 3})},
			list{"t-0 [1 2] → [2 1]", "t-2 [2 3] → [3 2]"}},
		{"racks first", Cluster{brokers("a", "a", "b"), parts(3, []int32{1, 2}, []int32{3, 1})}, list{"t-0 [1 2] → [2 3]"}},
		{"racks hinder a move", Cluster{brokers("a", "a", "b"), parts(3, []int32{3, 1}, []int32{3, 1})}, list{"t-0 [3 1] → [2 3]"}},
		{"bytes by exchange", Cluster{brokers("", ""), []Partition{{"t", 0, []int32{1}, 100}, {"t", 1, []int32{1}, 60}, {"t", 2, []int32{2}, 10}, {"t", 3, []int32{2}, 10}}},
			list{"t-1 [1] → [2]", "t-2 [2] → [1]"}},
		{"bytes within the tolerance", Cluster{brokers("", ""), []Partition{{"t", 0, []int32{1}, 105}, {"t", 1, []int32{2}, 95}}}, list{}},
		{"one that is too large to move", Cluster{brokers("", ""), []Partition{{"t", 0, []int32{1}, 1000}, {"t", 1, []int32{2}, 1}}}, list{}},
		{"fenced ones are left alone", Cluster{append(brokers("", ""), Broker{3, "", false}), parts(1, []int32{3}, []int32{3}, []int32{3}, []int32{1}, []int32{2})}, list{}},
		{"gone ones are left alone", Cluster{brokers("", ""), parts(1, []int32{7, 1}, []int32{1, 2})}, list{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := write(Rebalance(tt.c)); !reflect.DeepEqual(got, tt.want) {
				t.Fatalf("got %v\nwant %v", got, tt.want)
			}
		})
	}
}

// random makes a cluster of up to eight brokers in up to three racks.
func random(r *rand.Rand) Cluster {
	var c Cluster
	racks := 1 + r.IntN(3)
	for i := range 2 + r.IntN(7) {
		c.Brokers = append(c.Brokers, Broker{int32(i + 1), string(rune('a' + i%racks)), r.IntN(10) > 0})
	}
	for i := range 1 + r.IntN(60) {
		var replicas []int32
		for _, n := range r.Perm(len(c.Brokers))[:1+r.IntN(min(3, len(c.Brokers)))] {
			replicas = append(replicas, c.Brokers[n].ID)
		}
		c.Partitions = append(c.Partitions, Partition{string(rune('a' + r.IntN(3))), int32(i), replicas, r.Int64N(1000)})
	}
	return c
}

// TestProperties holds plans for random clusters against what must always be so.
func TestProperties(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		c := random(r)
		node := c.Brokers[r.IntN(len(c.Brokers))].ID
		drained, err := Drain(c, node)
		for _, plan := range []struct {
			name    string
			changes []Change
		}{{"drain", drained}, {"rebalance", Rebalance(c)}} {
			complain := func(format string, args ...any) {
				t.Fatalf("seed %d, %s: %s\n%+v\n%v", seed, plan.name, fmt.Sprintf(format, args...), c, write(plan.changes))
			}
			after := applied(c, plan.changes)
			s, before := newState(after), newState(c)
			for i, p := range s.parts {
				old := before.parts[i].Replicas
				if sorted := slices.Sorted(slices.Values(p.Replicas)); len(sorted) != len(old) || len(slices.Compact(sorted)) != len(old) {
					complain("%s-%d has %v, had %v", p.Topic, p.Partition, p.Replicas, old)
				}
				for _, id := range without(p.Replicas, old) {
					if !slices.Contains(s.active(), id) {
						complain("%s-%d is given to %d, which is not active", p.Topic, p.Partition, id)
					}
				}
				if plan.name == "rebalance" && s.crowding(p.Replicas) > s.crowding(old) {
					complain("%s-%d: %v crowds racks more than %v", p.Topic, p.Partition, p.Replicas, old)
				}
				if plan.name == "drain" && err == nil && slices.Contains(p.Replicas, node) {
					complain("%s-%d is on %d still", p.Topic, p.Partition, node)
				}
			}
			if again := Rebalance(after); plan.name == "rebalance" && len(again) > 0 {
				complain("done twice it changes more: %v", write(again))
			}
			// The order in which things are told does not matter.
			shuffled := Cluster{slices.Clone(c.Brokers), slices.Clone(c.Partitions)}
			r.Shuffle(len(shuffled.Brokers), func(i, j int) {
				shuffled.Brokers[i], shuffled.Brokers[j] = shuffled.Brokers[j], shuffled.Brokers[i]
			})
			r.Shuffle(len(shuffled.Partitions), func(i, j int) {
				shuffled.Partitions[i], shuffled.Partitions[j] = shuffled.Partitions[j], shuffled.Partitions[i]
			})
			same := Rebalance(shuffled)
			if plan.name == "drain" {
				same, _ = Drain(shuffled, node)
			}
			if !reflect.DeepEqual(same, plan.changes) {
				complain("in another order: %v", write(same))
			}
		}
	}
}

// TestBalance adds an empty broker to a large even cluster: it gets its share, and no more is copied than that.
func TestBalance(t *testing.T) {
	c := Cluster{Brokers: brokers("", "", "", "")}
	for i := range int32(300) {
		c.Partitions = append(c.Partitions, Partition{"t", i, []int32{1 + i%3, 1 + (i+1)%3, 1 + (i+2)%3}, 100})
	}
	changes := Rebalance(c)
	copied := 0
	for _, ch := range changes {
		copied += len(ch.Adding())
	}
	if copied != 225 {
		t.Errorf("%d replicas are copied, want the new broker's share, 225", copied)
	}
	for _, l := range Loads(c, changes) {
		if l.Replicas != 225 || l.Bytes != 22500 || l.Leads != 75 {
			t.Errorf("broker %+v, want 225 replicas, 22500 bytes, 75 leaderships", l)
		}
	}
}

// TestLarge shows that a plan for many partitions does not take minutes.
func TestLarge(t *testing.T) {
	c := Cluster{Brokers: brokers("a", "b", "c", "a", "b", "c")}
	r := rand.New(rand.NewPCG(1, 1))
	for i := range int32(3000) {
		first := 1 + i%3
		c.Partitions = append(c.Partitions, Partition{"t", i, []int32{first, first%3 + 1, (first+1)%3 + 1}, r.Int64N(1 << 30)})
	}
	var lowest, highest int64 = 1 << 62, 0
	for _, l := range Loads(c, Rebalance(c)) {
		lowest, highest = min(lowest, l.Bytes), max(highest, l.Bytes)
	}
	if highest > lowest*5/4 {
		t.Errorf("bytes from %d to %d", lowest, highest)
	}
}

func applied(c Cluster, changes []Change) Cluster {
	s := newState(c)
	for _, ch := range changes {
		i, _ := s.find(ch.Topic, ch.Partition)
		s.set(i, ch.To)
	}
	return Cluster{c.Brokers, s.parts}
}
