package batch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
)

const testNow = int64(1_800_000_000_000)

// baseRules are those of a topic with Kafka's defaults.
func baseRules() Rules {
	return Rules{
		TopicPartition: "t-0", RequestVersion: 9, Compression: Compression{Codec: Producer}, NowMs: testNow,
		TimestampBeforeMaxMs: math.MaxInt64, TimestampAfterMaxMs: 3_600_000,
		MaxMessageBytes: 1_048_588, SegmentBytes: 1 << 30,
	}
}

// produced builds the batch of three records that most cases then damage.
func produced(codec Codec) []byte {
	b := NewBuilder(BuilderOptions{LeaderEpoch: NoLeaderEpoch, Compression: Compression{Codec: codec}})
	b.Append(1000, []byte("k0"), []byte("v0"), nil)
	b.Append(3000, []byte("k1"), nil, []RecordHeader{{"h", []byte("x")}, {"h", nil}})
	b.Append(2000, []byte{}, []byte{}, nil)
	return mustBuild(b)
}

func mustBuild(b *Builder) []byte {
	out, err := b.Build()
	if err != nil {
		panic(err)
	}
	return out
}

// edited applies f to a batch and seals it again.
func edited(b []byte, f func(b []byte)) []byte {
	f(b)
	seal(b)
	return b
}

// withPayload makes a batch of count records out of raw record bytes.
func withPayload(codec Codec, count int32, records []byte) []byte {
	packed, err := Compress(Compression{Codec: codec}, records)
	if err != nil {
		panic(err)
	}
	b, err := finish(append(make([]byte, HeaderSize), packed...), Header{
		PartitionLeaderEpoch: -1, Attributes: int16(codec), LastOffsetDelta: count - 1, RecordCount: count,
		BaseTimestamp: 1000, MaxTimestamp: 1000, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1,
	})
	if err != nil {
		panic(err)
	}
	return b
}

// rawRecord writes a record body field by field behind its length, plus what is off about it.
func rawRecord(offsetDelta int64, lengthOff int64, fields ...int64) []byte {
	body := []byte{0}
	body = binary.AppendVarint(body, 0)
	body = binary.AppendVarint(body, offsetDelta)
	for _, f := range fields {
		body = binary.AppendVarint(body, f)
	}
	return append(binary.AppendVarint(nil, int64(len(body))+lengthOff), body...)
}

func i16(b []byte, pos int, v int16) { binary.BigEndian.PutUint16(b[pos:], uint16(v)) }
func i32(b []byte, pos int, v int32) { binary.BigEndian.PutUint32(b[pos:], uint32(v)) }
func i64(b []byte, pos int, v int64) { binary.BigEndian.PutUint64(b[pos:], uint64(v)) }

// noKeyError is what Kafka says about one record without a key.
const noKeyError = "Compacted topic cannot accept message without key in topic partition t-0"

// admitCase is a produce request's records, the topic's rules, and what Kafka 4.3.1 answers:
// every case can be put to a real broker, see kafka_test.go.
type admitCase struct {
	name    string
	rules   func(*Rules)
	config  map[string]string // the same as rules, for a topic of Kafka
	records func() []byte
	want    error             // nil when it is admitted
	refused []RecordError     // with want, the records named; a message may be a prefix
	stored  func(Header) bool // what must hold of an admitted batch's header
	// stricter marks the few cases in which Kafka lets damaged records through.
	stricter bool
}

func compacted(r *Rules)  { r.Compacted = true }
func appendTime(r *Rules) { r.LogAppendTime = true }
func toCodec(c Codec) func(*Rules) {
	return func(r *Rules) { r.Compression = Compression{Codec: c} }
}
func limit(n int) func(*Rules) { return func(r *Rules) { r.MaxMessageBytes = n } }

var (
	compactedConfig  = map[string]string{"cleanup.policy": "compact"}
	appendTimeConfig = map[string]string{"message.timestamp.type": "LogAppendTime"}
	noneConfig       = map[string]string{"compression.type": "uncompressed"}
	gzipConfig       = map[string]string{"compression.type": "gzip"}
)

