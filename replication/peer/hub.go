package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"
)

// Options say who a node is and where it listens. Address, Self and Now must be given.
type Options struct {
	Address   string           // where to listen, TCP and UDP alike; port 0 takes a free one
	Advertise string           // host:port by which others reach this node; "": Address, which must then name a host; port 0: the one that is listened at
	Self      Identity         // see also SetClusterID
	Secret    []byte           // what all nodes share; empty: nobody is asked for one
	TLS       *tls.Config      // for both directions, 1.3 or later; nil: plain TCP. The name that is verified is the host that is dialled
	Directory Directory        // where nodes are; nil: only DialAddress and CallAddress reach anyone
	Now       func() time.Time // a clock that does not jump
	Logger    *slog.Logger     // nil: silent

	HandshakeTimeout time.Duration // for everything until a connection can be used; 5 s
	PingEvery        time.Duration // on Request connections; one that is silent for three times as long is closed; 2 s
}

// Directory knows where nodes are. It must not block.
type Directory interface {
	// AddressOf returns the host:port that a node advertises.
	AddressOf(node int32) (address string, known bool)
}

// Handler serves one connection, on a goroutine of its own. The connection is closed when it returns. The context ends with the connection or the hub; a handler that outlives
// it makes Shutdown wait.
type Handler func(ctx context.Context, conn *Conn)

// Method answers a request, on a goroutine of its own. The context ends with the caller's deadline or connection. An error that is an [Error] travels with its code,
// another as text. The body is the method's to keep.
type Method func(ctx context.Context, from Identity, body []byte) ([]byte, error)

const (
	maxConns      = 4096 // of a hub
	maxHandshakes = 128  // under way with those who dialled; others are cut off
	maxEvents     = 1024 // for watchers that lag behind
)

// Hub is one node's part in the traffic between nodes. All methods may be called concurrently.
type Hub struct {
	opts            Options
	secret          bool
	lowest, highest byte // versions of the protocol
	quiet           *quiet
	log             *slog.Logger
	listener        net.Listener
	packets         net.PacketConn
	advertise       string
	ctx             context.Context // ends with Shutdown
	cancel          context.CancelFunc
	wg              sync.WaitGroup // everything that was started
	shaking         chan struct{}  // a place for each handshake under way
	eventful        chan struct{}  // wakes the herald, capacity one

	mu        sync.Mutex // guards the fields below; never held across a call
	clusterID string
	closed    bool
	handlers  map[Kind]Handler
	methods   map[string]Method
	conns     map[*Conn]struct{}
	present   map[int32]*presence // of nodes with Request connections
	callers   map[int32]*caller
	watchers  []func(node int32, up bool)
	events    []event
}

// presence is what is known of a node while there are Request connections with it, in whatever direction.
type presence struct {
	incarnation [16]byte
	conns       int
}

type event struct {
	node int32
	up   bool
}

// Listen opens the node's two sockets and begins to serve. Until [Hub.Handle] is called for a kind, connections of that kind are
// refused; Request is served at once.
func Listen(opts Options) (*Hub, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.HandshakeTimeout == 0 {
		opts.HandshakeTimeout = 5 * time.Second
	}
	if opts.PingEvery == 0 {
		opts.PingEvery = 2 * time.Second
	}
	if opts.TLS != nil {
		opts.TLS = opts.TLS.Clone()
		opts.TLS.MinVersion = max(opts.TLS.MinVersion, tls.VersionTLS13) // earlier ones cannot be bound to the proof
	}
	if len(opts.Self.ClusterID) > 255 {
		return nil, ErrClusterID
	}
	h := &Hub{opts: opts, secret: len(opts.Secret) > 0, lowest: lowestVersion, highest: highestVersion, log: opts.Logger,
		quiet:   &quiet{log: opts.Logger, now: opts.Now, last: map[string]time.Time{}},
		shaking: make(chan struct{}, maxHandshakes), eventful: make(chan struct{}, 1), clusterID: opts.Self.ClusterID,
		handlers: map[Kind]Handler{}, methods: map[string]Method{}, conns: map[*Conn]struct{}{}, present: map[int32]*presence{}, callers: map[int32]*caller{}}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	if err := h.listen(); err != nil {
		h.cancel()
		return nil, err
	}
	h.handlers[Request] = h.serve
	h.start(h.accept)
	h.start(h.herald)
	return h, nil
}

var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: time.Second, Count: 3}

// listen opens TCP and UDP at the same port. A free port of one may be taken of the other, so it tries a few.
func (h *Hub) listen() (err error) {
	lc := net.ListenConfig{KeepAliveConfig: keepAlive}
	host, port, err := net.SplitHostPort(h.opts.Address)
	if err != nil {
		return fmt.Errorf("peer: listen: %w", err)
	}
	for range 10 {
		h.listener, err = lc.Listen(h.ctx, "tcp", h.opts.Address)
		if err != nil {
			return fmt.Errorf("peer: listen: %w", err)
		}
		at := h.listener.Addr().(*net.TCPAddr)
		h.packets, err = lc.ListenPacket(h.ctx, "udp", net.JoinHostPort(host, strconv.Itoa(at.Port)))
		if err != nil {
			_ = h.listener.Close()
			if port == "0" {
				continue
			}
			return fmt.Errorf("peer: listen: %w", err)
		}
		if h.advertise, err = advertised(h.opts.Advertise, host, at.Port); err != nil {
			_ = h.listener.Close()
			_ = h.packets.Close()
		}
		return err
	}
	return fmt.Errorf("peer: listen: %w", err)
}

