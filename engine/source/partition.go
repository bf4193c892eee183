package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/inspect"
	"github.com/millrace/millrace/segment/vfs"
)

// Partition is one partition. What it holds is known once Check has read it.
type Partition struct {
	Topic  string
	Number int32
	Path   string

	Start, End int64 // log start offset and log end offset
	First      int64 // base offset of the first batch that is taken over, End when there is none
	Epoch      int32 // the latest leader epoch
	Records    int64 // of clients, that are taken over
	Batches    int64
	Bytes      int64 // of the batches
	ProducerID int64 // the largest, -1 for none
	Damage     []*inspect.Damage
	Damaged    int // more than there is room for in Damage
	Torn       *inspect.Damage
	Aborted    Outcome // of transactions that were aborted
	Unfinished Outcome // of those that were neither committed nor aborted

	fs     vfs.FS
	part   *inspect.Partition
	starts map[string]int64 // log start offsets that lie beside the partitions
	clean  bool             // the server that wrote it was stopped
	spans  map[int64][]span // of what is left out, by producer
}

// Outcome counts transactions, and what of their records there is.
type Outcome struct {
	Transactions int64
	Records      int64
	First, Last  int64 // offsets of the first and the last of them
}

// Rules say what is taken over.
type Rules struct {
	KeepAborted    bool // records of aborted transactions
	KeepUnfinished bool // records of transactions that have not ended
}

// span is a transaction of one producer that is left out: its batches from the first on, up to its marker.
type span struct{ first, marker int64 }

// NewPartition is one that is not part of a Source: one that begins at a log start offset.
func NewPartition(fsys vfs.FS, part *inspect.Partition, start int64) *Partition {
	return &Partition{Topic: part.Topic, Number: part.Number, Path: part.Path, fs: fsys, part: part, starts: map[string]int64{part.Name(): start}, Epoch: -1}
}

// Name is TOPIC-NUMBER.
func (p *Partition) Name() string { return fmt.Sprintf("%s-%d", p.Topic, p.Number) }

// Size is how many bytes Check reads.
func (p *Partition) Size() int64 { return p.part.Bytes() }

// ahead tells whether p reaches farther than another replica, by what lies in the folder.
func (p *Partition) ahead(other *Partition) bool {
	base, size := p.lastSegment()
	otherBase, otherSize := other.lastSegment()
	return base > otherBase || base == otherBase && size > otherSize
}

func (p *Partition) lastSegment() (base, size int64) {
	if n := len(p.part.Segments); n > 0 {
		return p.part.Segments[n-1].Base, p.part.Segments[n-1].Log.Size
	}
	return -1, 0
}

