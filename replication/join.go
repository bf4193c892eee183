package replication

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/millrace/millrace/replication/controller"
	"github.com/millrace/millrace/replication/peer"
)

// How nodes come together. A node without a cluster asks all those it knows of what they are (statusMethod):
//
//   - one of them is a member of a cluster: this node joins that;
//   - it has nowhere to join, and is to begin alone: it does;
//   - as many new nodes as are to begin together see each other: the one with the lowest id asks all others for their promise, which
//     each gives to one node only, and begins.
//
// So two clusters cannot begin at once unless twice as many nodes come as are expected.
const (
	statusMethod  = "status"
	promiseMethod = "promise"
	joinMethod    = "join"

	askPause   = 200 * time.Millisecond
	askTime    = 2 * time.Second
	promiseFor = 30 * time.Second
	sayEvery   = 10 * time.Second
)

// status is what a node says of itself.
type status struct {
	Node    int32  `json:"node"`
	Address string `json:"address"`
	Cluster string `json:"cluster,omitempty"` // that it belongs to
	Member  bool   `json:"member"`            // it has the metadata
	Leader  string `json:"leader,omitempty"`  // peer address of the metadata's leader, as far as it knows
}

// joining is what a node that wants to become a member, or has another address now, says.
type joining struct {
	Node    int32  `json:"node"`
	Address string `json:"address"`
	// Fresh says that the node has nothing of the metadata. If it counts as a member, it is one that has forgotten what it has voted for and what it
	// has acknowledged: it has to begin anew, without a vote.
	Fresh bool `json:"fresh,omitempty"`
}

// promise is to whom this node has given its word not to begin a cluster beside.
type promise struct {
	mu    sync.Mutex // guards the fields below
	to    int32
	until time.Time
}

// give gives it, unless somebody else has it.
func (p *promise) give(to int32, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Before(p.until) && p.to != to {
		return false
	}
	p.to, p.until = to, now.Add(promiseFor)
	return true
}

// gaveTo tells whether the last promise was for a node, kept or not.
func (p *promise) gaveTo(node int32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.until.IsZero() && p.to == node
}

func (n *Node) registerJoining() {
	n.hub.Register(statusMethod, func(context.Context, peer.Identity, []byte) ([]byte, error) { return json.Marshal(n.status()) })
	n.hub.Register(promiseMethod, func(_ context.Context, from peer.Identity, _ []byte) ([]byte, error) {
		refused := errors.New("another node begins the cluster")
		if own := n.hub.Self().ClusterID; own != "" && (own != from.ClusterID || !n.promise.gaveTo(from.NodeID)) {
			return nil, refused // but for the one that announced this cluster, and ended before it had begun it
		}
		if !n.empty.Load() || from.NodeID >= n.opts.Config.NodeID || !n.promise.give(from.NodeID, n.opts.Now()) {
			return nil, refused
		}
		return nil, nil
	})
	n.hub.Register(joinMethod, func(ctx context.Context, from peer.Identity, body []byte) ([]byte, error) {
		var j joining
		if err := json.Unmarshal(body, &j); err != nil {
			return nil, err
		}
		c := n.control.Load()
		if c == nil {
			return nil, errors.New("this node has no metadata yet")
		}
		if j.Fresh {
			if err := c.Remove(ctx, j.Node); err != nil {
				return nil, err
			}
		}
		if from.NodeID == j.Node {
			n.moves(j.Node, from.Incarnation, j.Address)
		}
		return nil, c.Join(ctx, j.Node, j.Address)
	})
}

func (n *Node) status() status {
	s := status{Node: n.opts.Config.NodeID, Address: n.hub.Advertise(), Cluster: n.hub.Self().ClusterID}
	if c := n.control.Load(); c != nil {
		if leader, known := c.Leader(); known {
			s.Member = true
			s.Leader, _ = n.AddressOf(leader) // "" says that it is not known where
			if leader == s.Node {
				s.Leader = s.Address
			}
		}
	}
	return s
}

// others asks all nodes that are known, by gossip or by their address, what they are. Those that do not answer are left out.
func (n *Node) others(ctx context.Context) []status {
	addresses := slices.Clone(n.opts.Config.Join)
	for _, m := range n.gossip.Load().Members() {
		if m.NodeID != n.opts.Config.NodeID {
			addresses = append(addresses, m.Address)
		}
	}
	if c := n.control.Load(); c != nil {
		addresses = append(addresses, c.Addresses()...)
	}
	slices.Sort(addresses)
	addresses = slices.Compact(addresses)
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	found := make([]*status, len(addresses))
	var asking sync.WaitGroup
	for i, address := range addresses {
		asking.Go(func() {
			body, err := n.hub.CallAddress(ctx, address, statusMethod, nil)
			var s status
			if err == nil && json.Unmarshal(body, &s) == nil && s.Node != n.opts.Config.NodeID {
				found[i] = &s
			}
		})
	}
	asking.Wait()
	var all []status
	for _, s := range found {
		if s != nil && !slices.ContainsFunc(all, func(have status) bool { return have.Node == s.Node }) {
			all = append(all, *s)
		}
	}
	return all
}

