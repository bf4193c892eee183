package segment

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"time"
)

const (
	// roundBytes is about how much one round takes from the queues: memory for it
	// comes on top of the tail's bound.
	roundBytes = 16 << 20
	// directBytes is how much of one log in one round goes straight into its segment.
	// See DESIGN.md, "Straight or through the journal".
	directBytes = 128 << 10
)

// committer is the one goroutine that writes a log directory. It sleeps until a
// log is scheduled, and takes what is queued by then as one round:
//
//	stamp    check producers, give out offsets, index, copy into the tail    in memory
//	write    large parts: each into its segment, side by side, from the      direct I/O, fdatasync
//	         moment that it is stamped
//	         small parts: all together into the journal                      direct I/O, one fdatasync
//	publish  log end offset, then the callbacks                              in memory
//
// What went into the journal reaches the segments later, by the flusher.
type committer struct {
	dir      *Dir
	journal  journal
	taken    []*Log
	parts    []*part // of this round, stamped and waiting for the disk
	spare    []*part
	grown    []*Log // straight into their segments, in this round
	writes   chan *part
	unsaved  sync.WaitGroup // parts that are being written
	writers  sync.WaitGroup
	resident []*chunk // of all tails, oldest first
	thinned  int      // of them have left their tails, about

	full error // why nothing more goes through the journal in this round

	dirty    []*Log   // with bytes that are in the journal alone, or not synced
	flush    *flush   // under way, nil when none is
	flushing *portion // of it, under way, nil between two
	flushErr error    // of the last one
	due      bool     // flush now, whatever the clock says
	armed    bool     // the timer is set
	timer    *time.Timer
	pause    time.Duration // between two flushes
	room     room
	meter    meter
}

// init starts the goroutines that write side by side; stopWriters ends them.
func (c *committer) init(d *Dir, writers int, generation uint64) {
	c.dir, c.writes = d, make(chan *part)
	c.pause = d.opts.FlushInterval
	c.meter.Metrics = d.opts.Metrics
	c.timer = time.NewTimer(time.Hour)
	c.timer.Stop()
	c.journal.init(d, generation)
	for range writers {
		c.writers.Add(1)
		go func() {
			defer c.writers.Done()
			for p := range c.writes {
				p.write.run()
				c.unsaved.Done()
			}
		}()
	}
}

func (c *committer) stopWriters() {
	close(c.writes)
	c.writers.Wait()
}

// run ends when the directory is closed, after a last round for what is queued.
func (c *committer) run() {
	for {
		select {
		case <-c.dir.wake:
			c.round()
		case call := <-c.dir.calls:
			call()
		case <-c.timer.C:
			c.armed, c.due = false, true
		case <-c.flushed():
			c.endPortion()
		case <-c.dir.stop:
			c.round()
			c.awaitFlush() // what its other portions have, the close writes
			return
		}
		if c.due && !c.dir.stopping() {
			c.beginFlush()
		}
	}
}

func (c *committer) round() {
	d := c.dir
	d.mu.Lock()
	c.taken, d.ready = d.ready, c.taken[:0]
	d.mu.Unlock()
	bytes := int64(0)
	c.full = c.journalFull()
	for i, l := range c.taken {
		c.taken[i] = nil
		if l.w.stamped { // it was scheduled twice, as those may be that were refused during a stall
			d.schedule(l)
			continue
		}
		appends, more := l.take(roundBytes)
		c.meter.take(appends)
		bytes += c.write(l, appends)
		l.giveBack(appends)
		if more {
			d.schedule(l)
		}
		if bytes >= roundBytes {
			c.complete()
			c.full = c.journalFull()
			bytes = 0
		}
	}
	c.complete()
}

// write stamps appends to one log, and gives back how many bytes of them joined
// the round. A part that fills its segment is written at once, since the segment
// is left for good.
func (c *committer) write(l *Log, appends []*Append) int64 {
	for len(appends) > 0 {
		p := c.begin(l)
		if p.failure == nil {
			p.failure = c.room.check(c.dir)
		}
		rest := p.stamp(appends)
		c.room.since += p.bytes
		c.meter.wrote(p)
		if len(rest) == 0 {
			c.parts = append(c.parts, p)
			l.w.stamped = true
			c.startEarly(p)
			return p.bytes
		}
		err := p.failure
		c.seal(p)
		if err == nil {
			err = p.failure
		}
		c.finish(p)
		if err == nil {
			err = l.roll()
		}
		if err != nil { // what follows may not overtake what has failed
			c.refuse(l, rest, err)
			return 0
		}
		appends = rest
	}
	return 0
}

