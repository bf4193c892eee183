package peer

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// Dial opens a connection to a node that the directory knows. It is bounded by the context and by the handshake's timeout. errors.Is(err, ErrRefused) tells
// that the other side does not want it, ErrNotListening that its process has ended; the caller closes the connection.
func (h *Hub) Dial(ctx context.Context, node int32, kind Kind) (*Conn, error) {
	if h.opts.Directory != nil {
		if address, known := h.opts.Directory.AddressOf(node); known {
			return h.dial(ctx, address, node, kind)
		}
	}
	return nil, fmt.Errorf("%w: node %d", ErrUnknownNode, node)
}

// DialAddress opens a connection to whoever is at an address; otherwise it is as Dial.
func (h *Hub) DialAddress(ctx context.Context, address string, kind Kind) (*Conn, error) {
	return h.dial(ctx, address, -1, kind)
}

func (h *Hub) dial(ctx context.Context, address string, target int32, kind Kind) (*Conn, error) {
	self := h.Self()
	if self.ClusterID == "" && kind.membersOnly() {
		return nil, refuse(ReasonCluster, "this node is in no cluster yet, so it opens no %v connections", kind)
	}
	ctx, cancel := context.WithTimeout(ctx, h.opts.HandshakeTimeout)
	defer cancel()
	defer context.AfterFunc(h.ctx, cancel)()
	d := net.Dialer{KeepAliveConfig: keepAlive}
	raw, err := d.DialContext(ctx, "tcp", address)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%w: %w", ErrNotListening, err)
	} else if err != nil {
		return nil, err
	}
	conn, err := h.introduce(ctx, raw, address, target, kind, self)
	if err == nil {
		return conn, nil
	}
	_ = raw.Close()
	if h.ctx.Err() != nil {
		return nil, ErrClosed
	}
	if ctx.Err() == nil {
		h.complain("a connection to a peer did not come about", "to", address, err)
	}
	return nil, fmt.Errorf("peer: handshake with %s: %w", address, err)
}

// introduce is the dialling side of the handshake.
func (h *Hub) introduce(ctx context.Context, raw net.Conn, address string, target int32, kind Kind, self Identity) (*Conn, error) {
	deadline, _ := ctx.Deadline() // there is one
	_ = raw.SetDeadline(deadline)
	release := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	defer release()
	conn, binding := raw, []byte(nil)
	if h.opts.TLS != nil {
		config := h.opts.TLS
		if config.ServerName == "" {
			config = config.Clone()
			config.ServerName, _, _ = net.SplitHostPort(address)
		}
		over := tls.Client(raw, config)
		var err error
		if binding, err = bind(ctx, over); err != nil {
			return nil, err
		}
		conn = over
	}
	hi := hello{lowest: h.lowest, highest: h.highest, kind: kind, secret: h.secret, from: self, target: target}
	_, _ = rand.Read(hi.nonce[:]) // does not fail
	said := hi.encode()
	if err := writeMessage(conn, typeHello, said); err != nil {
		return nil, err
	}
	asked, err := readMessage(conn, typeChallenge)
	if err == io.EOF {
		return nil, fmt.Errorf("the other side closed the connection (is TLS on at one side only?): %w", err)
	} else if err != nil {
		return nil, err
	}
	ch, err := decodeChallenge(asked)
	if err != nil {
		return nil, err
	}
	if ch.version < h.lowest || ch.version > h.highest {
		return nil, fmt.Errorf("%w: version %d", ErrProtocol, ch.version)
	}
	if ch.secret != h.secret {
		return nil, here(refuse(ReasonSecret, "a shared secret is configured on one side only"))
	}
	proof := make([]byte, proofBytes)
	if h.secret {
		p := prove(h.opts.Secret, "dialler", binding, said, asked)
		proof = p[:]
	}
	if err := writeMessage(conn, typeProof, proof); err != nil {
		return nil, err
	}
	answer, err := readMessage(conn, typeWelcome)
	if err != nil {
		return nil, err
	}
	w, err := decodeWelcome(answer)
	if err != nil {
		return nil, err
	}
	if p := prove(h.opts.Secret, "acceptor", binding, said, asked, encodeIdentity(w.from)); h.secret && !hmac.Equal(p[:], w.proof[:]) {
		return nil, here(refuse(ReasonSecret, "the node at %s does not have the shared secret", address))
	}
	if target >= 0 && w.from.NodeID != target {
		return nil, here(refuse(ReasonTarget, "at %s is node %d, not node %d", address, w.from.NodeID, target))
	}
	if err := clusters(kind, self, w.from); err != nil {
		return nil, here(err)
	}
	c := h.conn(conn, raw, kind, w.from, ch.version)
	if !release() { // the context has ended, and with it the deadlines
		c.cancel()
		return nil, ctx.Err()
	}
	if err := h.admit(c); err != nil {
		c.cancel()
		return nil, here(err)
	}
	_ = raw.SetDeadline(time.Time{})
	return c, nil
}

// here marks a refusal as this side's.
func here(err error) error {
	if r, ok := err.(*RefusedError); ok {
		r.Here = true
	}
	return err
}

