package catalog

import (
	"fmt"
	"testing"
)

// TestReadsOlderFormats: values as versions 1 and 2 wrote them.
func TestReadsOlderFormats(t *testing.T) {
	topic := id(1)
	entries := []struct {
		key     []byte
		version byte
		value   string
	}{
		{brokerKey(1), 1, `{"e":3,"r":"a","l":[{"n":"PLAINTEXT","h":"h","p":9092}]}`},
		{brokerKey(2), 2, `{"e":4,"l":null}`},
		{partitionsKey(topic, 0), 1, `[[1,0,0,[1],[1]],[2,7,9,[2,1],[2]]]`},
		{partitionsKey(id(2), 0), 2, `[[1,0,0,[1],[1],["AQAAAAAAAAAAAAAAAAAAAA"],["AgAAAAAAAAAAAAAAAAAAAA"]]]`},
		{keyState, 1, `{"v":9,"c":"cluster","p":2000}`},
		{topicKey(topic), 1, `{"n":"t","p":2,"v":5}`},
		{topicKey(id(2)), 2, `{"n":"u","p":1,"c":{"k":"v"},"v":6}`},
	}
	l := loader{draft: &draft{Image: NewImage()}, partitions: map[TopicID][]Partition{}}
	for _, e := range entries {
		if err := l.entry(e.key, append([]byte{e.version}, e.value...)); err != nil {
			t.Fatalf("%q: %v", e.key, err)
		}
	}
	one, _ := l.Broker(1)
	u := l.Topic("u").Partitions[0]
	if have := fmt.Sprintln(l.Version(), l.ClusterID(), one.Epoch, one.Rack, one.Endpoints, one.Active(), len(l.Brokers())); have != "9 cluster 3 a [{PLAINTEXT h 9092}] true 2\n" {
		t.Error(have)
	}
	if have := state(l.Topic("t").Partitions[1]); have != "2 e7.9 of 2 1 in 2" {
		t.Error(have)
	}
	if u.Dir(1) != (DirID{1}) || u.Future(1) != (DirID{2}) || l.Feature(FeatureELR) != 1 || len(l.Features()) != 0 {
		t.Errorf("have %+v", u)
	}
}

// TestFormatOfVersion3 holds what is written, so that a change of it is seen.
func TestFormatOfVersion3(t *testing.T) {
	img := NewImage().next()
	img.features = map[string]int16{"x": 2}
	p := Partition{Leader: -1, LeaderEpoch: 2, PartitionEpoch: 3, Replicas: []int32{1, 2, 3}}
	p.Adding, p.Removing, p.ELR, p.LastKnownELR, p.Recovering = []int32{3}, []int32{1}, []int32{1, 2}, []int32{2}, true
	b := Broker{
		ID: 1, Epoch: 5, Incarnation: [16]byte{1}, Fenced: true, Stopping: true, Peer: "h:1", Rack: "r", Endpoints: []Endpoint{{"L", "h", 2}},
		Dirs: []DirID{{2}}, Features: []FeatureRange{{"x", 1, 2}},
	}
	for have, want := range map[string]string{
		string(encodeState(img.Image)):                `{"v":1,"c":"","p":0,"f":{"x":2}}`,
		string(encodePartitions([]Partition{p})):      `[[-1,2,3,[1,2,3],null,null,null,{"a":[3],"r":[1],"e":[1,2],"l":[2],"u":true}]]`,
		string(encodeBroker(b)):                       `{"e":5,"r":"r","l":[{"n":"L","h":"h","p":2}],"i":"AQAAAAAAAAAAAAAAAAAAAA","f":true,"s":true,"p":"h:1","d":["AgAAAAAAAAAAAAAAAAAAAA"],"v":[{"n":"x","l":1,"h":2}]}`,
		string(encodeBroker(Broker{ID: 1, Epoch: 5})): `{"e":5,"l":null}`,
	} {
		if have != "\x03"+want {
			t.Errorf("have %q\nwant %s", have, want)
		}
	}
	encoded, err := EncodeCommand(FenceBroker{1, 2})
	if err != nil || string(encoded) != "\x01\x09"+`{"ID":1,"Epoch":2}` {
		t.Errorf("%q %v", encoded, err)
	}
}
