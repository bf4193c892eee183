package gossip

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/millrace/millrace/replication/peer"
)

var quick = Settings{ProbeInterval: 100 * time.Millisecond, ProbeTimeout: 80 * time.Millisecond, Interval: 10 * time.Millisecond, SyncInterval: time.Second,
	Reclaim: time.Second, FirstRetry: 20 * time.Millisecond}

type node struct {
	*Gossip
	hub  *peer.Hub
	log  lines
	gone bool
}

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
	return strings.Count(l.b.String(), what)
}

type options struct {
	peer   peer.Options
	gossip Options
}

func begin(t *testing.T, id int32, change ...func(*options)) *node {
	t.Helper()
	n := &node{}
	o := options{peer: peer.Options{Address: "127.0.0.1:0", Self: peer.Identity{ClusterID: "c", NodeID: id, Incarnation: [16]byte{byte(id)}}, Now: time.Now},
		gossip: Options{Rack: fmt.Sprint("rack-", id), Now: time.Now, Logger: slog.New(slog.NewTextHandler(&n.log, nil)), Settings: quick}}
	for _, f := range change {
		f(&o)
	}
	var err error
	for range 100 { // an address that was just used
		if n.hub, err = peer.Listen(o.peer); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	o.gossip.Hub, o.gossip.Secret = n.hub, o.peer.Secret
	if n.Gossip, err = Open(o.gossip); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.end(t) })
	return n
}

func cluster(id string) func(*options)     { return func(o *options) { o.peer.Self.ClusterID = id } }
func secret(s string) func(*options)       { return func(o *options) { o.peer.Secret = []byte(s) } }
func incarnation(b byte) func(*options)    { return func(o *options) { o.peer.Self.Incarnation[1] = b } }
func address(a string) func(*options)      { return func(o *options) { o.peer.Address = a } }
func (n *node) at() string                 { return n.hub.Advertise() }
func (n *node) ids() (ids []int32)         { return idsOf(n.Members()) }
func (n *node) sees(want ...int32) bool    { return slices.Equal(n.ids(), want) }
func soon(t *testing.T) context.Context    { return within(t, 10*time.Second) }
func (n *node) cluster(id int32) string    { return n.member(id).ClusterID }
func (n *node) join(t *testing.T, s *node) { n.mustJoin(t, s.at()) }

func (n *node) member(id int32) Member {
	for _, m := range n.Members() {
		if m.NodeID == id {
			return m
		}
	}
	return Member{}
}

