package batch

import (
	"encoding/binary"
	"fmt"
	"io"
	"iter"
)

// A record inside a batch; varints are zigzag-coded, a length of -1 means null:
//
//	+---------+------------+-----------------+--------------+-----+-------+---------+
//	| body    | attributes | timestamp delta | offset delta | key | value | headers |
//	| length  | int8,      | varlong, from   | varint, from |     |       |         |
//	| varint  | unused     | base timestamp  | base offset  |     |       |         |
//	+---------+------------+-----------------+--------------+-----+-------+---------+
//
//	key, value    = length varint, bytes
//	headers       = count varint, then per header: key length varint, key, value length varint, value

// Record is one record of a batch. Key, Value and Headers point into the batch or into a
// buffer of the iterator, and hold until its next step.
type Record struct {
	Attributes     int8
	TimestampDelta int64
	OffsetDelta    int32
	Key, Value     []byte // nil is null, which is not the same as empty
	Headers        []RecordHeader
}

// RecordHeader is a name and a value that travel with a record; a name may occur more than once.
type RecordHeader struct {
	Key   string
	Value []byte // nil is null
}

// Offset is the offset of a record of this batch.
func (h Header) Offset(r *Record) int64 { return h.BaseOffset + int64(r.OffsetDelta) }

// Timestamp is the timestamp of a record of this batch: its own, or the batch's where the broker has set that.
func (h Header) Timestamp(r *Record) int64 { return h.timestamp(r.TimestampDelta) }

func (h *Header) timestamp(delta int64) int64 {
	if h.Attributes&logAppendTimeFlag != 0 {
		return h.MaxTimestamp
	}
	return h.BaseTimestamp + delta
}

// All walks over whole batches that lie one after the other, such as the contents of a fetch response.
// Only their shape is read. What cannot be a whole batch is yielded last, with ErrTruncated or ErrCorrupt.
func All(b []byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for len(b) > 0 {
			h, err := ReadHeader(b)
			if err == nil && len(b) < h.Size() {
				err = fmt.Errorf("%w: %d of %d bytes", ErrTruncated, len(b), h.Size())
			}
			if err != nil {
				yield(b, err)
				return
			}
			if !yield(b[:h.Size():h.Size()], nil) {
				return
			}
			b = b[h.Size():]
		}
	}
}

// Records walks over the records of the one batch at the front of b, decompressing when it must, up to
// max bytes (0: DefaultMaxDecompressed). It does not look at the CRC. An error ends the walk; it comes
// with a zero record. Uncompressed records are not copied, and walking them allocates only for headers.
func Records(b []byte, max int64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		h, err := ReadHeader(b)
		if err == nil && len(b) < h.Size() {
			err = fmt.Errorf("%w: %d of %d bytes", ErrTruncated, len(b), h.Size())
		}
		if err != nil {
			yield(Record{}, err)
			return
		}
		payload := b[HeaderSize:h.Size()]
		if h.Codec() == None {
			walkPlain(payload, h.RecordCount, yield)
			return
		}
		walkCompressed(h.Codec(), payload, h.RecordCount, max, yield)
	}
}

func walkPlain(src []byte, count int32, yield func(Record, error) bool) {
	var r Record
	for i := range count {
		body, rest, err := splitRecord(src)
		if err == nil {
			err = r.parse(body)
		}
		if err != nil {
			yield(Record{}, atRecord(i, err))
			return
		}
		src = rest
		if !yield(r, nil) {
			return
		}
	}
	if len(src) > 0 {
		yield(Record{}, fmt.Errorf("%w: %d bytes after the last record", ErrInvalidRecord, len(src)))
	}
}

