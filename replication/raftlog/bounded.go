package raftlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// DefaultBound is how long raft waits for its disk. With the controller's election timeout of 300 ms it is somewhat more than
// three of them: a disk that answers after less costs less time than the change of leaders that would
// follow, and one that takes longer costs more. It is also when the logs call a disk slow.
const DefaultBound = time.Second

const (
	// bytesPerSecond is what a disk must write beside answering in time: a follower that catches up
	// writes many megabytes at once.
	bytesPerSecond = 8 << 20
	// readsBound is the bound of listing and opening snapshots, in bounds: opening reads all of it.
	readsBound = 10
)

// currentTerm is the one value of the stable store that raft does not take an error for: it panics.
var currentTerm = []byte("CurrentTerm")

// Store is what Bounded stands before: a [Log], or a test's.
type Store interface {
	raft.LogStore
	raft.StableStore
}

// Bounded gives raft its log, stable store and snapshots with a bound for each operation. It is for the
// life of one raft.Raft:
//
// A write to the log that takes longer than the bound, or fails, comes back with an error. Then it is broken: so
// does every later write, at once. On a leader raft steps down when it gets that error. It may not go on, though, when the disk is back: hashicorp/raft
// has by then changed what it believes without having stored it (the configuration after a failed AddVoter, the end of the log after
// a truncation), and the write may still have been carried out. So the raft is to be shut down, and after [Bounded.Release] another one is to
// read from the disk what is there.
//
// Where raft answers an error with a panic of the whole process (storing its term, reading an entry that it has to apply) the calling goroutine is ended
// instead, by runtime.Goexit: its deferred calls give up leadership, and everybody who waits for it hears of that.
//
// What reads the log is not waited for from outside: it comes from memory, or from Badger's memory maps.
type Bounded struct {
	store  Store
	snaps  raft.SnapshotStore
	bound  time.Duration
	told   func(error)
	writes lane
	files  lane

	broken chan struct{} // closed by the first failure
	once   sync.Once
	err    error // set before broken is closed
}

// Bound makes one. Broken, when given, is called once when it breaks, on a goroutine of raft's: it must not block. A bound of 0 is DefaultBound.
func Bound(store Store, snaps raft.SnapshotStore, bound time.Duration, broken func(error)) *Bounded {
	if bound <= 0 {
		bound = DefaultBound
	}
	b := &Bounded{store: store, snaps: snaps, bound: bound, told: broken, broken: make(chan struct{})}
	b.writes.start()
	b.files.start()
	return b
}

// Broken is closed when a write has failed or has taken too long.
func (b *Bounded) Broken() <-chan struct{} { return b.broken }

// Err is why it is broken, nil when it is not.
func (b *Bounded) Err() error {
	select {
	case <-b.broken:
		return b.err
	default:
		return nil
	}
}

// Release waits until no operation is under way any more, and ends the goroutines. Raft must have been shut down. It returns
// what the operations came back with that nobody had waited for: nil when all that was begun has been
// carried out. When the context ends first it may be called again.
func (b *Bounded) Release(ctx context.Context) error {
	return errors.Join(b.writes.finish(ctx), b.files.finish(ctx))
}

// fail breaks it.
func (b *Bounded) fail(err error) {
	b.once.Do(func() {
		b.err = err
		close(b.broken)
		if b.told != nil {
			b.told(err)
		}
	})
}

// halt breaks it and ends the calling goroutine.
func (b *Bounded) halt(err error) {
	b.fail(err)
	runtime.Goexit()
}

// write carries out a write within the bound, longer when it is large.
func (b *Bounded) write(what string, bytes int, f func() error) error {
	if err := b.Err(); err != nil {
		return err
	}
	err := b.writes.do(what, b.boundOf(bytes), b.broken, f, nil)
	if err != nil && b.Err() != nil {
		return b.Err()
	}
	return err
}

func (b *Bounded) boundOf(bytes int) time.Duration {
	return b.bound + time.Duration(bytes)*time.Second/bytesPerSecond
}

// FirstIndex is the store's.
func (b *Bounded) FirstIndex() (uint64, error) { return b.store.FirstIndex() }

// LastIndex is the store's.
func (b *Bounded) LastIndex() (uint64, error) { return b.store.LastIndex() }

