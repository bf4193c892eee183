package engine

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/engine/catalog"
)

func racked(racks ...string) []candidate {
	var all []candidate
	for _, r := range racks {
		name, fenced := strings.CutSuffix(r, "!")
		all = append(all, candidate{id: int32(len(all) + 1), rack: name, fenced: fenced})
	}
	return all
}

func placed(seed uint64, brokers []candidate, count, factor int) [][]int32 {
	p := newPlacer(rand.New(rand.NewPCG(seed, 1)), brokers, factor)
	all := make([][]int32, count)
	for i := range all {
		all[i] = p.next()
	}
	return all
}

// unevenness is how far apart the most and the least used broker are.
func unevenness(uses map[int32]int, brokers int) int {
	least := 0
	if len(uses) == brokers {
		least = slices.Min(slices.Collect(maps.Values(uses)))
	}
	return slices.Max(slices.Collect(maps.Values(uses))) - least
}

// TestPlacerSpreads: distinct brokers, leaders and replicas evenly, and every partition on as many racks as there are.
func TestPlacerSpreads(t *testing.T) {
	tests := []struct {
		brokers []candidate
		factor  int
	}{
		{racked("", "", ""), 1}, {racked("", "", ""), 2}, {racked("", "", ""), 3}, {racked("", "", "", "", ""), 3},
		{racked("a", "b", "c"), 3}, {racked("a", "a", "b", "b", "c", "c"), 3}, {racked("a", "a", "b", "b"), 3}, {racked("a", "b"), 1}, {racked("x"), 1},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.brokers, tt.factor), func(t *testing.T) {
			racks := map[string]bool{}
			rackOf := map[int32]string{}
			for _, b := range tt.brokers {
				racks[b.rack], rackOf[b.id] = true, b.rack
			}
			for seed := range uint64(20) {
				leads, uses := map[int32]int{}, map[int32]int{}
				for _, replicas := range placed(seed, tt.brokers, 10*len(tt.brokers), tt.factor) {
					on := map[string]bool{}
					seen := map[int32]bool{}
					leads[replicas[0]]++
					for _, id := range replicas {
						uses[id]++
						on[rackOf[id]], seen[id] = true, true
					}
					if len(replicas) != tt.factor || len(seen) != tt.factor || len(on) != min(len(racks), tt.factor) {
						t.Fatalf("seed %d: %v", seed, replicas)
					}
				}
				if unevenness(leads, len(tt.brokers)) > 0 || unevenness(uses, len(tt.brokers)) > 0 {
					t.Errorf("seed %d: leaders %v, replicas %v", seed, leads, uses)
				}
			}
		})
	}
}

// TestPlacerIsEvenOnOneRack: within each round of as many partitions as brokers, each leads once.
func TestPlacerIsEvenOnOneRack(t *testing.T) {
	for seed := range uint64(50) {
		leads := map[int32]int{}
		for _, replicas := range placed(seed, racked("", "", "", ""), 4, 3) {
			leads[replicas[0]]++
		}
		if len(leads) != 4 {
			t.Errorf("seed %d: %v", seed, leads)
		}
	}
}

// TestPlacerFenced: fenced brokers come last within their rack, and never first of all.
func TestPlacerFenced(t *testing.T) {
	for seed := range uint64(50) {
		for _, replicas := range placed(seed, racked("", "", "!", ""), 12, 3) {
			if slices.Contains(replicas, 3) {
				t.Errorf("seed %d: broker 3 is fenced and not needed: %v", seed, replicas)
			}
		}
		for _, replicas := range placed(seed, racked("", "!", "!"), 12, 3) {
			if replicas[0] != 1 || len(replicas) != 3 {
				t.Errorf("seed %d: %v", seed, replicas)
			}
		}
		for _, replicas := range placed(seed, racked("a!", "b", "c"), 12, 2) {
			if replicas[0] == 1 {
				t.Errorf("seed %d: a fenced broker leads: %v", seed, replicas)
			}
		}
	}
}

// TestPlacerDraws: the same source of random numbers gives the same places, another one others.
func TestPlacerDraws(t *testing.T) {
	brokers := racked("a", "a", "b", "b", "c", "c")
	one := fmt.Sprint(placed(1, brokers, 30, 3))
	if fmt.Sprint(placed(1, brokers, 30, 3)) != one {
		t.Error("it is not decided by the source")
	}
	slices.Reverse(brokers)
	if fmt.Sprint(placed(1, brokers, 30, 3)) != one {
		t.Error("the order of the brokers matters")
	}
	if fmt.Sprint(placed(2, brokers, 30, 3)) == one {
		t.Error("it is not drawn")
	}
}

