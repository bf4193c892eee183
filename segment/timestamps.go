package segment

import (
	"errors"

	"github.com/millrace/millrace/segment/batch"
)

// TimedOffset is a record's offset with its timestamp (milliseconds since 1970)
// and the leader epoch under which it was appended.
type TimedOffset struct {
	Offset      int64
	Timestamp   int64
	LeaderEpoch int32
}

// OffsetForTimestamp finds the first record at or behind the log start offset and
// below limit whose timestamp is at least timestamp. found is false when there
// is none. Blocks on the disk.
func (l *Log) OffsetForTimestamp(timestamp, limit int64) (at TimedOffset, found bool, err error) {
	err = l.over(func(segments []*segmentFile) error {
		at, found, err = l.offsetForTimestamp(segments, timestamp, limit)
		return err
	})
	return at, found, err
}

func (l *Log) offsetForTimestamp(segments []*segmentFile, timestamp, limit int64) (at TimedOffset, found bool, err error) {
	start := l.LogStartOffset()
	for i, s := range segments {
		if s.base >= limit {
			break
		}
		x, err := l.indexes(s)
		if err != nil {
			return at, false, err
		}
		// The last one may be active, or have been when its index was loaded: then the index lags behind.
		if i < len(segments)-1 && x.maxTimestamp().timestamp < timestamp {
			continue
		}
		from := max(start, x.offsetBefore(timestamp, s.base))
		at, found, err = l.searchSegment(s, from, timestamp, func(b []byte) (int64, int64, bool, error) {
			return batch.OffsetOfTimestamp(b, timestamp, start, batch.DefaultMaxDecompressed)
		})
		if err != nil || found {
			return at, found && at.Offset < limit, err
		}
	}
	return at, false, nil
}

// MaxTimestamp finds the record with the largest timestamp, the first of them
// when several share it. found is false in an empty log. Blocks on the disk.
func (l *Log) MaxTimestamp() (at TimedOffset, found bool, err error) {
	err = l.over(func(segments []*segmentFile) error {
		at, found, err = l.maxTimestampOf(segments)
		return err
	})
	return at, found, err
}

func (l *Log) maxTimestampOf(segments []*segmentFile) (at TimedOffset, found bool, err error) {
	var in *segmentFile
	var entry timeEntry
	entry.timestamp = -1
	for i, s := range segments {
		x, err := l.indexes(s)
		if err != nil {
			return at, false, err
		}
		largest := x.maxTimestamp()
		if i == len(segments)-1 {
			if largest, err = l.largestOf(s, x); err != nil {
				return at, false, err
			}
		}
		if largest.timestamp > entry.timestamp {
			in, entry = s, largest
		}
	}
	if in == nil {
		return at, false, nil
	}
	from := in.base
	if x := in.index.Load(); x != nil {
		from = x.offsetBefore(entry.timestamp, in.base)
	}
	return l.searchSegment(in, from, entry.timestamp, func(b []byte) (int64, int64, bool, error) {
		return batch.OffsetOfMaxTimestamp(b, batch.DefaultMaxDecompressed)
	})
}

// largestOf looks behind the last time index entry of the active segment, which
// may lag behind its records.
func (l *Log) largestOf(s *segmentFile, x *indexes) (timeEntry, error) {
	largest := x.maxTimestamp()
	err := l.walkFrom(s, max(s.base, largest.offset), func(_ source, w *walker) bool {
		if h := w.header; h.MaxTimestamp > largest.timestamp {
			largest = timeEntry{timestamp: h.MaxTimestamp, offset: h.LastOffset()}
		}
		return true
	})
	return largest, err
}

// searchSegment searches, from the batch that holds offset from on, those batches
// whose largest timestamp is at least timestamp, until one has the record.
func (l *Log) searchSegment(s *segmentFile, from, timestamp int64, search func(b []byte) (offset, at int64, found bool, err error)) (at TimedOffset, found bool, err error) {
	var inner error
	err = l.walkFrom(s, from, func(f source, w *walker) bool {
		if w.header.MaxTimestamp < timestamp {
			return true
		}
		whole := make([]byte, w.header.Size())
		if _, inner = f.ReadAt(whole, w.position); inner != nil {
			return false
		}
		if _, inner = batch.Check(whole); inner == nil {
			at.LeaderEpoch = w.header.PartitionLeaderEpoch
			at.Offset, at.Timestamp, found, inner = search(whole)
		}
		if inner != nil {
			inner = &CorruptError{File: f.Name(), Position: w.position, Offset: w.header.BaseOffset, Cause: inner}
		}
		return inner == nil && !found
	})
	if inner != nil {
		err = inner
	}
	return at, found, err
}

// walkFrom steps through the batches of a segment from the one that holds offset
// on, until visit answers false.
func (l *Log) walkFrom(s *segmentFile, offset int64, visit func(source, *walker) bool) error {
	v := l.dir.reader(s)
	defer v.close()
	size := s.size.Load()
	first, position, err := l.seek(s, &v, offset, size)
	if err != nil {
		return err
	}
	walk := walker{file: &v, position: position, end: size, expect: first.BaseOffset}
	for walk.next() || errors.Is(walk.err, errMisplaced) {
		if walk.err != nil {
			l.corrupt(s, walk.position, walk.expect, walk.err)
		} else if !visit(&v, &walk) {
			return nil
		}
	}
	return walk.err
}
