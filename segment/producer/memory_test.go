package producer

import (
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/millrace/millrace/segment/batch"
)

// someState remembers one to seven batches of each of a few producers.
func someState(seed uint64) *State {
	s, random := new(State), rand.New(rand.NewPCG(seed, 1))
	for id := range int64(5) {
		sequence := int32(0)
		for i := range 1 + random.IntN(7) {
			h := batch.Header{ProducerID: id, ProducerEpoch: int16(random.IntN(2)), LastOffsetDelta: random.Int32N(9), BaseSequence: sequence, MaxTimestamp: int64(i)}
			s.Update(h, int64(100*i)+id)
			sequence = batch.AddSequence(h.LastSequence(), 1)
		}
	}
	return s
}

func TestEncodeAllKeepsAll(t *testing.T) {
	for seed := range uint64(50) {
		s := someState(seed)
		got, err := DecodeAll(s.EncodeAll())
		if err != nil {
			t.Fatal(err)
		}
		for id, want := range s.entries {
			e := got.entries[id]
			if want.batches < 2 {
				want.older = nil // what an epoch has left
			}
			if e.older != nil {
				for i := int(e.batches) - 1; i < len(want.older); i++ {
					want.older[i] = BatchMeta{}
				}
			}
			if !reflect.DeepEqual(e, want) {
				t.Fatalf("seed %d, producer %d: %+v, want %+v", seed, id, e, want)
			}
		}
		if len(got.entries) != len(s.entries) {
			t.Fatalf("%d producers, want %d", len(got.entries), len(s.entries))
		}
	}
}

func FuzzDecodeAll(f *testing.F) {
	f.Add(someState(1).EncodeAll())
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := DecodeAll(b); err == nil && len(s.EncodeAll()) > len(b) {
			t.Errorf("%d bytes became %d", len(b), len(s.EncodeAll()))
		}
	})
}
