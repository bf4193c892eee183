package segment

import (
	"fmt"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/producer"
	"github.com/millrace/millrace/segment/vfs"
)

// part is what one round does to one segment of one log. It is of the
// committer alone, but for sync, which a syncer may run meanwhile.
type part struct {
	dir     *Dir
	log     *Log
	segment *segmentFile
	file    vfs.File // held from begin to finish
	newFile bool     // the log's folder must be synced too

	waiting []*Append // to be told at the end
	buffers [][]byte
	bytes   int64
	indexed bool
	failure error

	// What to go back to when the part fails.
	next           int64
	index          indexer
	firstTimestamp int64
	epochs         *epochs
	producers      []producer.Undo
}

// begin readies the active segment of l; when that fails, p.failure is set.
func (p *part) begin(d *Dir, l *Log) {
	p.dir, p.log, p.next, p.epochs = d, l, l.w.next, l.epochs.Load()
	if p.failure = d.fenced(); p.failure != nil {
		return
	}
	if l.active() == nil {
		if p.failure = l.create(); p.failure != nil {
			return
		}
	}
	p.segment = l.active()
	p.newFile = p.segment.size.Load() == 0
	p.index, p.firstTimestamp = p.segment.writer, p.segment.firstTimestamp
	f, err := d.files.acquire(p.segment)
	if err != nil {
		p.failure = p.dir.failed("open", p.segment.name(".log"), err)
		return
	}
	p.file = f
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
		p.place(a, cfg)
	}
	return nil
}

// admit tells whether a is to be written; if not, its result says why.
func (p *part) admit(a *Append, cfg *LogConfig) bool {
	a.result = Result{BaseOffset: -1, LastOffset: -1}
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
	return size+int64(len(a.Batches)) > cfg.SegmentBytes ||
		len(s.writer.offsets)*offsetEntrySize >= cfg.IndexBytes ||
		len(s.writer.times)*timeEntrySize >= cfg.IndexBytes ||
		p.log.w.next+int64(h.LastOffsetDelta)-s.base > maxRelativeOffset ||
		s.firstTimestamp >= 0 && h.MaxTimestamp-s.firstTimestamp > (cfg.SegmentAge-s.jitter).Milliseconds()
}

// place gives the batches of a their offsets and notes them everywhere.
func (p *part) place(a *Append, cfg *LogConfig) {
	l := p.log
	a.result.BaseOffset = l.w.next
	for rest := a.Batches; len(rest) > 0; {
		h, _ := batch.ReadHeader(rest) // admit has read it
		batch.PutBaseOffset(rest, l.w.next)
		batch.PutLeaderEpoch(rest, a.LeaderEpoch)
		h.BaseOffset = l.w.next
		if e := *l.epochs.Load(); len(e) == 0 || e[len(e)-1].epoch < a.LeaderEpoch {
			e = e.assign(a.LeaderEpoch, l.w.next)
			l.epochs.Store(&e)
		}
		if h.ProducerID >= 0 {
			p.producers = append(p.producers, l.w.producers.Update(h, h.BaseOffset))
		}
		p.indexed = p.segment.note(h, p.segment.size.Load()+p.bytes, cfg.IndexIntervalBytes) || p.indexed
		p.bytes += int64(h.Size())
		l.w.next = h.NextOffset()
		rest = rest[h.Size():]
	}
	a.result.LastOffset = l.w.next - 1
	p.buffers = append(p.buffers, a.Batches)
}

func (p *part) write() {
	if p.failure != nil || p.bytes == 0 {
		return
	}
	if _, err := p.file.WriteVAt(p.buffers, p.segment.size.Load()); err != nil {
		p.failure = p.dir.failed("write", p.file.Name(), err)
	}
}

// sync makes what was written durable, and the file itself when it is new.
func (p *part) sync() {
	if p.failure != nil || p.bytes == 0 {
		return
	}
	if err := p.file.Sync(); err != nil {
		p.failure = p.dir.fence("sync", p.file.Name(), err)
		return
	}
	if p.newFile {
		if err := p.dir.fs.SyncDir(p.log.path); err != nil {
			p.failure = p.dir.failedSync(p.log.path, err)
		}
	}
}

// finish publishes the part, or takes it back.
func (p *part) finish() {
	if p.bytes > 0 && p.failure == nil {
		p.publish()
	}
	if p.failure != nil {
		p.takeBack()
	}
	if p.file != nil {
		p.dir.files.release(p.segment)
	}
}

// publish lets readers see what is durable now.
func (p *part) publish() {
	if p.bytes == 0 {
		return
	}
	l := p.log
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
		p.segment.writer, p.segment.firstTimestamp = p.index, p.firstTimestamp
		if p.dir.fenced() == nil {
			// Bytes left behind here could be taken for records by a later recovery.
			if err := p.file.Truncate(p.segment.size.Load()); err != nil {
				p.failure = p.dir.fence("truncate", p.file.Name(), err)
			}
		}
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
	*p = part{waiting: p.waiting[:0], buffers: p.buffers[:0], producers: p.producers[:0]}
}
