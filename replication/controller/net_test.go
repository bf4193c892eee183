package controller

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/replication/raftlog"
	"github.com/millrace/millrace/segment/vfs"
)

// network carries calls between nodes, and loses, delays and repeats them as it is told.
type network struct {
	mu    sync.Mutex
	rng   *rand.Rand
	nodes map[raft.ServerAddress]*wire
	cuts  map[[2]raft.ServerAddress]bool // from, to
	loss  float64
	delay time.Duration // at most
	calls int
}

const callTimeout = 150 * time.Millisecond

func newNetwork(seed uint64) *network {
	return &network{rng: rand.New(rand.NewPCG(seed, 77)), nodes: map[raft.ServerAddress]*wire{}, cuts: map[[2]raft.ServerAddress]bool{}, delay: time.Millisecond}
}

func addressOf(node int32) raft.ServerAddress { return raft.ServerAddress(fmt.Sprint("node-", node)) }

func (n *network) wire(node int32) *wire {
	w := &wire{n: n, addr: addressOf(node), consumer: make(chan raft.RPC)}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nodes[w.addr] = w
	return w
}

func (n *network) cut(from, to int32, is bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cuts[[2]raft.ServerAddress{addressOf(from), addressOf(to)}] = is
}

// isolate cuts a node from all others, or joins it again.
func (n *network) isolate(node int32, is bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for other := range n.nodes {
		if me := addressOf(node); other != me {
			n.cuts[[2]raft.ServerAddress{me, other}], n.cuts[[2]raft.ServerAddress{other, me}] = is, is
		}
	}
}

func (n *network) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cuts)
	n.loss, n.delay = 0, time.Millisecond
}

// way tells what happens to one message.
func (n *network) way(from, to raft.ServerAddress) (w *wire, delay time.Duration, lost, twice bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls++
	w = n.nodes[to]
	lost = w == nil || n.cuts[[2]raft.ServerAddress{from, to}] || n.rng.Float64() < n.loss
	return w, time.Duration(n.rng.Int64N(int64(n.delay) + 1)), lost, n.rng.Float64() < n.loss
}

// wire is one node's transport.
type wire struct {
	n         *network
	addr      raft.ServerAddress
	consumer  chan raft.RPC
	heartbeat atomic.Pointer[func(raft.RPC)]
}

var errLost = errors.New("no answer")

func (w *wire) Consumer() <-chan raft.RPC                               { return w.consumer }
func (w *wire) LocalAddr() raft.ServerAddress                           { return w.addr }
func (w *wire) SetHeartbeatHandler(f func(raft.RPC))                    { w.heartbeat.Store(&f) }
func (w *wire) EncodePeer(_ raft.ServerID, a raft.ServerAddress) []byte { return []byte(a) }
func (w *wire) DecodePeer(b []byte) raft.ServerAddress                  { return raft.ServerAddress(b) }
func (w *wire) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

func (w *wire) call(to raft.ServerAddress, args any, r io.Reader) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	target, delay, lost, twice := w.n.way(w.addr, to)
	if lost {
		<-ctx.Done()
		return nil, errLost
	}
	time.Sleep(delay)
	if twice && r == nil {
		target.serve(ctx, args, nil) // the answer to this one is lost
	}
	resp, err := target.serve(ctx, args, r)
	if err != nil {
		return nil, err
	}
	_, delay, lost, _ = w.n.way(to, w.addr)
	if lost {
		<-ctx.Done()
		return nil, errLost
	}
	time.Sleep(delay)
	return resp.Response, resp.Error
}

func (w *wire) serve(ctx context.Context, args any, r io.Reader) (raft.RPCResponse, error) {
	answer := make(chan raft.RPCResponse, 1)
	rpc := raft.RPC{Command: args, Reader: r, RespChan: answer}
	a, ok := args.(*raft.AppendEntriesRequest)
	if handler := w.heartbeat.Load(); ok && handler != nil && len(a.Entries) == 0 && a.PrevLogEntry == 0 && a.LeaderCommitIndex == 0 {
		go (*handler)(rpc)
	} else {
		select {
		case w.consumer <- rpc:
		case <-ctx.Done():
			return raft.RPCResponse{}, errLost
		}
	}
	if r != nil { // a reader is not to be read any more after the call
		select {
		case resp := <-answer:
			return resp, nil
		case <-time.After(10 * time.Second):
			return raft.RPCResponse{}, errLost
		}
	}
	select {
	case resp := <-answer:
		return resp, nil
	case <-ctx.Done():
		return raft.RPCResponse{}, errLost
	}
}

