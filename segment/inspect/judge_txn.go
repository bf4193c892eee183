package inspect

import (
	"errors"
	"fmt"
	"io/fs"
	"math"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// abort is the marker of a transaction that was aborted, as its entry in Kafka's index should be.
type abort struct {
	TxnEntry
	// held tells that records of the transaction are there: then the index must list it, or consumers would be given
	// them. Of what compaction has taken wholly, the cleaner drops the entry too, and keeps the marker for a while.
	held bool
}

// transaction takes a batch that belongs to one.
func (j *judge) transaction(h batch.Header, aborted bool) {
	id := h.ProducerID
	first, open := j.open[id]
	if !h.IsControl() {
		if !open {
			j.open[id] = h.BaseOffset
		}
		return
	}
	delete(j.open, id)
	if !aborted {
		return
	}
	a := abort{TxnEntry{ProducerID: id, FirstOffset: h.BaseOffset, LastOffset: h.LastOffset(), LastStableOffset: h.NextOffset()}, open}
	if open {
		a.FirstOffset = first
	}
	for _, other := range j.open {
		a.LastStableOffset = min(a.LastStableOffset, other)
	}
	j.now.aborts = append(j.now.aborts, a)
}

// judgeAborts compares Kafka's index of aborted transactions with the markers that abort some.
func (j *judge) judgeAborts() {
	now := j.now
	if j.part.Layout != Kafka || j.opts.Held && now.last {
		return
	}
	defer func() { now.aborts = nil }()
	listed, wrong, ok := j.readTxnIndex(now.seg.TxnIndex)
	if !ok {
		return
	}
	entries, odd := j.compareAborts(listed)
	if wrong == "" {
		wrong = odd
	}
	if harmed := len(now.bad) > 0; wrong == "" || harmed { // an entry may belong to what is damaged
		if harmed || len(now.fixes) > 0 {
			now.txnIndex = entries
		}
		return
	}
	now.txnIndex, now.txnWrong = entries, wrong
	j.say(about(Harm, sidePath(now.seg, ".txnindex"), SaidTxnIndex, wrong))
}

// readTxnIndex reads the whole entries of the index; false when it cannot be read.
func (j *judge) readTxnIndex(f File) (listed []TxnEntry, wrong string, ok bool) {
	if !f.There() {
		return nil, "", true
	}
	// Every batch ends one transaction at most.
	if most := (j.now.seg.Log.Size/batch.HeaderSize + 1) * TxnEntrySize; f.Size > most {
		return nil, fmt.Sprintf("it has %d bytes, for a log of %d", f.Size, j.now.seg.Log.Size), true
	}
	b, err := vfs.ReadFile(j.fs, f.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && j.opts.Held:
		return nil, "", false
	case err != nil:
		j.unreadable(f.Path, err)
		return nil, "", false
	}
	if len(b)%TxnEntrySize != 0 {
		wrong = fmt.Sprintf("%d bytes are no whole entries", len(b))
	}
	for ; len(b) >= TxnEntrySize; b = b[TxnEntrySize:] {
		listed = append(listed, DecodeTxnEntry(b))
	}
	return listed, wrong, true
}

// compareAborts gives what the index should hold, and the first thing in which it differs, "" when it does not.
func (j *judge) compareAborts(listed []TxnEntry) (entries []TxnEntry, wrong string) {
	differs := func(format string, args ...any) {
		if wrong == "" {
			wrong = fmt.Sprintf(format, args...)
		}
	}
	stranger := func(e TxnEntry) {
		if j.isLost(e.LastOffset) && e.Version == 0 && e.LastOffset >= j.now.seg.Base && (len(entries) == 0 || entries[len(entries)-1].LastOffset < e.LastOffset) {
			entries = append(entries, e) // its marker is gone: without it, aborted records would be served
			j.now.endless = append(j.now.endless, e)
			return
		}
		differs("it lists a transaction of producer %d that was aborted at offset %d, where no marker says so", e.ProducerID, e.LastOffset)
	}
	for _, a := range j.now.aborts {
		for len(listed) > 0 && listed[0].LastOffset < a.LastOffset {
			stranger(listed[0])
			listed = listed[1:]
		}
		if len(listed) == 0 || listed[0].LastOffset != a.LastOffset {
			if a.held {
				differs("it does not list the transaction of producer %d that was aborted at offset %d", a.ProducerID, a.LastOffset)
				entries = append(entries, a.TxnEntry)
			}
			continue
		}
		e := listed[0]
		listed = listed[1:]
		if !j.fits(e, a) {
			differs("of the transaction that was aborted at offset %d it says: version %d, producer %d, offsets %d to %d, last stable %d", a.LastOffset,
				e.Version, e.ProducerID, e.FirstOffset, e.LastOffset, e.LastStableOffset)
			e = a.TxnEntry
		}
		entries = append(entries, e)
	}
	for _, e := range listed {
		stranger(e)
	}
	return entries, wrong
}

// fits tells whether an entry is what its marker asks for. Where offsets are missing before it, by compaction for one, it may
// know more than the log.
func (j *judge) fits(e TxnEntry, a abort) bool {
	if e.Version != 0 || e.ProducerID != a.ProducerID || e.FirstOffset > e.LastOffset || e.LastStableOffset > a.LastOffset+1 {
		return false
	}
	if e == a.TxnEntry || j.start > e.FirstOffset || e.FirstOffset < j.segments[0].seg.Base {
		return true
	}
	for _, r := range j.lost {
		if r.last >= min(e.FirstOffset, a.FirstOffset, a.LastStableOffset) && r.first <= a.LastOffset {
			return true
		}
	}
	return !a.held || e.FirstOffset == a.FirstOffset && e.LastStableOffset <= a.LastStableOffset
}

// encodeTxnIndex is the file of those entries that lie before an offset.
func encodeTxnIndex(list []TxnEntry, end int64) (b []byte) {
	for _, e := range list {
		if e.LastOffset < end {
			b = AppendTxnEntry(b, e)
		}
	}
	return b
}

// txnIndex plans what is to be done about the index of aborted transactions: a broker does not miss one that is not
// there, and does not start with one that is no good.
func (p *Plan) txnIndex(j *judge, s *judged, changed bool) {
	if j.part.Layout != Kafka || s.txnWrong == "" && !changed {
		return
	}
	end := int64(math.MaxInt64)
	if n := len(s.bad); n > 0 && s.cut {
		end = s.bad[n-1].first
	}
	for _, e := range s.endless {
		if e.LastOffset < end && changed {
			f := about(Harm, s.seg.Log.Path, SaidEndless, fmt.Sprintf("of producer %d, aborted at offset %d", e.ProducerID, e.LastOffset))
			f.Partition, f.FirstOffset, f.LastOffset = j.part.Name(), e.FirstOffset, e.LastOffset-1
			p.Left = append(p.Left, f)
		}
	}
	name, b := j.part.Name(), encodeTxnIndex(s.txnIndex, end)
	why := s.txnWrong
	if why == "" {
		why = "the segment has changed"
	}
	switch {
	case len(b) > 0:
		step := p.write(name, sidePath(s.seg, ".txnindex"), why, always(b))
		step.Do = "rebuild"
		p.add(step)
	case s.seg.TxnIndex.There():
		p.add(p.setAside(name, s.seg.TxnIndex.Path, why))
	}
}
