package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/engine/group"
)

var background = context.Background()

// TestPartitionFor holds the placement of groups to that of Java.
func TestPartitionFor(t *testing.T) {
	tests := []struct {
		group string
		hash  int32
		of50  int32
	}{
		{"", 0, 0},
		{"g1", 3242, 42},
		{"my-group", -1906497762, 12},
		{"console-consumer-12345", 158455506, 6},
		{"polygenelubricants", -1 << 31, 0},
		{"grüße", 98768023, 23},
		{"💧", 1772554, 4},
	}
	for _, tt := range tests {
		t.Run(tt.group, func(t *testing.T) {
			if have := javaHash(tt.group); have != tt.hash {
				t.Errorf("hash %d, want %d", have, tt.hash)
			}
			if have := PartitionFor(tt.group, 50); have != tt.of50 {
				t.Errorf("partition %d, want %d", have, tt.of50)
			}
		})
	}
}

// TestTwoMembers plays a rebalance through the methods that block.
func TestTwoMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1)
		b.opts.Groups.InitialRebalanceDelay = 3 * time.Second
		b.open()
		defer b.close()
		var wg sync.WaitGroup
		assignments := make([]string, 2)
		for i := range 2 {
			wg.Go(func() {
				j := b.c.Join(background, "g", joining(""))
				s := group.Sync{MemberID: j.MemberID, Generation: j.Generation, Assignments: map[string][]byte{}}
				for n, m := range j.Members {
					s.Assignments[m.ID] = []byte{'0' + byte(n)}
				}
				r := b.c.Sync(background, "g", s)
				if j.Err != nil || r.Err != nil {
					t.Errorf("join %v, sync %v", j.Err, r.Err)
				}
				assignments[i] = string(r.Assignment)
			})
		}
		wg.Wait()
		slices.Sort(assignments)
		if !slices.Equal(assignments, []string{"0", "1"}) {
			t.Errorf("assignments %q", assignments)
		}
		d, err := b.c.Describe("g")
		if err != nil || d.State != group.Stable || len(d.Members) != 2 {
			t.Errorf("%+v %v", d, err)
		}
	})
}

// TestCommitWaitsForDurability: an acknowledgement before the record is durable would be a lie after a crash.
func TestCommitWaitsForDurability(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1).open()
		defer b.close()
		b.log.hold()
		acked := make(chan error, 1)
		go func() { acked <- b.commit("g", "t", 0, 5) }()
		synctest.Wait()
		select {
		case err := <-acked:
			t.Fatalf("acknowledged before it was durable (%v)", err)
		default:
		}
		b.wantOffset("g", "t", 0, -1)
		if l, err := b.c.List(nil); err != nil || len(l) != 0 {
			t.Errorf("a group that is not durable is listed: %v %v", l, err)
		}
		if _, err := b.c.Describe("g"); !errors.Is(err, group.ErrGroupIDNotFound) {
			t.Errorf("a group that is not durable is described: %v", err)
		}
		b.log.release()
		if err := <-acked; err != nil {
			t.Fatal(err)
		}
		b.wantOffset("g", "t", 0, 5)
	})
}

// TestSyncWaitsForDurability: an assignment that was handed out and then lost would have two owners.
func TestSyncWaitsForDurability(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1).open()
		defer b.close()
		j := b.c.Join(background, "g", joining(""))
		b.log.hold()
		synced := make(chan group.SyncResponse, 1)
		go func() {
			synced <- b.c.Sync(background, "g", group.Sync{MemberID: j.MemberID, Generation: j.Generation,
				Assignments: map[string][]byte{j.MemberID: []byte("x")}})
		}()
		synctest.Wait()
		if len(synced) > 0 {
			t.Fatal("an assignment was handed out before it was durable")
		}
		b.log.release()
		if s := <-synced; s.Err != nil || string(s.Assignment) != "x" {
			t.Fatalf("%+v", s)
		}
	})
}

