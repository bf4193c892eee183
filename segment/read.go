package segment

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// Read appends to dst the whole batches from the one that holds offset from up
// to (not including) the first that reaches limit, as long as they fit in
// maxBytes; with oneAtLeast the first batch comes even if it alone is larger.
// It reads from one segment at a time, so an answer may be shorter than
// maxBytes with more behind it.
//
// Every batch is checked: what is read is what was written, or a
// *CorruptError. ErrOffsetOutOfRange when from lies outside the log. At the end
// of the log nothing is appended. Blocks on the disk.
func (l *Log) Read(dst []byte, from, limit int64, maxBytes int, oneAtLeast bool) ([]byte, error) {
	for {
		end := l.LogEndOffset()
		if from < l.LogStartOffset() || from > end {
			return dst, fmt.Errorf("%w: %d, log holds %d to %d", ErrOffsetOutOfRange, from, l.LogStartOffset(), end)
		}
		limit := min(limit, end)
		if from >= limit || maxBytes <= 0 && !oneAtLeast {
			return dst, nil
		}
		out, err := l.readSegments(dst, from, limit, maxBytes, oneAtLeast)
		if err == nil || !errors.Is(err, os.ErrNotExist) || from >= l.LogStartOffset() {
			return out, err
		}
		// The segment was deleted meanwhile: the log start offset has moved.
	}
}

func (l *Log) readSegments(dst []byte, from, limit int64, maxBytes int, oneAtLeast bool) ([]byte, error) {
	segments := *l.segments.Load()
	for i := segmentOf(segments, from); i < len(segments) && segments[i].base < limit; i++ {
		out, found, err := l.readSegment(segments[i], dst, from, limit, maxBytes, oneAtLeast)
		if err != nil || found {
			return out, err
		}
	}
	return dst, nil
}

// segmentOf finds the last segment that begins at or before offset.
func segmentOf(segments []*segmentFile, offset int64) int {
	return max(0, sort.Search(len(segments), func(i int) bool { return segments[i].base > offset })-1)
}

// readSegment tells too whether the segment has a batch at or behind from, be it
// given or not: only when it has none may the answer come from the next segment.
func (l *Log) readSegment(s *segmentFile, dst []byte, from, limit int64, maxBytes int, oneAtLeast bool) (out []byte, found bool, err error) {
	v := l.dir.reader(s)
	defer v.close()
	v.past = l.dir.direct && !l.config.Load().flushesLate()
	size := s.size.Load()
	first, position, err := l.seek(s, &v, from, size)
	if err != nil || position == size {
		return dst, false, err
	}
	want := int64(maxBytes)
	if oneAtLeast {
		want = max(want, int64(first.Size()))
	}
	want = min(want, size-position)
	if want < int64(first.Size()) {
		return dst, true, nil
	}
	n := len(dst)
	dst = slices.Grow(dst, int(want))
	chunk := dst[n : n+int(want)]
	v.fromDisk, v.wentPast = false, false
	if _, err := v.ReadAt(chunk, position); err != nil && !errors.Is(err, io.EOF) {
		return dst[:n], true, fmt.Errorf("%w: %s at %d: %w", errRead, v.Name(), position, err)
	}
	whole, err := l.check(chunk, limit, &v, position, from)
	if v.fromDisk && err == nil {
		v.prefetch(position, int64(whole))
	}
	return dst[:n+whole], true, err
}

// check gives the length of the batches at the front of chunk that are whole,
// intact and below limit. Damage in the first batch is an error; behind good
// batches it only ends them, and meets the next read. What has never left the
// memory needs no look at its checksum.
func (l *Log) check(chunk []byte, limit int64, v *segmentReader, position, offset int64) (int, error) {
	whole, look := 0, batch.Check
	if !v.fromDisk {
		look = batch.Whole
	}
	for whole < len(chunk) {
		h, err := look(chunk[whole:])
		if err == nil && h.NextOffset() > limit {
			break
		}
		if errors.Is(err, batch.ErrTruncated) && whole > 0 {
			break
		}
		if err != nil {
			corrupt := &CorruptError{File: v.Name(), Position: position + int64(whole), Offset: offset, Cause: err}
			l.dir.sayCorrupt(l, corrupt)
			if whole == 0 {
				return 0, corrupt
			}
			break
		}
		whole += h.Size()
		offset = h.NextOffset()
	}
	return whole, nil
}

// seek finds the first batch of a segment whose last offset is at or behind
// offset, and where it begins; size when there is none.
func (l *Log) seek(s *segmentFile, f source, offset, size int64) (batch.Header, int64, error) {
	x, err := l.indexes(s)
	if err != nil {
		return batch.Header{}, 0, err
	}
	walk := walker{file: f, position: x.position(offset), end: size, readAhead: seekWindow}
	for walk.next() {
		if walk.header.LastOffset() >= offset {
			return walk.header, walk.position, nil
		}
	}
	if walk.err != nil && !errors.Is(walk.err, errRead) {
		// Perhaps what is sought lies between the damage and the next index entry's end.
		behind := walker{file: f, position: x.positionBehind(walk.position), end: size, readAhead: seekWindow}
		if behind.position > 0 && behind.next() && behind.header.BaseOffset <= offset && behind.header.LastOffset() >= offset {
			return behind.header, behind.position, nil
		}
	}
	if walk.err != nil && !errors.Is(walk.err, errRead) {
		walk.err = &CorruptError{File: f.Name(), Position: walk.position, Offset: offset, Cause: walk.err}
		l.dir.sayCorrupt(l, walk.err)
	}
	return walk.header, walk.position, walk.err
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
	walk := walker{file: &f, end: size}
	for walk.next() {
		h := walk.header
		writer.add(h.LastOffset(), h.MaxTimestamp, walk.position, h.Size(), interval)
	}
	if errors.Is(walk.err, errRead) {
		return nil, walk.err
	}
	writer.addTime()
	l.dir.log.Warn("built the indexes of a segment anew, since they were missing or wrong",
		"partition", l.id.String(), "file", f.Name(), "entries", len(writer.offsets))
	if walk.err != nil {
		// What lies before the damage can be found; reading on meets the damage.
		l.dir.sayCorrupt(l, &CorruptError{File: f.Name(), Position: walk.position, Cause: walk.err})
	} else if !s.rebuilt.CompareAndSwap(false, true) {
		// another reader writes the same
	} else { // a reader does not wait for a disk that may take no writes
		l.dir.toJanitor(func() {
			if err := s.writeIndexes(l.dir.fs, &writer.indexes, vfs.WriteFileAtomic); err != nil {
				l.dir.log.Warn("cannot write indexes: they are built again after the next start", "file", s.name(".index"), "error", err)
			}
		})
	}
	s.index.CompareAndSwap(nil, &writer.indexes)
	return s.index.Load(), nil
}

// indexesAgree looks whether indexes are those of the segment: the last entry
// points at a batch that ends at the entry's offset, and there are entries
// where the log is long enough to have some.
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
	if len(x.offsets) > 0 {
		last := x.offsets[len(x.offsets)-1]
		h, err := readHeader(&f, last.position)
		return err == nil && h.LastOffset() == last.offset
	}
	walk := walker{file: &f, end: size, readAhead: seekWindow}
	for walk.next() {
		if walk.position > int64(l.config.Load().IndexIntervalBytes) {
			return false
		}
	}
	return walk.err == nil
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

// over runs f on the segments, and again when one of them was removed meanwhile.
func (l *Log) over(f func(segments []*segmentFile) error) error {
	for {
		segments := *l.segments.Load()
		err := f(segments)
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
