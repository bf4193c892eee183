package catalog

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// cluster is an image with active brokers 1 to n and one topic with the given replicas, all in sync.
func cluster(t *testing.T, n int32, configs map[string]string, replicas ...[]int32) *Image {
	t.Helper()
	img := NewImage()
	for b := int32(1); b <= n; b++ {
		img = with(t, img, RegisterBroker{Broker: Broker{ID: b, Incarnation: [16]byte{byte(b)}, Dirs: []DirID{{byte(b)}}}})
	}
	topic := NewTopic{Name: "t", ID: id(1), Configs: configs}
	for _, r := range replicas {
		topic.Partitions = append(topic.Partitions, Partition{Leader: r[0], Replicas: r, ISR: r})
	}
	return with(t, img, CreateTopics{[]NewTopic{topic}})
}

// state writes a partition: leader, leader epoch and partition epoch, replicas, in-sync set, and what else there is.
func state(p Partition) string {
	list := func(ids []int32) string { return strings.Trim(fmt.Sprint(ids), "[]") }
	s := fmt.Sprintf("%d e%d.%d of %s in %s", p.Leader, p.LeaderEpoch, p.PartitionEpoch, list(p.Replicas), list(p.ISR))
	for _, more := range []struct {
		name string
		ids  []int32
	}{{"adding", p.Adding}, {"removing", p.Removing}, {"elr", p.ELR}, {"last", p.LastKnownELR}} {
		if len(more.ids) > 0 {
			s += " " + more.name + " " + list(more.ids)
		}
	}
	if p.Recovering {
		s += " recovering"
	}
	return s
}

// then applies commands that are made of the image which they meet.
func then(t *testing.T, img *Image, steps ...func(*Image) Command) *Image {
	t.Helper()
	for _, step := range steps {
		img = with(t, img, step(img))
	}
	return img
}

func epochOf(img *Image, id int32) int64 { return img.broker(id).Epoch }

// broker commands by what is in the image when they are applied.
func fence(id int32) func(*Image) Command {
	return func(img *Image) Command { return FenceBroker{id, epochOf(img, id)} }
}

func unfence(id int32) func(*Image) Command {
	return func(img *Image) Command { return UnfenceBroker{id, epochOf(img, id)} }
}

func stop(id int32) func(*Image) Command {
	return func(img *Image) Command { return StopBroker{id, epochOf(img, id)} }
}

func unregister(id int32) func(*Image) Command {
	return func(*Image) Command { return UnregisterBroker{id} }
}

// restart registers another incarnation, which begins fenced.
func restart(id int32, unclean bool) func(*Image) Command {
	return func(img *Image) Command {
		b := *img.broker(id)
		b.Incarnation[1]++
		b.Fenced, b.Stopping = true, false
		return RegisterBroker{b, unclean}
	}
}

func configs(kv ...string) func(*Image) Command {
	return func(img *Image) Command {
		set := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			set[kv[i]] = kv[i+1]
		}
		return AlterConfigs{img.Version(), []ConfigChange{{ResourceTopic, "t", set}}}
	}
}

func elect(kind ElectionKind) func(*Image) Command {
	return func(*Image) Command { return ElectLeaders{kind, []PartitionRef{{id(1), 0}}} }
}

