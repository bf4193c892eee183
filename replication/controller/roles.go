package controller

import (
	"context"
	"sync"

	"github.com/hashicorp/raft"
)

// roles knows who leads. It is told by raft's observations, on raft's goroutines, so nothing here
// blocks; there is no NotifyCh, to which raft would block writing.
type roles struct {
	self raft.ServerID

	mu     sync.Mutex // guards the fields below
	leader raft.ServerID
	gen    context.Context // ends when anything may have changed
	end    context.CancelFunc
}

func (r *roles) init(self raft.ServerID) {
	r.self = self
	r.gen, r.end = context.WithCancel(context.Background())
}

// now returns the leader, "" for none, and a context that ends with the next change. A change that comes
// after this call ends it, also one that leads back to the same leader.
func (r *roles) now() (raft.ServerID, context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.leader, r.gen
}

// look notes who leads now, as ask tells: it is called with the lock held, so that of two who look at the same time the later one's
// answer stays.
func (r *roles) look(ask func() raft.ServerID) (before, leader raft.ServerID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before, r.leader = r.leader, ask()
	r.end()
	r.gen, r.end = context.WithCancel(context.Background())
	return before, r.leader
}

// changed lets everybody who waits look again.
func (r *roles) changed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.end()
	r.gen, r.end = context.WithCancel(context.Background())
}
