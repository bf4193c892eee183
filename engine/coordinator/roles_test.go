package coordinator

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/millrace/millrace/engine/group"
)

// other is a second node over the same logs, which leads nothing.
func (b *bench) other() *Coordinator {
	c := New(b.opts)
	c.Open()
	c.TopicCreated(int32(len(b.topics.logs)))
	b.t.Cleanup(func() {
		if err := c.Close(background); err != nil {
			b.t.Error(err)
		}
	})
	return c
}

// elect has the first partition led by another node; what was on its way survives as far as is said.
func (b *bench) elect(from, to *Coordinator, survive int) {
	b.epoch++
	b.log.elect(b.epoch, survive, 0)
	from.Resigned(0, b.epoch)
	to.Elected(0, b.epoch)
}

func (b *bench) resign() {
	b.epoch++
	b.c.Resigned(0, b.epoch)
}

// answers collects what requests on goroutines of their own are told.
type answers struct {
	names []string
	got   map[string]chan error
}

func (a *answers) ask(name string, f func() error) {
	if a.got == nil {
		a.got = map[string]chan error{}
	}
	c := make(chan error, 1)
	a.names, a.got[name] = append(a.names, name), c
	go func() { c <- f() }()
	synctest.Wait()
}

// TestResignedAnswersAtOnce: whoever waits for anything is told to look for the other coordinator, now, and so is whoever
// comes. What comes of records on their way changes nothing any more, and nothing is kept.
func TestResignedAnswersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1)
		b.opts.MaxPending = 3000
		b.open()
		defer b.close()
		member, generation := b.stable("stable")
		if err := b.commit("offsets", "t", 0, 1); err != nil {
			t.Fatal(err)
		}
		leader := b.c.Join(background, "syncing", joining(""))
		group1 := weak.Make(b.c.all()[0].groups["stable"])
		b.log.hold()
		var a answers
		a.ask("join", func() error { return b.c.Join(background, "stable", joining("")).Err })
		a.ask("sync", func() error {
			return b.c.Sync(background, "syncing", group.Sync{MemberID: leader.MemberID, Generation: leader.Generation,
				Assignments: map[string][]byte{leader.MemberID: []byte("x")}}).Err
		})
		a.ask("commit", func() error { return b.commit("offsets", "t", 0, 2) })
		a.ask("first commit", func() error { return b.commit("new", "t", 0, 2) })
		a.ask("stable fetch", func() error {
			_, err := b.c.FetchOffsets(background, "offsets", nil, true, true)
			return err
		})
		a.ask("deletion", func() error { return b.c.DeleteGroups(background, []string{"offsets"})[0] })
		a.ask("commit behind the deletion", func() error { return b.commit("offsets", "t", 0, 3) })
		a.ask("large commit", func() error { return b.commit("large", strings.Repeat("t", 3000), 0, 3) })
		a.ask("commit without room", func() error { return b.commit("late", "t", 0, 3) })
		for _, name := range a.names {
			if len(a.got[name]) != 0 {
				t.Fatalf("%s did not wait: %v", name, <-a.got[name])
			}
		}

		at := time.Now()
		b.resign()
		for _, name := range a.names {
			if err := <-a.got[name]; !errors.Is(err, ErrNotCoordinator) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for name, err := range map[string]error{
			"join":      b.c.Join(background, "stable", joining("")).Err,
			"commit":    b.commit("offsets", "t", 0, 4),
			"heartbeat": b.c.Heartbeat(background, "stable", group.Heartbeat{MemberID: member, Generation: generation}),
			"leave":     b.c.Leave(background, "stable", group.Leave{Members: []group.LeavingMember{{ID: member}}}).Err,
			"describe":  func() error { _, err := b.c.Describe("stable"); return err }(),
			"fetch":     func() error { _, err := b.c.FetchOffsets(background, "offsets", nil, true, false); return err }(),
		} {
			if !errors.Is(err, ErrNotCoordinator) {
				t.Errorf("%s afterwards: %v", name, err)
			}
		}
		if l, err := b.c.List(nil); err != nil || len(l) != 0 {
			t.Errorf("listed: %v %v", l, err)
		}
		if waited := time.Since(at); waited != 0 {
			t.Errorf("somebody waited for %s", waited)
		}
		if n := b.c.Stats.PendingBytes.Load(); n != 0 {
			t.Errorf("%d bytes are said to be on their way", n)
		}
		if n := len(b.c.timers.queue); n != 0 {
			t.Errorf("%d groups have timers", n)
		}
		said := b.said.String()
		b.log.release()
		time.Sleep(time.Hour)
		if more := strings.TrimPrefix(b.said.String(), said); more != "" {
			t.Errorf("something went on: %s", more)
		}
		if n := b.c.Stats.PendingBytes.Load(); n != 0 {
			t.Errorf("%d bytes are said to be on their way", n)
		}
		runtime.GC()
		if group1.Value() != nil {
			t.Error("a group is kept in memory")
		}
	})
}

