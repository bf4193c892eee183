package raftlog

// What hashicorp/raft 1.8.0 does when its log hangs or fails, as it is and behind Bounded. Time is synctest's.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/millrace/millrace/segment/vfs"
)

// moodyStore is in memory, and hangs or fails when it is told to.
type moodyStore struct {
	*raft.InmemStore
	hang  atomic.Pointer[chan struct{}]
	fault atomic.Pointer[error]
	all   atomic.Bool // the fault is of the stable store too: raft as it is panics then

	failTruncated bool // fail once entries were removed
}

func newMoody() *moodyStore { return &moodyStore{InmemStore: raft.NewInmemStore()} }

func (s *moodyStore) mood() error {
	if c := s.hang.Load(); c != nil {
		<-*c
	}
	if err := s.fault.Load(); err != nil {
		return *err
	}
	return nil
}

// stall makes writes hang until the function returned is called.
func (s *moodyStore) stall() (release func()) {
	c := make(chan struct{})
	s.hang.Store(&c)
	return func() { s.hang.Store(nil); close(c) }
}

func (s *moodyStore) fail(err error) { s.fault.Store(&err) }
func (s *moodyStore) heal()          { s.fault.Store(nil) }

func (s *moodyStore) StoreLogs(logs []*raft.Log) error {
	if err := s.mood(); err != nil {
		return err
	}
	return s.InmemStore.StoreLogs(logs)
}

func (s *moodyStore) DeleteRange(from, to uint64) error {
	if s.failTruncated {
		s.fail(errors.New("input/output error"))
	}
	return s.InmemStore.DeleteRange(from, to)
}

