package batch

import (
	"hash/crc32"
	"math/rand/v2"
	"testing"
)

func TestJoinSums(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		b := make([]byte, random.IntN(1<<uint(random.IntN(17)))+1)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		cut := random.IntN(len(b) + 1)
		got := joinSums(crc32.Checksum(b[:cut], castagnoli), crc32.Checksum(b[cut:], castagnoli), int64(len(b)-cut))
		if want := crc32.Checksum(b, castagnoli); got != want {
			t.Fatalf("%d and %d bytes: joined %08x, want %08x", cut, len(b)-cut, got, want)
		}
	}
}

func BenchmarkJoinSums(b *testing.B) {
	sum := uint32(1)
	for range b.N {
		sum = joinSums(sum, 0x12345678, 1<<20-61)
	}
}
