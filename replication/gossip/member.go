package gossip

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"

	"github.com/hashicorp/memberlist"
)

// Member is what a node says of itself.
type Member struct {
	NodeID      int32
	Incarnation [16]byte
	ClusterID   string // "": it is in no cluster yet
	Address     string // host:port that it advertises for peers
	Rack        string
	Expect      int // a node without a cluster: with so many nodes it would found one; 0: never
}

func (m Member) compare(other Member) int { return int(m.NodeID) - int(other.NodeID) }

// A node's meta, at most 512 bytes, numbers big endian. What follows it is passed over, so that later versions may add to it.
//
//	version(1) node(4) incarnation(16) expect(2) then cluster, address, rack, each length(1) text
const metaVersion = 1

func (m Member) encode() ([]byte, error) {
	if m.NodeID < 0 || m.Expect < 0 || m.Expect > 1<<16-1 {
		return nil, fmt.Errorf("%w: node %d, expecting %d", ErrMeta, m.NodeID, m.Expect)
	}
	b := binary.BigEndian.AppendUint32([]byte{metaVersion}, uint32(m.NodeID))
	b = binary.BigEndian.AppendUint16(append(b, m.Incarnation[:]...), uint16(m.Expect))
	for _, s := range []string{m.ClusterID, m.Address, m.Rack} {
		if len(s) > 255 {
			return nil, fmt.Errorf("%w: %d bytes of text", ErrMeta, len(s))
		}
		b = append(append(b, byte(len(s))), s...)
	}
	if len(b) > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("%w: %d bytes", ErrMeta, len(b))
	}
	return b, nil
}

// decode reads what a node says of itself. The name is memberlist's for it.
func decode(name string, b []byte) (m Member, err error) {
	bad := fmt.Errorf("%w: %d bytes, of node %q", ErrMeta, len(b), name)
	const fixed = 1 + 4 + 16 + 2
	if len(b) < fixed || b[0] < metaVersion {
		return m, bad
	}
	m.NodeID = int32(binary.BigEndian.Uint32(b[1:]))
	copy(m.Incarnation[:], b[5:])
	m.Expect = int(binary.BigEndian.Uint16(b[21:]))
	b = b[fixed:]
	for _, s := range []*string{&m.ClusterID, &m.Address, &m.Rack} {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return Member{}, bad
		}
		*s, b = string(b[1:1+b[0]]), b[1+int(b[0]):]
	}
	if m.NodeID < 0 || nameOf(m.NodeID) != name {
		return Member{}, bad
	}
	return m, nil
}

func nameOf(node int32) string { return strconv.Itoa(int(node)) }

// sameCluster is false for two nodes of which both know their cluster, and it is not the same.
func sameCluster(a, b string) bool { return a == "" || b == "" || a == b }

// sorted returns members by their node id.
func sorted(members map[string]Member, keep func(Member) bool) (out []Member) {
	for _, m := range members {
		if keep(m) {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, Member.compare)
	return out
}
