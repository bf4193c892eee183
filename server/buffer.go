package server

import (
	"context"
	"errors"
	"math/bits"
	"sync"
	"time"

	"github.com/millrace/millrace/segment/bounded"
)

// Buffers come in powers of two between these; a larger one is not kept.
const (
	minBufferBits = 10 // 1 KiB
	maxBufferBits = 22 // 4 MiB
	// keptBytes is how much of each size is kept for reuse for good. (A sync.Pool alone
	// is emptied by every collection, so that under load most buffers are new:
	// cleared, and counted until the next collection.)
	keptBytes = 8 << 20
)

// bufferPool has the free buffers of one size: some for good, and what is beyond
// that until the collector finds that nobody has needed it for a while.
type bufferPool struct {
	kept   chan *buffer
	beyond sync.Pool
}

var bufferPools = func() (pools [maxBufferBits + 1]*bufferPool) {
	for class := minBufferBits; class <= maxBufferBits; class++ {
		pools[class] = &bufferPool{kept: make(chan *buffer, min(keptBytes>>class, 1024))}
	}
	return pools
}()

// buffer is pooled memory with one owner at a time: whoever holds it either hands
// it on or releases it.
type buffer struct {
	b []byte
}

// newBuffer returns an empty buffer with room for n bytes.
func newBuffer(n int) *buffer {
	class := max(bits.Len(uint(max(n, 1)-1)), minBufferBits)
	if class > maxBufferBits {
		return &buffer{b: make([]byte, 0, n)}
	}
	pool := bufferPools[class]
	select {
	case b := <-pool.kept:
		return b
	default:
	}
	if b, ok := pool.beyond.Get().(*buffer); ok {
		return b
	}
	return &buffer{b: make([]byte, 0, 1<<class)}
}

// bufferSize is the capacity that newBuffer(n) has.
func bufferSize(n int) int {
	class := max(bits.Len(uint(max(n, 1)-1)), minBufferBits)
	if class > maxBufferBits {
		return n
	}
	return 1 << class
}

// release gives the memory back. Nothing may refer to it any more.
func (b *buffer) release() {
	class := bits.Len(uint(cap(b.b))) - 1
	if class < minBufferBits || class > maxBufferBits {
		return
	}
	b.b = b.b[:0]
	pool := bufferPools[class]
	select {
	case pool.kept <- b:
	default:
		pool.beyond.Put(b)
	}
}

// smallFrameBytes is the size up to which a frame may use the budget's reserve.
const smallFrameBytes = 64 << 10

// budget bounds the memory of the requests that are being read or worked on.
// A part of it is kept for small frames, so that heartbeats pass while large
// produce requests have to wait.
type budget struct {
	bytes   int64 // without the reserve
	main    *bounded.Bytes
	reserve *bounded.Bytes
	spare   int64
}

func newBudget(bytes int64) *budget {
	spare := bytes / 16
	return &budget{
		bytes:   bytes - spare,
		main:    bounded.NewBytes(bytes - spare),
		reserve: bounded.NewBytes(spare),
		spare:   spare,
	}
}

// charge is memory taken from a budget.
type charge struct {
	from  *bounded.Bytes
	bytes int64
}

// errBudget says that memory for a request did not become free in time.
var errBudget = errors.New("server: no memory for the request within the deadline")

// take charges n bytes. When there is none left it waits, at most for patience.
func (b *budget) take(ctx context.Context, n int, patience time.Duration) (charge, error) {
	want := min(int64(n), b.bytes)
	if b.main.TryAcquire(want) {
		return charge{b.main, want}, nil
	}
	from := b.main
	if n <= smallFrameBytes && want <= b.spare {
		if b.reserve.TryAcquire(want) {
			return charge{b.reserve, want}, nil
		}
		from = b.reserve
	}
	return await(ctx, from, want, patience)
}

// takeMain is take for memory that is not a small frame's, however little it is.
func (b *budget) takeMain(ctx context.Context, n int, patience time.Duration) (charge, error) {
	want := min(int64(n), b.bytes)
	if b.main.TryAcquire(want) {
		return charge{b.main, want}, nil
	}
	return await(ctx, b.main, want, patience)
}

func await(ctx context.Context, from *bounded.Bytes, bytes int64, patience time.Duration) (charge, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := from.Acquire(ctx, bytes); err != nil {
		return charge{}, errBudget
	}
	return charge{from, bytes}, nil
}

// more charges n bytes more to c, if they are to be had at once. What is kept for small
// frames is not for those that grow.
func (b *budget) more(c *charge, n int) bool {
	if c.from != b.main || !b.main.TryAcquire(int64(n)) {
		return false
	}
	c.bytes += int64(n)
	return true
}

// keep gives back what is charged beyond n bytes.
func (c *charge) keep(n int) {
	if over := c.bytes - int64(n); c.from != nil && over > 0 {
		c.from.Release(over)
		c.bytes -= over
	}
}

// giveBack ends a charge.
func (c *charge) giveBack() {
	if c.from != nil {
		c.from.Release(c.bytes)
		*c = charge{}
	}
}
