package inspect

import (
	"cmp"
	"context"
	"math"
	"math/bits"
	"slices"

	"github.com/millrace/millrace/segment/batch"
)

// Spread counts sizes in buckets that are narrower than four percent of what they hold.
type Spread struct {
	N, Sum, Min, Max int64
	buckets          [spreadBuckets]int64
}

const (
	spreadBits    = 5 // log2 of the buckets for each doubling
	spreadBuckets = (41 - spreadBits) << spreadBits
)

// Add counts a size.
func (d *Spread) Add(size int64) {
	if d.N == 0 || size < d.Min {
		d.Min = size
	}
	d.N++
	d.Sum += size
	d.Max = max(d.Max, size)
	d.buckets[spreadBucket(size)]++
}

func spreadBucket(size int64) int {
	size = min(max(size, 0), 1<<40-1)
	shift := max(bits.Len64(uint64(size))-spreadBits-1, 0)
	return shift<<spreadBits + int(size>>shift)
}

// merge adds what another has counted.
func (d *Spread) merge(o *Spread) {
	if o.N == 0 {
		return
	}
	if d.N == 0 || o.Min < d.Min {
		d.Min = o.Min
	}
	d.N, d.Sum, d.Max = d.N+o.N, d.Sum+o.Sum, max(d.Max, o.Max)
	for i, n := range o.buckets {
		d.buckets[i] += n
	}
}

// Mean is the sum divided by how many there are, 0 for none.
func (d *Spread) Mean() float64 {
	if d.N == 0 {
		return 0
	}
	return float64(d.Sum) / float64(d.N)
}

// Quantile is a size that the given share of all is not larger than, to four percent.
func (d *Spread) Quantile(share float64) int64 {
	var seen int64
	for i, n := range d.buckets {
		if seen += n; n > 0 && seen > min(int64(float64(d.N)*share), d.N-1) {
			if i < 2<<spreadBits {
				return int64(i)
			}
			shift := i>>spreadBits - 1
			low := int64(i-shift<<spreadBits) << shift
			return min(max(low+int64(1)<<shift/2, d.Min), d.Max)
		}
	}
	return 0
}

// CodecStats is what was stored with one codec.
type CodecStats struct {
	Batches, Records int64
	Stored           int64 // bytes of records as they lie there, without batch headers
	Plain            int64 // the same, decompressed
}

// Gap is a time without records, by the largest timestamps of the batches around it.
type Gap struct {
	From, To  int64 // milliseconds
	Partition string
	Offset    int64 // of the first record behind it
}

// Stats is what there is to plan with. It takes the same memory for any amount of records.
type Stats struct {
	Partitions, Segments, Batches, Records, Control int64
	Bytes                                           int64 // of batches
	First, Last                                     int64 // the smallest and the largest timestamp of batches; -1 for none
	Late                                            int64 // batches whose largest timestamp is smaller than that of one before
	Damaged                                         int   // places that are damaged, and passed over
	BatchSize, BatchRecords                         Spread
	RecordSize, KeySize, ValueSize                  Spread // of records, without what frames them
	Codecs                                          [batch.Zstd + 1]CodecStats
	NoKey, NoValue, NoTimestamp, Headers            int64 // records with a null key, a null value, without a time; headers of all
	Keys                                            Talkers
	Gaps                                            []Gap // the longest, longest first
	Rate                                            Rate
	decode                                          bool
}

// NewStats makes an empty one. Without decode the records stay as they are, and what is told of them is left empty.
func NewStats(decode bool) *Stats { return &Stats{First: -1, Last: -1, decode: decode} }

// keptGaps bounds Stats.Gaps.
const keptGaps = 10

// Add reads a log to its end. It fails when the file system does, or ctx ends; batches that are damaged are passed over, and so are the records of
// one that cannot be decoded.
func (s *Stats) Add(ctx context.Context, name string, l *Log) error {
	s.Partitions++
	s.Segments += int64(len(l.part.Segments))
	last := int64(-1)
	for l.Next() {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		h := l.Header()
		if h.NextOffset() <= l.opts.Start {
			continue
		}
		s.Batches++
		s.Bytes += int64(h.Size())
		if h.IsControl() {
			s.Control += int64(h.RecordCount)
			continue
		}
		s.Records += int64(h.RecordCount)
		s.BatchSize.Add(int64(h.Size()))
		s.BatchRecords.Add(int64(h.RecordCount))
		s.time(name, h, &last)
		if err := s.records(h, l); err != nil {
			return err
		}
	}
	s.Damaged += l.Damaged()
	return l.Err()
}

// time notes when the batch was.
func (s *Stats) time(name string, h batch.Header, last *int64) {
	at := h.MaxTimestamp
	if at < 0 {
		s.NoTimestamp += int64(h.RecordCount)
		return
	}
	first := at
	if h.BaseTimestamp >= 0 && !h.LogAppendTime() && !h.HasDeleteHorizon() {
		first = min(h.BaseTimestamp, at)
	}
	if s.First < 0 || first < s.First {
		s.First = first
	}
	s.Last = max(s.Last, at)
	s.Rate.add(at, int64(h.RecordCount), int64(h.Size()))
	switch {
	case *last < 0:
	case at < *last:
		s.Late++
	default:
		s.gap(Gap{*last, at, name, h.BaseOffset})
	}
	*last = max(*last, at)
}