// TestCommitsShareRounds: many commits at once take few writes, not one each.
func TestCommitsShareRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1).open()
		defer b.close()
		const clients, each = 64, 20
		var wg sync.WaitGroup
		for i := range clients {
			wg.Go(func() {
				for n := range each {
					if err := b.commit(fmt.Sprint("g", i), "t", 0, int64(n)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if b.log.rounds > 2*each {
			t.Errorf("%d rounds of the log for %d commits of %d clients", b.log.rounds, clients*each, clients)
		}
		for i := range clients {
			b.wantOffset(fmt.Sprint("g", i), "t", 0, each-1)
		}
	})
}

// TestFailedAppends: what could not be stored is not there, and the client learns it in Kafka's words.
func TestFailedAppends(t *testing.T) {
	tests := []struct {
		name   string
		fault  func(l *fakeLog, err error)
		err    error
		wanted error
	}{
		{"the write fails", func(l *fakeLog, err error) { l.fail = func([]byte) error { return err } }, errors.New("disk"), ErrNotCoordinator},
		{"the log refuses", func(l *fakeLog, err error) { l.refuse = err }, errors.New("fenced"), ErrNotCoordinator},
		{"too large", func(l *fakeLog, err error) { l.refuse = err }, fmt.Errorf("batch: %w", ErrTooLarge), ErrUnstorable},
		{"in time", func(l *fakeLog, err error) { l.refuse = err }, context.DeadlineExceeded, ErrNotAvailable},
		{"no longer the leader", func(l *fakeLog, err error) { l.refuse = err }, fmt.Errorf("epoch 3: %w", ErrNotLeader), ErrNotCoordinator},
		{"not the leader when it is written", func(l *fakeLog, err error) { l.fail = func([]byte) error { return err } }, ErrNotLeader, ErrNotCoordinator},
		{"too few replicas", func(l *fakeLog, err error) { l.refuse = err }, ErrNotEnoughReplicas, ErrNotAvailable},
		{"too few replicas after the append", func(l *fakeLog, err error) { l.fail = func([]byte) error { return err } }, ErrNotEnoughReplicas, ErrNotAvailable},
		{"the replicas take too long", func(l *fakeLog, err error) { l.fail = func([]byte) error { return err } }, ErrTimedOut, ErrNotAvailable},
		{"no such partition", func(l *fakeLog, err error) { l.refuse = err }, ErrNoPartition, ErrNotAvailable},
		{"cancelled", func(l *fakeLog, err error) { l.refuse = err }, context.Canceled, ErrNotCoordinator},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, 1).open()
				defer b.close()
				if err := b.commit("g", "t", 0, 1); err != nil {
					t.Fatal(err)
				}
				b.log.set(func() { tt.fault(b.log, tt.err) })
				if err := b.commit("g", "t", 0, 2); !errors.Is(err, tt.wanted) {
					t.Errorf("have %v, want %v", err, tt.wanted)
				}
				if err := b.commit("new", "t", 0, 2); !errors.Is(err, tt.wanted) {
					t.Errorf("have %v, want %v", err, tt.wanted)
				}
				b.wantOffset("g", "t", 0, 1)
				b.wantOffset("new", "t", 0, -1)
				if l, _ := b.c.List(nil); len(l) != 1 {
					t.Errorf("listed: %v", l)
				}
				b.log.set(func() { b.log.fail, b.log.refuse = nil, nil })
				if err := b.commit("g", "t", 0, 3); err != nil {
					t.Error(err)
				}
				b.restart()
				synctest.Wait()
				b.wantOffset("g", "t", 0, 3)
				if pending := b.c.Stats.PendingBytes.Load(); pending != 0 {
					t.Errorf("%d bytes are said to be on their way", pending)
				}
			})
		})
	}
}

// TestFieldsTooLong: newer requests carry strings that the records' formats cannot hold.
func TestFieldsTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1).open()
		defer b.close()
		if err := b.commit(strings.Repeat("g", 40_000), "t", 0, 1); !errors.Is(err, ErrUnstorable) {
			t.Errorf("have %v", err)
		}
		if b.log.next != 0 {
			t.Errorf("something was stored")
		}
		if err := b.commit("g", "t", 0, 1); err != nil {
			t.Error(err)
		}
	})
}

// TestNoUnboundedWait: a log that does not answer costs a request its own time and no more.
func TestNoUnboundedWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1)
		b.opts.MaxPending = 1000
		b.open()
		defer b.close()
		b.log.hold()
		began := time.Now()
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				if err := b.commit(fmt.Sprint("g", i), "t", 0, 1); !errors.Is(err, ErrNotAvailable) {
					t.Errorf("have %v", err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(began); took != b.opts.CommitTimeout {
			t.Errorf("took %v", took)
		}
		if pending := b.c.Stats.PendingBytes.Load(); pending > 1100 {
			t.Errorf("%d bytes on their way, with a bound of 1000", pending)
		}
		ctx, cancel := context.WithCancel(background)
		time.AfterFunc(time.Second, cancel)
		if err := b.commitCtx(ctx, "x", "t", 0, 1); !errors.Is(err, ErrNotAvailable) {
			t.Errorf("have %v", err)
		}
		// What was handed to the log may become durable after all; it is not forgotten then.
		b.log.release()
		time.Sleep(2 * roundTime)
		if l, err := b.c.List(nil); err != nil || len(l) == 0 {
			t.Errorf("%v %v", l, err)
		}
		if err := b.commit("g", "t", 0, 1); err != nil {
			t.Error(err)
		}
	})
}

