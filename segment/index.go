package segment

import (
	"encoding/binary"
	"fmt"
	"math"
	"sort"
)

// Both indexes are Kafka's: fixed-size big-endian entries in rising order, one
// about every index.interval.bytes of log.
//
//	.index      | relative offset int32 | position int32 |
//	            the last offset of the batch that begins at position
//	.timeindex  | timestamp int64 | relative offset int32 |
//	            the largest timestamp so far, and the last offset of its batch
//
// Offsets are relative to the segment's base offset. The last time entry of a
// sealed segment is the largest timestamp of the whole segment.
const (
	offsetEntrySize = 8
	timeEntrySize   = 12
)

type offsetEntry struct {
	offset   int64 // absolute
	position int64
}

type timeEntry struct {
	timestamp int64
	offset    int64 // absolute
}

// indexes is one segment's pair. A published value is never changed: the
// committer appends to its own copy of the slice headers and publishes again.
type indexes struct {
	offsets []offsetEntry
	times   []timeEntry
}

// position gives where to start looking for an offset: the start of a batch at
// or before the one that holds it.
func (x *indexes) position(offset int64) int64 {
	i := x.before(offset)
	if i == 0 {
		return 0
	}
	return x.offsets[i-1].position
}

// before counts the entries that are not behind an offset.
func (x *indexes) before(offset int64) int {
	return sort.Search(len(x.offsets), func(i int) bool { return x.offsets[i].offset > offset })
}

// positionBehind gives the first indexed position behind one, 0 when there is none.
func (x *indexes) positionBehind(position int64) int64 {
	i := sort.Search(len(x.offsets), func(i int) bool { return x.offsets[i].position > position })
	if i == len(x.offsets) {
		return 0
	}
	return x.offsets[i].position
}

// lastStart shortens a piece of n bytes at a position to one that ends where a batch
// begins, as far as the index knows.
func (x *indexes) lastStart(position, n int64) int64 {
	i := sort.Search(len(x.offsets), func(i int) bool { return x.offsets[i].position > position+n })
	if i == 0 || x.offsets[i-1].position <= position {
		return n
	}
	return x.offsets[i-1].position - position
}

// offsetBefore gives an offset at or before the first record whose timestamp
// is at least timestamp; base when the index knows none.
func (x *indexes) offsetBefore(timestamp, base int64) int64 {
	// An entry's timestamp is the largest up to its offset, so the record sought
	// lies behind the last entry that is smaller.
	i := sort.Search(len(x.times), func(i int) bool { return x.times[i].timestamp >= timestamp })
	if i == 0 {
		return base
	}
	return x.times[i-1].offset
}

// maxTimestamp gives the last time entry; none gives -1.
func (x *indexes) maxTimestamp() timeEntry {
	if len(x.times) == 0 {
		return timeEntry{timestamp: -1, offset: -1}
	}
	return x.times[len(x.times)-1]
}

func (x *indexes) encode(base int64) (offsets, times []byte) {
	offsets = make([]byte, 0, len(x.offsets)*offsetEntrySize)
	for _, e := range x.offsets {
		offsets = binary.BigEndian.AppendUint32(offsets, uint32(e.offset-base))
		offsets = binary.BigEndian.AppendUint32(offsets, uint32(e.position))
	}
	times = make([]byte, 0, len(x.times)*timeEntrySize)
	for _, e := range x.times {
		times = binary.BigEndian.AppendUint64(times, uint64(e.timestamp))
		times = binary.BigEndian.AppendUint32(times, uint32(e.offset-base))
	}
	return offsets, times
}

// decodeIndexes reads both files of a segment whose log has size bytes, and
// refuses anything that cannot have been written by encode for such a log.
func decodeIndexes(base, size int64, offsets, times []byte) (*indexes, error) {
	if len(offsets)%offsetEntrySize != 0 || len(times)%timeEntrySize != 0 {
		return nil, fmt.Errorf("%w: index of %d and time index of %d bytes", ErrFormat, len(offsets), len(times))
	}
	x := &indexes{
		offsets: make([]offsetEntry, 0, len(offsets)/offsetEntrySize),
		times:   make([]timeEntry, 0, len(times)/timeEntrySize),
	}
	last := offsetEntry{offset: base - 1, position: -1}
	for ; len(offsets) > 0; offsets = offsets[offsetEntrySize:] {
		e := offsetEntry{
			offset:   base + int64(binary.BigEndian.Uint32(offsets)),
			position: int64(binary.BigEndian.Uint32(offsets[4:])),
		}
		if e.offset <= last.offset || e.position <= last.position || e.position >= size {
			return nil, fmt.Errorf("%w: index entry (%d, %d) after (%d, %d) in a log of %d bytes", ErrFormat, e.offset, e.position, last.offset, last.position, size)
		}
		x.offsets, last = append(x.offsets, e), e
	}
	lastTime := timeEntry{timestamp: math.MinInt64, offset: base - 1}
	for ; len(times) > 0; times = times[timeEntrySize:] {
		e := timeEntry{
			timestamp: int64(binary.BigEndian.Uint64(times)),
			offset:    base + int64(binary.BigEndian.Uint32(times[8:])),
		}
		if e.timestamp <= lastTime.timestamp || e.offset <= lastTime.offset {
			return nil, fmt.Errorf("%w: time index entry (%d, %d) after (%d, %d)", ErrFormat, e.timestamp, e.offset, lastTime.timestamp, lastTime.offset)
		}
		x.times, lastTime = append(x.times, e), e
	}
	return x, nil
}

// indexer builds the indexes of a segment as batches are appended to it.
type indexer struct {
	indexes
	sinceEntry int       // bytes of log since the last offset entry
	largest    timeEntry // of the batches seen so far
}

func newIndexer() indexer { return indexer{largest: timeEntry{timestamp: -1, offset: -1}} }

// add notes one batch that begins at position, and tells whether an entry was
// added to either index.
func (x *indexer) add(lastOffset, maxTimestamp, position int64, size, interval int) bool {
	if maxTimestamp > x.largest.timestamp {
		x.largest = timeEntry{timestamp: maxTimestamp, offset: lastOffset}
	}
	added := x.sinceEntry > interval
	if added {
		x.offsets = append(x.offsets, offsetEntry{offset: lastOffset, position: position})
		x.addTime()
		x.sinceEntry = 0
	}
	x.sinceEntry += size
	return added
}

// addTime makes the largest timestamp so far the last entry of the time index.
func (x *indexer) addTime() {
	if x.largest.timestamp > x.maxTimestamp().timestamp {
		x.times = append(x.times, x.largest)
	}
}
