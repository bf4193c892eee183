package catalog

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

func id(n byte) TopicID { return TopicID{n, 1} }

func parts(n int) []Partition {
	ps := make([]Partition, n)
	for i := range ps {
		ps[i] = Partition{Leader: 1, Replicas: []int32{1}, ISR: []int32{1}}
	}
	return ps
}

// with applies commands and fails the test when one, or an item of one, does not take.
func with(t *testing.T, img *Image, cmds ...Command) *Image {
	t.Helper()
	for _, cmd := range cmds {
		res, err := Apply(img, cmd)
		if err := errors.Join(append(res.Errors, err)...); err != nil {
			t.Fatalf("%+v: %v", cmd, err)
		}
		img = res.Image
	}
	return img
}

func TestApplyJudgesItems(t *testing.T) {
	base := with(t, NewImage(),
		CreateTopics{[]NewTopic{{Name: "a", ID: id(1), Partitions: parts(2)}, {Name: "b", ID: id(2), Partitions: parts(1), Configs: map[string]string{"k": "v"}}}},
		AlterConfigs{Base: 1, Changes: []ConfigChange{{Type: ResourceBroker, Name: "1", Configs: map[string]string{"x": "1"}}}})
	tests := []struct {
		name   string
		cmd    Command
		errs   []error
		events []EventKind // nil: nothing changes
	}{
		{"create", CreateTopics{[]NewTopic{{Name: "c", ID: id(3), Partitions: parts(1)}}}, []error{nil}, []EventKind{TopicCreated}},
		{"create what exists, beside what does not", CreateTopics{[]NewTopic{{Name: "a", ID: id(3), Partitions: parts(1)}, {Name: "c", ID: id(4), Partitions: parts(1)}}}, []error{ErrTopicExists, nil}, []EventKind{TopicCreated}},
		{"create twice in one command", CreateTopics{[]NewTopic{{Name: "c", ID: id(3), Partitions: parts(1)}, {Name: "c", ID: id(4), Partitions: parts(1)}}}, []error{nil, ErrTopicExists}, []EventKind{TopicCreated}},
		{"create with an id in use", CreateTopics{[]NewTopic{{Name: "c", ID: id(1), Partitions: parts(1)}}}, []error{ErrInvalid}, nil},
		{"create without id", CreateTopics{[]NewTopic{{Name: "c", Partitions: parts(1)}}}, []error{ErrInvalid}, nil},
		{"create without partitions", CreateTopics{[]NewTopic{{Name: "c", ID: id(3)}}}, []error{ErrInvalid}, nil},
		{"delete", DeleteTopics{[]TopicID{id(1)}}, []error{nil}, []EventKind{TopicDeleted}},
		{"delete twice", DeleteTopics{[]TopicID{id(1), id(1)}}, []error{nil, ErrUnknownTopic}, []EventKind{TopicDeleted}},
		{"more partitions", CreatePartitions{[]MorePartitions{{ID: id(1), From: 2, Partitions: parts(3)}}}, []error{nil}, []EventKind{PartitionsAdded}},
		{"more partitions, planned on another count", CreatePartitions{[]MorePartitions{{ID: id(1), From: 1, Partitions: parts(3)}}}, []error{ErrConflict}, nil},
		{"more partitions of nothing", CreatePartitions{[]MorePartitions{{ID: id(9), From: 1, Partitions: parts(3)}}}, []error{ErrUnknownTopic}, nil},
		{"configs of a topic", AlterConfigs{2, []ConfigChange{{ResourceTopic, "a", map[string]string{"k": "w"}}}}, []error{nil}, []EventKind{ConfigsChanged}},
		{"the same configs", AlterConfigs{2, []ConfigChange{{ResourceTopic, "b", map[string]string{"k": "v"}}}}, []error{nil}, nil},
		{"configs of no topic", AlterConfigs{2, []ConfigChange{{ResourceTopic, "z", nil}}}, []error{ErrUnknownTopic}, nil},
		{"configs planned before they changed", AlterConfigs{1, []ConfigChange{{ResourceBroker, "1", map[string]string{"x": "2"}}, {ResourceBroker, "2", map[string]string{"x": "2"}}}}, []error{ErrConflict, nil}, []EventKind{ConfigsChanged}},
		{"configs removed", AlterConfigs{2, []ConfigChange{{ResourceBroker, "1", nil}}}, []error{nil}, []EventKind{ConfigsChanged}},
		{"producer ids", AllocateProducerIDs{1, 1000}, []error{nil}, []EventKind{ProducerIDsAllocated}},
		{"no producer ids", AllocateProducerIDs{1, 0}, []error{ErrInvalid}, nil},
		{"broker", RegisterBroker{Broker: Broker{ID: 4}}, []error{nil}, []EventKind{BrokerRegistered}},
		{"cluster", SetCluster{"x"}, []error{nil}, []EventKind{ClusterSet}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := dump(base)
			res, err := Apply(base, tt.cmd)
			if err != nil || !slices.EqualFunc(res.Errors, tt.errs, errors.Is) {
				t.Fatalf("have %v %v, want %v", res.Errors, err, tt.errs)
			}
			var events []EventKind
			if res.Image != base {
				for _, e := range res.Image.Events() {
					events = append(events, e.Kind)
				}
				if res.Image.Version() != base.Version()+1 {
					t.Errorf("version %d after %d", res.Image.Version(), base.Version())
				}
			}
			if !slices.Equal(events, tt.events) {
				t.Errorf("events %v, want %v", events, tt.events)
			}
			if dump(base) != before {
				t.Error("the old image changed")
			}
		})
	}
}

