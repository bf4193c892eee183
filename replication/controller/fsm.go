package controller

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/millrace/millrace/engine/catalog"
)

// maxSnapshotBytes bounds what is read into memory of a snapshot.
const maxSnapshotBytes = 1 << 30

// fsm is raft's state machine. It outlives the rafts that drive it: what it has applied stays
// applied, and entries that come again with the next raft are passed over by their index.
//
// Raft calls it from one goroutine at a time. It reads no clock and touches no disk, and every node comes from the same entries
// to the same state.
type fsm struct {
	state   state
	applied atomic.Uint64 // state.index, for others
	bytes   atomic.Int64  // of entries since the last snapshot
	stuck   atomic.Pointer[error]

	image   atomic.Pointer[catalog.Image]
	halt    func(error)     // called once, when an entry cannot be applied here
	moved   func(*raft.Log) // called after each entry that was applied; must not block
	members func()          // called when the configuration has changed; must not block

	mu          sync.Mutex // guards the fields below; never held across a call
	waiters     map[proposalID][]*waiter
	subscribers []*subscriber
}

type subscriber struct{ fn func(old, new *catalog.Image) }

// outcome is what a waiting proposer hears.
type outcome struct {
	res catalog.Result
	err error
}

// waiter is somebody who waits for a proposal.
type waiter struct {
	heard chan outcome // capacity one
	wake  func()       // called after the outcome; must not block
}

func newFSM() *fsm {
	f := &fsm{state: state{image: catalog.NewImage()}, waiters: map[proposalID][]*waiter{}}
	f.image.Store(f.state.image)
	return f
}

// Apply applies one entry. One that this version does not know stops the machine for good: to go on without it
// would be to differ from the others.
func (f *fsm) Apply(l *raft.Log) any {
	if l.Index <= f.state.index || f.stuck.Load() != nil {
		return nil
	}
	f.bytes.Add(int64(len(l.Data)))
	p, err := decodeProposal(l.Data)
	if err == nil {
		err = f.apply(l.Index, p)
	}
	if err != nil {
		err = fmt.Errorf("entry %d: %w", l.Index, err)
		f.stuck.Store(&err)
		f.halt(err)
		return nil
	}
	f.moved(l)
	return nil
}

func (f *fsm) apply(index uint64, p proposal) error {
	if known, found := f.state.done.outcome(p.id); found {
		res, err := catalog.DecodeResult(known.result)
		if err != nil {
			return err
		}
		f.reach(index, f.state.image)
		res.Image = f.state.image
		f.answer(p.id, outcome{res: res})
		return nil
	}
	if p.base < f.state.done.forgotten {
		f.reach(index, f.state.image)
		f.answer(p.id, outcome{err: ErrForgotten})
		return nil
	}
	cmd, err := p.command()
	if err != nil {
		return err
	}
	res := catalog.Result{Image: f.state.image}
	if cmd != nil {
		if res, err = catalog.Apply(f.state.image, cmd); err != nil {
			return err
		}
		f.state.done.add(record{id: p.id, index: index, result: catalog.EncodeResult(res)})
	}
	f.reach(index, res.Image)
	f.answer(p.id, outcome{res: res})
	return nil
}

// reach moves on to an index, publishes the image and tells the subscribers when it is another one.
func (f *fsm) reach(index uint64, img *catalog.Image) {
	old := f.state.image
	f.state.index, f.state.image = index, img
	f.applied.Store(index)
	if img == old {
		return
	}
	f.image.Store(img)
	f.mu.Lock()
	subscribers := f.subscribers
	f.mu.Unlock()
	for _, s := range subscribers {
		s.fn(old, img)
	}
}

// subscribe is [Controller.Subscribe].
func (f *fsm) subscribe(fn func(old, new *catalog.Image)) (stop func()) {
	s := &subscriber{fn: fn}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.subscribers = append(f.subscribers[:len(f.subscribers):len(f.subscribers)], s)
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		kept := make([]*subscriber, 0, len(f.subscribers))
		for _, have := range f.subscribers {
			if have != s {
				kept = append(kept, have)
			}
		}
		f.subscribers = kept
	}
}

// await registers somebody who waits for a proposal to be applied here.
func (f *fsm) await(id proposalID, wake func()) (heard <-chan outcome, stop func()) {
	w := &waiter{make(chan outcome, 1), wake}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiters[id] = append(f.waiters[id], w)
	return w.heard, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		kept := f.waiters[id][:0]
		for _, have := range f.waiters[id] {
			if have != w {
				kept = append(kept, have)
			}
		}
		if f.waiters[id] = kept; len(kept) == 0 {
			delete(f.waiters, id)
		}
	}
}

// answer tells those who wait for a proposal. Each hears one outcome, the first.
func (f *fsm) answer(id proposalID, o outcome) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.waiters[id] {
		select {
		case w.heard <- o:
			w.wake()
		default:
		}
	}
}

// StoreConfiguration is called when the members have changed.
func (f *fsm) StoreConfiguration(uint64, raft.Configuration) { f.members() }

// Snapshot takes the pointers.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if stuck := f.stuck.Load(); stuck != nil {
		return nil, *stuck
	}
	f.bytes.Store(0)
	return &snapshot{f.state}, nil
}

// snapshot is written beside the entries that follow.
type snapshot struct{ state state }

// Persist writes the state.
func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := sink.Write(s.state.encode()); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// Release has nothing to do.
func (s *snapshot) Release() {}

// Restore replaces the state by that of a snapshot, unless it has got further already. Subscribers are told once of all that is different.
func (f *fsm) Restore(r io.ReadCloser) error {
	b, err := io.ReadAll(io.LimitReader(r, maxSnapshotBytes+1))
	if err != nil {
		return err
	}
	if len(b) > maxSnapshotBytes {
		return fmt.Errorf("%w: a snapshot of more than %d bytes", ErrCorrupt, maxSnapshotBytes)
	}
	s, err := decodeState(b)
	if err != nil {
		return err
	}
	if s.index <= f.state.index {
		return nil
	}
	f.state.done = s.done
	img := s.image
	if img.Version() == f.state.image.Version() {
		img = f.state.image
	} else {
		img = img.WithEventsSince(f.state.image)
	}
	f.reach(s.index, img)
	f.mu.Lock()
	ids := make([]proposalID, 0, len(f.waiters))
	for id := range f.waiters {
		ids = append(ids, id)
	}
	f.mu.Unlock()
	for _, id := range ids {
		if known, found := s.done.outcome(id); found {
			res, err := catalog.DecodeResult(known.result)
			if err != nil {
				return err
			}
			res.Image = img
			f.answer(id, outcome{res: res})
		}
	}
	return nil
}
