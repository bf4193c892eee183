package controller

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// link is the transport as raft sees it. Raft cannot close it, so that the next raft has it too, and
// what followers answer is noted: hashicorp/raft does not tell how far they are.
type link struct {
	Transport
	now func() time.Time

	mu    sync.Mutex // guards peers; never held across a call
	peers map[raft.ServerID]peer
}

// peer is what a follower said last.
type peer struct {
	answered time.Time
	last     uint64 // index of the last entry that it has
}

// AppendEntries is the transport's; heartbeats come this way too.
func (l *link) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	err := l.Transport.AppendEntries(id, target, args, resp)
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.peers[id] = peer{answered: l.now(), last: resp.LastLog}
	}
	return err
}

// peer returns what a follower said last.
func (l *link) peer(id raft.ServerID) (peer, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, known := l.peers[id]
	return p, known
}

// forget is called when this node begins to lead: what was heard before is of another time.
func (l *link) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.peers)
}