func walkCompressed(codec Codec, payload []byte, count int32, max int64, yield func(Record, error) bool) {
	d, err := openDecoder(codec, payload, max)
	if err != nil {
		yield(Record{}, err)
		return
	}
	defer d.close()
	s := newScanner(d)
	defer s.free()
	var r Record
	var body []byte
	for i := range count {
		body, err = s.record(body[:0])
		if err == nil {
			err = r.parse(body)
		}
		if err != nil {
			yield(Record{}, atRecord(i, err))
			return
		}
		if !yield(r, nil) {
			return
		}
	}
	if err := s.atEnd(); err != nil {
		yield(Record{}, err)
	}
}

func atRecord(i int32, err error) error { return fmt.Errorf("record %d: %w", i, err) }

// splitRecord takes the body of the record at the front of src off it.
func splitRecord(src []byte) (body, rest []byte, err error) {
	n, w := varint(src)
	if w <= 0 || n < 0 || n > int64(len(src)-w) {
		return nil, nil, fmt.Errorf("%w: body of %d bytes in %d", ErrInvalidRecord, n, len(src))
	}
	return src[w : w+int(n)], src[w+int(n):], nil
}

// parse reads the whole of a record's body, keeping the room of r.Headers.
func (r *Record) parse(body []byte) error {
	c := cursor{b: body}
	r.Attributes = c.byte()
	r.TimestampDelta = c.varlong()
	r.OffsetDelta = c.varint()
	r.Key = c.bytes()
	r.Value = c.bytes()
	n := c.varint()
	// A header takes two bytes at least; a count is believed only when there is room for it.
	if n < 0 || int(n) > len(c.b)/2 {
		c.bad = true
	}
	r.Headers = r.Headers[:0]
	for i := int32(0); i < n && !c.bad; i++ {
		key := c.bytes()
		if key == nil {
			c.bad = true
			break
		}
		r.Headers = append(r.Headers, RecordHeader{Key: string(key), Value: c.bytes()})
	}
	if c.bad || len(c.b) > 0 {
		return fmt.Errorf("%w: malformed body of %d bytes", ErrInvalidRecord, len(body))
	}
	return nil
}

// cursor reads fields off the front of b; after a field that does not fit, bad is set and stays.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) byte() int8 {
	if len(c.b) == 0 {
		c.bad = true
		return 0
	}
	v := int8(c.b[0])
	c.b = c.b[1:]
	return v
}

func (c *cursor) varlong() int64 {
	v, w := binary.Varint(c.b)
	if w <= 0 {
		c.bad = true
		c.b = nil
		return 0
	}
	c.b = c.b[w:]
	return v
}

func (c *cursor) varint() int32 {
	v, w := varint(c.b)
	if w <= 0 {
		c.bad = true
		c.b = nil
		return 0
	}
	c.b = c.b[w:]
	return int32(v)
}

// bytes reads a length and as many bytes. Kafka takes any negative length for null.
func (c *cursor) bytes() []byte {
	n := int(c.varint())
	if n < 0 || c.bad {
		return nil
	}
	if n > len(c.b) {
		c.bad = true
		c.b = nil
		return nil
	}
	v := c.b[:n:n]
	c.b = c.b[n:]
	return v
}

// varint reads a zigzag-coded int32 of at most five bytes; w <= 0 says that there is none.
func varint(b []byte) (v int64, w int) {
	if len(b) > 0 && b[0] < 0x80 { // the common case, worth a shortcut
		u := b[0]
		return int64(u>>1) ^ -int64(u&1), 1
	}
	var u uint32
	for i := 0; i < len(b) && i < 5; i++ {
		u |= uint32(b[i]&0x7f) << (7 * i)
		if b[i] < 0x80 {
			return int64(int32(u>>1) ^ -int32(u&1)), i + 1
		}
	}
	return 0, 0
}

// endOfStream says that the records end in the middle of one.
var errEndOfRecords = fmt.Errorf("%w: the records end before the count is reached", ErrInvalidRecord)

// unexpected turns the end of a stream into what it means in the middle of a record.
func unexpected(err error) error {
	if err == io.EOF {
		return errEndOfRecords
	}
	return err
}
