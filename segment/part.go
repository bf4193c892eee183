package segment

import (
	"fmt"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/producer"
)

// route is the way of a part to the disk.
type route int

const (
	nowhere   route = iota // there is nothing to write
	journaled              // through the journal; a flush brings it into the segment
	straight               // into the segment, synced
	unsynced               // into the segment, to be synced on time: the topic wants it so
)

// part is what one round does to one segment of one log. It is of the
// committer alone, but for write, which a writer may run meanwhile.
type part struct {
	committer *committer
	dir       *Dir
	log       *Log
	segment   *segmentFile

	waiting []*Append // to be told at the end
	buffers [][]byte
	bytes   int64
	records int64
	indexed bool
	route   route
	started bool // a writer has it already
	write   fileWrite
	failure error

	// What to go back to when the part fails.
	next           int64
	index          indexer
	sum            uint32
	firstTimestamp int64
	epochs         *epochs
	producers      []producer.Undo
}

// begin readies the active segment of l; when that fails, p.failure is set.
func (p *part) begin(c *committer, l *Log) {
	p.committer, p.dir, p.log, p.next, p.epochs = c, c.dir, l, l.w.next, l.epochs.Load()
	if p.failure = p.dir.fenced(); p.failure != nil {
		return
	}
	if l.active() == nil {
		l.addSegmentFile()
	}
	p.segment = l.active()
	p.index, p.sum, p.firstTimestamp = p.segment.writer, p.segment.sum, p.segment.firstTimestamp
}

// stamp gives offsets to appends, in order, as long as they fit the segment;
// it returns those that belong to the next one.
func (p *part) stamp(appends []*Append) (rest []*Append) {
	if p.failure != nil {
		p.waiting = append(p.waiting, appends...)
		return nil
	}
	p.log.expireProducers()
	cfg := p.log.config.Load()
	for i, a := range appends {
		if !p.admit(a, cfg) {
			p.waiting = append(p.waiting, a)
			continue
		}
		if p.full(a, cfg) {
			return appends[i:]
		}
		p.waiting = append(p.waiting, a)
		if p.failure = p.place(a, cfg); p.failure != nil {
			p.waiting = append(p.waiting, appends[i+1:]...)
			return nil
		}
	}
	return nil
}

// admit tells whether a is to be written; if not, its result says why.
func (p *part) admit(a *Append, cfg *LogConfig) bool {
	a.result = Result{BaseOffset: -1, LastOffset: -1}
	if a.Keep {
		a.result.Err = p.kept(a)
		return a.result.Err == nil
	}
	if int64(len(a.Batches)) > cfg.SegmentBytes {
		a.result.Err = fmt.Errorf("%w: %d of at most %d bytes", ErrTooLarge, len(a.Batches), cfg.SegmentBytes)
		return false
	}
	for rest := a.Batches; len(rest) > 0; {
		h, err := batch.ReadHeader(rest)
		if err != nil {
			a.result.Err = err
			return false
		}
		original, err := p.log.w.producers.Check(h, true)
		if err != nil {
			a.result.Err = err
			return false
		}
		if original != nil {
			a.result = Result{BaseOffset: original.FirstOffset(), LastOffset: original.LastOffset, Timestamp: original.Timestamp, Duplicate: true}
			return false
		}
		rest = rest[h.Size():]
	}
	return true
}

// full tells whether the active segment must be left before a is written.
func (p *part) full(a *Append, cfg *LogConfig) bool {
	s := p.segment
	size := s.size.Load() + p.bytes
	if size == 0 {
		return false
	}
	h, _ := batch.ReadHeader(a.Batches) // admit has read it
	last := p.log.w.next + int64(h.LastOffsetDelta)
	if a.Keep {
		last = lastOffset(a.Batches)
	}
	return size+int64(len(a.Batches)) > cfg.SegmentBytes ||
		len(s.writer.offsets)*offsetEntrySize >= cfg.IndexBytes ||
		len(s.writer.times)*timeEntrySize >= cfg.IndexBytes ||
		last-s.base > maxRelativeOffset ||
		p.log.aged(s, h.MaxTimestamp)
}

