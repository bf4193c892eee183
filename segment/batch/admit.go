package batch

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// Rules are what a topic and a request ask of a produced batch.
type Rules struct {
	TopicPartition       string      // as in "orders-3", for the messages that go to the client
	RequestVersion       int16       // of the produce request; zstd is allowed from 7 on
	Compression          Compression // compression.type with its level; codec Producer keeps what came
	LogAppendTime        bool        // message.timestamp.type is LogAppendTime
	NowMs                int64       // the broker's clock, milliseconds since 1970
	TimestampBeforeMaxMs int64       // message.timestamp.before.max.ms
	TimestampAfterMaxMs  int64       // message.timestamp.after.max.ms
	MaxMessageBytes      int         // max.message.bytes, for the whole batch, before and after re-encoding
	SegmentBytes         int         // segment.bytes; a batch must fit into one segment
	Compacted            bool        // cleanup.policy contains compact: every record needs a key
	MaxDecompressed      int64       // bound of the records after decompression; 0 is DefaultMaxDecompressed
}

// Admitted is a batch as it is to be stored, but for its base offset and leader epoch.
type Admitted struct {
	Batch  []byte
	Header Header
}

// Admit does to the records of one partition of a client's produce request what Kafka's leader does: exactly
// one whole batch of magic 2, its CRC, its size, its counts, then every record, decompressed when it must be.
// Bytes that cannot be a batch behind the first one are dropped, as Kafka drops them.
//
// The result is a part of records, whose header may have been corrected in place (the largest timestamp, the
// timestamp type), or new bytes when the topic asks for another codec. Batches of transactions pass: whether
// they may be appended is not a question of their bytes.
//
// An error is one of ErrInvalidRecord, ErrCorrupt, ErrUnsupportedCompression, ErrUnknownCodec, ErrDecompression,
// ErrTooManyBytes, ErrTooLarge, ErrLargerThanSegment or ErrNotRebuildable, or a *RecordErrors.
func Admit(records []byte, r Rules) (Admitted, error) {
	b, h, err := oneBatch(records, r.RequestVersion)
	if err != nil {
		return Admitted{}, err
	}
	if h.BaseOffset != 0 {
		return Admitted{}, fmt.Errorf("%w: base offset %d of a produced batch is not 0", ErrInvalidRecord, h.BaseOffset)
	}
	if len(b) > r.MaxMessageBytes {
		return Admitted{}, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrTooLarge, len(b), r.MaxMessageBytes)
	}
	if sum := crc32.Checksum(b[posAttributes:], castagnoli); sum != h.CRC {
		return Admitted{}, fmt.Errorf("%w: stored CRC %08x, computed %08x", ErrCorrupt, h.CRC, sum)
	}
	if !h.Codec().Known() {
		return Admitted{}, fmt.Errorf("%w: %v", ErrUnknownCodec, h.Codec())
	}
	if err := checkProduced(h); err != nil {
		return Admitted{}, err
	}
	if target := r.Compression; target.Codec != Producer && target.Codec != h.Codec() {
		b, err = reencode(b, h, &r)
	} else {
		err = inPlace(b, h, &r)
	}
	if err != nil {
		return Admitted{}, err
	}
	if r.SegmentBytes > 0 && len(b) > r.SegmentBytes {
		return Admitted{}, fmt.Errorf("%w: %d bytes, a segment has %d", ErrLargerThanSegment, len(b), r.SegmentBytes)
	}
	return Admitted{Batch: b, Header: decodeHeader(b)}, nil
}

