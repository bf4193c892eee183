package producer

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"testing"
	"time"

	"github.com/millrace/millrace/segment/batch"
)

// sent is the header of a batch of count records.
func sent(id int64, epoch int16, seq, count int32) batch.Header {
	return batch.Header{ProducerID: id, ProducerEpoch: epoch, BaseSequence: seq, LastOffsetDelta: count - 1, RecordCount: count, MaxTimestamp: 1000}
}

const top = math.MaxInt32

func TestCheck(t *testing.T) {
	type step struct {
		h    batch.Header
		want error
		dup  int64 // base offset of the batch that it repeats, or -1
	}
	ok := func(h batch.Header) step { return step{h, nil, -1} }
	again := func(h batch.Header, base int64) step { return step{h, nil, base} }
	bad := func(h batch.Header, err error) step { return step{h, err, -1} }
	cases := []struct {
		name  string
		steps []step // each accepted one that is no duplicate is appended
	}{
		{"in order", []step{ok(sent(1, 0, 0, 3)), ok(sent(1, 0, 3, 2)), ok(sent(1, 0, 5, 1))}},
		{"no producer id", []step{ok(sent(-1, -1, -1, 3)), ok(sent(-1, -1, -1, 3))}},
		{"a gap", []step{ok(sent(1, 0, 0, 3)), bad(sent(1, 0, 4, 1), ErrOutOfOrderSequence)}},
		{"a step back that no kept batch matches", []step{ok(sent(1, 0, 0, 3)), bad(sent(1, 0, 1, 1), ErrOutOfOrderSequence)}},
		{"same first sequence, another length", []step{ok(sent(1, 0, 0, 3)), bad(sent(1, 0, 0, 2), ErrOutOfOrderSequence)}},
		{"an unknown producer begins anywhere", []step{ok(sent(1, 5, 77, 1)), ok(sent(1, 5, 78, 1))}},
		{"the last batch again", []step{ok(sent(1, 0, 0, 3)), again(sent(1, 0, 0, 3), 0), ok(sent(1, 0, 3, 1))}},
		{"each of five batches again", []step{
			ok(sent(1, 0, 0, 1)), ok(sent(1, 0, 1, 2)), ok(sent(1, 0, 3, 1)), ok(sent(1, 0, 4, 1)), ok(sent(1, 0, 5, 1)),
			again(sent(1, 0, 0, 1), 0), again(sent(1, 0, 1, 2), 1), again(sent(1, 0, 3, 1), 3), again(sent(1, 0, 4, 1), 4), again(sent(1, 0, 5, 1), 5)}},
		{"the sixth last batch is forgotten", []step{
			ok(sent(1, 0, 0, 1)), ok(sent(1, 0, 1, 1)), ok(sent(1, 0, 2, 1)), ok(sent(1, 0, 3, 1)), ok(sent(1, 0, 4, 1)), ok(sent(1, 0, 5, 1)),
			bad(sent(1, 0, 0, 1), ErrOutOfOrderSequence), again(sent(1, 0, 1, 1), 1)}},
		{"new epoch from 0", []step{ok(sent(1, 0, 0, 3)), ok(sent(1, 1, 0, 1)), ok(sent(1, 1, 1, 1))}},
		{"new epoch not from 0", []step{ok(sent(1, 0, 0, 3)), bad(sent(1, 1, 3, 1), ErrOutOfOrderSequence)}},
		{"old epoch", []step{ok(sent(1, 1, 0, 3)), bad(sent(1, 0, 3, 1), ErrInvalidProducerEpoch)}},
		{"old epoch's batch again", []step{ok(sent(1, 0, 0, 3)), ok(sent(1, 1, 0, 3)), bad(sent(1, 0, 0, 3), ErrInvalidProducerEpoch)}},
		{"sequences wrap between batches", []step{ok(sent(1, 0, top-1, 2)), ok(sent(1, 0, 0, 1)), again(sent(1, 0, top-1, 2), 0)}},
		{"sequences wrap inside a batch", []step{ok(sent(1, 0, top-1, 4)), ok(sent(1, 0, 2, 1)), again(sent(1, 0, top-1, 4), 0)}},
		{"0 follows the largest sequence only", []step{ok(sent(1, 0, top-2, 2)), bad(sent(1, 0, 0, 1), ErrOutOfOrderSequence)}},
		{"producers do not meet", []step{ok(sent(1, 0, 0, 3)), ok(sent(2, 0, 0, 3)), ok(sent(1, 0, 3, 1)), ok(sent(2, 0, 3, 1))}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var s State
			next := int64(0)
			for i, step := range c.steps {
				dup, err := s.Check(step.h, true)
				if !errors.Is(err, step.want) || (err == nil) != (step.want == nil) {
					t.Fatalf("step %d: got %v, want %v", i, err, step.want)
				}
				if (dup != nil) != (step.dup >= 0) || dup != nil && dup.FirstOffset() != step.dup {
					t.Fatalf("step %d: duplicate %+v, want base offset %d", i, dup, step.dup)
				}
				if dup == nil && err == nil {
					s.Update(step.h, next)
					next += int64(step.h.RecordCount)
				}
			}
		})
	}
}

