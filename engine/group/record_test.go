package group

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func ptr(s string) *string { return &s }

var sampleRecords = []struct {
	name string
	rec  Record
}{
	{"offset", Record{Group: "g1", Topic: "t1", Partition: 1, Offset: &Offset{
		Offset: 2, LeaderEpoch: 0, Metadata: "", CommitTimestampMs: 1795460608251, ExpireTimestampMs: NoTimestamp, TopicID: [16]byte{1, 2, 3}}}},
	{"offset with an expiry", Record{Group: "g1", Topic: "t1", Partition: 1, Offset: &Offset{
		Offset: 2, LeaderEpoch: -1, Metadata: "m", CommitTimestampMs: 5, ExpireTimestampMs: 9}}},
	{"no offset", Record{Group: "g1", Topic: "t1", Partition: 7}},
	{"empty group", Record{Group: "", Metadata: &Metadata{StateTimestampMs: 7}}},
	{"group", Record{Group: "g", Metadata: &Metadata{
		ProtocolType: "consumer", Generation: 3, Protocol: ptr("range"), Leader: ptr("m1"), StateTimestampMs: 8,
		Members: []MemberMetadata{
			{ID: "m1", ClientID: "c", ClientHost: "/127.0.0.1", RebalanceTimeoutMs: 1, SessionTimeoutMs: 2, Subscription: []byte{1}, Assignment: []byte{2}},
			{ID: "m2", InstanceID: ptr("i"), ClientID: "c", ClientHost: "/::1", RebalanceTimeoutMs: 1, SessionTimeoutMs: 2, Subscription: []byte{}, Assignment: []byte{}},
		}}}},
	{"no group", Record{Group: "g"}},
}

func TestRecordsComeBack(t *testing.T) {
	for _, tt := range sampleRecords {
		t.Run(tt.name, func(t *testing.T) {
			back, err := DecodeRecord(tt.rec.Key(), tt.rec.Value())
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(back, tt.rec) {
				t.Errorf("have %+v, want %+v", back, tt.rec)
			}
		})
	}
}

// TestRecordBytes reads what Apache Kafka 4.3.1 has written (a group of one console consumer, its commit, and its
// end; keys and values in hexadecimal), and writes the same.
func TestRecordBytes(t *testing.T) {
	text, err := os.ReadFile("testdata/kafka-4.3.1-records.txt")
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for line := range strings.Lines(string(text)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), " ")
		rec, err := DecodeRecord(unhex(t, k), unhex(t, v))
		if err != nil {
			t.Fatal(err)
		}
		if have := hex.EncodeToString(rec.Key()); have != k {
			t.Errorf("key\nhave %s\nwant %s", have, k)
		}
		if have := hex.EncodeToString(rec.Value()); have != v {
			t.Errorf("value\nhave %s\nwant %s", have, v)
		}
		kinds = append(kinds, tellRecord(rec))
	}
	want := []string{
		`group type="" generation=0 protocol="" leader=""`,
		`group type="consumer" generation=1 protocol="range" leader="console-consumer-19fac682-436d-44f5-a50f-ab214f125f27" ` +
			`console-consumer-19fac682-436d-44f5-a50f-ab214f125f27:"\x00\x03\x00\x00\x00\x01\x00\x02t1\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x01\xff\xff\xff\xff"`,
		"offset t1/1=2",
		"offset t1/0=0",
		`group type="consumer" generation=2 protocol="" leader=""`,
	}
	if !slices.Equal(kinds, want) {
		t.Errorf("have %q\nwant %q", kinds, want)
	}
}