// TestElectedElsewhere: the next coordinator has what was acknowledged, and of what was not as much as has got into the
// log. Members go on with it, and the former coordinator can be the next again.
func TestElectedElsewhere(t *testing.T) {
	for survive := range 3 {
		t.Run(fmt.Sprint(survive), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, 1).open()
				defer b.close()
				one, two := b.c, b.other()
				member, generation := b.stable("m")
				if err := b.commit("g", "t", 0, 7); err != nil {
					t.Fatal(err)
				}
				b.log.hold()
				var a answers
				a.ask("one", func() error { return b.commit("g", "t", 0, 8) })
				a.ask("two", func() error { return b.commit("g", "t", 0, 9) })
				b.elect(one, two, survive)
				b.log.commit()
				b.log.release()
				for _, name := range a.names {
					if err := <-a.got[name]; !errors.Is(err, ErrNotCoordinator) {
						t.Errorf("commit %s: %v", name, err)
					}
				}
				synctest.Wait()
				b.c = two
				b.wantOffset("g", "t", 0, 7+int64(survive))
				if err := two.Heartbeat(background, "m", group.Heartbeat{MemberID: member, Generation: generation}); err != nil {
					t.Errorf("heartbeat: %v", err)
				}
				if err := b.commit("g", "t", 0, 20); err != nil {
					t.Error(err)
				}
				b.elect(two, one, 0)
				synctest.Wait()
				b.c = one
				b.wantOffset("g", "t", 0, 20)
				time.Sleep(11 * time.Second)
				if d, err := one.Describe("m"); err != nil || d.State != group.Empty {
					t.Errorf("a member that is not heard of: %v %v", d.State, err)
				}
				if _, err := two.Describe("m"); !errors.Is(err, ErrNotCoordinator) {
					t.Errorf("the former coordinator: %v", err)
				}
			})
		})
	}
}

// TestEpochs: what is told late, or twice, changes nothing.
func TestEpochs(t *testing.T) {
	elected, resigned := (*Coordinator).Elected, (*Coordinator).Resigned
	type told struct {
		what  func(c *Coordinator, partition, epoch int32)
		epoch int32
	}
	tests := []struct {
		name  string
		told  []told
		leads bool
		anew  bool // the last one ends what was before
	}{
		{"elected", []told{{elected, 5}}, true, true},
		{"elected twice", []told{{elected, 5}, {elected, 5}}, true, false},
		{"elected before", []told{{elected, 5}, {elected, 4}}, true, false},
		{"elected again", []told{{elected, 5}, {elected, 6}}, true, true},
		{"resigned of that epoch", []told{{elected, 5}, {resigned, 5}}, false, true},
		{"resigned for a later one", []told{{elected, 5}, {resigned, 6}}, false, true},
		{"resigned before", []told{{elected, 5}, {resigned, 4}}, true, false},
		{"resigned twice", []told{{elected, 5}, {resigned, 6}, {resigned, 6}}, false, false},
		{"elected too late", []told{{resigned, 6}, {elected, 5}}, false, false},
		{"elected in an epoch of another", []told{{resigned, 6}, {elected, 6}}, false, false},
		{"elected after another", []told{{elected, 5}, {resigned, 6}, {elected, 7}}, true, true},
		{"resigned of the first after the second", []told{{elected, 5}, {resigned, 6}, {elected, 7}, {resigned, 6}}, true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, 1)
				b.epoch = 100
				c := b.other()
				var before *shard
				for _, told := range tt.told {
					synctest.Wait()
					before = c.all()[0]
					told.what(c, 0, told.epoch)
				}
				synctest.Wait()
				_, err := c.FetchOffsets(background, "g", nil, true, false)
				if leads := err == nil; leads != tt.leads || !leads && !errors.Is(err, ErrNotCoordinator) {
					t.Errorf("leads: %v (%v)", leads, err)
				}
				if anew := before.log != c.all()[0].log || before.epoch != c.all()[0].epoch; anew != tt.anew {
					t.Errorf("anew: %v", anew)
				}
			})
		})
	}
}

