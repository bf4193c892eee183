package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// The bounds of one Request connection. The side that serves allows for twice as much, as an answer may arrive before its
// call has been struck from the books there.
const (
	maxCalls     = 128
	maxCallBytes = 32 << 20
	mostTime     = time.Minute // for a call without a deadline, and at most

	firstPause = 20 * time.Millisecond // before a node is dialled again
	lastPause  = time.Second
)

// Call has a node answer a request, over the one Request connection to it, which is dialled when there is none. It returns [Error] (as a pointer) when the method there failed, ErrDisconnected at once when
// the connection breaks, and what dialling returned when that fails; a call that comes in the pause after a failure (20 ms to 1 s) waits for the next attempt. The context's
// deadline travels along. At most 128 calls and 32 MiB are under way to a node, further ones wait. The body must not be changed until Call returns.
func (h *Hub) Call(ctx context.Context, node int32, method string, body []byte) ([]byte, error) {
	if err := fits(method, body); err != nil {
		return nil, err
	}
	if self := h.Self(); node == self.NodeID {
		return h.here(ctx, self, method, bytes.Clone(body))
	}
	c, err := h.caller(node)
	if err != nil {
		return nil, err
	}
	if err := c.calls.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer c.calls.Release(1)
	if err := c.bytes.Acquire(ctx, int64(len(body))); err != nil {
		return nil, err
	}
	defer c.bytes.Release(int64(len(body)))
	s, err := c.connected(ctx)
	if err != nil {
		return nil, err
	}
	return s.call(ctx, method, body)
}

// CallAddress is Call over a connection of its own to whoever is at an address.
func (h *Hub) CallAddress(ctx context.Context, address, method string, body []byte) ([]byte, error) {
	if err := fits(method, body); err != nil {
		return nil, err
	}
	conn, err := h.DialAddress(ctx, address, Request)
	if err != nil {
		return nil, err
	}
	s, err := h.open(conn)
	if err != nil {
		return nil, err
	}
	defer s.end()
	return s.call(ctx, method, body)
}

func fits(method string, body []byte) error {
	if len(body) > MaxBodyBytes || len(method) > maxMethod {
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, len(body))
	}
	return nil
}

// here answers a request to this node itself.
func (h *Hub) here(ctx context.Context, self Identity, method string, body []byte) ([]byte, error) {
	m := h.method(method)
	if m == nil {
		return nil, &Error{CodeNoMethod, "no method " + method}
	}
	answer, err := m(ctx, self, body)
	if err != nil {
		return nil, failed(err)
	}
	return answer, nil
}

// caller is what leads to one node.
type caller struct {
	hub   *Hub
	node  int32
	calls *semaphore.Weighted
	bytes *semaphore.Weighted

	mu      sync.Mutex // guards the fields below; never held across a call
	session *session   // the latest
	attempt *attempt   // to get another, while it is under way
	pause   time.Duration
}

type attempt struct {
	done    chan struct{} // closed when the rest is set
	session *session
	err     error
}

func (h *Hub) caller(node int32) (*caller, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, ErrClosed
	}
	c := h.callers[node]
	if c == nil {
		c = &caller{hub: h, node: node, calls: semaphore.NewWeighted(maxCalls), bytes: semaphore.NewWeighted(maxCallBytes)}
		h.callers[node] = c
	}
	return c, nil
}

