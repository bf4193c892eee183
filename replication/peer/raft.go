package peer

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// RaftTimeouts bound raft's calls; what is zero gets its default.
type RaftTimeouts struct {
	Quick time.Duration // of dialling, handshake and all, and again of the call itself: heartbeats, votes, leadership transfers; 120 ms
	Slow  time.Duration // the same of calls that wait for the follower's disk: entries, and each 256 KiB of a snapshot; 2 s
}

// RaftTransport carries raft's calls over connections of kind Raft. It is hashicorp/raft's NetworkTransport twice: heartbeats and votes must
// be answered, or given up, within an election's timeout, while entries may take as long as a disk; and each has
// connections of its own, so that none queues behind the other. Entries are not pipelined: the controller looks at each answer.
//
// A server's address is what its node advertises; when the hub's directory knows another, that one is dialled. All methods may be called concurrently.
type RaftTransport struct {
	quick, slow *raft.NetworkTransport
	hub         *Hub
	layer       *raftLayer
}

var (
	_ raft.Transport   = (*RaftTransport)(nil)
	_ raft.WithPreVote = (*RaftTransport)(nil)
)

const (
	raftPool    = 3  // idle connections that are kept, for each of the two
	raftInbound = 32 // connections of one node that wait for raft here: it may be standing still
)

// RaftTransport begins to serve connections of kind Raft. There is one for a hub; the caller closes it.
func (h *Hub) RaftTransport(timeouts RaftTimeouts) *RaftTransport {
	if timeouts.Quick == 0 {
		timeouts.Quick = 120 * time.Millisecond
	}
	if timeouts.Slow == 0 {
		timeouts.Slow = 2 * time.Second
	}
	t := &RaftTransport{hub: h, layer: &raftLayer{hub: h, accepted: make(chan net.Conn), closed: make(chan struct{}), inbound: map[int32]int{}}}
	config := raft.NetworkTransportConfig{Logger: hclog.NewNullLogger(), // what matters raft says too, when the call fails
		Stream: t.layer, MaxPool: raftPool, MaxRPCsInFlight: 1, Timeout: timeouts.Quick}
	t.quick = raft.NewNetworkTransportWithConfig(&config)
	config.Stream, config.Timeout = &dialOnly{t.layer}, timeouts.Slow
	t.slow = raft.NewNetworkTransportWithConfig(&config)
	h.Handle(Raft, t.layer.serve)
	return t
}

// Close ends the transport: connections of kind Raft are refused from now on, and those there are close.
func (t *RaftTransport) Close() error {
	t.hub.Handle(Raft, nil)
	err := errors.Join(t.quick.Close(), t.slow.Close())
	t.quick.CloseStreams() // those that were kept for further calls
	t.slow.CloseStreams()
	return err
}

// Consumer is raft's.
func (t *RaftTransport) Consumer() <-chan raft.RPC { return t.quick.Consumer() }

// LocalAddr is what the hub advertises.
func (t *RaftTransport) LocalAddr() raft.ServerAddress {
	return raft.ServerAddress(t.hub.Advertise())
}

// AppendEntriesPipeline is not supported.
func (t *RaftTransport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// AppendEntries is raft's.
func (t *RaftTransport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	via := t.slow
	if len(args.Entries) == 0 && args.PrevLogEntry == 0 && args.PrevLogTerm == 0 && args.LeaderCommitIndex == 0 { // what NetworkTransport takes for a heartbeat
		via = t.quick
	}
	return via.AppendEntries(id, t.route(id, target), args, resp)
}

// RequestVote is raft's.
func (t *RaftTransport) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return t.quick.RequestVote(id, t.route(id, target), args, resp)
}

// RequestPreVote is raft's.
func (t *RaftTransport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return t.quick.RequestPreVote(id, t.route(id, target), args, resp)
}

// InstallSnapshot is raft's.
func (t *RaftTransport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	return t.slow.InstallSnapshot(id, t.route(id, target), args, resp, data)
}

