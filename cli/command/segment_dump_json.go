package command

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"path/filepath"
	"strconv"
	"unicode/utf8"

	"github.com/millrace/millrace/segment/inspect"
)

// jsonSink writes one document a line; "type" says what it is about.
type jsonSink struct {
	o    *dumpOptions
	w    *bufio.Writer
	file string // of what is not a batch or a record
	// name is the partition's as JSON.
	name  []byte
	named *inspect.Partition
	clock clock
}

func (s *jsonSink) logFile(path string, _, _ int64) { s.file = path }
func (s *jsonSink) otherFile(path, _ string)        { s.file = path }

func (s *jsonSink) nameOf(p *inspect.Partition) []byte {
	if s.named != p {
		s.named, s.name = p, appendJSON(nil, []byte(p.Name()))
	}
	return s.name
}

func (s *jsonSink) batch(v *batchView) {
	h := &v.header
	b := append(begin(s.w), `{"type":"batch","partition":`...)
	b = append(b, s.nameOf(v.partition)...)
	b = appendJSON(append(b, `,"file":`...), []byte(filepath.Base(v.file)))
	b = appendInt(b, `,"position":`, v.position)
	b = appendInt(b, `,"base_offset":`, h.BaseOffset)
	b = appendInt(b, `,"last_offset":`, h.LastOffset())
	b = appendInt(b, `,"records":`, int64(h.RecordCount))
	b = appendInt(b, `,"size":`, int64(h.Size()))
	b = append(append(append(b, `,"codec":"`...), h.Codec().String()...), '"')
	b = s.clock.appendJSON(append(b, `,"max_timestamp":`...), h.MaxTimestamp)
	b = append(append(append(b, `,"timestamp_type":"`...), timestampType(h)...), '"')
	b = appendInt(b, `,"leader_epoch":`, int64(h.PartitionLeaderEpoch))
	b = appendInt(b, `,"producer_id":`, h.ProducerID)
	b = appendInt(b, `,"producer_epoch":`, int64(h.ProducerEpoch))
	b = appendInt(b, `,"base_sequence":`, int64(h.BaseSequence))
	b = appendInt(b, `,"last_sequence":`, int64(h.LastSequence()))
	b = strconv.AppendBool(append(b, `,"transactional":`...), h.IsTransactional())
	b = strconv.AppendBool(append(b, `,"control":`...), h.IsControl())
	if h.HasDeleteHorizon() {
		b = s.clock.appendJSON(append(b, `,"delete_horizon":`...), h.BaseTimestamp)
	}
	b = appendInt(b, `,"crc":`, int64(h.CRC))
	if v.journaled {
		b = append(b, `,"journaled":true`...)
	}
	s.write(append(b, "}\n"...))
}

func (s *jsonSink) record(v *batchView, r *recordView) {
	b := append(begin(s.w), `{"type":"record","partition":`...)
	b = append(b, s.nameOf(v.partition)...)
	b = appendInt(b, `,"offset":`, r.offset)
	b = s.clock.appendJSON(append(b, `,"timestamp":`...), r.timestamp)
	switch {
	case r.marker != nil:
		b = append(append(append(b, `,"marker":"`...), r.marker.kind...), '"')
		if r.marker.ends {
			b = appendInt(b, `,"producer_id":`, v.header.ProducerID)
			b = appendInt(b, `,"coordinator_epoch":`, int64(r.marker.coordinatorEpoch))
		}
	case r.decoded != nil:
		b = append(append(b, `,"decoded_key":`...), r.decoded.key...)
		if !s.o.keys {
			b = append(b, `,"decoded_value":`...)
			if r.decoded.value == nil {
				b = append(b, "null"...)
			}
			b = append(b, r.decoded.value...)
		}
	default:
		b = s.o.format.appendField(b, "key", r.Key)
		if !s.o.keys {
			b = s.o.format.appendField(b, "value", r.Value)
		}
	}
	if len(r.Headers) > 0 && !s.o.keys {
		b = append(b, `,"headers":[`...)
		for i, h := range r.Headers {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendJSON(append(b, `{"key":`...), []byte(h.Key))
			b = append(s.o.format.appendField(b, "value", h.Value), '}')
		}
		b = append(b, ']')
	}
	s.write(append(b, "}\n"...))
}

