package peer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestRefusals: each reason reaches the side that dialled, as text for people, and is logged on both sides once.
func TestRefusals(t *testing.T) {
	cluster := func(id string) func(*Options) { return func(o *Options) { o.Self.ClusterID = id } }
	secret := func(s string) func(*Options) { return func(o *Options) { o.Secret = []byte(s) } }
	node := func(id int32) func(*Options) { return func(o *Options) { o.Self.NodeID = id } }
	none := func(*Options) {}
	tests := []struct {
		name             string
		dialler, other   func(*Options)
		lowest, highest  byte // of the dialler
		kind             Kind
		target           int32
		want             Reason
		text             string
		here             bool // nothing reaches the other side, or it does not refuse
		neitherComplains bool
	}{
		{name: "another cluster", dialler: cluster("d"), other: none, kind: Request, target: 2, want: ReasonCluster, text: `node 1 is of cluster "d", node 2 of cluster "c"`},
		{name: "another cluster's gossip", dialler: cluster("d"), other: none, kind: Gossip, target: -1, want: ReasonCluster, text: `cluster "d"`},
		{name: "a new node pushes", dialler: cluster(""), other: none, kind: Push, target: 2, want: ReasonCluster, text: "in no cluster yet", here: true, neitherComplains: true},
		{name: "raft to a new node", dialler: none, other: cluster(""), kind: Raft, target: 2, want: ReasonCluster, text: "is in none yet"},
		{name: "no id", dialler: node(-1), other: none, kind: Bulk, target: 2, want: ReasonCluster, text: "nodes that have an id"},
		{name: "another node", dialler: none, other: none, kind: Request, target: 3, want: ReasonTarget, text: "is node 2, not node 3"},
		{name: "no secret", dialler: none, other: secret("s"), kind: Request, target: 2, want: ReasonSecret, text: "the cluster has a shared secret, and node 1 has none"},
		{name: "no secret at the other side", dialler: secret("s"), other: none, kind: Request, target: 2, want: ReasonSecret, text: "node 1 has a shared secret, and node 2 has none"},
		{name: "another secret", dialler: secret("s"), other: secret("t"), kind: Request, target: 2, want: ReasonSecret, text: "another shared secret"},
		{name: "a wrong secret hides the rest", dialler: func(o *Options) { cluster("d")(o); secret("s")(o) }, other: secret("t"), kind: Push, target: 3, want: ReasonSecret, text: "another shared secret"},
		{name: "from the future", dialler: none, other: none, lowest: 2, highest: 3, kind: Request, target: 2, want: ReasonVersion, text: "speaks versions 1 to 1 of the peer protocol, the one that dials 2 to 3"},
		{name: "its own id", dialler: node(2), other: none, kind: Request, target: 2, want: ReasonInUse, text: "node id 2 is in use: it is the id of the node at 127.0.0.1"},
		{name: "nobody serves it", dialler: none, other: none, kind: Bulk, target: 2, want: ReasonKind, text: "takes no bulk connections"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var here, there lines
			two := listen(t, 2, nil, tt.other, func(o *Options) { o.Logger = there.logger() })
			two.Handle(Push, hold)
			two.Handle(Raft, hold)
			two.Handle(Gossip, hold)
			one := listen(t, 1, nil, tt.dialler, func(o *Options) { o.Logger = here.logger(); o.Self.Incarnation = [16]byte{1, 1} })
			if tt.highest != 0 {
				one.lowest, one.highest = tt.lowest, tt.highest
			}
			for range 3 {
				_, err := one.dial(t.Context(), two.Advertise(), tt.target, tt.kind)
				var refused *RefusedError
				if !errors.Is(err, ErrRefused) || !errors.As(err, &refused) {
					t.Fatal(err)
				}
				if refused.Reason != tt.want || !strings.Contains(refused.Text, tt.text) || refused.Here {
					t.Errorf("%+v", refused)
				}
			}
			want := 1
			if tt.neitherComplains {
				want = 0
			}
			until(t, "the other side's line", func() bool { return there.count("a peer's connection was refused") >= want })
			if n := here.count("did not come about"); n != want {
				t.Errorf("%d lines here", n)
			}
			if n := there.count("a peer's connection was refused"); n != want {
				t.Errorf("%d lines there", n)
			}
			if conns := open(one) + open(two); conns != 0 {
				t.Errorf("%d connections are left", conns)
			}
		})
	}
}

func open(h *Hub) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.conns)
}

