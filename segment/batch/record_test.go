package batch

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// What Kafka's console producer has written with each codec is forty lines of a song, with keys and headers.
func TestReadKafkasOwnBatches(t *testing.T) {
	for codec := None; codec <= Zstd; codec++ {
		t.Run(codec.String(), func(t *testing.T) {
			log, err := os.ReadFile(filepath.Join("../../testdata/batches", codec.String()+".log"))
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for b, err := range All(log) {
				if err != nil {
					t.Fatal(err)
				}
				h, err := Check(b)
				if err != nil {
					t.Fatal(err)
				}
				if h.Codec() != codec || h.BaseOffset != int64(n) || !h.HasProducerID() || h.LastSequence() != int32(h.LastOffset()) {
					t.Fatalf("header %+v", h)
				}
				for r, err := range Records(b, 0) {
					if err != nil {
						t.Fatal(err)
					}
					got := fmt.Sprintf("%d %s %s %q", h.Offset(&r), r.Key, r.Value, r.Headers)
					want := fmt.Sprintf("%d key-%d the mill turns while the water runs, line %d of the song %q", n, n%7, n,
						[]RecordHeader{{"h1", []byte("a")}, {"h2", fmt.Append(nil, n)}})
					if got != want {
						t.Fatalf("got  %s\nwant %s", got, want)
					}
					n++
				}
				// A client would have sent it with offset 0; it must be admitted as it is.
				sent := bytes.Clone(b)
				PutBaseOffset(sent, 0)
				rules := baseRules()
				rules.TimestampAfterMaxMs = 1 << 60
				got, err := Admit(bytes.Clone(sent), rules)
				if err != nil || !bytes.Equal(got.Batch, sent) {
					t.Fatalf("admitted %+v, %v", got.Header, err)
				}
			}
			if n != 40 {
				t.Fatalf("%d records", n)
			}
		})
	}
}

// Codecs must agree with franz-go's, which is the other client at hand.
func TestCodecsAgreeWithFranz(t *testing.T) {
	codecs := map[Codec]kgo.CompressionCodec{Gzip: kgo.GzipCompression(), Snappy: kgo.SnappyCompression(), LZ4: kgo.Lz4Compression(), Zstd: kgo.ZstdCompression()}
	for codec, theirs := range codecs {
		for name, text := range sampleTexts() {
			if len(text) == 0 {
				continue // no batch is without records, and franz-go reads no empty snappy stream
			}
			t.Run(codec.String()+" "+name, func(t *testing.T) {
				compressor, err := kgo.DefaultCompressor(theirs)
				if err != nil {
					t.Fatal(err)
				}
				packed, kind := compressor.Compress(new(bytes.Buffer), text)
				back, err := Decompress(Codec(kind), packed, int64(len(text)))
				if err != nil || !bytes.Equal(back, text) {
					t.Fatalf("theirs: %d bytes, %v", len(back), err)
				}
				packed, err = Compress(Compression{Codec: codec}, text)
				if err != nil {
					t.Fatal(err)
				}
				back, err = kgo.DefaultDecompressor().Decompress(packed, kgo.CompressionCodecType(codec))
				if err != nil || !bytes.Equal(back, text) {
					t.Fatalf("ours: %d bytes, %v", len(back), err)
				}
			})
		}
	}
}

