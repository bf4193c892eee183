package segment

import (
	"errors"
	"time"

	"golang.org/x/sync/errgroup"
)

// A flush brings what is in the journal alone into the segments, and syncs what
// was acknowledged before its sync. While it runs, appends go on: into other files
// of the journal. It takes its logs in portions, so that its memory and the time that others
// wait for it are bounded, whatever the number of logs. When the last portion has ended well, the
// files of the journal that were left when it began are used again, not before: they
// hold records of all those logs. Committer only.
type flush struct {
	waiting []*Log // due when it began, and not begun with; all are dirty
	files   int    // of the journal, left when it began
	begun   time.Time
}

// portion is the part of a flush that is carried out at once.
type portion struct {
	writes []*fileWrite
	named  bool
	done   chan struct{} // closed when it has ended
	err    error
}

const (
	// portionBytes is about how much one portion of a flush writes at most.
	portionBytes = 16 << 20
	// flushers is how many segments are flushed side by side: few, since appends are waiting for the same disk. For
	// portions of manyLogs it is as many as there are writers, since a file system makes syncs that
	// come together durable together: that is over two to three times as soon.
	flushers = 2
	manyLogs = 64
	// flushShare bounds the part of the time that flushes take of the disk: after one that took
	// long, the next one comes later.
	flushShare    = 10
	maxFlushPause = 30 * time.Second
)

// soil notes that l has bytes that a flush has to take care of, at once or after
// a while. Committer only.
func (c *committer) soil(l *Log, after time.Duration) {
	at := c.dir.opts.Now().Add(max(after, c.pause))
	if after == 0 {
		at = time.Time{} // whenever the next one is
	}
	if l.w.dirty {
		if at.Before(l.w.flushAt) {
			l.w.flushAt = at
		}
		return
	}
	l.w.dirty, l.w.flushAt = true, at
	c.dirty = append(c.dirty, l)
}

// arm sets the timer for the next flush, unless it is set or one is under way.
func (c *committer) arm() {
	if c.flush != nil || c.armed {
		return
	}
	wait := time.Duration(-1)
	now := c.dir.opts.Now()
	for _, l := range c.dirty {
		w := c.pause
		if !l.w.flushAt.IsZero() {
			w = max(0, l.w.flushAt.Sub(now))
		}
		if wait < 0 || w < wait {
			wait = w
		}
	}
	c.armed = true
	c.timer.Reset(wait)
}

// flushed is closed when the portion that is under way has ended; nil, which never
// gives anything, when none is.
func (c *committer) flushed() <-chan struct{} {
	if c.flushing == nil {
		return nil
	}
	return c.flushing.done
}

// beginFlush starts the next portion of the flush that is under way; when none is, the first one
// of a flush of all that is dirty and due.
func (c *committer) beginFlush() {
	c.due = false
	if c.flushing != nil {
		return
	}
	if c.dir.fenced() != nil {
		c.abandonFlush()
		return
	}
	if c.flush == nil {
		if len(c.dirty) == 0 {
			return
		}
		c.planFlush()
	}
	p := c.nextPortion()
	c.flushing = p
	c.dir.flushes <- p // the flusher has ended the one before
}

// planFlush leaves the journal's file: what all logs that are due have in it, and in those before it,
// is in the segments once the flush has ended.
func (c *committer) planFlush() {
	c.armed = false
	c.timer.Stop()
	f := &flush{begun: c.dir.opts.Now()}
	rest := c.dirty[:0]
	for _, l := range c.dirty {
		if l.w.flushAt.After(f.begun) {
			rest = append(rest, l)
		} else {
			f.waiting = append(f.waiting, l)
		}
	}
	clear(c.dirty[len(rest):])
	c.dirty = rest
	c.journal.rotate()
	f.files = len(c.journal.old)
	c.flush = f
}