func (s *moodyStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

func (s *moodyStore) Set(k, v []byte) error {
	if err := s.mood(); err != nil && s.all.Load() {
		return err
	}
	return s.InmemStore.Set(k, v)
}

func (s *moodyStore) SetUint64(k []byte, v uint64) error {
	if err := s.mood(); err != nil && s.all.Load() {
		return err
	}
	return s.InmemStore.SetUint64(k, v)
}

type countFSM struct{ applied atomic.Int64 }

func (f *countFSM) Apply(*raft.Log) any                 { return f.applied.Add(1) }
func (f *countFSM) Snapshot() (raft.FSMSnapshot, error) { return nil, errors.New("none") }
func (f *countFSM) Restore(r io.ReadCloser) error       { return nil }

// member is one node of a small cluster.
type member struct {
	*raft.Raft
	store   *moodyStore
	bounded *Bounded
	fsm     *countFSM
	trans   *raft.InmemTransport
}

func (m *member) stop(t *testing.T) {
	t.Helper()
	if err := m.Shutdown().Error(); err != nil {
		t.Error(err)
	}
	if m.bounded != nil {
		if err := m.bounded.Release(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func settings(id int) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(fmt.Sprint(id))
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = 300*time.Millisecond, 300*time.Millisecond, 250*time.Millisecond
	c.LogOutput = io.Discard
	return c
}

// cluster starts nodes on stores that hold at least the configuration.
func cluster(t *testing.T, bounded bool, stores ...*moodyStore) (members []*member) {
	t.Helper()
	conf := raft.Configuration{}
	for i, s := range stores {
		_, trans := raft.NewInmemTransport(raft.ServerAddress(fmt.Sprint("addr", i)))
		members = append(members, &member{store: s, fsm: &countFSM{}, trans: trans})
		conf.Servers = append(conf.Servers, raft.Server{ID: raft.ServerID(fmt.Sprint(i)), Address: trans.LocalAddr()})
	}
	for i, m := range members {
		for _, other := range members {
			if other != m {
				m.trans.Connect(other.trans.LocalAddr(), other.trans)
			}
		}
		var logs raft.LogStore = m.store
		var stable raft.StableStore = m.store
		var snaps raft.SnapshotStore = raft.NewDiscardSnapshotStore()
		if last, _ := m.store.LastIndex(); last == 0 {
			if err := raft.BootstrapCluster(settings(i), logs, stable, snaps, m.trans, conf); err != nil {
				t.Fatal(err)
			}
		}
		if bounded {
			m.bounded = Bound(m.store, snaps, 0, nil)
			logs, stable, snaps = m.bounded, m.bounded, m.bounded.Snapshots()
		}
		var err error
		if m.Raft, err = raft.NewRaft(settings(i), m.fsm, logs, stable, snaps, m.trans); err != nil {
			t.Fatal(err)
		}
	}
	return members
}

func three() []*moodyStore { return []*moodyStore{newMoody(), newMoody(), newMoody()} }

// leaderOf waits for a leader other than those left out, whose followers know it, and says how long that took.
func leaderOf(t *testing.T, members []*member, but ...*member) (*member, time.Duration) {
	t.Helper()
	begun := time.Now()
	for time.Since(begun) < time.Minute {
	candidates:
		for _, m := range members {
			for _, b := range but {
				if b == m {
					continue candidates
				}
			}
			if m.State() == raft.Leader && m.Apply([]byte("x"), time.Second).Error() == nil {
				return m, time.Since(begun)
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("no leader within a minute")
	return nil, 0
}

func apply(m *member) error { return m.Apply([]byte("x"), 2*time.Second).Error() }

// TestRaftLeaderHangs: the deadlock that Bounded is for. As long as its log hangs the leader leads, nothing is
// committed, and nobody else is elected.
func TestRaftLeaderHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		members := cluster(t, false, three()...)
		leader, _ := leaderOf(t, members)
		release := leader.store.stall()
		future := leader.Apply([]byte("x"), time.Second)
		time.Sleep(10 * time.Minute)
		if leader.State() != raft.Leader {
			t.Error("raft steps down by itself: Bounded is no longer needed")
		}
		for _, m := range members {
			if m != leader && (m.State() != raft.Follower || m.CurrentTerm() != leader.CurrentTerm()) {
				t.Error("another election was begun")
			}
		}
		release()
		if err := future.Error(); err != nil {
			t.Error(err)
		}
		for _, m := range members {
			m.stop(t)
		}
	})
}

// TestBoundedLeaderHangs: behind Bounded it steps down after the bound, another leads soon, and the raft that was told
// so takes no other write. A new one on the same store takes part again.
func TestBoundedLeaderHangs(t *testing.T) {
	var longest time.Duration
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			members := cluster(t, true, three()...)
			leader, _ := leaderOf(t, members)
			release := leader.store.stall()
			begun := time.Now()
			future := leader.Apply([]byte("x"), time.Second)
			if err := future.Error(); !errors.Is(err, ErrStalled) {
				t.Errorf("the proposal was answered with %v", err)
			}
			synctest.Wait() // raft answers first and steps down then
			if took := time.Since(begun); took > DefaultBound+10*time.Millisecond || leader.State() == raft.Leader {
				t.Errorf("it leads after %v", took)
			}
			leaderOf(t, members, leader)
			longest = max(longest, time.Since(begun))
			if err := leader.bounded.StoreLog(entry(99, 1, 1)); !errors.Is(err, ErrStalled) {
				t.Error("a broken log takes a write:", err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := leader.Shutdown().Error(); err != nil {
				t.Error(err)
			}
			if err := leader.bounded.Release(ctx); !errors.Is(err, ErrStalled) {
				t.Error("released with a write under way:", err)
			}
			release()
			if err := leader.bounded.Release(t.Context()); err != nil {
				t.Error(err)
			}
			again := &member{store: leader.store, fsm: &countFSM{}}
			_, again.trans = raft.NewInmemTransport(leader.trans.LocalAddr())
			again.bounded = Bound(leader.store, raft.NewDiscardSnapshotStore(), 0, nil)
			for i, m := range members {
				if m == leader {
					members[i] = again
					var err error
					if again.Raft, err = raft.NewRaft(settings(i), again.fsm, again.bounded, again.bounded, again.bounded.Snapshots(), again.trans); err != nil {
						t.Fatal(err)
					}
					continue
				}
				m.trans.Disconnect(again.trans.LocalAddr())
				m.trans.Connect(again.trans.LocalAddr(), again.trans)
				again.trans.Connect(m.trans.LocalAddr(), m.trans)
			}
			next, _ := leaderOf(t, members)
			if err := apply(next); err != nil {
				t.Error(err)
			}
			time.Sleep(5 * time.Second)
			if have, want := again.fsm.applied.Load(), next.fsm.applied.Load(); have != want {
				t.Errorf("it has applied %d of %d", have, want)
			}
			for _, m := range members {
				m.stop(t)
			}
		})
	}
	t.Logf("from the hang to another leader's first commit: at most %v of 20", longest)
	if longest > 3*time.Second {
		t.Error("that is too long")
	}
}

// TestRaftLeaderFails: an error makes the leader step down at once.
func TestRaftLeaderFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		members := cluster(t, false, three()...)
		leader, _ := leaderOf(t, members)
		fault := errors.New("input/output error")
		leader.store.fault.Store(&fault)
		err := apply(leader)
		synctest.Wait() // raft answers first and steps down then
		if !errors.Is(err, fault) || leader.State() == raft.Leader {
			t.Errorf("%v, %v", err, leader.State())
		}
		leader.store.heal()
		leaderOf(t, members)
		for _, m := range members {
			m.stop(t)
		}
	})
}