func TestBuilder(t *testing.T) {
	for codec := None; codec <= Zstd; codec++ {
		t.Run(codec.String(), func(t *testing.T) {
			b := NewBuilder(BuilderOptions{
				Compression: Compression{Codec: codec}, BaseOffset: 100, LeaderEpoch: 4,
				Idempotent: true, ProducerID: 9, ProducerEpoch: 2, BaseSequence: 77, Transactional: true,
			})
			for range 2 { // the second time after Reset
				b.Append(50, []byte("k"), nil, nil)
				b.AppendAt(5, 40, nil, []byte("v"), []RecordHeader{{"a", nil}})
				raw, err := b.Build()
				if err != nil {
					t.Fatal(err)
				}
				h, err := Check(raw)
				if err != nil {
					t.Fatal(err)
				}
				want := Header{BaseOffset: 100, Length: h.Length, PartitionLeaderEpoch: 4, Magic: 2, CRC: h.CRC,
					Attributes: int16(codec) | transactionalFlag, LastOffsetDelta: 5, BaseTimestamp: 50, MaxTimestamp: 50,
					ProducerID: 9, ProducerEpoch: 2, BaseSequence: 77, RecordCount: 2}
				if h != want || h.Size() != len(raw) || b.Len() != 2 {
					t.Fatalf("got %+v, want %+v", h, want)
				}
				if codec == None && b.Size() != len(raw) {
					t.Errorf("Size %d, built %d", b.Size(), len(raw))
				}
				got := consumed(t, raw)
				if want := "delta 0 timestamp 50 key \"k\" null false value \"\" null true headers []\n" +
					"delta 5 timestamp 40 key \"\" null true value \"v\" null false headers [{\"a\" \"\"}]\n"; got != want {
					t.Fatalf("records\n%s", got)
				}
				b.Reset()
			}
			if _, err := b.Build(); !errors.Is(err, ErrInvalidRecord) {
				t.Errorf("an empty batch: %v", err)
			}
		})
	}
}

// times is a batch of records with these timestamps, from offset 10.
func times(logAppendTime bool, codec Codec, timestamps ...int64) []byte {
	b := NewBuilder(BuilderOptions{BaseOffset: 10, Compression: Compression{Codec: codec}, LogAppendTime: logAppendTime, AppendTime: 500})
	for _, ts := range timestamps {
		b.Append(ts, nil, nil, nil)
	}
	return mustBuild(b)
}

func TestOffsetOfTimestamp(t *testing.T) {
	for _, codec := range []Codec{None, Zstd} {
		b := times(false, codec, 100, 300, 200, 300)
		appended := times(true, codec, 100, 200)
		cases := []struct {
			name       string
			b          []byte
			ts, from   int64
			offset, at int64 // offset -1: not found
		}{
			{"before all", b, 0, 0, 10, 100},
			{"the first itself", b, 100, 0, 10, 100},
			{"between", b, 101, 0, 11, 300},
			{"out of order", b, 200, 12, 12, 200},
			{"from further on", b, 201, 12, 13, 300},
			{"behind all", b, 301, 0, -1, 0},
			{"from behind the batch", b, 0, 14, -1, 0},
			{"log append time", appended, 400, 0, 10, 500},
			{"log append time from further on", appended, 500, 11, 11, 500},
			{"behind log append time", appended, 501, 0, -1, 0},
		}
		for _, c := range cases {
			t.Run(codec.String()+" "+c.name, func(t *testing.T) {
				offset, at, found, err := OffsetOfTimestamp(c.b, c.ts, c.from, 0)
				if err != nil || found != (c.offset >= 0) || found && (offset != c.offset || at != c.at) {
					t.Errorf("got %d %d %v %v", offset, at, found, err)
				}
			})
		}
	}
}

func TestOffsetOfMaxTimestamp(t *testing.T) {
	cases := []struct {
		name       string
		b          []byte
		offset, at int64
	}{
		{"the first of two", times(false, None, 100, 300, 200, 300), 11, 300},
		{"compressed", times(false, LZ4, 100, 200, 300), 12, 300},
		{"log append time", times(true, None, 100, 300), 10, 500},
		{"no timestamps", times(false, None, -1, -1), -1, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			offset, at, found, err := OffsetOfMaxTimestamp(c.b, 0)
			if err != nil || found != (c.offset >= 0) || found && (offset != c.offset || at != c.at) {
				t.Errorf("got %d %d %v %v", offset, at, found, err)
			}
		})
	}
}

func TestRecordsCanBeLeftEarly(t *testing.T) {
	for codec := None; codec <= Zstd; codec++ {
		for range 3 {
			for r, err := range Records(produced(codec), 0) {
				if err != nil || string(r.Key) != "k0" {
					t.Fatalf("%v: %+v, %v", codec, r, err)
				}
				break
			}
		}
	}
}

func TestRecordsOfABomb(t *testing.T) {
	b := NewBuilder(BuilderOptions{Compression: Compression{Codec: Zstd}})
	b.Append(1, nil, make([]byte, 8<<20), nil)
	var last error
	for _, err := range Records(mustBuild(b), 1<<20) {
		last = err
	}
	if !errors.Is(last, ErrTooManyBytes) {
		t.Fatal(last)
	}
}