// TestJoinEndsWithItsContext: the connection is gone, the member is not, until its time is up.
func TestJoinEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1).open()
		defer b.close()
		first, _ := b.stable("g")
		ctx, cancel := context.WithTimeout(background, time.Second)
		defer cancel()
		if j := b.c.Join(ctx, "g", joining("")); !errors.Is(j.Err, ErrNotAvailable) {
			t.Fatalf("have %v", j.Err)
		}
		if d, _ := b.c.Describe("g"); len(d.Members) != 2 || d.State != group.PreparingRebalance {
			t.Errorf("%+v", d)
		}
		if err := b.c.Heartbeat(background, "g", group.Heartbeat{MemberID: first, Generation: 1}); !errors.Is(err, group.ErrRebalanceInProgress) {
			t.Errorf("have %v", err)
		}
		time.Sleep(time.Hour)
		if d, _ := b.c.Describe("g"); len(d.Members) != 0 || d.State != group.Empty {
			t.Errorf("%+v", d)
		}
	})
}

// TestRequireStable: who asks for stable offsets waits for commits that are on their way.
func TestRequireStable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1).open()
		defer b.close()
		b.log.hold()
		go func() {
			if err := b.commit("g", "t", 0, 5); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		got := make(chan int64, 1)
		ask := []FetchTopic{{Topic: "t", Partitions: []int32{0}}}
		go func() {
			topics, err := b.c.FetchOffsets(background, "g", ask, false, true)
			if err != nil {
				t.Error(err)
			}
			got <- topics[0].Offsets[0].Offset
		}()
		synctest.Wait()
		if len(got) > 0 {
			t.Fatal("did not wait")
		}
		b.log.release()
		if o := <-got; o != 5 {
			t.Errorf("have %d", o)
		}
		b.log.hold()
		go b.commit("g", "t", 0, 6)
		synctest.Wait()
		if _, err := b.c.FetchOffsets(background, "g", ask, false, true); !errors.Is(err, ErrNotCoordinator) {
			t.Errorf("have %v", err)
		}
		b.log.release()
	})
}

func TestFetchOffsets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1).open()
		defer b.close()
		id, other := [16]byte{1}, [16]byte{2}
		ev := simpleCommit("t", 0, 5)
		ev.Topics[0].TopicID = id
		ev.Topics[0].Partitions[0].Metadata = "m"
		ev.Topics[0].Partitions[0].LeaderEpoch = 3
		if err := commitErr(b.c.Commit(background, "g", ev)); err != nil {
			t.Fatal(err)
		}
		none := FetchedOffset{Offset: -1, LeaderEpoch: -1}
		there := FetchedOffset{Offset: 5, LeaderEpoch: 3, Metadata: "m"}
		tests := []struct {
			name, group string
			ask         FetchTopic
			want        FetchedOffset
		}{
			{"by name", "g", FetchTopic{Topic: "t", Partitions: []int32{0}}, there},
			{"by id", "g", FetchTopic{Topic: "t", TopicID: id, Partitions: []int32{0}}, there},
			{"by another id", "g", FetchTopic{Topic: "t", TopicID: other, Partitions: []int32{0}}, none},
			{"another topic", "g", FetchTopic{Topic: "u", Partitions: []int32{0}}, none},
			{"another group", "x", FetchTopic{Topic: "t", Partitions: []int32{0}}, none},
		}
		for _, tt := range tests {
			got, err := b.c.FetchOffsets(background, tt.group, []FetchTopic{tt.ask}, false, false)
			if err != nil || got[0].Offsets[0] != tt.want || got[0].TopicID != tt.ask.TopicID {
				t.Errorf("%s: %+v %v", tt.name, got, err)
			}
		}
		if got, err := b.c.FetchOffsets(background, "g", nil, true, false); err != nil || len(got) != 1 || got[0].Offsets[0] != there {
			t.Errorf("all: %+v %v", got, err)
		}
		if got, err := b.c.FetchOffsets(background, "x", nil, true, false); err != nil || len(got) != 0 {
			t.Errorf("all of nobody: %+v %v", got, err)
		}
	})
}

