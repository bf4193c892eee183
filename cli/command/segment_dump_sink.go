package command

import (
	"bufio"
	"fmt"
	"strconv"
	"strings"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/inspect"
)

// dumpSink writes what a dump has found. Writers keep their first error, which the flush at the end tells.
type dumpSink interface {
	// logFile begins a .log file that is read from a position on.
	logFile(path string, base, from int64)
	// otherFile begins any other file.
	otherFile(path, kind string)
	batch(v *batchView)
	record(v *batchView, r *recordView)
	// entry is a line of any other file: a kind and its fields, in order.
	entry(kind string, fields ...field)
	damage(d *inspect.Damage)
	note(text string)
	// lines writes what another sink of the same kind has made of batches.
	lines(text []byte)
}

// field is a named value: int64, int32, int16, uint32, string, bool, optional or millis.
type field struct {
	name  string // in_this_form
	value any
}

// optional is a number of which less than 0 means that there is none, as Kafka's tool writes one.
type optional int64

// millis is a timestamp, for people a time.
type millis int64

func newSink(o *dumpOptions, w *bufio.Writer) dumpSink {
	switch o.output {
	case "json":
		return &jsonSink{o: o, w: w}
	case "plain":
		return &plainSink{w: w, o: o}
	}
	return &tableSink{o: o, w: w}
}

// plainSink writes the lines of Kafka's dump tool.
type plainSink struct {
	o *dumpOptions
	w *bufio.Writer
}

func (s *plainSink) logFile(path string, base, from int64) {
	fmt.Fprintf(s.w, "Dumping %s\n", path)
	if strings.HasSuffix(path, ".log") {
		fmt.Fprintf(s.w, "Log starting offset: %d\n", base)
	}
}

func (s *plainSink) otherFile(path, _ string) { fmt.Fprintf(s.w, "Dumping %s\n", path) }

func (s *plainSink) batch(v *batchView) {
	h := &v.header
	b := begin(s.w)
	b = appendInt(b, "baseOffset: ", h.BaseOffset)
	b = appendInt(b, " lastOffset: ", h.LastOffset())
	b = appendInt(b, " count: ", int64(h.RecordCount))
	b = appendInt(b, " baseSequence: ", int64(h.BaseSequence))
	b = appendInt(b, " lastSequence: ", int64(h.LastSequence()))
	b = appendInt(b, " producerId: ", h.ProducerID)
	b = appendInt(b, " producerEpoch: ", int64(h.ProducerEpoch))
	b = appendInt(b, " partitionLeaderEpoch: ", int64(h.PartitionLeaderEpoch))
	b = strconv.AppendBool(append(b, " isTransactional: "...), h.IsTransactional())
	b = strconv.AppendBool(append(b, " isControl: "...), h.IsControl())
	horizon := optional(-1)
	if h.HasDeleteHorizon() {
		horizon = optional(h.BaseTimestamp)
	}
	b = append(append(b, " deleteHorizonMs: "...), horizon.kafka()...)
	b = appendInt(b, " position: ", v.position)
	b = append(append(b, ' '), timestampType(h)...)
	b = appendInt(b, ": ", h.MaxTimestamp)
	b = appendInt(b, " size: ", int64(h.Size()))
	b = appendInt(b, " magic: ", int64(h.Magic))
	b = append(append(b, " compresscodec: "...), h.Codec().String()...)
	b = appendInt(b, " crc: ", int64(h.CRC))
	b = strconv.AppendBool(append(b, " isvalid: "...), v.valid)
	s.write(append(b, '\n'))
}

