package batch

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
)

// sampleTexts are inputs that take different paths through a compressor.
func sampleTexts() map[string][]byte {
	noise := make([]byte, 200<<10)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	return map[string][]byte{
		"empty":      {},
		"one byte":   {7},
		"text":       bytes.Repeat([]byte("the mill turns while the water runs. "), 9000),
		"noise":      noise,
		"zeros":      make([]byte, 1<<20),
		"block edge": bytes.Repeat([]byte{1, 2, 3, 4}, xerialBlockSize/4),
	}
}

func TestCompressThenDecompress(t *testing.T) {
	compressions := []Compression{{}, {Codec: Snappy}}
	for _, level := range []int{0, -1, 1, 6, 9} {
		compressions = append(compressions, Compression{Gzip, level})
	}
	for _, level := range []int{0, 1, 9, 17} {
		compressions = append(compressions, Compression{LZ4, level})
	}
	for _, level := range []int{0, -131072, 1, 3, 12, 22} {
		compressions = append(compressions, Compression{Zstd, level})
	}
	for _, c := range compressions {
		for name, text := range sampleTexts() {
			t.Run(fmt.Sprintf("%v level %d %s", c.Codec, c.Level, name), func(t *testing.T) {
				for range 2 { // the second time with what the first one has left in the pools
					packed, err := Compress(c, text)
					if err != nil {
						t.Fatal(err)
					}
					back, err := Decompress(c.Codec, packed, int64(len(text)))
					if err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(back, text) {
						t.Fatalf("%d bytes came back as %d", len(text), len(back))
					}
				}
			})
		}
	}
}

func TestDecompressRefusesMoreThanTheBound(t *testing.T) {
	text := bytes.Repeat([]byte("a bomb "), 100000)
	for codec := None; codec <= Zstd; codec++ {
		t.Run(codec.String(), func(t *testing.T) {
			packed, err := Compress(Compression{Codec: codec}, text)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Decompress(codec, packed, int64(len(text)-1)); !errors.Is(err, ErrTooManyBytes) {
				t.Fatalf("one byte over the bound: %v", err)
			}
		})
	}
}

func TestDecompressTruncated(t *testing.T) {
	text := sampleTexts()["text"]
	for codec := Gzip; codec <= Zstd; codec++ {
		packed, err := Compress(Compression{Codec: codec}, text)
		if err != nil {
			t.Fatal(err)
		}
		for _, cut := range []int{1, 5, len(packed) / 2, len(packed) - 1} {
			t.Run(fmt.Sprintf("%v at %d", codec, cut), func(t *testing.T) {
				if back, err := Decompress(codec, packed[:cut], 1<<30); err == nil {
					t.Fatalf("%d of %d bytes gave %d bytes and no error", cut, len(packed), len(back))
				} else if !errors.Is(err, ErrDecompression) {
					t.Fatal(err)
				}
			})
		}
	}
}

func TestDecompressUnknownCodec(t *testing.T) {
	for _, codec := range []Codec{5, 6, 7, -1} {
		if _, err := Decompress(codec, []byte{1}, 1); !errors.Is(err, ErrUnknownCodec) {
			t.Errorf("%v: %v", codec, err)
		}
	}
}

func TestSnappyForms(t *testing.T) {
	text := sampleTexts()["text"]
	xerial, err := Compress(Compression{Codec: Snappy}, text)
	if err != nil {
		t.Fatal(err)
	}
	lies := []byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0} // announces 4 GiB
	framed := append(append([]byte{}, xerial[:xerialHeaderSize]...), 0, 0, 0, byte(len(lies)))
	cases := []struct {
		name string
		src  []byte
		want []byte // nil for an error
	}{
		{"one raw block", snappy.Encode(nil, text), text},
		{"xerial", xerial, text},
		{"two xerial streams joined", append(append([]byte{}, xerial...), xerial...), append(append([]byte{}, text...), text...)},
		{"xerial header alone", xerial[:xerialHeaderSize], []byte{}},
		{"raw block that announces too much", lies, nil},
		{"raw block that announces a little too much", []byte{0xff, 0xff, 0x3f, 0}, nil},
		{"xerial block that announces too much", append(framed, lies...), nil},
		{"xerial block longer than the stream", append(append([]byte{}, xerial[:xerialHeaderSize]...), 0xff, 0xff, 0xff, 0xff), nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := Decompress(Snappy, c.src, 1<<30)
			if c.want == nil {
				if !errors.Is(err, ErrDecompression) {
					t.Fatalf("got %d bytes, %v", len(got), err)
				}
				return
			}
			if err != nil || !bytes.Equal(got, c.want) {
				t.Fatalf("got %d bytes, %v", len(got), err)
			}
		})
	}
}

// A frame may announce any window, and a small one may grow to gigabytes: neither must cost more than the bound.
func TestBombsCostBoundedMemory(t *testing.T) {
	bomb := func(codec Codec) []byte {
		var out bytes.Buffer
		w, err := openEncoder(Compression{Codec: codec}, &out)
		if err != nil {
			t.Fatal(err)
		}
		zeros := make([]byte, 1<<20)
		for range 64 {
			if _, err := w.Write(zeros); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	for codec := Gzip; codec <= Zstd; codec++ {
		t.Run(codec.String(), func(t *testing.T) {
			src := bomb(codec)
			scratch := make([]byte, 64<<10)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			d, err := openDecoder(codec, src, 48<<20)
			if err != nil {
				t.Fatal(err)
			}
			for err == nil {
				_, err = d.Read(scratch)
			}
			d.close()
			runtime.ReadMemStats(&after)
			if !errors.Is(err, ErrTooManyBytes) {
				t.Fatal(err)
			}
			if used := after.TotalAlloc - before.TotalAlloc; used > 24<<20 {
				t.Errorf("decoding 48 MiB from %d KiB allocated %d MiB", len(src)>>10, used>>20)
			}
		})
	}
}

func TestLargeZstdWindow(t *testing.T) {
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out, zstd.WithWindowSize(64<<20), zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	text := sampleTexts()["text"]
	for _, part := range [][]byte{text[:100], text[100:]} {
		if _, err := w.Write(part); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if !zstdNeedsLargeWindow(out.Bytes()) {
		t.Fatal("the frame does not announce a large window")
	}
	back, err := Decompress(Zstd, out.Bytes(), 1<<30)
	if err != nil || !bytes.Equal(back, text) {
		t.Fatalf("%d bytes, %v", len(back), err)
	}
	out.Bytes()[5] = 0xff // 3.75 TiB
	if _, err := Decompress(Zstd, out.Bytes(), 1<<30); !errors.Is(err, ErrDecompression) {
		t.Fatal(err)
	}
}

func FuzzDecompress(f *testing.F) {
	text := []byte("the mill turns while the water runs, the mill turns")
	for codec := None; codec <= Zstd; codec++ {
		packed, err := Compress(Compression{Codec: codec}, text)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(int8(codec), packed)
	}
	f.Add(int8(Snappy), snappy.Encode(nil, text))
	f.Fuzz(func(t *testing.T, codec int8, src []byte) {
		const bound = 1 << 20
		out, err := Decompress(Codec(codec), src, bound)
		if len(out) > bound {
			t.Fatalf("%d bytes in spite of the bound", len(out))
		}
		if err != nil && !errors.Is(err, ErrDecompression) && !errors.Is(err, ErrTooManyBytes) && !errors.Is(err, ErrUnknownCodec) {
			t.Fatalf("an error of the library came through: %v", err)
		}
	})
}
