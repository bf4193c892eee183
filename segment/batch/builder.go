package batch

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
)

// BuilderOptions are the fields of a batch that its records do not decide.
// The zero value makes an uncompressed batch of no idempotent producer, but see NewBuilder.
type BuilderOptions struct {
	Compression   Compression
	BaseOffset    int64
	LeaderEpoch   int32
	ProducerID    int64 // with epoch and sequence, used only when Idempotent
	ProducerEpoch int16
	BaseSequence  int32
	Idempotent    bool
	Transactional bool
	Control       bool
	LogAppendTime bool  // the batch's timestamp counts for all records:
	AppendTime    int64 // this one, in milliseconds
}

// Builder makes a batch from records. A builder can be used again after Reset.
type Builder struct {
	opts          BuilderOptions
	records       []byte // uncompressed
	count         int32
	lastDelta     int32
	baseTimestamp int64
	maxTimestamp  int64
}

// NewBuilder begins an empty batch.
func NewBuilder(opts BuilderOptions) *Builder {
	b := &Builder{opts: opts}
	b.Reset()
	return b
}

// Reset forgets the records, keeping their room and the options.
func (b *Builder) Reset() {
	b.records = b.records[:0]
	b.count, b.lastDelta = 0, -1
	b.baseTimestamp, b.maxTimestamp = NoTimestamp, NoTimestamp
}

// Append adds a record with the next offset. A nil key or value is null.
func (b *Builder) Append(timestamp int64, key, value []byte, headers []RecordHeader) {
	b.AppendAt(b.lastDelta+1, timestamp, key, value, headers)
}

// AppendAt adds a record at a distance from the base offset that must be larger than the one before,
// leaving a gap as compaction does.
func (b *Builder) AppendAt(offsetDelta int32, timestamp int64, key, value []byte, headers []RecordHeader) {
	if b.count == 0 {
		b.baseTimestamp = timestamp
	}
	r := Record{TimestampDelta: timestamp - b.baseTimestamp, OffsetDelta: offsetDelta, Key: key, Value: value, Headers: headers}
	b.records = r.append(b.records)
	b.maxTimestamp = max(b.maxTimestamp, timestamp)
	b.lastDelta = offsetDelta
	b.count++
}

// Len is the number of records so far.
func (b *Builder) Len() int { return int(b.count) }

// Size is the size of the batch so far, before compression.
func (b *Builder) Size() int { return HeaderSize + len(b.records) }

// Build returns the batch, sealed. It fails for an empty one, and for a codec that nobody knows.
// The result is the caller's own.
func (b *Builder) Build() ([]byte, error) {
	if b.count == 0 {
		return nil, fmt.Errorf("%w: a batch without records", ErrInvalidRecord)
	}
	h := Header{
		BaseOffset: b.opts.BaseOffset, PartitionLeaderEpoch: b.opts.LeaderEpoch,
		Attributes: b.attributes(), LastOffsetDelta: b.lastDelta, RecordCount: b.count,
		BaseTimestamp: b.baseTimestamp, MaxTimestamp: b.maxTimestamp,
		ProducerID: NoProducerID, ProducerEpoch: NoProducerEpoch, BaseSequence: NoSequence,
	}
	if b.opts.Idempotent {
		h.ProducerID, h.ProducerEpoch, h.BaseSequence = b.opts.ProducerID, b.opts.ProducerEpoch, b.opts.BaseSequence
	}
	if b.opts.LogAppendTime {
		h.MaxTimestamp = b.opts.AppendTime
	}
	var out bytes.Buffer
	out.Grow(b.Size())
	out.Write(make([]byte, HeaderSize))
	w, err := openEncoder(b.opts.Compression, &out)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(b.records); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return finish(out.Bytes(), h)
}

// finish puts a header in front of the records, which begin at HeaderSize of dst, and seals the batch.
func finish(dst []byte, h Header) ([]byte, error) {
	if len(dst)-lengthOverhead > math.MaxInt32 {
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, len(dst))
	}
	h.Magic = Magic
	h.Length = int32(len(dst) - lengthOverhead)
	PutHeader(dst, h)
	seal(dst)
	return dst, nil
}

func (b *Builder) attributes() int16 {
	a := int16(b.opts.Compression.Codec)
	if b.opts.LogAppendTime {
		a |= logAppendTimeFlag
	}
	if b.opts.Transactional {
		a |= transactionalFlag
	}
	if b.opts.Control {
		a |= controlFlag
	}
	return a
}

// append writes the record, its length first, behind dst.
func (r *Record) append(dst []byte) []byte {
	dst = binary.AppendVarint(dst, int64(r.bodySize()))
	dst = append(dst, byte(r.Attributes))
	dst = binary.AppendVarint(dst, r.TimestampDelta)
	dst = binary.AppendVarint(dst, int64(r.OffsetDelta))
	dst = appendBytes(dst, r.Key)
	dst = appendBytes(dst, r.Value)
	dst = binary.AppendVarint(dst, int64(len(r.Headers)))
	for _, h := range r.Headers {
		dst = binary.AppendVarint(dst, int64(len(h.Key)))
		dst = append(dst, h.Key...)
		dst = appendBytes(dst, h.Value)
	}
	return dst
}

func appendBytes(dst, v []byte) []byte {
	if v == nil {
		return binary.AppendVarint(dst, -1)
	}
	return append(binary.AppendVarint(dst, int64(len(v))), v...)
}

// Size is the number of bytes that the record takes in an uncompressed batch.
func (r *Record) Size() int {
	n := r.bodySize()
	return varintSize(int64(n)) + n
}

func (r *Record) bodySize() int {
	n := 1 + varintSize(r.TimestampDelta) + varintSize(int64(r.OffsetDelta))
	n += bytesSize(r.Key) + bytesSize(r.Value) + varintSize(int64(len(r.Headers)))
	for _, h := range r.Headers {
		n += varintSize(int64(len(h.Key))) + len(h.Key) + bytesSize(h.Value)
	}
	return n
}

func bytesSize(v []byte) int {
	if v == nil {
		return 1
	}
	return varintSize(int64(len(v))) + len(v)
}

// varintSize is the number of bytes that v takes, zigzag-coded.
func varintSize(v int64) int {
	n := 1
	for u := uint64(v<<1) ^ uint64(v>>63); u >= 0x80; u >>= 7 {
		n++
	}
	return n
}