// oneBatch takes the batch off the front of a produce request's records and makes sure that it is the only one.
func oneBatch(records []byte, version int16) ([]byte, Header, error) {
	size, err := frontBatch(records)
	if err != nil {
		return nil, Header{}, err
	}
	if size == 0 {
		return nil, Header{}, fmt.Errorf("%w: no whole batch in %d bytes", ErrInvalidRecord, len(records))
	}
	if m := records[posMagic]; m != Magic {
		return nil, Header{}, fmt.Errorf("%w: magic %d", ErrInvalidRecord, m)
	}
	if size > posAttributes+1 && version < 7 && Codec(records[posAttributes+1]&codecMask) == Zstd {
		return nil, Header{}, fmt.Errorf("%w: zstd in a produce request of version %d", ErrUnsupportedCompression, version)
	}
	if second, err := frontBatch(records[size:]); err != nil {
		return nil, Header{}, err
	} else if second > 0 {
		return nil, Header{}, fmt.Errorf("%w: more than one batch for a partition", ErrInvalidRecord)
	}
	if size < HeaderSize {
		return nil, Header{}, fmt.Errorf("%w: %d bytes are less than a header", ErrCorrupt, size)
	}
	b := records[:size:size]
	return b, decodeHeader(b), nil
}

// frontBatch is the size of the batch of any magic at the front of b, or 0 when there is no whole one.
func frontBatch(b []byte) (size int, err error) {
	if len(b) < lengthOverhead {
		return 0, nil
	}
	n := int32(binary.BigEndian.Uint32(b[posLength:]))
	if n < minLength || n > maxInt32-lengthOverhead {
		return 0, fmt.Errorf("%w: length %d", ErrCorrupt, n)
	}
	if len(b) < headerUpToMagic {
		return 0, nil
	}
	if m := int8(b[posMagic]); m < 0 || m > Magic {
		return 0, fmt.Errorf("%w: magic %d", ErrCorrupt, m)
	}
	if size = int(n) + lengthOverhead; size > len(b) {
		return 0, nil
	}
	return size, nil
}

// checkProduced looks at the header fields that a client must get right.
func checkProduced(h Header) error {
	switch span := int64(h.LastOffsetDelta) + 1; {
	case span <= 0:
		return fmt.Errorf("%w: last offset delta %d", ErrInvalidRecord, h.LastOffsetDelta)
	case h.RecordCount <= 0:
		return fmt.Errorf("%w: record count %d", ErrInvalidRecord, h.RecordCount)
	case span != int64(h.RecordCount):
		return fmt.Errorf("%w: last offset delta %d does not fit %d records", ErrInvalidRecord, h.LastOffsetDelta, h.RecordCount)
	case h.IsControl():
		return fmt.Errorf("%w: a client may not write control records", ErrInvalidRecord)
	case h.HasProducerID() && h.BaseSequence < 0:
		return fmt.Errorf("%w: producer %d with sequence %d", ErrInvalidRecord, h.ProducerID, h.BaseSequence)
	}
	return nil
}

// inPlace validates the records of b and corrects the two header fields that are the broker's to decide.
func inPlace(b []byte, h Header, r *Rules) error {
	j := judge{rules: r, header: h, maxTimestamp: NoTimestamp}
	var err error
	if h.Codec() == None {
		err = j.plain(b[HeaderSize:])
	} else {
		err = j.compressed(b[HeaderSize:], nil)
	}
	if err != nil {
		return err
	}
	if err := j.verdict(); err != nil {
		return err
	}
	// Kafka can put the offsets of an uncompressed batch as they are, and those of a re-encoded one right,
	// but fails when a compressed one that it would keep has others.
	if h.Codec() != None && j.outOfSequence {
		return fmt.Errorf("%w: offset deltas are not 0, 1, 2, ...", ErrNotRebuildable)
	}
	largest := j.maxTimestamp
	if r.LogAppendTime {
		largest = r.NowMs
	}
	if h.LogAppendTime() == r.LogAppendTime && h.MaxTimestamp == largest {
		return nil
	}
	binary.BigEndian.PutUint16(b[posAttributes:], uint16(storedAttributes(h.Attributes, h.Codec(), r.LogAppendTime)))
	binary.BigEndian.PutUint64(b[posMaxTimestamp:], uint64(largest))
	seal(b)
	return nil
}

// storedAttributes is what Kafka writes when it writes attributes: unused bits are gone.
func storedAttributes(a int16, codec Codec, logAppendTime bool) int16 {
	a = a&(transactionalFlag|deleteHorizonFlag) | int16(codec)
	if logAppendTime {
		a |= logAppendTimeFlag
	}
	return a
}