func send[R any](w *wire, to raft.ServerAddress, args any, r io.Reader, resp *R) error {
	got, err := w.call(to, args, r)
	if err == nil {
		*resp = *got.(*R)
	}
	return err
}

func (w *wire) AppendEntries(_ raft.ServerID, to raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	return send(w, to, args, nil, resp)
}
func (w *wire) RequestVote(_ raft.ServerID, to raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return send(w, to, args, nil, resp)
}
func (w *wire) RequestPreVote(_ raft.ServerID, to raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return send(w, to, args, nil, resp)
}
func (w *wire) InstallSnapshot(_ raft.ServerID, to raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, r io.Reader) error {
	return send(w, to, args, r, resp)
}
func (w *wire) TimeoutNow(_ raft.ServerID, to raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return send(w, to, args, nil, resp)
}

// moodyStore is in memory, and hangs or fails when it is told to.
type moodyStore struct {
	*raft.InmemStore
	hang  atomic.Pointer[chan struct{}]
	fault atomic.Pointer[error]
}

func (s *moodyStore) mood() error {
	if c := s.hang.Load(); c != nil {
		<-*c
	}
	if err := s.fault.Load(); err != nil {
		return *err
	}
	return nil
}

func (s *moodyStore) stall() (release func()) {
	c := make(chan struct{})
	s.hang.Store(&c)
	return func() {
		if s.hang.CompareAndSwap(&c, nil) {
			close(c)
		}
	}
}

func (s *moodyStore) StoreLogs(logs []*raft.Log) error {
	if err := s.mood(); err != nil {
		return err
	}
	return s.InmemStore.StoreLogs(logs)
}

