package segment

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/millrace/millrace/segment/vfs"
)

// A log of which little is there takes a block of memory, not a chunk, and its flush as little.
func TestLittleOfManyLogsTakesLittleMemory(t *testing.T) {
	const logs = 300
	d := openDir(t, newMem(t), byJournal)
	defer d.close(t)
	d.openLogs(t, logs)
	if used := d.Stats().TailBytes; used != logs*vfs.BlockSize {
		t.Errorf("%d bytes in the tails of %d logs", used, logs)
	}
	d.flush(t)
	m := d.memory
	m.mu.Lock()
	all := len(m.slabs.free) * slabSize
	m.mu.Unlock()
	if most := logs*vfs.BlockSize + d.opts.FlushLogs*vfs.BlockSize + slabSize; all > most {
		t.Errorf("a flush of %d logs has taken the memory to %d bytes, want at most %d", logs, all, most)
	}
}

// What was written since keeps the oldest chunk in memory, and none that is younger and in its file.
func TestTailsKeepToTheirBoundBehindAnUnflushedChunk(t *testing.T) {
	faulty := vfs.NewFaulty(newMem(t))
	d := openDir(t, faulty, byJournal)
	defer d.close(t)
	oldest, other := d.open(t, "orders", 0, DefaultLogConfig()), d.open(t, "orders", 1, DefaultLogConfig())
	oldest.mustAppend(t, makeBatch(t, 1, "x", 1))
	d.flush(t)
	hold, reached := make(chan struct{}), make(chan struct{})
	faulty.Inject(vfs.Fault{Op: vfs.OpSync, Path: "*.log", Nth: 1, Stall: hold, Do: func() { close(reached) }})
	other.mustAppend(t, makeBatch(t, 1, strings.Repeat("y", 10*chunkSize), 1))
	d.startFlush(t)
	<-reached
	oldest.mustAppend(t, makeBatch(t, 1, "z", 1))
	used := int64(0)
	if err := d.onCommitter(context.Background(), func() { // nothing comes between the flush and the look
		d.opts.TailBytes = 2 * chunkSize
		close(hold)
		d.committer.awaitFlush()
		used = d.memory.used.Load()
	}); err != nil {
		t.Fatal(err)
	}
	if used > d.opts.TailBytes {
		t.Errorf("%d bytes in the tails, %d may be", used, d.opts.TailBytes)
	}
	for _, l := range []*Log{oldest, other} {
		if got, err := l.readAll(0); err != nil || int64(len(got)) != l.LogEndOffset() {
			t.Errorf("%s: %d of %d records, %v", l.id, len(got), l.LogEndOffset(), err)
		}
	}
}

// The search in a row of chunks of both sizes finds what a look at each finds, whatever came and went before.
func TestHoldingFindsTheChunk(t *testing.T) {
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 0))
		d := openDir(t, newMem(t), byJournal)
		l := d.open(t, "orders", 0, DefaultLogConfig())
		l.mustAppend(t, makeBatch(t, 1, "x", 1))
		d.close(t)
		c, s := &d.committer, l.active()
		at := s.filled
		for range 60 {
			switch n := len(s.chunks); {
			case random.IntN(4) == 0 && n > 1: // as evict does
				s.chunks = s.chunks[1:]
			default:
				b := make([]byte, []int{1 + random.IntN(500), random.IntN(3 * chunkSize)}[random.IntN(2)])
				if err := c.put(s, at, b); err != nil {
					t.Fatal(err)
				}
				at += int64(len(b))
			}
			row, small := s.chunks, 0
			for i, ch := range row {
				if len(ch.mem) < chunkSize {
					small++
				}
				for _, position := range []int64{ch.at, ch.at + random.Int64N(int64(len(ch.mem))), ch.end() - 1} {
					if got := holding(row, position); got != i {
						t.Fatalf("seed %d: position %d of %s: chunk %d, want %d", seed, position, describe(row), got, i)
					}
				}
			}
			if end := row[len(row)-1].end(); holding(row, end) != len(row) || holding(row, end+9*chunkSize) != len(row) {
				t.Fatalf("seed %d: something holds what lies behind %s", seed, describe(row))
			}
			if small > smallChunks {
				t.Fatalf("seed %d: %d small chunks in %s", seed, small, describe(row))
			}
		}
	}
}

func describe(row []*chunk) string {
	var b strings.Builder
	for _, ch := range row {
		fmt.Fprintf(&b, "[%d,%d)", ch.at, ch.end())
	}
	return b.String()
}
