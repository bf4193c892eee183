package segment

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/millrace/millrace/segment/batch"
)

// Old records are read past the page cache and ahead of who reads on: by several readers at once, in pieces of any
// size, by some who give up, while segments are removed; each gets what was written, and memory keeps to its bound.
func TestReadAheadGivesWhatWasWritten(t *testing.T) {
	d := openDir(t, newMem(t), straightOnly, func(o *DirOptions) { o.TailBytes = 1 })
	defer d.close(t)
	const logs, batches = 12, 12
	cfg := DefaultLogConfig()
	cfg.SegmentBytes = 2 << 20
	all := make([]*Log, logs)
	for i := range all {
		all[i] = d.open(t, fmt.Sprint("old", i), 0, cfg)
		for n := range batches {
			all[i].mustAppend(t, makeBatch(t, 1, fmt.Sprintf("%d/%d/%s", i, n, strings.Repeat("x", 300<<10)), 1))
		}
	}
	var readers sync.WaitGroup
	for r := range 3 * logs {
		readers.Go(func() {
			random := rand.New(rand.NewPCG(uint64(r), 1))
			i := r % logs
			for from := int64(0); from < batches; {
				if r >= 2*logs && from > 3 {
					return // gives up: what was read ahead for it is nobody's
				}
				b, err := all[i].Read(nil, from, batches, 1+random.IntN(2<<20), true)
				if err != nil {
					t.Errorf("log %d at %d: %v", i, from, err)
					return
				}
				for one, err := range batch.All(b) {
					if err != nil {
						t.Error(err)
						return
					}
					h, err := batch.Check(one)
					if err != nil || h.BaseOffset != from {
						t.Errorf("log %d at %d: batch of offset %d, %v", i, from, h.BaseOffset, err)
						return
					}
					for rec, err := range batch.Records(one, 1<<20) {
						if want := fmt.Sprintf("%d/%d/x", i, from); err != nil || !strings.HasPrefix(string(rec.Value), want) {
							t.Errorf("log %d at %d: %.10s, %v", i, from, rec.Value, err)
						}
					}
					from = h.NextOffset()
				}
			}
		})
	}
	readers.Wait()
	if n := d.scratchMade.Load(); n == 0 || n > scratches {
		t.Errorf("%d buffers for reads past the page cache", n)
	}
}

// What was read ahead and taken out for a moment is not put back once its slot is another's: nobody would ever
// take its memory from it.
func TestReadAheadWithoutASlotGivesWay(t *testing.T) {
	d := openDir(t, newMem(t))
	defer d.close(t)
	s := newSegmentFile("old", 0)
	closed := make(chan struct{})
	close(closed)
	a := &ahead{segment: s, end: scratchBytes, buf: d.scratch(), n: scratchBytes, done: closed}
	d.aheadSlots[0] = a
	s.ahead.Store(a)
	p := make([]byte, 100)
	if n := d.takeAhead(s, p, 0); n != len(p) || s.ahead.Load() != a {
		t.Fatalf("%d bytes, and what is left was not put back", n)
	}
	d.aheadSlots[0] = nil // given to another meanwhile
	if n := d.takeAhead(s, p, 100); n != len(p) || s.ahead.Load() != nil || len(d.scratchFree) != 1 {
		t.Errorf("%d bytes; %d buffers came back", n, len(d.scratchFree))
	}
}
