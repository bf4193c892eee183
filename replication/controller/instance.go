package controller

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/replication/raftlog"
)

const (
	// maxAppend is how many entries raft writes, sends and applies together at most, and how many
	// proposals may wait in its queue.
	maxAppend = 256
	// trailing entries stay in the log after a snapshot: followers that are a little behind need no snapshot, and the
	// older of the two snapshots that are kept is still of use should the newer be damaged.
	trailing = 2
	// commitTimeout is how often raft tells followers what is committed when there is nothing to send.
	// They hear of it sooner: see nudger.
	commitTimeout = 200 * time.Millisecond
	// snapshotInterval is how often raft looks whether there are enough entries for a snapshot.
	snapshotInterval = 2 * time.Minute
)

// instance is one raft, from its start until it is shut down.
type instance struct {
	c       *Controller
	raft    *raft.Raft
	bounded *raftlog.Bounded
	nudger  *nudger

	ended  chan struct{} // closed when it has to be shut down
	once   sync.Once
	reason error        // set before ended is closed
	since  atomic.Int64 // when it began to lead, Unix ns; 0: it does not

	helpers sync.WaitGroup
	mu      sync.Mutex // guards closed
	closed  bool       // no more helpers
}

// end has the keeper shut the instance down. It does not block.
func (in *instance) end(reason error) {
	in.once.Do(func() {
		in.reason = reason
		close(in.ended)
	})
}

// help runs f on a goroutine that shutdown waits for. It is false when there is to be none any more.
func (in *instance) help(f func()) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.closed {
		in.helpers.Go(f)
	}
	return !in.closed
}

func (c *Controller) config() *raft.Config {
	s, conf := &c.settings, raft.DefaultConfig()
	conf.LocalID = c.roles.self
	conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = s.HeartbeatTimeout, s.ElectionTimeout, s.LeaderLease
	conf.CommitTimeout = commitTimeout
	conf.MaxAppendEntries, conf.BatchApplyCh = maxAppend, true
	conf.ShutdownOnRemove = false
	conf.SnapshotThreshold, conf.SnapshotInterval, conf.TrailingLogs = s.SnapshotEntries, snapshotInterval, trailing*s.SnapshotEntries
	conf.NoLegacyTelemetry = true
	conf.Logger = newLogger(c.log, c.opts.Now)
	return conf
}

// start begins a raft on what is stored. The state machine that it finds may be ahead of the latest snapshot, or behind it.
func (c *Controller) start() (*instance, error) {
	in := &instance{c: c, ended: make(chan struct{})}
	in.bounded = raftlog.Bound(c.opts.Log, c.opts.Snapshots, c.settings.DiskBound, in.end)
	conf := c.config()
	var err error
	started := make(chan struct{})
	c.link.begin()
	go func() { // the bounded log may end the goroutine instead of letting raft panic
		defer close(started)
		if err = in.align(); err == nil {
			in.raft, err = raft.NewRaft(conf, c.fsm, in.bounded, in.bounded, in.bounded.Snapshots(), c.link)
		}
	}()
	<-started
	if err == nil && in.raft == nil {
		err = in.bounded.Err()
	}
	if err != nil {
		ctx, cancel := context.WithTimeout(context.Background(), c.settings.DiskBound)
		defer cancel()
		return nil, errors.Join(err, in.bounded.Release(ctx))
	}
	in.nudger = newNudger(in)
	in.raft.RegisterObserver(raft.NewObserver(nil, false, in.observe))
	c.trouble.Store(nil)
	c.current.Store(in)
	in.lookAtLeader()
	return in, nil
}

// align makes log and snapshots meet. A crash can come between a snapshot that was got from the leader and the removal of the log
// before it; and what is missing between the two is found here, where raft would panic.
func (in *instance) align() error {
	metas, err := in.bounded.Snapshots().List()
	if err != nil {
		return err
	}
	first, err := in.bounded.FirstIndex()
	if err != nil {
		return err
	}
	last, err := in.bounded.LastIndex()
	if err != nil || last == 0 {
		return err
	}
	if len(metas) > 0 && last < metas[0].Index {
		return in.bounded.DeleteRange(first, last)
	}
	reach := uint64(0) // of the latest snapshot that can be read
	for _, m := range metas {
		_, r, err := in.bounded.Snapshots().Open(m.ID)
		if err == nil {
			if err := r.Close(); err != nil {
				return err
			}
			reach = m.Index
			break
		}
		if !errors.Is(err, raftlog.ErrCorrupt) {
			return err
		}
		in.c.log.Error("a snapshot of the metadata is damaged", "snapshot", m.ID, "error", err)
	}
	if first > reach+1 {
		return &raftlog.CorruptError{What: fmt.Sprintf("entry %d", reach+1),
			Err: fmt.Errorf("the log begins with %d, and the latest snapshot that can be read ends with %d", first, reach)}
	}
	return nil
}

// observe hears what raft does, on raft's goroutines, and keeps nothing.
func (in *instance) observe(o *raft.Observation) bool {
	switch o.Data.(type) {
	case raft.LeaderObservation:
		in.lookAtLeader()
	case raft.FailedHeartbeatObservation, raft.ResumedHeartbeatObservation, raft.PeerObservation:
		in.c.kick()
	}
	return false
}

// lookAtLeader notes who leads.
func (in *instance) lookAtLeader() {
	c := in.c
	if c.current.Load() != in {
		return
	}
	before, leader := c.roles.look(func() raft.ServerID {
		_, leader := in.raft.LeaderWithID() // takes a lock of raft's for a moment, under which nothing is called
		return leader
	})
	if leader == before {
		return
	}
	switch {
	case leader == c.roles.self:
		in.since.Store(c.opts.Now().UnixNano())
		c.link.forget()
		c.log.Info("this node leads the cluster's metadata", "term", in.raft.CurrentTerm())
	case before == c.roles.self:
		in.since.Store(0)
		c.log.Info("this node no longer leads the cluster's metadata", "term", in.raft.CurrentTerm())
	case leader != "":
		c.log.Info("another node leads the cluster's metadata", "leader", string(leader), "term", in.raft.CurrentTerm())
	}
	c.kick()
}

// shutdown ends the raft, and waits until its disk has come back or the context ends.
func (in *instance) shutdown(ctx context.Context) error {
	c := in.c
	in.end(catalog.ErrClosed)
	c.link.end()
	in.nudger.close()
	err := in.raft.Shutdown().Error()
	in.mu.Lock()
	in.closed = true
	in.mu.Unlock()
	in.helpers.Wait()
	in.since.Store(0)
	c.roles.look(func() raft.ServerID { return "" })
	return errors.Join(err, in.bounded.Release(ctx))
}