// welcome is the accepting side of the handshake. The refusal has been sent when it returns.
func (h *Hub) welcome(raw net.Conn) (*Conn, Handler, error) {
	ctx, cancel := context.WithTimeout(h.ctx, h.opts.HandshakeTimeout)
	defer cancel()
	_ = raw.SetDeadline(h.opts.Now().Add(h.opts.HandshakeTimeout))
	release := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	defer release()
	conn, binding := raw, []byte(nil)
	if h.opts.TLS != nil {
		over := tls.Server(raw, h.opts.TLS)
		var err error
		if binding, err = bind(ctx, over); err != nil {
			return nil, nil, err
		}
		conn = over
	}
	said, err := readMessage(conn, typeHello)
	if err != nil {
		return nil, nil, err
	}
	hi, err := decodeHello(said)
	if err != nil {
		return nil, nil, err
	}
	sorry := func(err error) (*Conn, Handler, error) {
		if r, ok := err.(*RefusedError); ok {
			_ = writeMessage(conn, typeRefused, r.encode())
		}
		return nil, nil, err
	}
	ch := challenge{version: common(h.lowest, h.highest, hi), secret: h.secret}
	switch {
	case ch.version == 0:
		return sorry(refuse(ReasonVersion, "the node that accepts speaks versions %d to %d of the peer protocol, the one that dials %d to %d", h.lowest, h.highest, hi.lowest, hi.highest))
	case h.secret && !hi.secret:
		return sorry(refuse(ReasonSecret, "the cluster has a shared secret, and node %d has none", hi.from.NodeID))
	case !h.secret && hi.secret:
		return sorry(refuse(ReasonSecret, "node %d has a shared secret, and node %d has none", hi.from.NodeID, h.opts.Self.NodeID))
	}
	_, _ = rand.Read(ch.nonce[:])
	asked := ch.encode()
	if err := writeMessage(conn, typeChallenge, asked); err != nil {
		return nil, nil, err
	}
	proof, err := readMessage(conn, typeProof)
	if err != nil {
		return nil, nil, err
	}
	if p := prove(h.opts.Secret, "dialler", binding, said, asked); h.secret && !hmac.Equal(p[:], proof) {
		return sorry(refuse(ReasonSecret, "node %d has another shared secret than this cluster", hi.from.NodeID))
	}
	self := h.Self()
	handler, err := h.judge(hi, self)
	if err != nil {
		return sorry(err)
	}
	c := h.conn(conn, raw, hi.kind, hi.from, ch.version)
	if err := h.admit(c); err != nil {
		c.cancel()
		return sorry(err)
	}
	w := welcome{from: self}
	if h.secret {
		w.proof = prove(h.opts.Secret, "acceptor", binding, said, asked, encodeIdentity(self))
	}
	if err := writeMessage(conn, typeWelcome, w.encode()); err != nil || !release() {
		_ = c.Close()
		return nil, nil, fmt.Errorf("peer: the handshake broke off: %w", orDeadline(err))
	}
	_ = raw.SetDeadline(time.Time{})
	return c, handler, nil
}

func orDeadline(err error) error {
	if err == nil {
		return context.DeadlineExceeded
	}
	return err
}

// judge says whether this node wants what a proven dialler asks for.
func (h *Hub) judge(hi hello, self Identity) (Handler, error) {
	if err := clusters(hi.kind, hi.from, self); err != nil {
		return nil, err
	}
	if hi.target >= 0 && hi.target != self.NodeID {
		return nil, refuse(ReasonTarget, "at %s is node %d, not node %d", h.advertise, self.NodeID, hi.target)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	handler := h.handlers[hi.kind]
	if handler == nil {
		return nil, refuse(ReasonKind, "node %d takes no %v connections now", self.NodeID, hi.kind)
	}
	return handler, nil
}

// clusters says whether the clusters of two nodes agree.
func clusters(kind Kind, dialler, acceptor Identity) error {
	switch d, a := dialler.ClusterID, acceptor.ClusterID; {
	case d != "" && a != "" && d != a:
		return refuse(ReasonCluster, "node %d is of cluster %q, node %d of cluster %q", dialler.NodeID, d, acceptor.NodeID, a)
	case (d == "" || a == "") && kind.membersOnly():
		return refuse(ReasonCluster, "%v connections are for members of a cluster, and one of nodes %d and %d is in none yet", kind, dialler.NodeID, acceptor.NodeID)
	case dialler.NodeID < 0 && kind.membersOnly():
		return refuse(ReasonCluster, "%v connections are for nodes that have an id", kind)
	}
	return nil
}

// bind does TLS's handshake and returns what only the two ends of this connection know.
func bind(ctx context.Context, c *tls.Conn) ([]byte, error) {
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTLS, err)
	}
	state := c.ConnectionState()
	return state.ExportKeyingMaterial("EXPERIMENTAL millrace peer", nil, proofBytes)
}

func (h *Hub) conn(conn, raw net.Conn, kind Kind, peer Identity, version byte) *Conn {
	c := &Conn{Conn: conn, raw: raw, hub: h, kind: kind, peer: peer, version: version}
	c.ctx, c.cancel = context.WithCancel(h.ctx)
	return c
}
