package server

import (
	"encoding/binary"
)

// respond encodes what open, read and remember have left in the results. The
// records stay where they were read to: what is encoded is the text between them,
// and the network gets both, piece by piece, without a copy.
func (r *fetchRun) respond(code int16, sessionID int32) error {
	v := r.cl.version
	flexible := v >= 12
	out := newBuffer(256 + 96*len(r.st.results))
	defer func() { out.release() }()

	b := beginResponse(out.b, r.cl.correlationID, flexible)
	b = appendInt32(b, 0) // throttle time
	if v >= 7 {
		b = appendInt16(b, code)
		b = appendInt32(b, sessionID)
	}
	if code != codeNone {
		r.st.results = r.st.results[:0]
	}
	results := r.st.results
	b = appendArrayLen(b, topicRuns(results), flexible)
	var hints []leaderHint
	cuts := make([]int, 0, len(results)) // where the records go
	total := 0
	for i := range results {
		res := &results[i]
		if i == 0 || !sameTopic(&results[i-1], res) {
			if i > 0 && flexible {
				b = append(b, 0)
			}
			if r.byID {
				b = append(b, res.key.id[:]...)
			} else {
				b = appendString(b, res.key.name, flexible)
			}
			b = appendArrayLen(b, runLength(results[i:]), flexible)
		}
		b = r.appendPartition(b, res, flexible)
		cuts = append(cuts, len(b))
		total += res.size
		if flexible {
			b = res.appendTags(b)
		}
		if res.hinted && r.replica() < 0 {
			hints = append(hints, res.hint)
		}
	}
	if flexible {
		if len(results) > 0 {
			b = append(b, 0)
		}
		if v >= 16 {
			b = r.s.appendEndpoints(b, r.cl, hints)
		} else {
			b = append(b, 0)
		}
	}
	out.b = b
	binary.BigEndian.PutUint32(b, uint32(len(b)-4+total))

	pieces := r.st.pieces[:0]
	from := 0
	for i, cut := range cuts {
		res := &results[i]
		if res.size == 0 {
			continue
		}
		pieces = append(append(pieces, b[from:cut]), r.st.view.Pieces[res.first:res.last]...)
		from = cut
	}
	r.countFetched(code)
	pieces = append(pieces, b[from:])
	r.st.pieces = pieces
	defer clear(pieces)
	return r.cl.conn.writePieces(pieces)
}

// sameTopic tells whether two results stand under one topic in the response.
func sameTopic(a, b *fetchResult) bool {
	return a.key.id == b.key.id && a.key.name == b.key.name
}

func topicRuns(results []fetchResult) int {
	n := 0
	for i := range results {
		if i == 0 || !sameTopic(&results[i-1], &results[i]) {
			n++
		}
	}
	return n
}

func runLength(results []fetchResult) int {
	n := 1
	for n < len(results) && sameTopic(&results[0], &results[n]) {
		n++
	}
	return n
}

// appendPartition appends a partition up to the length of its records.
func (r *fetchRun) appendPartition(dst []byte, res *fetchResult, flexible bool) []byte {
	v := r.cl.version
	dst = appendInt32(dst, res.key.partition)
	dst = appendInt16(dst, res.code)
	dst = appendInt64(dst, res.highWatermark)
	dst = appendInt64(dst, res.lastStableOffset)
	if v >= 5 {
		dst = appendInt64(dst, res.logStartOffset)
	}
	const readCommitted = 1
	if res.unknown || r.st.req.IsolationLevel == readCommitted && res.code == codeNone && !res.diverging {
		dst = appendArrayLen(dst, 0, flexible) // aborted transactions
	} else {
		dst = appendNullArray(dst, flexible)
	}
	if v >= 11 {
		preferred := int32(-1)
		if res.elsewhere {
			preferred = res.preferred
		}
		dst = appendInt32(dst, preferred)
	}
	if flexible {
		return binary.AppendUvarint(dst, uint64(res.size)+1)
	}
	return appendInt32(dst, int32(res.size))
}

// appendTags appends the tagged fields of a partition.
func (res *fetchResult) appendTags(dst []byte) []byte {
	switch {
	case res.diverging:
		dst = append(dst, 1, 0, 4+8+1)
		dst = appendInt32(dst, res.divergingEpoch)
		dst = appendInt64(dst, res.divergingEnd)
		return append(dst, 0)
	case res.hinted:
		return res.hint.append(append(dst, 1), 1)
	}
	return append(dst, 0)
}
