package segment

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// The dull twin of Read and BytesFrom: a list of all batches in the order of the log. Whatever is asked, an answer begins
// with the batch that holds the offset, or is empty: a consumer takes what comes as what follows.
func TestReadAndBytesFromAgreeWithAListOfBatches(t *testing.T) {
	d := openDir(t, newMem(t))
	defer d.close(t)
	l := d.open(t, "orders", 0, smallSegments())
	random := rand.New(rand.NewPCG(1, 0))
	var twins []twin
	for i := range 40 {
		b := makeBatch(t, 1+random.IntN(12), fmt.Sprintf("%0*d", 1+random.IntN(30), i), int64(i))
		r := l.mustAppend(t, b)
		twins = append(twins, twin{base: r.BaseOffset, next: r.LastOffset + 1, bytes: string(b)})
	}
	end := l.LogEndOffset()
	if n := len(*l.segments.Load()); n < 10 {
		t.Fatalf("only %d segments", n)
	}
	for from := range end + 1 {
		for range 200 {
			limit := from + random.Int64N(end-from+1)
			maxBytes, oneAtLeast := random.IntN(2000), random.IntN(2) == 0
			got, err := l.Read(nil, from, limit, maxBytes, oneAtLeast)
			if err != nil {
				t.Fatal(err)
			}
			if why := judge(twins, got, from, limit, maxBytes, oneAtLeast); why != "" {
				t.Fatalf("read from %d below %d, at most %d bytes (one at least: %v): %d bytes, %s", from, limit, maxBytes, oneAtLeast, len(got), why)
			}
			n, err := l.BytesFrom(from, limit)
			if want := sizeBetween(twins, from, limit); err != nil || n != want {
				t.Fatalf("bytes from %d below %d: %d, %v; want %d", from, limit, n, err, want)
			}
		}
	}
}

// twin is a batch of the list.
type twin struct {
	base, next int64
	bytes      string
}

// judge says what is wrong with an answer of Read.
func judge(twins []twin, got []byte, from, limit int64, maxBytes int, oneAtLeast bool) string {
	n := 0
	for _, b := range twins {
		if b.next <= from {
			continue
		}
		fits := b.next <= limit && (n+len(b.bytes) <= maxBytes || n == 0 && oneAtLeast)
		switch {
		case n == len(got) && n == 0 && fits:
			return "although a batch fits"
		case n == len(got):
			return ""
		case n+len(b.bytes) > len(got) || string(got[n:n+len(b.bytes)]) != b.bytes:
			return fmt.Sprintf("which do not go on with the batch of offset %d", b.base)
		case !fits:
			return "although no further batch fits"
		}
		n += len(b.bytes)
	}
	if n < len(got) {
		return "more than there are"
	}
	return ""
}

// sizeBetween adds up the batches from the one that holds from, up to the one that holds limit.
func sizeBetween(twins []twin, from, limit int64) (n int64) {
	for _, b := range twins {
		if b.next > from && b.next <= limit {
			n += int64(len(b.bytes))
		}
	}
	return n
}
