package inspect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// DifferenceKind says how two logs differ in a range of offsets.
type DifferenceKind string

// The kinds of differences.
const (
	OnlyInA    DifferenceKind = "only in A"
	OnlyInB    DifferenceKind = "only in B"
	HiddenInA  DifferenceKind = "damaged in A" // what B has where A is damaged
	HiddenInB  DifferenceKind = "damaged in B"
	OtherEpoch DifferenceKind = "leader epoch"   // the same batches, but for it
	OtherForm  DifferenceKind = "other form"     // the same records, in batches of another shape, codec or producer
	OtherBytes DifferenceKind = "other records"  // not the same records
	Unreadable DifferenceKind = "cannot be read" // the records of one cannot be decoded
)

// Difference is a range of offsets in which two logs differ in one way.
type Difference struct {
	Kind        DifferenceKind
	First, Last int64 // offsets
	Batches     int64 // of A, or of B where A has none
	What        string
	// Where the range begins in either; "" where one has nothing.
	FileA, FileB         string
	PositionA, PositionB int64
}

// Comparison is what Compare has found.
type Comparison struct {
	StartA, StartB   int64 // log start offsets: what lies before them is as good as deleted, and not compared
	EndA, EndB       int64 // that follow the last record
	Equal            int64 // batches that are the same byte for byte
	EqualBytes       int64
	EqualTo          int64 // up to this offset both are the same: from the larger start on
	Differences      []Difference
	More             int // than there is room for in Differences
	DamageA, DamageB []*Damage
	Damaged          int // in both together, what is torn at their ends left out
	TornA, TornB     *Damage
	EpochsA, EpochsB []segment.EpochEntry
	EpochsDiffer     bool // as far as both know them: from the larger start to the smaller end
}

// Same tells that neither has a batch, or knows an epoch, that the other has not. Where segments end does not matter.
func (c *Comparison) Same() bool {
	return len(c.Differences) == 0 && !c.EpochsDiffer && c.EndA == c.EndB && c.Damaged == 0
}

// Hidden tells that all that differs may do so because one of the two is damaged.
func (c *Comparison) Hidden() bool {
	for _, d := range c.Differences {
		if d.Kind != HiddenInA && d.Kind != HiddenInB {
			return false
		}
	}
	return c.Damaged > 0 && c.More == 0 && !c.EpochsDiffer
}

// MaxDifferences bounds Comparison.Differences.
const MaxDifferences = 100

// Compare reads two logs side by side, in constant memory. It fails when the file system does or ctx ends; damage is part of the result. What
// only one of them has is told as ranges of offsets, as is what differs.
func Compare(ctx context.Context, a, b *Log) (*Comparison, error) {
	c := &comparer{Comparison: &Comparison{StartA: a.opts.Start, StartB: b.opts.Start}, a: side{log: a}, b: side{log: b}}
	c.a.next()
	c.b.next()
	for c.a.there || c.b.there {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		if err := c.step(); err != nil {
			return nil, err
		}
	}
	if a.Err() != nil {
		return nil, a.Err()
	}
	if b.Err() != nil {
		return nil, b.Err()
	}
	c.EndA, c.EndB = a.NextOffset(), b.NextOffset()
	c.EqualTo = min(c.EndA, c.EndB)
	for _, d := range c.Differences {
		if d.Last >= max(c.StartA, c.StartB) {
			c.EqualTo = min(c.EqualTo, d.First)
			break
		}
	}
	c.EqualTo = max(c.EqualTo, max(c.StartA, c.StartB))
	c.DamageA, c.DamageB, c.Damaged, c.TornA, c.TornB = a.Damage(), b.Damage(), a.Damaged()+b.Damaged(), a.Torn(), b.Torn()
	var err error
	if c.EpochsA, err = a.epochs(); err == nil {
		c.EpochsB, err = b.epochs()
	}
	c.compareEpochs()
	return c.Comparison, err
}

// side is one of the two logs.
type side struct {
	log    *Log
	h      batch.Header
	there  bool
	met    int  // damage so far
	hiding bool // there was some between the last batch and this one
}

// next goes to the next batch that is not wholly before the log start offset.
func (s *side) next() {
	defer func() { s.met, s.hiding = s.log.Damaged(), s.log.Damaged() > s.met }()
	for s.there = s.log.Next(); s.there; s.there = s.log.Next() {
		if s.h = s.log.Header(); s.h.NextOffset() > s.log.opts.Start {
			return
		}
	}
}

