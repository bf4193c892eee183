package catalog

import (
	"errors"
	"reflect"
	"testing"
)

// TestRegisterBroker: epochs, incarnations, and who is refused.
func TestRegisterBroker(t *testing.T) {
	one := Broker{ID: 1, Incarnation: [16]byte{1}, Rack: "a", Peer: "h:1", Endpoints: []Endpoint{{"PLAINTEXT", "h", 9092}}, Dirs: []DirID{{1}, {2}}}
	img := with(t, NewImage(), SetCluster{"c"}, RegisterBroker{Broker: one})
	if b, _ := img.Broker(1); b.Epoch != 2 || b.Fenced || !b.Active() {
		t.Fatalf("have %+v", b)
	}
	register := func(change func(*Broker)) (Broker, *Image, error) {
		b := one
		change(&b)
		res, err := Apply(img, RegisterBroker{Broker: b})
		if err != nil {
			t.Fatal(err)
		}
		have, _ := res.Image.Broker(b.ID)
		return have, res.Image, res.Errors[0]
	}
	if _, next, err := register(func(*Broker) {}); err != nil || next != img {
		t.Errorf("the same again changes something: %v", err)
	}
	if b, next, err := register(func(b *Broker) { b.Peer, b.Epoch, b.Fenced = "h:2", 77, true }); err != nil || b.Peer != "h:2" || b.Epoch != 2 || b.Fenced || next.Events()[0] != (Event{Kind: BrokerRegistered, Broker: 1}) {
		t.Errorf("the same incarnation: %+v %v", b, err)
	}
	if _, _, err := register(func(b *Broker) { b.Incarnation[0] = 2 }); !errors.Is(err, ErrBrokerInUse) {
		t.Errorf("another one while it is alive: %v", err)
	}
	img = then(t, img, stop(1))
	if _, _, err := register(func(b *Broker) { b.Incarnation[0] = 2 }); !errors.Is(err, ErrBrokerInUse) {
		t.Errorf("another one while it stops: %v", err)
	}
	img = then(t, img, fence(1))
	if b, _, err := register(func(*Broker) {}); err != nil || !b.Fenced || !b.Stopping || b.Epoch != 2 {
		t.Errorf("the same incarnation after it was fenced: %+v %v", b, err)
	}
	if b, _, err := register(func(b *Broker) { b.Incarnation[0], b.Fenced, b.Peer = 2, true, "elsewhere:1" }); err != nil || !b.Fenced || b.Stopping || b.Epoch != 5 || b.Peer != "elsewhere:1" {
		t.Errorf("another one after it was fenced: %+v %v", b, err)
	}
	for name, tt := range map[string]struct {
		change func(*Broker)
		want   error
	}{
		"negative id":               {func(b *Broker) { b.ID = -1 }, ErrInvalid},
		"a directory twice":         {func(b *Broker) { b.Dirs = []DirID{{3}, {3}} }, ErrInvalid},
		"a directory without id":    {func(b *Broker) { b.Dirs = []DirID{{}} }, ErrInvalid},
		"a directory of another":    {func(b *Broker) { b.ID = 2 }, ErrDirInUse},
		"directories of its own":    {func(b *Broker) { b.ID, b.Dirs = 2, []DirID{{3}} }, nil},
		"a broker without features": {func(b *Broker) { b.ID, b.Dirs = 2, nil }, nil},
	} {
		if _, _, err := register(tt.change); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBrokerCommandsRefuse: each of them names the registration that it is about.
func TestBrokerCommandsRefuse(t *testing.T) {
	img := cluster(t, 2, nil, []int32{1, 2})
	for _, tt := range []struct {
		cmd  Command
		want error
	}{
		{FenceBroker{1, 9}, ErrStaleBrokerEpoch}, {UnfenceBroker{1, 9}, ErrStaleBrokerEpoch}, {StopBroker{1, 9}, ErrStaleBrokerEpoch},
		{FenceBroker{3, 1}, ErrUnknownBroker}, {UnfenceBroker{3, 1}, ErrUnknownBroker}, {StopBroker{3, 1}, ErrUnknownBroker}, {UnregisterBroker{3}, ErrUnknownBroker},
		{UnfenceBroker{1, 1}, nil}, // it is not fenced
	} {
		if res, err := Apply(img, tt.cmd); err != nil || res.Image != img || !errors.Is(res.Errors[0], tt.want) {
			t.Errorf("%+v: %v %v", tt.cmd, res.Errors, err)
		}
	}
}

// TestBecomingACluster: the node that was alone registers, fenced, and gets all its partitions back.
func TestBecomingACluster(t *testing.T) {
	img := with(t, NewImage(), CreateTopics{[]NewTopic{{Name: "t", ID: id(1), Partitions: parts(2)}}},
		RegisterBroker{Broker: Broker{ID: 2, Incarnation: [16]byte{2}}}, // another may be first
		RegisterBroker{Broker: Broker{ID: 1, Incarnation: [16]byte{1}, Fenced: true}})
	if have := state(img.Topic("t").Partitions[1]); have != "-1 e1.1 of 1 in  elr 1 last 1" {
		t.Errorf("fenced: %s", have)
	}
	img = then(t, img, unfence(1))
	if have := state(img.Topic("t").Partitions[1]); have != "1 e2.2 of 1 in 1" {
		t.Errorf("unfenced: %s", have)
	}
}

// TestPlacedBeforeAFence: partitions that were placed on brokers which are fenced by now.
func TestPlacedBeforeAFence(t *testing.T) {
	img := then(t, cluster(t, 3, nil, []int32{3}), fence(1))
	place := func(replicas ...int32) Partition {
		return Partition{Leader: replicas[0], Replicas: replicas, ISR: replicas}
	}
	res, err := Apply(img, CreateTopics{[]NewTopic{
		{Name: "a", ID: id(2), Partitions: []Partition{place(1, 2, 3), place(2, 3)}},
		{Name: "b", ID: id(3), Partitions: []Partition{place(2), place(1)}},
		{Name: "c", ID: id(4), Partitions: []Partition{place(2, 9)}},
	}})
	if err != nil || res.Errors[0] != nil || !errors.Is(res.Errors[1], ErrConflict) || !errors.Is(res.Errors[2], ErrConflict) {
		t.Fatal(res.Errors, err)
	}
	if have := state(res.Image.Topic("a").Partitions[0]); have != "2 e0.0 of 1 2 3 in 2 3" {
		t.Error(have)
	}
	res, err = Apply(img, CreatePartitions{[]MorePartitions{{id(1), 1, []Partition{place(1, 3), place(3)}}, {id(1), 1, []Partition{place(1)}}}})
	if err != nil || res.Errors[0] != nil || !errors.Is(res.Errors[1], ErrConflict) {
		t.Fatal(res.Errors, err)
	}
	if have := state(res.Image.Topic("t").Partitions[1]); have != "3 e0.0 of 1 3 in 3" {
		t.Error(have)
	}
}

// TestLostDirectory: a broker that registers again with fewer directories leads nothing that lay in the others.
func TestLostDirectory(t *testing.T) {
	img := cluster(t, 2, nil, []int32{1, 2}, []int32{1, 2}, []int32{1})
	b := *img.broker(1)
	b.Dirs = []DirID{{1}, {11}}
	img = with(t, img, RegisterBroker{Broker: b}, AssignDirs{[]ReplicaDir{{Topic: id(1), Broker: 1, Dir: DirID{11}}, {Topic: id(1), Partition: 2, Broker: 1, Dir: DirID{11}}}})
	b.Dirs = []DirID{{1}}
	lost := with(t, img, RegisterBroker{Broker: b})
	for i, want := range []string{"2 e1.2 of 1 2 in 2", "1 e0.0 of 1 2 in 1 2", "-1 e1.2 of 1 in  elr 1 last 1"} {
		if have := state(lost.Topic("t").Partitions[i]); have != want {
			t.Errorf("partition %d:\nhave %s\nwant %s", i, have, want)
		}
	}
	if res, _ := Apply(lost, ChangeISR{2, epochOf(lost, 2), []ISRChange{{Topic: id(1), LeaderEpoch: 1, PartitionEpoch: 2, ISR: []int32{1, 2}}}}); !errors.Is(res.Errors[0], ErrIneligibleReplica) {
		t.Errorf("what is lost is in sync again: %v", res.Errors)
	}
	replaced := with(t, lost, AssignDirs{[]ReplicaDir{{Topic: id(1), Broker: 1, Dir: DirID{1}}, {Topic: id(1), Partition: 2, Broker: 1, Dir: DirID{1}}}},
		ChangeISR{2, epochOf(lost, 2), []ISRChange{{Topic: id(1), LeaderEpoch: 1, PartitionEpoch: 3, ISR: []int32{1, 2}}}})
	for i, want := range []string{"2 e1.4 of 1 2 in 1 2", "1 e0.0 of 1 2 in 1 2", "-1 e1.4 of 1 in  last 1"} {
		if have := state(replaced.Topic("t").Partitions[i]); have != want {
			t.Errorf("replaced, partition %d:\nhave %s\nwant %s", i, have, want)
		}
	}
	b.Dirs = []DirID{{1}, {11}}
	found := with(t, lost, RegisterBroker{Broker: b})
	if have := state(found.Topic("t").Partitions[2]); have != "1 e2.3 of 1 in 1" {
		t.Errorf("the directory is back: %s", have)
	}
}

// TestSetFeatures: levels rise and fall as asked, and only to what every broker supports.
func TestSetFeatures(t *testing.T) {
	img := NewImage()
	for b := int32(1); b <= 2; b++ {
		img = with(t, img, RegisterBroker{Broker: Broker{ID: b, Features: []FeatureRange{{"x", 1, 2 + int16(b)}, {FeatureELR, 0, 1}}}})
	}
	for _, tt := range []struct {
		name    string
		updates []FeatureUpdate
		want    []error
		levels  map[string]int16
	}{
		{"up", []FeatureUpdate{{"x", 2, false}}, []error{nil}, map[string]int16{"x": 2}},
		{"the same", []FeatureUpdate{{"x", 2, false}}, []error{nil}, map[string]int16{"x": 2}},
		{"down without saying so", []FeatureUpdate{{"x", 1, false}}, []error{ErrFeatureUpdate}, map[string]int16{"x": 2}},
		{"up as a downgrade", []FeatureUpdate{{"x", 3, true}}, []error{ErrFeatureUpdate}, map[string]int16{"x": 2}},
		{"negative", []FeatureUpdate{{"x", -1, true}}, []error{ErrFeatureUpdate}, map[string]int16{"x": 2}},
		{"more than one broker supports", []FeatureUpdate{{"x", 4, false}}, []error{ErrUnsupportedFeature}, map[string]int16{"x": 2}},
		{"what no broker knows", []FeatureUpdate{{"y", 1, false}}, []error{ErrUnsupportedFeature}, map[string]int16{"x": 2}},
		{"all or none", []FeatureUpdate{{FeatureELR, 0, true}, {"x", 4, false}}, []error{ErrNotApplied, ErrUnsupportedFeature}, map[string]int16{"x": 2}},
		{"down", []FeatureUpdate{{FeatureELR, 0, true}, {"x", 1, true}}, []error{nil, nil}, map[string]int16{"x": 1, FeatureELR: 0}},
	} {
		res, err := Apply(img, SetFeatures{tt.updates})
		if err != nil || !reflect.DeepEqual(res.Errors, tt.want) || !reflect.DeepEqual(res.Image.Features(), tt.levels) {
			t.Errorf("%s: %v %v %v", tt.name, res.Errors, res.Image.Features(), err)
		}
		img = res.Image
	}
	if NewImage().Feature(FeatureELR) != 1 || img.Feature(FeatureELR) != 0 || img.Feature("z") != 0 {
		t.Error("levels that nobody has set")
	}
	res, _ := Apply(img, RegisterBroker{Broker: Broker{ID: 3}})
	if !errors.Is(res.Errors[0], ErrUnsupportedFeature) {
		t.Errorf("a broker that does not know a feature in use: %v", res.Errors)
	}
}

// TestFeatureOffWhileLeaderless: who was eligible is not forgotten.
func TestFeatureOffWhileLeaderless(t *testing.T) {
	img := NewImage()
	for b := int32(1); b <= 2; b++ {
		img = with(t, img, RegisterBroker{Broker: Broker{ID: b, Features: []FeatureRange{{FeatureELR, 0, 1}}}})
	}
	img = with(t, img, CreateTopics{[]NewTopic{{Name: "t", ID: id(1), Configs: map[string]string{"min.insync.replicas": "2"}, Partitions: []Partition{{Leader: 1, Replicas: []int32{1, 2}, ISR: []int32{1, 2}}}}}})
	img = then(t, img, fence(1), fence(2), func(*Image) Command { return SetFeatures{[]FeatureUpdate{{FeatureELR, 0, true}}} })
	if have := state(img.Topic("t").Partitions[0]); have != "-1 e2.3 of 1 2 in 1 2 last 2" {
		t.Error(have)
	}
	img = then(t, img, unfence(1))
	if have := state(img.Topic("t").Partitions[0]); have != "1 e3.4 of 1 2 in 1 2" {
		t.Error(have)
	}
}