func admitCases() []admitCase {
	var cases []admitCase
	add := func(c admitCase) { cases = append(cases, c) }
	plain := func() []byte { return produced(None) }

	// Shape.
	add(admitCase{name: "nothing", records: func() []byte { return []byte{} }, want: ErrInvalidRecord})
	add(admitCase{name: "eleven bytes", records: func() []byte { return plain()[:11] }, want: ErrInvalidRecord})
	add(admitCase{name: "a batch cut short", records: func() []byte { b := plain(); return b[:len(b)-1] }, want: ErrInvalidRecord})
	add(admitCase{name: "length smaller than any format's", records: func() []byte { b := plain(); i32(b, posLength, 13); return b }, want: ErrCorrupt})
	add(admitCase{name: "negative length", records: func() []byte { b := plain(); i32(b, posLength, -1); return b }, want: ErrCorrupt})
	add(admitCase{name: "length smaller than a header", records: func() []byte {
		b := plain()[:60]
		i32(b, posLength, 48)
		return b
	}, want: ErrCorrupt})
	for _, magic := range []byte{0, 1} {
		add(admitCase{name: fmt.Sprintf("magic %d", magic), records: func() []byte { b := plain(); b[posMagic] = magic; return b }, want: ErrInvalidRecord})
	}
	add(admitCase{name: "magic 3", records: func() []byte { b := plain(); b[posMagic] = 3; return b }, want: ErrCorrupt})
	add(admitCase{name: "two batches", records: func() []byte { return append(plain(), plain()...) }, want: ErrInvalidRecord})
	add(admitCase{name: "eleven bytes behind", records: func() []byte { return append(plain(), make([]byte, 11)...) }})
	add(admitCase{name: "half a batch behind", records: func() []byte { return append(plain(), plain()[:40]...) }})
	add(admitCase{name: "zeros behind", records: func() []byte { return append(plain(), make([]byte, 12)...) }, want: ErrCorrupt})
	add(admitCase{name: "flipped bit", records: func() []byte { b := plain(); b[len(b)-1] ^= 1; return b }, want: ErrCorrupt})
	add(admitCase{name: "too large", config: map[string]string{"max.message.bytes": "90"}, rules: limit(90), want: ErrTooLarge,
		records: func() []byte { return plain() }})
	add(admitCase{name: "too large and corrupt", config: map[string]string{"max.message.bytes": "90"}, rules: limit(90), want: ErrTooLarge,
		records: func() []byte { b := plain(); b[len(b)-1] ^= 1; return b }})
	add(admitCase{name: "just fits", config: map[string]string{"max.message.bytes": fmt.Sprint(len(plain()))}, rules: limit(len(plain())), records: plain})

	add(admitCase{name: "one byte too large", config: map[string]string{"max.message.bytes": fmt.Sprint(len(plain()) - 1)}, rules: limit(len(plain()) - 1),
		records: plain, want: ErrTooLarge})
	large := func() []byte {
		b := NewBuilder(BuilderOptions{LeaderEpoch: -1})
		b.Append(1, nil, make([]byte, 1<<20), nil)
		return mustBuild(b)
	}
	add(admitCase{name: "larger than a segment", records: large, want: ErrLargerThanSegment,
		config: map[string]string{"segment.bytes": fmt.Sprint(1 << 20), "max.message.bytes": fmt.Sprint(2 << 20)},
		rules:  func(r *Rules) { r.SegmentBytes, r.MaxMessageBytes = 1<<20, 2<<20 }})

	// Header.
	add(admitCase{name: "base offset not 0", records: func() []byte { b := plain(); PutBaseOffset(b, 5); return b }, want: ErrInvalidRecord})
	header := func(name string, pos int, v int32, want error) {
		add(admitCase{name: name, want: want, records: func() []byte { return edited(plain(), func(b []byte) { i32(b, pos, v) }) }})
	}
	header("count too small", posRecordCount, 2, ErrInvalidRecord)
	header("count too large", posRecordCount, 4, ErrInvalidRecord)
	header("count negative", posRecordCount, -1, ErrInvalidRecord)
	header("count 0", posRecordCount, 0, ErrInvalidRecord)
	header("last offset delta negative", posLastOffsetDelta, -1, ErrInvalidRecord)
	header("last offset delta too large", posLastOffsetDelta, 9, ErrInvalidRecord)
	both := func(name string, n int32, codec Codec, want error) {
		add(admitCase{name: name + " " + codec.String(), want: want, records: func() []byte {
			return edited(produced(codec), func(b []byte) { i32(b, posRecordCount, n); i32(b, posLastOffsetDelta, n-1) })
		}})
	}
	for codec := None; codec <= Zstd; codec++ {
		both("count and delta too small", 2, codec, ErrInvalidRecord)
		both("count and delta too large", 4, codec, ErrInvalidRecord)
	}
	add(admitCase{name: "control batch", want: ErrInvalidRecord, records: func() []byte {
		return edited(plain(), func(b []byte) { b[posAttributes+1] |= controlFlag })
	}})
	add(admitCase{name: "producer without sequence", want: ErrInvalidRecord, records: func() []byte {
		return edited(plain(), func(b []byte) { i64(b, posProducerID, 7); i16(b, posProducerEpoch, 0) })
	}})
	for _, codec := range []int{5, 7} {
		add(admitCase{name: fmt.Sprintf("codec %d", codec), want: ErrUnknownCodec, records: func() []byte {
			return edited(plain(), func(b []byte) { b[posAttributes+1] = byte(codec) })
		}})
	}
	add(admitCase{name: "zstd before version 7", rules: func(r *Rules) { r.RequestVersion = 6 }, want: ErrUnsupportedCompression,
		records: func() []byte { return produced(Zstd) }})
	add(admitCase{name: "zstd from version 7", rules: func(r *Rules) { r.RequestVersion = 7 }, records: func() []byte { return produced(Zstd) }})
	add(admitCase{name: "unused attribute bits stay", records: func() []byte {
		return edited(plain(), func(b []byte) { i16(b, posAttributes, 0x7f00) })
	}, stored: func(h Header) bool { return h.Attributes == 0x7f00 }})

	// Records.
	one := rawRecord(0, 0, -1, -1, 0)
	malformed := []struct {
		name    string
		records []byte
		lenient bool // Kafka does not look at this inside a compressed batch that it keeps
	}{
		{"bytes behind the records", append(append([]byte{}, one...), 0), false},
		{"body longer than the bytes", rawRecord(0, 1, -1, -1, 0), true},
		{"body shorter than its fields", rawRecord(0, -1, -1, -1, 0), true},
		{"empty body", []byte{0}, false},
		{"key longer than the body", rawRecord(0, 0, 50, -1, 0), false},
		{"value longer than the body", rawRecord(0, 0, -1, math.MaxInt32, 0), false},
		{"negative header count", rawRecord(0, 0, -1, -1, -1), false},
		{"huge header count", rawRecord(0, 0, -1, -1, math.MaxInt32), false},
		{"header without a name", rawRecord(0, 0, -1, -1, 1, -1, -1), false},
		{"no header count", rawRecord(0, 0, -1, -1), false},
		{"a byte in the body behind the headers", rawRecord(0, 0, -1, -1, 0, 0), false},
		{"a number of six bytes", append([]byte{20, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0}, 0), false},
	}
	for codec := None; codec <= Zstd; codec++ {
		for _, m := range malformed {
			add(admitCase{name: m.name + " " + codec.String(), want: ErrInvalidRecord, stricter: m.lenient && codec != None,
				records: func() []byte { return withPayload(codec, 1, m.records) }})
		}
		add(admitCase{name: "any negative length is null " + codec.String(), records: func() []byte {
			return withPayload(codec, 1, rawRecord(0, 0, -7, -9, 0))
		}})
		add(admitCase{name: "good " + codec.String(), records: func() []byte { return produced(codec) }})
		if codec != None {
			add(admitCase{name: "not what the codec says " + codec.String(), want: ErrDecompression, records: func() []byte {
				return edited(plain(), func(b []byte) { b[posAttributes+1] = byte(codec) })
			}})
		}
	}
	gaps := append(rawRecord(0, 0, -1, -1, 0), rawRecord(5, 0, -1, -1, 0)...)
	add(admitCase{name: "offset deltas out of sequence none", records: func() []byte { return withPayload(None, 2, gaps) }})
	add(admitCase{name: "offset deltas out of sequence gzip", want: ErrNotRebuildable, records: func() []byte { return withPayload(Gzip, 2, gaps) }})
	add(admitCase{name: "offset deltas out of sequence re-encoded", config: noneConfig, rules: toCodec(None),
		records: func() []byte { return withPayload(Gzip, 2, gaps) }})

	// Rules of the topic.
	noKeys := func(codec Codec) func() []byte {
		return func() []byte {
			b := NewBuilder(BuilderOptions{LeaderEpoch: -1, Compression: Compression{Codec: codec}})
			b.Append(1000, nil, []byte("v"), nil)
			b.Append(1000, []byte("k"), []byte("v"), nil)
			b.Append(1000, nil, []byte("v"), nil)
			return mustBuild(b)
		}
	}
	for _, codec := range []Codec{None, LZ4} {
		add(admitCase{name: "missing keys " + codec.String(), config: compactedConfig, rules: compacted, records: noKeys(codec),
			want: ErrInvalidRecord, refused: []RecordError{{0, noKeyError}, {2, noKeyError}}})
		add(admitCase{name: "an empty key is a key " + codec.String(), config: compactedConfig, rules: compacted,
			records: func() []byte { return produced(codec) }})
	}
	at := func(timestamps ...int64) func() []byte {
		return func() []byte {
			b := NewBuilder(BuilderOptions{LeaderEpoch: -1})
			for _, ts := range timestamps {
				b.Append(ts, []byte("k"), nil, nil)
			}
			return mustBuild(b)
		}
	}
	late := func(r *Rules) { r.TimestampBeforeMaxMs = 1000 }
	add(admitCase{name: "timestamp in the future", records: at(1, math.MaxInt64/2), want: ErrInvalidTimestamp,
		refused: []RecordError{{1, "Timestamp 4611686018427387903 of message with offset 1 is out of range. The timestamp should be within ["}}})
	add(admitCase{name: "timestamp too old", config: map[string]string{"message.timestamp.before.max.ms": "1000"}, rules: late,
		records: at(1000), want: ErrInvalidTimestamp,
		refused: []RecordError{{0, "Timestamp 1000 of message with offset 0 is out of range. The timestamp should be within ["}}})
	add(admitCase{name: "no timestamp at all", config: map[string]string{"message.timestamp.before.max.ms": "1000"}, rules: late, records: at(-1)})
	add(admitCase{name: "a wrong largest timestamp is corrected", records: func() []byte {
		return edited(plain(), func(b []byte) { i64(b, posMaxTimestamp, 77) })
	}, stored: func(h Header) bool { return h.MaxTimestamp == 3000 && !h.LogAppendTime() }})
	flagged := func() []byte { return edited(plain(), func(b []byte) { b[posAttributes+1] |= logAppendTimeFlag }) }
	add(admitCase{name: "the broker's flag is taken off", records: flagged,
		stored: func(h Header) bool { return !h.LogAppendTime() && h.MaxTimestamp == 3000 }})
	add(admitCase{name: "the broker's flag is taken off, its timestamp stays", records: func() []byte {
		return edited(flagged(), func(b []byte) { i64(b, posMaxTimestamp, 7777) })
	}, stored: func(h Header) bool { return !h.LogAppendTime() && h.MaxTimestamp == 7777 }})
	add(admitCase{name: "the broker's flag without a timestamp", records: func() []byte {
		return edited(flagged(), func(b []byte) { i64(b, posMaxTimestamp, -1); i32(b, posRecordCount, 3) })
	}, want: ErrInvalidTimestamp, refused: []RecordError{
		{0, "Invalid timestamp type in message DefaultRecord(offset=0, timestamp=-1, key=2 bytes, value=2 bytes). Producer should not"},
		{1, "Invalid timestamp type in message"}, {2, "Invalid timestamp type in message"}}})
	for _, codec := range []Codec{None, Snappy} {
		add(admitCase{name: "log append time " + codec.String(), config: appendTimeConfig, rules: appendTime,
			records: func() []byte { return produced(codec) },
			stored:  func(h Header) bool { return h.LogAppendTime() && h.MaxTimestamp == testNow }})
	}
	add(admitCase{name: "log append time set by the client", config: appendTimeConfig, rules: appendTime, records: flagged, want: ErrInvalidTimestamp,
		refused: []RecordError{{0, "Invalid timestamp type in message"}, {1, "Invalid timestamp type in message"}, {2, "Invalid timestamp type in message"}}})
	for from := None; from <= Zstd; from++ {
		for to := None; to <= Zstd; to++ {
			name := to.String()
			if to == None {
				name = "uncompressed"
			}
			add(admitCase{name: fmt.Sprintf("%v re-encoded as %v", from, to), config: map[string]string{"compression.type": name}, rules: toCodec(to),
				records: func() []byte { return produced(from) },
				stored: func(h Header) bool {
					return h.Codec() == to && h.MaxTimestamp == 3000 && h.BaseTimestamp == 1000
				}})
		}
	}
	add(admitCase{name: "negative timestamp kept", records: at(-5)})
	add(admitCase{name: "negative timestamp re-encoded", config: gzipConfig, rules: toCodec(Gzip), records: at(-5), want: ErrNotRebuildable})
	add(admitCase{name: "too large after re-encoding", config: map[string]string{"compression.type": "uncompressed", "max.message.bytes": "2000"},
		rules: func(r *Rules) { toCodec(None)(r); limit(2000)(r) }, want: ErrTooLarge,
		records: func() []byte {
			b := NewBuilder(BuilderOptions{LeaderEpoch: -1, Compression: Compression{Codec: Gzip}})
			b.Append(1, nil, make([]byte, 5000), nil)
			return mustBuild(b)
		}})
	return cases
}