// TestDeletionIsWaitedFor: a commit that comes while the group's end is on its way to the log begins a new group.
func TestDeletionIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1).open()
		defer b.close()
		if err := b.commit("g", "t", 0, 5); err != nil {
			t.Fatal(err)
		}
		b.log.hold()
		var wg sync.WaitGroup
		wg.Go(func() {
			if errs := b.c.DeleteGroups(background, []string{"g", "absent"}); errs[0] != nil || !errors.Is(errs[1], group.ErrGroupIDNotFound) {
				t.Errorf("%v", errs)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if err := b.commit("g", "t", 1, 6); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		b.log.release()
		wg.Wait()
		b.wantOffset("g", "t", 0, -1)
		b.wantOffset("g", "t", 1, 6)
		b.restart()
		synctest.Wait()
		b.wantOffset("g", "t", 0, -1)
		b.wantOffset("g", "t", 1, 6)
	})
}

func TestTopicsDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1).open()
		commit := func(groupID, topic string, id byte) {
			ev := simpleCommit(topic, 0, 5)
			ev.Topics[0].TopicID = [16]byte{id}
			if err := commitErr(b.c.Commit(background, groupID, ev)); err != nil {
				t.Fatal(err)
			}
		}
		commit("g", "t", 1)
		commit("g", "u", 1)
		commit("h", "t", 1)
		commit("h", "v", 1)
		commit("h", "w", 1)
		b.c.TopicsDeleted([]group.DeletedTopic{{Name: "t", ID: [16]byte{1}}})
		synctest.Wait()
		time.Sleep(time.Second)
		b.wantOffset("g", "t", 0, -1)
		b.wantOffset("g", "u", 0, 5)
		b.wantOffset("h", "t", 0, -1)

		// While a partition is loaded, the deletion waits; and a topic that was made again before the tombstones
		// of the old one were written is another topic.
		b.close()
		b.log.reading = make(chan struct{})
		b.topics.ids = map[string][16]byte{"v": {1}, "w": {2}}
		b.open()
		defer b.close()
		synctest.Wait()
		b.c.TopicsDeleted([]group.DeletedTopic{{Name: "u", ID: [16]byte{1}}})
		close(b.log.reading)
		time.Sleep(time.Second)
		b.wantOffset("g", "u", 0, -1)
		b.wantOffset("h", "v", 0, 5)
		b.wantOffset("h", "w", 0, -1)
	})
}

// TestEnsureTopic: the topic is made once, on first need, and a failure is not for ever.
func TestEnsureTopic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 3)
		b.topics.exists = false
		b.open()
		defer b.close()
		if err := b.commit("g", "t", 0, 1); !errors.Is(err, ErrNotCoordinator) {
			t.Errorf("have %v", err)
		}
		if l, err := b.c.List(nil); err != nil || len(l) != 0 {
			t.Errorf("%v %v", l, err)
		}
		if _, err := b.c.FetchOffsets(background, "g", nil, true, false); !errors.Is(err, ErrNotCoordinator) {
			t.Errorf("have %v", err)
		}
		b.topics.refuse = errors.New("no")
		if err := b.c.EnsureTopic(background); !errors.Is(err, ErrNotAvailable) {
			t.Errorf("have %v", err)
		}
		b.topics.refuse = nil
		b.topics.creates = 0
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if err := b.c.EnsureTopic(background); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if b.topics.creates != 1 {
			t.Errorf("made %d times", b.topics.creates)
		}
		if err := b.commit("g", "t", 0, 1); err != nil {
			t.Error(err)
		}
	})
}

// TestClose: whoever waits is told to look elsewhere, and nothing runs on.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1).open()
		b.stable("g")
		joined := make(chan error, 1)
		go func() { joined <- b.c.Join(background, "g", joining("")).Err }()
		synctest.Wait()
		b.close()
		if err := <-joined; !errors.Is(err, ErrNotCoordinator) {
			t.Errorf("have %v", err)
		}
		if err := b.commit("g", "t", 0, 1); !errors.Is(err, ErrNotCoordinator) {
			t.Errorf("have %v", err)
		}
		if err := b.c.EnsureTopic(background); err != nil {
			t.Errorf("have %v", err)
		}
		b.c.TopicsDeleted([]group.DeletedTopic{{Name: "t"}})
	})
}

