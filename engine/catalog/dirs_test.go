package catalog

import (
	"errors"
	"fmt"
	"slices"
	"testing"
)

// TestAssignDirs: the life of a move, and what is refused at each of its steps.
func TestAssignDirs(t *testing.T) {
	a, b, c, none := DirID{1}, DirID{2}, DirID{3}, DirID{}
	topic := id(1)
	res, err := Apply(NewImage(), CreateTopics{[]NewTopic{{Name: "t", ID: topic, Partitions: parts(3)}}})
	if err != nil {
		t.Fatal(err)
	}
	img := res.Image
	step := func(what string, r ReplicaDir, want error, dir, future DirID) {
		t.Helper()
		r.Topic, r.Partition, r.Broker = topic, 1, 1
		res, err := Apply(img, AssignDirs{[]ReplicaDir{r}})
		if err != nil || !errors.Is(res.Errors[0], want) || want == nil && res.Errors[0] != nil {
			t.Fatalf("%s: %v, %v", what, err, res.Errors)
		}
		before := img
		img = res.Image
		p := img.TopicByID(topic).Partitions[1]
		if p.Dir(1) != dir || p.Future(1) != future {
			t.Errorf("%s: lies in %v, future %v", what, p.Dir(1), p.Future(1))
		}
		if future == none && p.Futures != nil {
			t.Errorf("%s: futures %v", what, p.Futures)
		}
		if want != nil && before != img {
			t.Errorf("%s: a refused change has made an image", what)
		}
		if want == nil && before != img {
			if e := img.Events(); len(e) != 1 || e[0].Kind != DirAssigned || e[0].Topic != topic || e[0].Partition != 1 {
				t.Errorf("%s: events %+v", what, e)
			}
			if old := before.TopicByID(topic).Partitions[1]; p.PartitionEpoch != old.PartitionEpoch+1 {
				t.Errorf("%s: epoch %d after %d", what, p.PartitionEpoch, old.PartitionEpoch)
			}
		}
	}
	step("begin", ReplicaDir{Dir: a, Future: b}, nil, a, b)
	step("begin again", ReplicaDir{Dir: a, Future: b}, nil, a, b)
	step("elsewhere", ReplicaDir{Dir: c}, ErrConflict, a, b)
	step("replace", ReplicaDir{Dir: a, Future: c}, nil, a, c)
	step("end of the one replaced", ReplicaDir{Dir: b, Expect: b}, ErrConflict, a, c)
	step("give up the one replaced", ReplicaDir{Dir: a, Expect: b}, ErrConflict, a, c)
	step("give up", ReplicaDir{Dir: a, Expect: c}, nil, a, none)
	step("end of what was given up", ReplicaDir{Dir: c, Expect: c}, ErrConflict, a, none)
	step("begin", ReplicaDir{Dir: a, Future: b}, nil, a, b)
	step("end", ReplicaDir{Dir: b, Expect: b}, nil, b, none)
	step("begin on an old view", ReplicaDir{Dir: a, Future: c}, ErrConflict, b, none)
	step("to itself", ReplicaDir{Dir: b, Future: b}, ErrInvalid, b, none)
	step("nowhere", ReplicaDir{}, ErrInvalid, b, none)

	res, err = Apply(img, AssignDirs{[]ReplicaDir{
		{Topic: topic, Partition: 0, Broker: 1, Dir: a, Future: b},
		{Topic: topic, Partition: 9, Broker: 1, Dir: a, Future: b},
		{Topic: id(2), Partition: 0, Broker: 1, Dir: a, Future: b},
		{Topic: topic, Partition: 0, Broker: 7, Dir: a, Future: b},
		{Topic: topic, Partition: 2, Broker: 1, Dir: a, Future: c},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []error{nil, ErrUnknownTopic, ErrUnknownTopic, ErrInvalid, nil} {
		if !errors.Is(res.Errors[i], want) {
			t.Errorf("item %d: %v", i, res.Errors[i])
		}
	}
	all := res.Image.TopicByID(topic).Partitions
	if all[0].Future(1) != b || all[1].Dir(1) != b || all[2].Future(1) != c {
		t.Errorf("after one command: %+v", all)
	}
	if old := img.TopicByID(topic).Partitions[0]; old.Dirs != nil || old.Futures != nil {
		t.Errorf("the image before it has changed: %+v", old)
	}
}

// TestFormatOfDirs: what was stored before there were directories, and before any was moved.
func TestFormatOfDirs(t *testing.T) {
	a, b := DirID{1}, DirID{2}
	five := Partition{Leader: 1, Replicas: []int32{1}, ISR: []int32{1}}
	six, seven, odd := five, five, five
	six.Dirs = []DirID{a}
	seven.Dirs, seven.Futures = []DirID{a}, []DirID{b}
	odd.Futures = []DirID{b}
	for fields, p := range map[string]Partition{
		`[[1,0,0,[1],[1]]]`:                                                       five,
		`[[1,0,0,[1],[1],["AQAAAAAAAAAAAAAAAAAAAA"]]]`:                            six,
		`[[1,0,0,[1],[1],["AQAAAAAAAAAAAAAAAAAAAA"],["AgAAAAAAAAAAAAAAAAAAAA"]]]`: seven,
		`[[1,0,0,[1],[1],null,["AgAAAAAAAAAAAAAAAAAAAA"]]]`:                       odd,
	} {
		if have := string(encodePartitions([]Partition{p})[1:]); have != fields {
			t.Errorf("written %s, want %s", have, fields)
		}
		var read []partitionValue
		if err := decodeValue(append([]byte{formatVersion}, fields...), &read); err != nil || len(read) != 1 || !equalPartitions(read[0].Partition, p) {
			t.Errorf("%s is read as %+v, %v", fields, read, err)
		}
	}
	if equalPartitions(six, seven) {
		t.Error("a move that begins is no change to the store")
	}
	var read []partitionValue
	if err := decodeValue([]byte(fmt.Sprintf("%c%s", formatVersion, `[[1,0,0,[1],[1],null,null,null,null]]`)), &read); err == nil {
		t.Error("eight fields are read")
	}
}

// TestDirsAreKept: through a restart, and many partitions of one topic in one write.
func TestDirsAreKept(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	topic := id(1)
	propose(t, c, CreateTopics{[]NewTopic{{Name: "t", ID: topic, Partitions: parts(2 * chunkPartitions)}}})
	var cmd AssignDirs
	for i := range int32(2 * chunkPartitions) {
		cmd.Replicas = append(cmd.Replicas, ReplicaDir{Topic: topic, Partition: i, Broker: 1, Dir: DirID{1}, Future: DirID{2}})
	}
	for _, err := range propose(t, c, cmd).Errors {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir)
	all := again.Image().TopicByID(topic).Partitions
	if slices.ContainsFunc(all, func(p Partition) bool { return p.Dir(1) != DirID{1} || p.Future(1) != DirID{2} }) {
		t.Error("a move is forgotten")
	}
}