func idsOf(members []Member) (ids []int32) {
	for _, m := range members {
		ids = append(ids, m.NodeID)
	}
	return ids
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func (n *node) mustJoin(t *testing.T, seed string) {
	t.Helper()
	if got, err := n.Join(soon(t), []string{seed}); err != nil || got != 1 {
		t.Fatalf("joined %d: %v", got, err)
	}
}

// end is a kill: nobody is told.
func (n *node) end(t *testing.T) {
	t.Helper()
	if n.gone {
		return
	}
	n.gone = true
	if err := n.hub.Shutdown(soon(t)); err != nil {
		t.Error(err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for begun := time.Now(); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Since(begun) > 15*time.Second {
			t.Fatal("not within 15 s: " + what)
		}
	}
}

// TestThreeFromOneSeed: each node finds all others through the same one, with what they say of themselves; one that is killed is missed, one that leaves at once.
func TestThreeFromOneSeed(t *testing.T) {
	for _, s := range []string{"", "shared"} {
		t.Run("secret "+s, func(t *testing.T) {
			var changes int
			var mu sync.Mutex
			one := begin(t, 1, secret(s), func(o *options) { o.gossip.Changed = func() { mu.Lock(); defer mu.Unlock(); changes++ } })
			two, three := begin(t, 2, secret(s)), begin(t, 3, secret(s))
			two.join(t, one)
			three.join(t, one)
			for _, n := range []*node{one, two, three} {
				until(t, "three members", func() bool { return n.sees(1, 2, 3) })
			}
			want := Member{NodeID: 3, Incarnation: [16]byte{3}, ClusterID: "c", Address: three.at(), Rack: "rack-3"}
			if got := two.member(3); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
			if a, known := two.AddressOf(3); !known || a != three.at() {
				t.Errorf("%q %v", a, known)
			}
			mu.Lock()
			if changes < 3 {
				t.Errorf("told of %d changes", changes)
			}
			mu.Unlock()
			if err := three.Leave(soon(t)); err != nil {
				t.Error(err)
			}
			until(t, "one has left", func() bool { return one.sees(1, 2) && two.sees(1, 2) })
			two.end(t)
			until(t, "one was killed", func() bool { return one.sees(1) })
			if n := one.log.count("level=ERROR"); n > 0 {
				t.Errorf("%d errors were logged", n)
			}
		})
	}
}

// TestOtherCluster: a node of another cluster is told so by the handshake, and neither side hears of the other.
func TestOtherCluster(t *testing.T) {
	one, other := begin(t, 1), begin(t, 2, cluster("d"))
	n, err := other.Join(soon(t), []string{one.at()})
	if n != 0 || !errors.Is(err, peer.ErrRefused) || !strings.Contains(err.Error(), `node 2 is of cluster "d", node 1 of cluster "c"`) {
		t.Error(n, err)
	}
	if !one.sees(1) || !other.sees(2) {
		t.Error(one.ids(), other.ids())
	}
}

// TestSecrets: so is one with another secret.
func TestSecrets(t *testing.T) {
	one := begin(t, 1, secret("s"))
	for i, s := range []string{"t", ""} {
		other := begin(t, int32(2+i), secret(s))
		if n, err := other.Join(soon(t), []string{one.at()}); n != 0 || !errors.Is(err, peer.ErrRefused) {
			t.Error(n, err)
		}
	}
	if !one.sees(1) {
		t.Error(one.ids())
	}
}

// TestNewNodes: nodes without a cluster find one another and a cluster through one seed; the others hear when they have become members.
func TestNewNodes(t *testing.T) {
	expecting := func(o *options) { o.gossip.Expect = 3 }
	seed := begin(t, 1, cluster(""), expecting)
	two, three := begin(t, 2, cluster(""), expecting), begin(t, 3, cluster(""), expecting)
	two.join(t, seed)
	three.join(t, seed)
	until(t, "all see all", func() bool { return seed.sees(1, 2, 3) && two.sees(1, 2, 3) && three.sees(1, 2, 3) })
	if m := three.member(2); m.Expect != 3 || m.ClusterID != "" {
		t.Errorf("%+v", m)
	}
	if err := seed.hub.SetClusterID("c"); err != nil {
		t.Fatal(err)
	}
	if err := seed.Refresh(soon(t)); err != nil {
		t.Error(err)
	}
	until(t, "they hear of the cluster", func() bool { return two.cluster(1) == "c" && three.cluster(1) == "c" })
	for _, n := range []*node{two, three} {
		if err := n.hub.SetClusterID("c"); err != nil {
			t.Fatal(err)
		}
		if err := n.Refresh(soon(t)); err != nil {
			t.Error(err)
		}
	}
	until(t, "all are members", func() bool { return seed.cluster(2) == "c" && seed.cluster(3) == "c" && two.cluster(3) == "c" })
}

// TestNoBridge: a new node that was given seeds of two clusters brings them not together.
func TestNoBridge(t *testing.T) {
	one, other := begin(t, 1), begin(t, 2, cluster("d"))
	fresh := begin(t, 3, cluster(""))
	fresh.join(t, one)
	until(t, "it is seen", func() bool { return one.sees(1, 3) && fresh.sees(1, 3) })
	n, err := fresh.Join(soon(t), []string{other.at()})
	if n != 0 || err == nil || !strings.Contains(err.Error(), `of cluster "d", node 1 at `+one.at()+` of cluster "c"`) {
		t.Error(n, err)
	}
	time.Sleep(20 * quick.Interval)
	if slices.Contains(one.ids(), 2) || slices.Contains(fresh.ids(), 2) || slices.Contains(other.ids(), 1) {
		t.Error(one.ids(), fresh.ids(), other.ids())
	}
}

// TestSeedComesLater: a node that is alone tries on, and a cluster that lost sight of a node finds it again.
func TestSeedComesLater(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	_ = l.Close()
	two := begin(t, 2)
	if n, err := two.Join(soon(t), []string{at}); n != 0 || err == nil {
		t.Error(n, err)
	}
	one := begin(t, 1, address(at))
	until(t, "they have met", func() bool { return one.sees(1, 2) && two.sees(1, 2) })
	one.end(t)
	until(t, "it is missed", func() bool { return two.sees(2) })
	again := begin(t, 1, address(at), incarnation(2))
	until(t, "they have met again", func() bool {
		return again.sees(1, 2) && two.sees(1, 2) && two.member(1).Incarnation == [16]byte{1, 2}
	})
}

// TestSameID: a second node with an id is ignored, and said to be there, while the first is alive; when that has been gone for a while it takes its place.
func TestSameID(t *testing.T) {
	one, two := begin(t, 1), begin(t, 2)
	two.join(t, one)
	until(t, "both", func() bool { return one.sees(1, 2) })
	twin := begin(t, 2, incarnation(7))
	twin.mustJoin(t, one.at())
	until(t, "the conflict is told", func() bool { return one.log.count("two nodes have the same id") > 0 })
	if m := one.member(2); m.Address != two.at() {
		t.Errorf("%+v", m)
	}
	two.end(t)
	until(t, "it has taken the place", func() bool {
		if m := one.member(2); m.Address == twin.at() && m.Incarnation[1] == 7 {
			return true
		}
		_, _ = twin.list.Join([]string{one.at()}) // what the exchange every 30 s does
		return false
	})
	if n := one.log.count("two nodes have the same id"); n != 1 {
		t.Errorf("told %d times", n)
	}
}

// TestPackets: those of another cluster, and what is none, go no further.
func TestPackets(t *testing.T) {
	inner := []byte("packet")
	for _, tt := range []struct {
		from, to string
		passes   bool
	}{{"c", "c", true}, {"", "c", true}, {"c", "", true}, {"", "", true}, {"d", "c", false}} {
		if got := open(seal(inner, tt.from), tt.to); (got != nil) != tt.passes || got != nil && !bytes.Equal(got, inner) {
			t.Errorf("%+v: %q", tt, got)
		}
	}
	for _, b := range [][]byte{nil, inner, []byte("mg\x02tagtagtapacket"), seal(nil, "c")} {
		if got := open(b, "c"); got != nil {
			t.Errorf("%q passes as %q", b, got)
		}
	}
}

// TestMeta: what is decoded is what was encoded; what does not fit is an error.
func TestMeta(t *testing.T) {
	m := Member{NodeID: 7, Incarnation: [16]byte{1, 15: 2}, ClusterID: "c-1", Address: "broker-7:9093", Rack: "r", Expect: 5}
	b, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decode("7", append(b, "later"...)); err != nil || got != m {
		t.Errorf("%+v %v", got, err)
	}
	for n := range b {
		if _, err := decode("7", b[:n]); !errors.Is(err, ErrMeta) {
			t.Errorf("%d of %d bytes: %v", n, len(b), err)
		}
	}
	if _, err := decode("8", b); !errors.Is(err, ErrMeta) {
		t.Error("by another name:", err)
	}
	long := strings.Repeat("x", 200)
	for _, m := range []Member{{NodeID: -1}, {Expect: -1}, {Expect: 1 << 16}, {Rack: long + long}, {Rack: long, Address: long, ClusterID: long}} {
		if _, err := m.encode(); !errors.Is(err, ErrMeta) {
			t.Errorf("%+v: %v", m, err)
		}
	}
}

// TestOpen: who cannot take part is told why.
func TestOpen(t *testing.T) {
	for _, tt := range []struct {
		id   int32
		rack string
		want error
	}{{-1, "", ErrNodeID}, {1, strings.Repeat("r", 256), ErrMeta}} {
		hub, err := peer.Listen(peer.Options{Address: "127.0.0.1:0", Self: peer.Identity{NodeID: tt.id}, Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Options{Hub: hub, Now: time.Now, Rack: tt.rack}); !errors.Is(err, tt.want) {
			t.Error(err)
		}
		_ = hub.Shutdown(soon(t))
	}
	n := begin(t, 1)
	n.end(t)
	if _, err := n.Join(soon(t), []string{"127.0.0.1:1"}); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if err := n.Leave(soon(t)); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if err := n.Refresh(soon(t)); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// FuzzMeta: no decoder panics, and what it takes it would write likewise.
func FuzzMeta(f *testing.F) {
	b, _ := Member{NodeID: 7, ClusterID: "c", Address: "a:1", Rack: "r", Expect: 3}.encode()
	f.Add("7", b)
	f.Fuzz(func(t *testing.T, name string, b []byte) {
		m, err := decode(name, b)
		if err != nil || b[0] != metaVersion {
			return
		}
		again, err := m.encode()
		if err == nil && !bytes.HasPrefix(b, again) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}

// TestClustersPart: two new nodes that knew one another, and became members of different clusters, refuse to hear of one another.
func TestClustersPart(t *testing.T) {
	one, two := begin(t, 1, cluster("")), begin(t, 2, cluster(""))
	two.join(t, one)
	until(t, "they have met", func() bool { return one.sees(1, 2) && two.sees(1, 2) })
	for n, id := range map[*node]string{one: "c", two: "d"} {
		if err := n.hub.SetClusterID(id); err != nil {
			t.Fatal(err)
		}
	}
	b, err := two.self().encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := (&delegate{one.Gossip}).NotifyAlive(&memberlist.Node{Name: "2", Meta: b}); !errors.Is(err, ErrOtherCluster) || !strings.Contains(err.Error(), `is of cluster "d", this node of "c"`) {
		t.Error(err)
	}
	if one.log.count("a node of another cluster is about") != 1 {
		t.Error("it is not said")
	}
	until(t, "they have parted", func() bool { return one.sees(1) && two.sees(2) })
}

// TestEncrypted: with a secret nobody on the way can read what goes over UDP.
func TestEncrypted(t *testing.T) {
	spy, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer spy.Close()
	_ = spy.SetReadDeadline(time.Now().Add(5 * time.Second))
	text := []byte("to be read by some")
	for _, s := range []string{"", "shared"} {
		n := begin(t, 1, secret(s))
		if err := n.list.SendToAddress(memberlist.Address{Addr: spy.LocalAddr().String()}, text); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, largestPacket)
		got, _, err := spy.ReadFrom(b)
		if err != nil {
			t.Fatal(err)
		}
		if plain := bytes.Contains(b[:got], text); plain != (s == "") {
			t.Errorf("with secret %q it can be read: %v", s, plain)
		}
		n.end(t)
	}
}

// TestNames: certificates name hosts, and memberlist knows addresses only: what is dialled is what a seed or a member is called.
func TestNames(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(c)
	named := func(o *options) {
		o.peer.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, RootCAs: pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
		o.peer.Advertise, o.peer.Secret = "localhost:0", []byte("s")
		o.gossip.Settings.SyncInterval = 50 * time.Millisecond
	}
	one, two := begin(t, 1, named), begin(t, 2, named)
	two.join(t, one)
	until(t, "they have met", func() bool { return one.sees(1, 2) && two.sees(1, 2) })
	if err := one.transport.dialMember("2"); err != nil {
		t.Error(err)
	}
	hub, err := peer.Listen(peer.Options{Address: "127.0.0.1:0", Self: peer.Identity{NodeID: 3}, TLS: &tls.Config{}, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Hub: hub, Now: time.Now}); !errors.Is(err, ErrNoSecret) {
		t.Error(err)
	}
	_ = hub.Shutdown(soon(t))
}

// dialMember dials as memberlist does: by a member's name and address.
func (t *transport) dialMember(name string) error {
	addrs, err := peer.Resolve(context.Background(), t.nameOf(name))
	if err != nil {
		return err
	}
	c, err := t.DialAddressTimeout(memberlist.Address{Name: name, Addr: addrs[0]}, 5*time.Second)
	if err == nil {
		_ = c.Close()
	}
	return err
}