// advertised is the address that others are told.
func advertised(wanted, host string, port int) (string, error) {
	if wanted != "" {
		h, p, err := net.SplitHostPort(wanted)
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrAdvertise, err)
		}
		host = h
		if p != "0" {
			if port, err = strconv.Atoi(p); err != nil || port < 1 || port > 65535 {
				return "", fmt.Errorf("%w: %q", ErrAdvertise, wanted)
			}
		}
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return "", fmt.Errorf("%w: %q", ErrAdvertise, net.JoinHostPort(host, strconv.Itoa(port)))
	}
	return net.JoinHostPort(host, strconv.Itoa(port)), nil
}

// Advertise is the host:port that others reach this node by.
func (h *Hub) Advertise() string { return h.advertise }

// Packets is the UDP socket at the port that is listened at. Nothing of the hub reads it; Shutdown closes it.
func (h *Hub) Packets() net.PacketConn { return h.packets }

// Encrypted tells whether connections use TLS.
func (h *Hub) Encrypted() bool { return h.opts.TLS != nil }

// Self is who this node is.
func (h *Hub) Self() Identity {
	h.mu.Lock()
	defer h.mu.Unlock()
	id := h.opts.Self
	id.ClusterID = h.clusterID
	return id
}

// SetClusterID tells the cluster that a new node has become a member of. It cannot be another one later.
func (h *Hub) SetClusterID(id string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if id == "" || len(id) > 255 || h.clusterID != "" && h.clusterID != id {
		return fmt.Errorf("%w: it is %q, not %q", ErrClusterID, h.clusterID, id)
	}
	h.clusterID = id
	return nil
}

// Handle has connections of a kind served. nil ends that: further ones are refused.
func (h *Hub) Handle(kind Kind, handler Handler) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if handler == nil {
		delete(h.handlers, kind)
		return
	}
	h.handlers[kind] = handler
}

// Register has requests of a method answered. Names have at most 255 bytes.
func (h *Hub) Register(method string, m Method) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.methods[method] = m
}

func (h *Hub) method(name string) Method {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.methods[name]
}

// Watch has fn called when the first Request connection with a node is made (up), in whatever direction, and when the last of them is lost. Calls come one at a time and in order,
// on a goroutine that all watchers share: fn must not block. It is a hint only: a connection may break while its node is well.
func (h *Hub) Watch(fn func(node int32, up bool)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watchers = append(h.watchers, fn)
}

// happened must be called with mu held.
func (h *Hub) happened(e event) {
	if len(h.events) == maxEvents {
		h.events = h.events[1:]
	}
	h.events = append(h.events, e)
	select {
	case h.eventful <- struct{}{}:
	default:
	}
}

// herald calls the watchers. It ends with the hub.
func (h *Hub) herald() {
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-h.eventful:
		}
		h.mu.Lock()
		events, watchers := h.events, h.watchers
		h.events = nil
		h.mu.Unlock()
		for _, e := range events {
			for _, fn := range watchers {
				fn(e.node, e.up)
			}
		}
	}
}

// start runs f on a goroutine that Shutdown waits for, unless the hub is shut down.
func (h *Hub) start(f func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.wg.Go(f)
	return true
}

// accept takes connections until the hub is shut down.
func (h *Hub) accept() {
	for {
		raw, err := h.listener.Accept()
		if err != nil {
			if h.ctx.Err() != nil {
				return
			}
			h.quiet.say(slog.LevelWarn, "accept", "a connection from a peer could not be accepted", "error", err)
			select { // out of file descriptors, most likely
			case <-h.ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		select {
		case h.shaking <- struct{}{}:
		default:
			h.quiet.say(slog.LevelWarn, "handshakes", "too many handshakes under way, a connection was cut off", "from", raw.RemoteAddr())
			_ = raw.Close()
			continue
		}
		if !h.start(func() { h.receive(raw) }) {
			_ = raw.Close()
			return
		}
	}
}

// receive serves a connection that somebody else dialled.
func (h *Hub) receive(raw net.Conn) {
	conn, handler, err := h.welcome(raw)
	<-h.shaking
	if err != nil {
		_ = raw.Close()
		h.complain("a peer's connection was refused", "from", raw.RemoteAddr().String(), err)
		return
	}
	defer conn.Close()
	handler(conn.ctx, conn)
}

// complain tells of a connection that did not come about, on either side.
func (h *Hub) complain(message, label, address string, err error) {
	var refused *RefusedError
	switch {
	case errors.As(err, &refused):
		host, _, _ := net.SplitHostPort(address)
		h.quiet.say(slog.LevelWarn, fmt.Sprint(message, host, refused.Reason), message, label, address, "reason", refused.Text)
	case errors.Is(err, ErrProtocol) || errors.Is(err, ErrTLS) && !errors.Is(err, io.EOF):
		h.quiet.say(slog.LevelWarn, message, message, label, address, "error", err)
	default: // somebody looked whether the port is open, or went away
		h.log.Debug(message, label, address, "error", err)
	}
}

// Shutdown closes all sockets and connections and waits until every goroutine has ended, or the context has.
func (h *Hub) Shutdown(ctx context.Context) error {
	h.mu.Lock()
	h.closed = true
	var conns []*Conn
	for c := range h.conns {
		conns = append(conns, c)
	}
	h.mu.Unlock()
	h.cancel()
	_ = h.listener.Close()
	_ = h.packets.Close()
	for _, c := range conns {
		_ = c.Close()
	}
	done := make(chan struct{})
	go func() { // ends with the last goroutine of the hub
		h.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("peer: shutdown: %w", ctx.Err())
	}
}
