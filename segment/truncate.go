package segment

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sort"
	"sync/atomic"
)

// Truncate removes every batch that ends behind offset, durably: afterwards the log ends at offset, or before it where a
// batch that holds offset, or a gap, begins. Leader epochs and producers are then as if what is gone had never been appended. Nothing happens when
// the log ends at or before offset. What lies before the log start offset is gone already: an offset there is as in
// Reset, and so is one within the batch that holds the log start offset, to where that batch begins.
//
// Appends that were queued before are done first; those that come meanwhile wait, and follow the new end. OnAdvance
// is not called. Readers that are at work get what stays, or ErrOffsetOutOfRange.
//
// It waits for the disk, at most until ctx ends or the directory is stalled (ErrStalled). After such an error, or ErrClosed,
// the log may be cut or not, or be cut later, but never what is appended after the return. ErrHeld while the log is held, or another call is
// under way; ErrStaleEpoch when the leader that has it cut was succeeded (see FenceBelow). Other errors say that nothing was done, but for an ErrFenced: the next open finds out whether
// the log is to be cut, and does it.
func (l *Log) Truncate(ctx context.Context, leaderEpoch int32, offset int64) error {
	return l.shorten(ctx, leaderEpoch, offset, func() (*cut, error) { return l.planCut(offset) })
}

// Reset drops all that the log holds, leader epochs and producers included, and has it begin anew, empty, at offset, which may lie
// before or behind all that it had. It is durable when it returns. Otherwise as Truncate.
func (l *Log) Reset(ctx context.Context, leaderEpoch int32, offset int64) error {
	return l.shorten(ctx, leaderEpoch, offset, func() (*cut, error) {
		if len(*l.segments.Load()) == 0 && l.LogStartOffset() == offset && l.LogEndOffset() == offset {
			return nil, nil
		}
		return &cut{base: offset, end: offset, whole: true}, nil
	})
}

// shorten has the janitor carry out what plan gives, with appends kept waiting. nil is nothing.
func (l *Log) shorten(ctx context.Context, leaderEpoch int32, offset int64, plan func() (*cut, error)) error {
	d := l.dir
	if offset < 0 {
		return fmt.Errorf("%w: %d", ErrOffsetOutOfRange, offset)
	}
	ctx, end := d.unlessStalled(ctx)
	defer end()
	if err := d.Err(); err != nil {
		return err // the janitor's queue must not grow meanwhile
	}
	if err := l.pause(leaderEpoch); err != nil {
		return err
	}
	var taken atomic.Bool // by the janitor, or by us who wait no longer
	done := make(chan error, 1)
	d.toJanitor(func() {
		if taken.CompareAndSwap(false, true) {
			err := l.shortenNow(plan)
			if l.outdated { // the committer, which may have a round to go, would put them where the log ended before
				d.committer.refuse(l, l.refuse(ErrClosed), ErrClosed)
			}
			l.goOn()
			done <- err
		}
	})
	var err error
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-d.stop:
		err = ErrClosed
	}
	if taken.CompareAndSwap(false, true) {
		l.goOn()
	}
	return err
}

// pause has appends that come from now on wait, until goOn. A leader who was succeeded has nothing to cut any more; once it
// is paused, what the next one appends comes behind.
func (l *Log) pause(leaderEpoch int32) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.refusal(); err != nil {
		return err
	}
	if l.paused {
		return fmt.Errorf("%w: it is being truncated", ErrHeld)
	}
	if leaderEpoch < l.fence {
		return fmt.Errorf("%w: %d, the current one is %d", ErrStaleEpoch, leaderEpoch, l.fence)
	}
	l.paused = true
	return nil
}

func (l *Log) goOn() {
	l.mu.Lock()
	idle := len(l.pending) == 0
	l.paused, l.pending, l.later = false, append(l.pending, l.later...), nil
	schedule := idle && len(l.pending) > 0
	l.mu.Unlock()
	if schedule {
		l.dir.schedule(l)
	}
}

// shortenNow runs on the janitor, as all do that remove files, write checkpoints and move the log start offset. While the log is
// paused and not dirty, the committer has nothing to do with it.
func (l *Log) shortenNow(plan func() (*cut, error)) error {
	d := l.dir
	if err := l.drain(); err != nil {
		return err
	}
	c, err := plan()
	if err != nil || c == nil {
		return err
	}
	if err := l.nameFolder(); err != nil {
		return d.failed("truncate", l.path, err)
	}
	at, err := l.settle(c)
	if err != nil {
		return err
	}
	kept, short, err := l.staying(c)
	if err != nil {
		return err
	}
	if err := l.note(c, at); err != nil {
		return err
	}
	gone := (*l.segments.Load())[len(kept):]
	l.showCut(c, gone, append(kept[:len(kept):len(kept)], short))
	if err := l.carryOut(c); err != nil {
		return d.fence("truncate", l.path, err)
	}
	for _, s := range gone {
		if s.base != c.base {
			d.throwAway(trashed{path: s.name(".log" + deletedSuffix)}, l.config.Load().DeleteDelay)
		}
	}
	again, err := l.reopen(c, kept, short, at.snapshots)
	if err != nil {
		return d.fence("read", l.path, err)
	}
	err = d.onCommitter(context.Background(), func() { l.adopt(again) })
	l.outdated = err != nil
	short.cut.Store(true) // a reader may still be at it when the next cut comes
	d.files.forget(short)
	return err
}

