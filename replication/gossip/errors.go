package gossip

import "errors"

var (
	// ErrMeta means that a node has more to tell of itself than fits, 512 bytes, or nothing that can be read.
	ErrMeta = errors.New("gossip: a node's description")
	// ErrOtherCluster means that nodes of two clusters met, or of one and of nobody knows which.
	ErrOtherCluster = errors.New("gossip: another cluster")
	// ErrNoSecret means that the connections of the cluster are encrypted, and packets could not be: they are with the shared secret.
	ErrNoSecret = errors.New("gossip: with TLS a shared secret is needed too, to encrypt what goes over UDP")
	// ErrNodeID means that a node without an id was to take part.
	ErrNodeID = errors.New("gossip: no node id")
	// ErrClosed means that this node has ended its part.
	ErrClosed = errors.New("gossip: closed")
)