func TestCheckOfWhatNoClientSent(t *testing.T) {
	var s State
	s.Update(sent(1, 1, 0, 3), 0)
	if dup, err := s.Check(sent(1, 1, 0, 3), false); dup != nil || err != nil {
		t.Errorf("sequences were checked: %v, %v", dup, err)
	}
	if _, err := s.Check(sent(1, 0, 0, 3), false); !errors.Is(err, ErrInvalidProducerEpoch) {
		t.Errorf("the epoch was not checked: %v", err)
	}
}

func TestDuplicateCarriesTheFirstAnswer(t *testing.T) {
	var s State
	h := sent(9, 2, 5, 4)
	h.MaxTimestamp = 1234
	s.Update(h, 100)
	dup, err := s.Check(h, true)
	if err != nil || dup == nil || dup.FirstOffset() != 100 || dup.LastOffset != 103 || dup.Timestamp != 1234 {
		t.Fatalf("%+v, %v", dup, err)
	}
}

// Replay takes what is in the log as it is: gaps, and epochs that step back.
func TestUpdateDoesNotCheck(t *testing.T) {
	var s State
	s.Update(sent(1, 3, 0, 3), 0)
	s.Update(sent(1, 3, 50, 1), 3)
	s.Update(sent(1, 2, 8, 1), 4)
	want := []Info{{ProducerID: 1, ProducerEpoch: 2, LastSequence: 8, LastTimestamp: 1000, CoordinatorEpoch: -1, TxnFirstOffset: -1}}
	if got := s.Active(); !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v", got)
	}
}

func TestControlBatchKeepsSequences(t *testing.T) {
	var s State
	s.Update(sent(1, 0, 0, 3), 0)
	end := sent(1, 0, -1, 1)
	end.Attributes = 0x30
	s.Update(end, 3)
	if _, err := s.Check(sent(1, 0, 3, 1), true); err != nil {
		t.Errorf("same epoch: %v", err)
	}
	end.ProducerEpoch = 1
	s.Update(end, 4)
	if _, err := s.Check(sent(1, 1, 3, 1), true); !errors.Is(err, ErrOutOfOrderSequence) {
		t.Errorf("a new epoch begins with sequence 0: %v", err)
	}
	if _, err := s.Check(sent(1, 1, 0, 1), true); err != nil {
		t.Error(err)
	}
}

// dull is the state again, in the plainest way: every producer's whole history.
type dull map[int64][]dullBatch

type dullBatch struct {
	h    batch.Header
	base int64
}

func (d dull) window(id int64) []dullBatch {
	all := d[id]
	from := len(all)
	for from > 0 && len(all)-from < BatchesKept && all[from-1].h.ProducerEpoch == all[len(all)-1].h.ProducerEpoch {
		from--
	}
	return all[from:]
}

func (d dull) check(h batch.Header) (dup int64, err error) {
	window := d.window(h.ProducerID)
	if len(window) == 0 {
		return -1, nil
	}
	last := window[len(window)-1].h
	if last.ProducerEpoch == h.ProducerEpoch {
		for _, b := range window {
			if b.h.BaseSequence == h.BaseSequence && b.h.LastSequence() == h.LastSequence() {
				return b.base, nil
			}
		}
	}
	want := int32((int64(last.LastSequence()) + 1) % (1 << 31))
	switch {
	case h.ProducerEpoch < last.ProducerEpoch:
		return -1, ErrInvalidProducerEpoch
	case h.ProducerEpoch > last.ProducerEpoch && h.BaseSequence != 0,
		h.ProducerEpoch == last.ProducerEpoch && h.BaseSequence != want:
		return -1, ErrOutOfOrderSequence
	}
	return -1, nil
}

