package inspect

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"slices"

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
	none    bool   // nobody looks at them
}

// readIndexes loads the indexes of the segment.
func (j *judge) readIndexes() {
	s := j.now.seg
	x := &j.now.index
	*x = indexCheck{base: s.Base, kafka: j.part.Layout != Millrace, largest: -1, listed: -1}
	if j.opts.Held && j.now.last {
		x.none = true
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
		x.none = true
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

// skip steps over the entries before a position and an offset that point into damage: they may well be right.
func (x *indexCheck) skip(position, offset int64, bad []badRange) {
	if len(bad) == 0 {
		return
	}
	for len(x.offsets) > 0 {
		e := segment.DecodeOffsetEntry(x.base, x.offsets)
		if e.Position >= position || !slices.ContainsFunc(bad, func(r badRange) bool { return r.from <= e.Position && e.Position < r.to }) {
			break
		}
		x.offsets = x.offsets[segment.OffsetEntrySize:]
	}
	for len(x.times) > 0 {
		e := segment.DecodeTimeEntry(x.base, x.times)
		if e.Offset >= offset || !slices.ContainsFunc(bad, func(r badRange) bool { return r.first <= e.Offset && e.Offset <= r.last }) {
			break
		}
		x.listed = e.Timestamp
		x.times = x.times[segment.TimeEntrySize:]
	}
}

// step compares the indexes with one batch.
func (x *indexCheck) step(h batch.Header, position int64, bad []badRange) {
	x.largest = max(x.largest, h.MaxTimestamp)
	x.skip(position, h.BaseOffset, bad)
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
func (x *indexCheck) finish(left bool, bad []badRange) {
	x.skip(math.MaxInt64, math.MaxInt64, bad)
	switch {
	case x.wrong != "":
	case len(x.offsets) > 0:
		e := segment.DecodeOffsetEntry(x.base, x.offsets)
		x.wrong = fmt.Sprintf("the index says that offset %d is in a batch at byte %d", e.Offset, e.Position)
	case len(x.times) > 0:
		e := segment.DecodeTimeEntry(x.base, x.times)
		x.wrong = fmt.Sprintf("the time index says that offset %d has the timestamp %d", e.Offset, e.Timestamp)
	case left && x.largest > x.listed || x.listed > x.largest && len(bad) == 0:
		x.wrong = fmt.Sprintf("the time index ends with timestamp %d, the records go up to %d", x.listed, x.largest)
	}
}
