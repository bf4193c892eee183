package catalog

import (
	"bytes"
	"errors"
	"testing"
)

// TestEncodeResult: every error of an item comes back as the same, nil stays nil.
func TestEncodeResult(t *testing.T) {
	other := errors.New("something else")
	for _, errs := range [][]error{nil, {nil}, {ErrConflict}, {nil, ErrTopicExists, nil, nil, ErrUnknownTopic, ErrInvalid, ErrClusterMismatch, other, nil}, itemErrors[1:]} {
		b := EncodeResult(Result{Errors: errs, FirstProducerID: 7000})
		res, err := DecodeResult(b)
		if err != nil || res.FirstProducerID != 7000 || len(res.Errors) != len(errs) {
			t.Fatalf("%v %+v", err, res)
		}
		for i, want := range errs {
			if have := res.Errors[i]; have != want && (want != other || have.Error() != want.Error()) {
				t.Errorf("item %d: %v, want %v", i, have, want)
			}
		}
	}
}

// TestItemErrorCodes: a code is for ever.
func TestItemErrorCodes(t *testing.T) {
	for code, want := range map[int]error{1: ErrTopicExists, 3: ErrConflict, 7: ErrBrokerInUse, 10: ErrStaleBrokerEpoch, 13: ErrNotLeader, 15: ErrIneligibleReplica, 19: ErrNoReassignment, 22: ErrFactorChanged} {
		if itemErrors[code] != want {
			t.Errorf("code %d is %v", code, itemErrors[code])
		}
	}
}

// FuzzDecodeResult: no bytes make a panic, and what is accepted is written as it was.
func FuzzDecodeResult(f *testing.F) {
	f.Add(EncodeResult(Result{Errors: []error{nil, ErrConflict, errors.New("x")}, FirstProducerID: 3}))
	f.Fuzz(func(t *testing.T, b []byte) {
		res, err := DecodeResult(b)
		if err != nil {
			return
		}
		again, err := DecodeResult(EncodeResult(res))
		if err != nil || !bytes.Equal(EncodeResult(again), EncodeResult(res)) {
			t.Fatal(err)
		}
	})
}
