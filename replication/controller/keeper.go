package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/replication/raftlog"
)

// The pauses before a raft is begun again: none at first, then longer each time while it does not last.
const (
	firstPause = 250 * time.Millisecond
	lastPause  = 30 * time.Second
	lasts      = time.Minute
)

// keep is the keeper: it has one raft at a time, replaces one whose disk has failed, and has the members changed. It ends when Close is called.
func (c *Controller) keep(in *instance) {
	defer close(c.done)
	pause := time.Duration(0)
	for {
		begun := c.opts.Now()
		c.attend(in)
		if c.closing.Load() {
			c.leave(in)
			return
		}
		if c.opts.Now().Sub(begun) >= lasts {
			pause = 0
		}
		if !c.retire(in) {
			<-c.stop
			return
		}
		for {
			if !c.sleep(pause) {
				return
			}
			pause = min(max(firstPause, 2*pause), lastPause)
			var err error
			if in, err = c.start(); err == nil {
				break
			}
			c.report(err)
			if errors.Is(err, catalog.ErrFailed) || !passes(err) {
				c.giveUp(err)
				<-c.stop
				return
			}
		}
		c.log.Info("the metadata's disk answers again: this node takes part")
	}
}

// sleep waits, and is false when the controller is closed.
func (c *Controller) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.stop:
		return false
	}
}

// attend looks after a raft until it has ended or the controller is closed.
func (c *Controller) attend(in *instance) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-c.stop:
			return
		case <-in.ended:
			return
		case <-c.kicked:
		case <-timer.C:
		}
		if next := c.tend(in); next > 0 {
			timer.Reset(next)
		}
		in.snapshot()
	}
}

// retire shuts a raft down whose disk has failed, and waits for the disk. It is false when there is to be no other.
func (c *Controller) retire(in *instance) bool {
	c.report(in.reason)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // ends with this call
		select {
		case <-ctx.Done():
			return
		case <-c.stop:
		}
		timer := time.NewTimer(c.settings.DiskBound)
		defer timer.Stop()
		select {
		case <-ctx.Done():
		case <-timer.C: // Close does not wait longer for a disk
			cancel()
		}
	}()
	late := in.shutdown(ctx)
	if c.closing.Load() {
		if late == nil || !errors.Is(late, raftlog.ErrStalled) {
			c.current.Store(nil)
		}
		return false
	}
	c.current.Store(nil)
	if c.fsm.stuck.Load() != nil || !passes(in.reason) || !passes(late) {
		c.giveUp(errors.Join(in.reason, late))
		return false
	}
	return true
}

// passes tells whether what has ended a raft may go by itself.
func passes(err error) bool {
	return err == nil || errors.Is(err, raftlog.ErrStalled) || errors.Is(err, raftlog.ErrNoSpace) || errors.Is(err, errRestart) ||
		errors.Is(err, raftlog.ErrReplaced)
}

// errRestart ends a raft that is to be begun again.
var errRestart = errors.New("controller: raft has to begin again")

// report notes why this node takes no part at the moment.
func (c *Controller) report(reason error) {
	err := fmt.Errorf("%w: %w", catalog.ErrStalled, reason)
	c.trouble.Store(&err)
	c.log.Error("this node takes no part in the cluster's metadata until its disk answers", "error", reason)
}

// giveUp notes that it takes none until it is started again.
func (c *Controller) giveUp(reason error) {
	err := fmt.Errorf("%w: %w", catalog.ErrFailed, reason)
	c.trouble.Store(&err)
	c.roles.changed()
	c.log.Error("this node takes no part in the cluster's metadata until it is started again", "error", reason)
}

// leave ends a raft when the controller is closed.
func (c *Controller) leave(in *instance) {
	if in.raft.State() == raft.Leader && in.voters() > 1 {
		if err := in.transfer(); err != nil {
			c.log.Info("leadership could not be handed over", "error", err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.settings.DiskBound)
	defer cancel()
	if err := in.shutdown(ctx); err != nil {
		c.log.Warn("the metadata's disk has not come back", "error", err)
		return
	}
	c.current.Store(nil)
}

// transfer hands leadership to another voter.
func (in *instance) transfer() error {
	result := make(chan error, 1)
	if !in.help(func() { result <- in.raft.LeadershipTransfer().Error() }) {
		return catalog.ErrClosed
	}
	timer := time.NewTimer(3 * in.c.settings.ElectionTimeout) // raft itself gives up after two
	defer timer.Stop()
	select {
	case err := <-result:
		return err
	case <-timer.C:
		return errors.New("controller: the transfer of leadership has not come to an end")
	}
}

// Transfer hands leadership to another voter, for instance before this node is stopped. Afterwards, or when the context ends, this node may still lead.
// A transfer that hangs in raft, which then takes no proposals (hashicorp/raft #696), has raft begun again.
func (c *Controller) Transfer(ctx context.Context) error {
	in := c.current.Load()
	if in == nil || !c.leads() {
		return ErrNotLeader
	}
	err := in.transfer()
	if err == nil || !c.leads() {
		return err
	}
	c.roles.changed()
	ctx, cancel := context.WithTimeout(ctx, resendAfter)
	defer cancel()
	if c.Sync(ctx) != nil && c.leads() {
		in.end(errRestart)
	}
	return err
}

// snapshot has raft make one when enough bytes have been applied since the last.
func (in *instance) snapshot() {
	f := in.c.fsm
	if f.bytes.Load() < in.c.settings.SnapshotBytes || f.stuck.Load() != nil {
		return
	}
	f.bytes.Store(0)
	in.help(func() { in.raft.Snapshot() }) // waits for a snapshot under way, and ends with the raft
}
