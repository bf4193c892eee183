package peer

import (
	"errors"
	"fmt"
)

// Of connections.
var (
	// ErrRefused means that the other side, or this one, does not want the connection; see [RefusedError] for why.
	ErrRefused = errors.New("peer: refused")
	// ErrProtocol means that what came is not what a peer says: another program, or TLS on one side only.
	ErrProtocol = errors.New("peer: the other side does not speak as a peer does (is TLS on at one side only?)")
	// ErrTLS means that the two sides did not agree on encryption: a certificate that is not trusted, or no TLS at one side.
	ErrTLS = errors.New("peer: no TLS connection")
	// ErrNotListening means that the host answered that nobody listens at an address: the process there has ended.
	ErrNotListening = errors.New("peer: nobody listens there")
	// ErrUnknownNode means that the directory has no address of a node.
	ErrUnknownNode = errors.New("peer: no address is known")
	// ErrClosed means that the hub was shut down.
	ErrClosed = errors.New("peer: shut down")
	// ErrAdvertise means that others could not reach the address that a node would tell them.
	ErrAdvertise = errors.New("peer: not an address that others can reach")
	// ErrClusterID means that a node's cluster id was to be changed, or is too long.
	ErrClusterID = errors.New("peer: a cluster id is set once, and has at most 255 bytes")
)

// Of requests.
var (
	// ErrDisconnected means that the connection broke while a call was under way: it may have been served.
	ErrDisconnected = errors.New("peer: disconnected")
	// ErrTooLarge means that a body is larger than [MaxBodyBytes]. Nothing was sent.
	ErrTooLarge = errors.New("peer: body too large")
)

// Reason says in one byte why a connection was refused.
type Reason byte

// The reasons. Their numbers are on the wire.
const (
	ReasonVersion Reason = 1 + iota // no version of the protocol is common to both
	ReasonSecret                    // the shared secret is missing on a side, or differs
	ReasonCluster                   // another cluster, or a kind that is only for members of one
	ReasonTarget                    // another node was meant
	ReasonInUse                     // the node id belongs to another that is alive
	ReasonKind                      // nobody serves this kind
	ReasonBusy                      // too many connections
)

// RefusedError is why a connection was refused. errors.Is(err, ErrRefused) holds for it.
type RefusedError struct {
	Reason Reason
	Text   string // for people
	Here   bool   // this side refused, after the other one had agreed
}

func (e *RefusedError) Error() string { return "peer: refused: " + e.Text }

// Is makes it an ErrRefused.
func (e *RefusedError) Is(target error) bool { return target == ErrRefused }

func refuse(reason Reason, format string, args ...any) *RefusedError {
	return &RefusedError{Reason: reason, Text: fmt.Sprintf(format, args...)}
}

// Code says in a number that travels why a request failed.
type Code uint16

// The codes of this room. Those from CodeFree on belong to whoever registers methods.
const (
	CodeOther    Code = iota // an error of the handler that is not an [Error]
	CodeNoMethod             // the node there serves no such method
	CodeBusy                 // it has too much under way
	CodeDeadline             // the deadline passed there
	CodeTooLarge             // the answer is larger than a frame

	CodeFree Code = 100
)

// Error is how a request failed at the other side. A handler that returns one chooses the code; the text of any other error travels
// with CodeOther.
type Error struct {
	Code Code
	Text string
}

func (e *Error) Error() string { return e.Text }
