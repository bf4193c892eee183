package gossip

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/millrace/millrace/replication/peer"
)

// Options say what a node takes part with. Hub and Now must be given.
type Options struct {
	Hub      *peer.Hub // its Packets and its kind Gossip are used; closed after the gossip
	Secret   []byte    // the hub's; empty: packets are not encrypted
	Rack     string
	Expect   int              // see Member
	Changed  func()           // called when Members has changed, with locks held: it must neither block nor call anything here but Members. May be nil
	Now      func() time.Time // a clock that does not jump
	Logger   *slog.Logger     // nil: silent
	Settings Settings
}

// Settings are times; what is zero gets its default.
type Settings struct {
	ProbeInterval time.Duration // one member is probed each time; 1 s
	ProbeTimeout  time.Duration // for an answer; 500 ms
	Interval      time.Duration // news are spread each time; 200 ms
	SyncInterval  time.Duration // everything is exchanged with one member each time; 30 s
	Reclaim       time.Duration // a node that is gone for so long may come back at another address; 30 s
	FirstRetry    time.Duration // seeds that could not be reached are tried again, after twice as long each time, up to 10 s; 500 ms
}

func (s *Settings) fill() {
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{{&s.ProbeInterval, time.Second}, {&s.ProbeTimeout, 500 * time.Millisecond}, {&s.Interval, 200 * time.Millisecond},
		{&s.SyncInterval, 30 * time.Second}, {&s.Reclaim, 30 * time.Second}, {&s.FirstRetry, 500 * time.Millisecond}} {
		if *d.v == 0 {
			*d.v = d.def
		}
	}
}

const (
	label        = "millrace" // on every packet and stream; encrypted ones are bound to it
	contact      = 5 * time.Second
	lastRetry    = 10 * time.Second // between attempts of a node that is alone
	laterRetry   = time.Minute      // of one that is not, for a seed that is missing
	leaveTimeout = 5 * time.Second
	// Those that leave at the same time do not hear one another: not worth a long wait.
	farewellTimeout = time.Second
)

// Gossip is one node's part. All methods may be called concurrently.
type Gossip struct {
	opts      Options
	transport *transport
	list      *memberlist.Memberlist
	sayings   *sayings
	ctx       context.Context // ends with Close
	cancel    context.CancelFunc
	wg        sync.WaitGroup
	closeOnce sync.Once
	leaving   chan struct{} // one token: memberlist is left and shut down by one at a time
	closed    atomic.Bool

	woken chan struct{} // wakes keepJoining, capacity one

	mu      sync.Mutex // guards the fields below; never held across a call
	members map[string]Member
	seeds   []string // of all calls of Join
}