// TestAdmitted: who is there is known on both sides, for members and for new nodes.
func TestAdmitted(t *testing.T) {
	for _, secret := range [][]byte{nil, []byte("s")} {
		for _, tt := range []struct {
			from, to string
			kind     Kind
		}{{"c", "c", Push}, {"c", "c", Request}, {"", "c", Request}, {"", "c", Gossip}, {"c", "", Gossip}, {"c", "", Request}, {"", "", Request}} {
			two := listen(t, 2, nil, func(o *Options) { o.Secret = secret; o.Self.ClusterID = tt.to })
			got := make(chan Identity, 1)
			for _, k := range []Kind{Push, Gossip} {
				two.Handle(k, func(_ context.Context, c *Conn) {
					if c.Kind() == k {
						got <- c.Peer()
					}
					_, _ = io.Copy(c, c)
				})
			}
			one := listen(t, 1, nil, func(o *Options) { o.Secret = secret; o.Self.ClusterID = tt.from })
			one.highest = 9
			c, err := one.dial(t.Context(), two.Advertise(), 2, tt.kind)
			if err != nil {
				t.Errorf("%+v: %v", tt, err)
				continue
			}
			if c.Peer() != two.Self() || c.Version() != 1 {
				t.Errorf("%+v: reached %v, version %d", tt, c.Peer(), c.Version())
			}
			if tt.kind != Request {
				if from := <-got; from != one.Self() {
					t.Errorf("%+v: it sees %v", tt, from)
				}
				var echo [4]byte
				_, err := c.Write([]byte("ping"))
				if _, rerr := io.ReadFull(c, echo[:]); err != nil || rerr != nil || string(echo[:]) != "ping" {
					t.Errorf("%+v: %v %v %q", tt, err, rerr, echo)
				}
			}
			_ = c.Close()
			<-c.Done()
		}
	}
}

// TestNodeIDInUse: a second process with a node's id is refused while the first is connected, by whomever was dialled, and comes in when that has gone.
func TestNodeIDInUse(t *testing.T) {
	for _, dialled := range []string{"by the node", "by us"} {
		b := newBook()
		one, two := listen(t, 1, b), listen(t, 2, b)
		from, to := two, int32(1)
		if dialled == "by us" {
			from, to = one, 2
		}
		if _, err := from.Call(t.Context(), to, "x", nil); !isCode(err, CodeNoMethod) {
			t.Fatal(err)
		}
		again := listen(t, 2, b, func(o *Options) { o.Self.Incarnation = [16]byte{2, 2} })
		_, err := again.Call(t.Context(), 1, "x", nil)
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "node id 2 is in use: another process with it is connected to node 1") {
			t.Errorf("dialled %s: %v", dialled, err)
		}
		one.Handle(Push, hold)
		if _, err := again.Dial(t.Context(), 1, Push); !errors.Is(err, ErrRefused) {
			t.Errorf("dialled %s: a stream: %v", dialled, err)
		}
		shut(t, two)
		until(t, "the id is free", func() bool { return open(one) == 0 })
		if _, err := again.Call(t.Context(), 1, "x", nil); !isCode(err, CodeNoMethod) {
			t.Errorf("dialled %s: %v", dialled, err)
		}
	}
}