// GetLog is the store's. Any other error than ErrLogNotFound breaks it and ends the calling goroutine.
func (b *Bounded) GetLog(index uint64, out *raft.Log) error {
	err := b.store.GetLog(index, out)
	if err != nil && !errors.Is(err, raft.ErrLogNotFound) {
		b.halt(err)
	}
	return err
}

// StoreLog is StoreLogs of one entry.
func (b *Bounded) StoreLog(entry *raft.Log) error { return b.StoreLogs([]*raft.Log{entry}) }

// StoreLogs stores entries within the bound; an error breaks it.
func (b *Bounded) StoreLogs(entries []*raft.Log) error {
	bytes := 0
	for _, e := range entries {
		bytes += sizeOf(e)
	}
	err := b.write("storing entries", bytes, func() error { return b.store.StoreLogs(entries) })
	if err != nil {
		b.fail(err)
	}
	return err
}

// DeleteRange removes entries within the bound; an error breaks it.
func (b *Bounded) DeleteRange(from, to uint64) error {
	err := b.write("removing entries", 0, func() error { return b.store.DeleteRange(from, to) })
	if err != nil {
		b.fail(err)
	}
	return err
}

// Set stores a value within the bound; an error breaks it. A vote that could not be stored is not cast.
func (b *Bounded) Set(key, value []byte) error {
	err := b.write("storing "+string(key), 0, func() error { return b.store.Set(key, value) })
	return b.stored(key, err)
}

// SetUint64 stores a number within the bound; an error breaks it, and of the current term ends the calling goroutine.
func (b *Bounded) SetUint64(key []byte, value uint64) error {
	err := b.write("storing "+string(key), 0, func() error { return b.store.SetUint64(key, value) })
	return b.stored(key, err)
}

func (b *Bounded) stored(key []byte, err error) error {
	if err == nil {
		return nil
	}
	if bytes.Equal(key, currentTerm) {
		b.halt(err)
	}
	b.fail(err)
	return err
}

// Get is the store's.
func (b *Bounded) Get(key []byte) ([]byte, error) { return b.store.Get(key) }

// GetUint64 is the store's.
func (b *Bounded) GetUint64(key []byte) (uint64, error) { return b.store.GetUint64(key) }

// Snapshots is the snapshot store within bounds. What fails or stalls there breaks nothing: raft has another try later.
func (b *Bounded) Snapshots() raft.SnapshotStore { return boundedSnapshots{b} }

type boundedSnapshots struct{ b *Bounded }

// Create begins a snapshot within the bound.
func (s boundedSnapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	var made raft.SnapshotSink
	err := s.b.files.do("beginning a snapshot", s.b.bound, nil, func() (err error) {
		made, err = s.b.snaps.Create(version, index, term, configuration, configurationIndex, trans)
		return err
	}, func() {
		if made != nil {
			_ = made.Cancel() // nobody waits for it, and a leftover is removed at the next start
		}
	})
	if err != nil {
		return nil, err
	}
	return &boundedSink{b: s.b, sink: made, id: made.ID(), index: index, term: term}, nil
}

// List lists them within ten bounds.
func (s boundedSnapshots) List() (metas []*raft.SnapshotMeta, err error) {
	var found []*raft.SnapshotMeta
	err = s.b.files.do("listing snapshots", readsBound*s.b.bound, nil, func() (err error) {
		found, err = s.b.snaps.List()
		return err
	}, nil)
	if err != nil {
		return nil, err
	}
	return found, nil
}

// Open opens one within ten bounds; reading it then has none.
func (s boundedSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	var meta *raft.SnapshotMeta
	var r io.ReadCloser
	err := s.b.files.do("opening a snapshot", readsBound*s.b.bound, nil, func() (err error) {
		meta, r, err = s.b.snaps.Open(id)
		return err
	}, func() {
		if r != nil {
			_ = r.Close() // opened for reading
		}
	})
	if err != nil {
		return nil, nil, err
	}
	return meta, r, nil
}

// boundedSink is a snapshot being written.
type boundedSink struct {
	b    *Bounded
	sink raft.SnapshotSink
	id   string
	size int
	lost bool // an operation did not come back in time, and gives the snapshot up when it does

	index, term uint64 // of the last entry in it
}

func (k *boundedSink) do(what string, bytes int, f func() error) error {
	if k.lost {
		return &StallError{Op: what, Bound: k.b.bound}
	}
	err := k.b.files.do(what, k.b.boundOf(bytes), nil, f, func() {
		_ = k.sink.Cancel() // nobody waits for it, and a leftover is removed at the next start
	})
	k.lost = errors.Is(err, ErrStalled)
	return err
}