func (s *moodyStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

func (s *moodyStore) DeleteRange(from, to uint64) error {
	if err := s.mood(); err != nil {
		return err
	}
	first, _ := s.FirstIndex()
	last, _ := s.LastIndex()
	if from, to = max(from, first), min(to, last); last == 0 || from > to { // which InmemStore does not look for
		return nil
	}
	return s.InmemStore.DeleteRange(from, to)
}

func (s *moodyStore) Set(k, v []byte) error {
	if err := s.mood(); err != nil {
		return err
	}
	return s.InmemStore.Set(k, v)
}

func (s *moodyStore) SetUint64(k []byte, v uint64) error {
	if err := s.mood(); err != nil {
		return err
	}
	return s.InmemStore.SetUint64(k, v)
}

// InmemStore has an error for what was never set, and 0 is what raft's interface asks for.
func (s *moodyStore) GetUint64(k []byte) (uint64, error) {
	v, err := s.InmemStore.GetUint64(k)
	if err != nil {
		return 0, nil
	}
	return v, nil
}

// node is one member of a test's cluster.
type node struct {
	*Controller
	id    int32
	store *moodyStore
	opts  Options
	down  bool
}

type cluster struct {
	t     *testing.T
	net   *network
	nodes []*node
	mu    sync.RWMutex // guards the controllers of nodes
}

// Forward finds the node by its id.
func (n *node) forward(cl *cluster) Forward { return &forwarder{cl, n.id} }

type forwarder struct {
	cl   *cluster
	from int32
}

func (f *forwarder) Forward(ctx context.Context, leader int32, b []byte) error {
	_, delay, lost, _ := f.cl.net.way(addressOf(f.from), addressOf(leader))
	if lost {
		<-ctx.Done()
		return errLost
	}
	time.Sleep(delay)
	f.cl.mu.RLock()
	c := f.cl.nodes[leader-1].Controller
	f.cl.mu.RUnlock()
	err := c.Accept(ctx, b)
	_, delay, lost, _ = f.cl.net.way(addressOf(leader), addressOf(f.from))
	if lost {
		<-ctx.Done()
		return errLost
	}
	time.Sleep(delay)
	return err
}

var quick = Settings{DeadAfter: 5 * time.Second}

// found makes a cluster of so many nodes: the first is bootstrapped from an image, the others join.
func found(t *testing.T, seed uint64, count int32, s Settings) *cluster {
	t.Helper()
	cl := &cluster{t: t, net: newNetwork(seed)}
	for id := range count {
		cl.add(id+1, s)
	}
	first := cl.nodes[0]
	img := catalog.NewImage()
	for _, cmd := range []catalog.Command{catalog.SetCluster{ClusterID: "c"}, topics("before")} {
		res, err := catalog.Apply(img, cmd)
		if err != nil {
			t.Fatal(err)
		}
		img = res.Image
	}
	if err := Bootstrap(first.opts, img); err != nil {
		t.Fatal(err)
	}
	for _, n := range cl.nodes {
		cl.open(n)
	}
	cl.leader()
	for _, n := range cl.nodes[1:] {
		if err := first.Join(t.Context(), n.id, string(addressOf(n.id))); err != nil {
			t.Fatal(err)
		}
	}
	want := int(count)
	if most := or5(s.Voters); want > most {
		want = most
	}
	want -= 1 - want%2
	cl.until("all the voters", time.Minute, func() bool {
		voters := 0
		for _, m := range first.Members() {
			if m.Voter {
				voters++
			}
		}
		return voters == want
	})
	return cl
}

func or5(n int) int {
	if n == 0 {
		return 5
	}
	return n
}

func (cl *cluster) add(id int32, s Settings) *node {
	n := &node{id: id, store: &moodyStore{InmemStore: raft.NewInmemStore()}}
	snaps, err := raftlog.OpenSnapshots(vfs.NewMem(), "snapshots", nil)
	if err != nil {
		cl.t.Fatal(err)
	}
	n.opts = Options{NodeID: id, Log: n.store, Snapshots: snaps, Transport: cl.net.wire(id), Now: time.Now, Settings: s, Forward: n.forward(cl)}
	if testing.Verbose() {
		n.opts.Logger = slog.New(slog.DiscardHandler)
	}
	cl.nodes = append(cl.nodes, n)
	return n
}

func (cl *cluster) open(n *node) {
	cl.t.Helper()
	c, err := Open(n.opts)
	if err != nil {
		cl.t.Fatal(err)
	}
	cl.mu.Lock()
	n.Controller, n.down = c, false
	cl.mu.Unlock()
}

// kill ends a node without its saying goodbye.
func (cl *cluster) kill(n *node) {
	cl.t.Helper()
	cl.net.isolate(n.id, true)
	n.down = true
	if c := n.store.hang.Swap(nil); c != nil { // the write that hangs ends with the process, this one may have been carried out
		close(*c)
	}
	if err := n.Close(); err != nil {
		cl.t.Error("close:", err)
	}
}

func (cl *cluster) restart(n *node) {
	cl.t.Helper()
	cl.net.isolate(n.id, false)
	cl.open(n)
}

func (cl *cluster) until(what string, most time.Duration, is func() bool) time.Duration {
	cl.t.Helper()
	begun := time.Now()
	for !is() {
		if time.Since(begun) > most {
			for _, n := range cl.nodes {
				if in := n.current.Load(); in != nil {
					cl.t.Logf("node %d: %v, version %d, %v", n.id, n.Err(), n.Image().Version(), in.raft.Stats())
				} else {
					cl.t.Logf("node %d: %v, version %d", n.id, n.Err(), n.Image().Version())
				}
			}
			cl.t.Fatalf("no %s within %v", what, most)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(begun)
}

// leader waits for one, other than those left out.
func (cl *cluster) leader(but ...*node) (leader *node) {
	cl.t.Helper()
	cl.until("leader", time.Minute, func() bool {
		for _, n := range cl.nodes {
			if !n.down && n.Controller != nil && n.Leads() && !slices.Contains(but, n) {
				leader = n
				return true
			}
		}
		return false
	})
	return leader
}

// same waits until all nodes have the same image, which holds what it should.
func (cl *cluster) same(want ...string) {
	cl.t.Helper()
	cl.until("agreement", time.Minute, func() bool {
		first := cl.nodes[0].Image()
		for _, n := range cl.nodes[1:] {
			if n.Image().Version() != first.Version() {
				return false
			}
		}
		return true
	})
	cl.t.Helper()
	first := catalog.EncodeImage(cl.nodes[0].Image())
	for _, n := range cl.nodes {
		if !slices.Equal(catalog.EncodeImage(n.Image()), first) {
			cl.t.Errorf("node %d differs", n.id)
		}
		for _, name := range append(want, "before") {
			if n.Image().Topic(name) == nil {
				cl.t.Errorf("node %d lacks %s", n.id, name)
			}
		}
	}
}

func (cl *cluster) close() {
	cl.t.Helper()
	var wg sync.WaitGroup
	for _, n := range cl.nodes {
		wg.Go(func() {
			if err := n.Close(); err != nil {
				cl.t.Errorf("close node %d: %v", n.id, err)
			}
		})
	}
	wg.Wait()
}

var topicCount atomic.Uint32

func topics(names ...string) (c catalog.CreateTopics) {
	for _, name := range names {
		n := topicCount.Add(1)
		c.Topics = append(c.Topics, catalog.NewTopic{Name: name, ID: catalog.TopicID{byte(n), byte(n >> 8), byte(n >> 16), 1},
			Partitions: []catalog.Partition{{Leader: 1, Replicas: []int32{1}, ISR: []int32{1}}}})
	}
	return c
}
