package replication

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/replication/controller"
	"github.com/millrace/millrace/replication/peer"
	"github.com/millrace/millrace/replication/raftlog"
	"github.com/millrace/millrace/segment/vfs"
)

// memoryLog is raft's, with an answer for what was never set that raft's interface asks for.
type memoryLog struct{ *raft.InmemStore }

func (s memoryLog) GetUint64(k []byte) (uint64, error) {
	v, err := s.InmemStore.GetUint64(k)
	if err != nil {
		return 0, nil
	}
	return v, nil
}

// members is a directory.
type members struct {
	mu    sync.Mutex
	where map[int32]string
}

func (m *members) AddressOf(node int32) (string, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a, known := m.where[node]
	return a, known
}

func (m *members) set(node int32, address string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.where[node] = address
}

type node struct {
	*controller.Controller
	id        int32
	hub       *peer.Hub
	transport *peer.RaftTransport
	opts      controller.Options
	closed    bool
}

func begin(t *testing.T, id int32, where *members) *node {
	t.Helper()
	hub, err := peer.Listen(peer.Options{Address: "127.0.0.1:0", Self: peer.Identity{ClusterID: "c", NodeID: id, Incarnation: [16]byte{byte(id)}},
		Secret: []byte("s"), Directory: where, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	where.set(id, hub.Advertise())
	snapshots, err := raftlog.OpenSnapshots(vfs.NewMem(), "snapshots", nil)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{id: id, hub: hub, transport: hub.RaftTransport(peer.RaftTimeouts{})}
	n.opts = controller.Options{NodeID: id, Log: memoryLog{raft.NewInmemStore()}, Snapshots: snapshots, Transport: n.transport, Forward: forward{hub}, Now: time.Now}
	t.Cleanup(func() { n.end(t) })
	return n
}

func (n *node) open(t *testing.T) {
	t.Helper()
	c, err := controller.Open(n.opts)
	if err != nil {
		t.Fatal(err)
	}
	n.Controller = c
	acceptProposals(n.hub, c.Accept)
}

// end closes a node's parts from the top.
func (n *node) end(t *testing.T) {
	t.Helper()
	if n.closed {
		return
	}
	n.closed = true
	if n.Controller != nil {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
	n.disconnect(t)
}

func (n *node) disconnect(t *testing.T) {
	t.Helper()
	_ = n.transport.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := n.hub.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for begun := time.Now(); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Since(begun) > 20*time.Second {
			t.Fatal("not within 20 s: " + what)
		}
	}
}

func topic(n byte) catalog.CreateTopics {
	return catalog.CreateTopics{Topics: []catalog.NewTopic{{Name: fmt.Sprint("topic-", n), ID: catalog.TopicID{n, 1},
		Partitions: []catalog.Partition{{Leader: 1, Replicas: []int32{1}, ISR: []int32{1}}}}}}
}

// TestControllerOverPeers: three controllers over real connections elect a leader, take proposals from followers, and do so again when the leader's connections are gone.
func TestControllerOverPeers(t *testing.T) {
	where := &members{where: map[int32]string{}}
	var nodes []*node
	for id := range int32(3) {
		nodes = append(nodes, begin(t, id+1, where))
	}
	res, err := catalog.Apply(catalog.NewImage(), catalog.SetCluster{ClusterID: "c"})
	if err != nil {
		t.Fatal(err)
	}
	if err := controller.Bootstrap(nodes[0].opts, res.Image); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		n.open(t)
	}
	until(t, "the first node leads", nodes[0].Leads)
	for _, n := range nodes[1:] {
		if err := nodes[0].Join(t.Context(), n.id, string(n.transport.LocalAddr())); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "three voters", func() bool {
		voters := 0
		for _, m := range nodes[0].Members() {
			if m.Voter {
				voters++
			}
		}
		return voters == 3
	})
	propose := func(n *node, name byte) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		begun := time.Now()
		res, err := n.Propose(ctx, topic(name))
		if err == nil {
			err = errors.Join(res.Errors...)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("node %d's proposal took %v", n.id, time.Since(begun))
	}
	for i, n := range nodes {
		propose(n, byte(i))
	}
	leader := nodes[0]
	for _, n := range nodes {
		if n.Leads() {
			leader = n
		}
	}
	leader.disconnect(t)
	var left []*node
	for _, n := range nodes {
		if n != leader {
			left = append(left, n)
		}
	}
	for i, n := range left {
		propose(n, byte(10+i))
	}
	for _, n := range left {
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		if err := n.Sync(ctx); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"topic-0", "topic-1", "topic-2", "topic-10", "topic-11"} {
			if n.Image().Topic(name) == nil {
				t.Errorf("node %d lacks %s", n.id, name)
			}
		}
	}
	if err := leader.Close(); err != nil {
		t.Error(err)
	}
	leader.closed = true
}

// TestForwardErrors: the controller's errors survive the way.
func TestForwardErrors(t *testing.T) {
	where := &members{where: map[int32]string{}}
	one, two := begin(t, 1, where), begin(t, 2, where)
	var answer error
	acceptProposals(two.hub, func(_ context.Context, b []byte) error {
		if string(b) != "proposal" {
			return errors.New("not what was sent")
		}
		return answer
	})
	for _, want := range []error{controller.ErrRefused, controller.ErrNotLeader} {
		answer = fmt.Errorf("%w: because", want)
		if err := (forward{one.hub}).Forward(t.Context(), 2, []byte("proposal")); !errors.Is(err, want) {
			t.Error(err)
		}
	}
	answer = nil
	if err := (forward{one.hub}).Forward(t.Context(), 2, []byte("proposal")); err != nil {
		t.Error(err)
	}
	answer = errors.New("something else")
	err := forward{one.hub}.Forward(t.Context(), 2, []byte("proposal"))
	if err == nil || errors.Is(err, controller.ErrRefused) || errors.Is(err, controller.ErrNotLeader) || err.Error() != answer.Error() {
		t.Error(err)
	}
	two.disconnect(t)
	two.closed = true
	if err := (forward{one.hub}).Forward(t.Context(), 2, []byte("proposal")); err == nil || errors.Is(err, controller.ErrRefused) {
		t.Error(err)
	}
}
