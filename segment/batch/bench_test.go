package batch

import (
	"fmt"
	"testing"
)

// load is a batch of a usual size: records of the given value size up to about 100 KiB.
func load(codec Codec, valueSize int) []byte {
	b := NewBuilder(BuilderOptions{LeaderEpoch: -1, Compression: Compression{Codec: codec}})
	value := make([]byte, valueSize)
	for i := range value {
		value[i] = byte(i*i>>3) & 0x3f
	}
	for i := 0; b.Size() < 100<<10; i++ {
		b.Append(1_800_000_000_000+int64(i), fmt.Append(nil, "key-", i), value, nil)
	}
	return mustBuild(b)
}

func BenchmarkCheck(b *testing.B) {
	raw := load(None, 1024)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Check(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAdmit(b *testing.B) {
	for codec := None; codec <= Zstd; codec++ {
		for _, size := range []int{64, 256, 1024} {
			b.Run(fmt.Sprintf("%v/%d", codec, size), func(b *testing.B) {
				raw := load(codec, size)
				rules := baseRules()
				b.SetBytes(int64(len(raw)))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := Admit(raw, rules); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkReencode(b *testing.B) {
	for codec := None; codec <= Zstd; codec++ {
		b.Run(codec.String(), func(b *testing.B) {
			source := None
			if codec == None {
				source = LZ4
			}
			raw := load(source, 256)
			rules := baseRules()
			rules.Compression = Compression{Codec: codec}
			b.SetBytes(100 << 10)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Admit(raw, rules); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRecords(b *testing.B) {
	for _, codec := range []Codec{None, LZ4} {
		b.Run(codec.String(), func(b *testing.B) {
			raw := load(codec, 256)
			b.SetBytes(100 << 10)
			b.ReportAllocs()
			for b.Loop() {
				for _, err := range Records(raw, 0) {
					if err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

func BenchmarkBuild(b *testing.B) {
	builder := NewBuilder(BuilderOptions{})
	value := make([]byte, 256)
	b.SetBytes(100 * 256)
	b.ReportAllocs()
	for b.Loop() {
		builder.Reset()
		for i := range 100 {
			builder.Append(int64(i), nil, value, nil)
		}
		if _, err := builder.Build(); err != nil {
			b.Fatal(err)
		}
	}
}
