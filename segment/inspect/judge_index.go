package inspect

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// indexCheck steps through the two indexes of a segment together with its batches.
type indexCheck struct {
	base    int64
	kafka   bool // its entries may be of any record of a batch
	offsets []byte
	times   []byte
	largest int64  // timestamp of the batches so far
	listed  int64  // … that the time index knows
	wrong   string // why they are no good, "" while they are
	skip    bool   // nobody looks at them
}

// readIndexes loads the indexes of the segment.
func (j *judge) readIndexes() {
	s := j.now.seg
	x := &j.now.index
	*x = indexCheck{base: s.Base, kafka: j.part.Layout != Millrace, largest: -1, listed: -1}
	if j.opts.Held && j.now.last {
		x.skip = true
		return
	}
	x.offsets = j.readIndex(s.Index, segment.OffsetEntrySize)
	x.times = j.readIndex(s.TimeIndex, segment.TimeEntrySize)
}

// readIndex loads one of them.
func (j *judge) readIndex(f File, entry int64) []byte {
	now := j.now
	x := &now.index
	if !f.There() {
		if !now.last && now.seg.Log.Size > 0 && x.wrong == "" {
			name := ".index"
			if entry == segment.TimeEntrySize {
				name = ".timeindex"
			}
			x.wrong = name + " is missing"
		}
		return nil
	}
	// Every batch has one entry at most; Kafka makes the file longer than that while it writes to it.
	most := (now.seg.Log.Size/batch.HeaderSize + 1) * entry
	if f.Size > most && (!x.kafka || f.Size > 256<<20) {
		x.wrong = fmt.Sprintf("%s has %d bytes, for a log of %d", filepath.Base(f.Path), f.Size, now.seg.Log.Size)
		return nil
	}
	b, err := vfs.ReadFile(j.fs, f.Path)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) || !j.opts.Held {
			j.unreadable(f.Path, err)
		}
		x.skip = true
		return nil
	}
	if x.kafka {
		for int64(len(b)) >= entry && segment.IsZero(b[int64(len(b))-entry:]) {
			b = b[:int64(len(b))-entry]
		}
	}
	if int64(len(b))%entry != 0 {
		x.wrong = fmt.Sprintf("%s has %d bytes, which are no whole entries", filepath.Base(f.Path), len(b))
	}
	return b[:int64(len(b))/entry*entry]
}

// step compares the indexes with one batch.
func (x *indexCheck) step(h batch.Header, position int64) {
	x.largest = max(x.largest, h.MaxTimestamp)
	for len(x.offsets) > 0 && x.wrong == "" {
		e := segment.DecodeOffsetEntry(x.base, x.offsets)
		if e.Position > position {
			break
		}
		if e.Position < position || e.Offset != h.LastOffset() && !(x.kafka && e.Offset >= h.BaseOffset) {
			x.wrong = fmt.Sprintf("the index says that offset %d is in a batch at byte %d", e.Offset, e.Position)
		}
		x.offsets = x.offsets[segment.OffsetEntrySize:]
	}
	for len(x.times) > 0 && x.wrong == "" {
		e := segment.DecodeTimeEntry(x.base, x.times)
		if e.Offset > h.LastOffset() {
			break
		}
		if e.Offset < h.BaseOffset || e.Timestamp != h.MaxTimestamp || e.Offset != h.LastOffset() && !x.kafka {
			x.wrong = fmt.Sprintf("the time index says that offset %d has the timestamp %d", e.Offset, e.Timestamp)
		}
		x.listed = e.Timestamp
		x.times = x.times[segment.TimeEntrySize:]
	}
}

// finish looks at what is left when all batches were seen; left tells that the segment was left, and has all entries.
func (x *indexCheck) finish(left bool) {
	switch {
	case x.wrong != "":
	case len(x.offsets) > 0:
		e := segment.DecodeOffsetEntry(x.base, x.offsets)
		x.wrong = fmt.Sprintf("the index says that offset %d is in a batch at byte %d", e.Offset, e.Position)
	case len(x.times) > 0:
		e := segment.DecodeTimeEntry(x.base, x.times)
		x.wrong = fmt.Sprintf("the time index says that offset %d has the timestamp %d", e.Offset, e.Timestamp)
	case left && x.largest != x.listed:
		x.wrong = fmt.Sprintf("the time index ends with timestamp %d, the records go up to %d", x.listed, x.largest)
	}
}
