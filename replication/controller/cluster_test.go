package controller

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/engine/catalog"
)

// bubble runs a test in synctest's time; whatever goroutine is left at its end fails it.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func (n *node) create(t *testing.T, names ...string) catalog.Result {
	t.Helper()
	res, err := n.Propose(t.Context(), topics(names...))
	if err == nil {
		err = errors.Join(res.Errors...)
	}
	if err != nil {
		t.Errorf("node %d, %v: %v", n.id, names, err)
	}
	return res
}

// TestPropose: from whatever node, a change is everywhere at once, and the results are those of one node.
func TestPropose(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cl := found(t, 1, 3, quick)
		var longest time.Duration
		for i, n := range cl.nodes {
			name := fmt.Sprint("topic-", i)
			begun := time.Now()
			res := n.create(t, name)
			longest = max(longest, time.Since(begun))
			if res.Image.Topic(name) == nil || n.Image().Topic(name) == nil {
				t.Errorf("node %d does not see what it has made", n.id)
			}
			longest = max(longest, cl.until("news", time.Second, func() bool {
				for _, other := range cl.nodes {
					if other.Image().Topic(name) == nil {
						return false
					}
				}
				return true
			}))
			res, err := n.Propose(t.Context(), topics(name, "more-"+name))
			if err != nil || !errors.Is(res.Errors[0], catalog.ErrTopicExists) || res.Errors[1] != nil {
				t.Errorf("node %d: %v %v", n.id, err, res.Errors)
			}
		}
		if longest > 30*time.Millisecond { // a message takes up to one
			t.Errorf("news took %v", longest)
		}
		cl.same("topic-0", "topic-1", "topic-2", "more-topic-2")
		cl.close()
	})
}

// TestLeaderGone: kill or cut off the leader; the next takes proposals soon, also those that were under way, and nothing that was acknowledged is lost.
func TestLeaderGone(t *testing.T) {
	for _, kind := range []string{"killed", "cut off", "frozen"} {
		var longest, sum time.Duration
		const rounds = 20
		for seed := range uint64(rounds) {
			bubble(t, func(t *testing.T) {
				cl := found(t, seed, 3, quick)
				leader := cl.leader()
				leader.create(t, "first")
				var other *node
				for _, n := range cl.nodes {
					if n != leader {
						other = n
					}
				}
				release := func() {}
				begun := time.Now()
				switch kind {
				case "killed":
					cl.kill(leader)
				case "cut off":
					cl.net.isolate(leader.id, true)
				case "frozen":
					release = leader.store.stall()
				}
				other.create(t, "second")
				took := time.Since(begun)
				longest, sum = max(longest, took), sum+took
				if kind != "killed" {
					cl.until("step down", 3*time.Second, func() bool { return !leader.Leads() })
				}
				release()
				if kind == "killed" {
					cl.restart(leader)
				}
				cl.net.heal()
				leader.create(t, "third")
				cl.same("first", "second", "third")
				cl.close()
			})
		}
		t.Logf("%s: a proposal to another node takes %v on average, %v at most", kind, sum/rounds, longest)
		most := 2 * time.Second
		if kind == "frozen" {
			most = 3500 * time.Millisecond
		}
		if longest > most {
			t.Errorf("%s: %v", kind, longest)
		}
	}
}

// TestStalled: a node whose disk hangs says so, and takes part again when it answers; one whose disk has failed stays out, and the others go on.
func TestStalled(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cl := found(t, 3, 3, quick)
		leader := cl.leader()
		follower := cl.nodes[0]
		if follower == leader {
			follower = cl.nodes[1]
		}
		release := follower.store.stall()
		leader.create(t, "a")
		cl.until("notice", 3*time.Second, func() bool { return errors.Is(follower.Err(), catalog.ErrStalled) })
		if leader = cl.leader(); leader == follower {
			t.Error("a node whose disk hangs leads")
		}
		time.Sleep(time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if _, err := follower.Propose(ctx, topics("x")); errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, ErrNoLeader) || !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		cancel()
		release()
		cl.until("recovery", 3*time.Second, func() bool { return follower.Err() == nil })
		follower.create(t, "b")
		cl.same("a", "b")

		fault := errors.New("input/output error")
		follower.store.fault.Store(&fault)
		leader = cl.leader()
		leader.create(t, "c")
		cl.until("failure", 3*time.Second, func() bool { return errors.Is(follower.Err(), catalog.ErrFailed) })
		follower.store.fault.Store(nil)
		time.Sleep(time.Minute)
		if !errors.Is(follower.Err(), catalog.ErrFailed) {
			t.Error("it came back without having been started again:", follower.Err())
		}
		if _, err := follower.Propose(t.Context(), topics("y")); !errors.Is(err, catalog.ErrFailed) {
			t.Error(err)
		}
		cl.leader().create(t, "d")
		cl.kill(follower)
		cl.restart(follower)
		follower.create(t, "e")
		cl.same("a", "b", "c", "d", "e")
		cl.close()
	})
}
