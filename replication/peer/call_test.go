package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// echo answers with what it got, and waits for an "slow" one until its context ends.
func echo(ctx context.Context, from Identity, body []byte) ([]byte, error) {
	if bytes.HasPrefix(body, []byte("slow")) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return append([]byte(fmt.Sprint(from.NodeID, " ")), body...), nil
}

// TestManyCalls: many calls at once share one connection and do not mix up their answers.
func TestManyCalls(t *testing.T) {
	b := newBook()
	one, two := listen(t, 1, b), listen(t, 2, b)
	two.Register("echo", echo)
	gate, inside := make(chan struct{}), atomic.Int32{}
	two.Register("together", func(ctx context.Context, from Identity, body []byte) ([]byte, error) {
		if inside.Add(1) == 100 {
			close(gate)
		}
		select {
		case <-gate:
			return body, nil
		case <-ctx.Done():
			return nil, errors.New("the others did not come")
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			body := []byte(strings.Repeat(fmt.Sprint(i, " "), 1+i*100)) // up to 40 KB
			if got, err := one.Call(ctx, 2, "together", body); err != nil || !bytes.Equal(got, body) {
				t.Errorf("call %d: %d bytes, %v", i, len(got), err)
			}
			for range 10 {
				if got, err := one.Call(ctx, 2, "echo", body); err != nil || !bytes.Equal(got, append([]byte("1 "), body...)) {
					t.Errorf("call %d: %d bytes, %v", i, len(got), err)
				}
			}
		})
	}
	wg.Wait()
	if n := open(one); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestCallBounds: more calls than may be under way wait for their turn, and what is too large is not sent.
func TestCallBounds(t *testing.T) {
	b := newBook()
	one, two := listen(t, 1, b), listen(t, 2, b)
	var now, most atomic.Int32
	two.Register("count", func(context.Context, Identity, []byte) ([]byte, error) {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		time.Sleep(time.Millisecond)
		return nil, nil
	})
	two.Register("big", func(context.Context, Identity, []byte) ([]byte, error) { return make([]byte, MaxBodyBytes+1), nil })
	var wg sync.WaitGroup
	for range 1000 {
		wg.Go(func() {
			if _, err := one.Call(t.Context(), 2, "count", make([]byte, 100)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if m := most.Load(); m > 2*maxCalls || m < 2 {
		t.Errorf("%d calls at once", m)
	}
	if _, err := one.Call(t.Context(), 2, "count", make([]byte, MaxBodyBytes+1)); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	if _, err := one.Call(t.Context(), 2, strings.Repeat("m", 256), nil); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	if _, err := one.Call(t.Context(), 2, "big", nil); !isCode(err, CodeTooLarge) {
		t.Error(err)
	}
	if _, err := one.Call(t.Context(), 2, "count", make([]byte, MaxBodyBytes)); err != nil {
		t.Error(err)
	}
}

// TestFlood: a peer that does not keep to the bounds is told that there is too much under way.
func TestFlood(t *testing.T) {
	one, two := listen(t, 1, nil), listen(t, 2, nil)
	two.Register("echo", echo)
	c, err := one.DialAddress(t.Context(), two.Advertise(), Request)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for id := range uint64(2*maxCalls + 5) {
		if _, err := c.Write(flat(callFrame(id+1, time.Minute, "echo", []byte("slow")))); err != nil {
			t.Fatal(err)
		}
	}
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	for range 5 {
		f, err := readFrame(c)
		if err != nil || f.t != frameFailure || f.id <= 2*maxCalls {
			t.Fatal(f, err)
		}
		if e, err := decodeFailure(f.rest); err != nil || e.Code != CodeBusy {
			t.Fatal(e, err)
		}
	}
}

// TestCallErrors: errors keep their code and text, whoever is called.
func TestCallErrors(t *testing.T) {
	b := newBook()
	one, two := listen(t, 1, b), listen(t, 2, b)
	for _, h := range []*Hub{one, two} {
		h.Register("coded", func(context.Context, Identity, []byte) ([]byte, error) {
			return nil, fmt.Errorf("around it: %w", &Error{CodeFree + 7, "told"})
		})
		h.Register("plain", func(context.Context, Identity, []byte) ([]byte, error) { return nil, errors.New("plain text") })
	}
	for _, node := range []int32{1, 2} { // itself, and another
		for method, want := range map[string]Error{"coded": {CodeFree + 7, "told"}, "plain": {CodeOther, "plain text"}, "none": {CodeNoMethod, "no method none"}} {
			_, err := one.Call(t.Context(), node, method, nil)
			var e *Error
			if !errors.As(err, &e) || *e != want {
				t.Errorf("node %d, %s: %v", node, method, err)
			}
		}
	}
	if _, err := one.Call(t.Context(), 9, "x", nil); !errors.Is(err, ErrUnknownNode) {
		t.Error(err)
	}
}

// TestDeadline: the deadline is the handler's too, and giving up is heard there.
func TestDeadline(t *testing.T) {
	b := newBook()
	one, two := listen(t, 1, b), listen(t, 2, b)
	ended := make(chan error, 1)
	left := make(chan time.Duration, 1)
	two.Register("wait", func(ctx context.Context, _ Identity, _ []byte) ([]byte, error) {
		deadline, _ := ctx.Deadline()
		left <- time.Until(deadline)
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := one.Call(ctx, 2, "wait", nil); !errors.Is(err, context.DeadlineExceeded) && !isCode(err, CodeDeadline) {
		t.Error(err)
	}
	if d := <-left; d > time.Second {
		t.Errorf("%v were left there", d)
	}
	<-ended
	ctx, cancel = context.WithCancel(t.Context())
	go func() {
		if d := <-left; d > mostTime || d < mostTime-10*time.Second {
			t.Errorf("%v were left there", d)
		}
		cancel()
	}()
	begun := time.Now()
	if _, err := one.Call(ctx, 2, "wait", nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Errorf("the handler waits still, after %v", time.Since(begun))
	}
}

// TestDisconnected: when the other side goes, calls fail at once, and the next one reaches it again, also at another address.
func TestDisconnected(t *testing.T) {
	b := newBook()
	one, two := listen(t, 1, b), listen(t, 2, b)
	entered := make(chan struct{}, 50)
	register := func(h *Hub) {
		h.Register("echo", func(ctx context.Context, from Identity, body []byte) ([]byte, error) {
			entered <- struct{}{}
			return echo(ctx, from, body)
		})
	}
	register(two)
	errs := make(chan error, 50)
	for range 50 {
		go func() {
			_, err := one.Call(t.Context(), 2, "echo", []byte("slow"))
			errs <- err
		}()
	}
	for range 50 {
		<-entered
	}
	begun := time.Now()
	shut(t, two)
	for range 50 {
		if err := <-errs; !errors.Is(err, ErrDisconnected) {
			t.Error(err)
		}
	}
	if d := time.Since(begun); d > 2*time.Second {
		t.Errorf("it took %v", d)
	}
	if _, err := one.Call(t.Context(), 2, "echo", nil); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Error("nobody is there:", err)
	}
	again := listen(t, 2, b, func(o *Options) { o.Self.Incarnation = [16]byte{2, 9} })
	register(again)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if got, err := one.Call(ctx, 2, "echo", []byte("x")); err != nil || string(got) != "1 x" {
		t.Errorf("%q %v", got, err)
	}
}

// TestBackoff: a node that cannot be reached is dialled again after pauses that grow, however often it is called.
func TestBackoff(t *testing.T) {
	b := newBook()
	var dials atomic.Int32
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			dials.Add(1)
			_ = c.Close()
		}
	}()
	b.set(2, l.Addr().String())
	one := listen(t, 1, b)
	ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := one.Call(ctx, 2, "x", nil); err == nil {
					t.Error("no error")
				}
			}
		})
	}
	wg.Wait()
	if n := dials.Load(); n < 2 || n > 6 { // after 0, 20, 60, 140, 300 ms
		t.Errorf("dialled %d times", n)
	}
}