// TestRolesOfNothing: partitions that are not there, and calls after the end, change nothing.
func TestRolesOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 2)
		b.topics.logs[1] = nil // its directory cannot be used
		c := b.other()
		c.TopicCreated(2)
		for _, p := range []int32{-1, 2, 3} {
			c.Elected(p, 1)
			c.Resigned(p, 2)
		}
		c.Elected(1, 1)
		id := "g0"
		if PartitionFor(id, 2) != 1 {
			id = "g1"
		}
		if _, err := c.Describe(id); !errors.Is(err, ErrNotCoordinator) {
			t.Errorf("have %v", err)
		}
		if err := c.Close(background); err != nil {
			t.Error(err)
		}
		c.TopicCreated(5)
		c.Elected(0, 9)
		c.Resigned(0, 10)
		c.OffsetsTopicDeleted()
		if _, err := c.Describe("g"); !errors.Is(err, ErrNotCoordinator) {
			t.Errorf("have %v", err)
		}
	})
}

// TestLoadWaitsForTheHighWatermark: the former leader may have acknowledged what is not known to be committed here yet.
// Who asks meanwhile is told to wait, but not for ever.
func TestLoadWaitsForTheHighWatermark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1).open()
		defer b.close()
		one, two := b.c, b.other()
		member, generation := b.stable("m")
		b.log.hold()
		var a answers
		a.ask("commit", func() error { return b.commit("g", "t", 0, 8) })
		b.elect(one, two, 1)
		b.log.release()
		b.c = two
		heartbeat := func() error {
			return two.Heartbeat(background, "m", group.Heartbeat{MemberID: member, Generation: generation})
		}
		time.Sleep(defaultLoadTimeout - time.Second)
		if err := b.commit("g", "t", 0, 9); !errors.Is(err, ErrLoading) {
			t.Errorf("commit while loading: %v", err)
		}
		if err := heartbeat(); err != nil {
			t.Errorf("heartbeat while loading: %v", err)
		}
		time.Sleep(2 * time.Second)
		if err := b.commit("g", "t", 0, 9); !errors.Is(err, ErrNotAvailable) {
			t.Errorf("commit later: %v", err)
		}
		if _, err := two.List(nil); !errors.Is(err, ErrNotAvailable) {
			t.Errorf("list later: %v", err)
		}
		if n := two.Census().Loading; n != 1 {
			t.Errorf("%d partitions are loading", n)
		}
		time.Sleep(10 * defaultLoadTimeout)
		if n := strings.Count(b.said.String(), "cannot load groups yet"); n != 1 {
			t.Errorf("the operator was told %d times", n)
		}
		b.log.commit()
		synctest.Wait()
		b.wantOffset("g", "t", 0, 8)
		if err := heartbeat(); err != nil {
			t.Errorf("heartbeat: %v", err)
		}
		b.c = one
	})
}

// TestResignedWhileLoading: a load is given up with the leadership, and does not come in the way of a later one.
func TestResignedWhileLoading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1).open()
		one, two := b.c, b.other()
		if err := b.commit("g", "t", 0, 7); err != nil {
			t.Fatal(err)
		}
		reading := make(chan struct{})
		b.log.set(func() { b.log.reading = reading })
		b.elect(one, two, 0)
		synctest.Wait() // two reads, and does not get on
		first := two.all()[0]
		b.elect(two, one, 0)
		synctest.Wait()
		if _, err := two.Describe("g"); !errors.Is(err, ErrNotCoordinator) {
			t.Errorf("after resigning: %v", err)
		}
		b.log.set(func() { b.log.reading = nil })
		b.elect(one, two, 0)
		synctest.Wait()
		b.c = two
		b.wantOffset("g", "t", 0, 7)
		if err := b.commit("g", "t", 0, 9); err != nil {
			t.Error(err)
		}
		close(reading)
		synctest.Wait()
		if first.groups != nil || two.all()[0] == first {
			t.Error("the load that was given up has come into force")
		}
		b.wantOffset("g", "t", 0, 9)
		if strings.Contains(b.said.String(), "could not load") {
			t.Errorf("said: %s", b.said)
		}
		b.c = one
		b.close()
	})
}