// place gives the batches of a their offsets and notes them everywhere.
func (p *part) place(a *Append, cfg *LogConfig) error {
	l, at := p.log, p.segment.size.Load()+p.bytes
	a.result.BaseOffset = l.w.next
	for rest := a.Batches; len(rest) > 0; {
		h, _ := batch.ReadHeader(rest) // admit has read it
		if !a.Keep {
			batch.PutBaseOffset(rest, l.w.next)
			batch.PutLeaderEpoch(rest, a.LeaderEpoch)
			h.BaseOffset, h.PartitionLeaderEpoch = l.w.next, a.LeaderEpoch
		} else if len(rest) == len(a.Batches) {
			a.result.BaseOffset = h.BaseOffset
		}
		if e := *l.epochs.Load(); len(e) == 0 || e[len(e)-1].epoch < h.PartitionLeaderEpoch {
			e = e.assign(h.PartitionLeaderEpoch, h.BaseOffset)
			l.epochs.Store(&e)
		}
		if h.ProducerID >= 0 {
			p.producers = append(p.producers, l.w.producers.Update(h, h.BaseOffset))
		}
		p.indexed = p.segment.note(h, p.segment.size.Load()+p.bytes, cfg.IndexIntervalBytes) || p.indexed
		p.segment.sum = batch.ExtendSum(p.segment.sum, rest, h)
		p.bytes += int64(h.Size())
		p.records += int64(h.LastOffsetDelta) + 1
		l.w.next = h.NextOffset()
		rest = rest[h.Size():]
	}
	a.result.LastOffset = l.w.next - 1
	p.buffers = append(p.buffers, a.Batches)
	return p.committer.put(p.segment, at, a.Batches)
}

// choose finds the way to the disk.
func (p *part) choose() {
	cfg := p.log.config.Load()
	late := cfg.flushesLate()
	if p.failure != nil || p.bytes == 0 {
		return
	}
	large := p.bytes >= p.dir.opts.DirectBytes
	if p.log.w.flushing && p.bytes >= journalRound/4 {
		p.committer.awaitFlush()
	}
	switch {
	case p.log.w.flushing: // the flusher is at the file
		p.route = journaled
	case late && p.log.w.unflushed+p.records < cfg.FlushMessages:
		p.route = unsynced
	case late || large:
		p.route = straight
	default:
		p.route = journaled
	}
}

// applyWrite takes over what went straight into the segment.
func (p *part) applyWrite() {
	if p.route != straight && p.route != unsynced {
		return
	}
	if p.failure = p.write.err; p.failure == nil {
		p.write.apply()
		if p.route == straight {
			p.log.w.unflushed = 0
			if p.segment.padded {
				p.committer.soil(p.log, p.committer.pause)
			}
		} else {
			p.log.w.unflushed += p.records
			p.committer.soil(p.log, p.log.config.Load().FlushAfter)
		}
	} else if p.dir.fenced() == nil {
		if err := p.write.undo(); err != nil {
			p.failure = p.dir.fence("truncate", p.segment.name(".log"), err)
		}
	}
	p.write.done()
}

// finish publishes the part, or takes it back.
func (p *part) finish() {
	if p.bytes > 0 && p.failure == nil {
		p.publish()
	}
	if p.failure != nil {
		p.takeBack()
	}
}

// publish lets readers see what is durable now.
func (p *part) publish() {
	if p.bytes == 0 {
		return
	}
	l := p.log
	p.segment.publishTail()
	p.segment.publish(p.segment.size.Load()+p.bytes, p.indexed)
	p.bytes = 0
	l.w.changed = true
	l.end.Store(l.w.next)
	if advanced := l.advanced.Load(); advanced != nil {
		(*advanced)(l.w.next)
	}
	start := l.start.Load()
	for _, a := range p.waiting {
		a.result.LogStartOffset = start
	}
}

// takeBack makes the log as it was before the part, in memory and in the file.
func (p *part) takeBack() {
	if p.bytes > 0 {
		l := p.log
		for i := len(p.producers) - 1; i >= 0; i-- {
			l.w.producers.Undo(p.producers[i])
		}
		l.w.next = p.next
		l.epochs.Store(p.epochs)
		p.segment.writer, p.segment.sum, p.segment.firstTimestamp = p.index, p.sum, p.firstTimestamp
		p.committer.shrink(p.segment, p.segment.size.Load())
	}
	for _, a := range p.waiting {
		if a.result.Err == nil {
			a.result = Result{BaseOffset: -1, LastOffset: -1, Err: p.failure}
		}
	}
}

func (p *part) reset() {
	clear(p.buffers)
	clear(p.producers)
	*p = part{waiting: p.waiting[:0], buffers: p.buffers[:0], producers: p.producers[:0], write: p.write}
}
