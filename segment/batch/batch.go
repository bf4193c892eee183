package batch

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// A record batch, magic 2, all integers big-endian:
//
//	 byte 0        8       12      16    17      21         23
//	+------------+--------+-------+-----+-------+----------+-
//	| base       | length | leader|magic| CRC   |attributes|
//	| offset     | (from  | epoch | = 2 | 32C of|          |
//	| int64      | byte 12)| int32 |     | 21..  | int16    |
//	+------------+--------+-------+-----+-------+----------+-
//	 23           27           35           43
//	+------------+------------+------------+-
//	| last offset| base       | max        |
//	| delta int32| timestamp  | timestamp  |
//	+------------+------------+------------+-
//	 43           51         53         57        61
//	+------------+----------+----------+---------+-----------------+
//	| producer   | producer | base     | record  | records, maybe  |
//	| id int64   | epoch i16| sequence | count   | compressed      |
//	+------------+----------+----------+---------+-----------------+
//
// attributes, from the lowest bit:
//
//	0..2 codec   3 timestamp type (1 = log append time)   4 transactional
//	5 control    6 base timestamp is a delete horizon      7..15 unused
//
// Base offset, length, leader epoch, magic and the CRC itself lie outside the
// CRC, which is why a broker can set offset and epoch without resealing.
const (
	// HeaderSize is the number of bytes in front of the records.
	HeaderSize = 61
	// Magic is the only format version that is stored.
	Magic = 2

	posLength          = 8
	posLeaderEpoch     = 12
	posMagic           = 16
	posCRC             = 17
	posAttributes      = 21
	posLastOffsetDelta = 23
	posBaseTimestamp   = 27
	posMaxTimestamp    = 35
	posProducerID      = 43
	posProducerEpoch   = 51
	posBaseSequence    = 53
	posRecordCount     = 57

	// lengthOverhead is the number of bytes that the length field does not count.
	lengthOverhead = 12
	// headerUpToMagic is what Kafka needs before it can tell the format of a batch.
	headerUpToMagic = 17
	// minLength is the smallest length that any format version can announce.
	minLength = 14
)

// Attribute bits of a batch.
const (
	codecMask         = 0x07
	logAppendTimeFlag = 0x08
	transactionalFlag = 0x10
	controlFlag       = 0x20
	deleteHorizonFlag = 0x40
)