// TestConfigsRemovedMeanwhile: a plan that was made on configs that are gone is refused.
func TestConfigsRemovedMeanwhile(t *testing.T) {
	img := with(t, NewImage(), AlterConfigs{0, []ConfigChange{{ResourceGroup, "g", map[string]string{"x": "1"}}}})
	planned := img.Version()
	img = with(t, img, AlterConfigs{planned, []ConfigChange{{ResourceGroup, "g", nil}}})
	res, _ := Apply(img, AlterConfigs{planned, []ConfigChange{{ResourceGroup, "g", map[string]string{"x": "1", "y": "2"}}}})
	if !errors.Is(res.Errors[0], ErrConflict) {
		t.Errorf("have %v", res.Errors)
	}
}

func TestProducerIDBlocksDoNotOverlap(t *testing.T) {
	img, next := NewImage(), int64(0)
	for _, count := range []int64{1000, 1, 500} {
		res, err := Apply(img, AllocateProducerIDs{1, count})
		if err != nil || res.FirstProducerID != next {
			t.Fatalf("have %d %v, want %d", res.FirstProducerID, err, next)
		}
		img, next = res.Image, next+count
	}
}

// dump writes everything in an image, for comparing.
func dump(img *Image) string {
	s := fmt.Sprintf("v%d %q pid%d topics=%d partitions=%d removed=%d brokers=%+v features=%v\n", img.version, img.clusterID, img.nextProducerID, img.topicCount, img.partitionCount, img.configsRemoved, img.brokers, img.features)
	var topics []*Topic
	for _, shard := range img.byName {
		topics = slices.AppendSeq(topics, maps.Values(shard))
	}
	slices.SortFunc(topics, func(a, b *Topic) int { return slices.Compare([]byte(a.Name), []byte(b.Name)) })
	for _, t := range topics {
		if img.TopicByID(t.ID) != t {
			s += "NOT FOUND BY ID "
		}
		s += fmt.Sprintf("%+v\n", *t)
	}
	for _, kind := range []ResourceType{ResourceBroker, ResourceClientMetrics, ResourceGroup} {
		for _, name := range img.ConfigNames(kind) {
			s += fmt.Sprintf("%d %q %+v\n", kind, name, img.configs[configKey{kind, name}])
		}
	}
	return s
}

// randomCommand draws a command that mostly fits what exists.
func randomCommand(r *rand.Rand, img *Image) Command {
	pick := func() *Topic {
		all := img.Topics()
		if len(all) == 0 {
			return &Topic{Name: "none", ID: id(0)}
		}
		return all[r.IntN(len(all))]
	}
	configs := map[string]string{}
	for range r.IntN(3) {
		configs[fmt.Sprint("k", r.IntN(3))] = fmt.Sprint(r.IntN(100))
	}
	switch r.IntN(9) {
	case 8:
		var c AssignDirs
		for range 1 + r.IntN(3) {
			t := pick()
			if len(t.Partitions) == 0 {
				continue
			}
			i := r.Int32N(int32(len(t.Partitions)))
			p := t.Partitions[i]
			dir, future := DirID{1}, DirID{byte(r.IntN(4))}
			if known := p.Dir(1); known != (DirID{}) {
				dir = known
			}
			if was := p.Future(1); was != (DirID{}) && r.IntN(2) == 0 {
				dir, future = was, DirID{}
			}
			c.Replicas = append(c.Replicas, ReplicaDir{Topic: t.ID, Partition: i, Broker: 1, Dir: dir, Future: future})
		}
		return c
	case 0, 1, 2:
		var c CreateTopics
		for range 1 + r.IntN(3) {
			n := NewTopic{Name: fmt.Sprint("t", r.IntN(60)), Partitions: parts(1 + r.IntN(3*chunkPartitions)), Configs: configs}
			for i := range n.ID {
				n.ID[i] = byte(r.Uint32())
			}
			c.Topics = append(c.Topics, n)
		}
		return c
	case 3:
		return DeleteTopics{[]TopicID{pick().ID, pick().ID}}
	case 4:
		t := pick()
		return CreatePartitions{[]MorePartitions{{t.ID, len(t.Partitions), parts(1 + r.IntN(chunkPartitions))}}}
	case 5:
		return AlterConfigs{img.Version(), []ConfigChange{{ResourceTopic, pick().Name, configs}, {ResourceBroker, fmt.Sprint(r.IntN(3)), configs}}}
	case 6:
		return AllocateProducerIDs{1, int64(1 + r.IntN(1000))}
	}
	return RegisterBroker{Broker: Broker{ID: int32(r.IntN(4)), Rack: fmt.Sprint(r.IntN(3)), Endpoints: []Endpoint{{"PLAINTEXT", "h", int32(r.IntN(9))}}}}
}

