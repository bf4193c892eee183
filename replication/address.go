package replication

import "sync"

// moved is where those nodes are that came back, perhaps at another address, while gossip has their earlier start. Gossip
// holds on to that for half a minute when nobody took leave: that is how it tells a second node with the same id.
type moved struct {
	mu sync.Mutex // guards to
	to map[int32]move
}

// move is a start of a node that has proved, in the handshake or to the metadata, that it has taken the place of an earlier one.
type move struct {
	address     string
	incarnation [16]byte
	before      [16]byte // what gossip had of it at the time: worth nothing any more
}

// moves notes where a node is that has joined or registered.
func (n *Node) moves(node int32, incarnation [16]byte, address string) {
	to := move{address: address, incarnation: incarnation}
	if g := n.gossip.Load(); g != nil {
		if m, found := g.Member(node); found && m.Incarnation != incarnation {
			to.before = m.Incarnation
		}
	}
	n.moved.mu.Lock()
	defer n.moved.mu.Unlock()
	if n.moved.to == nil {
		n.moved.to = map[int32]move{}
	}
	if have, found := n.moved.to[node]; found && have.incarnation == incarnation && to.before == [16]byte{} {
		to.before = have.before
	}
	n.moved.to[node] = to
}

// AddressOf is where a node is reached: as gossip has it, unless that is an earlier start of it; else as it has joined or registered.
func (n *Node) AddressOf(node int32) (string, bool) {
	n.moved.mu.Lock()
	to, hasMoved := n.moved.to[node]
	n.moved.mu.Unlock()
	if g := n.gossip.Load(); g != nil {
		if m, found := g.Member(node); found && !(hasMoved && m.Incarnation == to.before) {
			return m.Address, m.Address != ""
		}
	}
	if hasMoved {
		return to.address, true
	}
	if c := n.control.Load(); c != nil {
		if b, found := c.Image().Broker(node); found && b.Peer != "" {
			return b.Peer, true
		}
	}
	return "", false
}