// Open begins to take part, alone until Join. It blocks for as long as it takes to look the advertised host name up, at most 5 s.
func Open(opts Options) (*Gossip, error) {
	opts.Settings.fill()
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Hub.Encrypted() && len(opts.Secret) == 0 {
		return nil, ErrNoSecret
	}
	if opts.Hub.Self().NodeID < 0 {
		return nil, ErrNodeID
	}
	g := &Gossip{opts: opts, sayings: &sayings{log: opts.Logger, now: opts.Now, last: map[string]time.Time{}},
		leaving: make(chan struct{}, 1), woken: make(chan struct{}, 1), members: map[string]Member{}}
	if _, err := g.self().encode(); err != nil {
		return nil, err
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	if err := g.begin(); err != nil {
		g.cancel()
		return nil, err
	}
	return g, nil
}

func (g *Gossip) begin() error {
	ctx, cancel := context.WithTimeout(g.ctx, contact)
	defer cancel()
	at, err := peer.Resolve(ctx, g.opts.Hub.Advertise())
	if err != nil {
		return err
	}
	addr, err := netip.ParseAddrPort(at[0])
	if err != nil {
		return err
	}
	if !addr.Addr().IsLoopback() && len(g.opts.Secret) == 0 {
		g.opts.Logger.Warn("gossip between nodes is neither encrypted nor authenticated: there is no shared secret")
	}
	g.transport = newTransport(g.opts.Hub, g.opts.Now, net.IP(addr.Addr().AsSlice()), int(addr.Port()))
	g.transport.nameOf = g.addressOf
	c := memberlist.DefaultLANConfig()
	c.Name = nameOf(g.self().NodeID)
	c.Label = label
	c.Transport = g.transport
	c.AdvertiseAddr, c.AdvertisePort, c.BindPort = addr.Addr().String(), int(addr.Port()), int(addr.Port())
	c.Logger = log.New(g.sayings, "", 0)
	s := g.opts.Settings
	c.ProbeInterval, c.ProbeTimeout, c.GossipInterval, c.PushPullInterval, c.DeadNodeReclaimTime, c.TCPTimeout = s.ProbeInterval, s.ProbeTimeout, s.Interval, s.SyncInterval, s.Reclaim, contact
	if len(g.opts.Secret) > 0 {
		if c.SecretKey, err = hkdf.Key(sha256.New, g.opts.Secret, nil, "millrace gossip", 32); err != nil {
			return err
		}
	}
	d := &delegate{g: g}
	c.Delegate, c.Events, c.Alive, c.Merge, c.Conflict = d, d, d, d, d
	g.transport.start()
	if g.list, err = memberlist.Create(c); err != nil {
		_ = g.transport.Shutdown() // never fails
		return fmt.Errorf("gossip: %w", err)
	}
	g.leaving <- struct{}{}
	g.wg.Go(g.keepJoining)
	return nil
}

// self is what this node says of itself.
func (g *Gossip) self() Member {
	id := g.opts.Hub.Self()
	return Member{NodeID: id.NodeID, Incarnation: id.Incarnation, ClusterID: id.ClusterID, Address: g.opts.Hub.Advertise(), Rack: g.opts.Rack, Expect: g.opts.Expect}
}

// Members are the nodes that are thought to be alive, this one among them, by their ids. Those of another cluster than this node's are left out.
func (g *Gossip) Members() []Member {
	cluster := g.opts.Hub.Self().ClusterID
	g.mu.Lock()
	defer g.mu.Unlock()
	return sorted(g.members, func(m Member) bool { return sameCluster(m.ClusterID, cluster) })
}

// AddressOf is where a member advertises to be, as a peer.Directory.
func (g *Gossip) AddressOf(node int32) (string, bool) {
	address := g.addressOf(nameOf(node))
	return address, address != ""
}

// Member is what a member says of itself.
func (g *Gossip) Member(node int32) (Member, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m, found := g.members[nameOf(node)]
	return m, found
}

func (g *Gossip) addressOf(name string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.members[name].Address
}

// Join contacts seeds, each a host:port that somebody advertises, and returns how many answered; it finds all others through one of them. An error says why none did: errors.Is(err, peer.ErrRefused)
// when the one there does not want this node. In either case they are remembered, and those that are not among the members are tried again in the background, until Close: after
// 0.5 to 10 s by a node that is alone, else every minute, so that a cluster that was cut in two finds itself again.
func (g *Gossip) Join(ctx context.Context, seeds []string) (int, error) {
	if g.ctx.Err() != nil {
		return 0, ErrClosed
	}
	g.mu.Lock()
	for _, seed := range seeds {
		if seed != g.opts.Hub.Advertise() && !slices.Contains(g.seeds, seed) {
			g.seeds = append(g.seeds, seed)
		}
	}
	g.mu.Unlock()
	n, err := g.contact(ctx, seeds)
	if n > 0 {
		return n, nil
	}
	g.wake()
	return 0, err
}

func (g *Gossip) contact(ctx context.Context, seeds []string) (n int, err error) {
	var errs []error
	for _, seed := range seeds {
		if seed == g.opts.Hub.Advertise() {
			continue
		}
		got, err := g.transport.join(ctx, seed, func(addr string) error {
			_, err := g.list.Join([]string{addr}) // at most a handshake and an exchange, 10 s
			return err
		})
		n += got
		errs = append(errs, err)
	}
	return n, errors.Join(errs...)
}

// keepJoining tries the seeds that are missing. It ends with Close.
func (g *Gossip) keepJoining() {
	first := g.opts.Settings.FirstRetry
	wasAlone, pause := true, first
	timer := time.NewTimer(laterRetry)
	defer timer.Stop()
	for {
		select {
		case <-g.ctx.Done():
			return
		case <-g.woken:
			if alone := g.alone(); alone && !wasAlone || pause == first {
				wasAlone, pause = alone, first
				timer.Reset(pause)
			}
			continue
		case <-timer.C:
		}
		if missing := g.missing(); len(missing) > 0 {
			if n, err := g.contact(g.ctx, missing); n == 0 && g.ctx.Err() == nil {
				g.sayings.say(slog.LevelInfo, "seeds", "no seed could be reached, trying on", "seeds", missing, "error", err)
			}
		}
		if wasAlone = g.alone(); wasAlone {
			pause = min(2*pause, lastRetry)
		} else {
			pause = laterRetry
		}
		timer.Reset(pause)
	}
}

// wake has the seeds looked after.
func (g *Gossip) wake() {
	select {
	case g.woken <- struct{}{}:
	default:
	}
}

func (g *Gossip) alone() bool { return len(g.Members()) < 2 }

// missing are the seeds that are no member's address.
func (g *Gossip) missing() (out []string) {
	there := map[string]bool{}
	for _, m := range g.Members() {
		there[m.Address] = true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.seeds {
		if !there[s] {
			out = append(out, s)
		}
	}
	return out
}

// Refresh tells the others what has changed of this node: that it has become a member of a cluster. It returns when one of them has been told, or the
// context or 5 s have ended.
func (g *Gossip) Refresh(ctx context.Context) error {
	if g.ctx.Err() != nil {
		return ErrClosed
	}
	if _, err := g.self().encode(); err != nil {
		return err
	}
	return g.list.UpdateNode(g.left(ctx))
}

// left is how long something may take.
func (g *Gossip) left(ctx context.Context) time.Duration {
	if deadline, bounded := ctx.Deadline(); bounded {
		return max(min(deadline.Sub(g.opts.Now()), leaveTimeout), time.Millisecond)
	}
	return leaveTimeout
}

// Leave tells the others that this node goes on purpose, so that nobody suspects anything. It returns when one of them has been told, or the context or 1 s have ended. Close follows.
func (g *Gossip) Leave(ctx context.Context) error {
	select {
	case <-g.leaving:
		defer func() { g.leaving <- struct{}{} }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if g.closed.Load() {
		return ErrClosed
	}
	return g.list.Leave(min(g.left(ctx), farewellTimeout))
}

// Close ends this node's part without a word. It waits for what is under way, at most about 10 s.
func (g *Gossip) Close() (err error) {
	g.closeOnce.Do(func() {
		g.cancel()
		<-g.leaving
		g.closed.Store(true)
		err = g.list.Shutdown()
		g.leaving <- struct{}{}
	})
	g.wg.Wait()
	return err
}