// connected returns a connection that works as far as is known, and waits for it if need be.
func (c *caller) connected(ctx context.Context) (*session, error) {
	c.mu.Lock()
	if s := c.session; s != nil && s.conn.ctx.Err() == nil {
		c.mu.Unlock()
		return s, nil
	}
	a, pause := c.attempt, c.pause
	mine := a == nil
	if mine {
		a = &attempt{done: make(chan struct{})}
		c.attempt = a
	}
	c.mu.Unlock()
	if mine && !c.hub.start(func() { c.connect(a, pause) }) {
		a.err = ErrClosed
		close(a.done)
	}
	select {
	case <-a.done:
		return a.session, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// connect is one attempt, after a pause if the last one failed.
func (c *caller) connect(a *attempt, pause time.Duration) {
	if pause > 0 {
		t := time.NewTimer(pause)
		defer t.Stop()
		select {
		case <-t.C:
		case <-c.hub.ctx.Done():
		}
	}
	conn, err := c.hub.Dial(c.hub.ctx, c.node, Request)
	if err == nil {
		a.session, err = c.hub.open(conn)
	}
	a.err = err
	c.mu.Lock()
	c.session, c.attempt = a.session, nil
	if err == nil {
		c.pause = firstPause // should it break
	} else {
		c.pause = min(max(2*pause, firstPause), lastPause)
	}
	c.mu.Unlock()
	close(a.done)
}

// session is the dialling side of a Request connection.
type session struct {
	*wire
	mu      sync.Mutex // guards the fields below; never held across a call
	next    uint64
	waiting map[uint64]chan outcome
	over    bool
}

type outcome struct {
	body []byte
	err  error
}

// open begins to use a connection. It lives until it breaks or is ended.
func (h *Hub) open(conn *Conn) (*session, error) {
	s := &session{wire: newWire(conn), waiting: map[uint64]chan outcome{}}
	if !h.start(s.writeCalls) || !h.start(s.readAnswers) {
		s.end()
		return nil, ErrClosed
	}
	return s, nil
}

// call sends a request and waits for its answer.
func (s *session) call(ctx context.Context, method string, body []byte) ([]byte, error) {
	left := time.Duration(0)
	if deadline, bounded := ctx.Deadline(); bounded {
		if left = deadline.Sub(s.conn.hub.opts.Now()); left <= 0 {
			return nil, context.DeadlineExceeded
		}
	}
	heard := make(chan outcome, 1)
	id, err := s.await(heard)
	if err != nil {
		return nil, err
	}
	defer s.forget(id)
	if err := s.send(ctx, callFrame(id, left, method, body)); err != nil {
		return nil, err
	}
	select {
	case o := <-heard:
		return o.body, o.err
	case <-ctx.Done():
		s.cancel(id)
		return nil, ctx.Err()
	}
}

func (s *session) await(heard chan outcome) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return 0, ErrDisconnected
	}
	s.next++
	s.waiting[s.next] = heard
	return s.next, nil
}

func (s *session) forget(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, id)
}

// cancel tells the other side that nobody waits any more, if that can be said soon.
func (s *session) cancel(id uint64) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	_ = s.send(ctx, newFrame(frameCancel, id, nil, nil))
}

// readAnswers hands answers to those who wait. It ends with the connection.
func (s *session) readAnswers() {
	defer s.end()
	in := s.reader()
	for {
		f, err := readFrame(in)
		if err != nil {
			return
		}
		o := outcome{body: f.rest}
		switch f.t {
		case framePong:
			continue
		case frameAnswer:
		case frameFailure:
			e, err := decodeFailure(f.rest)
			if err != nil {
				return
			}
			o = outcome{err: e}
		default:
			return
		}
		s.mu.Lock()
		heard := s.waiting[f.id]
		delete(s.waiting, f.id)
		s.mu.Unlock()
		if heard != nil {
			heard <- o
		}
	}
}

// end closes the connection and fails all calls that are under way.
func (s *session) end() {
	_ = s.conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	for id, heard := range s.waiting {
		heard <- outcome{err: ErrDisconnected}
		delete(s.waiting, id)
	}
}

// writeCalls writes, and pings. When writing fails, calls need not wait for the reader to notice.
func (s *session) writeCalls() {
	defer s.end()
	s.write(true)
}

// failed is how an error of a method travels.
func failed(err error) *Error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{CodeDeadline, err.Error()}
	}
	return &Error{CodeOther, err.Error()}
}