// startEarly hands a large part to the writers while the parts of other logs are being
// stamped and copied, which takes a third as long as the disk does.
func (c *committer) startEarly(p *part) {
	if len(c.taken) == 1 || p.failure != nil || p.bytes < c.dir.opts.DirectBytes {
		return
	}
	if p.choose(); p.route != straight {
		return
	}
	p.started = true
	c.prepare(p)
	c.unsaved.Add(1)
	c.writes <- p
}

func (c *committer) prepare(p *part) {
	p.write.sync = p.route == straight
	p.write.prepare(c, p.log, p.segment, p.segment.size.Load()+p.bytes)
}

// seal writes all of the part's segment that is not in the file yet.
func (c *committer) seal(p *part) {
	if p.failure != nil {
		return
	}
	c.awaitFlush()
	p.route = straight
	p.write.sync, p.write.trim = true, true
	p.write.prepare(c, p.log, p.segment, p.segment.size.Load()+p.bytes)
	p.write.run()
	c.nameTopics(p)
	p.applyWrite()
	c.count(p)
}

// count counts a part that has come to the disk.
func (c *committer) count(p *part) {
	switch {
	case p.failure != nil:
	case p.route == journaled:
		c.dir.counts.journaled.Add(p.bytes)
		c.dir.counts.journal.Store(c.journal.bytes())
	default:
		c.dir.counts.direct.Add(p.bytes)
	}
}

// sealActive brings all of the active segment of l into its file, without padding; durably,
// unless the caller syncs what many logs have written at once.
// Committer only, or after it has ended.
func (c *committer) sealActive(l *Log, durably bool) error {
	s := l.active()
	if s == nil || s.size.Load() == 0 {
		return nil
	}
	c.awaitFlush()
	if s.flushed == s.size.Load() && !s.unsynced && !s.padded && s.named && l.named.Load() {
		return nil // a flush has left nothing to do, as in most of ten thousand logs
	}
	w := fileWrite{sync: durably, trim: true}
	w.prepare(c, l, s, s.size.Load())
	defer w.done()
	if w.run(); w.err == nil && durably && !l.named.Load() {
		w.err = c.dir.syncTopics()
		l.named.Store(w.err == nil)
	}
	if w.err == nil {
		w.apply()
	}
	return w.err
}

// refuse tells appends that were never stamped.
func (c *committer) refuse(l *Log, appends []*Append, err error) {
	for _, a := range appends {
		l.discharge(a)
		a.Done(Result{BaseOffset: -1, LastOffset: -1, Err: err})
	}
}

// complete makes the parts that are stamped durable, and finishes them.
func (c *committer) complete() {
	if len(c.parts) == 0 {
		return
	}
	straightOnes := 0
	for _, p := range c.parts {
		if p.started {
			continue
		}
		if p.choose(); c.full != nil && p.route == journaled {
			p.route, p.failure = nowhere, c.full
		}
		if p.route == straight || p.route == unsynced {
			straightOnes++
			c.prepare(p)
		}
	}
	c.meter.sync()
	c.startWrites(straightOnes)
	c.writeJournal()
	c.unsaved.Wait()
	c.nameTopics(c.parts...)
	c.meter.synced()
	for _, p := range c.parts {
		p.log.w.stamped = false
		p.applyWrite()
		c.count(p)
		if p.route == straight && p.failure == nil {
			c.grown = append(c.grown, p.log)
		}
		c.finish(p)
	}
	for i, l := range c.grown { // now that nobody waits
		if s := l.active(); s.flushed == s.size.Load() && !s.unsynced {
			if cp := c.capture(l, s); cp != nil {
				c.save(l, s, cp)
			}
		}
		c.grown[i] = nil
	}
	c.grown = c.grown[:0]
	clear(c.parts)
	c.parts = c.parts[:0]
	c.meter.done()
	c.evict()
	if c.flushErr == nil && c.journal.bytes() >= c.dir.opts.JournalBytes/2 {
		c.due = true // before appends have to wait for it
	}
	if len(c.dirty) > 0 {
		c.arm()
	}
}

