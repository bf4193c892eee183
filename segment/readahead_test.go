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
	if n := d.readBuffers.bytes; n == 0 || n > readBuffersKept {
		t.Errorf("%d bytes of buffers are kept", n)
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
	b := makeBatch(t, 1, strings.Repeat("x", 1000), 1)
	both := append(b[:len(b):len(b)], b...)
	batch.PutBaseOffset(both[len(b):], 1)
	old := old{buf: d.readBuffers.get(oldBytes)}
	old.data = old.buf.mem[:copy(old.buf.mem, both)]
	a := &ahead{log: d.open(t, "old", 0, DefaultLogConfig()), segment: s, done: closed, got: old}
	d.aheadSlots[0] = a
	s.ahead.Store(a)
	var v View
	want := appetite{limit: 2, most: len(b)}
	if n := a.log.viewAhead(a.log.takeAhead(s, 0), &v, want); n != len(b) || s.ahead.Load() == nil || s.ahead.Load() != d.aheadSlots[0] {
		t.Fatalf("%d bytes, and what is left was not put back", n)
	}
	a = s.ahead.Load()
	a.got.data = both // as if there were more
	a.offset = 0
	d.aheadSlots[0] = nil // given to another meanwhile
	if n := a.log.viewAhead(a.log.takeAhead(s, 0), &v, want); n != len(b) || s.ahead.Load() != nil {
		t.Errorf("%d bytes, put back without a slot", n)
	}
	v.Release()
	if d.readBuffers.bytes == 0 {
		t.Error("the buffer did not come back")
	}
}