// Random appends, with rounds that fail and are taken back, must agree with the dull state.
func TestAgainstDullState(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		s, d := &State{}, dull{}
		offset := int64(0)
		for range 200 {
			before, beforeOffset := s.Clone(), offset
			var undos []Undo
			var appended []int64
			for range 1 + r.IntN(12) {
				h := randomBatch(r, d)
				wantDup, wantErr := d.check(h)
				dup, err := s.Check(h, true)
				if !errors.Is(err, wantErr) || (dup != nil) != (wantDup >= 0) || dup != nil && dup.FirstOffset() != wantDup {
					t.Fatalf("seed %d: %+v: got %+v %v, want %d %v", seed, h, dup, err, wantDup, wantErr)
				}
				if err != nil || dup != nil {
					continue
				}
				undos = append(undos, s.Update(h, offset))
				d[h.ProducerID] = append(d[h.ProducerID], dullBatch{h, offset})
				appended = append(appended, h.ProducerID)
				offset += int64(h.RecordCount)
			}
			if r.IntN(3) > 0 {
				continue
			}
			for i := len(undos) - 1; i >= 0; i-- {
				s.Undo(undos[i])
				id := appended[i]
				if d[id] = d[id][:len(d[id])-1]; len(d[id]) == 0 {
					delete(d, id)
				}
			}
			offset = beforeOffset
			if got, want := describe(s), describe(before); got != want {
				t.Fatalf("seed %d: after undo\n%s\nwant\n%s", seed, got, want)
			}
		}
	}
}

// randomBatch is mostly a good next batch, at times a repeated or a wrong one.
func randomBatch(r *rand.Rand, d dull) batch.Header {
	id := int64(r.IntN(4))
	count := int32(1 + r.IntN(3))
	window := d.window(id)
	if len(window) == 0 {
		return sent(id, 0, int32(top-r.IntN(8)), count)
	}
	last := window[len(window)-1].h
	switch r.IntN(10) {
	case 0:
		return window[r.IntN(len(window))].h
	case 1:
		return sent(id, last.ProducerEpoch+1, 0, count)
	case 2:
		return sent(id, last.ProducerEpoch-1+int16(r.IntN(3)), int32(r.IntN(9)), count)
	}
	return sent(id, last.ProducerEpoch, batch.AddSequence(last.LastSequence(), 1), count)
}

// describe writes down all that a state decides by.
func describe(s *State) string {
	out := ""
	for _, info := range s.Active() {
		e := s.entries[info.ProducerID]
		out += fmt.Sprintf("%+v", info)
		if e.batches > 0 {
			out += fmt.Sprintf(" last %+v", e.last)
		}
		if e.batches > 1 {
			out += fmt.Sprintf(" older %+v", e.older[:e.batches-1])
		}
		out += "\n"
	}
	return out
}

func TestExpire(t *testing.T) {
	var s State
	for id, ts := range []int64{5000, 5001, batch.NoTimestamp} {
		h := sent(int64(id), 0, 0, 1)
		h.MaxTimestamp = ts
		s.Update(h, int64(id))
	}
	if n := s.Expire(15_000, 10*time.Second); n != 2 || s.Len() != 1 || s.Active()[0].ProducerID != 1 {
		t.Fatalf("expired %d, left %+v", n, s.Active())
	}
	if _, err := s.Check(sent(0, 0, 1234, 1), true); err != nil {
		t.Errorf("a forgotten producer must be able to go on: %v", err)
	}
}

func TestManyProducersStaySmall(t *testing.T) {
	const producers = 100_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var s State
	for id := range int64(producers) {
		s.Update(sent(id, 0, 0, 1), id)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / producers
	t.Logf("%d bytes for a producer of one batch", each)
	if each > 128 {
		t.Errorf("a producer of one batch takes %d bytes", each)
	}
	runtime.KeepAlive(&s)
}

func BenchmarkCheckAndUpdate(b *testing.B) {
	var s State
	b.ReportAllocs()
	seq := int32(0)
	for i := range b.N {
		h := sent(int64(i%1000), 0, seq, 1)
		if _, err := s.Check(h, true); err != nil {
			b.Fatal(err)
		}
		u := s.Update(h, int64(i))
		if i%64 == 0 {
			s.Undo(u)
			s.Update(h, int64(i))
		}
		if i%1000 == 999 {
			seq++
		}
	}
}
