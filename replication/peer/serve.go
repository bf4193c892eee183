package peer

import (
	"bufio"
	"context"
	"io"
	"sync"
	"time"
)

// wire is what both sides of a Request connection have in common: a goroutine that writes frames.
type wire struct {
	conn *Conn
	out  chan frame // unbuffered: the bytes are those of the calls under way
}

func newWire(conn *Conn) *wire { return &wire{conn: conn, out: make(chan frame)} }

// send hands a frame to the writer.
func (w *wire) send(ctx context.Context, f frame) error {
	select {
	case w.out <- f:
		return nil
	case <-w.conn.Done():
		return ErrDisconnected
	case <-ctx.Done():
		return ctx.Err()
	}
}

// write writes frames, and pings when asked to. It ends with the connection, or when a write takes longer than a peer may be silent.
func (w *wire) write(pings bool) {
	hub := w.conn.hub
	ticker := time.NewTicker(hub.opts.PingEvery)
	defer ticker.Stop()
	for {
		var f frame
		select {
		case f = <-w.out:
		case <-ticker.C:
			if !pings {
				continue
			}
			f = newFrame(framePing, 0, nil, nil)
		case <-w.conn.Done():
			return
		}
		if err := w.put(f, hub.opts.Now().Add(hub.silence())); err != nil {
			return
		}
	}
}

// joinBelow is the size up to which copying a body is cheaper than a second record or segment.
const joinBelow = 32 << 10

func (w *wire) put(f frame, deadline time.Time) error {
	_ = w.conn.SetWriteDeadline(deadline)
	if len(f.body) <= joinBelow {
		f.head, f.body = append(f.head, f.body...), nil
	}
	_, err := w.conn.Write(f.head)
	if err == nil && len(f.body) > 0 {
		_, err = w.conn.Write(f.body)
	}
	return err
}

// silence is for how long nothing may be heard on a Request connection.
func (h *Hub) silence() time.Duration { return 3 * h.opts.PingEvery }

// reader reads with a deadline that moves on as long as something comes.
func (w *wire) reader() io.Reader { return bufio.NewReaderSize(&patient{w.conn}, 16<<10) }

type patient struct{ conn *Conn }

func (p *patient) Read(b []byte) (int, error) {
	hub := p.conn.hub
	_ = p.conn.SetReadDeadline(hub.opts.Now().Add(hub.silence()))
	return p.conn.Read(b)
}

// servant is the accepting side of a Request connection.
type servant struct {
	*wire
	mu    sync.Mutex // guards the fields below; never held across a call
	calls map[uint64]context.CancelFunc
	bytes int
}

// serve is the handler of Request connections. It returns when the connection has ended and so has every method.
func (h *Hub) serve(ctx context.Context, conn *Conn) {
	s := &servant{wire: newWire(conn), calls: map[uint64]context.CancelFunc{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		defer conn.Close()
		s.write(false)
	})
	in := s.reader()
	for {
		f, err := readFrame(in)
		if err == nil {
			err = s.take(ctx, f, &wg)
		}
		if err != nil {
			break
		}
	}
	_ = conn.Close()
	wg.Wait()
}

// take deals with one frame; an error ends the connection.
func (s *servant) take(ctx context.Context, f received, wg *sync.WaitGroup) error {
	switch f.t {
	case framePing:
		return s.send(ctx, newFrame(framePong, f.id, nil, nil))
	case frameCancel:
		s.mu.Lock()
		defer s.mu.Unlock()
		if cancel := s.calls[f.id]; cancel != nil {
			cancel()
		}
		return nil
	case frameCall:
		left, method, body, err := decodeCall(f.rest)
		if err != nil {
			return err
		}
		if left == 0 || left > mostTime {
			left = mostTime
		}
		callCtx, cancel := context.WithTimeout(ctx, left)
		if !s.begin(f.id, len(body), cancel) {
			cancel()
			return s.send(ctx, failureFrame(f.id, &Error{CodeBusy, "too many calls under way"}))
		}
		wg.Go(func() {
			defer cancel()
			defer s.finish(f.id, len(body))
			_ = s.send(ctx, s.answer(callCtx, f.id, method, body)) // or the connection has ended
		})
		return nil
	}
	return ErrProtocol
}

func (s *servant) begin(id uint64, size int, cancel context.CancelFunc) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.calls) >= 2*maxCalls || s.bytes+size > 2*maxCallBytes || s.calls[id] != nil {
		return false
	}
	s.calls[id] = cancel
	s.bytes += size
	return true
}

func (s *servant) finish(id uint64, size int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.calls, id)
	s.bytes -= size
}

// answer runs a method.
func (s *servant) answer(ctx context.Context, id uint64, method string, body []byte) frame {
	m := s.conn.hub.method(method)
	if m == nil {
		return failureFrame(id, &Error{CodeNoMethod, "no method " + method})
	}
	answer, err := m(ctx, s.conn.Peer(), body)
	switch {
	case err != nil:
		return failureFrame(id, failed(err))
	case len(answer) > MaxBodyBytes:
		return failureFrame(id, &Error{CodeTooLarge, "the answer is too large"})
	}
	return newFrame(frameAnswer, id, nil, answer)
}
