package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/batch"
)

const (
	// copyBytes is how much is copied at a time.
	copyBytes = 1 << 20
	// nearlyThere is how far the copy may be behind when the log is held for the rest.
	nearlyThere = 4 << 20
)

// errOvertaken says that all of what the copy had, and more, was deleted meanwhile.
var errOvertaken = errors.New("engine: records were deleted faster than they were copied")

// errTruncated says that the log was cut while it was copied: the copy may have what the log has no more, and does not look like it.
var errTruncated = errors.New("engine: the log was truncated while it was copied")

// attempt moves p to another directory. When it fails, p goes on where it is, and nothing
// is left of the copy.
func (m *mover) attempt(ctx context.Context, p *Partition, to catalog.DirID) error {
	at, d := p.at.Load(), m.e.usable(to)
	switch {
	case d == nil:
		return ErrDirOffline
	case d == at.dir:
		return nil
	}
	if err := errors.Join(d.err(), m.e.catalog.Err()); err != nil {
		return err
	}
	m.e.log.Info("moving a partition to another log directory", "partition", p.name, "from", at.dir.path, "to", d.path, "bytes", at.log.SizeBytes())
	truncations := at.log.Truncations() // before anything is read
	f, err := m.begin(ctx, p, at, d)
	if err != nil {
		return fmt.Errorf("begin a copy: %w", err)
	}
	p.future.Store(f)
	c := &copier{from: at.log, to: f.log, truncations: truncations, stalled: d.dir.StallContext}
	if err = m.catchUp(ctx, p, c); err == nil {
		err = m.finish(ctx, p, at, f, c)
	}
	if p.at.Load() != f {
		if m.ctx.Err() == nil { // otherwise the next start removes the copy
			p.future.Store(nil)
			m.remove(p, f)
		}
		return err
	}
	m.remove(p, at)
	return nil
}

// begin makes an empty copy that begins where the log of p does.
func (m *mover) begin(ctx context.Context, p *Partition, at *place, d *logDir) (*place, error) {
	start := at.log.LogStartOffset()
	next := start
	if b, err := at.log.Read(nil, start, at.log.LogEndOffset(), 1, true); err != nil {
		return nil, err
	} else if len(b) > 0 {
		h, err := batch.ReadHeader(b)
		if err != nil {
			return nil, err
		}
		next = min(start, h.BaseOffset)
	}
	l, err := d.dir.Begin(ctx, at.log.ID(), logConfig(p.topic, p.config.Load(), m.e.Config()), start, next)
	if err != nil {
		return nil, err
	}
	return &place{d, l}, nil
}

// remove removes the files of a copy that is not needed, or of what was copied.
func (m *mover) remove(p *Partition, left *place) {
	ctx, cancel := context.WithTimeout(m.ctx, removePatience)
	defer cancel()
	if err := left.log.Discard(ctx); err != nil && m.ctx.Err() == nil {
		m.e.log.Warn("the files that a move has left cannot be removed: the next start removes them", "partition", p.name, "dir", left.dir.path, "error", err)
	}
}

