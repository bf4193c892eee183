package server

import (
	"encoding/binary"

	"github.com/millrace/millrace/engine/catalog"
)

// The two responses that carry the load, Produce and Fetch, are encoded by hand
// into one buffer. These are the pieces of the encoding that kmsg does not export.

func appendInt16(dst []byte, n int16) []byte { return binary.BigEndian.AppendUint16(dst, uint16(n)) }
func appendInt32(dst []byte, n int32) []byte { return binary.BigEndian.AppendUint32(dst, uint32(n)) }
func appendInt64(dst []byte, n int64) []byte { return binary.BigEndian.AppendUint64(dst, uint64(n)) }

// appendArrayLen appends the length of an array that is not null.
func appendArrayLen(dst []byte, n int, flexible bool) []byte {
	if flexible {
		return binary.AppendUvarint(dst, uint64(n)+1)
	}
	return appendInt32(dst, int32(n))
}

// appendNullArray appends an array that is null.
func appendNullArray(dst []byte, flexible bool) []byte {
	if flexible {
		return append(dst, 0)
	}
	return appendInt32(dst, -1)
}

func appendString[text string | []byte](dst []byte, s text, flexible bool) []byte {
	if flexible {
		dst = binary.AppendUvarint(dst, uint64(len(s))+1)
	} else {
		dst = appendInt16(dst, int16(len(s)))
	}
	return append(dst, s...)
}

// appendText appends a nullable string that is null when it is empty.
func appendText(dst []byte, s string, flexible bool) []byte {
	switch {
	case s != "":
		return appendString(dst, s, flexible)
	case flexible:
		return append(dst, 0)
	default:
		return appendInt16(dst, -1)
	}
}

// leaderHint is what KIP-951 adds to a partition whose leader is elsewhere.
type leaderHint struct {
	id, epoch int32
}

// append appends the tagged field CurrentLeader with the given number.
func (l leaderHint) append(dst []byte, tag byte) []byte {
	dst = append(dst, tag, 4+4+1)
	dst = appendInt32(dst, l.id)
	dst = appendInt32(dst, l.epoch)
	return append(dst, 0)
}

// leaderOf is the leader of a partition as the catalogue has it; false when it
// does not know the partition.
func leaderOf(t *catalog.Topic, partition int32) (leaderHint, bool) {
	if t == nil || partition < 0 || int(partition) >= len(t.Partitions) {
		return leaderHint{id: -1, epoch: -1}, false
	}
	p := t.Partitions[partition]
	return leaderHint{id: p.Leader, epoch: p.LeaderEpoch}, true
}

// appendEndpoints appends the tagged field NodeEndpoints: where the leaders that
// were hinted at listen. dst ends before the number of tagged fields.
func (s *Server) appendEndpoints(dst []byte, c *call, hints []leaderHint) []byte {
	var content []byte
	seen := make([]int32, 0, len(hints))
	for _, h := range hints {
		if containsInt32(seen, h.id) {
			continue
		}
		host, port, rack, found := s.brokerEndpoint(c, h.id)
		if !found {
			continue
		}
		seen = append(seen, h.id)
		content = appendInt32(content, h.id)
		content = appendString(content, host, true)
		content = appendInt32(content, port)
		content = appendText(content, rack, true)
		content = append(content, 0)
	}
	if len(seen) == 0 {
		return append(dst, 0)
	}
	list := append(binary.AppendUvarint(nil, uint64(len(seen))+1), content...)
	dst = append(dst, 1, 0)
	dst = binary.AppendUvarint(dst, uint64(len(list)))
	return append(dst, list...)
}

func containsInt32(list []int32, n int32) bool {
	for _, have := range list {
		if have == n {
			return true
		}
	}
	return false
}

// brokerEndpoint is where the client of a call reaches a broker.
func (s *Server) brokerEndpoint(c *call, id int32) (host string, port int32, rack string, found bool) {
	if id == s.opts.NodeID {
		host, port = c.endpoint()
		return host, port, s.opts.Rack, true
	}
	b, found := s.engine.Image().Broker(id)
	if !found || len(b.Endpoints) == 0 {
		return "", 0, "", false
	}
	return b.Endpoints[0].Host, b.Endpoints[0].Port, b.Rack, true
}
