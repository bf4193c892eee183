package stream

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/batch"
)

// memLog is a log in memory that remembers what is durable: what is appended waits for its committer, which takes a
// while, and crash loses what it has not come to. It is a Source and a Sink.
type memLog struct {
	now   func() time.Time
	delay func() time.Duration // of a commit
	bug   bool                 // Done is called before the batches are durable

	mu        sync.Mutex
	batches   [][]byte // durable
	start     int64
	end       int64
	watermark int64
	queue     []*segment.Append
	queued    int64 // bytes
	most      int64 // of them, ever
	refuse    error
	hold      bool
	running   bool
	dead      bool
	advanced  func()
	truncated []int64 // what Truncate was asked for
	reset     []int64
}

func newMemLog() *memLog {
	return &memLog{now: time.Now, delay: func() time.Duration { return 0 }}
}

// lead appends a batch of n records as a leader does, durably and at once.
func (l *memLog) lead(t testing.TB, epoch int32, n, size int) {
	t.Helper()
	l.mu.Lock()
	l.batches = append(l.batches, makeBatch(t, l.end, n, size, epoch))
	l.end += int64(n)
	advanced := l.advanced
	l.mu.Unlock()
	if advanced != nil {
		advanced()
	}
}

// makeBatch builds a batch whose bytes depend on offset, epoch and size alone.
func makeBatch(t testing.TB, base int64, n, size int, epoch int32) []byte {
	t.Helper()
	b := batch.NewBuilder(batch.BuilderOptions{BaseOffset: base, LeaderEpoch: epoch})
	value := make([]byte, size)
	r := rand.New(rand.NewPCG(uint64(base), uint64(epoch)))
	for i := 0; i+8 <= size; i += 8 {
		binary.BigEndian.PutUint64(value[i:], r.Uint64())
	}
	for range n {
		b.Append(1_700_000_000_000+base, nil, value, nil)
	}
	built, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return built
}

func (l *memLog) Append(_ context.Context, a *segment.Append) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return errors.New("the log is gone")
	}
	if l.refuse != nil {
		return l.refuse
	}
	l.queue = append(l.queue, a)
	l.queued += int64(len(a.Batches))
	l.most = max(l.most, l.queued)
	l.start1()
	return nil
}

// start1 starts the committer if it has something to do. With the lock held.
func (l *memLog) start1() {
	if !l.running && !l.hold && len(l.queue) > 0 {
		l.running = true
		go l.commit()
	}
}

func (l *memLog) commit() {
	for {
		l.mu.Lock()
		if l.dead || l.hold || len(l.queue) == 0 {
			l.running = false
			l.mu.Unlock()
			return
		}
		round := l.queue
		l.queue = nil
		l.mu.Unlock()
		if l.bug {
			for i, a := range round {
				kept := &segment.Append{Batches: bytes.Clone(a.Batches), Keep: a.Keep, Follows: a.Follows, From: a.From}
				a.Done(segment.Result{LastOffset: lastOffset(a.Batches)})
				round[i] = kept
			}
		}
		if d := l.delay(); d > 0 {
			time.Sleep(d)
		}
		results := make([]segment.Result, len(round))
		l.mu.Lock()
		if l.dead {
			l.mu.Unlock()
			return
		}
		for i, a := range round {
			results[i] = l.store(a)
			l.queued -= int64(len(a.Batches))
		}
		advanced := l.advanced
		l.mu.Unlock()
		if advanced != nil {
			advanced()
		}
		for i, a := range round {
			if !l.bug {
				a.Done(results[i])
			}
		}
	}
}

func lastOffset(b []byte) (last int64) {
	for one := range batch.All(b) {
		h, _ := batch.ReadHeader(one)
		last = h.LastOffset()
	}
	return last
}

// store makes batches durable. With the lock held.
func (l *memLog) store(a *segment.Append) segment.Result {
	if l.refuse != nil {
		return segment.Result{Err: l.refuse}
	}
	if !a.Keep || !a.Follows || a.From != l.end {
		return segment.Result{Err: fmt.Errorf("%w: from %d, the log ends at %d", segment.ErrOutOfOrder, a.From, l.end)}
	}
	for one, err := range batch.All(a.Batches) {
		if err != nil {
			return segment.Result{Err: err}
		}
		h, err := batch.Check(one)
		if err != nil || h.BaseOffset < l.end {
			return segment.Result{Err: fmt.Errorf("%w: %w", segment.ErrOutOfOrder, err)}
		}
		l.batches = append(l.batches, bytes.Clone(one))
		l.end = h.NextOffset()
	}
	return segment.Result{LastOffset: l.end - 1, LogStartOffset: l.start}
}