// TestExpiringRecordBytes holds the one old form that is still written, for the retention of OffsetCommit v2-v4.
func TestExpiringRecordBytes(t *testing.T) {
	rec := Record{Group: "g", Topic: "t", Partition: 1, Offset: &Offset{Offset: 2, Metadata: "m", CommitTimestampMs: 3, ExpireTimestampMs: 4}}
	if have, want := hex.EncodeToString(rec.Value()), "0001"+"0000000000000002"+"00016d"+"0000000000000003"+"0000000000000004"; have != want {
		t.Errorf("have %s, want %s", have, want)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOldRecords(t *testing.T) {
	key := Record{Group: "g", Topic: "t", Partition: 1}.Key()
	tests := []struct {
		name  string
		key   []byte
		value string
		want  Offset
	}{
		{"version 0", key, "0000" + "0000000000000002" + "00016d" + "0000000000000003",
			Offset{Offset: 2, LeaderEpoch: -1, Metadata: "m", CommitTimestampMs: 3, ExpireTimestampMs: NoTimestamp}},
		{"version 2", key, "0002" + "0000000000000002" + "00016d" + "0000000000000003",
			Offset{Offset: 2, LeaderEpoch: -1, Metadata: "m", CommitTimestampMs: 3, ExpireTimestampMs: NoTimestamp}},
		{"version 3", key, "0003" + "0000000000000002" + "00000007" + "00016d" + "0000000000000003",
			Offset{Offset: 2, LeaderEpoch: 7, Metadata: "m", CommitTimestampMs: 3, ExpireTimestampMs: NoTimestamp}},
		{"version 4 without a topic id", key, "0004" + "0000000000000002" + "00000007" + "026d" + "0000000000000003" + "00",
			Offset{Offset: 2, LeaderEpoch: 7, Metadata: "m", CommitTimestampMs: 3, ExpireTimestampMs: NoTimestamp}},
		{"key version 0", append([]byte{0, 0}, key[2:]...), "0000" + "0000000000000002" + "00016d" + "0000000000000003",
			Offset{Offset: 2, LeaderEpoch: -1, Metadata: "m", CommitTimestampMs: 3, ExpireTimestampMs: NoTimestamp}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rec, err := DecodeRecord(tt.key, unhex(t, tt.value))
			if err != nil {
				t.Fatal(err)
			}
			if *rec.Offset != tt.want {
				t.Errorf("have %+v, want %+v", *rec.Offset, tt.want)
			}
		})
	}
}

func TestWrongRecords(t *testing.T) {
	offset, groupKey := Record{Group: "g", Topic: "t"}.Key(), Record{Group: "g"}.Key()
	tests := []struct {
		name       string
		key, value []byte
		want       error
	}{
		{"no key", nil, nil, ErrCorruptRecord},
		{"half a version", []byte{0}, nil, ErrCorruptRecord},
		{"a member of the new protocol", []byte{0, 3, 0, 1, 'g'}, []byte{0, 0}, ErrUnknownRecord},
		{"a key version below 0", []byte{0xff, 0xff}, nil, ErrUnknownRecord},
		{"half an offset key", offset[:5], nil, ErrCorruptRecord},
		{"an offset of no topic", []byte{0, 1, 0, 1, 'g', 0, 0, 0, 0, 0, 0}, nil, ErrCorruptRecord},
		{"an empty offset value", offset, []byte{}, ErrCorruptRecord},
		{"a newer offset value", offset, []byte{0, 5, 0}, ErrUnknownRecord},
		{"half an offset value", offset, []byte{0, 3, 0, 0}, ErrCorruptRecord},
		{"half a group key", groupKey[:3], nil, ErrCorruptRecord},
		{"a newer group value", groupKey, []byte{0, 5, 0}, ErrUnknownRecord},
		{"a group value with a huge count", groupKey, append(Record{Metadata: &Metadata{}}.Value()[:20:20], 0x7f, 0xff, 0xff, 0xff), ErrCorruptRecord},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := DecodeRecord(tt.key, tt.value); !errors.Is(err, tt.want) {
				t.Errorf("have %v, want %v", err, tt.want)
			}
		})
	}
}