// TestRaftFollower: a follower whose log hangs, or fails, is done without, and catches up when it is well again.
func TestRaftFollower(t *testing.T) {
	for _, kind := range []string{"hangs", "fails"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				members := cluster(t, false, three()...)
				leader, _ := leaderOf(t, members)
				follower := members[0]
				if follower == leader {
					follower = members[1]
				}
				heal := follower.store.heal
				if kind == "hangs" {
					heal = follower.store.stall()
				} else {
					follower.store.fail(errors.New("input/output error"))
				}
				for range 10 {
					if err := apply(leader); err != nil {
						t.Error(err)
					}
				}
				time.Sleep(200 * time.Millisecond)
				if have := follower.fsm.applied.Load(); have > 1 {
					t.Errorf("it has applied %d", have)
				}
				heal()
				leader, _ = leaderOf(t, members)
				time.Sleep(10 * time.Second)
				if have, want := follower.fsm.applied.Load(), leader.fsm.applied.Load(); have != want {
					t.Errorf("applied %d of %d", have, want)
				}
				for _, m := range members {
					m.stop(t)
				}
			})
		})
	}
}

// TestRaftTruncationThenFailure: why a raft whose log has failed must be replaced (1). A follower truncates, fails
// to append, and never takes an entry again, however well its disk is; a new one does.
func TestRaftTruncationThenFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := three()
		servers := raft.Configuration{}
		for i := range stores {
			servers.Servers = append(servers.Servers, raft.Server{ID: raft.ServerID(fmt.Sprint(i)), Address: raft.ServerAddress(fmt.Sprint("addr", i))})
		}
		for i, s := range stores {
			first := &raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(servers)}
			es := append([]*raft.Log{first}, entries(2, 5, 3, 10)...)
			if i == 2 { // has what an old leader did not commit
				es = append([]*raft.Log{first}, entries(2, 3, 2, 10)...)
			}
			if err := errors.Join(s.StoreLogs(es), s.SetUint64(currentTerm, 3)); err != nil {
				t.Fatal(err)
			}
		}
		stores[2].failTruncated = true
		members := cluster(t, false, stores...)
		behind := members[2]
		leader, _ := leaderOf(t, members)
		time.Sleep(time.Minute)
		behind.store.heal()
		time.Sleep(10 * time.Minute)
		if err := apply(leader); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		last, _ := behind.store.LastIndex()
		if last != 1 || behind.fsm.applied.Load() != 0 {
			t.Errorf("it has recovered by itself, to entry %d", last)
		}
		for _, m := range members {
			m.stop(t)
		}
	})
}

// TestRaftUnstoredConfiguration: why a raft whose log has failed must be replaced (2). It counts with a configuration that it has not stored.
func TestRaftUnstoredConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		members := cluster(t, false, newMoody())
		leader, _ := leaderOf(t, members)
		leader.store.fail(errors.New("input/output error"))
		if err := leader.AddVoter("other", "nowhere", 0, time.Second).Error(); err == nil {
			t.Error("a member was added without storing it")
		}
		synctest.Wait() // raft answers first
		if n := len(leader.GetConfiguration().Configuration().Servers); n != 2 {
			t.Errorf("it counts with %d members: no longer with one that was not stored", n)
		}
		leader.store.heal()
		leader.stop(t)
	})
}

