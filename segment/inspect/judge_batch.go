package inspect

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/batch"
)

// batch takes the next batch that is whole; the one before it can be judged now.
func (j *judge) batch(b *Batches) {
	h := b.Header()
	adjacent := j.held.there && j.held.position+int64(j.held.header.Size()) == b.Position()
	j.settle(h.BaseOffset, adjacent)
	j.held = held{there: true, header: h, position: b.Position()}
	if j.now.summed {
		batch.PutHeader(j.prefix[:], h)
		j.now.sum = batch.ExtendSum(j.now.sum, j.prefix[:], h)
	}
	if j.opts.Records || h.IsControl() && j.part.Layout == Kafka {
		j.records(b)
	}
}

// records reads every record of a batch.
func (j *judge) records(b *Batches) {
	whole, err := b.Bytes()
	if errors.Is(err, ErrTooLong) {
		return
	}
	if err == nil {
		h, n := b.Header(), 0
		for r, rerr := range batch.Records(whole, 0) {
			if err = rerr; err != nil {
				break
			}
			if n == 0 && h.IsControl() && len(r.Key) >= 4 {
				j.held.aborted = r.Key[2] == 0 && r.Key[3] == 0
			}
			n++
		}
	}
	if err != nil && j.opts.Records {
		f := about(Harm, b.Name(), SaidRecords, plain(err))
		f.Position, f.Bytes, f.FirstOffset, f.LastOffset = b.Position(), int64(b.Header().Size()), b.Header().BaseOffset, b.Header().LastOffset()
		j.say(f)
	}
}

// settle judges the batch that is held; following is the offset that comes behind it, -1 when nobody knows, and adjacent says that
// nothing lies between the two.
func (j *judge) settle(following int64, adjacent bool) {
	if !j.held.there {
		return
	}
	p := j.held
	j.held = held{}
	h := p.header
	span := int64(h.LastOffsetDelta) + 1
	base, size := h.BaseOffset, int64(h.Size())
	name := j.now.seg.Log.Path
	switch {
	case base == j.next:
	case adjacent && (following == j.next+span || following < 0 && j.leap(base, p.position, span)):
		f := about(Harm, name, SaidOffsetWrong, fmt.Sprintf("it says %d, and stands where %d belongs", base, j.next))
		f.Position, f.FirstOffset, f.LastOffset, f.Bytes = p.position, j.next, j.next+span-1, size
		j.say(f)
		base = j.next
		j.now.fix(fix{position: p.position, offset: base, epoch: -1})
	case base < j.next, following >= j.next && following < base+span:
		found := fmt.Sprintf("offset %d follows %d", base, j.next-1)
		if base > j.next {
			found += fmt.Sprintf(", and is followed by %d", following)
		}
		f := about(Harm, name, segment.SaidDamaged, found)
		f.Position, f.Bytes = p.position, size
		bad := badRange{from: p.position, to: p.position + size, first: j.next, last: j.next - 1}
		if bad.stranger = following <= j.next; !bad.stranger {
			bad.last = following - 1
			f.FirstOffset, f.LastOffset = bad.first, bad.last
		}
		j.say(f)
		j.markBad(bad)
		return
	default:
		f := about(Harm, name, SaidOffsetsGone, "")
		f.Position, f.FirstOffset, f.LastOffset = p.position, j.next, base-1
		if n := len(j.now.bad); n > 0 && j.now.bad[n-1].to == p.position { // they are gone with what was damaged
			j.now.bad[n-1].last = base - 1
		} else if j.part.Layout != Kafka {
			j.now.gaps = append(j.now.gaps, f)
		}
		j.lose(j.next, base-1)
	}
	h.BaseOffset = base
	j.keep(h, p)
}

// leap tells whether the last batch of a log has an offset that nothing explains. A millrace leaves no hole there, unless records
// had been deleted up to that offset; of Kafka's, compaction may, but not further than a segment goes, nor behind where the log has ended.
func (j *judge) leap(base, position, span int64) bool {
	if base <= j.next || position != j.now.end || !j.now.last || j.opts.Held {
		return false
	}
	if j.part.Layout == Millrace {
		return base != j.start
	}
	return base-j.now.seg.Base > math.MaxInt32 ||
		slices.ContainsFunc(j.snapshots, func(s Snapshot) bool { return s.Offset == j.next+span })
}

// keep takes a batch as one of the log.
func (j *judge) keep(h batch.Header, p held) {
	now := j.now
	j.meetSnapshots(h.BaseOffset)
	j.judgeEpoch(&h, p.position)
	if h.HasProducerID() {
		j.judgeSequence(h, p.position)
		j.strict.Update(h, h.BaseOffset)
		j.producers.Update(h, h.BaseOffset)
	}
	if h.IsTransactional() && j.part.Layout == Kafka {
		j.transaction(h, p.aborted)
	}
	now.index.step(h, p.position, now.bad)
	if now.first < 0 {
		now.first = h.BaseOffset
	}
	now.end = p.position + int64(h.Size())
	j.next = h.NextOffset()
	if now.cp != nil && now.cp.Position == now.end {
		now.cpMet = true
		if now.cp.Next != j.next || now.cp.Summed && now.summed && now.cp.Sum != now.sum {
			now.cpOdd = fmt.Sprintf("the first %d bytes are not what they were", now.end)
		}
	}
	now.records += int64(h.RecordCount)
	j.counts.Batches++
	j.counts.Records += int64(h.RecordCount)
	j.counts.Bytes += int64(h.Size())
}

