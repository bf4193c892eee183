package catalog

import (
	"errors"
	"slices"
	"testing"
)

func reassign(replicas ...int32) func(*Image) Command {
	return func(*Image) Command { return Reassign{[]Reassignment{{Topic: id(1), Replicas: replicas}}} }
}

// inSync is what the leader says of the first partition.
func inSync(ids ...int32) func(*Image) Command {
	return func(img *Image) Command {
		p := img.Topic("t").Partitions[0]
		return ChangeISR{p.Leader, epochOf(img, p.Leader), []ISRChange{{Topic: id(1), LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch, ISR: ids}}}
	}
}

// TestReassignments tells the lives of one partition that is given other replicas.
func TestReassignments(t *testing.T) {
	type step struct {
		do   func(*Image) Command
		want string
	}
	tests := []struct {
		name     string
		configs  map[string]string
		replicas []int32
		steps    []step
	}{
		{"one replica for another", nil, []int32{1, 2, 3}, []step{
			{reassign(1, 2, 4), "1 e0.1 of 1 2 4 3 in 1 2 3 adding 4 removing 3"},
			{inSync(1, 2, 3, 4), "1 e1.2 of 1 2 4 in 1 2 4"}, // the leader's epoch rises, so that broker 3 is told off
		}},
		{"all of them, so the leader moves", nil, []int32{1, 2}, []step{
			{reassign(3, 4), "1 e0.1 of 3 4 1 2 in 1 2 adding 3 4 removing 1 2"},
			{inSync(1, 2, 4), "1 e0.2 of 3 4 1 2 in 1 2 4 adding 3 4 removing 1 2"},
			{inSync(1, 4, 3), "3 e1.3 of 3 4 in 4 3"},
		}},
		{"another order is done at once, and the leader stays", nil, []int32{1, 2, 3}, []step{
			{reassign(3, 1, 2), "1 e0.1 of 3 1 2 in 1 2 3"},
			{elect(PreferredElection), "3 e1.2 of 3 1 2 in 1 2 3"},
		}},
		{"fewer are done at once when they are in sync", nil, []int32{1, 2, 3}, []step{
			{reassign(2, 3), "2 e1.1 of 2 3 in 2 3"},
		}},
		{"fewer, when not all that stay are in sync", nil, []int32{1, 2, 3}, []step{
			{fence(3), "1 e0.1 of 1 2 3 in 1 2"},
			{reassign(2, 3), "1 e0.2 of 2 3 1 in 1 2 removing 1"},
			{unfence(3), "1 e0.2 of 2 3 1 in 1 2 removing 1"},
			{inSync(1, 2, 3), "2 e1.3 of 2 3 in 2 3"},
		}},
		{"more replicas", nil, []int32{1}, []step{
			{reassign(1, 2, 3), "1 e0.1 of 1 2 3 in 1 adding 2 3"},
			{inSync(1, 2), "1 e0.2 of 1 2 3 in 1 2 adding 2 3"},
			{inSync(1, 2, 3), "1 e0.3 of 1 2 3 in 1 2 3"},
		}},
		{"cancelled", nil, []int32{1, 2, 3}, []step{
			{reassign(4, 2, 3), "1 e0.1 of 4 2 3 1 in 1 2 3 adding 4 removing 1"},
			{reassign(), "1 e1.2 of 2 3 1 in 1 2 3"},
		}},
		{"cancelled when one that is added is in sync", nil, []int32{1, 2}, []step{
			{reassign(3, 4), "1 e0.1 of 3 4 1 2 in 1 2 adding 3 4 removing 1 2"},
			{inSync(1, 2, 3), "1 e0.2 of 3 4 1 2 in 1 2 3 adding 3 4 removing 1 2"},
			{fence(1), "3 e1.3 of 3 4 1 2 in 2 3 adding 3 4 removing 1 2"},
			{reassign(), "2 e2.4 of 1 2 in 2"},
		}},
		{"cancelled unclean", map[string]string{"unclean.leader.election.enable": "true"}, []int32{1, 2}, []step{
			{reassign(3, 4), "1 e0.1 of 3 4 1 2 in 1 2 adding 3 4 removing 1 2"},
			{inSync(1, 2, 3), "1 e0.2 of 3 4 1 2 in 1 2 3 adding 3 4 removing 1 2"},
			{inSync(1, 3), "1 e0.3 of 3 4 1 2 in 1 3 adding 3 4 removing 1 2"},
			{fence(1), "3 e1.4 of 3 4 1 2 in 3 adding 3 4 removing 1 2"},
			{reassign(), "2 e2.5 of 1 2 in 2 recovering"},
		}},
		{"changed on the way", nil, []int32{1, 2}, []step{
			{reassign(3, 4), "1 e0.1 of 3 4 1 2 in 1 2 adding 3 4 removing 1 2"},
			{reassign(1, 5), "1 e0.2 of 1 5 2 3 4 in 1 2 adding 5 removing 2 3 4"},
			{inSync(1, 2, 5), "1 e1.3 of 1 5 in 1 5"},
		}},
		{"back to all of them", nil, []int32{1, 2}, []step{
			{reassign(3, 4), "1 e0.1 of 3 4 1 2 in 1 2 adding 3 4 removing 1 2"},
			{reassign(1, 2, 3, 4), "1 e0.2 of 1 2 3 4 in 1 2 adding 3 4"},
			{inSync(1, 2, 3, 4), "1 e0.3 of 1 2 3 4 in 1 2 3 4"},
		}},
		{"completed by the death of one that is removed", nil, []int32{1, 2, 3}, []step{
			{fence(3), "1 e0.1 of 1 2 3 in 1 2"},
			{reassign(2, 3), "1 e0.2 of 2 3 1 in 1 2 removing 1"},
			{unfence(3), "1 e0.2 of 2 3 1 in 1 2 removing 1"},
			{fence(1), "2 e1.3 of 2 3 1 in 2 removing 1"},
			{inSync(2, 3), "2 e2.4 of 2 3 in 2 3"},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			img := cluster(t, 5, tt.configs, tt.replicas)
			for i, s := range tt.steps {
				img = then(t, img, s.do)
				if have := state(img.Topic("t").Partitions[0]); have != s.want {
					t.Fatalf("step %d:\nhave %s\nwant %s", i+1, have, s.want)
				}
				listed := 0
				for range img.Reassigning() {
					listed++
				}
				if p := img.Topic("t").Partitions[0]; p.Reassigning() != (listed == 1) {
					t.Errorf("step %d: %d are listed", i+1, listed)
				}
			}
		})
	}
}

