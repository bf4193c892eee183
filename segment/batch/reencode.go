package batch

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// reencode validates the records of b and builds the batch anew with the topic's codec. Records go from one
// codec into the other piece by piece: what is held is the new batch, and no more of that than the topic allows.
func reencode(b []byte, h Header, r *Rules) ([]byte, error) {
	out := boundedBuffer{max: r.MaxMessageBytes}
	if _, err := out.Write(make([]byte, HeaderSize)); err != nil {
		return nil, err
	}
	w, err := openEncoder(r.Compression, &out)
	if err != nil {
		return nil, err
	}
	to := rebuilder{w: w}
	j := judge{rules: r, header: h, maxTimestamp: NoTimestamp}
	err = j.compressed(b[HeaderSize:], &to)
	if closing := w.Close(); err == nil {
		err = closing
	}
	if err == nil {
		err = j.verdict()
	}
	if err == nil && to.negative {
		err = fmt.Errorf("%w: a timestamp is negative", ErrNotRebuildable)
	}
	if err == nil && out.size > out.max {
		err = fmt.Errorf("%w: %d bytes after re-encoding, at most %d are allowed", ErrTooLarge, out.size, out.max)
	}
	if err != nil {
		return nil, err
	}
	h.PartitionLeaderEpoch = NoLeaderEpoch
	h.Attributes = storedAttributes(h.Attributes&^deleteHorizonFlag, r.Compression.Codec, r.LogAppendTime)
	h.BaseTimestamp, h.MaxTimestamp = to.baseTimestamp, j.maxTimestamp
	if r.LogAppendTime {
		h.MaxTimestamp = r.NowMs
	}
	return finish(out.kept.Bytes(), h)
}

// rebuilder writes records with offset deltas 0, 1, 2, ... and timestamps counted from the first one's.
type rebuilder struct {
	w             io.Writer
	baseTimestamp int64
	negative      bool // a timestamp was one that Kafka cannot write
	scratch       [2*binary.MaxVarintLen64 + 2*binary.MaxVarintLen32]byte
}

// begin writes the front of a record whose key, value and headers, as many bytes as rest, are to follow.
func (t *rebuilder) begin(i int32, timestamp, rest int64) (io.Writer, error) {
	if i == 0 {
		t.baseTimestamp = timestamp
	}
	if timestamp < 0 && timestamp != NoTimestamp {
		t.negative = true
	}
	delta := timestamp - t.baseTimestamp
	front := binary.AppendVarint(t.scratch[:0], 1+int64(varintSize(delta)+varintSize(int64(i)))+rest)
	front = append(front, 0)
	front = binary.AppendVarint(front, delta)
	front = binary.AppendVarint(front, int64(i))
	_, err := t.w.Write(front)
	return t.w, err
}

// boundedBuffer keeps up to max bytes, and counts the others.
type boundedBuffer struct {
	kept      bytes.Buffer
	size, max int
}

// Write implements io.Writer; it never fails.
func (b *boundedBuffer) Write(p []byte) (int, error) {
	b.size += len(p)
	if b.size <= b.max {
		b.kept.Write(p)
	}
	return len(p), nil
}