// TestTopicCreatedElsewhere: another node was faster; this one knows of it a little later, or not in time.
func TestTopicCreatedElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 3)
		b.topics.exists = false
		b.open()
		b.topics.created = func() {}
		if _, exists := b.c.PartitionFor("my-group"); exists {
			t.Error("a partition of nothing")
		}
		at := time.Now()
		if err := b.c.EnsureTopic(background); !errors.Is(err, ErrNotAvailable) || time.Since(at) > b.opts.CommitTimeout {
			t.Errorf("have %v after %s", err, time.Since(at))
		}
		time.AfterFunc(time.Second, func() { b.c.TopicCreated(50) })
		if err := b.c.EnsureTopic(background); err != nil {
			t.Errorf("have %v", err)
		}
		if p, exists := b.c.PartitionFor("my-group"); !exists || p != 12 {
			t.Errorf("have %d %v", p, exists)
		}
		if err := b.commit("g", "t", 0, 1); !errors.Is(err, ErrNotCoordinator) {
			t.Errorf("have %v", err)
		}
		b.close()
	})
}

// TestTopicDeletedAndMadeAgain: the groups end with their topic, and epochs begin anew with the next.
func TestTopicDeletedAndMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1)
		b.epoch = 7
		b.open()
		b.stable("g")
		var a answers
		a.ask("join", func() error { return b.c.Join(background, "g", joining("")).Err })
		b.c.OffsetsTopicDeleted()
		if err := <-a.got["join"]; !errors.Is(err, ErrNotCoordinator) {
			t.Errorf("join: %v", err)
		}
		if err := b.commit("g", "t", 0, 1); !errors.Is(err, ErrNotCoordinator) {
			t.Errorf("commit: %v", err)
		}
		*b.log = fakeLog{}
		b.epoch = 0
		if err := b.c.EnsureTopic(background); err != nil {
			t.Fatal(err)
		}
		b.wantOffset("g", "t", 0, -1)
		if err := b.commit("g", "t", 0, 1); err != nil {
			t.Error(err)
		}
		b.close()
	})
}

// TestMorePartitions: those that are there stay as they are.
func TestMorePartitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1).open()
		if err := b.commit("my-group", "t", 0, 1); err != nil {
			t.Fatal(err)
		}
		before := b.c.all()[0]
		b.topics.logs = append(b.topics.logs, &fakeLog{epoch: b.epoch})
		b.topics.created()
		if b.c.all()[0] != before || len(b.c.all()) != 2 {
			t.Error("the first partition was begun anew")
		}
		for _, id := range []string{"g0", "g1"} {
			if err := b.commit(id, "t", 0, 5); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}
		if !strings.Contains(b.said.String(), "more partitions") {
			t.Error("the operator is not told")
		}
		b.close()
	})
}

// TestNothingIsLeft: however leaderships come and go, with a log that hangs in every way, a close ends all goroutines
// (synctest fails when one is left).
func TestNothingIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 4).open()
		b.opts.MinRewrite = 1
		two := b.other()
		ctx, cancel := context.WithCancel(background)
		nodes := []*Coordinator{b.c, two}
		for i := range 200 {
			p := int32(i % 4)
			l := b.topics.logs[p]
			b.epoch++
			if i%3 == 0 {
				l.hold()
			}
			l.elect(b.epoch, i%2, i%4)
			if i%5 != 0 {
				l.commit()
			}
			nodes[i%2].Resigned(p, b.epoch)
			nodes[1-i%2].Elected(p, b.epoch)
			for g := range 3 {
				go nodes[1-i%2].Commit(ctx, fmt.Sprint("g", g), simpleCommit("t", 0, int64(i)))
				go nodes[1-i%2].Join(ctx, fmt.Sprint("m", g), joining(""))
			}
			time.Sleep(time.Duration(i%7) * roundTime / 2)
			l.release()
		}
		synctest.Wait()
		if err := two.Close(background); err != nil {
			t.Error(err)
		}
		b.close()
		cancel()
		synctest.Wait()
		for i, c := range nodes {
			if n := c.Stats.PendingBytes.Load(); n != 0 {
				t.Errorf("node %d: %d bytes are said to be on their way", i, n)
			}
			if n := len(c.timers.queue); n != 0 {
				t.Errorf("node %d: %d timers are left", i, n)
			}
		}
	})
}
