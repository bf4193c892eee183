package controller

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// link is the transport as raft sees it. Raft cannot close it, so that the next raft has it too, and
// what followers answer is noted: hashicorp/raft does not tell how far they are.
type link struct {
	Transport
	now func() time.Time

	mu    sync.Mutex // guards the fields below; never held across a call
	peers map[raft.ServerID]peer
	raft  context.Context // ends when the raft that uses the link is shut down
	stop  context.CancelFunc
}

// begin readies the link for another raft, end tells that it is being shut down.
func (l *link) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.raft, l.stop = context.WithCancel(context.Background())
}

func (l *link) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stop()
}

const (
	// patience is how long the link tries to reach a follower that does not answer before raft is told. Raft itself
	// pauses for up to 10 s after failures, whether or not the follower is back by then.
	patience   = 30 * time.Second
	firstReach = 20 * time.Millisecond
	lastReach  = 200 * time.Millisecond
)

// peer is what a follower said last.
type peer struct {
	answered time.Time
	last     uint64 // index of the last entry that it has
}

// AppendEntries is the transport's; heartbeats come this way too. All but heartbeats are tried again for a while.
func (l *link) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	err := l.Transport.AppendEntries(id, target, args, resp)
	if err != nil && !isHeartbeat(args) {
		err = l.insist(err, func() error {
			*resp = raft.AppendEntriesResponse{}
			return l.Transport.AppendEntries(id, target, args, resp)
		})
	}
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.peers[id] = peer{answered: l.now(), last: resp.LastLog}
	}
	return err
}

// isHeartbeat tells a heartbeat from entries, as raft's transport does.
func isHeartbeat(args *raft.AppendEntriesRequest) bool {
	return args.PrevLogEntry == 0 && args.PrevLogTerm == 0 && len(args.Entries) == 0 && args.LeaderCommitIndex == 0
}

// insist tries again until try succeeds, patience is over, or the raft is shut down.
func (l *link) insist(err error, try func() error) error {
	l.mu.Lock()
	ctx := l.raft
	l.mu.Unlock()
	begun := l.now()
	for pause := firstReach; l.now().Sub(begun) < patience; pause = min(2*pause, lastReach) {
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
		if err = try(); err == nil {
			return nil
		}
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
