package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/config"
)

// Options are the settings of a server, each with Kafka's own key where there is one.
type Options struct {
	// AdvertisedHost and AdvertisedPort are what clients are told to connect to
	// (advertised.listeners). Without a host they are told the address that they
	// reached.
	AdvertisedHost string
	AdvertisedPort int32

	NodeID int32  // node.id
	Rack   string // broker.rack

	RequestMaxBytes    int           // of one frame: socket.request.max.bytes
	QueuedRequestBytes int64         // memory of all requests in flight: queued.max.request.bytes
	FetchResponseBytes int64         // memory of all fetch responses in flight
	FetchMaxBytes      int           // of one fetch response: fetch.max.bytes
	FetchSessions      int           // max.incremental.fetch.session.cache.slots
	MaxConnections     int           // what the descriptors allow, whatever max.connections says; 0 is no limit
	MaxIdle            time.Duration // without any request: connections.max.idle.ms

	FrameTime    time.Duration // for the next part of a request that has begun to arrive
	WriteTime    time.Duration // for a client to take the next part of a response
	MemoryTime   time.Duration // for memory of a request to become free
	ReadAhead    int           // produce requests of one connection that are worked on at a time
	ReadAheadMax int           // and their bytes, unless it is one alone

	Now     func() time.Time
	Logger  *slog.Logger
	Metrics Metrics // what is measured, nothing unless set
}

// OptionsFor takes from a broker's configuration what the server needs to know
// at its start, and bounds of its own for what Kafka leaves open. Now and Logger
// are still to be set.
func OptionsFor(cfg *config.Broker) Options {
	o := Options{
		NodeID:             cfg.NodeID,
		Rack:               cfg.Rack,
		RequestMaxBytes:    cfg.SocketRequestMaxBytes,
		QueuedRequestBytes: cfg.QueuedMaxRequestBytes,
		FetchResponseBytes: 256 << 20,
		FetchMaxBytes:      cfg.FetchMaxBytes,
		FetchSessions:      cfg.FetchSessionSlots,
		MaxIdle:            cfg.ConnectionsMaxIdle,
		FrameTime:          30 * time.Second,
		WriteTime:          30 * time.Second,
		MemoryTime:         30 * time.Second,
		ReadAhead:          128,
		ReadAheadMax:       16 << 20,
	}
	if o.QueuedRequestBytes <= 0 {
		o.QueuedRequestBytes = 256 << 20
	}
	if o.MaxIdle <= 0 {
		o.MaxIdle = 365 * 24 * time.Hour
	}
	if len(cfg.Advertised) > 0 {
		o.AdvertisedHost, o.AdvertisedPort = cfg.Advertised[0].Host, int32(cfg.Advertised[0].Port)
	}
	return o
}