// nextPortion takes the next logs of the flush, with all that they have by now. It may have nothing to write.
func (c *committer) nextPortion() *portion {
	p := &portion{done: make(chan struct{})}
	waiting, bytes := c.flush.waiting, int64(0)
	for len(waiting) > 0 && len(p.writes) < c.dir.opts.FlushLogs && bytes < portionBytes {
		l := waiting[0]
		waiting[0], waiting = nil, waiting[1:]
		l.w.dirty = false
		s := l.active()
		if l.w.deleted || s.flushed == s.size.Load() && !s.unsynced && !s.padded {
			continue
		}
		w := &fileWrite{sync: true, trim: true}
		w.prepare(c, l, s, s.size.Load())
		w.checkpoint = c.capture(l, s)
		p.writes = append(p.writes, w)
		bytes += w.to - w.from
		l.w.flushing = true
	}
	c.flush.waiting = waiting
	return p
}

// runFlusher is the goroutine that carries out flushes. It ends when the committer has.
func (d *Dir) runFlusher() {
	for p := range d.flushes {
		p.run(d)
		close(p.done)
	}
}

func (p *portion) run(d *Dir) {
	var group errgroup.Group
	group.SetLimit(flushers)
	if len(p.writes) >= manyLogs {
		group.SetLimit(writers())
	}
	for _, w := range p.writes {
		group.Go(func() error {
			w.run()
			return nil
		})
	}
	_ = group.Wait() // errors are in the writes
	for _, w := range p.writes {
		if !w.segment.named && w.err == nil {
			p.named = true
		}
		p.err = errors.Join(p.err, w.err)
	}
	if p.named && p.err == nil {
		p.err = d.syncTopics()
	}
}

// flushEnded takes over what a portion has done, if one has ended. Committer only.
func (c *committer) flushEnded() {
	select {
	case <-c.flushed():
		c.endPortion()
	default:
	}
}

// awaitFlush waits for the portion that is under way. What is left of its flush goes on between
// two rounds. Committer only.
func (c *committer) awaitFlush() {
	if c.flushing != nil {
		<-c.flushing.done
		c.endPortion()
	}
}

// flushAll carries out the flush that is under way, or a new one, to its end, or until the directory
// is closed. Committer only.
func (c *committer) flushAll() {
	for again := true; again; again = c.flush != nil && !c.dir.stopping() {
		c.awaitFlush()
		c.beginFlush()
		c.awaitFlush()
	}
}

// endPortion takes over what a portion that has ended has done, and ends the flush with the last one,
// or the first that has failed.
func (c *committer) endPortion() {
	p := c.flushing
	c.flushing, c.flushErr = nil, p.err
	for _, w := range p.writes {
		l := w.log
		l.w.flushing = false
		if p.err == nil {
			w.apply()
			l.w.unflushed = 0
			l.named.Store(true)
			if w.checkpoint != nil {
				c.save(l, w.segment, w.checkpoint)
				w.checkpoint = nil
			}
		} else if !l.w.dirty {
			// A full disk, mostly: the journal keeps it, and the next flush tries again.
			l.w.dirty, l.w.flushAt = true, time.Time{}
			c.dirty = append(c.dirty, l)
		}
		if w.checkpoint != nil {
			l.saving.Store(false)
		}
		w.done()
	}
	switch {
	case p.err != nil:
		c.abandonFlush()
	case len(c.flush.waiting) > 0:
		c.due = true
	default:
		c.journal.flushed(c.flush.files)
		c.dir.counts.flushes.Add(1)
		c.dir.counts.journal.Store(c.journal.bytes())
		c.pauseFlushes()
	}
	c.sweep()
	if len(c.dirty) > 0 && c.dir.fenced() == nil {
		c.arm()
	}
}

// abandonFlush ends a flush before its last portion: all files of the journal stay.
func (c *committer) abandonFlush() {
	if c.flush != nil {
		c.dirty = append(c.dirty, c.flush.waiting...)
		c.pauseFlushes()
	}
}

// pauseFlushes says that the flush has ended, and when the next one may begin.
func (c *committer) pauseFlushes() {
	took := c.dir.opts.Now().Sub(c.flush.begun)
	c.pause = max(c.dir.opts.FlushInterval, min(maxFlushPause, flushShare*took))
	c.flush = nil
}