// TestElections tells the lives of one partition, as Kafka's controller would write them.
func TestElections(t *testing.T) {
	type step struct {
		do   func(*Image) Command
		want string
	}
	three := []int32{1, 2, 3}
	tests := []struct {
		name     string
		configs  map[string]string
		replicas []int32
		steps    []step
	}{
		{"a leader that is fenced is followed by the next in order", nil, three, []step{
			{fence(1), "2 e1.1 of 1 2 3 in 2 3"},
			{unfence(1), "2 e1.1 of 1 2 3 in 2 3"},
		}},
		{"a follower that is fenced leaves, and the leader's epoch stays", nil, three, []step{
			{fence(2), "1 e0.1 of 1 2 3 in 1 3"},
		}},
		{"below min.insync.replicas those that leave stay eligible", map[string]string{"min.insync.replicas": "2"}, three, []step{
			{fence(1), "2 e1.1 of 1 2 3 in 2 3"},
			{fence(2), "3 e2.2 of 1 2 3 in 3 elr 2"},
			{fence(3), "-1 e3.3 of 1 2 3 in  elr 2 3 last 3"},
			{unfence(1), "-1 e3.3 of 1 2 3 in  elr 2 3 last 3"},
			{unfence(2), "2 e4.4 of 1 2 3 in 2 elr 3"},
			{unfence(3), "2 e4.4 of 1 2 3 in 2 elr 3"},
		}},
		{"the only copy", nil, []int32{2}, []step{
			{fence(2), "-1 e1.1 of 2 in  elr 2 last 2"},
			{unfence(2), "2 e2.2 of 2 in 2"},
			{stop(2), "-1 e3.3 of 2 in  elr 2 last 2"},
			{fence(2), "-1 e3.3 of 2 in  elr 2 last 2"},
			{unfence(2), "-1 e3.3 of 2 in  elr 2 last 2"}, // it is still stopping
			{fence(2), "-1 e3.3 of 2 in  elr 2 last 2"},
			{restart(2, false), "-1 e3.3 of 2 in  elr 2 last 2"},
			{unfence(2), "2 e4.4 of 2 in 2"},
		}},
		{"the last leader comes back with a new disk", nil, []int32{2}, []step{
			{fence(2), "-1 e1.1 of 2 in  elr 2 last 2"},
			{restart(2, true), "-1 e1.2 of 2 in  last 2"},
			{unfence(2), "2 e2.3 of 2 in 2 recovering"},
		}},
		{"an unclean election needs the config", nil, three, []step{
			{fence(3), "1 e0.1 of 1 2 3 in 1 2"},
			{fence(1), "2 e1.2 of 1 2 3 in 2"},
			{unfence(3), "2 e1.2 of 1 2 3 in 2"},
			{fence(2), "-1 e2.3 of 1 2 3 in  elr 2 last 2"},
			{configs("unclean.leader.election.enable", "true"), "3 e3.4 of 1 2 3 in 3 recovering"},
			{unfence(2), "3 e3.4 of 1 2 3 in 3 recovering"},
		}},
		{"an unclean election at once", map[string]string{"unclean.leader.election.enable": "TRUE"}, three, []step{
			{fence(3), "1 e0.1 of 1 2 3 in 1 2"},
			{fence(1), "2 e1.2 of 1 2 3 in 2"},
			{unfence(3), "2 e1.2 of 1 2 3 in 2"},
			{fence(2), "3 e2.3 of 1 2 3 in 3 recovering"},
		}},
		{"unclean election on request", nil, []int32{1, 2}, []step{
			{fence(2), "1 e0.1 of 1 2 in 1"},
			{fence(1), "-1 e1.2 of 1 2 in  elr 1 last 1"},
			{unfence(2), "-1 e1.2 of 1 2 in  elr 1 last 1"},
			{elect(UncleanElection), "2 e2.3 of 1 2 in 2 recovering"},
		}},
		{"preferred election", nil, three, []step{
			{fence(1), "2 e1.1 of 1 2 3 in 2 3"},
			{unfence(1), "2 e1.1 of 1 2 3 in 2 3"},
			{func(img *Image) Command {
				return ChangeISR{2, epochOf(img, 2), []ISRChange{{Topic: id(1), LeaderEpoch: 1, PartitionEpoch: 1, ISR: []int32{2, 3, 1}}}}
			}, "2 e1.2 of 1 2 3 in 2 3 1"},
			{elect(PreferredElection), "1 e2.3 of 1 2 3 in 2 3 1"},
		}},
		{"a lower min.insync.replicas needs no eligible replicas", map[string]string{"min.insync.replicas": "2"}, []int32{1, 2}, []step{
			{fence(1), "2 e1.1 of 1 2 in 2 elr 1"},
			{configs("min.insync.replicas", "1"), "2 e1.2 of 1 2 in 2"},
		}},
		{"a broker that is unregistered is not eligible", map[string]string{"min.insync.replicas": "2"}, []int32{1, 2}, []step{
			{fence(1), "2 e1.1 of 1 2 in 2 elr 1"},
			{unregister(1), "2 e1.2 of 1 2 in 2"},
			{unregister(2), "-1 e2.3 of 1 2 in  last 2"},
		}},
		{"min.insync.replicas above the replication factor", map[string]string{"min.insync.replicas": "5"}, []int32{1, 2}, []step{
			{fence(2), "1 e0.1 of 1 2 in 1 elr 2"},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			img := cluster(t, 3, tt.configs, tt.replicas)
			for i, s := range tt.steps {
				img = then(t, img, s.do)
				if have := state(img.Topic("t").Partitions[0]); have != s.want {
					t.Fatalf("step %d:\nhave %s\nwant %s", i+1, have, s.want)
				}
			}
		})
	}
}

// TestWithoutEligibleReplicas: with the feature off the last member stays in the in-sync set.
func TestWithoutEligibleReplicas(t *testing.T) {
	img := NewImage()
	for b := int32(1); b <= 2; b++ {
		img = with(t, img, RegisterBroker{Broker: Broker{ID: b, Features: []FeatureRange{{FeatureELR, 0, 1}}}})
	}
	img = with(t, img, SetFeatures{[]FeatureUpdate{{FeatureELR, 0, true}}},
		CreateTopics{[]NewTopic{{Name: "u", ID: id(2), Partitions: []Partition{{Leader: 1, Replicas: []int32{1, 2}, ISR: []int32{1, 2}}}}}})
	for i, want := range []string{"2 e1.1 of 1 2 in 2", "-1 e2.2 of 1 2 in 2", "-1 e2.2 of 1 2 in 2", "2 e3.3 of 1 2 in 2"} {
		img = then(t, img, []func(*Image) Command{fence(1), fence(2), unfence(1), unfence(2)}[i])
		if have := state(img.Topic("u").Partitions[0]); have != want {
			t.Fatalf("step %d:\nhave %s\nwant %s", i+1, have, want)
		}
	}
}

// TestElectLeadersRefuses holds the errors of single items.
func TestElectLeadersRefuses(t *testing.T) {
	img := cluster(t, 3, nil, []int32{1, 2}, []int32{1, 2}, []int32{3, 2})
	img = then(t, img, fence(2), fence(1))
	refs := []PartitionRef{{id(1), 0}, {id(1), 2}, {id(1), 3}, {id(9), 0}}
	for kind, want := range [][]error{
		{ErrPreferredLeaderNotAvailable, ErrElectionNotNeeded, ErrUnknownTopic, ErrUnknownTopic},
		{ErrEligibleLeadersNotAvailable, ErrElectionNotNeeded, ErrUnknownTopic, ErrUnknownTopic},
	} {
		res, err := Apply(img, ElectLeaders{ElectionKind(kind), refs})
		if err != nil || !slices.Equal(res.Errors, want) || res.Image != img {
			t.Errorf("kind %d: have %v %v", kind, res.Errors, err)
		}
	}
}