// TestBoundedTermNotStored: raft panics when it cannot store its term; behind Bounded its goroutine ends and the process lives.
func TestBoundedTermNotStored(t *testing.T) {
	for _, kind := range []string{"hangs", "fails"} {
		synctest.Test(t, func(t *testing.T) {
			members := cluster(t, true, three()...)
			leader, _ := leaderOf(t, members)
			release := func() {}
			var others []*member
			for _, m := range members {
				if m == leader {
					continue
				}
				others = append(others, m)
				if kind == "hangs" {
					before := release
					mine := m.store.stall()
					release = func() { before(); mine() }
				} else {
					m.store.all.Store(true)
					m.store.fail(errors.New("input/output error"))
				}
			}
			leader.trans.DisconnectAll() // so the others hold an election
			for _, m := range others {
				m.trans.Disconnect(leader.trans.LocalAddr())
			}
			time.Sleep(time.Minute)
			broken := 0
			for _, m := range others {
				if m.bounded.Err() != nil {
					broken++
				}
			}
			if broken == 0 {
				t.Error("nobody has tried to store a term")
			}
			release()
			for _, m := range members {
				if err := m.Shutdown().Error(); err != nil {
					t.Error(err)
				}
				_ = m.bounded.Release(t.Context())
			}
		})
	}
}

// TestBoundedSnapshots: a snapshot that hangs is given up, also when it comes back, and holds nobody up.
func TestBoundedSnapshots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &slowSnapshots{SnapshotStore: raft.NewInmemSnapshotStore(), hang: make(chan struct{})}
		b := Bound(newMoody(), inner, 0, nil)
		sink, err := b.Snapshots().Create(1, 5, 1, oneVoter, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		if _, err := sink.Write([]byte("x")); !errors.Is(err, ErrStalled) {
			t.Error(err)
		}
		if err := sink.Cancel(); err != nil || time.Since(begun) > 2*DefaultBound {
			t.Error(err, time.Since(begun))
		}
		if _, err := b.Snapshots().List(); !errors.Is(err, ErrStalled) {
			t.Error(err)
		}
		if b.Err() != nil {
			t.Error("a snapshot broke the log:", b.Err())
		}
		close(inner.hang)
		synctest.Wait()
		if inner.cancelled.Load() != 1 {
			t.Error("what came back late was not given up")
		}
		if _, err := b.Snapshots().List(); err != nil {
			t.Error(err)
		}
		if err := b.Release(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

type slowSnapshots struct {
	raft.SnapshotStore
	hang      chan struct{}
	cancelled atomic.Int64
}

func (s *slowSnapshots) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, ci uint64, tr raft.Transport) (raft.SnapshotSink, error) {
	return &slowSink{s}, nil
}

type slowSink struct{ s *slowSnapshots }

func (k *slowSink) ID() string                  { return "slow" }
func (k *slowSink) Write(b []byte) (int, error) { <-k.s.hang; return len(b), nil }
func (k *slowSink) Close() error                { return nil }
func (k *slowSink) Cancel() error               { k.s.cancelled.Add(1); return nil }

// TestReplace: a snapshot removes the log only where they do not agree.
func TestReplace(t *testing.T) {
	for _, tt := range []struct {
		name        string
		index, term uint64
		wantLast    uint64
		wantErr     error
	}{
		{"of one's own, or a late one", 7, 2, 9, nil},
		{"of before the log", 4, 2, 9, nil},
		{"of the last entry", 9, 2, 9, nil},
		{"ahead", 100, 3, 0, nil},
		{"of a leader that does not know the entries", 7, 3, 0, ErrReplaced},
	} {
		store := newMoody()
		if err := store.StoreLogs(entries(5, 9, 2, 10)); err != nil {
			t.Fatal(err)
		}
		snaps, err := OpenSnapshots(vfs.NewMem(), "s", nil)
		if err != nil {
			t.Fatal(err)
		}
		b := Bound(store, snaps, 0, nil)
		sink, err := b.Snapshots().Create(1, tt.index, tt.term, oneVoter, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := sink.Close(); !errors.Is(err, tt.wantErr) || !errors.Is(b.Err(), tt.wantErr) {
			t.Errorf("%s: %v, %v", tt.name, err, b.Err())
		}
		if last, _ := store.LastIndex(); last != tt.wantLast {
			t.Errorf("%s: the log ends with %d", tt.name, last)
		}
		if err := b.Release(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
