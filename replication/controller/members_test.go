package controller

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/millrace/millrace/engine/catalog"
)

func (cl *cluster) votersAre(t *testing.T, within time.Duration, want func(voters map[int32]bool) bool) time.Duration {
	t.Helper()
	var have map[int32]bool
	defer func() {
		if t.Failed() {
			t.Logf("voters %v", have)
		}
	}()
	return cl.until("such voters", within, func() bool {
		have = map[int32]bool{}
		for _, m := range cl.leader().Members() {
			if m.Voter {
				have[m.ID] = true
			}
		}
		return want(have)
	})
}

// TestDeadVoter: a voter that is gone for good is replaced by a member that has caught up, but not when it is away for a moment; and the one that comes
// back is a member without a vote.
func TestDeadVoter(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cl := found(t, 4, 4, quick)
		spare := int32(0)
		for _, m := range cl.leader().Members() {
			if !m.Voter {
				spare = m.ID
			}
		}
		victim := cl.nodes[0]
		if victim == cl.leader() {
			victim = cl.nodes[1]
		}
		if victim.id == spare {
			victim = cl.nodes[2]
		}
		cl.kill(victim)
		time.Sleep(quick.DeadAfter / 2)
		cl.leader().create(t, "meanwhile")
		cl.restart(victim)
		time.Sleep(10 * quick.DeadAfter)
		cl.votersAre(t, time.Second, func(v map[int32]bool) bool { return v[victim.id] && !v[spare] && len(v) == 3 })

		cl.kill(victim)
		took := cl.votersAre(t, time.Minute, func(v map[int32]bool) bool { return !v[victim.id] && v[spare] && len(v) == 3 })
		if took < quick.DeadAfter-silent || took > quick.DeadAfter+3*time.Second {
			t.Errorf("replaced after %v", took)
		}
		cl.leader().create(t, "after")
		cl.restart(victim)
		cl.same("meanwhile", "after")
		victim.create(t, "from a node without a vote")
		cl.same("from a node without a vote")
		cl.close()
	})
}

// TestNoSubstitute: without one, a dead voter keeps its vote.
func TestNoSubstitute(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cl := found(t, 5, 3, quick)
		victim := cl.nodes[2]
		if victim == cl.leader() {
			victim = cl.nodes[1]
		}
		cl.kill(victim)
		time.Sleep(10 * quick.DeadAfter)
		cl.votersAre(t, time.Second, func(v map[int32]bool) bool { return len(v) == 3 })
		cl.restart(victim)
		cl.same()
		cl.close()
	})
}

// TestRacks: seven nodes in three racks have five voters, no more than two in a rack, whatever the order in which they came.
func TestRacks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cl := found(t, 6, 7, quick)
		for i, n := range cl.nodes { // 1 to 4 in a, the others in b and c
			rack := []string{"a", "a", "a", "a", "b", "c", "c"}[i]
			if _, err := n.Propose(t.Context(), catalog.RegisterBroker{Broker: catalog.Broker{ID: n.id, Rack: rack}}); err != nil {
				t.Fatal(err)
			}
		}
		cl.leader().Controller.kick()
		cl.votersAre(t, time.Minute, func(v map[int32]bool) bool {
			racks := map[string]int{}
			for id := range v {
				b, _ := cl.nodes[0].Image().Broker(id)
				racks[b.Rack]++
			}
			return len(v) == 5 && racks["a"] <= 2 && racks["b"] == 1 && racks["c"] == 2
		})
		cl.close()
	})
}

// TestJoinAndRemove: a member gets another address, leaves, and the leader too; what would leave no majority is refused.
func TestJoinAndRemove(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cl := found(t, 7, 3, quick)
		leader := cl.leader()
		for _, n := range cl.nodes {
			if n == leader {
				continue
			}
			if err := n.Join(t.Context(), 9, "x"); !errors.Is(err, ErrNotLeader) {
				t.Error(err)
			}
		}
		other := cl.nodes[0]
		if other == leader {
			other = cl.nodes[1]
		}
		cl.kill(other)
		time.Sleep(2 * quick.DeadAfter)
		for _, n := range cl.nodes {
			if n != other && n != leader {
				if err := leader.Remove(t.Context(), n.id); !errors.Is(err, ErrLastVoter) {
					t.Error(err)
				}
			}
		}
		moved := cl.net.wire(100 + other.id)
		other.opts.Transport = moved
		if err := leader.Join(t.Context(), other.id, string(moved.addr)); err != nil {
			t.Error(err)
		}
		cl.restart(other)
		other.create(t, "from another address")
		cl.same("from another address")
		if err := leader.Remove(t.Context(), leader.id); err != nil {
			t.Error(err)
		}
		next := cl.leader(leader)
		next.create(t, "without the first")
		if n := len(next.Members()); n != 2 {
			t.Error(n, "members")
		}
		cl.close()
	})
}

// TestTransfer: leadership is handed over without a proposal failing, and when a leader is closed.
func TestTransfer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cl := found(t, 8, 3, quick)
		for i := range 4 {
			leader := cl.leader()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			if err := leader.Transfer(ctx); err != nil {
				t.Error(err)
			}
			cancel()
			begun := time.Now()
			leader.create(t, fmt.Sprint("transfer-", i))
			if took := time.Since(begun); took > 500*time.Millisecond {
				t.Errorf("a proposal took %v", took)
			}
		}
		leader := cl.leader()
		begun := time.Now()
		if err := leader.Close(); err != nil {
			t.Error(err)
		}
		leader.down = true
		next := cl.leader()
		next.create(t, "after")
		if took := time.Since(begun); took > time.Second {
			t.Errorf("a leader that is closed leaves a gap of %v", took)
		}
		cl.restart(leader)
		cl.same("after", "transfer-3")
		cl.close()
	})
}
