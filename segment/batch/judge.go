package batch

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// maxRecordErrors bounds the list of refused records, whatever a client sends. Kafka has no bound.
const maxRecordErrors = 10_000

// judge looks at every record of a batch with a topic's rules. What makes a batch unreadable is returned at once;
// what is wrong with single records is gathered, because the client is told about all of them.
type judge struct {
	rules  *Rules
	header Header

	maxTimestamp  int64
	outOfSequence bool // an offset delta was not the record's place in the batch

	errors       []RecordError
	errorCount   int
	badTimestamp bool
	noKey        string // the message for a missing key, made once
}

// summary is what the judge needs to know of a record.
type summary struct {
	timestampDelta int64
	offsetDelta    int32
	keySize        int32 // negative is null
	valueSize      int32
}

// plain judges uncompressed records without allocating.
func (j *judge) plain(src []byte) error {
	for i := range j.header.RecordCount {
		s, n := readSummary(src)
		if n == 0 {
			return fmt.Errorf("record %d: %w: malformed", i, ErrInvalidRecord)
		}
		src = src[n:]
		j.record(i, &s)
	}
	if len(src) > 0 {
		return fmt.Errorf("%w: %d bytes after the last record", ErrInvalidRecord, len(src))
	}
	return nil
}

// readSummary reads the record at the front of src; n is its size, or 0 when it is malformed.
func readSummary(src []byte) (s summary, n int) {
	size, w := varint(src)
	if w <= 0 || size < 0 || size > int64(len(src)-w) {
		return s, 0
	}
	n = w + int(size)
	body := src[w:n]
	if len(body) == 0 {
		return s, 0
	}
	p := 1 // behind the attributes
	s.timestampDelta, w = binary.Varint(body[p:])
	if w <= 0 {
		return s, 0
	}
	p += w
	v, w := varint(body[p:])
	if w <= 0 {
		return s, 0
	}
	p += w
	s.offsetDelta = int32(v)
	if s.keySize, p = skipBytes(body, p); p < 0 {
		return s, 0
	}
	if s.valueSize, p = skipBytes(body, p); p < 0 {
		return s, 0
	}
	headers, w := varint(body[p:])
	if w <= 0 || headers < 0 || headers > int64(len(body)-p) {
		return s, 0
	}
	p += w
	for range headers {
		var key int32
		if key, p = skipBytes(body, p); p < 0 || key < 0 {
			return s, 0
		}
		if _, p = skipBytes(body, p); p < 0 {
			return s, 0
		}
	}
	if p != len(body) {
		return s, 0
	}
	return s, n
}

// skipBytes passes over a length and its bytes from p on; next is negative when they do not fit.
func skipBytes(body []byte, p int) (size int32, next int) {
	v, w := varint(body[p:])
	if w <= 0 || v > int64(len(body)-p-w) {
		return 0, -1
	}
	return int32(v), p + w + int(max(v, 0))
}

// compressed judges records as they are decompressed; with a rebuilder, it hands them on.
func (j *judge) compressed(payload []byte, to *rebuilder) error {
	codec := j.header.Codec()
	defer takeDecodingTurn(codec, payload)()
	d, err := openDecoder(codec, payload, j.rules.MaxDecompressed)
	if err != nil {
		return err
	}
	defer d.close()
	s := newScanner(d)
	defer s.free()
	for i := range j.header.RecordCount {
		if err := j.scan(s, i, to); err != nil {
			return atRecord(i, err)
		}
	}
	return s.atEnd()
}

