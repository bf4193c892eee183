package catalog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"testing"
)

// history makes an image by random commands.
func history(seed uint64, commands int) *Image {
	r, img := rand.New(rand.NewPCG(seed, 9)), NewImage()
	for range commands {
		res, _ := Apply(img, randomCommand(r, img))
		img = res.Image
	}
	return img
}

// TestEncodeImage: what is read is what was written, two images of one history have the same bytes,
// and the state machine goes on from a decoded image as from the one before.
func TestEncodeImage(t *testing.T) {
	for seed := range uint64(4) {
		img := history(seed, 15)
		b := EncodeImage(img)
		if !bytes.Equal(b, EncodeImage(history(seed, 15))) {
			t.Fatal("two images of one history have different bytes")
		}
		again, err := DecodeImage(b)
		if err != nil {
			t.Fatal(err)
		}
		if have, want := dump(again), dump(img); have != want {
			t.Fatalf("have\n%s\nwant\n%s", have, want)
		}
		r := rand.New(rand.NewPCG(seed, 10))
		for range 4 {
			cmd := randomCommand(r, img)
			one, _ := Apply(img, cmd)
			two, _ := Apply(again, cmd)
			img, again = one.Image, two.Image
			if !bytes.Equal(EncodeImage(img), EncodeImage(again)) {
				t.Fatalf("seed %d: images differ after %+v", seed, cmd)
			}
		}
	}
	if again, err := DecodeImage(EncodeImage(NewImage())); err != nil || dump(again) != dump(NewImage()) {
		t.Fatalf("the empty image: %v", err)
	}
}

// TestDecodeImageRefuses: no flipped bit and no lost end goes unnoticed.
func TestDecodeImageRefuses(t *testing.T) {
	b := EncodeImage(with(t, NewImage(), SetCluster{"c"}, CreateTopics{[]NewTopic{{Name: "a", ID: id(1), Partitions: parts(2)}}}))
	for i := range b {
		damaged := slices.Clone(b)
		damaged[i] ^= 1 << (i % 8)
		var corrupt *CorruptError
		if _, err := DecodeImage(damaged); !errors.As(err, &corrupt) && !errors.Is(err, ErrFutureFormat) {
			t.Fatalf("byte %d: %v", i, err)
		}
		if _, err := DecodeImage(b[:i]); !errors.As(err, &corrupt) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	future := slices.Clone(b)
	future[len(imageMagic)]++
	if _, err := DecodeImage(future); !errors.Is(err, ErrFutureFormat) {
		t.Fatal(err)
	}
}

// FuzzDecodeImage: no bytes make a panic, and what is accepted is read again as the same.
func FuzzDecodeImage(f *testing.F) {
	small, _ := Apply(NewImage(), CreateTopics{[]NewTopic{{Name: "a", ID: id(1), Partitions: parts(2), Configs: map[string]string{"k": "v"}}}})
	for _, img := range []*Image{NewImage(), small.Image} {
		b := EncodeImage(img)
		f.Add(b[len(imageMagic)+1 : len(b)-4])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		b := append(append([]byte(imageMagic), imageVersion), body...)
		b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
		img, err := DecodeImage(b)
		if err != nil {
			return
		}
		again, err := DecodeImage(EncodeImage(img))
		if err != nil || dump(again) != dump(img) {
			t.Fatalf("read again: %v", err)
		}
	})
}

// TestEventsSince: whoever follows the events of an image that came as a whole ends where whoever
// saw every command is.
func TestEventsSince(t *testing.T) {
	old := with(t, NewImage(), SetCluster{"c"}, RegisterBroker{Broker: Broker{ID: 1}}, CreateTopics{[]NewTopic{
		{Name: "kept", ID: id(1), Partitions: parts(1)}, {Name: "gone", ID: id(2), Partitions: parts(1)},
		{Name: "again", ID: id(3), Partitions: parts(1)}, {Name: "grown", ID: id(4), Partitions: parts(1)}}})
	img := with(t, old, DeleteTopics{[]TopicID{id(2), id(3)}}, CreateTopics{[]NewTopic{{Name: "again", ID: id(5), Partitions: parts(2)}}},
		CreatePartitions{[]MorePartitions{{id(4), 1, parts(2)}}},
		AlterConfigs{99, []ConfigChange{{ResourceTopic, "grown", map[string]string{"a": "b"}}, {ResourceBroker, "1", map[string]string{"c": "d"}}}},
		AssignDirs{[]ReplicaDir{{Topic: id(4), Partition: 0, Broker: 1, Dir: DirID{7}}}}, AllocateProducerIDs{1, 5}, RegisterBroker{Broker: Broker{ID: 2}})
	came, err := DecodeImage(EncodeImage(img))
	if err != nil {
		t.Fatal(err)
	}
	came = came.WithEventsSince(old)
	if dump(came) != dump(img) {
		t.Fatalf("it is another image:\n%s\n%s", dump(came), dump(img))
	}
	want := []Event{
		{Kind: TopicDeleted, Topic: id(3), Name: "again"}, {Kind: TopicDeleted, Topic: id(2), Name: "gone"},
		{Kind: BrokerRegistered, Broker: 2}, {Kind: ConfigsChanged, Type: ResourceBroker, Name: "1"},
		{Kind: TopicCreated, Topic: id(5), Name: "again"},
		{Kind: PartitionsAdded, Topic: id(4), Name: "grown"}, {Kind: ConfigsChanged, Type: ResourceTopic, Topic: id(4), Name: "grown"},
		{Kind: DirAssigned, Topic: id(4), Name: "grown"}, {Kind: PartitionChanged, Topic: id(4), Name: "grown"}, {Kind: ProducerIDsAllocated},
	}
	if !slices.Equal(came.Events(), want) {
		t.Fatalf("have %+v\nwant %+v", came.Events(), want)
	}
	if events := came.WithEventsSince(came).Events(); len(events) != 0 {
		t.Fatalf("an image since itself: %+v", events)
	}
}

func BenchmarkEncodeImage10000(b *testing.B) {
	var cmd CreateTopics
	for i := range 1000 {
		cmd.Topics = append(cmd.Topics, benchTopic(i, 10))
	}
	res, _ := Apply(NewImage(), cmd)
	encoded := EncodeImage(res.Image)
	b.Run("encode", func(b *testing.B) {
		b.ReportMetric(float64(len(encoded)), "bytes")
		for b.Loop() {
			EncodeImage(res.Image)
		}
	})
	b.Run("decode", func(b *testing.B) {
		for b.Loop() {
			if _, err := DecodeImage(encoded); err != nil {
				b.Fatal(err)
			}
		}
	})
}