func (s *plainSink) record(v *batchView, r *recordView) {
	b := begin(s.w)
	b = appendInt(b, "| offset: ", r.offset)
	b = append(append(b, ' '), timestampType(&v.header)...)
	b = appendInt(b, ": ", r.timestamp)
	b = appendInt(b, " keySize: ", sizeOrNull(r.Key))
	b = appendInt(b, " valueSize: ", sizeOrNull(r.Value))
	b = appendInt(b, " sequence: ", int64(r.sequence))
	b = append(b, " headerKeys: ["...)
	for i, h := range r.Headers {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, h.Key...)
	}
	b = append(b, ']')
	switch m := r.marker; {
	case m != nil && m.ends:
		b = append(append(b, " endTxnMarker: "...), m.kind...)
		b = appendInt(b, " coordinatorEpoch: ", int64(m.coordinatorEpoch))
	case m != nil:
		b = append(append(b, " controlType: "...), m.kind...)
		b = appendInt(append(b, '('), "", int64(m.number))
		b = append(b, ')')
	default:
		if r.Key != nil {
			b = s.o.format.appendPlain(append(b, " key: "...), r.Key)
		}
		if r.Value != nil && !s.o.keys {
			b = s.o.format.appendPlain(append(b, " payload: "...), r.Value)
		}
	}
	s.write(append(b, '\n'))
}

func (s *plainSink) entry(kind string, fields ...field) {
	b := begin(s.w)
	for i, f := range fields {
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(append(b, camel(f.name)...), ": "...)
		switch v := f.value.(type) {
		case optional:
			b = append(b, v.kafka()...)
		case millis:
			b = strconv.AppendInt(b, int64(v), 10)
		default:
			b = fmt.Append(b, v)
		}
	}
	s.write(append(b, '\n'))
}

func (s *plainSink) damage(d *inspect.Damage) {
	if d.Header != nil { // as Kafka's tool shows it
		s.batch(&batchView{file: d.File, position: d.Position, header: *d.Header})
		return
	}
	fmt.Fprintf(s.w, "Damage at position %d of %s: %s\n", d.Position, d.File, d.What)
}

func (s *plainSink) note(text string) { fmt.Fprintln(s.w, text) }

func (s *plainSink) write(b []byte)    { s.w.Write(b) }
func (s *plainSink) lines(text []byte) { s.w.Write(text) }

// begin gives what to append a line to: room of the writer's own, so that nothing is copied when the line is written.
func begin(w *bufio.Writer) []byte {
	if w.Available() < 4<<10 {
		w.Flush()
	}
	return w.AvailableBuffer()
}

func (o optional) kafka() string {
	if o < 0 {
		return "OptionalLong.empty"
	}
	return "OptionalLong[" + strconv.FormatInt(int64(o), 10) + "]"
}

func timestampType(h *batch.Header) string {
	if h.LogAppendTime() {
		return "LogAppendTime"
	}
	return "CreateTime"
}

func sizeOrNull(b []byte) int64 {
	if b == nil {
		return -1
	}
	return int64(len(b))
}

func appendInt(b []byte, name string, n int64) []byte {
	return strconv.AppendInt(append(b, name...), n, 10)
}

// camel turns last_stable_offset into lastStableOffset.
func camel(name string) string {
	words := strings.Split(name, "_")
	for i, w := range words[1:] {
		words[i+1] = strings.ToUpper(w[:1]) + w[1:]
	}
	return strings.Join(words, "")
}

// tableSink writes for people. The name of a file stands above what is shown of it.
type tableSink struct {
	o       *dumpOptions
	w       *bufio.Writer
	heading string // not written yet
	clock   clock
}

func (s *tableSink) logFile(path string, _, _ int64) { s.heading = path }
func (s *tableSink) otherFile(path, _ string)        { s.heading = path }