// TestPlacerRefuses holds the words of Apache Kafka 4.3.
func TestPlacerRefuses(t *testing.T) {
	tests := []struct {
		brokers []candidate
		factor  int
		want    string
	}{
		{racked("", ""), 2, ""},
		{racked("", ""), 3, "The target replication factor of 3 cannot be reached because only 2 broker(s) are registered or some brokers have all their log directories cordoned."},
		{racked("!", "!"), 1, "All brokers are currently fenced, or have all their log directories cordoned."},
		{nil, 1, "All brokers are currently fenced, or have all their log directories cordoned."},
		{racked(""), 0, "Invalid replication factor 0: the replication factor must be positive."},
	}
	for _, tt := range tests {
		if have := newPlacer(rand.New(rand.NewPCG(1, 1)), tt.brokers, tt.factor).check(); have != tt.want {
			t.Errorf("%v %d:\nhave %s\nwant %s", tt.brokers, tt.factor, have, tt.want)
		}
	}
}

// TestCreateAmongFenced: what topics become when some brokers are fenced or stopping, in Kafka's words.
func TestCreateAmongFenced(t *testing.T) {
	topics := openTopics(t, nil)
	propose := func(cmd catalog.Command) {
		t.Helper()
		res, err := topics.catalog.Propose(t.Context(), cmd)
		if err := errors.Join(append(res.Errors, err)...); err != nil {
			t.Fatal(err)
		}
	}
	for id := range int32(4) {
		propose(catalog.RegisterBroker{Broker: catalog.Broker{ID: id}})
	}
	propose(catalog.FenceBroker{ID: 2, Epoch: 3})
	propose(catalog.StopBroker{ID: 3, Epoch: 4})
	create := func(n NewTopic) string { return refusal(topics.Create(t.Context(), []NewTopic{n}, false)[0].Err) }
	if have := create(NewTopic{Name: "three", Partitions: 3, ReplicationFactor: 3}); have != "" {
		t.Fatal(have)
	}
	for i, p := range topics.catalog.Image().Topic("three").Partitions {
		if slices.Contains(p.Replicas, 3) || len(p.ISR) != 2 || slices.Contains(p.ISR, 2) || p.Leader != p.Replicas[0] || p.Leader > 1 {
			t.Errorf("partition %d: %+v", i, p)
		}
	}
	four := NewTopic{Name: "four", Partitions: 1, ReplicationFactor: 4}
	if have, want := create(four), "invalid replication factor: Unable to replicate the partition 4 time(s): The target replication factor of 4 cannot be reached because only 3 broker(s) are registered or some brokers have all their log directories cordoned."; have != want {
		t.Errorf("\nhave %s\nwant %s", have, want)
	}
	if have, want := create(assigned("none", Assignment{0, []int32{2, 3}})), "invalid replica assignment: All brokers specified in the manual partition assignment for partition 0 are fenced or in controlled shutdown."; have != want {
		t.Errorf("\nhave %s\nwant %s", have, want)
	}
	if have := create(assigned("some", Assignment{0, []int32{2, 1}})); have != "" {
		t.Error(have)
	} else if p := topics.catalog.Image().Topic("some").Partitions[0]; p.Leader != 1 || !slices.Equal(p.ISR, []int32{1}) {
		t.Errorf("have %+v", p)
	}
	propose(catalog.FenceBroker{ID: 0, Epoch: 1})
	propose(catalog.FenceBroker{ID: 1, Epoch: 2})
	if have, want := create(NewTopic{Name: "dead", Partitions: 1, ReplicationFactor: 1}), "invalid replication factor: Unable to replicate the partition 1 time(s): All brokers are currently fenced, or have all their log directories cordoned."; have != want {
		t.Errorf("\nhave %s\nwant %s", have, want)
	}
	grown := topics.CreatePartitions(t.Context(), []MorePartitions{{Topic: "three", Count: 4}}, false)
	if have, want := refusal(grown[0].Err), "invalid replication factor: All brokers are currently fenced, or have all their log directories cordoned."; have != want {
		t.Errorf("\nhave %s\nwant %s", have, want)
	}
}

// TestCreateAgain: a topic that was planned on a broker which is fenced meanwhile is planned again.
func TestCreateAgain(t *testing.T) {
	topics := openTopics(t, nil)
	for id := range int32(2) {
		if _, err := topics.catalog.Propose(t.Context(), catalog.RegisterBroker{Broker: catalog.Broker{ID: id}}); err != nil {
			t.Fatal(err)
		}
	}
	plans := 0
	topics.dirs = func(count int) []catalog.DirID { // is asked once for each plan
		if plans++; plans == 1 {
			if _, err := topics.catalog.Propose(t.Context(), catalog.FenceBroker{ID: 0, Epoch: 1}); err != nil {
				t.Error(err)
			}
		}
		return make([]catalog.DirID, count)
	}
	r := topics.Create(t.Context(), []NewTopic{{Name: "t", Partitions: 2, ReplicationFactor: 1}}, false)[0]
	if r.Err != nil || plans != 2 {
		t.Fatalf("%v after %d plans", r.Err, plans)
	}
	for i, p := range topics.catalog.Image().Topic("t").Partitions {
		if p.Leader != 1 {
			t.Errorf("partition %d: %+v", i, p)
		}
	}
}
