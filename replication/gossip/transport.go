package gossip

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/millrace/millrace/replication/peer"
)

// A packet on UDP is memberlist's behind a header. The tag is the start of the cluster id's SHA-256, or zeros while it is not known:
// packets of other clusters, which may come when an address changes hands, go no further.
//
//	"mg" version(1) tag(8) packet
const (
	packetMagic   = "mg\x01"
	tagBytes      = 8
	packetHeader  = len(packetMagic) + tagBytes
	largestPacket = 64 << 10
)

func tagOf(cluster string) (tag [tagBytes]byte) {
	if cluster != "" {
		sum := sha256.Sum256([]byte(cluster))
		copy(tag[:], sum[:])
	}
	return tag
}

// open returns memberlist's part of a packet, nil when it is not for this cluster.
func open(b []byte, cluster string) []byte {
	if len(b) <= packetHeader || string(b[:len(packetMagic)]) != packetMagic {
		return nil
	}
	var theirs, none [tagBytes]byte
	copy(theirs[:], b[len(packetMagic):])
	if ours := tagOf(cluster); ours != none && theirs != none && ours != theirs {
		return nil
	}
	return b[packetHeader:]
}

func seal(b []byte, cluster string) []byte {
	tag := tagOf(cluster)
	out := append(make([]byte, 0, packetHeader+len(b)), packetMagic...)
	return append(append(out, tag[:]...), b...)
}

// transport is the hub as memberlist wants it.
type transport struct {
	hub     *peer.Hub
	now     func() time.Time
	ip      net.IP // that this node advertises
	port    int
	packets chan *memberlist.Packet
	streams chan net.Conn
	ctx     context.Context // ends with Shutdown
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	nameOf  func(node string) string // the address that a member advertises, "" if there is none

	mu    sync.Mutex        // guards the fields below; never held across a call
	seeds map[string]string // what somebody called an address: certificates have names
	why   map[string]error  // why seeds could not be reached
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)

func newTransport(hub *peer.Hub, now func() time.Time, ip net.IP, port int) *transport {
	t := &transport{hub: hub, now: now, ip: ip, port: port, packets: make(chan *memberlist.Packet), streams: make(chan net.Conn),
		seeds: map[string]string{}, why: map[string]error{}}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

func (t *transport) start() {
	_ = t.hub.Packets().SetReadDeadline(time.Time{}) // fails on a closed socket alone, of which listen hears
	t.wg.Go(t.listen)
	t.hub.Handle(peer.Gossip, t.accept)
}

// listen hands on packets until the transport or the hub is shut down.
func (t *transport) listen() {
	b := make([]byte, largestPacket)
	for {
		n, from, err := t.hub.Packets().ReadFrom(b)
		if t.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			select { // such as ICMP's answers, on some systems
			case <-t.ctx.Done():
				return
			case <-time.After(10 * time.Millisecond):
			}
			continue
		}
		inner := open(b[:n], t.hub.Self().ClusterID)
		if inner == nil {
			continue
		}
		select {
		case t.packets <- &memberlist.Packet{Buf: append([]byte(nil), inner...), From: from, Timestamp: t.now()}:
		case <-t.ctx.Done():
			return
		}
	}
}

// accept is the hub's handler; memberlist closes the connection.
func (t *transport) accept(ctx context.Context, conn *peer.Conn) {
	select {
	case t.streams <- conn:
	case <-t.ctx.Done():
		return
	case <-ctx.Done():
		return
	}
	select {
	case <-conn.Done():
	case <-t.ctx.Done():
	}
}

// FinalAdvertiseAddr is memberlist's.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) { return t.ip, t.port, nil }

// WriteTo is memberlist's.
func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress is memberlist's; addresses are those of members, so they have no names to be looked up.
func (t *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	to, err := netip.ParseAddrPort(a.Addr)
	if err != nil {
		return time.Time{}, err
	}
	_, err = t.hub.Packets().WriteTo(seal(b, t.hub.Self().ClusterID), net.UDPAddrFromAddrPort(to))
	return t.now(), err
}

// DialTimeout is memberlist's.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout is memberlist's. It knows IP addresses only; what is dialled is what the member or the user calls them.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	address := a.Addr
	seed := t.seed(a.Addr)
	if name := t.nameOf(a.Name); name != "" {
		address = name
	} else if seed != "" {
		address = seed
	}
	conn, err := t.hub.DialAddress(ctx, address, peer.Gossip)
	if err != nil {
		t.failed(a.Addr, err)
		return nil, err
	}
	return conn, nil
}

func (t *transport) seed(addr string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.seeds[addr]
}

// failed keeps the reason, which memberlist would turn into text.
func (t *transport) failed(addr string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, seed := t.seeds[addr]; seed {
		t.why[addr] = err
	}
}

// join has memberlist contact what a seed's name resolves to.
func (t *transport) join(ctx context.Context, seed string, contact func(addr string) error) (n int, err error) {
	addrs, err := peer.Resolve(ctx, seed)
	if err != nil {
		return 0, fmt.Errorf("gossip: seed: %w", err)
	}
	t.mu.Lock()
	for _, addr := range addrs {
		t.seeds[addr] = seed
		delete(t.why, addr)
	}
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		for _, addr := range addrs {
			delete(t.seeds, addr)
			delete(t.why, addr)
		}
	}()
	var errs []error
	for _, addr := range addrs {
		if ctx.Err() != nil {
			errs = append(errs, ctx.Err())
			break
		}
		err := contact(addr)
		if err == nil {
			n++
			continue
		}
		t.mu.Lock()
		if why := t.why[addr]; why != nil {
			err = why
		}
		t.mu.Unlock()
		errs = append(errs, fmt.Errorf("gossip: seed %s: %w", seed, err))
	}
	return n, errors.Join(errs...)
}

// PacketCh is memberlist's.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh is memberlist's.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown leaves the hub's sockets as they are, and nobody reading them.
func (t *transport) Shutdown() error {
	t.hub.Handle(peer.Gossip, nil)
	t.cancel()
	_ = t.hub.Packets().SetReadDeadline(time.Unix(1, 0)) // fails on a closed socket alone, which listen has left
	t.wg.Wait()
	return nil
}
