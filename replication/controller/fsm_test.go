package controller

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/millrace/millrace/engine/catalog"
)

func testFSM() *fsm {
	f := newFSM()
	f.halt, f.moved, f.members = func(error) {}, func(*raft.Log) {}, func() {}
	return f
}

func encodeProposal(t testing.TB, base uint64, cmd catalog.Command) (proposal, []byte) {
	t.Helper()
	body, err := catalog.EncodeCommand(cmd)
	if err != nil {
		t.Fatal(err)
	}
	p := newProposal(kindCommand, base, body)
	return p, p.encode()
}

// apply applies bytes at an index and returns what a waiting proposer hears.
func (f *fsm) hear(t testing.TB, index uint64, b []byte) outcome {
	t.Helper()
	p, err := decodeProposal(b)
	if err != nil {
		t.Fatal(err)
	}
	heard, stop := f.await(p.id, func() {})
	defer stop()
	f.Apply(&raft.Log{Index: index, Term: 1, Data: b})
	select {
	case o := <-heard:
		return o
	default:
		t.Fatalf("nothing was heard of entry %d: %v", index, f.stuck.Load())
		return outcome{}
	}
}

// TestAppliedOnce: a proposal that comes again is answered as before, also after a snapshot, and not applied; so late
// that nobody knows, it is refused.
func TestAppliedOnce(t *testing.T) {
	f := testFSM()
	_, draw := encodeProposal(t, 0, catalog.AllocateProducerIDs{Count: 10})
	_, create := encodeProposal(t, 0, catalog.CreateTopics{Topics: []catalog.NewTopic{{Name: ""}}})
	first, second := f.hear(t, 5, draw), f.hear(t, 6, draw)
	refused := f.hear(t, 7, create)
	if first.err != nil || second.err != nil || first.res.FirstProducerID != second.res.FirstProducerID || f.image.Load().NextProducerID() != 10 {
		t.Fatalf("%+v %+v %d", first, second, f.image.Load().NextProducerID())
	}
	again, err := decodeState(f.state.encode())
	if err != nil || !bytes.Equal(again.encode(), f.state.encode()) {
		t.Fatal("a snapshot is not what it was made of:", err)
	}
	g := testFSM()
	if err := g.Restore(io.NopCloser(bytes.NewReader(f.state.encode()))); err != nil {
		t.Fatal(err)
	}
	var others [][]byte
	for i := range uint64(rememberedCommands) {
		_, b := encodeProposal(t, 9+i, catalog.AllocateProducerIDs{Count: 1})
		others = append(others, b)
	}
	for _, f := range []*fsm{f, g} {
		third, errs := f.hear(t, 8, draw), f.hear(t, 9, create).res.Errors
		if third.err != nil || third.res.FirstProducerID != 0 || f.image.Load().NextProducerID() != 10 {
			t.Fatalf("%+v %d", third, f.image.Load().NextProducerID())
		}
		if len(errs) != 1 || errs[0] != refused.res.Errors[0] || errs[0] == nil {
			t.Fatal(errs)
		}
		index := uint64(10)
		for _, b := range others { // until it is forgotten
			if o := f.hear(t, index, b); o.err != nil {
				t.Fatal(o.err)
			}
			index++
		}
		if o := f.hear(t, index, draw); !errors.Is(o.err, ErrForgotten) || f.image.Load().NextProducerID() != 10+rememberedCommands {
			t.Fatal(o, f.image.Load().NextProducerID())
		}
		if n := len(f.state.done.records); n != rememberedCommands || len(f.state.done.byID) != n {
			t.Fatal(n, len(f.state.done.byID))
		}
	}
	if !bytes.Equal(f.state.encode(), g.state.encode()) {
		t.Error("a machine and one restored from its snapshot have parted")
	}
}

// TestRememberedBytes: large results are forgotten sooner.
func TestRememberedBytes(t *testing.T) {
	var r remembered
	for i := range uint64(100) {
		r.add(record{id: proposalID{byte(i)}, index: i, result: make([]byte, 100<<10)})
	}
	if r.bytes > rememberedBytes || len(r.records) != rememberedBytes/(100<<10) || r.forgotten != uint64(99-len(r.records)) {
		t.Fatal(r.bytes, len(r.records), r.forgotten)
	}
}

// TestAgain: entries that a second raft brings again are passed over.
func TestAgain(t *testing.T) {
	f := testFSM()
	_, draw := encodeProposal(t, 0, catalog.AllocateProducerIDs{Count: 10})
	f.hear(t, 5, draw)
	_, other := encodeProposal(t, 0, catalog.AllocateProducerIDs{Count: 10})
	f.Apply(&raft.Log{Index: 5, Data: other})
	f.Apply(&raft.Log{Index: 4, Data: []byte("whatever")})
	if f.image.Load().NextProducerID() != 10 || f.stuck.Load() != nil {
		t.Fatal(f.image.Load().NextProducerID(), f.stuck.Load())
	}
}