func TestAdmit(t *testing.T) {
	for _, c := range admitCases() {
		t.Run(c.name, func(t *testing.T) {
			rules := baseRules()
			if c.rules != nil {
				c.rules(&rules)
			}
			sent := c.records()
			got, err := Admit(append([]byte{}, sent...), rules)
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			checkRefused(t, err, c.refused)
			if err != nil {
				return
			}
			h, err := Check(got.Batch)
			if err != nil || h.Size() != len(got.Batch) || h != got.Header {
				t.Fatalf("admitted %+v as %+v: %v", got.Header, h, err)
			}
			if c.stored != nil && !c.stored(h) {
				t.Fatalf("stored %+v", h)
			}
			if !strings.HasPrefix(c.name, "offset deltas") {
				sameRecords(t, got.Batch, sent)
			}
		})
	}
}

func checkRefused(t *testing.T, err error, want []RecordError) {
	t.Helper()
	var records *RecordErrors
	if !errors.As(err, &records) {
		if len(want) > 0 {
			t.Fatalf("no record errors in %v", err)
		}
		return
	}
	if len(records.Records) != len(want) {
		t.Fatalf("record errors %q, want %q", records.Records, want)
	}
	for i, r := range records.Records {
		if r.Index != want[i].Index || !strings.HasPrefix(r.Message, want[i].Message) {
			t.Fatalf("record error %d is %q, want %q", i, r, want[i])
		}
	}
}

// sameRecords compares everything that a consumer would see of two batches, but for timestamps set by the broker.
func sameRecords(t *testing.T, got, want []byte) {
	t.Helper()
	a, b := consumed(t, got), consumed(t, want)
	if a != b {
		t.Fatalf("got records\n%swant\n%s", a, b)
	}
}

// consumed writes a batch's records as text.
func consumed(t *testing.T, b []byte) string {
	t.Helper()
	h, err := ReadHeader(b)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for r, err := range Records(b, 0) {
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "delta %d timestamp %d key %q null %v value %q null %v headers %q\n",
			r.OffsetDelta, h.BaseTimestamp+r.TimestampDelta, r.Key, r.Key == nil, r.Value, r.Value == nil, r.Headers)
	}
	return out.String()
}
