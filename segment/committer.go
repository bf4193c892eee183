package segment

import (
	"sync"
)

// committer is the one goroutine that writes a log directory. It sleeps until a
// log is scheduled, and takes all that is queued by then as one round:
//
//	stamp    check producers, give out offsets, index        in memory
//	write    one vectored write per log                      page cache
//	sync     one fdatasync per touched file, side by side    disk
//	publish  log end offset, then the callbacks              in memory
type committer struct {
	dir     *Dir
	taken   []*Log
	parts   []*part // of this round, written and waiting for their sync
	spare   []*part
	syncs   chan *part
	unsaved sync.WaitGroup // parts that are being synced
	syncers sync.WaitGroup
	meter   meter
}

// init starts the goroutines that sync files side by side; stopSyncers ends them.
func (c *committer) init(d *Dir, syncers int) {
	c.dir, c.syncs, c.meter.Metrics = d, make(chan *part), d.opts.Metrics
	for range syncers {
		c.syncers.Add(1)
		go func() {
			defer c.syncers.Done()
			for p := range c.syncs {
				p.sync()
				c.unsaved.Done()
			}
		}()
	}
}

func (c *committer) stopSyncers() {
	close(c.syncs)
	c.syncers.Wait()
}

// run ends when the directory is closed, after a last round for what is queued.
func (c *committer) run() {
	for {
		select {
		case <-c.dir.wake:
			c.round()
		case call := <-c.dir.calls:
			call()
		case <-c.dir.stop:
			c.round()
			return
		}
	}
}

func (c *committer) round() {
	d := c.dir
	d.mu.Lock()
	c.taken, d.ready = d.ready, c.taken[:0]
	d.mu.Unlock()
	for i, l := range c.taken {
		c.taken[i] = nil
		appends := l.take()
		c.meter.take(appends)
		c.write(l, appends)
		l.giveBack(appends)
		if len(c.parts) >= d.opts.OpenFiles { // each holds a file
			c.complete()
		}
	}
	c.complete()
}

// complete makes the parts that are written durable, and finishes them.
func (c *committer) complete() {
	c.meter.sync()
	c.sync()
	c.meter.synced()
	for _, p := range c.parts {
		c.finish(p)
	}
	c.parts = c.parts[:0]
	c.meter.done()
}

// write stamps and writes appends to one log. The part in the active segment
// joins the round; one that fills its segment is synced at once, since the
// segment is left for good.
func (c *committer) write(l *Log, appends []*Append) {
	for len(appends) > 0 {
		p := c.begin(l)
		rest := p.stamp(appends)
		p.write()
		c.meter.wrote(p)
		if len(rest) == 0 {
			c.parts = append(c.parts, p)
			return
		}
		c.syncTopics(p)
		p.sync()
		err := p.failure
		c.finish(p)
		if err == nil {
			err = l.roll()
		}
		if err != nil { // what follows may not overtake what has failed
			c.refuse(l, rest, err)
			return
		}
		appends = rest
	}
}

// refuse tells appends that were never stamped.
func (c *committer) refuse(l *Log, appends []*Append, err error) {
	for _, a := range appends {
		l.discharge(a)
		a.Done(Result{BaseOffset: -1, LastOffset: -1, Err: err})
	}
}

// sync makes all that the round has written durable.
func (c *committer) sync() {
	c.syncTopics(c.parts...)
	if len(c.parts) == 1 {
		c.parts[0].sync()
		return
	}
	for _, p := range c.parts {
		if p.bytes > 0 {
			c.unsaved.Add(1)
			c.syncs <- p
		}
	}
	c.unsaved.Wait()
}

// syncTopics makes the names of new folders of logs durable, all with one sync.
func (c *committer) syncTopics(parts ...*part) {
	var failure error
	synced := false
	for _, p := range parts {
		if p.log.w.named || p.failure != nil {
			continue
		}
		if !synced {
			synced = true
			if err := c.dir.fs.SyncDir(c.dir.topics); err != nil {
				failure = c.dir.failedSync(c.dir.topics, err)
			}
		}
		p.failure, p.log.w.named = failure, failure == nil
	}
}

func (c *committer) begin(l *Log) *part {
	p := &part{}
	if n := len(c.spare); n > 0 {
		p, c.spare = c.spare[n-1], c.spare[:n-1]
	}
	p.begin(c.dir, l)
	return p
}

// finish publishes a part, or takes it back, and tells those who wait.
func (c *committer) finish(p *part) {
	p.finish()
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
