package peer

import (
	"bufio"
	"context"
	"net"
	"sync"
)

// Conn is a connection whose other side is known. Its deadlines are its user's.
type Conn struct {
	net.Conn
	raw     net.Conn // beneath TLS
	hub     *Hub
	kind    Kind
	peer    Identity
	version byte
	ctx     context.Context
	cancel  context.CancelFunc
	once    sync.Once
}

// Peer is who is at the other side, as it was when the connection was made.
func (c *Conn) Peer() Identity { return c.peer }

// Version is the version of the protocol that was agreed upon.
func (c *Conn) Version() int { return int(c.version) }

// Kind is what the connection is for.
func (c *Conn) Kind() Kind { return c.kind }

// Done is closed when the connection has been closed on this side, or the hub is shut down.
func (c *Conn) Done() <-chan struct{} { return c.ctx.Done() }

// gathered is how much of what WriteBuffers is given goes into one call where the system cannot gather by itself.
const gathered = 64 << 10

// WriteBuffers writes many pieces, in one call where the connection is plain TCP. It may change the slice, but not what its
// elements point to.
func (c *Conn) WriteBuffers(pieces [][]byte) (int64, error) {
	if c.Conn == c.raw {
		b := net.Buffers(pieces)
		return b.WriteTo(c.raw)
	}
	w := bufio.NewWriterSize(c.Conn, gathered)
	n := int64(0)
	for _, piece := range pieces {
		written, err := w.Write(piece)
		if n += int64(written); err != nil {
			return n, err
		}
	}
	return n, w.Flush()
}

// Close ends the connection and does not block: without TLS's goodbye, which could. Closing again does nothing.
func (c *Conn) Close() error {
	c.once.Do(func() {
		_ = c.raw.Close()
		c.hub.remove(c)
		c.cancel()
	})
	return nil
}

// admit takes a connection into the hub's books, or says why not.
func (h *Hub) admit(c *Conn) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	self, node := h.opts.Self, c.peer.NodeID
	p := h.present[node]
	switch {
	case h.closed:
		return ErrClosed
	case len(h.conns) >= maxConns:
		return refuse(ReasonBusy, "%d connections are open already", len(h.conns))
	case node < 0: // not known yet
	case node == self.NodeID && c.peer.Incarnation != self.Incarnation:
		return refuse(ReasonInUse, "node id %d is in use: it is the id of the node at %s", node, h.advertise)
	case p != nil && p.incarnation != c.peer.Incarnation:
		return refuse(ReasonInUse, "node id %d is in use: another process with it is connected to node %d", node, self.NodeID)
	}
	h.conns[c] = struct{}{}
	if c.counts() {
		if p == nil {
			p = &presence{incarnation: c.peer.Incarnation}
			h.present[node] = p
			h.happened(event{node, true})
		}
		p.conns++
	}
	return nil
}

// counts tells whether a connection shows that its node is alive: those with pings do.
func (c *Conn) counts() bool {
	return c.kind == Request && c.peer.NodeID >= 0 && c.peer.NodeID != c.hub.opts.Self.NodeID
}

func (h *Hub) remove(c *Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, admitted := h.conns[c]; !admitted {
		return
	}
	delete(h.conns, c)
	if !c.counts() {
		return
	}
	p := h.present[c.peer.NodeID]
	if p.conns--; p.conns == 0 {
		delete(h.present, c.peer.NodeID)
		h.happened(event{c.peer.NodeID, false})
	}
}
