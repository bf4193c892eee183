package segment

import (
	"errors"
	"os"
	"sort"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// segmentOf finds the last segment that begins at or before offset.
func segmentOf(segments []*segmentFile, offset int64) int {
	return max(0, sort.Search(len(segments), func(i int) bool { return segments[i].base > offset })-1)
}

// seek finds the first batch of a segment whose last offset is at or behind
// offset, and where it begins; size when there is none.
func (l *Log) seek(s *segmentFile, f source, offset, size int64) (batch.Header, int64, error) {
	x, err := l.indexes(s)
	if err != nil {
		return batch.Header{}, 0, err
	}
	entry := s.entry(x, f, offset)
	walk := walker{file: f, position: entry.position, end: size, readAhead: seekWindow, expect: entry.offset}
	var damage error // in front of the batch that comes
	for {
		if walk.next() {
			h := walk.header
			if h.LastOffset() < offset {
				damage = nil
				continue
			}
			if h.BaseOffset > offset && damage != nil {
				return h, walk.position, damage
			}
			return h, walk.position, nil
		}
		if walk.err == nil && damage != nil {
			return walk.header, walk.position, damage
		}
		if !errors.Is(walk.err, errMisplaced) {
			break
		}
		damage = l.corrupt(s, walk.position, offset, walk.err)
	}
	if walk.err != nil && !errors.Is(walk.err, errRead) {
		// Perhaps what is sought lies between the damage and the next index entry's end.
		behind := walker{file: f, position: x.positionBehind(walk.position), end: size, readAhead: seekWindow}
		if behind.position > 0 && behind.next() && behind.header.BaseOffset <= offset && behind.header.LastOffset() >= offset {
			return behind.header, behind.position, nil
		}
	}
	if walk.err != nil && !errors.Is(walk.err, errRead) {
		walk.err = l.corrupt(s, walk.position, offset, walk.err)
	}
	return walk.header, walk.position, walk.err
}

// entry gives where to begin to look for an offset, and the least offset that the batch there may begin with. An
// index entry whose batch has another offset is not used: one of the two is damaged.
func (s *segmentFile) entry(x *indexes, f source, offset int64) offsetEntry {
	i := x.before(offset)
	for range 2 {
		if i--; i < 0 {
			break
		}
		e := x.offsets[i]
		if h, err := readHeader(f, e.position); err == nil && h.LastOffset() == e.offset {
			return offsetEntry{h.BaseOffset, e.position}
		}
	}
	return offsetEntry{s.base, 0}
}

// indexes gives a segment's indexes: from memory, from their files, or, where
// those are missing or wrong, built from the log and written again.
func (l *Log) indexes(s *segmentFile) (*indexes, error) {
	if x := s.index.Load(); x != nil {
		return x, nil
	}
	size := s.size.Load()
	if x := s.readIndexes(l.dir.fs, size); x != nil && l.indexesAgree(s, x) {
		s.index.CompareAndSwap(nil, x)
		return x, nil
	}
	f := l.dir.reader(s)
	defer f.close()
	writer, interval := newIndexer(), l.config.Load().IndexIntervalBytes
	walk := walker{file: &f, end: size, expect: s.base}
	for walk.next() || errors.Is(walk.err, errMisplaced) {
		if h := walk.header; walk.err == nil {
			writer.add(h.LastOffset(), h.MaxTimestamp, walk.position, h.Size(), interval)
		}
	}
	if errors.Is(walk.err, errRead) {
		return nil, walk.err
	}
	writer.addTime()
	if !s.cut.Load() {
		l.dir.log.Warn(SaidIndexes,
			"partition", l.id.String(), "file", f.Name(), "entries", len(writer.offsets))
	}
	if walk.err != nil {
		// What lies before the damage can be found; reading on meets the damage.
		l.corrupt(s, walk.position, walk.expect, walk.err)
	} else if !s.rebuilt.CompareAndSwap(false, true) {
		// another reader writes the same
	} else { // a reader does not wait for a disk that may take no writes
		l.dir.toJanitor(func() {
			if s.cut.Load() {
				return
			}
			if err := s.writeIndexes(l.dir.fs, &writer.indexes, vfs.WriteFileAtomic); err != nil {
				l.dir.log.Warn("cannot write indexes: they are built again after the next start", "file", s.name(".index"), "error", err)
			}
		})
	}
	s.index.CompareAndSwap(nil, &writer.indexes)
	return s.index.Load(), nil
}

// indexesAgree looks whether indexes are those of the segment: the last entry
// points at a batch that ends at the entry's offset, there are entries where the log is long enough to have some, and no batch
// behind the last one is younger than what the time index knows. One that lacks entries and belongs to a log whose timestamps do not rise
// may pass: only reading all of the segment would tell.
func (l *Log) indexesAgree(s *segmentFile, x *indexes) bool {
	size := s.size.Load()
	if size == 0 {
		return true
	}
	if len(x.times) == 0 {
		return false // at most a segment without any timestamp is indexed in vain
	}
	f := l.dir.reader(s)
	defer f.close()
	walk, most := walker{file: &f, end: size, readAhead: seekWindow}, int64(l.config.Load().IndexIntervalBytes)
	some := len(x.offsets) > 0
	if some {
		last := x.offsets[len(x.offsets)-1]
		h, err := readHeader(&f, last.position)
		if err != nil || h.LastOffset() != last.offset {
			return false
		}
		walk.position = last.position
	}
	for walk.next() {
		if walk.header.MaxTimestamp > x.maxTimestamp().timestamp || !some && walk.position > most {
			return false
		}
	}
	return some || walk.err == nil
}

// BytesFrom counts the bytes that Read could give from offset up to limit,
// over all segments. It may read a few headers.
func (l *Log) BytesFrom(offset, limit int64) (n int64, err error) {
	limit = min(limit, l.LogEndOffset())
	if offset >= limit {
		return 0, nil
	}
	err = l.over(func(segments []*segmentFile) error {
		n, err = l.bytesBetween(segments, offset, limit)
		return err
	})
	return n, err
}

// BytesFromAtMost is BytesFrom up to the end of the log, or a little more, or what is
// there beyond most. It reads nothing.
func (l *Log) BytesFromAtMost(offset, most int64) (n int64) {
	segments := *l.segments.Load()
	if len(segments) == 0 {
		return 0
	}
	first := segmentOf(segments, offset)
	if x := segments[first].index.Load(); x != nil {
		n -= x.position(offset)
	}
	for _, s := range segments[first:] {
		if n += s.size.Load(); n >= most {
			break
		}
	}
	return max(n, 0)
}

// over runs f on the segments, and again when one of them was removed or cut meanwhile.
func (l *Log) over(f func(segments []*segmentFile) error) error {
	for {
		cuts, segments := l.cuts.Load(), *l.segments.Load()
		err := f(segments)
		if cuts != l.cuts.Load() {
			continue
		}
		if !errors.Is(err, os.ErrNotExist) || len(segments) == 0 || (*l.segments.Load())[0] == segments[0] {
			return err
		}
	}
}

func (l *Log) bytesBetween(segments []*segmentFile, offset, limit int64) (int64, error) {
	if len(segments) == 0 {
		return 0, nil
	}
	from, err := l.bytesBefore(segments, offset)
	if err != nil {
		return 0, err
	}
	to := int64(0)
	if limit < l.LogEndOffset() {
		to, err = l.bytesBefore(segments, limit)
	} else {
		for _, s := range segments {
			to += s.size.Load()
		}
	}
	return to - from, err
}

// bytesBefore counts the bytes in front of the batch that holds offset.
func (l *Log) bytesBefore(segments []*segmentFile, offset int64) (int64, error) {
	n := int64(0)
	i := segmentOf(segments, offset)
	for _, s := range segments[:i] {
		n += s.size.Load()
	}
	f := l.dir.reader(segments[i])
	defer f.close()
	_, position, err := l.seek(segments[i], &f, offset, segments[i].size.Load())
	return n + position, err
}