// fix notes what is to be put right; two of one batch are one.
func (s *judged) fix(f fix) {
	for i := len(s.fixes) - 1; i >= max(0, len(s.fixes)-2); i-- {
		if have := &s.fixes[i]; have.position == f.position {
			have.offset, have.epoch = max(have.offset, f.offset), max(have.epoch, f.epoch)
			return
		}
	}
	s.fixes = append(s.fixes, f)
}

// markBad notes bytes that are no batch of the log, and forgets what those before them have begun.
func (j *judge) markBad(r badRange) {
	j.now.markBad(r)
	j.lose(r.first, r.last)
	clear(j.open)
}

// markBad notes bytes that are no batch of the log; those that touch are one.
func (s *judged) markBad(r badRange) {
	s.summed = false
	r.before = s.records
	if n := len(s.bad); n > 0 && s.bad[n-1].to == r.from && !s.bad[n-1].stranger && !r.stranger {
		s.bad[n-1].to, s.bad[n-1].last = r.to, max(s.bad[n-1].last, r.last)
		return
	}
	s.bad = append(s.bad, r)
}

// badMiddle notes damage behind which there is an intact batch.
func (j *judge) badMiddle(d *Damage, b *Batches) {
	f := about(Harm, b.Name(), segment.SaidDamaged, d.What)
	f.Position, f.Bytes = d.Position, b.next-d.Position
	resumed := int64(-1)
	if head, err := b.reader.peek(b.next, batch.HeaderSize); err == nil {
		if h, err := batch.ReadHeader(head); err == nil {
			resumed = h.BaseOffset
		}
	}
	j.settle(resumed, false)
	bad := badRange{from: d.Position, to: b.next, first: j.next, last: max(j.next, resumed) - 1}
	f.FirstOffset, f.LastOffset = bad.first, bad.last
	if f.LastOffset < f.FirstOffset {
		f.FirstOffset, f.LastOffset = -1, -1
	}
	if len(j.now.bad) == 0 && j.tornEnd(b.Name(), d.Position, b.Size()) {
		bad.tornEnd = true
		f.What, f.Found = segment.SaidTornEnd, f.Found+"; whole batches lie behind it, which a crash may leave there too"
	}
	j.say(f)
	j.markBad(bad)
}

// tornEnd tells whether a server takes what begins at a position for the end that a crash leaves, and cuts it.
func (j *judge) tornEnd(name string, position, size int64) bool {
	known := j.known[name]
	if j.now.cp != nil {
		known = max(known, j.now.cp.Position)
	}
	return j.now.last && j.part.Layout == Millrace && !j.clean && !j.opts.Held && position >= known && size-position <= segment.TornBytes
}

// badEnd notes damage behind which nothing is intact.
func (j *judge) badEnd(d *Damage, b *Batches) {
	now := j.now
	f := about(Harm, b.Name(), segment.SaidDamaged, d.What)
	f.Position, f.Bytes, f.FirstOffset = d.Position, b.Size()-d.Position, j.next
	bad := badRange{from: d.Position, to: b.Size(), first: j.next, last: j.next - 1}
	if next := j.endOfSegment(); next > j.next {
		bad.last = next - 1
		f.LastOffset = bad.last
	}
	if now.seal != nil && !now.last && b.Size() < now.seal.Length {
		f.What = segment.SaidSealShorter
	}
	if now.last {
		if j.opts.Held {
			now.summed = false
			return // it is being written
		}
		f.What = segment.SaidDamagedEnd
		if bad.tornEnd = j.tornEnd(b.Name(), d.Position, b.Size()) || d.Torn && j.part.Layout == Kafka; bad.tornEnd {
			f.What = segment.SaidTornEnd
		}
	}
	j.say(f)
	j.markBad(bad)
	if bad.last >= bad.first {
		j.claimed = bad.last + 1
	}
}

// endOfSegment is the offset that comes behind the segment, as its note or the next segment says; -1 when none does.
func (j *judge) endOfSegment() int64 {
	now := j.now
	switch {
	case now.seal != nil && !now.last:
		return now.seal.Next
	case now.last && now.cp != nil:
		return now.cp.Next
	case !now.last:
		for i := range j.part.Segments {
			if s := &j.part.Segments[i]; s.Base > now.seg.Base && s.Log.There() {
				return s.Base
			}
		}
	}
	return -1
}
