package peer

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// The handshake, before anything else on every connection. Numbers are big endian.
//
//	message:   "mrpeer" type(1) length(2) body
//
//	dialler                                                      acceptor
//	hello(1)      lowest(1) highest(1) kind(1) flags(1) node(4)
//	              target(4) incarnation(16) nonce(32)
//	              length(1) cluster                              ->
//	                                                             <-   challenge(2)  version(1) flags(1) nonce(32)
//	proof(3)      hmac(32)                                       ->
//	                                                             <-   welcome(4)    node(4) incarnation(16) length(1) cluster hmac(32)
//	                                    in place of either:      <-   refused(5)    reason(1) text
//
// Bytes behind what is known of a hello are passed over, so that a later version may add to it.
const (
	magic       = "mrpeer"
	headerBytes = len(magic) + 1 + 2
	maxMessage  = 1024 // of a body
	nonceBytes  = 32
	proofBytes  = sha256.Size
	maxText     = 300 // of a refusal
	flagSecret  = 1   // this side has a secret

	lowestVersion  = 1
	highestVersion = 1
)

type messageType byte

const (
	typeHello messageType = 1 + iota
	typeChallenge
	typeProof
	typeWelcome
	typeRefused
)

// Kind says what a connection is for.
type Kind byte

// The kinds. Raft, Push and Bulk are for members of the same cluster only; a node that does not know its cluster yet may
// open, and be reached by, Request and Gossip.
const (
	Raft    Kind = 1 + iota // raft's calls
	Request                 // requests and answers, see [Hub.Call]
	Push                    // a leader's stream to a follower
	Bulk                    // the same for followers that are far behind
	Gossip                  // memberlist's streams
)

func (k Kind) String() string {
	if k >= Raft && k <= Gossip {
		return [...]string{"raft", "request", "push", "bulk", "gossip"}[k-1]
	}
	return fmt.Sprintf("kind %d", byte(k))
}

// membersOnly tells whether both sides must know that they are of the same cluster.
func (k Kind) membersOnly() bool { return k != Request && k != Gossip }

// Identity is who a node is.
type Identity struct {
	ClusterID   string   // "" while it is not known; at most 255 bytes
	NodeID      int32    // -1 while it is not known
	Incarnation [16]byte // another with each start of the process
}

func (i Identity) String() string {
	cluster := "no cluster yet"
	if i.ClusterID != "" {
		cluster = fmt.Sprintf("cluster %q", i.ClusterID)
	}
	return fmt.Sprintf("node %d, %s, incarnation %x", i.NodeID, cluster, i.Incarnation[:4])
}

type hello struct {
	lowest, highest byte
	kind            Kind
	secret          bool
	from            Identity
	target          int32 // -1: whoever is there
	nonce           [nonceBytes]byte
}

type challenge struct {
	version byte
	secret  bool
	nonce   [nonceBytes]byte
}

type welcome struct {
	from  Identity
	proof [proofBytes]byte
}

func flags(secret bool) byte {
	if secret {
		return flagSecret
	}
	return 0
}

func (h *hello) encode() []byte {
	b := []byte{h.lowest, h.highest, byte(h.kind), flags(h.secret)}
	b = binary.BigEndian.AppendUint32(b, uint32(h.from.NodeID))
	b = binary.BigEndian.AppendUint32(b, uint32(h.target))
	b = append(append(b, h.from.Incarnation[:]...), h.nonce[:]...)
	return append(append(b, byte(len(h.from.ClusterID))), h.from.ClusterID...)
}

func decodeHello(b []byte) (h hello, err error) {
	r := reader{b: b}
	h.lowest, h.highest, h.kind, h.secret = r.byte(), r.byte(), Kind(r.byte()), r.byte()&flagSecret != 0
	h.from.NodeID, h.target = r.int32(), r.int32()
	copy(h.from.Incarnation[:], r.take(16))
	copy(h.nonce[:], r.take(nonceBytes))
	h.from.ClusterID = string(r.take(int(r.byte())))
	if r.short || h.lowest == 0 || h.lowest > h.highest || h.from.NodeID < -1 || h.target < -1 {
		return hello{}, fmt.Errorf("%w: hello of %d bytes", ErrProtocol, len(b))
	}
	return h, nil
}