// TestIdleMeansNoWakes: without members and offsets nothing happens at all; with them, what has a time.
func TestIdleMeansNoWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 50).open()
		defer b.close()
		time.Sleep(24 * time.Hour)
		if n := b.c.Stats.Wakes.Load(); n != 0 {
			t.Errorf("%d wakes of an idle coordinator", n)
		}
		// A day of a simple consumer's offset that is kept for a week: one look at it to learn when it ends.
		if err := b.commit("g", "t", 0, 1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour)
		if n := b.c.Stats.Wakes.Load(); n > 2 {
			t.Errorf("%d wakes in a day of one offset", n)
		}
		time.Sleep(6*24*time.Hour + time.Minute)
		b.wantOffset("g", "t", 0, -1)
		if l, _ := b.c.List(nil); len(l) != 0 {
			t.Errorf("listed: %v", l)
		}
		before := b.c.Stats.Wakes.Load()
		time.Sleep(30 * 24 * time.Hour)
		if n := b.c.Stats.Wakes.Load() - before; n != 0 {
			t.Errorf("%d wakes after the last group has gone", n)
		}
	})
}

// TestHeartbeatsDoNotMoveTimers: a session that is kept costs one wake per session timeout, however often it is kept.
func TestHeartbeatsDoNotMoveTimers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1).open()
		defer b.close()
		member, generation := b.stable("g")
		before := b.c.Stats.Wakes.Load()
		for range 1000 {
			time.Sleep(100 * time.Millisecond)
			if err := b.c.Heartbeat(background, "g", group.Heartbeat{MemberID: member, Generation: generation}); err != nil {
				t.Fatal(err)
			}
		}
		if n := b.c.Stats.Wakes.Load() - before; n > 12 {
			t.Errorf("%d wakes in 100 s of a session of 10 s", n)
		}
	})
}

func TestInvalidRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1).open()
		defer b.close()
		short, long := joining(""), joining("m")
		short.SessionTimeoutMs, long.SessionTimeoutMs = 5_999, 1_800_001
		if j := b.c.Join(background, "g", short); !errors.Is(j.Err, group.ErrInvalidSessionTimeout) {
			t.Errorf("have %v", j.Err)
		}
		if j := b.c.Join(background, "g", long); !errors.Is(j.Err, group.ErrInvalidSessionTimeout) || j.MemberID != "m" {
			t.Errorf("have %+v", j)
		}
		if j := b.c.Join(background, "", joining("m")); !errors.Is(j.Err, group.ErrInvalidGroupID) || j.MemberID != "m" {
			t.Errorf("have %+v", j)
		}
		if s := b.c.Sync(background, "", group.Sync{}); !errors.Is(s.Err, group.ErrInvalidGroupID) {
			t.Errorf("have %v", s.Err)
		}
		if err := b.c.Heartbeat(background, "", group.Heartbeat{}); !errors.Is(err, group.ErrInvalidGroupID) {
			t.Errorf("have %v", err)
		}
		if l := b.c.Leave(background, "", group.Leave{}); !errors.Is(l.Err, group.ErrInvalidGroupID) {
			t.Errorf("have %v", l.Err)
		}
		if d := b.c.DeleteOffsets(background, "", group.DeleteOffsets{}); !errors.Is(d.Err, group.ErrInvalidGroupID) {
			t.Errorf("have %v", d.Err)
		}
		// The empty group may store offsets, as it could before there were groups.
		if err := b.commit("", "t", 0, 1); err != nil {
			t.Error(err)
		}
		b.wantOffset("", "t", 0, 1)
	})
}

func TestList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 4).open()
		defer b.close()
		b.stable("b")
		if err := b.commit("a", "t", 0, 1); err != nil {
			t.Fatal(err)
		}
		tests := []struct {
			states []string
			want   string
		}{
			{nil, "a Empty , b Stable consumer, "},
			{[]string{"stable"}, "b Stable consumer, "},
			{[]string{" EMPTY "}, "a Empty , "},
			{[]string{"Dead", "nonsense"}, ""},
		}
		for _, tt := range tests {
			listed, err := b.c.List(tt.states)
			have := ""
			for _, l := range listed {
				have += fmt.Sprintf("%s %s %s, ", l.ID, l.State, l.ProtocolType)
			}
			if err != nil || have != tt.want {
				t.Errorf("%q: have %q %v, want %q", tt.states, have, err, tt.want)
			}
		}
	})
}