// drain waits until the appends that were queued before pause are done.
func (l *Log) drain() error {
	for {
		var refused error
		queued := false
		if err := l.dir.onCommitter(context.Background(), func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			refused, queued = l.refusal(), len(l.pending) > 0
		}); err != nil {
			return err
		}
		if refused != nil || !queued {
			return refused
		}
	}
}

// planCut finds the first batch that is to go: what lies before it stays.
func (l *Log) planCut(offset int64) (*cut, error) {
	if offset >= l.LogEndOffset() {
		return nil, nil
	}
	start, segments := l.LogStartOffset(), *l.segments.Load()
	if offset < start || len(segments) == 0 || offset < segments[0].base {
		return &cut{base: offset, end: offset, whole: true}, nil
	}
	s := segments[segmentOf(segments, offset)]
	x, err := l.indexes(s)
	if err != nil {
		return nil, err
	}
	r := l.dir.reader(s)
	defer r.close()
	entry := s.entry(x, &r, offset-1) // of a batch that stays
	walk := walker{file: &r, position: entry.position, end: s.size.Load(), readAhead: seekWindow, expect: entry.offset}
	c := &cut{base: s.base, position: entry.position, end: entry.offset}
	for walk.over(x) {
		if walk.err == nil && walk.header.LastOffset() >= offset {
			break
		}
		if walk.err == nil {
			c.position, c.end = walk.position+int64(walk.header.Size()), walk.header.NextOffset()
		}
	}
	if errors.Is(walk.err, errRead) {
		return nil, walk.err
	}
	if c.end < start { // the batch that holds the log start offset goes
		return &cut{base: c.end, end: c.end, whole: true}, nil
	}
	return c, nil
}

// over is next, but steps over damage as readers do: to where the index knows that another batch begins. It answers true for
// damage in front of that, with err.
func (w *walker) over(x *indexes) bool {
	if w.next() {
		return true
	}
	if w.err == nil || errors.Is(w.err, errRead) {
		return false
	}
	if errors.Is(w.err, errMisplaced) {
		return true
	}
	behind := x.positionBehind(w.position)
	if behind == 0 || behind >= w.end {
		return false
	}
	err := w.err
	*w = walker{file: w.file, position: behind, end: w.end, readAhead: w.readAhead, expect: w.expect, err: err}
	return true
}

// rest is what the committer knows of a log that has come to rest.
type rest struct {
	journaled bool        // the journal may hold something of it
	round     roundNumber // the first that can hold what comes
	snapshots []int64
}

// settle has a flush bring all of the log into its files, and takes what gets shorter out of the tail: from here on the
// log is what is in its files.
func (l *Log) settle(what *cut) (at rest, err error) {
	c := &l.dir.committer
	for flushed := false; ; {
		var flush <-chan struct{}
		closed := l.dir.onCommitter(context.Background(), func() {
			if c.flushEnded(); l.inFiles() {
				for _, s := range *l.segments.Load() {
					if what.whole || s.base >= what.base {
						c.dropTail(s, len(s.chunks))
					}
				}
				at = rest{journaled: l.w.unvoided, round: c.journal.nextRound(), snapshots: slices.Clone(l.w.snapshots)}
				return
			}
			if err = l.dir.fenced(); err == nil && flushed && c.flushing == nil {
				err = c.flushErr
			}
			if err == nil && c.flushing == nil {
				c.soil(l, 0)
				c.beginFlush()
				flushed = true
			}
			if err == nil {
				flush = c.flushing.done
			}
		})
		if err = errors.Join(err, closed); err != nil || flush == nil {
			return at, err
		}
		<-flush
	}
}

// inFiles tells whether all of the log is in its files, durably, and nobody is at them. Committer only.
func (l *Log) inFiles() bool {
	s := l.active()
	return !l.w.flushing && (s == nil || s.size.Load() == 0 || s.flushed == s.size.Load() && !s.unsynced && !s.padded)
}