// catchUp copies until the copy is nearly as long as the log.
func (m *mover) catchUp(ctx context.Context, p *Partition, c *copier) error {
	for c.left() > nearlyThere {
		if p.Gone() {
			return ErrUnknownPartition
		}
		begun := m.e.options.Now()
		if err := c.some(ctx); err != nil {
			return err
		}
		if err := m.pace(ctx, len(c.buf), begun); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// pace waits until n bytes that were begun at a time have taken as long as they have to, by
// replica.alter.log.dirs.io.max.bytes.per.second, at which it looks again every second.
func (m *mover) pace(ctx context.Context, n int, begun time.Time) error {
	for {
		rate := m.e.Config().MoveBytesPerSecond()
		if rate == math.MaxInt64 {
			return nil
		}
		m.mu.Lock()
		share := float64(rate) / float64(m.workers)
		m.mu.Unlock()
		left := float64(n)/share - m.e.options.Now().Sub(begun).Seconds() // without end for a rate of 0
		if left <= 0 {
			return nil
		}
		timer := time.NewTimer(time.Duration(min(left, 1) * float64(time.Second)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

// finish copies the rest while the log is held, and has the catalogue say that p lies in f.
func (m *mover) finish(ctx context.Context, p *Partition, at, f *place, c *copier) error {
	held, begun := make(chan struct{}), m.e.options.Now()
	p.held.Store(&held)
	letGo := func() {
		if p.at.Load() == at {
			at.log.Unhold()
		}
		p.held.Store(nil)
		close(held)
	}
	if err := m.hold(ctx, at, f, c); err != nil {
		letGo()
		return err
	}
	known, err := m.propose(p, f)
	if !known {
		return err // it is held until the end: nobody knows where the catalogue will say that it lies
	}
	letGo()
	if p.at.Load() == f {
		m.e.log.Info("moved a partition to another log directory", "partition", p.name, "from", at.dir.path, "to", f.dir.path,
			"bytes", f.log.SizeBytes(), "heldMillis", m.e.options.Now().Sub(begun).Milliseconds())
	}
	return err
}

func (m *mover) hold(ctx context.Context, at, f *place, c *copier) error {
	ctx, cancel := context.WithTimeout(ctx, m.patience)
	defer cancel()
	if err := at.log.Hold(ctx); err != nil {
		return err
	}
	if c.from.Truncations() != c.truncations {
		return errTruncated
	}
	for f.log.LogEndOffset() < at.log.LogEndOffset() {
		if err := c.some(ctx); err != nil {
			return err
		}
	}
	if err := f.log.FinishCopy(ctx, at.log); err != nil {
		return err
	}
	return ctx.Err()
}

// propose has the catalogue say that p lies in f; when it does, p lies there. While it does
// not answer, propose asks again; known is false when the node is closed, or the
// catalogue has failed, before that.
func (m *mover) propose(p *Partition, f *place) (known bool, err error) {
	replicas := []catalog.ReplicaDir{{Topic: p.topicID, Partition: p.index, Broker: m.e.NodeID(), Dir: f.dir.meta.DirID, Expect: f.dir.meta.DirID}}
	for first := true; ; first = false {
		ctx, cancel := context.WithTimeout(m.ctx, m.proposal)
		err := m.e.proposeMoves(ctx, replicas)[0]
		cancel()
		switch {
		case p.at.Load() == f:
			return true, nil // by this proposal, or by one that had not been answered
		case m.ctx.Err() != nil:
			return false, err
		case err == nil, errors.Is(err, catalog.ErrConflict), errors.Is(err, catalog.ErrUnknownTopic), errors.Is(err, catalog.ErrInvalid),
			errors.Is(err, catalog.ErrTooLarge), errors.Is(err, catalog.ErrNoSpace), errors.Is(err, catalog.ErrClosed):
			return true, err // nothing was written; those before it have been answered by now
		case errors.Is(err, catalog.ErrFailed):
			m.e.log.Error("a partition was about to be moved when the catalogue failed: it takes no appends until a restart has found out where it lies",
				"partition", p.name, "to", f.dir.path, "error", err)
			<-m.ctx.Done()
			return false, err
		case first:
			m.e.log.Warn("a partition is about to be moved, and the catalogue does not answer: it takes no appends until that does", "partition", p.name, "to", f.dir.path, "error", err)
		}
		select {
		case <-time.After(firstMoveBackoff):
		case <-m.ctx.Done():
		}
	}
}

// copier copies one log into another.
type copier struct {
	from, to    *segment.Log
	truncations int64                  // of from when the copy was begun
	stalled     func() context.Context // ends while the disk of to does not answer
	buf         []byte
}

// left is about how many bytes the copy is behind.
func (c *copier) left() int64 {
	if next := c.to.LogEndOffset(); next < c.from.LogEndOffset() {
		return c.from.BytesFromAtMost(next, 2*nearlyThere)
	}
	return 0
}

// some copies the next batches, about a MiB of them, and returns when they are on the disk.
// It does nothing when there are none.
func (c *copier) some(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	start, next, end := c.from.LogStartOffset(), c.to.LogEndOffset(), c.from.LogEndOffset()
	switch {
	case next >= end:
		return nil
	case start >= end:
		return errOvertaken
	}
	b, err := c.from.Read(c.buf[:0], max(start, next), end, copyBytes, true)
	switch {
	case (errors.Is(err, segment.ErrOffsetOutOfRange) || err == nil && len(b) == 0) && c.from.LogStartOffset() > start:
		return nil // deleted meanwhile
	case err != nil:
		return err
	case len(b) == 0:
		return fmt.Errorf("%w: nothing at offset %d of a log that ends at %d", segment.ErrCorrupt, max(start, next), end)
	}
	c.buf = b
	done := make(chan segment.Result, 1)
	if err := c.to.Append(ctx, &segment.Append{Batches: b, Keep: true, Done: func(r segment.Result) { done <- r }}); err != nil {
		return err
	}
	stalled := c.stalled()
	select {
	case r := <-done:
		return r.Err
	case <-stalled.Done():
		return fmt.Errorf("%w: %w", segment.ErrStalled, context.Cause(stalled))
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
