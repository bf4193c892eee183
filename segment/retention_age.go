package segment

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/millrace/millrace/segment/vfs"
)

// timestampUnknown is what segmentFile.largest holds before anybody has looked.
const timestampUnknown = math.MinInt64

// largestTimestamp gives the timestamp that a segment counts as for retention.ms: the
// largest of its records; when none of them has one, that of the last change of its file.
// false when it cannot be told. For a segment that was sealed before the directory was
// opened it reads, once, the last entry of the time index.
func (l *Log) largestTimestamp(s *segmentFile, active bool) (int64, bool) {
	largest := s.largest.Load()
	if largest == timestampUnknown {
		var err error
		if largest, err = l.lastTimeEntry(s); err != nil {
			return 0, false
		}
		s.fromIndex = true
		s.largest.Store(largest)
	}
	if largest = max(largest, s.atLeast); largest >= 0 {
		return largest, true
	}
	info, err := l.dir.fs.Stat(s.name(".log"))
	if err != nil || info.ModTime().IsZero() {
		return 0, false // just made, or a file system without times
	}
	changed := info.ModTime().UnixMilli()
	if !active {
		s.largest.Store(changed)
	}
	return changed, true
}

// lastTimeEntry reads the timestamp of the last entry of a sealed segment's time index,
// without loading the rest: a log may have thousands of segments that nobody reads.
func (l *Log) lastTimeEntry(s *segmentFile) (int64, error) {
	if s.index.Load() == nil {
		if timestamp, ok := readLastTimeEntry(l.dir.fs, s.name(".timeindex")); ok {
			return timestamp, nil
		}
	}
	x, err := l.indexes(s) // from memory, or built anew
	if err != nil {
		return 0, err
	}
	return x.maxTimestamp().timestamp, nil
}

func readLastTimeEntry(fs vfs.FS, name string) (timestamp int64, ok bool) {
	f, err := fs.OpenFile(name, vfs.ReadOnly, 0)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil || size%timeEntrySize != 0 {
		return 0, false
	}
	if size == 0 {
		return -1, true
	}
	var entry [timeEntrySize]byte
	if _, err := f.ReadAt(entry[:], size-timeEntrySize); err != nil {
		return 0, false
	}
	timestamp = int64(binary.BigEndian.Uint64(entry[:]))
	return timestamp, timestamp >= 0
}

// confirmLargest keeps a time index that is damaged from having records deleted that
// are not old: before a segment goes whose timestamp was read from a file, that entry is
// held against the records, and is not believed when it does not agree.
func (l *Log) confirmLargest(s *segmentFile, timestamp int64) (int64, bool) {
	if !s.fromIndex {
		return timestamp, true
	}
	x, err := l.indexes(s)
	if err != nil {
		return 0, false
	}
	entry, agrees := x.maxTimestamp(), false
	if entry.timestamp >= 0 {
		err = l.walkFrom(s, entry.offset, func(_ source, w *walker) bool {
			agrees = w.header.LastOffset() == entry.offset && w.header.MaxTimestamp == entry.timestamp
			return false
		})
	}
	largest := entry.timestamp
	if !agrees {
		err = l.walkFrom(s, s.base, func(_ source, w *walker) bool {
			largest = max(largest, w.header.MaxTimestamp)
			return true
		})
	}
	if largest > entry.timestamp {
		l.dir.log.Warn("the time index of a segment does not agree with its records, whose timestamps count for retention",
			"partition", l.id.String(), "file", s.name(".timeindex"))
	}
	var damage *CorruptError
	if err != nil && !errors.As(err, &damage) {
		return 0, false
	}
	s.fromIndex, s.atLeast = false, largest
	return max(timestamp, largest), true
}