// scan reads one record off the stream.
func (j *judge) scan(s *scanner, i int32, to *rebuilder) error {
	size, err := s.varint()
	if err != nil {
		return err
	}
	start := s.consumed()
	if _, err = s.byte(); err != nil { // attributes, which mean nothing
		return err
	}
	var sum summary
	if sum.timestampDelta, err = s.varlong(); err != nil {
		return err
	}
	if sum.offsetDelta, err = s.varint(); err != nil {
		return err
	}
	var out io.Writer
	if to != nil {
		left := int64(size) - (s.consumed() - start)
		if left < 0 {
			return fmt.Errorf("%w: body of %d bytes", ErrInvalidRecord, size)
		}
		if out, err = to.begin(i, j.header.timestamp(sum.timestampDelta), left); err != nil {
			return err
		}
	}
	if sum.keySize, err = s.copyBytes(out); err != nil {
		return err
	}
	if sum.valueSize, err = s.copyBytes(out); err != nil {
		return err
	}
	if err := s.copyHeaders(out); err != nil {
		return err
	}
	if read := s.consumed() - start; read != int64(size) {
		return fmt.Errorf("%w: body of %d bytes announces %d", ErrInvalidRecord, read, size)
	}
	j.record(i, &sum)
	return nil
}

// record judges one record.
func (j *judge) record(i int32, s *summary) {
	timestamp := j.header.timestamp(s.timestampDelta)
	if timestamp > j.maxTimestamp {
		j.maxTimestamp = timestamp
	}
	if s.offsetDelta != i {
		j.outOfSequence = true
	}
	r := j.rules
	if r.Compacted && s.keySize < 0 {
		if j.noKey == "" {
			j.noKey = "Compacted topic cannot accept message without key in topic partition " + r.TopicPartition
		}
		j.refuse(i, j.noKey)
		return
	}
	if !r.LogAppendTime && timestamp != NoTimestamp {
		// The arithmetic may wrap, as it does in Kafka.
		if age := r.NowMs - timestamp; age > r.TimestampBeforeMaxMs || -age > r.TimestampAfterMaxMs {
			j.badTimestamp = true
			if j.room(i) {
				j.refuse(i, fmt.Sprintf("Timestamp %d of message with offset %d is out of range. The timestamp should be within [%d, %d]",
					timestamp, j.header.BaseOffset+int64(s.offsetDelta), r.NowMs-r.TimestampBeforeMaxMs, r.NowMs+r.TimestampAfterMaxMs))
			}
		}
	} else if j.header.LogAppendTime() {
		j.badTimestamp = true
		if j.room(i) {
			j.refuse(i, fmt.Sprintf("Invalid timestamp type in message DefaultRecord(offset=%d, timestamp=%d, key=%d bytes, value=%d bytes). "+
				"Producer should not set timestamp type to LogAppendTime.",
				j.header.BaseOffset+int64(s.offsetDelta), timestamp, max(s.keySize, 0), max(s.valueSize, 0)))
		}
	}
}

// room tells whether a message is worth making; if not, the error is counted.
func (j *judge) room(i int32) bool {
	if len(j.errors) < maxRecordErrors {
		return true
	}
	j.refuse(i, "")
	return false
}

func (j *judge) refuse(i int32, message string) {
	j.errorCount++
	if len(j.errors) < maxRecordErrors {
		j.errors = append(j.errors, RecordError{Index: i, Message: message})
	}
}

// verdict is nil when no record was refused.
func (j *judge) verdict() error {
	switch {
	case j.errorCount == 0:
		return nil
	case j.badTimestamp:
		return &RecordErrors{Err: ErrInvalidTimestamp, Records: j.errors,
			Message: "One or more records have been rejected due to invalid timestamp"}
	}
	shown := make([]string, 0, 3)
	for _, e := range j.errors[:min(3, len(j.errors))] {
		shown = append(shown, fmt.Sprintf("RecordError(batchIndex=%d, message='%s')", e.Index, e.Message))
	}
	return &RecordErrors{Err: ErrInvalidRecord, Records: j.errors,
		Message: fmt.Sprintf("One or more records have been rejected due to %d record errors in total, "+
			"and only showing the first three errors at most: [%s]", j.errorCount, strings.Join(shown, ", "))}
}