// TestStuck: an entry that this version does not know is not passed over, and nothing after it is applied.
func TestStuck(t *testing.T) {
	_, good := encodeProposal(t, 0, catalog.AllocateProducerIDs{Count: 10})
	command := slices.Clone(good)
	command[proposalHeader+1] = 99
	version := slices.Clone(good)
	version[0]++
	kind := slices.Clone(good)
	kind[1] = 77
	for name, bad := range map[string][]byte{"command": command, "version": version, "kind": kind, "short": good[:5], "empty": nil} {
		f := testFSM()
		var halted error
		f.halt = func(err error) { halted = err }
		f.Apply(&raft.Log{Index: 3, Data: bad})
		f.Apply(&raft.Log{Index: 4, Data: good})
		if halted == nil || f.image.Load().NextProducerID() != 0 || f.applied.Load() != 0 {
			t.Errorf("%s: %v, %d", name, halted, f.image.Load().NextProducerID())
		}
		if _, err := f.Snapshot(); err == nil {
			t.Errorf("%s: a snapshot is taken", name)
		}
	}
}

// TestRestoreTells: subscribers hear of a snapshot as of one change, waiting proposers find their answer in it, and an older one is passed over.
func TestRestoreTells(t *testing.T) {
	ahead, behind := testFSM(), testFSM()
	_, first := encodeProposal(t, 0, topics("a", "b"))
	for _, f := range []*fsm{ahead, behind} {
		f.hear(t, 2, first)
	}
	older := behind.state.encode()
	a := ahead.image.Load().Topic("a")
	_, second := encodeProposal(t, 0, catalog.DeleteTopics{IDs: []catalog.TopicID{a.ID}})
	p, third := encodeProposal(t, 0, topics("c"))
	ahead.hear(t, 3, second)
	ahead.hear(t, 4, third)

	var told []string
	behind.subscribe(func(old, new *catalog.Image) {
		for _, e := range new.Events() {
			told = append(told, fmt.Sprint(e.Kind, e.Name))
		}
	})
	heard, stop := behind.await(p.id, func() {})
	defer stop()
	if err := behind.Restore(io.NopCloser(bytes.NewReader(ahead.state.encode()))); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprint([]string{fmt.Sprint(catalog.TopicDeleted, "a"), fmt.Sprint(catalog.TopicCreated, "c")}); fmt.Sprint(told) != want {
		t.Errorf("told %v, want %s", told, want)
	}
	select {
	case o := <-heard:
		if o.err != nil || o.res.Image.Topic("c") == nil {
			t.Error(o)
		}
	default:
		t.Error("the proposer was not told")
	}
	if err := behind.Restore(io.NopCloser(bytes.NewReader(older))); err != nil || behind.image.Load().Topic("c") == nil {
		t.Error("a node went back:", err)
	}
}

// TestDecodeStateRefuses: no flipped bit and no lost end of a snapshot goes unnoticed.
func TestDecodeStateRefuses(t *testing.T) {
	f := testFSM()
	_, b := encodeProposal(t, 0, topics("a"))
	f.hear(t, 2, b)
	whole := f.state.encode()
	for i := range whole {
		damaged := slices.Clone(whole)
		damaged[i] ^= 1 << (i % 8)
		for _, b := range [][]byte{damaged, whole[:i]} {
			if _, err := decodeState(b); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrFutureFormat) {
				t.Fatalf("byte %d: %v", i, err)
			}
		}
	}
}

// FuzzApply: no bytes in the log make a panic, and whatever is accepted leads to one state on two machines.
func FuzzApply(f *testing.F) {
	_, b := encodeProposal(f, 0, topics("a"))
	f.Add(b, b)
	f.Fuzz(func(t *testing.T, one, two []byte) {
		x, y := testFSM(), testFSM()
		for i, b := range [][]byte{one, two, one} {
			l := &raft.Log{Index: uint64(i + 1), Data: b}
			x.Apply(l)
			y.Apply(l)
		}
		if (x.stuck.Load() == nil) != (y.stuck.Load() == nil) || !bytes.Equal(x.state.encode(), y.state.encode()) {
			t.Fatal("two machines differ")
		}
		again, err := decodeState(x.state.encode())
		if err != nil || !bytes.Equal(again.encode(), x.state.encode()) {
			t.Fatal(err)
		}
	})
}

// FuzzDecodeState: no bytes make a panic.
func FuzzDecodeState(f *testing.F) {
	s := testFSM().state
	f.Add(s.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeState(b)
		if err == nil {
			_ = s.encode()
		}
	})
}