// TestHalfOpen: whoever stops in the middle of the handshake is cut off, on either side.
func TestHalfOpen(t *testing.T) {
	short := func(o *Options) { o.HandshakeTimeout = 50 * time.Millisecond }
	h := listen(t, 1, nil, short)
	hi := someHello
	hi.secret, hi.from.ClusterID, hi.kind, hi.lowest = false, "c", Request, 1
	for name, say := range map[string]func(net.Conn){
		"nothing":      func(net.Conn) {},
		"half a hello": func(c net.Conn) { _, _ = c.Write([]byte("mrpeer\x01\x00\x50abc")) },
		"a hello":      func(c net.Conn) { _ = writeMessage(c, typeHello, hi.encode()) },
	} {
		c, err := net.Dial("tcp", h.Advertise())
		if err != nil {
			t.Fatal(err)
		}
		say(c)
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
			t.Errorf("%s: it is still open", name)
		}
		_ = c.Close()
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	begun := time.Now()
	if _, err := h.DialAddress(t.Context(), silent.Addr().String(), Request); !isTimeout(err) || time.Since(begun) > 3*time.Second {
		t.Errorf("after %v: %v", time.Since(begun), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	patient := listen(t, 2, nil)
	if _, err := patient.DialAddress(ctx, silent.Addr().String(), Request); err == nil || time.Since(begun) > 3*time.Second {
		t.Errorf("after %v: %v", time.Since(begun), err)
	}
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// TestShutdownInHandshake: a hub ends at once while somebody hesitates.
func TestShutdownInHandshake(t *testing.T) {
	h, err := Listen(Options{Address: "127.0.0.1:0", Self: Identity{NodeID: 1}, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", h.Advertise())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	until(t, "the handshake began", func() bool { return len(h.shaking) == 1 })
	begun := time.Now()
	shut(t, h)
	if d := time.Since(begun); d > 2*time.Second {
		t.Errorf("it took %v", d)
	}
	if _, err := h.DialAddress(t.Context(), h.Advertise(), Request); err == nil {
		t.Error("it dials after its end")
	}
	if _, err := h.Call(t.Context(), 2, "x", nil); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// TestImpostor: a listener that says welcome without having the secret is not believed, nor one that sends a proof back.
func TestImpostor(t *testing.T) {
	for _, name := range []string{"no proof", "the dialler's own proof"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = readMessage(c, typeHello)
			_ = writeMessage(c, typeChallenge, (&challenge{version: 1, secret: true}).encode())
			proof, _ := readMessage(c, typeProof)
			w := welcome{from: Identity{ClusterID: "c", NodeID: 2}}
			if name != "no proof" {
				copy(w.proof[:], proof)
			}
			_ = writeMessage(c, typeWelcome, w.encode())
			_, _ = io.Copy(io.Discard, c)
		}()
		h := listen(t, 1, nil, func(o *Options) { o.Secret = []byte("s") })
		_, err = h.dial(t.Context(), l.Addr().String(), 2, Request)
		var refused *RefusedError
		if !errors.As(err, &refused) || refused.Reason != ReasonSecret || !refused.Here {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// authority makes certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	_, a.cert, a.key = a.make(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, Subject: pkix.Name{CommonName: "test"}})
	return a
}

var serial atomic.Int64

func (a *authority) make(c *x509.Certificate) (der []byte, cert *x509.Certificate, key *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(serial.Add(1)), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	if der, err = x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer); err == nil {
		cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		a.t.Fatal(err)
	}
	return der, cert, key
}

// config is one node's: both sides show a certificate.
func (a *authority) config(ips ...net.IP) *tls.Config {
	der, _, key := a.make(&x509.Certificate{IPAddresses: ips, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}})
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, RootCAs: pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
}

// TestTLS: nodes with certificates of one authority reach one another; others are told what is wrong, or at least that something is.
func TestTLS(t *testing.T) {
	loopback := net.IPv4(127, 0, 0, 1)
	ours, theirs := newAuthority(t), newAuthority(t)
	with := func(c *tls.Config) func(*Options) {
		return func(o *Options) { o.TLS = c; o.Secret = []byte("s") }
	}
	b := newBook()
	two := listen(t, 2, b, with(ours.config(loopback)))
	two.Register("echo", func(_ context.Context, _ Identity, body []byte) ([]byte, error) { return body, nil })
	one := listen(t, 1, b, with(ours.config(loopback)))
	big := make([]byte, 1<<20)
	if got, err := one.Call(t.Context(), 2, "echo", big); err != nil || len(got) != len(big) {
		t.Error(len(got), err)
	}
	tests := []struct {
		name   string
		config *tls.Config
		want   error
	}{
		{"another authority", theirs.config(loopback), ErrTLS},
		{"no TLS", nil, io.EOF},
	}
	for _, tt := range tests {
		other := listen(t, 3, b, with(tt.config))
		if _, err := other.Call(t.Context(), 2, "echo", nil); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if _, err := one.Call(t.Context(), 3, "echo", nil); err == nil {
			t.Errorf("%s: no error at the other side", tt.name)
		}
	}
	elsewhere := listen(t, 4, b, with(ours.config(net.IPv4(127, 0, 0, 9))))
	if _, err := one.Call(t.Context(), elsewhere.Self().NodeID, "echo", nil); !errors.Is(err, ErrTLS) || !strings.Contains(err.Error(), "127.0.0.9") {
		t.Error("a certificate for another host:", err)
	}
}

// TestInTheMiddle: who passes on the handshake between two TLS connections is found out by the proof, even if nobody verifies certificates.
func TestInTheMiddle(t *testing.T) {
	a := newAuthority(t)
	blind := func(o *Options) {
		o.Secret, o.TLS = []byte("s"), a.config(net.IPv4(127, 0, 0, 1))
		o.TLS.InsecureSkipVerify, o.TLS.ClientAuth = true, tls.RequireAnyClientCert
	}
	one, two := listen(t, 1, nil, blind), listen(t, 2, nil, blind)
	if c, err := one.DialAddress(t.Context(), two.Advertise(), Request); err != nil {
		t.Fatal(err)
	} else {
		_ = c.Close()
	}
	config := newAuthority(t).config(net.IPv4(127, 0, 0, 1))
	config.InsecureSkipVerify, config.ClientAuth = true, tls.NoClientCert
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		in, err := l.Accept()
		if err != nil {
			return
		}
		defer in.Close()
		out, err := tls.Dial("tcp", two.Advertise(), config)
		if err != nil {
			return
		}
		defer out.Close()
		go func() { _, _ = io.Copy(out, in) }()
		_, _ = io.Copy(in, out)
	}()
	_, err = one.DialAddress(t.Context(), l.Addr().String(), Request)
	var refused *RefusedError
	if !errors.As(err, &refused) || refused.Reason != ReasonSecret {
		t.Error(err)
	}
}