func (s *Stats) gap(g Gap) {
	if g.To == g.From || len(s.Gaps) == keptGaps && g.To-g.From <= s.Gaps[keptGaps-1].To-s.Gaps[keptGaps-1].From {
		return
	}
	s.Gaps = append(s.Gaps, g)
	slices.SortStableFunc(s.Gaps, func(a, b Gap) int { return cmp.Compare(b.To-b.From, a.To-a.From) })
	s.Gaps = s.Gaps[:min(len(s.Gaps), keptGaps)]
}

// records looks at the records of a batch.
func (s *Stats) records(h batch.Header, l *Log) error {
	codec := h.Codec()
	if int(codec) >= len(s.Codecs) {
		s.Damaged++
		return nil
	}
	c := &s.Codecs[codec]
	c.Batches++
	c.Records += int64(h.RecordCount)
	c.Stored += int64(h.Size() - batch.HeaderSize)
	if !s.decode {
		return nil
	}
	whole, err := l.Bytes()
	if err != nil {
		return err
	}
	for r, err := range batch.Records(whole, 0) {
		if err != nil {
			s.Damaged++
			break
		}
		c.Plain += int64(r.Size())
		size := len(r.Key) + len(r.Value)
		for _, h := range r.Headers {
			size += len(h.Key) + len(h.Value)
		}
		s.Headers += int64(len(r.Headers))
		s.RecordSize.Add(int64(size))
		if r.Value == nil {
			s.NoValue++
		} else {
			s.ValueSize.Add(int64(len(r.Value)))
		}
		if r.Key == nil {
			s.NoKey++
			continue
		}
		s.KeySize.Add(int64(len(r.Key)))
		s.Keys.add(r.Key, int64(size))
	}
	return nil
}

// Merge adds what another has counted.
func (s *Stats) Merge(o *Stats) {
	s.Partitions, s.Segments, s.Batches, s.Records, s.Control = s.Partitions+o.Partitions, s.Segments+o.Segments, s.Batches+o.Batches, s.Records+o.Records, s.Control+o.Control
	s.Bytes, s.Late, s.Damaged = s.Bytes+o.Bytes, s.Late+o.Late, s.Damaged+o.Damaged
	s.NoKey, s.NoValue, s.NoTimestamp, s.Headers = s.NoKey+o.NoKey, s.NoValue+o.NoValue, s.NoTimestamp+o.NoTimestamp, s.Headers+o.Headers
	if s.First < 0 || o.First >= 0 && o.First < s.First {
		s.First = o.First
	}
	s.Last = max(s.Last, o.Last)
	for _, each := range [][2]*Spread{{&s.BatchSize, &o.BatchSize}, {&s.BatchRecords, &o.BatchRecords}, {&s.RecordSize, &o.RecordSize}, {&s.KeySize, &o.KeySize}, {&s.ValueSize, &o.ValueSize}} {
		each[0].merge(each[1])
	}
	for i := range s.Codecs {
		a, b := &s.Codecs[i], &o.Codecs[i]
		a.Batches, a.Records, a.Stored, a.Plain = a.Batches+b.Batches, a.Records+b.Records, a.Stored+b.Stored, a.Plain+b.Plain
	}
	for _, g := range o.Gaps {
		s.gap(g)
	}
	s.Keys.merge(&o.Keys)
	s.Rate.merge(&o.Rate)
}

// Rate counts what was written in slices of time, which become wider as there are more of them.
type Rate struct {
	Width  int64 // of a slice, in milliseconds
	slices map[int64]*slice
}

type slice struct{ records, bytes int64 }

const maxSlices = 4096

func (r *Rate) add(at, records, bytes int64) {
	if r.slices == nil {
		r.slices, r.Width = map[int64]*slice{}, 1000
	}
	r.into(at/r.Width, records, bytes)
	for len(r.slices) > maxSlices {
		r.widen()
	}
}

func (r *Rate) into(key, records, bytes int64) {
	x := r.slices[key]
	if x == nil {
		x = &slice{}
		r.slices[key] = x
	}
	x.records, x.bytes = x.records+records, x.bytes+bytes
}

// widen makes the slices as wide as people count time, or twice as wide.
func (r *Rate) widen() {
	factor := map[int64]int64{1000: 10, 10_000: 6, 60_000: 10, 600_000: 6, 3_600_000: 24}[r.Width]
	factor = max(factor, 2)
	old := r.slices
	r.slices, r.Width = make(map[int64]*slice, maxSlices), r.Width*factor
	for key, x := range old {
		r.into(key/factor, x.records, x.bytes)
	}
}

func (r *Rate) merge(o *Rate) {
	if o.slices == nil {
		return
	}
	if r.slices == nil {
		r.slices, r.Width = map[int64]*slice{}, o.Width
	}
	for r.Width < o.Width {
		r.widen()
	}
	for key, x := range o.slices {
		r.into(key*o.Width/r.Width, x.records, x.bytes)
	}
	for len(r.slices) > maxSlices {
		r.widen()
	}
}

// Busiest is the slice with the most bytes: when it begins, and what was written in it. ok is false when there is none.
func (r *Rate) Busiest() (at, records, bytes int64, ok bool) {
	at = math.MaxInt64
	for key, x := range r.slices {
		if x.bytes > bytes || x.bytes == bytes && key*r.Width < at {
			at, records, bytes, ok = key*r.Width, x.records, x.bytes, true
		}
	}
	return at, records, bytes, ok
}

// Active is how many slices have anything.
func (r *Rate) Active() int { return len(r.slices) }