// Values that mean "none" in a header or a record.
const (
	NoTimestamp     int64 = -1
	NoProducerID    int64 = -1
	NoProducerEpoch int16 = -1
	NoSequence      int32 = -1
	NoLeaderEpoch   int32 = -1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Header is the fixed part of a record batch, in wire order.
type Header struct {
	BaseOffset           int64
	Length               int32
	PartitionLeaderEpoch int32
	Magic                int8
	CRC                  uint32
	Attributes           int16
	LastOffsetDelta      int32
	BaseTimestamp        int64
	MaxTimestamp         int64
	ProducerID           int64
	ProducerEpoch        int16
	BaseSequence         int32
	RecordCount          int32
}

// Size is the number of bytes of the whole batch, header included.
func (h Header) Size() int { return lengthOverhead + int(h.Length) }

// LastOffset is the offset of the batch's last record.
func (h Header) LastOffset() int64 { return h.BaseOffset + int64(h.LastOffsetDelta) }

// NextOffset is the offset that follows the batch.
func (h Header) NextOffset() int64 { return h.LastOffset() + 1 }

// Codec is the compression of the records; it may be one that nobody knows.
func (h Header) Codec() Codec { return Codec(h.Attributes & codecMask) }

// LogAppendTime tells whether MaxTimestamp, set by the broker, is the timestamp of every record.
func (h Header) LogAppendTime() bool { return h.Attributes&logAppendTimeFlag != 0 }

// IsTransactional tells whether the batch belongs to a transaction.
func (h Header) IsTransactional() bool { return h.Attributes&transactionalFlag != 0 }

// IsControl tells whether the batch holds markers for the broker instead of records of a client.
func (h Header) IsControl() bool { return h.Attributes&controlFlag != 0 }

// HasProducerID tells whether the batch comes from an idempotent producer.
func (h Header) HasProducerID() bool { return h.ProducerID > NoProducerID }

// LastSequence is the sequence number of the last record; it wraps from the largest int32 to 0.
func (h Header) LastSequence() int32 {
	if h.BaseSequence == NoSequence {
		return NoSequence
	}
	return AddSequence(h.BaseSequence, h.LastOffsetDelta)
}

// AddSequence steps a sequence number forward; the one after the largest int32 is 0.
func AddSequence(sequence, n int32) int32 {
	if sequence > maxInt32-n {
		return n - (maxInt32 - sequence) - 1
	}
	return sequence + n
}

// SubtractSequence steps a sequence number back; the one before 0 is the largest int32.
func SubtractSequence(sequence, n int32) int32 {
	if sequence < n {
		return maxInt32 - (n - sequence) + 1
	}
	return sequence - n
}

const maxInt32 = 1<<31 - 1

// ReadHeader reads the header at the front of src without looking at the records.
// ErrTruncated asks for more bytes; ErrCorrupt says that no number of further bytes would help.
// That Size() bytes are there is for the caller to see.
func ReadHeader(src []byte) (Header, error) {
	if len(src) < headerUpToMagic {
		return Header{}, fmt.Errorf("%w: %d bytes are less than a header", ErrTruncated, len(src))
	}
	if m := int8(src[posMagic]); m != Magic {
		return Header{}, fmt.Errorf("%w: magic %d", ErrCorrupt, m)
	}
	if n := int32(binary.BigEndian.Uint32(src[posLength:])); n < HeaderSize-lengthOverhead {
		return Header{}, fmt.Errorf("%w: length %d is less than a header", ErrCorrupt, n)
	} else if n > maxInt32-lengthOverhead {
		return Header{}, fmt.Errorf("%w: length %d is more than a batch can have", ErrCorrupt, n)
	}
	if len(src) < HeaderSize {
		return Header{}, fmt.Errorf("%w: %d bytes are less than a header", ErrTruncated, len(src))
	}
	h := decodeHeader(src)
	if h.LastOffsetDelta < 0 || h.RecordCount < 0 {
		return Header{}, fmt.Errorf("%w: last offset delta %d, record count %d", ErrCorrupt, h.LastOffsetDelta, h.RecordCount)
	}
	return h, nil
}

// decodeHeader takes the fields as they are; b holds at least HeaderSize bytes.
func decodeHeader(b []byte) Header {
	_ = b[HeaderSize-1]
	return Header{
		BaseOffset:           int64(binary.BigEndian.Uint64(b)),
		Length:               int32(binary.BigEndian.Uint32(b[posLength:])),
		PartitionLeaderEpoch: int32(binary.BigEndian.Uint32(b[posLeaderEpoch:])),
		Magic:                int8(b[posMagic]),
		CRC:                  binary.BigEndian.Uint32(b[posCRC:]),
		Attributes:           int16(binary.BigEndian.Uint16(b[posAttributes:])),
		LastOffsetDelta:      int32(binary.BigEndian.Uint32(b[posLastOffsetDelta:])),
		BaseTimestamp:        int64(binary.BigEndian.Uint64(b[posBaseTimestamp:])),
		MaxTimestamp:         int64(binary.BigEndian.Uint64(b[posMaxTimestamp:])),
		ProducerID:           int64(binary.BigEndian.Uint64(b[posProducerID:])),
		ProducerEpoch:        int16(binary.BigEndian.Uint16(b[posProducerEpoch:])),
		BaseSequence:         int32(binary.BigEndian.Uint32(b[posBaseSequence:])),
		RecordCount:          int32(binary.BigEndian.Uint32(b[posRecordCount:])),
	}
}

// PutHeader writes every field of h as it is, the CRC included; b holds at least HeaderSize bytes.
func PutHeader(b []byte, h Header) {
	_ = b[HeaderSize-1]
	binary.BigEndian.PutUint64(b, uint64(h.BaseOffset))
	binary.BigEndian.PutUint32(b[posLength:], uint32(h.Length))
	binary.BigEndian.PutUint32(b[posLeaderEpoch:], uint32(h.PartitionLeaderEpoch))
	b[posMagic] = byte(h.Magic)
	binary.BigEndian.PutUint32(b[posCRC:], h.CRC)
	binary.BigEndian.PutUint16(b[posAttributes:], uint16(h.Attributes))
	binary.BigEndian.PutUint32(b[posLastOffsetDelta:], uint32(h.LastOffsetDelta))
	binary.BigEndian.PutUint64(b[posBaseTimestamp:], uint64(h.BaseTimestamp))
	binary.BigEndian.PutUint64(b[posMaxTimestamp:], uint64(h.MaxTimestamp))
	binary.BigEndian.PutUint64(b[posProducerID:], uint64(h.ProducerID))
	binary.BigEndian.PutUint16(b[posProducerEpoch:], uint16(h.ProducerEpoch))
	binary.BigEndian.PutUint32(b[posBaseSequence:], uint32(h.BaseSequence))
	binary.BigEndian.PutUint32(b[posRecordCount:], uint32(h.RecordCount))
}

// Check verifies the shape and the CRC of the one batch at the front of b; more may follow it.
func Check(b []byte) (Header, error) {
	h, err := Whole(b)
	if err != nil {
		return Header{}, err
	}
	if sum := crc32.Checksum(b[posAttributes:h.Size()], castagnoli); sum != h.CRC {
		return Header{}, fmt.Errorf("%w: stored CRC %08x, computed %08x", ErrCorrupt, h.CRC, sum)
	}
	return h, nil
}

// Whole is Check without a look at the CRC, for bytes that have stayed in memory since they were checked.
func Whole(b []byte) (Header, error) {
	h, err := ReadHeader(b)
	if err != nil {
		return Header{}, err
	}
	if len(b) < h.Size() {
		return Header{}, fmt.Errorf("%w: %d of %d bytes", ErrTruncated, len(b), h.Size())
	}
	return h, nil
}

// MagicAt is where, in a batch, the byte is that tells its format.
const MagicAt = posMagic

// ChecksumFrom is where, in a batch, the bytes begin that its CRC covers.
const ChecksumFrom = posAttributes

// Checksum goes on with a CRC over further bytes of a batch, for one that is not held in memory
// whole; it begins with 0 and the bytes from ChecksumFrom on.
func Checksum(sum uint32, more []byte) uint32 { return crc32.Update(sum, castagnoli, more) }

// PutBaseOffset sets the offset of the first record; the CRC does not cover it.
func PutBaseOffset(b []byte, offset int64) { binary.BigEndian.PutUint64(b, uint64(offset)) }

// PutLeaderEpoch sets the leader epoch under which the batch was appended; the CRC does not cover it.
func PutLeaderEpoch(b []byte, epoch int32) {
	binary.BigEndian.PutUint32(b[posLeaderEpoch:], uint32(epoch))
}

// seal computes the CRC of the whole slice b and stores it.
func seal(b []byte) {
	binary.BigEndian.PutUint32(b[posCRC:], crc32.Checksum(b[posAttributes:], castagnoli))
}

// HasDeleteHorizon tells whether BaseTimestamp is when the batch's tombstones may go, set by a cleaner.
func (h Header) HasDeleteHorizon() bool { return h.Attributes&deleteHorizonFlag != 0 }