// TestReassignRefuses holds the errors of single items.
func TestReassignRefuses(t *testing.T) {
	img := cluster(t, 4, nil, []int32{1, 2}, []int32{1, 2}, []int32{3, 4}, []int32{1})
	img = with(t, img, Reassign{[]Reassignment{{Topic: id(1), Partition: 1, Replicas: []int32{1, 3}}, {Topic: id(1), Partition: 3, Replicas: []int32{2}}}})
	img = with(t, img, ChangeISR{1, epochOf(img, 1), []ISRChange{{Topic: id(1), Partition: 1, PartitionEpoch: 1, ISR: []int32{1}}}})
	tests := []struct {
		name string
		r    Reassignment
		want error
	}{
		{"no such topic", Reassignment{Topic: id(9)}, ErrUnknownTopic},
		{"no such partition", Reassignment{Partition: 4}, ErrUnknownTopic},
		{"nothing to cancel", Reassignment{}, ErrNoReassignment},
		{"no replicas", Reassignment{Replicas: []int32{}}, ErrInvalidAssignment},
		{"no such broker", Reassignment{Replicas: []int32{1, 5}}, ErrInvalidAssignment},
		{"negative broker", Reassignment{Replicas: []int32{-1}}, ErrInvalidAssignment},
		{"twice", Reassignment{Replicas: []int32{1, 1}}, ErrInvalidAssignment},
		{"more", Reassignment{Replicas: []int32{1, 2, 3}, KeepFactor: true}, ErrFactorChanged},
		{"as many as there will be", Reassignment{Partition: 1, Replicas: []int32{2, 3}, KeepFactor: true}, nil},
		{"as many as there are on the way", Reassignment{Partition: 1, Replicas: []int32{2, 3, 1}, KeepFactor: true}, ErrFactorChanged},
		{"a broker that is fenced is taken", Reassignment{Replicas: []int32{1, 4}}, nil},
	}
	img = then(t, img, fence(4))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.r.Topic == (TopicID{}) {
				tt.r.Topic = id(1)
			}
			res, err := Apply(img, Reassign{[]Reassignment{tt.r}})
			if err != nil || !errors.Is(res.Errors[0], tt.want) {
				t.Errorf("have %v %v, want %v", res.Errors, err, tt.want)
			}
		})
	}
	// Cancelling when only replicas that are added are in sync would lose records.
	img = with(t, img, ChangeISR{1, epochOf(img, 1), []ISRChange{{Topic: id(1), Partition: 1, PartitionEpoch: 2, ISR: []int32{1, 3}}}})
	if have := state(img.Topic("t").Partitions[1]); have != "1 e1.3 of 1 3 in 1 3" {
		t.Fatal(have)
	}
	img = cluster(t, 3, nil, []int32{1})
	img = then(t, img, reassign(3, 2), inSync(1, 2), fence(1), fence(2), unfence(2))
	if have := state(img.Topic("t").Partitions[0]); have != "2 e3.5 of 3 2 1 in 2 adding 2 3 removing 1" {
		t.Fatal(have)
	}
	if res, _ := Apply(img, reassign()(img)); !errors.Is(res.Errors[0], ErrUncleanCancel) {
		t.Errorf("have %v", res.Errors)
	}
}

// TestReassignmentKeepsDirs: directories stay with their replicas.
func TestReassignmentKeepsDirs(t *testing.T) {
	img := cluster(t, 4, nil, []int32{1, 2})
	img = with(t, img, AssignDirs{[]ReplicaDir{{Topic: id(1), Broker: 1, Dir: DirID{1}}, {Topic: id(1), Broker: 2, Dir: DirID{2}, Future: DirID{9}}}})
	img = then(t, img, reassign(3, 2))
	p := img.Topic("t").Partitions[0]
	if !slices.Equal(p.Replicas, []int32{3, 2, 1}) || p.Dir(1) != (DirID{1}) || p.Dir(2) != (DirID{2}) || p.Dir(3) != (DirID{}) || p.Future(2) != (DirID{9}) || len(p.Futures) != 3 {
		t.Errorf("have %+v", p)
	}
}