// journalFull waits for flushes when the journal has reached its bound, which it does only
// when the disk is far behind; it is nil once there is room in the journal. While nothing is
// stamped: a flush and a part that a writer has already would be at one file. The last round
// waits for nothing, since the close that follows it brings all into the segments.
func (c *committer) journalFull() error {
	full := func() bool { return c.journal.bytes() >= c.dir.opts.JournalBytes && !c.dir.stopping() }
	if c.flush != nil && full() { // it may have begun before most of the journal was written
		c.flushAll()
	}
	if full() {
		c.flushAll()
	}
	if !full() {
		return nil
	}
	return fmt.Errorf("%w: the journal is full, and cannot be brought into the segments: %w", ErrNoSpace, c.flushErr)
}

// startWrites hands the parts that go straight into their segments to the
// writers; a single one is written here.
func (c *committer) startWrites(n int) {
	for _, p := range c.parts {
		if p.started || p.route != straight && p.route != unsynced {
			continue
		}
		if n == 1 && len(c.parts) == 1 {
			p.write.run()
			return
		}
		c.unsaved.Add(1)
		c.writes <- p
	}
}

// writeJournal writes the parts that go through the journal, and makes them durable.
func (c *committer) writeJournal() {
	j := &c.journal
	var all, gathered []*part // of the round, and of one write of it
	write := func() {
		fail(gathered, j.write())
		gathered = gathered[:0]
	}
	for _, p := range c.parts {
		if p.route != journaled {
			continue
		}
		if j.full() {
			write()
		}
		all, gathered = append(all, p), append(gathered, p)
		j.add(p.log.id, p.segment.base, p.segment.size.Load(), p.buffers...)
		p.log.w.unvoided = true
	}
	if len(all) == 0 {
		return
	}
	write()
	c.meter.sync()
	fail(all, j.sync())
	for _, p := range all {
		if p.failure == nil {
			p.log.w.journaled = j.generation
			c.soil(p.log, 0)
		}
	}
}

// fail notes why parts have failed, unless they have already; a nil error changes nothing.
func fail(parts []*part, err error) {
	for _, p := range parts {
		if p.failure == nil {
			p.failure = err
		}
	}
}

// nameTopics makes the names of new folders of logs durable, all with one sync.
func (c *committer) nameTopics(parts ...*part) {
	var failure error
	synced := false
	for _, p := range parts {
		if p.route != straight || p.log.named.Load() || p.failure != nil || p.write.err != nil {
			continue
		}
		if !synced {
			synced = true
			failure = c.dir.syncTopics()
		}
		p.write.err = failure
		p.log.named.Store(failure == nil)
	}
}

func (d *Dir) syncTopics() error {
	if err := d.fs.SyncDir(d.topics); err != nil {
		return d.failedSync(d.topics, err)
	}
	return nil
}

func (c *committer) begin(l *Log) *part {
	p := &part{}
	if n := len(c.spare); n > 0 {
		p, c.spare = c.spare[n-1], c.spare[:n-1]
	}
	p.begin(c, l)
	return p
}

// finish publishes a part, or takes it back, and tells those who wait.
func (c *committer) finish(p *part) {
	p.finish()
	if p.log.w.copied && p.segment != nil {
		c.thin(p.segment)
	}
	for i, a := range p.waiting {
		p.waiting[i] = nil
		p.log.discharge(a)
		a.Done(a.result)
	}
	p.reset()
	if len(c.spare) < 1024 {
		c.spare = append(c.spare, p)
	}
}

// forget is for a log that was deleted: nothing of it is written any more, now or
// by a recovery. Committer only.
func (c *committer) forget(l *Log) {
	if l.w.flushing {
		c.awaitFlush()
	}
	l.w.deleted = true
	if s := l.active(); s != nil {
		s.flushed = math.MaxInt64 // its tail may go
	}
	if !c.journal.holds(l.w.journaled) || c.dir.fenced() != nil {
		return
	}
	c.journal.add(l.id, 0, deletedLog)
	if err := errors.Join(c.journal.write(), c.journal.sync()); err != nil {
		c.dir.haunt(l.id)
		c.dir.log.Warn("the deletion of a partition is not in the journal: after a crash its latest records may show up again, in a folder that is set aside",
			"partition", l.id.String(), "error", err)
	}
}

// haunt notes that the journal does not say that a log was deleted.
func (d *Dir) haunt(id LogID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.haunted[id.key()] = struct{}{}
}
