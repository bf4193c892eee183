package server

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// doorOptions are the options of a server without an engine, under a test's clock.
func doorOptions() Options {
	return Options{
		RequestMaxBytes: 1 << 20, QueuedRequestBytes: 4 << 20, FetchResponseBytes: 4 << 20, FetchMaxBytes: 1 << 20, FetchSessions: 10,
		MaxIdle: 10 * time.Minute, FrameTime: 30 * time.Second, WriteTime: 30 * time.Second, MemoryTime: 30 * time.Second,
		ReadAhead: 4, ReadAheadMax: 1 << 20, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
	}
}

// knock connects to a server without an engine through a pipe.
func knock(t *testing.T, list ...*api) (*Server, net.Conn) {
	t.Helper()
	s, err := newServer(doorOptions(), append(list, &apiVersions, &produce))
	if err != nil {
		t.Fatal(err)
	}
	client, here := net.Pipe()
	s.welcome(here)
	return s, client
}

func request(key, version int16, id int32, body ...byte) []byte {
	b := make([]byte, 4, 64)
	b = appendInt16(b, key)
	b = appendInt16(b, version)
	b = appendInt32(b, id)
	b = append(b, 0, 1, 'c')
	b = append(b, body...)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// lasts is how long a connection stays open while nobody writes to it.
func lasts(t *testing.T, c net.Conn) time.Duration {
	t.Helper()
	start := time.Now()
	if _, err := io.Copy(io.Discard, c); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		t.Fatal(err)
	}
	return time.Since(start)
}

// trickle writes the first bytes of b at once, and then a piece at a time.
func trickle(c net.Conn, b []byte, first, piece int, pause time.Duration) {
	for n := first; len(b) > 0; n = piece {
		n = min(n, len(b))
		if _, err := c.Write(b[:n]); err != nil {
			return
		}
		if b = b[n:]; n == piece {
			time.Sleep(pause)
		}
	}
}

// largeProduceBody is a produce request with records of n bytes for one partition,
// behind a flexible header.
func largeProduceBody(version int16, n int) []byte {
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Topics = version, []kmsg.ProduceRequestTopic{{Topic: "t", Partitions: []kmsg.ProduceRequestTopicPartition{{Records: make([]byte, n)}}}}
	return req.AppendTo([]byte{0})
}

func TestConnectionTimes(t *testing.T) {
	tests := []struct {
		name  string
		write func(net.Conn)
		want  time.Duration
	}{
		{"nothing is sent", func(net.Conn) {}, 10 * time.Minute},
		{"one byte is sent", func(c net.Conn) { c.Write([]byte{0}) }, 30 * time.Second},
		{"only the size is sent", func(c net.Conn) { c.Write([]byte{0, 0, 1, 0}) }, 30 * time.Second},
		{"half a request is sent", func(c net.Conn) { c.Write(request(18, 0, 1)[:12]) }, 30 * time.Second},
		{"a byte comes every 29 seconds", func(c net.Conn) {
			go func() {
				r := request(18, 0, 1, make([]byte, 100)...)
				c.Write(r[:4])
				for _, b := range r[4:] {
					if _, err := c.Write([]byte{b}); err != nil {
						return
					}
					time.Sleep(29 * time.Second)
				}
			}()
		}, 30 * time.Second},
		{"a produce request comes by one byte every 29 seconds", func(c net.Conn) {
			go trickle(c, request(0, 9, 1, make([]byte, 100)...), 4, 1, 29*time.Second)
		}, 30 * time.Second},
		{"a large produce request comes by 1 KiB every second", func(c net.Conn) {
			go trickle(c, request(0, 9, 1, largeProduceBody(9, 200<<10)...), 4, 1<<10, time.Second)
		}, 30 * time.Second},
		{"a large produce request comes by 64 KiB every 14 seconds and stops", func(c net.Conn) {
			b := request(0, 9, 1, largeProduceBody(9, 200<<10)...)
			go trickle(c, b[:len(b)-10], 4, 64<<10, 14*time.Second)
		}, 14*time.Second + 30*time.Second},
		{"a produce request of a version that is not served", func(c net.Conn) { c.Write(request(0, 2, 1, 0)) }, 0},
		{"records longer than the rest of their request", func(c net.Conn) {
			b := request(0, 9, 1, largeProduceBody(9, 200<<10)...)
			b[2]-- // of the size field
			c.Write(b[:100])
		}, 0},
		{"a request is answered", func(c net.Conn) { c.Write(request(18, 0, 1)) }, 10 * time.Minute},
		{"the answer is not read", nil, 30 * time.Second},
		{"a negative size", func(c net.Conn) { c.Write([]byte{0xff, 0xff, 0xff, 0xff}) }, 0},
		{"a size beyond the limit", func(c net.Conn) { c.Write([]byte{0x7f, 0xff, 0xff, 0xff}) }, 0},
		{"a size below the header", func(c net.Conn) { c.Write([]byte{0, 0, 0, 3}) }, 0},
		{"an unknown api", func(c net.Conn) { c.Write(request(999, 0, 1)) }, 0},
		{"a client id longer than the request", func(c net.Conn) {
			b := request(18, 0, 1)
			b[12] = 0x7f
			c.Write(b)
		}, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, client := knock(t)
				if test.write != nil {
					test.write(client)
					if got := lasts(t, client); got != test.want {
						t.Errorf("closed after %v, want %v", got, test.want)
					}
				} else {
					client.Write(request(18, 0, 1))
					start := time.Now()
					s.conns.Wait()
					if got := time.Since(start); got != test.want {
						t.Errorf("closed after %v, want %v", got, test.want)
					}
				}
				client.Close()
				time.Sleep(time.Minute)
				if err := s.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
				if n := s.Stats().Connections; n != 0 {
					t.Errorf("%d connections left", n)
				}
			})
		})
	}
}

func TestApiVersionsThatIsNotKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, client := knock(t)
		go client.Write(request(18, 77, 5, 0, 2, 'x', 2, 'y', 0))
		var size [4]byte
		if _, err := io.ReadFull(client, size[:]); err != nil {
			t.Fatal(err)
		}
		body := make([]byte, binary.BigEndian.Uint32(size[:]))
		io.ReadFull(client, body)
		resp := kmsg.NewPtrApiVersionsResponse()
		if err := resp.ReadFrom(body[4:]); err != nil || binary.BigEndian.Uint32(body) != 5 {
			t.Fatalf("response %x: %v", body, err)
		}
		if resp.ErrorCode != codeUnsupportedVersion || len(resp.ApiKeys) != 1 || resp.ApiKeys[0].MaxVersion != apiVersions.max {
			t.Errorf("got %+v", resp)
		}
		client.Close()
		s.Shutdown(t.Context())
	})
}

func TestPanicEndsOneConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		boom := &api{key: 60, min: 0, max: 0, serve: func(*Server, context.Context, *call, kmsg.Request) (kmsg.Response, error) { panic("boom") }}
		s, client := knock(t, boom)
		other, here := net.Pipe()
		s.welcome(here)
		client.Write(request(60, 0, 1, 0, 0, 0))
		if got := lasts(t, client); got != 0 {
			t.Errorf("closed after %v", got)
		}
		synctest.Wait() // a connection is closed before it is taken off the list
		if n := s.Stats(); n.Panics != 1 || n.Connections != 1 {
			t.Errorf("stats %+v", n)
		}
		go other.Write(request(18, 0, 1))
		if _, err := io.ReadFull(other, make([]byte, 20)); err != nil {
			t.Errorf("the other connection: %v", err)
		}
		other.Close()
		s.Shutdown(t.Context())
	})
}

