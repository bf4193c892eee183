package producer

import (
	"bytes"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// Snapshots that Kafka 4.3.1 has written, and what its dump tool says of them.
func TestDecodeKafkasOwn(t *testing.T) {
	two := func(id int64) Info {
		return Info{ProducerID: id, LastSequence: 3, LastTimestamp: 1000, CoordinatorEpoch: -1, TxnFirstOffset: -1}
	}
	cases := []struct {
		file   string
		active []Info
		last   []BatchMeta
	}{
		{"two-producers.snapshot", []Info{two(1), two(2)}, []BatchMeta{
			{LastSeq: 3, LastOffset: 6, Timestamp: 1000}, {LastSeq: 3, LastOffset: 7, Timestamp: 1000}}},
		{"large-sequence.snapshot", []Info{{ProducerID: 1, LastSequence: math.MaxInt32 - 1, LastTimestamp: 1000, CoordinatorEpoch: -1, TxnFirstOffset: -1}},
			[]BatchMeta{{LastSeq: math.MaxInt32 - 1, LastOffset: 1, OffsetDelta: 1, Timestamp: 1000}}},
	}
	for _, c := range cases {
		t.Run(c.file, func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join("../../testdata/snapshots", c.file))
			if err != nil {
				t.Fatal(err)
			}
			s, err := Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Active(); !reflect.DeepEqual(got, c.active) {
				t.Fatalf("got %+v", got)
			}
			for i, info := range c.active {
				if got := s.entries[info.ProducerID].last; got != c.last[i] {
					t.Errorf("producer %d: %+v, want %+v", info.ProducerID, got, c.last[i])
				}
			}
			if !bytes.Equal(s.Encode(), b) {
				t.Errorf("encoded again: %x, Kafka's %x", s.Encode(), b)
			}
		})
	}
}

// filled has every kind of entry: several batches, one, one of a wrapped sequence, none at all.
func filled() *State {
	s := &State{}
	for seq := range int32(7) {
		s.Update(sent(1, 3, seq, 1), int64(seq))
	}
	s.Update(sent(2, 0, 0, 5), 7)
	s.Update(sent(3, 0, math.MaxInt32-1, 4), 12)
	end := sent(4, 9, -1, 1)
	end.Attributes = 0x30
	s.Update(end, 16)
	return s
}

func TestSnapshotKeepsTheLastBatch(t *testing.T) {
	s, err := Decode(filled().Encode())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.Active(), filled().Active(); !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	if dup, err := s.Check(sent(3, 0, math.MaxInt32-1, 4), true); err != nil || dup == nil || dup.FirstOffset() != 12 {
		t.Errorf("the last batch again: %+v, %v", dup, err)
	}
	if _, err := s.Check(sent(1, 3, 5, 1), true); !errors.Is(err, ErrOutOfOrderSequence) {
		t.Errorf("the batch before: %v", err)
	}
	if _, err := s.Check(sent(1, 3, 7, 1), true); err != nil {
		t.Error(err)
	}
	if n := s.entries[4].batches; n != 0 {
		t.Errorf("%d batches of a producer whose epoch has none", n)
	}
	if _, err := s.Check(sent(4, 9, 0, 1), true); err != nil {
		t.Error(err)
	}
}

func TestSnapshotOfNothing(t *testing.T) {
	s, err := Decode((&State{}).Encode())
	if err != nil || s.Len() != 0 {
		t.Fatal(s, err)
	}
	s.Update(sent(1, 0, 0, 1), 0)
}

func TestDamagedSnapshots(t *testing.T) {
	good := filled().Encode()
	for i := range good {
		for _, bit := range []byte{1, 0x80} {
			b := bytes.Clone(good)
			b[i] ^= bit
			if _, err := Decode(b); !errors.Is(err, ErrCorruptSnapshot) {
				t.Fatalf("byte %d: %v", i, err)
			}
		}
		if _, err := Decode(good[:i]); !errors.Is(err, ErrCorruptSnapshot) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	if _, err := Decode(append(bytes.Clone(good), 0)); !errors.Is(err, ErrCorruptSnapshot) {
		t.Fatal(err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(filled().Encode())
	f.Add((&State{}).Encode())
	f.Add([]byte{0, 1, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Decode(b)
		if err != nil {
			if !errors.Is(err, ErrCorruptSnapshot) {
				t.Fatal(err)
			}
			return
		}
		again, err := Decode(s.Encode())
		if err != nil || describe(again) != describe(s) {
			t.Fatalf("%v: %s became %s", err, describe(s), describe(again))
		}
	})
}