// ID is the snapshot's.
func (k *boundedSink) ID() string { return k.id }

// Write writes within the bound.
func (k *boundedSink) Write(b []byte) (int, error) {
	kept := bytes.Clone(b) // the caller may use b again while a write that is given up goes on
	err := k.do("writing a snapshot", len(b), func() error {
		_, err := k.sink.Write(kept)
		return err
	})
	if err != nil {
		return 0, err
	}
	k.size += len(b)
	return len(b), nil
}

// Close makes the snapshot durable within the bound, and removes a log that it has replaced.
func (k *boundedSink) Close() error {
	if err := k.do("syncing a snapshot", k.size, k.sink.Close); err != nil {
		return err
	}
	return k.b.replace(k.index, k.term)
}

// replace removes the log when a snapshot that came from the leader does not agree with it, so that the entries that come next follow what
// is there. Those of a snapshot of one's own, and of one from the leader that is behind the log, do agree, and stay.
//
// Raft would do that itself for a MonotonicLogStore, but without looking (1.8.0): a late copy of an older snapshot takes with it all that
// the follower has acknowledged since, and the process panics.
func (b *Bounded) replace(index, term uint64) error {
	first, err := b.store.FirstIndex()
	if err != nil {
		return err
	}
	last, err := b.store.LastIndex()
	if err != nil || last == 0 || index < first {
		return err
	}
	if index <= last {
		var e raft.Log
		if err := b.GetLog(index, &e); err == nil && e.Term == term {
			return nil
		}
	}
	if err := b.DeleteRange(first, last); err != nil {
		return err
	}
	if index <= last { // raft takes the entries that were removed for its last, and would refuse all others
		b.fail(ErrReplaced)
		return ErrReplaced
	}
	return nil
}

// Cancel gives the snapshot up.
func (k *boundedSink) Cancel() error {
	if k.lost {
		return nil
	}
	return k.do("giving a snapshot up", 0, k.sink.Cancel)
}

// lane carries out operations one after the other on a goroutine of its own, so that who asked for one
// need not wait for it to come back.
type lane struct {
	jobs chan *job // unbuffered: what was not begun in time is never begun
	stop chan struct{}
	done chan struct{} // closed when the goroutine has ended
	once sync.Once
	late error // what came back from operations that were given up; read after done
}

type job struct {
	run     func() error
	cleanup func() // when nobody waits any more
	answer  chan error
	gone    atomic.Bool // whoever sets it first has it: the asker that gives up, or the worker that answers
}

func (l *lane) start() {
	l.jobs, l.stop, l.done = make(chan *job), make(chan struct{}), make(chan struct{})
	go l.work()
}

// work ends when finish is called and the operation under way has come back.
func (l *lane) work() {
	defer close(l.done)
	for {
		select {
		case <-l.stop:
			return
		case j := <-l.jobs:
			err := j.run()
			if j.gone.CompareAndSwap(false, true) {
				j.answer <- err
				continue
			}
			if l.late == nil {
				l.late = err
			}
			if j.cleanup != nil {
				j.cleanup()
			}
		}
	}
}

// do carries out an operation, and gives it up when it has not come back within the bound, or not begun when broken is closed.
func (l *lane) do(what string, bound time.Duration, broken <-chan struct{}, run func() error, cleanup func()) error {
	timer := time.NewTimer(bound)
	defer timer.Stop()
	j := &job{run: run, cleanup: cleanup, answer: make(chan error, 1)}
	select {
	case l.jobs <- j:
	case <-l.stop:
		return ErrClosed
	case <-broken:
		return ErrStalled
	case <-timer.C:
		return &StallError{Op: what, Bound: bound}
	}
	select {
	case err := <-j.answer:
		return err
	case <-timer.C:
		if !j.gone.CompareAndSwap(false, true) { // it came back at the last moment
			return <-j.answer
		}
		return &StallError{Op: what, Bound: bound}
	}
}

// finish ends the goroutine and waits for it.
func (l *lane) finish(ctx context.Context) error {
	l.once.Do(func() { close(l.stop) })
	select {
	case <-l.done:
		return l.late
	case <-ctx.Done():
		return fmt.Errorf("%w: an operation is still under way: %w", ErrStalled, ctx.Err())
	}
}
