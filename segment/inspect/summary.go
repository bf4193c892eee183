package inspect

import (
	"errors"
	"fmt"
	"io"
	"sort"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// IndexState says how the index files of a segment look. That they agree with the log entry by entry is
// for a verification to say.
type IndexState string

// The states of a segment's indexes.
const (
	IndexOK      IndexState = "ok"
	IndexNone    IndexState = "none"    // there are none: of a live segment of millrace's, or lost
	IndexMissing IndexState = "missing" // one of the two is
	IndexDamaged IndexState = "damaged" // of a wrong length, or the last entry does not point at its batch
)

// Codecs counts batches by codec.
type Codecs [batch.Zstd + 1]int64

// Contents is what a segment's or a partition's records are.
type Contents struct {
	First, Next int64 // offsets: of the first batch, -1 when there is none, and the one that follows the last
	// Counted tells that every batch was looked at. Else Records is how many offsets there are, and what follows it is not known.
	Counted bool
	Records int64
	Control int64 // records that are markers
	Batches int64
	Codecs  Codecs
	Bytes   int64 // of .log files
	// FirstTimestamp is that of the first batch, and MaxTimestamp the largest; -1 when there is none.
	FirstTimestamp, MaxTimestamp int64
}

// SegmentSummary is what ls tells of a segment.
type SegmentSummary struct {
	Segment
	Contents
	Index  IndexState
	Damage *Damage // the first that was met; what lies behind it in the segment is not counted
}

// Producer is what a partition's records, or its newest snapshot, say of a producer.
type Producer struct {
	ID             int64
	Epoch          int16
	LastOffset     int64
	LastSequence   int32
	TxnFirstOffset int64 // -1: no transaction is open
}

// Summary is what ls tells of a partition.
type Summary struct {
	*Partition
	Contents
	Segments []SegmentSummary
	LogStart int64 // where reading begins
	// Producers by id, as of an offset: when it is not Next, they come from a snapshot.
	Producers     map[int64]Producer
	ProducersAsOf int64
	Index         IndexState // the worst of the segments'
	Journaled     int64      // bytes that the journal has and the segments do not; they count above
	Damage        int        // segments that have some
}

// Open counts the transactions that are open.
func (s *Summary) Open() (n int) {
	for _, p := range s.Producers {
		if p.TxnFirstOffset >= 0 {
			n++
		}
	}
	return n
}

// quickBytes is up to what length a log is read whole when it need not be.
const quickBytes = 64 << 10

// Surveyor makes summaries. It keeps a buffer, so one is not for concurrent use.
type Surveyor struct {
	FS vfs.FS
	// Count has every batch looked at. Otherwise long segments are judged by their ends: their first batch,
	// their indexes and what follows those.
	Count bool
	// Starts are the log start offsets that lie beside the partitions (Kafka's log-start-offset-checkpoint), by Partition.Name.
	Starts map[string]int64
	// Live says that a server may be writing: the end of a last segment that is torn is no damage then.
	Live bool
	// Overlay is what FS shows of the journal; nil for none.
	Overlay *Overlay

	buf []byte
}

// Partition looks at all segments of p. It fails when a file cannot be read, not when it is damaged.
func (v *Surveyor) Partition(p *Partition) (*Summary, error) {
	s := &Summary{Partition: p, Producers: map[int64]Producer{}, Index: IndexOK}
	s.Contents = Contents{First: -1, Counted: true, FirstTimestamp: -1, MaxTimestamp: -1}
	for i := range p.Segments {
		if !p.Segments[i].Log.There() {
			continue
		}
		one, err := v.segment(p, i, s)
		if err != nil {
			return nil, err
		}
		if v.Live && i == len(p.Segments)-1 && one.Damage != nil && one.Damage.Torn {
			one.Damage = nil
		}
		s.Segments = append(s.Segments, one)
		s.merge(&one)
	}
	s.Journaled = v.Overlay.Bytes(p)
	if err := v.start(s); err != nil {
		return nil, err
	}
	s.ProducersAsOf = s.Next
	if s.Counted {
		return s, nil
	}
	return s, v.snapshot(s)
}

func (s *Summary) merge(one *SegmentSummary) {
	c := &s.Contents
	if c.First < 0 {
		c.First = one.First
	}
	if c.FirstTimestamp < 0 {
		c.FirstTimestamp = one.FirstTimestamp
	}
	c.Next = max(c.Next, one.Next)
	c.Counted = c.Counted && one.Counted
	c.Records += one.Records
	c.Control += one.Control
	c.Batches += one.Batches
	c.Bytes += one.Bytes
	for i, n := range one.Codecs {
		c.Codecs[i] += n
	}
	c.MaxTimestamp = max(c.MaxTimestamp, one.MaxTimestamp)
	s.Index = worse(s.Index, one.Index)
	if one.Damage != nil {
		s.Damage++
	}
}

func worse(a, b IndexState) IndexState {
	for _, x := range []IndexState{IndexDamaged, IndexMissing, IndexNone} {
		if a == x || b == x {
			return x
		}
	}
	return IndexOK
}

// start finds the log start offset.
func (v *Surveyor) start(s *Summary) error {
	s.LogStart = max(0, s.First)
	if len(s.Segments) > 0 {
		s.LogStart = s.Segments[0].Base
	}
	s.LogStart = max(s.LogStart, v.Starts[s.Name()])
	if !s.Partition.LogStart.There() {
		return nil
	}
	text, err := vfs.ReadFile(v.FS, s.Partition.LogStart.Path)
	if err != nil {
		return err
	}
	if offset, err := segment.DecodeLogStart(text); err == nil { // else the server goes without it, too
		s.LogStart = max(s.LogStart, offset)
	}
	s.Next = max(s.Next, s.LogStart)
	return nil
}

// add counts one batch.
func (c *Contents) add(h batch.Header) {
	if c.First < 0 {
		c.First = h.BaseOffset
	}
	first := h.BaseTimestamp
	if h.LogAppendTime() || h.HasDeleteHorizon() {
		first = h.MaxTimestamp
	}
	if c.FirstTimestamp < 0 {
		c.FirstTimestamp = first
	}
	c.MaxTimestamp = max(c.MaxTimestamp, h.MaxTimestamp)
	c.Next = h.NextOffset()
	c.Batches++
	if h.IsControl() {
		c.Control += int64(h.RecordCount)
	} else {
		c.Records += int64(h.RecordCount)
	}
	if codec := h.Codec(); codec.Known() {
		c.Codecs[codec]++
	}
}

// produced notes whose batch it is. A marker ends its producer's transaction.
func (s *Summary) produced(h batch.Header) {
	if !h.HasProducerID() {
		return
	}
	p, known := s.Producers[h.ProducerID]
	if !known {
		p = Producer{ID: h.ProducerID, TxnFirstOffset: -1, LastOffset: -1, LastSequence: batch.NoSequence}
	}
	p.Epoch = h.ProducerEpoch
	switch {
	case h.IsControl():
		p.TxnFirstOffset = -1
	case h.IsTransactional() && p.TxnFirstOffset < 0:
		p.TxnFirstOffset = h.BaseOffset
	}
	if !h.IsControl() {
		p.LastOffset, p.LastSequence = h.LastOffset(), h.LastSequence()
	}
	s.Producers[h.ProducerID] = p
}

func (v *Surveyor) segment(p *Partition, i int, s *Summary) (SegmentSummary, error) {
	seg := p.Segments[i]
	out := SegmentSummary{Segment: seg}
	out.Contents = Contents{First: -1, Next: seg.Base, Bytes: seg.Log.Size, FirstTimestamp: -1, MaxTimestamp: -1}
	var err error
	switch {
	case seg.Log.Size <= quickBytes:
		err = v.whole(&out, s)
	case v.Count:
		err = v.count(&out, s)
	default:
		err = v.ends(&out, s)
	}
	if err == nil {
		err = v.index(&out, i == len(p.Segments)-1)
	}
	return out, err
}

// whole reads a short log.
func (v *Surveyor) whole(out *SegmentSummary, s *Summary) error {
	b, err := v.read(out.Log.Path, 0, int(out.Log.Size))
	if err != nil {
		return err
	}
	out.Counted = true
	position, least := int64(0), out.Base
	for len(b) > 0 {
		h, err := batch.Whole(b)
		if err == nil && h.BaseOffset < least {
			err = fmt.Errorf("%w: offset %d follows %d", errOrder, h.BaseOffset, least-1)
		}
		if err != nil {
			if len(b) >= vfs.BlockSize || !segment.IsZero(b) {
				out.damaged(position, least, err)
			}
			break
		}
		out.add(h)
		s.produced(h)
		b = b[h.Size():]
		position, least = position+int64(h.Size()), h.NextOffset()
	}
	return nil
}

func (out *SegmentSummary) damaged(position, least int64, cause error) {
	out.Damage = &Damage{File: out.Log.Path, Position: position, Offset: least, What: what(cause), Torn: errors.Is(cause, batch.ErrTruncated), Cause: cause}
}

// count goes through all headers.
func (v *Surveyor) count(out *SegmentSummary, s *Summary) error {
	b, err := OpenBatches(v.FS, out.Log.Path, Options{Structure: true, Base: out.Base})
	if err != nil {
		return err
	}
	defer b.Close()
	out.Counted = true
	for b.Next() {
		out.add(b.Header())
		s.produced(b.Header())
	}
	if b.Err() != nil && !errors.As(b.Err(), &out.Damage) {
		return b.Err()
	}
	return nil
}

// ends reads the first batch of a long log, and those behind its last index entry.
func (v *Surveyor) ends(out *SegmentSummary, s *Summary) error {
	b, err := v.read(out.Log.Path, 0, batch.HeaderSize)
	if err != nil {
		return err
	}
	h, err := batch.ReadHeader(b)
	if err != nil {
		return v.count(out, s) // which says what is wrong
	}
	var first Contents
	first.First, first.FirstTimestamp, first.MaxTimestamp = -1, -1, -1
	first.add(h)
	position, largest, err := v.lastEntry(&out.Segment)
	if err != nil {
		return err
	}
	if position < 0 {
		return v.count(out, s)
	}
	tail := Contents{First: -1, MaxTimestamp: largest, FirstTimestamp: -1}
	damage, err := v.walk(out, position, &tail)
	if err != nil {
		return err
	}
	if damage != nil {
		out.Damage = damage
	}
	out.First, out.FirstTimestamp = first.First, first.FirstTimestamp
	out.Next, out.MaxTimestamp = tail.Next, max(tail.MaxTimestamp, first.MaxTimestamp)
	out.Records = out.Next - out.First
	return nil
}

// walk counts the batches from a position on, with a read for each few.
func (v *Surveyor) walk(out *SegmentSummary, position int64, c *Contents) (*Damage, error) {
	f, err := v.FS.OpenFile(out.Log.Path, vfs.ReadOnly, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	least := out.Base
	buf, at := v.buffer(4<<10), int64(-1)
	n := 0
	for position < out.Log.Size {
		if at < 0 || position < at || position+batch.HeaderSize > at+int64(n) {
			at = position
			if n, err = f.ReadAt(buf, at); err != nil && !errors.Is(err, io.EOF) {
				return nil, err
			}
		}
		rest := buf[position-at : n]
		h, err := batch.ReadHeader(rest)
		if err == nil && position+int64(h.Size()) > out.Log.Size {
			err = fmt.Errorf("%w: batch of %d bytes, file ends after %d", batch.ErrTruncated, h.Size(), out.Log.Size-position)
		}
		if err == nil && h.BaseOffset < least {
			err = fmt.Errorf("%w: offset %d follows %d", errOrder, h.BaseOffset, least-1)
		}
		if err != nil {
			if left := out.Log.Size - position; left < vfs.BlockSize && segment.IsZero(rest[:min(int64(len(rest)), left)]) {
				return nil, nil
			}
			d := SegmentSummary{Segment: out.Segment}
			d.damaged(position, least, err)
			return d.Damage, nil
		}
		c.add(h)
		least = h.NextOffset()
		position += int64(h.Size())
	}
	return nil, nil
}

// lastEntry gives where the batch of the last index entry begins and the largest timestamp that the time index
// knows; position -1 when the index cannot be used.
func (v *Surveyor) lastEntry(s *Segment) (position, largest int64, err error) {
	position, largest = -1, -1
	if s.Index.There() {
		n, err := v.entries(s.Index, segment.OffsetEntrySize)
		if err != nil || n == 0 {
			return -1, -1, err
		}
		b, err := v.read(s.Index.Path, (n-1)*segment.OffsetEntrySize, segment.OffsetEntrySize)
		if err != nil {
			return -1, -1, err
		}
		e := segment.DecodeOffsetEntry(s.Base, b)
		if e.Position+batch.HeaderSize > s.Log.Size {
			return -1, -1, nil
		}
		b, err = v.read(s.Log.Path, e.Position, batch.HeaderSize)
		if err != nil {
			return -1, -1, err
		}
		if h, err := batch.ReadHeader(b); err != nil || h.LastOffset() != e.Offset {
			return -1, -1, nil
		}
		position = e.Position
	}
	if s.TimeIndex.There() {
		n, err := v.entries(s.TimeIndex, segment.TimeEntrySize)
		if err != nil {
			return -1, -1, err
		}
		if n > 0 {
			b, err := v.read(s.TimeIndex.Path, (n-1)*segment.TimeEntrySize, segment.TimeEntrySize)
			if err != nil {
				return -1, -1, err
			}
			largest = segment.DecodeTimeEntry(s.Base, b).Timestamp
		}
	}
	if position >= 0 || !s.Checkpoint.There() {
		return position, largest, nil
	}
	text, err := vfs.ReadFile(v.FS, s.Checkpoint.Path)
	if err != nil {
		return -1, -1, err
	}
	cp, err := segment.DecodeCheckpoint(text)
	if err != nil || cp.Base != s.Base || len(cp.Offsets) == 0 {
		return -1, -1, nil
	}
	return cp.Offsets[len(cp.Offsets)-1].Position, cp.Largest.Timestamp, nil
}

// entries counts those of an index: Kafka makes the index of a live segment longer than it is filled, with zeros.
func (v *Surveyor) entries(f File, size int) (int64, error) {
	n := f.Size / int64(size)
	if n == 0 {
		return 0, nil
	}
	var failed error
	filled := func(i int64) bool {
		b, err := v.read(f.Path, i*int64(size), size)
		failed = errors.Join(failed, err)
		return err == nil && !segment.IsZero(b)
	}
	if filled(n - 1) {
		return n, failed
	}
	return int64(sort.Search(int(n), func(i int) bool { return !filled(int64(i)) })), failed
}

// index judges the index files of a segment.
func (v *Surveyor) index(out *SegmentSummary, last bool) error {
	offsets, times := out.Segment.Index, out.TimeIndex
	switch {
	case !offsets.There() && !times.There():
		out.Index = IndexNone
	case !offsets.There() || !times.There():
		out.Index = IndexMissing
	case offsets.Size%segment.OffsetEntrySize != 0 || times.Size%segment.TimeEntrySize != 0:
		out.Index = IndexDamaged
	default:
		out.Index = IndexOK
		n, err := v.entries(offsets, segment.OffsetEntrySize)
		if err != nil {
			return err
		}
		if n > 0 {
			position, _, err := v.lastEntry(&Segment{Base: out.Base, Log: out.Log, Index: offsets})
			if err != nil {
				return err
			}
			if position < 0 {
				out.Index = IndexDamaged
			}
		}
	}
	return nil
}

func (v *Surveyor) buffer(n int) []byte {
	if cap(v.buf) < n {
		v.buf = make([]byte, n)
	}
	return v.buf[:n]
}

// read gives n bytes of a file, fewer where it ends earlier. They hold until the next call.
func (v *Surveyor) read(name string, at int64, n int) ([]byte, error) {
	f, err := v.FS.OpenFile(name, vfs.ReadOnly, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := v.buffer(n)
	got, err := f.ReadAt(b, at)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b[:got], err
}
