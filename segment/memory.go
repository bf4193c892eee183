package segment

import (
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/millrace/millrace/segment/vfs"
)

const (
	chunkSize = 16 << 10 // of the tail; a multiple of vfs.BlockSize
	slabSize  = 2 << 20  // what is asked of the system at once: a huge page
)

// memory hands out chunks of aligned memory: of chunkSize, or of one block for logs of which
// little is there. What was given back is used again, the latest first; the system gets it all
// back when the collector finds that neither the memory nor any chunk is in use.
type memory struct {
	used atomic.Int64 // bytes in the tails

	mu     sync.Mutex // guards the fields below
	free   [][]byte   // of chunkSize
	blocks [][]byte   // of a block; a chunk that was cut up stays so
	slabs  *slabs
}

// slabs is what to free when memory is gone. It must not lead back to it.
type slabs struct{ free []func() }

func newMemory() *memory {
	m := &memory{slabs: &slabs{}}
	runtime.AddCleanup(m, func(s *slabs) {
		for _, free := range s.free {
			free()
		}
	}, m.slabs)
	return m
}

// chunk is a piece of a segment in memory: mem[0] is the byte at file position at.
// The committer fills it from the front; a byte that was published never changes.
// It goes back when its last holder has released it, and is never held again.
type chunk struct {
	mem   []byte
	at    int64
	owner *segmentFile
	from  *memory
	refs  atomic.Int32
}

// get gives a chunk that its caller holds. What it contains is anything.
func (m *memory) get(owner *segmentFile, at int64) *chunk {
	m.mu.Lock()
	mem := m.chunk()
	m.mu.Unlock()
	return newChunk(m, mem, owner, at)
}

// getBlock is get for a chunk that is one block long.
func (m *memory) getBlock(owner *segmentFile, at int64) *chunk {
	m.mu.Lock()
	if len(m.blocks) == 0 {
		m.blocks = split(m.blocks, m.chunk(), vfs.BlockSize)
	}
	mem := pop(&m.blocks)
	m.mu.Unlock()
	return newChunk(m, mem, owner, at)
}

func newChunk(m *memory, mem []byte, owner *segmentFile, at int64) *chunk {
	c := &chunk{mem: mem, at: at, owner: owner, from: m}
	c.refs.Store(1)
	return c
}

// chunk gives memory of chunkSize; m.mu is held.
func (m *memory) chunk() []byte {
	if len(m.free) == 0 {
		m.free = split(m.free, m.newSlab(slabSize), chunkSize)
	}
	return pop(&m.free)
}

// split appends the pieces of mem to free, each size bytes long.
func split(free [][]byte, mem []byte, size int) [][]byte {
	for ; len(mem) > 0; mem = mem[size:] {
		free = append(free, mem[:size:size])
	}
	return free
}

func pop(free *[][]byte) []byte {
	n := len(*free) - 1
	mem := (*free)[n]
	*free = (*free)[:n]
	return mem
}

// newSlab asks the system for memory; m.mu is held.
func (m *memory) newSlab(n int) []byte {
	slab, free := vfs.Aligned(n)
	m.slabs.free = append(m.slabs.free, free)
	return slab
}

// hold keeps the chunk until release; false when it has gone back already.
func (c *chunk) hold() bool {
	for {
		n := c.refs.Load()
		if n == 0 {
			return false
		}
		if c.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// join counts the chunk as one of a tail.
func (c *chunk) join() { c.from.used.Add(int64(len(c.mem))) }

// leave takes the chunk out of its tail: who holds it besides may be slow, and is
// charged elsewhere.
func (c *chunk) leave() {
	c.from.used.Add(-int64(len(c.mem)))
	c.release()
}

func (c *chunk) release() {
	if c.refs.Add(-1) > 0 {
		return
	}
	m := c.from
	m.mu.Lock()
	if len(c.mem) == chunkSize {
		m.free = append(m.free, c.mem)
	} else {
		m.blocks = append(m.blocks, c.mem)
	}
	m.mu.Unlock()
}

// end is the file position behind the chunk.
func (c *chunk) end() int64 { return c.at + int64(len(c.mem)) }