// crash gives what is left after a power cut; the log itself never answers again.
func (l *memLog) crash() *memLog {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = true
	return &memLog{now: l.now, delay: l.delay, bug: l.bug, batches: slices.Clone(l.batches), start: l.start, end: l.end, watermark: min(l.watermark, l.end)}
}

func (l *memLog) set(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	l.start1()
}

func (l *memLog) LogStartOffset() int64 { l.mu.Lock(); defer l.mu.Unlock(); return l.start }
func (l *memLog) LogEndOffset() int64   { l.mu.Lock(); defer l.mu.Unlock(); return l.end }
func (l *memLog) HighWatermark() int64  { l.mu.Lock(); defer l.mu.Unlock(); return l.watermark }
func (l *memLog) SetHighWatermark(o int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watermark = max(l.watermark, min(o, l.end))
}

func (l *memLog) Epochs() []segment.EpochEntry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epochs()
}

func (l *memLog) epochs() (list []segment.EpochEntry) {
	for _, b := range l.batches {
		h, _ := batch.ReadHeader(b)
		if len(list) == 0 || list[len(list)-1].Epoch < h.PartitionLeaderEpoch {
			list = append(list, segment.EpochEntry{Epoch: h.PartitionLeaderEpoch, Start: max(l.start, h.BaseOffset)})
		}
	}
	return list
}

// EndOffsetForEpoch answers as segment.Log does.
func (l *memLog) EndOffsetForEpoch(epoch int32) (int32, int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.epochs()
	higher := 0
	for higher < len(e) && e[higher].Epoch <= epoch {
		higher++
	}
	switch {
	case epoch < 0 || len(e) == 0:
		return -1, -1
	case higher == 0:
		return epoch, e[0].Start
	case higher < len(e):
		return e[higher-1].Epoch, e[higher].Start
	case e[higher-1].Epoch == epoch:
		return epoch, l.end
	}
	return -1, -1
}

func (l *memLog) View(v *segment.View, from, limit int64, maxBytes int, oneAtLeast bool) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if from < l.start || from > l.end {
		return 0, fmt.Errorf("%w: %d, log holds %d to %d", segment.ErrOffsetOutOfRange, from, l.start, l.end)
	}
	n := 0
	first := sort.Search(len(l.batches), func(i int) bool {
		h, _ := batch.ReadHeader(l.batches[i])
		return h.LastOffset() >= from
	})
	for _, b := range l.batches[first:] {
		h, _ := batch.ReadHeader(b)
		if h.NextOffset() > limit || n+len(b) > maxBytes && !(n == 0 && oneAtLeast) {
			break
		}
		half := len(b) / 3
		v.Pieces = append(v.Pieces, b[:half], b[half:])
		n += len(b)
	}
	return n, nil
}

func (l *memLog) Truncate(_ context.Context, offset int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.truncated = append(l.truncated, offset)
	if l.refuse != nil {
		return l.refuse
	}
	for n := len(l.batches); n > 0; n-- {
		h, _ := batch.ReadHeader(l.batches[n-1])
		if h.NextOffset() <= offset {
			break
		}
		l.batches, l.end = l.batches[:n-1:n-1], h.BaseOffset
	}
	l.watermark = min(l.watermark, l.end)
	return nil
}

func (l *memLog) Reset(_ context.Context, offset int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reset = append(l.reset, offset)
	l.batches, l.start, l.end, l.watermark = nil, offset, offset, offset
	return nil
}

func (l *memLog) MoveStart(_ context.Context, offset int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if offset > l.end {
		return errors.New("the start would lie behind the end")
	}
	l.start = max(l.start, offset)
	for len(l.batches) > 0 {
		if h, _ := batch.ReadHeader(l.batches[0]); h.NextOffset() > l.start {
			break
		}
		l.batches = l.batches[1:]
	}
	return nil
}

func (l *memLog) bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Concat(l.batches...)
}
