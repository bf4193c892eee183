package command

import (
	"errors"
	"io/fs"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/inspect"
)

// batchView is a batch on its way to a sink.
type batchView struct {
	partition *inspect.Partition
	topic     string // "" when nothing is to be decoded
	file      string
	position  int64
	header    batch.Header
	valid     bool // the CRC holds
	journaled bool // the journal alone has it
}

// recordView is a record of a batch on its way to a sink.
type recordView struct {
	batch.Record
	offset, timestamp int64
	sequence          int32
	marker            *marker      // of a control record
	decoded           *decodedPair // of an internal topic's record
}

// log shows a segment.
func (d *dumper) log(p *inspect.Partition, s *inspect.Segment) error {
	from := int64(0)
	if d.o.from > 0 {
		var err error
		if from, err = inspect.Seek(d.fsys, s, d.o.from); err != nil && !d.gone(err) {
			return err
		}
	}
	b, err := inspect.OpenBatches(d.fsys, s.Log.Path, inspect.Options{From: from, Base: s.Base})
	if d.gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer b.Close()
	d.sink.logFile(s.Log.Path, s.Base, from)
	d.reading.Store(&s.Log.Path)
	if d.o.batches || s.Log.Size-from < pipeLeast {
		show := func(v *batchView) (bool, error) { return true, d.batch(v, b.Bytes) }
		return d.walk(p, s, b, show, d.sayDamage)
	}
	pipe := d.pipe()
	err = d.walk(p, s, b, func(v *batchView) (bool, error) { return pipe.batch(v, b.Bytes) }, pipe.damage)
	if shown := pipe.close(); shown != nil {
		return shown // it came first
	}
	return err
}

// sayDamage shows damage, and counts it.
func (d *dumper) sayDamage(met *inspect.Damage) {
	d.damage++
	d.sink.damage(met)
}

// walk hands the batches of a segment that were asked for to show, which answers false when nothing more is wanted, and the damage among them to say.
func (d *dumper) walk(p *inspect.Partition, s *inspect.Segment, b *inspect.Batches, show func(*batchView) (bool, error), say func(*inspect.Damage)) error {
	v := batchView{partition: p, topic: d.topicOf(p), file: s.Log.Path, valid: true}
	var met *inspect.Damage // not said yet
	sayMet := func() {
		if met != nil {
			say(met)
		}
		met = nil
	}
	for {
		for b.Next() {
			if err := d.ctx.Err(); err != nil {
				return err
			}
			v.header, v.position = b.Header(), b.Position()
			d.read.Store(v.position)
			if v.header.BaseOffset <= d.o.from {
				met = nil // it took nothing that was asked for
			}
			sayMet()
			if v.header.BaseOffset > d.o.to {
				return nil
			}
			if v.header.LastOffset() < d.o.from || d.o.control && !v.header.IsControl() || d.o.since >= 0 && v.header.MaxTimestamp < d.o.since {
				continue
			}
			v.journaled = d.overlay.Alone(v.file, v.position, int64(v.header.Size()))
			if more, err := show(&v); err != nil || !more {
				return err
			}
		}
		sayMet()
		if b.Err() == nil || d.gone(b.Err()) {
			return nil
		}
		if !errors.As(b.Err(), &met) {
			return b.Err()
		}
		if met.Offset > d.o.to {
			return nil
		}
		if !b.Resume() {
			if !met.Torn || !d.held {
				sayMet()
			}
			return nil
		}
	}
}

// gone tells that a running server has removed the file meanwhile.
func (d *dumper) gone(err error) bool { return d.held && errors.Is(err, fs.ErrNotExist) }

// batch shows a batch and those of its records that were asked for.
func (d *dumper) batch(v *batchView, bytes func() ([]byte, error)) error {
	h := &v.header
	if d.o.batches {
		d.sink.batch(v)
		return d.count()
	}
	b, err := bytes()
	if err != nil {
		return err
	}
	said := false
	if !d.o.picks && !d.o.records {
		d.sink.batch(v)
		said = true
	}
	r := &d.scratch
	for record, err := range batch.Records(b, 0) {
		if err != nil {
			d.damage++
			d.sink.damage(&inspect.Damage{File: v.file, Position: v.position, Offset: h.BaseOffset, What: err.Error(), Cause: err})
			return nil
		}
		r.Record = record
		r.offset, r.timestamp, r.sequence = h.Offset(&record), h.Timestamp(&record), batch.NoSequence
		if h.BaseSequence != batch.NoSequence {
			r.sequence = batch.AddSequence(h.BaseSequence, record.OffsetDelta)
		}
		r.marker, r.decoded = nil, nil
		if !d.picked(r) {
			continue
		}
		if h.IsControl() {
			r.marker = decodeMarker(record.Key, record.Value)
		} else if v.topic != "" {
			r.decoded = decodeInternal(v.topic, record.Key, record.Value)
		}
		if d.o.grep != nil && !d.greps(r) {
			continue
		}
		if !said && !d.o.records {
			d.sink.batch(v)
			said = true
		}
		d.sink.record(v, r)
		if err := d.count(); err != nil {
			return err
		}
	}
	return nil
}

// count ends the dump when --max are shown.
func (d *dumper) count() error {
	if d.shown++; d.shown == d.o.max {
		return errEnough
	}
	return nil
}

// picked tells whether a record has an offset and a timestamp that were asked for.
func (d *dumper) picked(r *recordView) bool {
	o := d.o
	return r.offset >= o.from && r.offset <= o.to && (o.since < 0 || r.timestamp >= o.since) && (o.until < 0 || r.timestamp <= o.until)
}

func (d *dumper) greps(r *recordView) bool {
	x := d.o.grep
	if x.Match(r.Key) || x.Match(r.Value) {
		return true
	}
	for _, h := range r.Headers {
		if x.MatchString(h.Key) || x.Match(h.Value) {
			return true
		}
	}
	return r.decoded != nil && (x.Match(r.decoded.key) || x.Match(r.decoded.value))
}
