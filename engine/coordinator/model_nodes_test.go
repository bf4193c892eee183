package coordinator

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/engine/group"
)

// TestModelOfNodes plays the model over three nodes between which the leadership goes to and fro: one resigns before or
// after the other is elected, or is elected again; what was on its way gets into the log or does not; the new leader
// learns late what the former one has acknowledged; nodes stop and start; members ask the wrong node. What TestModel
// holds has to hold here too.
func TestModelOfNodes(t *testing.T) {
	seeds := 40
	if testing.Short() {
		seeds = 8
	}
	handovers, elections := 0, 0
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, e := playNodes(t, seed)
				handovers, elections = handovers+h, elections+e
			})
		})
	}
	if handovers < 20*seeds || elections < 10*seeds {
		t.Errorf("only %d assignments and %d elections in %d plays: the model does not say much", handovers, elections, seeds)
	}
}

// nodes are the coordinators of a cluster, and which of them leads.
type nodes struct {
	*model
	who       sync.Mutex // guards all, leader and former
	all       [3]*Coordinator
	leader    int
	former    int // leads still, as far as it knows; -1: nobody does
	elections int
}

func (n *nodes) start(i int) {
	c := New(n.opts)
	c.Open()
	c.TopicCreated(1)
	n.who.Lock()
	defer n.who.Unlock()
	n.all[i] = c
}

func (n *nodes) stop(i int) {
	if err := n.all[i].Close(background); err != nil {
		n.t.Error(err)
	}
}

// draw is a number below most, other than TestModel's chances.
func (n *nodes) draw(most int) int {
	n.randomMu.Lock()
	defer n.randomMu.Unlock()
	return n.random.IntN(most)
}

func (n *nodes) pick() (co *Coordinator, leads func() bool) {
	wrong, old := !n.quiet() && n.chance(10), n.chance(50)
	other := n.draw(len(n.all))
	n.who.Lock()
	defer n.who.Unlock()
	i := n.leader
	if old && n.former >= 0 {
		i = n.former
	} else if wrong {
		i = other
	}
	co = n.all[i]
	return co, func() bool {
		n.who.Lock()
		defer n.who.Unlock()
		return n.all[n.leader] == co
	}
}

// elect makes a node the leader, after or before the former one knows.
func (n *nodes) elect(to int) {
	n.epoch++
	from := n.leader
	if n.chance(50) {
		n.log.cut()
	}
	n.log.elect(n.epoch, n.draw(4), n.draw(4))
	time.AfterFunc(time.Duration(n.draw(2000))*time.Millisecond, n.log.commit)
	elected := func() {
		n.all[to].Elected(0, n.epoch)
		n.who.Lock()
		defer n.who.Unlock()
		n.leader = to
	}
	resigned := func() {
		for i := range n.all {
			if i != to {
				n.all[i].Resigned(0, n.epoch)
			}
		}
	}
	switch order := n.draw(4); {
	case order == 0:
		n.setFormer(from)
		elected()
		n.pause(10 * time.Second)
		resigned()
		n.setFormer(-1)
	case order == 1:
		resigned()
		n.pause(3 * time.Second)
		elected()
	case order == 2:
		resigned()
		elected()
	default:
		elected()
		resigned()
	}
	// What comes late, or again.
	n.all[from].Elected(0, n.epoch-1)
	n.all[to].Resigned(0, n.epoch-1)
	n.all[to].Elected(0, n.epoch)
	n.elections++
}

func (n *nodes) setFormer(i int) {
	n.who.Lock()
	defer n.who.Unlock()
	n.former = i
}

func playNodes(t *testing.T, seed uint64) (handovers, elections int) {
	n := &nodes{model: newModel(t, seed), former: -1}
	n.model.pick = n.pick
	for i := range n.all {
		n.start(i)
	}
	n.elect(0)
	var wg sync.WaitGroup
	for i := range 5 {
		wg.Go(func() { n.consume(fmt.Sprint("c", i), i%2 == 0) })
	}
	for range 12 {
		n.pause(25 * time.Second)
		if n.chance(30) {
			if i := n.draw(len(n.all)); i != n.leader {
				n.stop(i)
				n.start(i)
			}
		}
		n.elect(n.draw(len(n.all)))
	}
	n.pause(60 * time.Second)
	close(n.calm)
	time.Sleep(3 * time.Minute)
	leader, _ := n.pick()
	if d, err := leader.Describe("g"); err != nil || d.State != group.Stable || len(d.Members) != 5 {
		t.Errorf("the group is %s with %d members, %v", d.State, len(d.Members), err)
	}
	close(n.over)
	wg.Wait()
	n.elect((n.leader + 1) % len(n.all))
	time.Sleep(3 * time.Second)
	n.c, _ = n.pick()
	for p, acked := range n.acked {
		if have := n.fetch("g", "t", int32(p)); have < acked {
			t.Errorf("partition %d is at %d after an election; %d was acknowledged", p, have, acked)
		}
	}
	for i := range n.all {
		n.stop(i)
	}
	return n.handovers, n.elections
}
