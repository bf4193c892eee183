package batch

import "sync"

// ExtendSum goes on with the CRC-32C of a whole file of batches over one more: prefix is its
// first ChecksumFrom bytes, and what follows them is known by its own CRC. It takes about
// a tenth of a microsecond, whatever the size of the batch.
func ExtendSum(sum uint32, prefix []byte, h Header) uint32 {
	return joinSums(Checksum(sum, prefix[:ChecksumFrom]), h.CRC, int64(h.Size()-ChecksumFrom))
}

// joinSums gives the CRC-32C of two pieces that lie back to back, from those of each and the
// length of the second. A CRC is the remainder of the bytes as a polynomial over GF(2); n further
// bytes multiply the first one's by x^8n. (Mark Adler describes it in zlib's crc32_combine.)
func joinSums(first, second uint32, n int64) uint32 {
	t := shifts()
	first = multiply(t.few[n%shiftTable], first)
	if n /= shiftTable; n > 0 {
		first = multiply(t.many[n%shiftTable], first)
	}
	n /= shiftTable
	for k := 3 + 2*shiftBits; n > 0; k, n = k+1, n>>1 { // x^8 = x^(2^3)
		if n&1 == 1 {
			first = multiply(xPowers[k], first)
		}
	}
	return first ^ second
}

const (
	shiftBits  = 11
	shiftTable = 1 << shiftBits
)

// shifts holds x^8n for small n, and for n times shiftTable: nearly every batch is joined with two multiplications.
var shifts = sync.OnceValue(func() *struct{ few, many [shiftTable]uint32 } {
	t := new(struct{ few, many [shiftTable]uint32 })
	t.few[0], t.many[0] = 1<<31, 1<<31 // x^0
	for n := 1; n < shiftTable; n++ {
		t.few[n] = multiply(xPowers[3], t.few[n-1])
		t.many[n] = multiply(xPowers[3+shiftBits], t.many[n-1])
	}
	return t
})

// Polynomials are written as CRC-32C writes them: the highest bit is x^0.
const (
	polynomial = 0x82f63b78
	xToThe1    = 1 << 30
)

// xPowers[k] is x^(2^k).
var xPowers = func() (powers [3 + 63]uint32) {
	powers[0] = xToThe1
	for k := 1; k < len(powers); k++ {
		powers[k] = multiply(powers[k-1], powers[k-1])
	}
	return powers
}()

// multiply gives a·b modulo the polynomial.
func multiply(a, b uint32) (product uint32) {
	for ; a != 0; a <<= 1 {
		product ^= b & -(a >> 31)
		b = b>>1 ^ polynomial&-(b&1)
	}
	return product
}
