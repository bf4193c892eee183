package vfs

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// SectorSize is the grain at which Mem loses and keeps what was not synced: what a disk writes whole or not at all.
const SectorSize = 512

// sector is never changed once it is in a contents map: clones share it.
type sector [SectorSize]byte

// contents is the inside of a file as it is now and as it was last synced. A sector that is in no
// map is zero, and so is what a sector holds beyond the size. Not for concurrent use.
type contents struct {
	size, syncedSize int64
	now, synced      map[int64]*sector
	dirty            map[int64]bool // differs from synced; true once a failed sync has lost track of it
}

func newContents() *contents {
	return &contents{now: map[int64]*sector{}, synced: map[int64]*sector{}, dirty: map[int64]bool{}}
}

func (c *contents) clone() *contents {
	return &contents{
		size: c.size, syncedSize: c.syncedSize,
		now: maps.Clone(c.now), synced: maps.Clone(c.synced), dirty: maps.Clone(c.dirty),
	}
}

func (c *contents) isDirty() bool { return len(c.dirty) > 0 || c.size != c.syncedSize }

func (c *contents) readAt(p []byte, off int64) int {
	if off >= c.size {
		return 0
	}
	p = p[:min(int64(len(p)), c.size-off)]
	for n := 0; n < len(p); {
		at := off + int64(n)
		from := at % SectorSize
		part := p[n:min(len(p), n+int(SectorSize-from))]
		if s := c.now[at/SectorSize]; s != nil {
			copy(part, s[from:])
		} else {
			clear(part)
		}
		n += len(part)
	}
	return len(p)
}

func (c *contents) writeAt(p []byte, off int64) {
	if len(p) == 0 {
		return
	}
	c.size = max(c.size, off+int64(len(p)))
	for len(p) > 0 {
		fresh := c.copyOf(off / SectorSize)
		n := copy(fresh[off%SectorSize:], p)
		c.set(off/SectorSize, fresh)
		p, off = p[n:], off+int64(n)
	}
}

func (c *contents) truncate(size int64) {
	if size < c.size {
		for i := range c.now {
			if i*SectorSize >= size {
				c.set(i, nil)
			}
		}
		if last := size / SectorSize; c.now[last] != nil {
			fresh := c.copyOf(last)
			clear(fresh[size%SectorSize:])
			c.set(last, fresh)
		}
	}
	c.size = size
}

func (c *contents) copyOf(i int64) *sector {
	fresh := new(sector)
	if old := c.now[i]; old != nil {
		*fresh = *old
	}
	return fresh
}

func (c *contents) set(i int64, s *sector) {
	put(c.now, i, s)
	c.dirty[i] = false // a rewrite of it is a new chance to be saved
}

// sync saves what is dirty, but for what an earlier sync has failed to save: the kernel believes that to be clean.
func (c *contents) sync() {
	for i, lost := range c.dirty {
		if !lost {
			put(c.synced, i, c.now[i])
			delete(c.dirty, i)
		}
	}
	c.syncedSize = c.size
}

// failSync is a sync that has reported an error.
func (c *contents) failSync() {
	for i := range c.dirty {
		c.dirty[i] = true
	}
}

// crash gives the file after a power cut. Sectors are kept or lost one by one. The length is the
// new one, the synced one, or (files grow in steps) any between.
func (c *contents) crash(rng *rand.Rand, keep float64) *contents {
	kept := func() bool { return rng.Float64() < keep }
	after := &contents{now: maps.Clone(c.synced), dirty: map[int64]bool{}, size: max(c.size, c.syncedSize)}
	indexes := make([]int64, 0, len(c.dirty))
	for i := range c.dirty {
		indexes = append(indexes, i)
	}
	slices.Sort(indexes)
	for _, i := range indexes {
		if kept() {
			put(after.now, i, c.now[i])
		}
	}
	size := c.size
	if c.size != c.syncedSize && !kept() {
		size = c.syncedSize
		if kept() {
			low, high := min(c.size, c.syncedSize), max(c.size, c.syncedSize)
			size = low + rng.Int64N(high-low+1)
		}
	}
	after.truncate(size)
	after.synced, after.syncedSize, after.dirty = maps.Clone(after.now), size, map[int64]bool{}
	return after
}

// put stores a sector, or nothing for one that is zero.
func put(m map[int64]*sector, i int64, s *sector) {
	if s == nil {
		delete(m, i)
		return
	}
	m[i] = s
}