// Check reads all batches, CRCs included, and tells read how many bytes as it goes on. It fails when reading does; damage is no
// error, it is in p.Damage. What is torn at the end of the last segment of an unclean directory is in p.Torn: a server would cut it off.
func (p *Partition) Check(ctx context.Context, rules Rules, read func(bytes int64)) error {
	p.spans = nil
	if err := p.readSmall(); err != nil {
		return err
	}
	open, spans := map[int64]*transaction{}, map[int64][]span{}
	p.ProducerID = -1
	p.Aborted, p.Unfinished = Outcome{First: -1, Last: -1}, Outcome{First: -1, Last: -1}
	taken := tally{first: math.MaxInt64}
	var last batch.Header
	log := inspect.OpenLog(p.fs, p.part, inspect.LogOptions{Start: p.Start, Read: read})
	defer log.Close()
	for log.Next() {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		h := log.Header()
		p.Epoch = max(p.Epoch, h.PartitionLeaderEpoch)
		p.ProducerID = max(p.ProducerID, h.ProducerID)
		last = h
		if !h.IsTransactional() || h.IsControl() {
			taken.note(h, p.Start)
		} else {
			tx := open[h.ProducerID]
			if tx == nil {
				tx = &transaction{first: h.BaseOffset, tally: tally{first: math.MaxInt64}}
				open[h.ProducerID] = tx
			}
			tx.note(h, p.Start)
		}
		if !h.IsTransactional() || !h.IsControl() {
			continue
		}
		whole, err := log.Bytes()
		if err != nil {
			return err
		}
		committed, ends, err := marker(whole)
		if err != nil {
			return fmt.Errorf("%s: batch at byte %d: %w", log.File(), log.Position(), err)
		}
		tx := open[h.ProducerID]
		if !ends || tx == nil {
			continue
		}
		delete(open, h.ProducerID)
		if !committed {
			p.Aborted.add(tx)
		}
		if committed || rules.KeepAborted {
			taken.add(tx.tally)
		} else {
			spans[h.ProducerID] = append(spans[h.ProducerID], span{tx.first, h.BaseOffset})
		}
	}
	if log.Err() != nil {
		return log.Err()
	}
	p.Damage, p.Damaged, p.Torn = log.Damage(), log.Damaged(), log.Tail()
	switch {
	case p.Torn == nil:
	case p.clean && p.Torn.Torn: // nobody was writing
		p.Damage, p.Damaged, p.Torn = append(p.Damage, p.Torn), p.Damaged+1, nil
	case p.clean:
		p.Torn = nil
	case !p.Torn.Torn: // the last of what was met
		p.Damage, p.Damaged = p.Damage[:min(len(p.Damage), p.Damaged-1)], p.Damaged-1
	}
	for id, tx := range open {
		p.Unfinished.add(tx)
		if rules.KeepUnfinished {
			taken.add(tx.tally)
		} else {
			spans[id] = append(spans[id], span{tx.first, math.MaxInt64})
			if id == last.ProducerID && last.IsTransactional() && !last.IsControl() {
				h, _ := batch.ReadHeader(abortMarker(last))
				taken.note(h, p.Start)
			}
		}
	}
	p.End = log.NextOffset()
	p.First, p.Records, p.Batches, p.Bytes, p.spans = min(taken.first, p.End), taken.records, taken.batches, taken.bytes, spans
	return nil
}

// abortMarker ends the transaction of a batch that is left out at the end of a log, at its last offset: as a coordinator would
// end it, and so that whoever reads gets to where the log ends.
func abortMarker(h batch.Header) []byte {
	b := batch.NewBuilder(batch.BuilderOptions{
		BaseOffset: h.LastOffset(), LeaderEpoch: h.PartitionLeaderEpoch, Control: true, Transactional: true,
		Idempotent: true, ProducerID: h.ProducerID, ProducerEpoch: h.ProducerEpoch, BaseSequence: batch.NoSequence,
	})
	b.Append(h.MaxTimestamp, []byte{0, 0, 0, 0}, make([]byte, 6), nil) // versions 0, of an abort, by coordinator epoch 0
	marker, _ := b.Build()                                             // there is a record, and no compression
	return marker
}

// tally counts batches that are not wholly before the log start offset.
type tally struct{ first, last, records, batches, bytes int64 }

func (n *tally) note(h batch.Header, start int64) {
	if h.NextOffset() <= start {
		return
	}
	one := tally{first: h.BaseOffset, last: h.LastOffset(), batches: 1, bytes: int64(h.Size())}
	if !h.IsControl() {
		one.records = min(int64(h.RecordCount), h.NextOffset()-start) // those before the start go with their batch, and nobody is given them
	}
	n.add(one)
}

func (n *tally) add(m tally) {
	n.first, n.last = min(n.first, m.first), max(n.last, m.last)
	n.records, n.batches, n.bytes = n.records+m.records, n.batches+m.batches, n.bytes+m.bytes
}

// transaction is one that has not ended yet; first is where it begins, be that before the log start offset.
type transaction struct {
	first int64
	tally
}

func (o *Outcome) add(tx *transaction) {
	o.Transactions++
	if tx.records == 0 {
		return
	}
	o.Records += tx.records
	if o.First < 0 || tx.tally.first < o.First {
		o.First = tx.tally.first
	}
	o.Last = max(o.Last, tx.last)
}

// marker reads what a control batch says of its producer's transaction; ends is false for other kinds of markers.
func marker(whole []byte) (committed, ends bool, err error) {
	for r, err := range batch.Records(whole, 0) {
		if err != nil {
			return false, false, err
		}
		if len(r.Key) < 4 {
			return false, false, fmt.Errorf("%w: a marker with a key of %d bytes", batch.ErrInvalidRecord, len(r.Key))
		}
		kind := int(r.Key[2])<<8 | int(r.Key[3])
		return kind == 1, kind <= 1, nil
	}
	return false, false, nil
}

