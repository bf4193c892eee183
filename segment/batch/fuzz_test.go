package batch

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

// known are the errors that may come out of this package.
var known = []error{ErrTruncated, ErrCorrupt, ErrUnsupportedCompression, ErrUnknownCodec, ErrDecompression, ErrTooManyBytes,
	ErrTooLarge, ErrLargerThanSegment, ErrNotRebuildable, ErrInvalidRecord, ErrInvalidTimestamp}

func mustBeKnown(t *testing.T, err error) {
	t.Helper()
	if err != nil && !slices.ContainsFunc(known, func(k error) bool { return errors.Is(err, k) }) {
		t.Fatalf("not an error of this package: %v", err)
	}
}

func addSeeds(f *testing.F) {
	for codec := None; codec <= Zstd; codec++ {
		f.Add(produced(codec))
	}
	f.Add(append(produced(None), produced(LZ4)...))
	f.Add(withPayload(Gzip, 2, append(rawRecord(0, 0, -1, -1, 0), rawRecord(5, 0, 3, -1, 0)...)))
	f.Add(withPayload(None, 1, rawRecord(0, 0, -1, -1, 1, -1, -1)))
}

// FuzzRecords walks whatever can be walked. The CRC is set right, or no damage would get any further.
func FuzzRecords(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		const bound = 1 << 20
		b = bytes.Clone(b) // the fuzzer's own must stay as it is
		h, err := ReadHeader(b)
		mustBeKnown(t, err)
		if err != nil || len(b) < h.Size() {
			return
		}
		seal(b[:h.Size()])
		if _, err := Check(b); err != nil {
			t.Fatal(err)
		}
		total := 0
		for r, err := range Records(b, bound) {
			mustBeKnown(t, err)
			total += len(r.Key) + len(r.Value)
		}
		if total > max(bound, len(b)) {
			t.Fatalf("%d bytes of keys and values", total)
		}
		for _, err := range All(b) {
			mustBeKnown(t, err)
		}
		_, _, _, err = OffsetOfTimestamp(b, h.MaxTimestamp, h.BaseOffset, bound)
		mustBeKnown(t, err)
		_, _, _, err = OffsetOfMaxTimestamp(b, bound)
		mustBeKnown(t, err)
	})
}

// FuzzAdmit wants that what is admitted is a good batch, can be read to its end, and is admitted again as it is.
func FuzzAdmit(f *testing.F) {
	for codec := None; codec <= Zstd; codec++ {
		f.Add(produced(codec), int8(Producer), false, false)
		f.Add(produced(codec), int8(Zstd-codec), true, codec == None)
	}
	f.Add(withPayload(Gzip, 2, append(rawRecord(0, 0, -1, -1, 0), rawRecord(5, 0, 3, -1, 0)...)), int8(None), false, true)
	f.Fuzz(func(t *testing.T, b []byte, target int8, appendTime, compacted bool) {
		if c := Codec(target); c != Producer && !c.Known() {
			return
		}
		b = bytes.Clone(b)
		flagged := false
		if len(b) >= HeaderSize {
			flagged = decodeHeader(b).LogAppendTime()
			if n, err := frontBatch(b); err == nil && n >= HeaderSize {
				seal(b[:n])
			}
		}
		rules := baseRules()
		rules.Compression = Compression{Codec: Codec(target)}
		rules.LogAppendTime, rules.Compacted, rules.MaxDecompressed = appendTime, compacted, 1<<20
		got, err := Admit(b, rules)
		mustBeKnown(t, err)
		if err != nil {
			return
		}
		h, err := Check(got.Batch)
		if err != nil || h != got.Header || len(got.Batch) != h.Size() {
			t.Fatalf("%+v: %v", got.Header, err)
		}
		n := int32(0)
		for _, err := range Records(got.Batch, 2<<20) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != h.RecordCount {
			t.Fatalf("%d of %d records", n, h.RecordCount)
		}
		if appendTime || flagged {
			return // a client may not set the first itself; Kafka takes the second off, but believes the timestamp
		}
		again, err := Admit(bytes.Clone(got.Batch), Rules{Compression: Compression{Codec: Producer}, RequestVersion: 9,
			TimestampBeforeMaxMs: 1<<63 - 1, TimestampAfterMaxMs: 3_600_000, NowMs: testNow, MaxMessageBytes: 1 << 30, MaxDecompressed: 2 << 20})
		if err != nil || !bytes.Equal(again.Batch, got.Batch) {
			t.Fatalf("a second time: %v", err)
		}
	})
}

// FuzzBuild wants the records back that went in.
func FuzzBuild(f *testing.F) {
	f.Add(int8(None), int64(0), []byte("key"), []byte("value"), "name", []byte("more"))
	f.Add(int8(Snappy), int64(-1), []byte{}, []byte{0xff}, "", []byte{})
	f.Add(int8(Zstd), int64(1<<62), []byte("k"), bytes.Repeat([]byte("x"), 70000), "n", []byte("v"))
	f.Fuzz(func(t *testing.T, codec int8, timestamp int64, key, value []byte, name string, headerValue []byte) {
		if !Codec(codec).Known() {
			return
		}
		b := NewBuilder(BuilderOptions{Compression: Compression{Codec: Codec(codec)}})
		headers := []RecordHeader{{name, headerValue}, {name, nil}}
		b.Append(timestamp, key, value, headers)
		b.Append(timestamp-1, nil, key, nil)
		raw, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		h, err := Check(raw)
		if err != nil {
			t.Fatal(err)
		}
		i := 0
		for r, err := range Records(raw, 0) {
			if err != nil {
				t.Fatal(err)
			}
			if r.OffsetDelta != int32(i) || h.Timestamp(&r) != timestamp-int64(i) {
				t.Fatalf("record %d: %+v", i, r)
			}
			if i == 0 && !(bytes.Equal(r.Key, key) && bytes.Equal(r.Value, value) && len(r.Headers) == 2 &&
				r.Headers[0].Key == name && bytes.Equal(r.Headers[0].Value, headerValue) && r.Headers[1].Value == nil) {
				t.Fatalf("first: %+v", r)
			}
			if i == 1 && !(r.Key == nil && bytes.Equal(r.Value, key) && len(r.Headers) == 0) {
				t.Fatalf("second: %+v", r)
			}
			i++
		}
		if i != 2 {
			t.Fatalf("%d records", i)
		}
	})
}
