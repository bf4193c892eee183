package segment

import (
	"errors"
	"time"

	"golang.org/x/sync/errgroup"
)

// A flush brings what is in the journal alone into the segments, and syncs what
// was acknowledged before its sync. While it runs, appends go on: into other files
// of the journal. When it has ended well, the files of the journal that were left
// when it began are used again.
type flush struct {
	writes []*fileWrite
	files  int // of the journal, left when it began
	named  bool
	begun  time.Time
	done   chan struct{} // closed when it has ended
	err    error
}

const (
	// flushers is how many segments are flushed side by side: few, since appends are waiting for the same disk.
	flushers = 2
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
	if c.flushing != nil || c.armed {
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

// flushed is closed when the flush that is under way has ended; nil, which never
// gives anything, when none is.
func (c *committer) flushed() <-chan struct{} {
	if c.flushing == nil {
		return nil
	}
	return c.flushing.done
}

// beginFlush starts a flush of all that is dirty and due.
func (c *committer) beginFlush() {
	c.due = false
	if c.flushing != nil || len(c.dirty) == 0 || c.dir.fenced() != nil {
		return
	}
	c.armed = false
	c.timer.Stop()
	now := c.dir.opts.Now()
	f := &flush{done: make(chan struct{}), begun: now}
	rest := c.dirty[:0]
	for _, l := range c.dirty {
		if l.w.flushAt.After(now) {
			rest = append(rest, l)
			continue
		}
		l.w.dirty = false
		s := l.active()
		if l.w.deleted || s.flushed == s.size.Load() && !s.unsynced && !s.padded {
			continue
		}
		w := &fileWrite{sync: true, trim: true}
		w.prepare(c, l, s, s.size.Load())
		w.checkpoint = c.capture(l, s)
		f.writes = append(f.writes, w)
		l.w.flushing = true
	}
	clear(c.dirty[len(rest):])
	c.dirty = rest
	c.journal.rotate()
	f.files = len(c.journal.old)
	c.flushing = f
	c.dir.flushes <- f // the flusher has ended the one before
}

// runFlusher is the goroutine that carries out flushes. It ends when the committer has.
func (d *Dir) runFlusher() {
	for f := range d.flushes {
		f.run(d)
		close(f.done)
	}
}

func (f *flush) run(d *Dir) {
	var group errgroup.Group
	group.SetLimit(flushers)
	for _, w := range f.writes {
		group.Go(func() error {
			w.run()
			return nil
		})
	}
	_ = group.Wait() // errors are in the writes
	for _, w := range f.writes {
		if !w.segment.named && w.err == nil {
			f.named = true
		}
		f.err = errors.Join(f.err, w.err)
	}
	if f.named && f.err == nil {
		f.err = d.syncTopics()
	}
}

// flushEnded takes over what a flush has done, if one has ended. Committer only.
func (c *committer) flushEnded() {
	select {
	case <-c.flushed():
		c.endFlush()
	default:
	}
}

// awaitFlush waits for the flush that is under way. Committer only.
func (c *committer) awaitFlush() {
	if c.flushing != nil {
		<-c.flushing.done
		c.endFlush()
	}
}

// endFlush takes over what a flush that has ended has done.
func (c *committer) endFlush() {
	f := c.flushing
	c.flushing, c.flushErr = nil, f.err
	for _, w := range f.writes {
		l := w.log
		l.w.flushing = false
		if f.err == nil {
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
	if f.err == nil {
		c.journal.flushed(f.files)
		c.dir.counts.flushes.Add(1)
		c.dir.counts.journal.Store(c.journal.bytes())
	}
	took := c.dir.opts.Now().Sub(f.begun)
	c.pause = max(c.dir.opts.FlushInterval, min(maxFlushPause, flushShare*took))
	c.evict()
	if len(c.dirty) > 0 && c.dir.fenced() == nil {
		c.arm()
	}
}