type comparer struct {
	*Comparison
	a, b side
	open bool // the last of Differences may go on
}

// step compares the next batches of both, or passes over what only one has.
func (c *comparer) step() error {
	a, b := &c.a, &c.b
	switch {
	case !b.there || a.there && a.h.NextOffset() <= b.h.BaseOffset:
		c.note(Difference{Kind: choose(b.hiding, HiddenInB, OnlyInA), First: a.h.BaseOffset, Last: a.h.LastOffset(), FileA: a.log.File(), PositionA: a.log.Position()})
		a.next()
	case !a.there || b.h.NextOffset() <= a.h.BaseOffset:
		c.note(Difference{Kind: choose(a.hiding, HiddenInA, OnlyInB), First: b.h.BaseOffset, Last: b.h.LastOffset(), FileB: b.log.File(), PositionB: b.log.Position()})
		b.next()
	case a.h.BaseOffset == b.h.BaseOffset && a.h.LastOffsetDelta == b.h.LastOffsetDelta:
		if err := c.both(); err != nil {
			return err
		}
		a.next()
		b.next()
	default:
		return c.cutElsewhere()
	}
	return nil
}

func choose(hidden bool, yes, no DifferenceKind) DifferenceKind {
	if hidden {
		return yes
	}
	return no
}

// cutElsewhere compares the records of batches that do not begin and end where the other's do, up to where the next
// ones of both begin behind those of either.
func (c *comparer) cutElsewhere() error {
	d := c.begin(OtherBytes)
	d.Batches = -1 // note counts one
	seed := maphash.MakeSeed()
	var sums [2]maphash.Hash
	var failure error
	take := func(i int, s *side) error {
		whole, err := s.log.Bytes()
		if err != nil {
			return err
		}
		failure = errors.Join(failure, addRecords(&sums[i], s.h, whole, s.log.opts.Start))
		if d.Last = max(d.Last, s.h.LastOffset()); i == 0 {
			d.Batches++
		}
		s.next()
		return nil
	}
	for i := range sums {
		sums[i].SetSeed(seed)
	}
	endA, endB := c.a.h.NextOffset(), c.b.h.NextOffset()
	err := errors.Join(take(0, &c.a), take(1, &c.b))
	for err == nil {
		if c.a.there && c.a.h.BaseOffset < endB {
			endA = c.a.h.NextOffset()
			err = take(0, &c.a)
		} else if c.b.there && c.b.h.BaseOffset < endA {
			endB = c.b.h.NextOffset()
			err = take(1, &c.b)
		} else {
			break
		}
	}
	if err != nil {
		return err
	}
	switch {
	case failure != nil:
		d.Kind, d.What = Unreadable, failure.Error()
	case sums[0].Sum64() == sums[1].Sum64():
		d.Kind, d.What = OtherForm, "batches that begin and end elsewhere"
	default:
		d.What = "batches that begin and end elsewhere"
	}
	c.note(d)
	return nil
}

// begin makes a difference that begins at the batches of both.
func (c *comparer) begin(kind DifferenceKind) Difference {
	return Difference{
		Kind: kind, First: min(c.a.h.BaseOffset, c.b.h.BaseOffset), Last: max(c.a.h.LastOffset(), c.b.h.LastOffset()),
		FileA: c.a.log.File(), PositionA: c.a.log.Position(), FileB: c.b.log.File(), PositionB: c.b.log.Position(),
	}
}

// both compares two batches of the same offsets.
func (c *comparer) both() error {
	inA, err := c.a.log.Bytes()
	if err != nil {
		return err
	}
	inB, err := c.b.log.Bytes()
	if err != nil {
		return err
	}
	if bytes.Equal(inA, inB) {
		c.Equal++
		c.EqualBytes += int64(len(inA))
		c.open = false
		return nil
	}
	d := c.begin(OtherBytes)
	ha, hb := c.a.h, c.b.h
	switch {
	case bytes.Equal(inA[batch.MagicAt:], inB[batch.MagicAt:]) && ha.Length == hb.Length:
		d.Kind, d.What = OtherEpoch, fmt.Sprintf("epoch %d in A, %d in B", ha.PartitionLeaderEpoch, hb.PartitionLeaderEpoch)
	default:
		d.What = headersDiffer(ha, hb)
		same, err := sameRecords(&c.a, &c.b, inA, inB)
		switch {
		case err != nil:
			d.Kind, d.What = Unreadable, err.Error()
		case same:
			d.Kind = OtherForm
		}
	}
	c.note(d)
	return nil
}