func TestShutdownLetsHandlersFinish(t *testing.T) {
	for _, test := range []struct {
		name           string
		work, patience time.Duration
		answered       bool
		want           time.Duration
	}{
		{"in time", 3 * time.Second, 10 * time.Second, true, 3 * time.Second},
		{"too slow", time.Hour, 10 * time.Second, false, 10 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				slow := &api{key: 60, min: 0, max: 0, serve: func(_ *Server, ctx context.Context, _ *call, _ kmsg.Request) (kmsg.Response, error) {
					select {
					case <-time.After(test.work):
						return kmsg.NewPtrDescribeClusterResponse(), nil
					case <-ctx.Done():
						return nil, ctx.Err()
					}
				}}
				s, client := knock(t, slow)
				client.Write(request(60, 0, 1, 0, 0, 0))
				synctest.Wait()
				got := make(chan int64)
				go func() {
					n, _ := io.Copy(io.Discard, client)
					got <- n
				}()
				ctx, cancel := context.WithTimeout(t.Context(), test.patience)
				defer cancel()
				start := time.Now()
				if err := s.Shutdown(ctx); (err == nil) != test.answered {
					t.Errorf("shutdown: %v", err)
				}
				if took := time.Since(start); took != test.want {
					t.Errorf("took %v, want %v", took, test.want)
				}
				if n := <-got; (n > 0) != test.answered {
					t.Errorf("%d bytes of an answer", n)
				}
			})
		})
	}
}

// poorListener has no descriptors until it is closed.
type poorListener struct {
	accepts int
	closed  chan struct{}
}

func (l *poorListener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
		l.accepts++
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
}

func (l *poorListener) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}

func (l *poorListener) Addr() net.Addr { return &net.TCPAddr{} }

func TestAcceptDoesNotSpinWithoutDescriptors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := newServer(doorOptions(), []*api{&apiVersions})
		if err != nil {
			t.Fatal(err)
		}
		l := &poorListener{closed: make(chan struct{})}
		done := make(chan error)
		go func() { done <- s.Serve(t.Context(), l) }()
		time.Sleep(time.Minute)
		s.Shutdown(t.Context())
		if err := <-done; err != nil {
			t.Error(err)
		}
		if l.accepts < 50 || l.accepts > 80 {
			t.Errorf("%d accepts in a minute", l.accepts)
		}
	})
}

func TestDescriptorsLimitConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := doorOptions()
		opts.MaxConnections = 2
		s, err := newServer(opts, []*api{&apiVersions})
		if err != nil {
			t.Fatal(err)
		}
		var clients []net.Conn
		for range 3 {
			client, here := net.Pipe()
			s.welcome(here)
			clients = append(clients, client)
		}
		if got := lasts(t, clients[2]); got != 0 {
			t.Errorf("the third stays %v", got)
		}
		if n := s.Stats(); n.Refused != 1 || n.Connections != 2 {
			t.Errorf("stats %+v", n)
		}
		clients[0].Close()
		synctest.Wait()
		client, here := net.Pipe()
		s.welcome(here)
		go client.Write(request(18, 0, 1))
		if _, err := io.ReadFull(client, make([]byte, 20)); err != nil {
			t.Errorf("one after the first has left: %v", err)
		}
		client.Close()
		s.Shutdown(t.Context())
	})
}

func TestSmallFramesHaveAReserve(t *testing.T) {
	b := newBudget(16 << 20)
	all, err := b.take(t.Context(), 15<<20, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	small, err := b.take(t.Context(), 1000, time.Nanosecond)
	if err != nil {
		t.Fatalf("a heartbeat: %v", err)
	}
	if _, err := b.take(t.Context(), 1<<20, time.Nanosecond); !errors.Is(err, errBudget) {
		t.Errorf("a large frame: %v", err)
	}
	if b.more(&small, 100<<10) {
		t.Error("a small one grows, at the cost of all other small ones")
	}
	small.giveBack()
	all.giveBack()
	if again, err := b.take(t.Context(), 15<<20, time.Nanosecond); err != nil {
		t.Errorf("after all was given back: %v", err)
	} else {
		again.giveBack()
	}
}

func TestBuffersHaveTheSizeThatIsCharged(t *testing.T) {
	for _, n := range []int{0, 1, 1023, 1024, 1025, 64 << 10, 1<<20 + 1, 4 << 20, 4<<20 + 1, 99 << 20} {
		b := newBuffer(n)
		if cap(b.b) < n || cap(b.b) < bufferSize(n) || len(b.b) != 0 {
			t.Errorf("buffer for %d: length %d, capacity %d, size %d", n, len(b.b), cap(b.b), bufferSize(n))
		}
		b.release()
	}
}
