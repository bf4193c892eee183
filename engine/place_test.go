package engine

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
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