func (s *tableSink) batch(v *batchView) {
	h := &v.header
	b := s.begin()
	b = appendInt(b, "batch ", h.BaseOffset)
	b = appendInt(b, "..", h.LastOffset())
	b = appendInt(b, " at ", v.position)
	b = appendInt(b, ": ", int64(h.RecordCount))
	b = append(b, " record"...)
	if h.RecordCount != 1 {
		b = append(b, 's')
	}
	b = appendInt(b, ", ", int64(h.Size()))
	b = append(append(b, " bytes, "...), h.Codec().String()...)
	b = appendInt(b, ", epoch ", int64(h.PartitionLeaderEpoch))
	b = s.clock.append(append(b, ", "...), h.MaxTimestamp)
	if h.LogAppendTime() {
		b = append(b, " (append time)"...)
	}
	if h.HasProducerID() {
		b = appendInt(b, ", producer ", h.ProducerID)
		b = appendInt(b, " epoch ", int64(h.ProducerEpoch))
		if h.BaseSequence >= 0 {
			b = appendInt(b, " sequence ", int64(h.BaseSequence))
			b = appendInt(b, "..", int64(h.LastSequence()))
		}
	}
	if h.IsTransactional() {
		b = append(b, ", transactional"...)
	}
	if h.IsControl() {
		b = append(b, ", control"...)
	}
	if h.HasDeleteHorizon() {
		b = s.clock.append(append(b, ", tombstones until "...), h.BaseTimestamp)
	}
	if v.journaled {
		b = append(b, ", in the journal"...)
	}
	s.write(append(b, '\n'))
}

func (s *tableSink) record(_ *batchView, r *recordView) {
	b := s.begin()
	if !s.o.records {
		b = append(b, "  "...)
	}
	b = appendInt(b, "", r.offset)
	b = s.clock.append(append(b, ' '), r.timestamp)
	switch {
	case r.marker != nil:
		b = append(append(b, " marker "...), r.marker.kind...)
		if r.marker.ends {
			b = appendInt(b, " coordinator epoch ", int64(r.marker.coordinatorEpoch))
		}
	case r.decoded != nil:
		b = append(append(b, ' '), r.decoded.key...)
		if !s.o.keys {
			b = append(b, " → "...)
			if r.decoded.value == nil {
				b = append(b, "gone"...)
			}
			b = append(b, r.decoded.value...)
		}
	default:
		b = s.o.format.append(append(b, ' '), r.Key)
		if !s.o.keys {
			b = s.o.format.append(append(b, " → "...), r.Value)
		}
	}
	if len(r.Headers) > 0 && !s.o.keys {
		b = append(b, " {"...)
		for i, h := range r.Headers {
			if i > 0 {
				b = append(b, ", "...)
			}
			b = append(appendEscaped(b, []byte(h.Key)), '=')
			b = s.o.format.append(b, h.Value)
		}
		b = append(b, '}')
	}
	s.write(append(b, '\n'))
}

func (s *tableSink) entry(kind string, fields ...field) {
	b := s.begin()
	if kind == "line" { // of a file that is text
		s.write(fmt.Appendln(b, fields[0].value))
		return
	}
	if !entriesAlone[kind] {
		b = append(append(b, kind...), ' ')
	}
	for i, f := range fields {
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(append(b, f.name...), '=')
		switch v := f.value.(type) {
		case optional:
			if v < 0 {
				b = append(b, '-')
			} else {
				b = strconv.AppendInt(b, int64(v), 10)
			}
		case millis:
			b = s.clock.append(b, int64(v))
		case string:
			b = append(b, v...)
		default:
			b = append(b, compactJSON(v)...)
		}
	}
	s.write(append(b, '\n'))
}

// entriesAlone are kinds of which the fields tell enough.
var entriesAlone = map[string]bool{"index": true, "timeindex": true, "txnindex": true, "epoch": true, "producer": true, "start": true, "sealed": true}

func (s *tableSink) damage(d *inspect.Damage) {
	if d.Offset < 0 {
		s.write(fmt.Appendf(s.begin(), "damage: %s\n", d.What))
		return
	}
	s.write(fmt.Appendf(s.begin(), "damage at byte %d (offset %d): %s\n", d.Position, d.Offset, d.What))
}

func (s *tableSink) note(text string) { s.heading = text }

// begin writes the heading, now that something is shown under it.
func (s *tableSink) begin() []byte {
	if s.heading != "" {
		s.w.WriteString(s.heading)
		s.w.WriteByte('\n')
		s.heading = ""
	}
	return begin(s.w)
}

func (s *tableSink) write(b []byte) { s.w.Write(b) }

func (s *tableSink) lines(text []byte) {
	if len(text) > 0 {
		s.begin()
		s.w.Write(text)
	}
}