// alone tells whether this node is to begin a cluster without waiting for others.
func (n *Node) alone() bool {
	return len(n.opts.Config.Join) == 0 && n.opts.Config.BootstrapExpect <= 1
}

// Identify tells the cluster that this node belongs to, or finds one.
func (n *Node) Identify(ctx context.Context, known string) (string, error) {
	n.empty.Store(known == "")
	switch {
	case known != "":
	case n.alone():
		known, n.founds = newClusterID(), true
	default:
		err := n.untilFound(ctx, "waiting for other nodes, to begin or join a cluster with", func(others []status) (bool, error) {
			for _, s := range others {
				if s.Cluster != "" {
					known = s.Cluster
					return true, nil
				}
			}
			if n.mayBegin(ctx, others) {
				known, n.founds = newClusterID(), true
			}
			return n.founds, nil
		})
		if err != nil {
			return "", err
		}
	}
	return known, n.hub.SetClusterID(known)
}

// foundOrJoin finds out whether this node, which knows its cluster and has none of its metadata, is to begin it (true), or to join others who
// have: that was interrupted before.
func (n *Node) foundOrJoin(ctx context.Context) (founds bool, err error) {
	if n.alone() {
		return true, nil
	}
	return founds, n.untilFound(ctx, "waiting for a node that has the metadata of the cluster", func(others []status) (bool, error) {
		for _, s := range others {
			if s.Member {
				return true, nil
			}
		}
		founds = n.mayBegin(ctx, others)
		return founds, nil
	})
}

// untilFound asks the other nodes again and again until is says so.
func (n *Node) untilFound(ctx context.Context, waiting string, is func([]status) (bool, error)) error {
	var said time.Time
	for {
		others := n.others(ctx)
		if done, err := is(others); done || err != nil {
			return err
		}
		if now := n.opts.Now(); now.Sub(said) >= sayEvery {
			said = now
			n.log.Info(waiting, "answering", len(others), "expected", n.opts.Config.BootstrapExpect, "join", n.opts.Config.Join)
		}
		if !sleep(ctx, askPause) {
			return fmt.Errorf("%s: %w", waiting, ctx.Err())
		}
	}
}

// mayBegin tells whether this node is to begin the cluster: enough new nodes are there, it has the lowest id, and all others promise.
func (n *Node) mayBegin(ctx context.Context, others []status) bool {
	expect, self := n.opts.Config.BootstrapExpect, n.opts.Config.NodeID
	if expect < 2 || len(others)+1 < expect {
		return false
	}
	for _, s := range others {
		if s.Member || s.Node < self {
			return false
		}
	}
	if !n.promise.give(self, n.opts.Now()) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	for _, s := range others {
		if _, err := n.hub.CallAddress(ctx, s.Address, promiseMethod, nil); err != nil {
			return false
		}
	}
	return true
}

// beMember has the metadata's leader know this node at its address. A node that has nothing of the metadata has to, before it opens its part: control is nil.
func (n *Node) beMember(ctx context.Context, control *controller.Controller) error {
	if n.founds {
		return nil
	}
	body, err := json.Marshal(joining{Node: n.opts.Config.NodeID, Address: n.hub.Advertise(), Fresh: control == nil})
	if err != nil {
		return err
	}
	return n.untilFound(ctx, "waiting for the leader of the metadata", func(others []status) (bool, error) {
		if control != nil && control.Leads() {
			return true, nil // all by itself: the address of a voter of one cannot be told to anybody else
		}
		for _, s := range others {
			if s.Leader == "" {
				continue
			}
			attempt, cancel := context.WithTimeout(ctx, askTime)
			_, err := n.hub.CallAddress(attempt, s.Leader, joinMethod, body)
			cancel()
			if err == nil {
				return true, nil
			}
		}
		return false, nil
	})
}

func newClusterID() string {
	var id [16]byte
	for {
		rand.Read(id[:]) // never fails
		if s := base64.RawURLEncoding.EncodeToString(id[:]); s[0] != '-' {
			return s // a leading dash would look like a flag on a command line
		}
	}
}
