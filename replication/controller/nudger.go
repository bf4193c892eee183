package controller

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// nudger tells followers at once what has been committed. Raft tells them with the next entry, or after its CommitTimeout: until
// then their images would be behind, by tens of milliseconds that a producer to a new topic would see.
//
// What it sends is an AppendEntries without entries, as raft sends it after its CommitTimeout. It is right whenever it arrives: it names
// an entry of the leader's own term, and a follower that has that entry has all before it.
type nudger struct {
	in   *instance
	what atomic.Pointer[committed]

	mu     sync.Mutex // guards the fields below; never held across a call
	peers  map[raft.ServerID]chan struct{}
	closed bool
	stop   chan struct{}
	wg     sync.WaitGroup
}

type committed struct{ index, term uint64 }

func newNudger(in *instance) *nudger {
	return &nudger{in: in, peers: map[raft.ServerID]chan struct{}{}, stop: make(chan struct{})}
}

// applied is called after an entry was applied here, on the state machine's goroutine.
func (c *Controller) applied(l *raft.Log) {
	in := c.current.Load()
	if in == nil {
		return
	}
	if c.fsm.bytes.Load() >= c.settings.SnapshotBytes {
		c.kick()
	}
	// A raft that is leading while its term does not move leads that term.
	if in.raft.CurrentTerm() != l.Term || in.raft.State() != raft.Leader || in.raft.CurrentTerm() != l.Term {
		return
	}
	in.nudger.nudge(committed{l.Index, l.Term})
}

// nudge wakes a goroutine for each follower.
func (n *nudger) nudge(what committed) {
	n.what.Store(&what)
	servers := n.in.raft.GetConfiguration().Configuration().Servers
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	for _, s := range servers {
		if s.ID == n.in.c.roles.self {
			continue
		}
		wake := n.peers[s.ID]
		if wake == nil {
			wake = make(chan struct{}, 1)
			n.peers[s.ID] = wake
			n.wg.Add(1)
			go n.follow(s.ID, wake)
		}
		select {
		case wake <- struct{}{}:
		default: // it will find what is latest
		}
	}
}

// The pauses before a follower is told again that did not have the entry yet: it may be on its way beside what tells of it.
const (
	firstNudge = 2 * time.Millisecond
	lastNudge  = commitTimeout / 4
)

// follow tells one follower. It ends when the nudger is closed.
func (n *nudger) follow(id raft.ServerID, wake <-chan struct{}) {
	defer n.wg.Done()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	told, pause := committed{}, firstNudge
	for {
		select {
		case <-n.stop:
			return
		case <-wake:
			pause = firstNudge
		case <-timer.C:
		}
		what := *n.what.Load()
		if what == told || n.tell(id, what) || pause > lastNudge {
			told = what // or raft tells it
			continue
		}
		timer.Reset(pause)
		pause *= 2
	}
}

// tell is false when the follower does not have the entry yet.
func (n *nudger) tell(id raft.ServerID, what committed) bool {
	c, address := n.in.c, n.addressOf(id)
	if address == "" {
		return true
	}
	self := c.link.EncodePeer(c.roles.self, c.link.LocalAddr())
	args := &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(c.roles.self), Addr: self},
		Term:      what.term, PrevLogEntry: what.index, PrevLogTerm: what.term, LeaderCommitIndex: what.index,
	}
	var resp raft.AppendEntriesResponse
	err := c.link.AppendEntries(id, address, args, &resp)
	return err != nil || resp.Success || resp.Term > what.term // one that is gone hears of it from raft
}

func (n *nudger) addressOf(id raft.ServerID) raft.ServerAddress {
	for _, s := range n.in.raft.GetConfiguration().Configuration().Servers {
		if s.ID == id {
			return s.Address
		}
	}
	return ""
}

// close ends the goroutines and waits for them, as long as a call of the transport may take.
func (n *nudger) close() {
	n.mu.Lock()
	if !n.closed {
		n.closed = true
		close(n.stop)
	}
	n.mu.Unlock()
	n.wg.Wait()
}