// TimeoutNow is raft's.
func (t *RaftTransport) TimeoutNow(id raft.ServerID, target raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return t.quick.TimeoutNow(id, t.route(id, target), args, resp)
}

// EncodePeer is the address itself.
func (t *RaftTransport) EncodePeer(_ raft.ServerID, address raft.ServerAddress) []byte {
	return []byte(address)
}

// DecodePeer is the address itself.
func (t *RaftTransport) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// errNoRaft is the answer to a heartbeat that nobody took.
var errNoRaft = errors.New("peer: raft does not run here now")

// SetHeartbeatHandler is raft's. A raft that has been shut down leaves heartbeats without an answer, and NetworkTransport would wait for it for ever.
func (t *RaftTransport) SetHeartbeatHandler(handler func(raft.RPC)) {
	if handler == nil {
		t.quick.SetHeartbeatHandler(nil)
		return
	}
	t.quick.SetHeartbeatHandler(func(rpc raft.RPC) {
		answer := make(chan raft.RPCResponse, 1)
		handler(raft.RPC{Command: rpc.Command, Reader: rpc.Reader, RespChan: answer})
		select {
		case a := <-answer:
			rpc.RespChan <- a
		default:
			rpc.Respond(nil, errNoRaft)
		}
	})
}

// route adds to an address whom it belongs to: "3@host:port" is how the layer below learns it.
func (t *RaftTransport) route(id raft.ServerID, target raft.ServerAddress) raft.ServerAddress {
	node, err := strconv.ParseInt(string(id), 10, 32)
	if err != nil || node < 0 {
		return target
	}
	if d := t.hub.opts.Directory; d != nil {
		if address, known := d.AddressOf(int32(node)); known {
			target = raft.ServerAddress(address)
		}
	}
	return raft.ServerAddress(strconv.FormatInt(node, 10)+"@") + target
}

// raftLayer is the hub as NetworkTransport wants it.
type raftLayer struct {
	hub      *Hub
	accepted chan net.Conn
	closed   chan struct{}
	once     sync.Once

	mu      sync.Mutex    // guards inbound; never held across a call
	inbound map[int32]int // connections by node
}

func (l *raftLayer) serve(ctx context.Context, conn *Conn) {
	node := conn.Peer().NodeID
	if !l.enter(node) {
		return
	}
	defer l.leave(node)
	select {
	case l.accepted <- conn:
	case <-ctx.Done():
		return
	case <-l.closed:
		return
	}
	select {
	case <-ctx.Done():
	case <-l.closed:
	}
}

func (l *raftLayer) enter(node int32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.inbound[node] >= raftInbound {
		return false
	}
	l.inbound[node]++
	return true
}

func (l *raftLayer) leave(node int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.inbound[node]--; l.inbound[node] == 0 {
		delete(l.inbound, node)
	}
}

// Dial is NetworkTransport's.
func (l *raftLayer) Dial(route raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(l.hub.ctx, timeout)
	defer cancel()
	id, address, named := strings.Cut(string(route), "@")
	if !named {
		return l.hub.DialAddress(ctx, string(route), Raft)
	}
	node, err := strconv.ParseInt(id, 10, 32)
	if err != nil {
		return nil, err
	}
	return l.hub.dial(ctx, address, int32(node), Raft)
}

// Accept is NetworkTransport's.
func (l *raftLayer) Accept() (net.Conn, error) {
	select {
	case c := <-l.accepted:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close is NetworkTransport's.
func (l *raftLayer) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr is NetworkTransport's.
func (l *raftLayer) Addr() net.Addr { return advertisedAddr(l.hub.Advertise()) }

// dialOnly accepts nothing.
type dialOnly struct{ *raftLayer }

// Accept waits for the end.
func (d *dialOnly) Accept() (net.Conn, error) {
	<-d.closed
	return nil, net.ErrClosed
}

// advertisedAddr is an address that need not be an IP address.
type advertisedAddr string

// Network is TCP.
func (advertisedAddr) Network() string { return "tcp" }

func (a advertisedAddr) String() string { return string(a) }