func (s *jsonSink) entry(kind string, fields ...field) {
	b := append(append(append(begin(s.w), `{"type":"`...), kind...), `","file":`...)
	b = appendJSON(b, []byte(s.file))
	for _, f := range fields {
		b = append(append(append(b, `,"`...), f.name...), `":`...)
		switch v := f.value.(type) {
		case optional:
			if v < 0 {
				b = append(b, "null"...)
			} else {
				b = strconv.AppendInt(b, int64(v), 10)
			}
		case millis:
			b = s.clock.appendJSON(b, int64(v))
		default:
			b = append(b, compactJSON(v)...)
		}
	}
	s.write(append(b, "}\n"...))
}

func (s *jsonSink) damage(d *inspect.Damage) {
	b := appendJSON(append(begin(s.w), `{"type":"damage","file":`...), []byte(d.File))
	b = appendInt(b, `,"position":`, d.Position)
	b = appendInt(b, `,"offset":`, d.Offset)
	b = appendJSON(append(b, `,"what":`...), []byte(d.What))
	b = strconv.AppendBool(append(b, `,"torn":`...), d.Torn)
	s.write(append(b, "}\n"...))
}

func (s *jsonSink) note(string) {} // batches say themselves that the journal alone has them

func (s *jsonSink) lines(text []byte) { s.w.Write(text) }

func (s *jsonSink) write(b []byte) {
	s.w.Write(b)
}

// byteFormat is how keys, values and headers are written.
type byteFormat int

const (
	formatText byteFormat = iota
	formatHex
	formatBase64
	formatJSON
)

var byteFormats = map[string]byteFormat{"text": formatText, "hex": formatHex, "base64": formatBase64, "json": formatJSON}

const hexDigits = "0123456789abcdef"

func appendHex(b, data []byte) []byte {
	for _, c := range data {
		b = append(b, hexDigits[c>>4], hexDigits[c&15])
	}
	return b
}

// append writes for people: text in quotes, null without.
func (f byteFormat) append(b, data []byte) []byte {
	switch {
	case data == nil:
		return append(b, "null"...)
	case f == formatHex:
		return appendHex(b, data)
	case f == formatBase64:
		return base64.StdEncoding.AppendEncode(b, data)
	case f == formatJSON && json.Valid(data):
		return appendOneLine(b, data)
	}
	return append(appendEscaped(append(b, '"'), data), '"')
}

// appendPlain writes as Kafka's tool does: bytes as they are, what is no UTF-8 replaced.
func (f byteFormat) appendPlain(b, data []byte) []byte {
	switch {
	case f == formatHex:
		return appendHex(b, data)
	case f == formatBase64:
		return base64.StdEncoding.AppendEncode(b, data)
	case utf8.Valid(data):
		return append(b, data...)
	}
	return append(b, javaText(data)...)
}

// appendField writes a member of a JSON object; what the form cannot hold goes under a name that tells the form.
func (f byteFormat) appendField(b []byte, name string, data []byte) []byte {
	b = append(append(b, `,"`...), name...)
	switch {
	case data == nil:
		return append(b, `":null`...)
	case f == formatText && plainText(data) == len(data):
		return append(append(append(b, `":"`...), data...), '"')
	case f == formatHex:
		return append(appendHex(append(b, `_hex":"`...), data), '"')
	case f == formatBase64, f == formatText && !utf8.Valid(data):
		return append(base64.StdEncoding.AppendEncode(append(b, `_base64":"`...), data), '"')
	case f == formatJSON && json.Valid(data):
		return appendOneLine(append(b, `":`...), data)
	case !utf8.Valid(data):
		return append(base64.StdEncoding.AppendEncode(append(b, `_base64":"`...), data), '"')
	}
	return appendJSON(append(b, `":`...), data)
}