// TestApplyIsDeterministic: the same commands, also through their encoding, make
// the same image, and the counters agree with a count.
func TestApplyIsDeterministic(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	one, two := NewImage(), NewImage()
	for range 100 {
		cmd := randomCommand(r, one)
		b, err := EncodeCommand(cmd)
		if err != nil {
			t.Fatal(err)
		}
		decoded, err := DecodeCommand(b)
		if err != nil || !reflect.DeepEqual(decoded, cmd) {
			t.Fatalf("have %+v %v\nwant %+v", decoded, err, cmd)
		}
		resOne, _ := Apply(one, cmd)
		resTwo, _ := Apply(two, decoded)
		one, two = resOne.Image, resTwo.Image
		partitions := 0
		for _, topic := range one.Topics() {
			partitions += len(topic.Partitions)
		}
		if len(one.Topics()) != one.TopicCount() || partitions != one.PartitionCount() {
			t.Fatalf("counts %d, %d; have %d, %d", one.TopicCount(), one.PartitionCount(), len(one.Topics()), partitions)
		}
	}
	if dump(one) != dump(two) {
		t.Error("two images of one history differ")
	}
}

func TestDecodeCommandRefuses(t *testing.T) {
	for _, b := range [][]byte{nil, {1}, {2, 2, '{', '}'}, {1, 99, '{', '}'}, {0, 2, '{', '}'}} {
		if _, err := DecodeCommand(b); !errors.Is(err, ErrUnknownCommand) {
			t.Errorf("%v: %v", b, err)
		}
	}
	if _, err := DecodeCommand([]byte{1, 2, '{'}); err == nil {
		t.Error("cut JSON was accepted")
	}
}

func FuzzDecodeCommand(f *testing.F) {
	for _, cmd := range []Command{SetCluster{"x"}, CreateTopics{[]NewTopic{{Name: "a", ID: id(1), Partitions: parts(1), Configs: map[string]string{"a": "b"}}}}, DeleteTopics{[]TopicID{id(1)}}, AllocateProducerIDs{1, 2}, RegisterBroker{Broker: Broker{ID: 1}},
		FenceBroker{1, 1}, UnfenceBroker{1, 1}, StopBroker{1, 1}, UnregisterBroker{1}, ElectLeaders{UncleanElection, []PartitionRef{{id(1), 0}}},
		ChangeISR{1, 1, []ISRChange{{Topic: id(1), ISR: []int32{1}}}}, Reassign{[]Reassignment{{Topic: id(1), Replicas: []int32{2}}}}, SetFeatures{[]FeatureUpdate{{Name: FeatureELR}}}} {
		b, err := EncodeCommand(cmd)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	some, r := NewImage(), rand.New(rand.NewPCG(1, 1))
	for range 100 {
		res, _ := Apply(some, clusterCommand(r, some))
		some = res.Image
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		cmd, err := DecodeCommand(b)
		if err != nil {
			return
		}
		for _, img := range []*Image{NewImage(), some} {
			if _, err := Apply(img, cmd); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := EncodeCommand(cmd); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzLoadEntry: no stored bytes make a panic.
func FuzzLoadEntry(f *testing.F) {
	topic := &Topic{Name: "a", ID: id(1), Partitions: parts(1)}
	f.Add(topicKey(id(1)), encodeTopic(topic))
	f.Add(partitionsKey(id(1), 0), encodePartitions(topic.Partitions))
	f.Add(brokerKey(1), encodeBroker(Broker{ID: 1, Endpoints: []Endpoint{{"a", "b", 1}}}))
	f.Add(configsKey(ResourceBroker, "1"), encodeConfigs(configSet{map[string]string{"a": "b"}, 1}))
	f.Add(keyState, encodeState(NewImage()))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		l := loader{draft: &draft{Image: NewImage()}, partitions: map[TopicID][]Partition{id(1): parts(1)}}
		_ = l.entry(key, value)
	})
}
