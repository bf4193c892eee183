package controller

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/engine/catalog"
)

// seeds is how many histories the chaos runs: MILLRACE_SEEDS, or a few.
func seeds(few uint64) uint64 {
	if n, err := strconv.ParseUint(os.Getenv("MILLRACE_SEEDS"), 10, 64); err == nil {
		return n
	}
	return few
}

// TestChaos: while nodes crash, links are cut and lossy, and disks hang, clients on all nodes create topics and draw producer ids. At the end nothing
// acknowledged is lost, nothing was applied twice, all images are equal, and every subscriber has seen each change once and in order.
func TestChaos(t *testing.T) {
	for _, count := range []int32{3, 5} {
		acked, unknown := 0, 0
		for seed := range seeds(3) {
			bubble(t, func(t *testing.T) {
				a, u := chaos(t, seed, count)
				acked, unknown = acked+a, unknown+u
			})
			if t.Failed() {
				t.Fatalf("%d nodes, seed %d", count, seed)
			}
		}
		t.Logf("%d nodes: %d acknowledged, %d with an unknown outcome", count, acked, unknown)
		if acked < unknown {
			t.Error("the chaos leaves too little")
		}
	}
}

// history is what clients remember.
type history struct {
	mu      sync.Mutex
	topics  []string
	ids     map[int64]bool
	unknown int
	closed  int // of the draws of ids, those whose node went away
}

func chaos(t *testing.T, seed uint64, count int32) (acked, unknown int) {
	settings := quick
	settings.SnapshotEntries, settings.SnapshotBytes = 40, 20<<10 // so that those who were away get snapshots
	settings.ProposalTimeout = time.Hour
	settings.DeadAfter = time.Hour // their places are kept
	cl := found(t, seed, count, settings)
	h := &history{ids: map[int64]bool{}}
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for i := range 2 * int(count) {
		clients.Go(func() { client(ctx, t, cl, h, i, rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	r := rand.New(rand.NewPCG(seed, 1000))
	var releases []func()
	for range 25 {
		n := cl.nodes[r.IntN(len(cl.nodes))]
		switch r.IntN(8) {
		case 0:
			if !n.down && down(cl) == 0 {
				cl.kill(n)
			}
		case 1, 2:
			for _, n := range cl.nodes {
				if n.down {
					cl.restart(n)
				}
			}
		case 3:
			if !n.down && n.store.hang.Load() == nil {
				releases = append(releases, n.store.stall())
			}
		case 4:
			for _, release := range releases {
				release()
			}
			releases = nil
		case 5:
			cl.net.cut(n.id, 1+r.Int32N(count), true)
		case 6:
			cl.net.mu.Lock()
			cl.net.loss, cl.net.delay = r.Float64()*0.2, time.Duration(r.IntN(40))*time.Millisecond
			cl.net.mu.Unlock()
		case 7:
			cl.net.heal()
			for _, n := range cl.nodes {
				cl.net.isolate(n.id, n.down)
			}
		}
		time.Sleep(time.Duration(r.IntN(1500)) * time.Millisecond)
	}
	stop()
	for _, release := range releases {
		release()
	}
	cl.net.heal()
	for _, n := range cl.nodes {
		if n.down {
			cl.restart(n)
		}
	}
	clients.Wait()
	for _, n := range cl.nodes {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if err := n.Sync(ctx); err != nil {
			t.Errorf("node %d: %v", n.id, err)
		}
		cancel()
	}
	cl.same(h.topics...)
	last := cl.nodes[0].Image().NextProducerID()
	if have := int64(len(h.ids)); last < have || last > have+int64(h.closed) {
		t.Errorf("%d ids were handed out, %d were acknowledged, of %d it is not known", last, have, h.closed)
	}
	cl.close()
	return len(h.ids) + len(h.topics), h.unknown
}

func down(cl *cluster) (count int) {
	for _, n := range cl.nodes {
		if n.down {
			count++
		}
	}
	return count
}

// client proposes on whatever node until the context ends.
func client(ctx context.Context, t *testing.T, cl *cluster, h *history, number int, r *rand.Rand) {
	for i := 0; ctx.Err() == nil; i++ {
		time.Sleep(time.Duration(r.IntN(200)) * time.Millisecond)
		cl.mu.RLock()
		n := cl.nodes[r.IntN(len(cl.nodes))].Controller
		cl.mu.RUnlock()
		name := fmt.Sprintf("t-%d-%d", number, i)
		var cmd catalog.Command = catalog.AllocateProducerIDs{BrokerID: 1, Count: 1}
		if i%2 == 0 {
			cmd = topics(name)
		}
		wait := time.Hour // until an id is drawn: so one that was drawn twice shows
		if i%2 == 0 {
			wait = time.Duration(1+r.IntN(8000)) * time.Millisecond
		}
		within, cancel := context.WithTimeout(context.Background(), wait)
		res, err := n.Propose(within, cmd)
		cancel()
		h.mu.Lock()
		switch {
		case err == nil && i%2 == 0:
			if res.Errors[0] != nil {
				t.Errorf("%s: %v: it was applied before", name, res.Errors[0])
			}
			h.topics = append(h.topics, name)
		case err == nil:
			if h.ids[res.FirstProducerID] {
				t.Errorf("id %d was handed out twice", res.FirstProducerID)
			}
			h.ids[res.FirstProducerID] = true
		case errors.Is(err, catalog.ErrClosed) && !errors.Is(err, ErrUnknownOutcome), errors.Is(err, ErrNoLeader):
		case errors.Is(err, ErrUnknownOutcome), errors.Is(err, ErrForgotten):
			h.unknown++
			if i%2 == 1 {
				h.closed++
			}
		default:
			t.Errorf("%s: %v", name, err)
			h.unknown++
		}
		h.mu.Unlock()
	}
}