// staying gives what is left of the segments: the whole ones, and, for readers until the cut is done, the one that gets shorter.
func (l *Log) staying(c *cut) (kept []*segmentFile, short *segmentFile, err error) {
	short = newSegmentFile(l.path, c.base)
	short.flushed, short.created, short.named = c.position, true, true
	short.rebuilt.Store(true) // no reader writes indexes of it
	var x indexes
	if !c.whole {
		all := *l.segments.Load()
		i := segmentOf(all, c.base)
		kept = all[:i:i]
		old, err := l.indexes(all[i])
		if err != nil {
			return nil, nil, err
		}
		x = indexes{
			offsets: old.offsets[:sort.Search(len(old.offsets), func(i int) bool { return old.offsets[i].position >= c.position })],
			times:   old.times[:sort.Search(len(old.times), func(i int) bool { return old.times[i].offset >= c.end })],
		}
	}
	short.index.Store(&x)
	short.size.Store(c.position)
	return kept, short, nil
}

// note writes down what is about to be done, durably: from then on it is done, by the next open at the latest.
func (l *Log) note(c *cut, at rest) error {
	d := l.dir
	if at.journaled {
		// All of it is in the files. The sync of the folder, below, makes the name durable.
		name := filepath.Join(l.path, voidFile)
		if err := replace(d.fs, name, encodeVoid(at.round), overwrite); err != nil {
			return d.failed("write", name, err)
		}
	}
	name := filepath.Join(l.path, cutFile)
	if err := replace(d.fs, name, c.encode(), overwrite); err != nil {
		return d.failed("write", name, err)
	}
	if err := d.fs.SyncDir(l.path); err != nil {
		return d.fence("sync", l.path, err) // the note is there, and nobody knows for how long
	}
	return nil
}

// showCut has readers see the log as it is going to be, before the files are changed. Who is reading begins anew.
func (l *Log) showCut(c *cut, gone, shown []*segmentFile) {
	for _, s := range gone {
		s.cut.Store(true)
		s.rebuilt.Store(true)
	}
	l.mu.Lock()
	l.segments.Store(&shown)
	l.mu.Unlock()
	e := l.epochs.Load().truncateTo(c.end)
	if c.whole {
		e = epochs{}
		l.start.Store(min(l.start.Load(), c.end))
	}
	l.end.Store(c.end)
	if c.whole {
		l.start.Store(c.end)
	}
	l.epochs.Store(&e)
	l.cuts.Add(1)
	for _, s := range gone {
		l.dir.files.forget(s)
	}
}

// reopen reads what an open would find out about a log that was cut.
func (l *Log) reopen(c *cut, kept []*segmentFile, short *segmentFile, snapshots []int64) (*Log, error) {
	again := newLog(l.dir, l.id, *l.config.Load())
	again.path = l.path
	s := newSegmentFile(l.path, c.base)
	s.size.Store(c.position)
	s.flushed, s.created, s.named = c.position, true, true
	segments := append(kept[:len(kept):len(kept)], s)
	again.segments.Store(&segments)
	again.w.next = c.end
	if c.whole {
		s.publish(0, true)
		return again, nil
	}
	for _, offset := range snapshots {
		if offset <= c.end {
			again.w.snapshots = append(again.w.snapshots, offset)
		}
	}
	cp, err := l.readCheckpoint(s)
	if err != nil {
		return nil, err
	}
	if again.w.resumed = cp; cp != nil {
		s.writer, s.firstTimestamp, s.sum, s.summed, s.saved = cp.index, cp.firstTimestamp, cp.sum, cp.summed, cp.position
	}
	if err := l.noteAll(s, short.index.Load()); err != nil {
		return nil, err
	}
	s.publish(c.position, true)
	return again, again.recoverProducers()
}

// noteAll indexes the batches of s behind its checkpoint. Damage stays for its readers to meet.
func (l *Log) noteAll(s *segmentFile, x *indexes) error {
	r := l.dir.reader(s)
	defer r.close()
	interval := l.config.Load().IndexIntervalBytes
	walk := walker{file: &r, position: s.saved, end: s.size.Load()}
	for walk.over(x) {
		if walk.err != nil {
			s.summed = false
			s.writer.sinceEntry = interval + 1 // readers step over the damage by the index
			continue
		}
		s.note(walk.header, walk.position, interval)
		s.sumUp(walk.header)
	}
	if errors.Is(walk.err, errRead) {
		return walk.err
	}
	s.summed = s.summed && walk.err == nil
	return nil
}

// adopt takes over what reopen has found out. Committer only.
func (l *Log) adopt(again *Log) {
	w := &l.w
	w.unvoided = false
	w.next, w.producers, w.snapshots = again.w.next, again.w.producers, again.w.snapshots
	w.epochs = min(w.epochs, len(*l.epochs.Load()))
	w.changed, w.known, w.promised = true, 0, 0
	l.mu.Lock()
	l.segments.Store(again.segments.Load())
	l.mu.Unlock()
	l.startAge(l.active())
	l.cuts.Add(1)
}
