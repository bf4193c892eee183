package peer

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// ample is for tests in which nothing is to take long, but a machine may.
var ample = RaftTimeouts{Quick: 5 * time.Second, Slow: 20 * time.Second}

func member(t *testing.T, node int32, b *book, timeouts RaftTimeouts) (*Hub, *RaftTransport) {
	t.Helper()
	h := listen(t, node, b)
	tr := h.RaftTransport(timeouts)
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	return h, tr
}

func header(term uint64) (*raft.AppendEntriesRequest, *raft.AppendEntriesResponse) {
	return &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte("1"), Addr: []byte("a:1")}, Term: term}, &raft.AppendEntriesResponse{}
}

// TestHeartbeats: they do not wait for entries that are being served, nor for ever when raft has been shut down.
func TestHeartbeats(t *testing.T) {
	b := newBook()
	_, one := member(t, 1, b, ample)
	two, tr := member(t, 2, b, ample)
	dead := false
	tr.SetHeartbeatHandler(func(rpc raft.RPC) {
		if !dead {
			rpc.Respond(&raft.AppendEntriesResponse{Success: true, LastLog: 5}, nil)
		}
	})
	target := raft.ServerAddress(two.Advertise())
	taken, release, slow := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		rpc := <-tr.Consumer()
		close(taken)
		<-release
		a := rpc.Command.(*raft.AppendEntriesRequest)
		rpc.Respond(&raft.AppendEntriesResponse{Success: len(a.Entries[0].Data) == 4<<20}, nil)
	}()
	go func() {
		args, resp := header(3)
		args.Entries = []*raft.Log{{Index: 1, Term: 3, Data: bytes.Repeat([]byte("x"), 4<<20)}}
		err := one.AppendEntries("2", target, args, resp)
		if err == nil && !resp.Success {
			err = errors.New("not what was sent")
		}
		slow <- err
	}()
	<-taken
	for range 20 {
		args, resp := header(3)
		if err := one.AppendEntries("2", target, args, resp); err != nil || resp.LastLog != 5 {
			t.Errorf("%v %+v", err, resp)
		}
	}
	close(release)
	if err := <-slow; err != nil {
		t.Error(err)
	}
	dead = true
	args, resp := header(3)
	if err := one.AppendEntries("2", target, args, resp); err == nil || err.Error() != errNoRaft.Error() {
		t.Error(err)
	}
}

// TestRaftRoute: the directory's address is dialled rather than raft's, and the node there must be the one that is meant.
func TestRaftRoute(t *testing.T) {
	b := newBook()
	_, one := member(t, 1, b, ample)
	_, tr := member(t, 2, b, ample)
	three, _ := member(t, 3, b, ample)
	go func() {
		for rpc := range tr.Consumer() {
			rpc.Respond(&raft.RequestVoteResponse{Term: 7, Granted: true}, nil)
			return
		}
	}()
	var resp raft.RequestVoteResponse
	if err := one.RequestVote("2", "127.0.0.1:1", &raft.RequestVoteRequest{Term: 7}, &resp); err != nil || !resp.Granted {
		t.Error(err, resp)
	}
	b.set(2, three.Advertise())
	var refused *RefusedError
	err := one.RequestVote("2", "127.0.0.1:1", &raft.RequestVoteRequest{Term: 7}, &resp)
	if !errors.As(err, &refused) || refused.Reason != ReasonTarget {
		t.Error(err)
	}
}

// TestRaftStandstill: while nobody takes raft's calls, a bounded number of connections waits.
func TestRaftStandstill(t *testing.T) {
	b := newBook()
	_, one := member(t, 1, b, ample)
	two, _ := member(t, 2, b, ample)
	for range raftInbound + 10 {
		go func() {
			var resp raft.RequestVoteResponse
			_ = one.RequestVote("2", raft.ServerAddress(two.Advertise()), &raft.RequestVoteRequest{Term: 7}, &resp)
		}()
	}
	until(t, "they wait", func() bool { return open(two) == raftInbound })
	for range 5 {
		c, err := one.hub.DialAddress(t.Context(), two.Advertise(), Raft)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Error("one more is kept:", err)
		}
		_ = c.Close()
	}
}

// TestSlowCalls: entries are not bound by what heartbeats are.
func TestSlowCalls(t *testing.T) {
	b := newBook()
	_, one := member(t, 1, b, RaftTimeouts{Quick: time.Millisecond, Slow: 20 * time.Second})
	two, tr := member(t, 2, b, ample)
	go func() {
		rpc := <-tr.Consumer()
		time.Sleep(20 * time.Millisecond)
		rpc.Respond(&raft.AppendEntriesResponse{LastLog: 9}, nil)
	}()
	args, resp := header(3)
	args.PrevLogEntry, args.PrevLogTerm = 8, 3
	if err := one.AppendEntries("2", raft.ServerAddress(two.Advertise()), args, resp); err != nil || resp.LastLog != 9 {
		t.Error(err, resp)
	}
	var vote raft.RequestVoteResponse
	begun := time.Now()
	if err := one.RequestVote("2", raft.ServerAddress(two.Advertise()), &raft.RequestVoteRequest{Term: 7}, &vote); err == nil {
		t.Error("a vote that nobody takes")
	}
	if d := time.Since(begun); d > 5*time.Second {
		t.Errorf("it took %v", d)
	}
}