func TestRecordCheck(t *testing.T) {
	long := strings.Repeat("x", 1<<15)
	tests := []struct {
		name string
		rec  Record
	}{
		{"group", Record{Group: long}},
		{"topic", Record{Topic: long}},
		{"metadata", Record{Topic: "t", Offset: &Offset{Metadata: long}}},
		{"protocol type", Record{Metadata: &Metadata{ProtocolType: long}}},
		{"protocol", Record{Metadata: &Metadata{Protocol: &long}}},
		{"leader", Record{Metadata: &Metadata{Leader: &long}}},
		{"member id", Record{Metadata: &Metadata{Members: []MemberMetadata{{ID: long}}}}},
		{"instance id", Record{Metadata: &Metadata{Members: []MemberMetadata{{InstanceID: &long}}}}},
		{"client id", Record{Metadata: &Metadata{Members: []MemberMetadata{{ClientID: long}}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.rec.Check(); !errors.Is(err, ErrRecordTooLarge) {
				t.Errorf("have %v", err)
			}
		})
	}
	for _, tt := range sampleRecords {
		if err := tt.rec.Check(); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestSubscriptions(t *testing.T) {
	tests := []struct {
		name string
		b    []byte
		want []string // nil: not readable
	}{
		{"none", []byte{0, 0, 0, 0, 0, 0}, []string{}},
		{"two, and more behind", append(storySubscription("a+bb"), 1, 2, 3), []string{"a", "bb"}},
		{"a later version", append([]byte{0, 3}, storySubscription("a")[2:]...), []string{"a"}},
		{"nothing", nil, nil},
		{"a version below 0", []byte{0xff, 0xff, 0, 0, 0, 0}, nil},
		{"a count below 0", []byte{0, 0, 0xff, 0xff, 0xff, 0xff}, nil},
		{"a huge count", []byte{0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0}, nil},
		{"a length below 0", []byte{0, 0, 0, 0, 0, 1, 0xff, 0xff}, nil},
		{"a length beyond", []byte{0, 0, 0, 0, 0, 1, 0, 5, 'a'}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			topics := map[string]bool{}
			ok := readSubscription(tt.b, topics)
			if ok != (tt.want != nil) || ok && len(topics) != len(tt.want) {
				t.Fatalf("have %v %v, want %v", ok, topics, tt.want)
			}
			for _, name := range tt.want {
				if !topics[name] {
					t.Errorf("%q is missing", name)
				}
			}
		})
	}
}

// FuzzDecodeRecord: no panic, and what is understood comes back the same after it is written anew.
func FuzzDecodeRecord(f *testing.F) {
	for _, tt := range sampleRecords {
		f.Add(tt.rec.Key(), tt.rec.Value())
	}
	f.Add([]byte{0, 3, 0, 1, 'g'}, []byte{0, 0})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		rec, err := DecodeRecord(key, value)
		if err != nil {
			if !errors.Is(err, ErrCorruptRecord) && !errors.Is(err, ErrUnknownRecord) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		if rec.Check() != nil {
			return // a compact string can be longer than what is written
		}
		again, err := DecodeRecord(rec.Key(), rec.Value())
		if err != nil {
			t.Fatalf("%v: %+v", err, rec)
		}
		if !bytes.Equal(again.Key(), rec.Key()) || !bytes.Equal(again.Value(), rec.Value()) {
			t.Fatalf("have %+v, want %+v", again, rec)
		}
		New("g", &Config{}).Replay(rec)
	})
}

// FuzzSubscription: no panic, and no topic that the bytes do not hold.
func FuzzSubscription(f *testing.F) {
	f.Add(storySubscription("a+bb"))
	f.Add([]byte{0, 0, 0, 0, 0, 1, 0, 5, 'a'})
	f.Fuzz(func(t *testing.T, b []byte) {
		topics := map[string]bool{}
		readSubscription(b, topics)
		for name := range topics {
			if !bytes.Contains(b, []byte(name)) {
				t.Fatalf("%q comes from nowhere", name)
			}
		}
	})
}
