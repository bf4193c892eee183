package batch

import (
	"bytes"
	"errors"
	"math"
	"testing"
)

func TestReadHeaderAndCheck(t *testing.T) {
	cases := []struct {
		name        string
		damage      func(b []byte) []byte
		read, check error
	}{
		{"good", func(b []byte) []byte { return b }, nil, nil},
		{"more behind", func(b []byte) []byte { return append(b, 1, 2, 3) }, nil, nil},
		{"nothing", func([]byte) []byte { return nil }, ErrTruncated, ErrTruncated},
		{"up to the magic", func(b []byte) []byte { return b[:16] }, ErrTruncated, ErrTruncated},
		{"half a header", func(b []byte) []byte { return b[:60] }, ErrTruncated, ErrTruncated},
		{"header only", func(b []byte) []byte { return b[:61] }, nil, ErrTruncated},
		{"a byte short", func(b []byte) []byte { return b[:len(b)-1] }, nil, ErrTruncated},
		{"magic 1", func(b []byte) []byte { b[posMagic] = 1; return b }, ErrCorrupt, ErrCorrupt},
		{"zeros", func(b []byte) []byte { return make([]byte, len(b)) }, ErrCorrupt, ErrCorrupt},
		{"length less than a header", func(b []byte) []byte { i32(b, posLength, 48); return b }, ErrCorrupt, ErrCorrupt},
		{"negative length", func(b []byte) []byte { i32(b, posLength, math.MinInt32); return b }, ErrCorrupt, ErrCorrupt},
		{"length that overflows", func(b []byte) []byte { i32(b, posLength, math.MaxInt32); return b }, ErrCorrupt, ErrCorrupt},
		{"length too large", func(b []byte) []byte { i32(b, posLength, 1<<20); return b }, nil, ErrTruncated},
		{"negative count", func(b []byte) []byte { i32(b, posRecordCount, -1); return b }, ErrCorrupt, ErrCorrupt},
		{"negative last offset delta", func(b []byte) []byte { i32(b, posLastOffsetDelta, -1); return b }, ErrCorrupt, ErrCorrupt},
		{"a flipped bit", func(b []byte) []byte { b[70] ^= 4; return b }, nil, ErrCorrupt},
		{"a flipped bit of the CRC", func(b []byte) []byte { b[posCRC] ^= 4; return b }, nil, ErrCorrupt},
		{"offset and epoch set", func(b []byte) []byte { PutBaseOffset(b, 1<<40); PutLeaderEpoch(b, 7); return b }, nil, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := c.damage(produced(None))
			if _, err := ReadHeader(b); !errors.Is(err, c.read) || (err == nil) != (c.read == nil) {
				t.Errorf("read: %v, want %v", err, c.read)
			}
			if _, err := Check(b); !errors.Is(err, c.check) || (err == nil) != (c.check == nil) {
				t.Errorf("check: %v, want %v", err, c.check)
			}
		})
	}
}

// A wrong bit anywhere in what the CRC covers must be seen.
func TestCheckSeesEveryBit(t *testing.T) {
	good := produced(None)
	for i := posAttributes; i < len(good); i++ {
		for bit := range 8 {
			b := bytes.Clone(good)
			b[i] ^= 1 << bit
			if _, err := Check(b); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("byte %d bit %d: %v", i, bit, err)
			}
		}
	}
}

func TestHeaderFields(t *testing.T) {
	h := Header{BaseOffset: 1, Length: 2, PartitionLeaderEpoch: 3, Magic: 4, CRC: 5, Attributes: 6, LastOffsetDelta: 7,
		BaseTimestamp: 8, MaxTimestamp: 9, ProducerID: 10, ProducerEpoch: 11, BaseSequence: 12, RecordCount: 13}
	b := make([]byte, HeaderSize)
	PutHeader(b, h)
	want := []byte{0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 4, 0, 0, 0, 5, 0, 6, 0, 0, 0, 7,
		0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 10, 0, 11, 0, 0, 0, 12, 0, 0, 0, 13}
	if !bytes.Equal(b, want) {
		t.Errorf("wrote %x", b)
	}
	if got := decodeHeader(b); got != h {
		t.Errorf("read %+v", got)
	}
}

func TestSequencesWrap(t *testing.T) {
	const top = math.MaxInt32
	for _, c := range []struct{ from, n, to int32 }{
		{0, 0, 0}, {5, 3, 8}, {top, 0, top}, {top, 1, 0}, {top - 1, 3, 1}, {0, top, top}, {1, top, 0}, {top, top, top - 1},
	} {
		if got := AddSequence(c.from, c.n); got != c.to {
			t.Errorf("%d + %d is %d, want %d", c.from, c.n, got, c.to)
		}
		if got := SubtractSequence(c.to, c.n); got != c.from {
			t.Errorf("%d - %d is %d, want %d", c.to, c.n, got, c.from)
		}
	}
}

func TestAll(t *testing.T) {
	one, two := produced(None), produced(Gzip)
	run := append(bytes.Clone(one), two...)
	cases := []struct {
		name string
		b    []byte
		want int
		err  error
	}{
		{"none", nil, 0, nil},
		{"two", run, 2, nil},
		{"one and a half", run[:len(run)-5], 1, ErrTruncated},
		{"one and a little", run[:len(one)+10], 1, ErrTruncated},
		{"one and zeros", append(bytes.Clone(one), make([]byte, 100)...), 1, ErrCorrupt},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			n := 0
			var last error
			for b, err := range All(c.b) {
				if last = err; err != nil {
					continue
				}
				n++
				if _, err := Check(b); err != nil {
					t.Error(err)
				}
			}
			if n != c.want || !errors.Is(last, c.err) || (last == nil) != (c.err == nil) {
				t.Errorf("%d batches, %v", n, last)
			}
		})
	}
}
