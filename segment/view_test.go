package segment

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/millrace/millrace/segment/batch"
)

// oldBatches makes a log of batches of about these sizes, one record each, that are in
// the file alone.
func oldBatches(t *testing.T, d *testDir, sizes ...int) (l *Log, batches [][]byte) {
	t.Helper()
	l = d.open(t, "old", 0, DefaultLogConfig())
	for i, size := range sizes {
		b := makeBatch(t, 1, fmt.Sprint(i, strings.Repeat("x", size)), 1)
		l.mustAppend(t, b)
		batches = append(batches, b)
	}
	d.flush(t) // the tail is emptied behind the round
	if len(l.active().tailChunks()) > 0 {
		t.Fatal("the tail is not empty")
	}
	return l, batches
}

// untailed keeps nothing in memory.
func untailed(o *DirOptions) { o.DirectBytes, o.TailBytes = 1, 1 }

// What is read ahead may be short, when the batch behind it is large: then it has no buffer of the pool.
func TestLittleIsReadAhead(t *testing.T) {
	d := openDir(t, newMem(t), untailed)
	defer d.close(t)
	l, batches := oldBatches(t, d, 100<<10, 10<<10, 1500<<10)
	for i, want := range batches {
		got, err := l.Read(nil, int64(i), 3, len(want), true)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("at %d: %d bytes, %v; want %d", i, len(got), err, len(want))
		}
	}
}

// Readers that go through a segment together take what was read ahead from each other,
// and each gets what it has asked for: not what lies behind it, since another was faster.
func TestReadersTogetherMissNothing(t *testing.T) {
	d := openDir(t, newMem(t), untailed)
	defer d.close(t)
	sizes := make([]int, 60)
	for i := range sizes {
		sizes[i] = 30 << 10
	}
	l, _ := oldBatches(t, d, sizes...)
	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			for range 10 {
				for from := int64(0); from < int64(len(sizes)); {
					b, err := l.Read(nil, from, int64(len(sizes)), 1, true)
					h, herr := batch.Check(b)
					if err != nil || herr != nil || h.BaseOffset != from {
						t.Errorf("at %d: batch of offset %d, %v, %v", from, h.BaseOffset, err, herr)
						return
					}
					from = h.NextOffset()
				}
			}
		})
	}
	readers.Wait()
}

// Whoever has looked at what was read ahead, and takes it, finds what it was: also when
// somebody has taken some of it and put the rest back in between.
func TestWhatWasReadAheadIsPutBackAsSomethingElse(t *testing.T) {
	d := openDir(t, newMem(t), untailed)
	defer d.close(t)
	l, batches := oldBatches(t, d, 100<<10, 100<<10, 100<<10, 100<<10)
	read := func(from int64) {
		t.Helper()
		if b, err := l.Read(nil, from, 4, 1, true); err != nil || !bytes.Equal(b, batches[from]) {
			t.Fatalf("at %d: %d bytes, %v", from, len(b), err)
		}
	}
	read(0)
	seen := l.active().ahead.Load()
	if seen == nil || seen.offset != 1 {
		t.Fatal("nothing was read ahead")
	}
	read(1)
	if rest := l.active().ahead.Load(); rest == nil || rest == seen || rest.offset != 2 || seen.offset != 1 {
		t.Errorf("what was seen is for offset %d now; put back as the same: %v", seen.offset, rest == seen)
	}
	read(2)
}
