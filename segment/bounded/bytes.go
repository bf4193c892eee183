// Package bounded bounds memory: whoever wants bytes takes them from a [Bytes]
// first, and gives them back. It touches nothing but its own counters.
package bounded

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// Bytes is a number of bytes that may be in use at a time, and how many are. All
// methods may be called concurrently. Who waits is served in order.
type Bytes struct {
	room *semaphore.Weighted
	used atomic.Int64
}

// NewBytes bounds n bytes.
func NewBytes(n int64) *Bytes { return &Bytes{room: semaphore.NewWeighted(n)} }

// TryAcquire takes n bytes if they are to be had at once.
func (b *Bytes) TryAcquire(n int64) bool {
	if !b.room.TryAcquire(n) {
		return false
	}
	b.used.Add(n)
	return true
}

// Acquire waits for n bytes until ctx ends, and then returns its error. More than
// the bound are never to be had.
func (b *Bytes) Acquire(ctx context.Context, n int64) error {
	err := b.room.Acquire(ctx, n)
	if err == nil {
		b.used.Add(n)
	}
	return err
}

// Release gives n bytes back.
func (b *Bytes) Release(n int64) {
	b.used.Add(-n)
	b.room.Release(n)
}

// Used is how many bytes are taken.
func (b *Bytes) Used() int64 { return b.used.Load() }
