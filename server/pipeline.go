package server

import (
	"errors"
	"log/slog"
	"sync"
	"time"
)

// pipeline holds the produce requests of a connection that have been read and
// not yet been answered, in the order in which they came. The reader adds; the
// engine completes them in any order; the writer goroutine answers the ones at
// the front that are complete, as many as there are with one write.
//
// The writer starts with the first produce request and ends with the connection.
type pipeline struct {
	c       *conn
	started bool // by the reader
	writer  sync.WaitGroup

	wake chan struct{} // to the writer: something is complete, or new
	room chan struct{} // to the reader: something has been answered
	stop chan struct{} // closed by close

	mu      sync.Mutex // guards the fields below; never held across I/O
	queue   []*produceCall
	bytes   int   // of the frames in queue
	failure error // why the writer gave up

	answering []*produceCall // the writer's
}

func (p *pipeline) init(c *conn) {
	p.c = c
	p.wake = make(chan struct{}, 1)
	p.room = make(chan struct{}, 1)
	p.stop = make(chan struct{})
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// add queues a call, waiting while too many are under way.
func (p *pipeline) add(call *produceCall) error {
	if !p.started {
		p.started = true
		p.writer.Add(1)
		go p.write()
	}
	for {
		p.mu.Lock()
		n := len(p.queue)
		full := n >= p.c.s.opts.ReadAhead || n > 0 && p.bytes+call.bytes > p.c.s.opts.ReadAheadMax
		err := p.failure
		if err == nil && !full {
			p.queue = append(p.queue, call)
			p.bytes += call.bytes
		}
		p.mu.Unlock()
		if err != nil || !full {
			if n == 0 {
				signal(p.wake) // it may have to watch this one's deadline
			}
			return err
		}
		if err := p.wait(); err != nil {
			return err
		}
	}
}

// wait waits until something has been answered.
func (p *pipeline) wait() error {
	select {
	case <-p.room:
		return nil
	case <-p.c.ctx.Done():
		return p.c.ctx.Err()
	}
}

// drain waits until everything has been answered. Only the reader calls it.
func (p *pipeline) drain() error {
	for {
		p.mu.Lock()
		n, err := len(p.queue), p.failure
		p.mu.Unlock()
		if n == 0 || err != nil {
			return err
		}
		if err := p.wait(); err != nil {
			return err
		}
	}
}

func (p *pipeline) busy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.queue) > 0
}

// close ends the writer. When the connection ends in peace, what is under way is
// answered first.
func (p *pipeline) close(why error) {
	if !p.started {
		return
	}
	if errors.Is(why, errClosing) {
		p.drain() // an error means that nobody listens any more
	}
	close(p.stop)
	p.c.nc.Close() // a write that is under way ends now
	p.writer.Wait()
	p.mu.Lock()
	left := p.queue
	p.queue = nil
	p.mu.Unlock()
	for _, call := range left {
		call.unref()
	}
}

// write is the writer goroutine.
func (p *pipeline) write() {
	defer p.writer.Done()
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	var alarm time.Time // when the timer fires, zero when it does not
	for {
		select {
		case <-p.wake:
		case <-timer.C:
			alarm = time.Time{}
		case <-p.stop:
			return
		}
		for p.answer() {
		}
		if err := p.failed(); err != nil {
			if !hungUp(err) {
				p.c.s.warn.warn("closed a connection", slog.Any("reason", err), slog.String("client", p.c.remoteHost))
			}
			// The reader finds out by its next read or at its next wait.
			p.c.nc.Close()
			signal(p.room)
			<-p.stop
			return
		}
		if at, any := p.nextDeadline(); any && (alarm.IsZero() || at.Before(alarm)) {
			alarm = at
			timer.Reset(max(at.Sub(p.c.s.opts.Now()), 0))
		}
	}
}

// answer writes the responses at the front of the queue that are complete or out
// of time, or wait for disks that do not answer, and tells whether there were any.
func (p *pipeline) answer() bool {
	now, stalled := p.c.s.opts.Now(), p.c.s.stalled()
	p.mu.Lock()
	if p.failure != nil {
		p.mu.Unlock()
		return false
	}
	n := 0
	for n < len(p.queue) && (p.queue[n].complete.Load() || stalled && p.queue[n].stuck() || !now.Before(p.queue[n].deadline)) {
		n++
	}
	p.answering = append(p.answering[:0], p.queue[:n]...)
	p.mu.Unlock()
	if n == 0 {
		return false
	}

	begun := p.c.s.opts.Metrics.now()
	out := newBuffer(256 * n)
	var err error
	for _, call := range p.answering {
		if out.b, err = call.encode(out.b); err != nil {
			break
		}
	}
	if len(out.b) > 0 {
		if e := p.c.write(out.b); e != nil {
			err = e
		}
	}
	p.c.s.opts.Metrics.sent(p.c.s, p.answering, begun, len(out.b) > 0)
	out.release()

	p.mu.Lock()
	for _, call := range p.queue[:n] {
		p.bytes -= call.bytes
	}
	rest := copy(p.queue, p.queue[n:])
	clear(p.queue[rest:])
	p.queue = p.queue[:rest]
	p.failure = err
	p.mu.Unlock()
	for _, call := range p.answering {
		call.unref()
	}
	clear(p.answering)
	signal(p.room)
	return true
}

func (p *pipeline) failed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failure
}

// nextDeadline is when the request at the front runs out of time.
func (p *pipeline) nextDeadline() (at time.Time, any bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		return time.Time{}, false
	}
	return p.queue[0].deadline, true
}
