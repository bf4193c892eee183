package segment

import (
	"io"
	"sync/atomic"

	"github.com/millrace/millrace/segment/vfs"
)

const (
	// leastDirectRead is what is worth a read past the page cache.
	leastDirectRead = 64 << 10
	scratchBytes    = 1 << 20
	// scratches is how many reads past the page cache may be under way; others go through it.
	scratches = aheads + 4
	// seenBytes is the grain at which a segment remembers what was read.
	seenBytes = 1 << 20
)

// Old records that are read for the first time are read past the page cache: taking
// pages for what is mostly read once costs more than reading it, and takes them from
// what is read often. Who reads the same again goes through the page cache, and
// finds it filled from then on.

// seen remembers which parts of a segment have been read past the page cache.
type seen struct{ bits []atomic.Uint64 }

// mark tells whether the part that holds position off was marked before, and marks it.
func (s *segmentFile) mark(off int64) bool {
	m := s.seen.Load()
	part := off / seenBytes
	if m == nil || part/64 >= int64(len(m.bits)) {
		larger := &seen{make([]atomic.Uint64, part/64+1)}
		if m != nil {
			for i := range m.bits {
				larger.bits[i].Store(m.bits[i].Load())
			}
		}
		s.seen.CompareAndSwap(m, larger) // another reader's may win; a lost mark costs one more read of the disk
		if m = s.seen.Load(); part/64 >= int64(len(m.bits)) {
			return false
		}
	}
	bit := uint64(1) << (part % 64)
	return m.bits[part/64].Or(bit)&bit != 0
}

// scratch gives memory for a read past the page cache, nil when too many have some.
func (d *Dir) scratch() []byte {
	select {
	case b := <-d.scratchFree:
		return b
	default:
	}
	if d.scratchMade.Add(1) > scratches {
		d.scratchMade.Add(-1)
		return nil
	}
	return d.memory.slab(scratchBytes)
}

// readPast reads past the page cache, at least a part of p; 0 when that is not the way.
func (v *segmentReader) readPast(p []byte, off int64) (n int, err error) {
	if !v.past {
		return 0, nil
	}
	if n := v.dir.takeAhead(v.segment, p, off); n > 0 {
		v.segment.mark(off)
		return n, nil
	}
	if len(p) < leastDirectRead || v.segment.mark(off) {
		return 0, nil
	}
	scratch := v.dir.scratch()
	if scratch == nil {
		return 0, nil
	}
	defer func() { v.dir.scratchFree <- scratch }()
	h := v.dir.writeHandle(v.segment)
	f, err := v.dir.files.acquire(h)
	if err != nil {
		return 0, err
	}
	defer v.dir.files.release(h)
	from := off &^ (vfs.BlockSize - 1)
	skip := int(off - from)
	got, err := f.ReadAt(scratch[:min(roundUp(int64(skip+len(p))), scratchBytes)], from)
	if got <= skip {
		if err == io.EOF {
			err = nil // the other way will tell
		}
		return 0, err
	}
	return copy(p, scratch[skip:got]), nil
}