// TestSilentPeer: a peer that is cut off without a word is noticed by the pings that it does not answer, on both sides.
func TestSilentPeer(t *testing.T) {
	t.Parallel()
	b := newBook()
	often := func(o *Options) { o.PingEvery = 400 * time.Millisecond }
	one, two := listen(t, 1, b, often), listen(t, 2, b, often)
	two.Register("echo", echo)
	cut := newRelay(t, two.Advertise())
	b.set(2, cut.l.Addr().String())
	if _, err := one.Call(t.Context(), 2, "echo", nil); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1500 * time.Millisecond) // idle for longer than the silence that is allowed
	if n := open(two); n != 1 {
		t.Fatalf("%d connections: pings did not keep it", n)
	}
	cut.stop.Store(true)
	begun := time.Now()
	if _, err := one.Call(t.Context(), 2, "echo", nil); !errors.Is(err, ErrDisconnected) {
		t.Error(err)
	}
	until(t, "the other side notices", func() bool { return open(two) == 0 })
	if d := time.Since(begun); d > 8*time.Second {
		t.Errorf("it took %v", d)
	}
}

// relay passes bytes on until it is told to stop, and then keeps quiet.
type relay struct {
	l    net.Listener
	stop atomic.Bool
}

func newRelay(t *testing.T, to string) *relay {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{l: l}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			t.Cleanup(func() { _, _ = in.Close(), out.Close() })
			go r.pass(in, out)
			go r.pass(out, in)
		}
	}()
	return r
}

func (r *relay) pass(from, to net.Conn) {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			if !r.stop.Load() {
				_ = to.Close()
			}
			return
		}
		if r.stop.Load() {
			continue
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}

// TestCallAddress: a seed is asked without knowing who it is.
func TestCallAddress(t *testing.T) {
	two := listen(t, 2, nil)
	two.Register("echo", echo)
	one := listen(t, 1, nil, func(o *Options) { o.Self.ClusterID = "" })
	for range 2 {
		if got, err := one.CallAddress(t.Context(), two.Advertise(), "echo", []byte("x")); err != nil || string(got) != "1 x" {
			t.Errorf("%q %v", got, err)
		}
	}
	until(t, "nothing is left", func() bool { return open(one) == 0 && open(two) == 0 })
	if got, err := one.CallAddress(t.Context(), one.Advertise(), "echo", nil); !isCode(err, CodeNoMethod) {
		t.Errorf("itself: %q %v", got, err)
	}
}
