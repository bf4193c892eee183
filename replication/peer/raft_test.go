package peer

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func member(t *testing.T, node int32, b *book) (*Hub, *RaftTransport) {
	t.Helper()
	h := listen(t, node, b)
	tr := h.RaftTransport(RaftTimeouts{})
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
	_, one := member(t, 1, b)
	two, tr := member(t, 2, b)
	dead := false
	tr.SetHeartbeatHandler(func(rpc raft.RPC) {
		if !dead {
			rpc.Respond(&raft.AppendEntriesResponse{Success: true, LastLog: 5}, nil)
		}
	})
	target := raft.ServerAddress(two.Advertise())
	release, slow := make(chan struct{}), make(chan error, 1)
	go func() {
		rpc := <-tr.Consumer()
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
	for range 20 {
		args, resp := header(3)
		begun := time.Now()
		if err := one.AppendEntries("2", target, args, resp); err != nil || resp.LastLog != 5 {
			t.Errorf("after %v: %v %+v", time.Since(begun), err, resp)
		}
		time.Sleep(10 * time.Millisecond) // the slow one takes longer than a heartbeat may
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
	_, one := member(t, 1, b)
	_, tr := member(t, 2, b)
	three, _ := member(t, 3, b)
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
	_, one := member(t, 1, b)
	two, _ := member(t, 2, b)
	for range raftInbound + 10 {
		go func() {
			var resp raft.RequestVoteResponse
			_ = one.RequestVote("2", raft.ServerAddress(two.Advertise()), &raft.RequestVoteRequest{Term: 7}, &resp)
		}()
	}
	until(t, "they wait", func() bool { return open(two) == raftInbound })
	time.Sleep(300 * time.Millisecond) // they have been given up at the other side
	if n := open(two); n > raftInbound {
		t.Errorf("%d connections", n)
	}
}