func (c *challenge) encode() []byte {
	return append([]byte{c.version, flags(c.secret)}, c.nonce[:]...)
}

func decodeChallenge(b []byte) (c challenge, err error) {
	r := reader{b: b}
	c.version, c.secret = r.byte(), r.byte()&flagSecret != 0
	copy(c.nonce[:], r.take(nonceBytes))
	if r.short {
		return challenge{}, fmt.Errorf("%w: challenge of %d bytes", ErrProtocol, len(b))
	}
	return c, nil
}

// encodeIdentity is what a welcome says, without the proof, which covers it.
func encodeIdentity(id Identity) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(id.NodeID))
	b = append(b, id.Incarnation[:]...)
	return append(append(b, byte(len(id.ClusterID))), id.ClusterID...)
}

func (w *welcome) encode() []byte { return append(encodeIdentity(w.from), w.proof[:]...) }

func decodeWelcome(b []byte) (w welcome, err error) {
	r := reader{b: b}
	w.from.NodeID = r.int32()
	copy(w.from.Incarnation[:], r.take(16))
	w.from.ClusterID = string(r.take(int(r.byte())))
	copy(w.proof[:], r.take(proofBytes))
	if r.short || w.from.NodeID < -1 {
		return welcome{}, fmt.Errorf("%w: welcome of %d bytes", ErrProtocol, len(b))
	}
	return w, nil
}

func (e *RefusedError) encode() []byte {
	return append([]byte{byte(e.Reason)}, e.Text[:min(len(e.Text), maxText)]...)
}

// decodeRefused reads a refusal; its text comes from whoever is there, and is made fit to be shown.
func decodeRefused(b []byte) *RefusedError {
	if len(b) == 0 {
		return &RefusedError{Text: "no reason given"}
	}
	text := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(string(b[1:min(len(b), 1+maxText)]), "?"))
	return &RefusedError{Reason: Reason(b[0]), Text: text}
}

// common is the version that both sides speak, 0 for none.
func common(lowest, highest byte, h hello) byte {
	if v := min(highest, h.highest); v >= max(lowest, h.lowest) {
		return v
	}
	return 0
}

// prove is what only a holder of the secret can say of a handshake. The role keeps a proof from being sent back to where it
// came from; binding ties it to one TLS connection, and is empty without TLS.
func prove(secret []byte, role string, binding []byte, parts ...[]byte) (p [proofBytes]byte) {
	mac := hmac.New(sha256.New, secret)
	for _, part := range append([][]byte{[]byte("millrace peer " + role), binding}, parts...) {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(part)))
		mac.Write(n[:])
		mac.Write(part)
	}
	mac.Sum(p[:0])
	return p
}

// writeMessage writes one message of the handshake.
func writeMessage(w io.Writer, t messageType, body []byte) error {
	b := append(make([]byte, 0, headerBytes+len(body)), magic...)
	b = binary.BigEndian.AppendUint16(append(b, byte(t)), uint16(len(body)))
	_, err := w.Write(append(b, body...))
	return err
}

// readMessage reads one message, and not a byte more. A refusal is returned as an error, for any type that is asked for.
func readMessage(r io.Reader, want messageType) ([]byte, error) {
	var head [headerBytes]byte
	if n, err := io.ReadFull(r, head[:]); err != nil {
		if n = min(n, len(magic)); n > 0 && string(head[:n]) != magic[:n] {
			err = ErrProtocol
		}
		return nil, err
	}
	t, n := messageType(head[len(magic)]), int(binary.BigEndian.Uint16(head[len(magic)+1:]))
	if string(head[:len(magic)]) != magic || n > maxMessage || t != want && t != typeRefused {
		return nil, ErrProtocol
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, err
	}
	if t == typeRefused {
		return nil, decodeRefused(body)
	}
	return body, nil
}

// reader takes bytes from the front; once they have run short, everything is zero.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if r.short || n > len(r.b) {
		r.short = true
		return nil
	}
	taken := r.b[:n]
	r.b = r.b[n:]
	return taken
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) int32() int32 { return int32(r.uint32()) }

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}
