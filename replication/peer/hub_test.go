package peer

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"
)

// book is a directory that can be written to.
type book struct {
	mu    sync.Mutex
	where map[int32]string
}

func (b *book) AddressOf(node int32) (string, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a, known := b.where[node]
	return a, known
}

func (b *book) set(node int32, address string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.where[node] = address
}

func newBook() *book { return &book{where: map[int32]string{}} }

// lines is what was logged.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Count(l.b.Bytes(), []byte(what))
}

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// listen begins a node on loopback, which ends with the test; a goroutine of the hub that does not end then fails it.
func listen(t *testing.T, node int32, b *book, change ...func(*Options)) *Hub {
	t.Helper()
	o := Options{Address: "127.0.0.1:0", Self: Identity{ClusterID: "c", NodeID: node, Incarnation: [16]byte{byte(node), 1}}, Now: time.Now}
	if b != nil {
		o.Directory = b
	}
	for _, f := range change {
		f(&o)
	}
	h, err := Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	if b != nil {
		b.set(node, h.Advertise())
	}
	t.Cleanup(func() { shut(t, h) })
	return h
}

func shut(t *testing.T, h *Hub) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := h.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

// until waits for what happens on another goroutine.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for begun := time.Now(); !is(); time.Sleep(time.Millisecond) {
		if time.Since(begun) > 10*time.Second {
			t.Fatal("not within 10 s: " + what)
		}
	}
}

// hold is a handler that keeps the connection until it ends.
func hold(ctx context.Context, conn *Conn) {
	var b [1]byte
	_, _ = conn.Read(b[:])
}

// TestListen: addresses that nobody could reach are refused, and both sockets have the same port.
func TestListen(t *testing.T) {
	tests := []struct {
		address, advertise string
		want               error
	}{
		{"0.0.0.0:0", "", ErrAdvertise},
		{":0", "", ErrAdvertise},
		{"127.0.0.1:0", "0.0.0.0:0", ErrAdvertise},
		{"127.0.0.1:0", "somewhere", ErrAdvertise},
		{"127.0.0.1:0", "broker-1:99999", ErrAdvertise},
		{"0.0.0.0:0", "127.0.0.1:0", nil},
		{"127.0.0.1:0", "broker-1:9093", nil},
	}
	for _, tt := range tests {
		h, err := Listen(Options{Address: tt.address, Advertise: tt.advertise, Self: Identity{NodeID: 1}, Now: time.Now})
		if !errors.Is(err, tt.want) {
			t.Errorf("%+v: %v", tt, err)
		}
		if err != nil {
			continue
		}
		if tt.advertise == "broker-1:9093" && h.Advertise() != tt.advertise {
			t.Errorf("advertised %q", h.Advertise())
		}
		if h.packets.LocalAddr().String() != h.listener.Addr().String() {
			t.Errorf("UDP at %v, TCP at %v", h.packets.LocalAddr(), h.listener.Addr())
		}
		shut(t, h)
	}
}

// TestResolve: IPv4 comes first, and what is no address is an error.
func TestResolve(t *testing.T) {
	for in, want := range map[string]string{"127.0.0.1:1": "127.0.0.1:1", "[::1]:2": "[::1]:2", "localhost:3": "127.0.0.1:3", "nothing": ""} {
		got, err := Resolve(t.Context(), in)
		if (err != nil) != (want == "") || err == nil && got[0] != want {
			t.Errorf("%s: %v %v", in, got, err)
		}
	}
}

// TestNotListening: a process that has ended is told from one that does not answer.
func TestNotListening(t *testing.T) {
	b := newBook()
	one, two := listen(t, 1, b), listen(t, 2, b)
	shut(t, two)
	if _, err := one.Dial(t.Context(), 2, Request); !errors.Is(err, ErrNotListening) {
		t.Error(err)
	}
	if _, err := one.Call(t.Context(), 2, "x", nil); !errors.Is(err, ErrNotListening) {
		t.Error(err)
	}
}

// TestClusterID: it is set once.
func TestClusterID(t *testing.T) {
	h := listen(t, 1, nil, func(o *Options) { o.Self.ClusterID = "" })
	if err := h.SetClusterID("a"); err != nil || h.Self().ClusterID != "a" {
		t.Error(err, h.Self())
	}
	if err := h.SetClusterID("a"); err != nil {
		t.Error(err)
	}
	if err := h.SetClusterID("b"); !errors.Is(err, ErrClusterID) || h.Self().ClusterID != "a" {
		t.Error(err, h.Self())
	}
}

// TestWatch: a node is up with its first connection and down with its last.
func TestWatch(t *testing.T) {
	b := newBook()
	one, two := listen(t, 1, b), listen(t, 2, b)
	seen := make(chan event, 10)
	one.Watch(func(node int32, up bool) { seen <- event{node, up} })
	expect := func(want event) {
		t.Helper()
		select {
		case got := <-seen:
			if got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("no %+v", want)
		}
	}
	call := func(from *Hub, to int32) {
		t.Helper()
		if _, err := from.Call(t.Context(), to, "nothing", nil); !isCode(err, CodeNoMethod) {
			t.Fatal(err)
		}
	}
	call(two, 1)
	expect(event{2, true})
	call(one, 2) // the other direction is no news
	shut(t, two)
	expect(event{2, false})
	if len(seen) > 0 {
		t.Errorf("too much: %+v", <-seen)
	}
}

func isCode(err error, code Code) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}