// readSmall reads the files that say where the log begins and what its epochs were.
func (p *Partition) readSmall() error {
	var err error
	if p.Start, err = p.part.StartOffset(p.fs, p.starts); err != nil {
		return err
	}
	if !p.part.Epochs.There() {
		return nil
	}
	text, err := vfs.ReadFile(p.fs, p.part.Epochs.Path)
	if err != nil {
		return err
	}
	if list, err := segment.DecodeEpochs(text); err == nil { // a damaged one is known from the batches
		for _, e := range list {
			p.Epoch = max(p.Epoch, e.Epoch)
		}
	}
	return nil
}

// chooser tells which batches are taken over, asked in the order of the log.
type chooser struct {
	start int64
	spans map[int64][]span // what has not been passed yet
}

// Takes gives a function that tells of each batch, in the order of the log, whether it is taken over by the rules of the last Check.
func (p *Partition) Takes() func(batch.Header) bool { return p.chooser().takes }

func (p *Partition) chooser() *chooser {
	c := &chooser{start: p.Start, spans: make(map[int64][]span, len(p.spans))}
	for id, spans := range p.spans {
		c.spans[id] = spans
	}
	return c
}

func (c *chooser) takes(h batch.Header) bool {
	if h.NextOffset() <= c.start {
		return false
	}
	if !h.IsTransactional() || h.IsControl() {
		return true
	}
	spans := c.spans[h.ProducerID]
	for len(spans) > 0 && spans[0].marker < h.BaseOffset {
		spans = spans[1:]
		c.spans[h.ProducerID] = spans
	}
	return len(spans) == 0 || h.BaseOffset < spans[0].first
}

// Reader gives the batches of a partition that are taken over. It is an engine.BatchSource.
type Reader struct {
	p       *Partition
	choose  *chooser
	log     *inspect.Log
	waiting bool          // log has gone to a batch that has not been given
	left    *batch.Header // the last batch, when it was left out
}

// Open begins to read what Check has counted. The caller closes it. read is told how many bytes of the files have been read.
func (p *Partition) Open(read func(bytes int64)) *Reader {
	return &Reader{p: p, choose: p.chooser(), log: inspect.OpenLog(p.fs, p.part, inspect.LogOptions{From: p.Start, Read: read})}
}

// NextBatches appends batches to buf as engine.BatchSource wants it.
func (r *Reader) NextBatches(buf []byte) ([]byte, error) {
	for {
		if !r.waiting && !r.log.Next() {
			return r.end(buf)
		}
		h := r.log.Header()
		if len(buf) > 0 && (len(buf)+h.Size() > cap(buf) || h.LastOffset()-firstOffset(buf) > math.MaxInt32/2) {
			r.waiting = true
			return buf, nil
		}
		r.waiting, r.left = false, nil
		if !r.choose.takes(h) {
			if h.NextOffset() > r.p.Start {
				r.left = &h
			}
			continue
		}
		whole, err := r.log.Bytes()
		if err != nil {
			return buf, err
		}
		buf = append(buf, whole...)
	}
}

// end gives what there is to give behind the last batch.
func (r *Reader) end(buf []byte) ([]byte, error) {
	switch {
	case r.log.Err() != nil:
		return buf, r.log.Err()
	case r.log.Damaged() > 0 && r.p.Damaged == 0 && r.p.Torn == nil || r.log.Torn() != nil && r.p.Torn == nil && r.p.Damaged == 0:
		return buf, fmt.Errorf("%s: it was whole a moment ago: %w", r.p.Path, errors.Join(asErrors(r.log.Damage())...))
	}
	if r.left != nil {
		buf, r.left = append(buf, abortMarker(*r.left)...), nil
	}
	if len(buf) == 0 {
		return buf, io.EOF
	}
	return buf, nil
}

func asErrors(damage []*inspect.Damage) (errs []error) {
	for _, d := range damage {
		errs = append(errs, d)
	}
	return errs
}

func firstOffset(buf []byte) int64 {
	h, _ := batch.ReadHeader(buf) // it was read before
	return h.BaseOffset
}

// Close lets go of the file that is open.
func (r *Reader) Close() error { return r.log.Close() }