func (o *Options) validate() error {
	switch {
	case o.Now == nil:
		return errors.New("server: Options.Now is missing")
	case o.RequestMaxBytes < smallestHeader:
		return fmt.Errorf("server: socket.request.max.bytes is %d", o.RequestMaxBytes)
	case o.ReadAhead < 1 || o.FrameTime <= 0 || o.WriteTime <= 0 || o.MemoryTime <= 0 || o.MaxIdle <= 0:
		return errors.New("server: a bound or a time of Options is not positive")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	// Buffers may be twice as large as what they hold, and one that grows is held twice for a moment.
	o.QueuedRequestBytes = max(o.QueuedRequestBytes, 5*int64(o.RequestMaxBytes)/2)
	return nil
}

// Server answers Kafka requests with the help of an engine.
type Server struct {
	opts        Options
	engine      *engine.Engine
	log         *slog.Logger
	warn        *rateLog
	registry    *registry
	requests    *budget // memory of frames
	responses   *budget // memory of records on their way to consumers
	sessions    *sessionCache
	deletions   *deletions
	producerIDs *engine.ProducerIDs
	stats       stats

	serving context.Context // ends when a shutdown begins; what waits for others answers at once
	drain   context.CancelFunc
	ctx     context.Context // ends when a shutdown runs out of patience
	cancel  context.CancelFunc

	conns sync.WaitGroup // one per connection

	mu        sync.Mutex // guards the fields below; never held across a call to the network
	listeners map[net.Listener]struct{}
	open      map[*conn]struct{}
	perIP     map[string]int
	stopped   bool
}

// New makes a server for an engine. It owns nothing until Serve.
func New(e *engine.Engine, opts Options) (*Server, error) {
	s, err := newServer(opts, apisOf(e))
	if err != nil {
		return nil, err
	}
	s.engine = e
	e.OnStall(s.wakeWriters)
	s.producerIDs = engine.NewProducerIDs(e.Catalog(), opts.NodeID)
	return s, nil
}

// newServer makes a server that has a door but no engine behind it.
func newServer(opts Options, list []*api) (*Server, error) {
	if err := opts.validate(); err != nil {
		return nil, err
	}
	s := &Server{
		opts:      opts,
		log:       opts.Logger,
		warn:      &rateLog{log: opts.Logger, now: opts.Now, interval: 5 * time.Second, kinds: map[string]*rateKind{}},
		registry:  newRegistry(list, &opts.Metrics),
		requests:  newBudget(opts.QueuedRequestBytes),
		responses: newBudget(opts.FetchResponseBytes),
		sessions:  newSessionCache(opts.FetchSessions, opts.Now),
		deletions: newDeletions(opts.Now),
		listeners: map[net.Listener]struct{}{},
		open:      map[*conn]struct{}{},
		perIP:     map[string]int{},
	}
	s.serving, s.drain = context.WithCancel(context.Background())
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// stats counts what happens at the door. All are totals since the start.
type stats struct {
	accepted, refused, malformed, panics atomic.Int64
	requests, received, sent             atomic.Int64
	fetchedRecords, fetchedBytes         atomic.Int64
}

// Stats is a snapshot of what the server counts.
type Stats struct {
	Connections int   // open now
	Accepted    int64 // connections taken
	Refused     int64 // connections closed at once because of a limit
	Requests    int64 // frames read
	Malformed   int64 // connections closed because of what they sent
	Panics      int64 // handlers that panicked

	ReceivedBytes, SentBytes      int64 // of whole requests, and of responses
	FetchedRecords, FetchedBytes  int64 // in responses to fetches; a batch counts whole even when the client asked for its middle
	RequestMemory, ResponseMemory BudgetStats
	FetchSessions, SessionsBound  int
	SessionPartitions             int // that the sessions remember
}

// Stats returns the counters as they are now.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	n := len(s.open)
	s.mu.Unlock()
	sessions, partitions := s.sessions.count()
	return Stats{
		Connections: n,
		Accepted:    s.stats.accepted.Load(),
		Refused:     s.stats.refused.Load(),
		Requests:    s.stats.requests.Load(),
		Malformed:   s.stats.malformed.Load(),
		Panics:      s.stats.panics.Load(),

		ReceivedBytes:     s.stats.received.Load(),
		SentBytes:         s.stats.sent.Load(),
		FetchedRecords:    s.stats.fetchedRecords.Load(),
		FetchedBytes:      s.stats.fetchedBytes.Load(),
		RequestMemory:     s.requests.stats(),
		ResponseMemory:    s.responses.stats(),
		FetchSessions:     sessions,
		SessionsBound:     s.sessions.slots,
		SessionPartitions: partitions,
	}
}

// Serve accepts connections until Shutdown, then returns nil; or until the
// listener fails for good. It closes the listener.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		return l.Close()
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
		l.Close()
	}()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()

	pause := time.Duration(0)
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			s.welcome(nc)
		case errors.Is(err, net.ErrClosed):
			return nil
		default:
			// Out of descriptors or memory, or a client gone before it was accepted.
			// Accept fails at once as long as that lasts, hence the pause.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.warn.warn("cannot accept a connection", slog.Any("error", err), slog.Duration("pause", pause))
			if !s.sleep(ctx, pause) {
				return nil
			}
		}
	}
}

// sleep waits, and tells whether the server is still to go on.
func (s *Server) sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-s.serving.Done():
	}
	return false
}

// limits are max.connections, or what the descriptors allow if that is less, and max.connections.per.ip, as they are now: an
// operator lowers them while clients storm in. Those who are in stay.
func (s *Server) limits() (connections, perIP int) {
	connections, perIP = math.MaxInt, math.MaxInt
	take := func(limit *int, value int) {
		if value > 0 {
			*limit = min(*limit, value)
		}
	}
	take(&connections, s.opts.MaxConnections)
	if s.engine != nil { // tests of the door alone have none
		cfg := s.engine.Config()
		take(&connections, cfg.MaxConnections)
		take(&perIP, cfg.MaxConnectionsPerIP)
	}
	return connections, perIP
}

// welcome starts a connection, or refuses it by closing it at once.
func (s *Server) welcome(nc net.Conn) {
	c := newConn(s, nc)
	connections, perIP := s.limits()
	s.mu.Lock()
	reason := ""
	switch {
	case s.stopped:
		reason = "shutting down"
	case len(s.open) >= connections:
		reason = "max.connections reached"
	case s.perIP[c.remoteHost] >= perIP:
		reason = "max.connections.per.ip reached"
	default:
		s.open[c] = struct{}{}
		s.perIP[c.remoteHost]++
		s.conns.Add(1)
	}
	s.mu.Unlock()
	if reason != "" {
		s.stats.refused.Add(1)
		s.warn.warn("refused a connection", slog.String("reason", reason), slog.String("client", c.remoteHost))
		nc.Close()
		return
	}
	s.stats.accepted.Add(1)
	go func() {
		defer s.conns.Done()
		c.serve()
		s.mu.Lock()
		delete(s.open, c)
		if s.perIP[c.remoteHost]--; s.perIP[c.remoteHost] <= 0 {
			delete(s.perIP, c.remoteHost)
		}
		s.mu.Unlock()
	}()
}

// Shutdown stops accepting, lets the requests in flight finish until ctx ends,
// and closes all connections. It returns when every goroutine of the server has
// ended, with the error of ctx when requests had to be cut short.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.stopped = true
	s.drain()
	for l := range s.listeners {
		l.Close()
	}
	for c := range s.open {
		c.interrupt()
	}
	s.mu.Unlock()

	done := make(chan struct{})
	go func() {
		s.conns.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.cancel() // ends handlers that still wait
	s.mu.Lock()
	for c := range s.open {
		c.nc.Close()
	}
	s.mu.Unlock()
	<-done
	return err
}