// note appends a difference, or lets the last one go on.
func (c *comparer) note(d Difference) {
	d.Batches++
	if n := len(c.Differences); n > 0 && c.open && c.More == 0 {
		last := &c.Differences[n-1]
		if last.Kind == d.Kind && last.What == d.What {
			last.Last = d.Last
			last.Batches += d.Batches
			return
		}
	}
	c.open = true
	if len(c.Differences) >= MaxDifferences {
		c.More++
		return
	}
	c.Differences = append(c.Differences, d)
}

// headersDiffer names the fields that differ.
func headersDiffer(a, b batch.Header) string {
	var words []string
	for _, field := range []struct {
		name string
		a, b any
	}{
		{"codec", a.Codec(), b.Codec()}, {"records", a.RecordCount, b.RecordCount},
		{"base timestamp", a.BaseTimestamp, b.BaseTimestamp}, {"largest timestamp", a.MaxTimestamp, b.MaxTimestamp},
		{"log append time", a.LogAppendTime(), b.LogAppendTime()}, {"transactional", a.IsTransactional(), b.IsTransactional()}, {"control", a.IsControl(), b.IsControl()},
		{"producer", a.ProducerID, b.ProducerID}, {"producer epoch", a.ProducerEpoch, b.ProducerEpoch}, {"sequence", a.BaseSequence, b.BaseSequence},
		{"leader epoch", a.PartitionLeaderEpoch, b.PartitionLeaderEpoch},
	} {
		if field.a != field.b {
			words = append(words, fmt.Sprintf("%s %v in A, %v in B", field.name, field.a, field.b))
		}
	}
	if len(words) == 0 {
		return "the headers say the same"
	}
	return strings.Join(words, "; ")
}

// sameRecords compares the records of two batches: offsets, timestamps, keys, values and headers.
func sameRecords(a, b *side, inA, inB []byte) (bool, error) {
	var sumA, sumB maphash.Hash
	sumB.SetSeed(sumA.Seed())
	if err := errors.Join(addRecords(&sumA, a.h, inA, a.log.opts.Start), addRecords(&sumB, b.h, inB, b.log.opts.Start)); err != nil {
		return false, err
	}
	return sumA.Sum64() == sumB.Sum64(), nil
}

// addRecords adds what the records of a batch say, from an offset on: those before the log start offset go with their batch, and
// nobody is given them.
func addRecords(sum *maphash.Hash, h batch.Header, whole []byte, from int64) error {
	for r, err := range batch.Records(whole, 0) {
		if err != nil {
			return err
		}
		if h.Offset(&r) < from {
			continue
		}
		fmt.Fprintf(sum, "%d %d %t %t %d %t %d ", h.Offset(&r), h.Timestamp(&r), h.IsControl(), r.Key == nil, len(r.Key), r.Value == nil, len(r.Value))
		sum.Write(r.Key)
		sum.Write(r.Value)
		for _, header := range r.Headers {
			fmt.Fprintf(sum, "%q %t %q ", header.Key, header.Value == nil, header.Value)
		}
	}
	return nil
}

// epochs reads the leader epochs of a log, nil when it has no file of them.
func (l *Log) epochs() ([]segment.EpochEntry, error) {
	if !l.part.Epochs.There() {
		return nil, nil
	}
	text, err := vfs.ReadFile(l.fs, l.part.Epochs.Path)
	if err != nil {
		return nil, err
	}
	list, err := segment.DecodeEpochs(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.part.Epochs.Path, err)
	}
	return list, nil
}

// compareEpochs looks at what both must know: each epoch that begins within what both hold. The first that a log knows begins where its
// records do, be it since earlier ones were deleted; and what one has not written down yet is in its records, which are compared.
func (c *comparer) compareEpochs() {
	from, to := max(c.StartA, c.StartB), min(c.EndA, c.EndB)
	starts := map[int32]int64{}
	for _, e := range c.EpochsA[min(1, len(c.EpochsA)):] {
		starts[e.Epoch] = e.Start
	}
	for _, e := range c.EpochsB[min(1, len(c.EpochsB)):] {
		if start, known := starts[e.Epoch]; known && start != e.Start && max(start, e.Start) > from && min(start, e.Start) < to {
			c.EpochsDiffer = true
		}
	}
}
