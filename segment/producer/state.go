package producer

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/millrace/millrace/segment/batch"
)

// BatchesKept is the number of batches per producer in which a duplicate is found; clients keep
// at most as many requests in flight.
const BatchesKept = 5

// BatchMeta is what is remembered of a batch.
type BatchMeta struct {
	LastOffset  int64
	Timestamp   int64 // the batch's largest
	LastSeq     int32
	OffsetDelta int32 // from its first record to its last
}

// FirstSeq is the sequence number of the batch's first record.
func (m BatchMeta) FirstSeq() int32 { return batch.SubtractSequence(m.LastSeq, m.OffsetDelta) }

// FirstOffset is the offset of the batch's first record.
func (m BatchMeta) FirstOffset() int64 { return m.LastOffset - int64(m.OffsetDelta) }

// entry is one producer. There may be millions, most of which write one batch and are never heard
// of again: those cost 64 bytes and their place in the map.
type entry struct {
	last             BatchMeta
	older            *[BatchesKept - 1]BatchMeta // oldest first; there from the second batch on
	lastTimestamp    int64
	txnFirstOffset   int64 // -1: no transaction is open
	coordinatorEpoch int32
	epoch            int16
	batches          int8 // 0..5, last included
}

func newEntry() entry {
	return entry{epoch: batch.NoProducerEpoch, coordinatorEpoch: -1, lastTimestamp: batch.NoTimestamp, txnFirstOffset: -1}
}

// lastSeq is the sequence of the last record, or -1 when the epoch has none yet.
func (e *entry) lastSeq() int32 {
	if e.batches == 0 {
		return batch.NoSequence
	}
	return e.last.LastSeq
}

// find returns the batch with exactly these sequences.
func (e *entry) find(first, last int32) (BatchMeta, bool) {
	if e.batches == 0 {
		return BatchMeta{}, false
	}
	for i := range int(e.batches) - 1 {
		if m := e.older[i]; m.LastSeq == last && m.FirstSeq() == first {
			return m, true
		}
	}
	return e.last, e.last.LastSeq == last && e.last.FirstSeq() == first
}

// State is what one partition knows of its producers. The zero value is an empty state.
type State struct {
	entries map[int64]*entry
}

// Len is the number of producers.
func (s *State) Len() int { return len(s.entries) }

// Check decides whether a batch may be appended behind what the state knows; the state stays as it is.
// For a client's batch, dup is the one already stored when this is it again: nothing is to be appended then,
// and the answer is dup's. Batches without a producer id always pass. A batch that no client has sent is only
// checked for its epoch. A producer that is not known, be it new or forgotten, may begin anywhere.
func (s *State) Check(h batch.Header, isClient bool) (dup *BatchMeta, err error) {
	if !h.HasProducerID() {
		return nil, nil
	}
	e, known := s.entries[h.ProducerID]
	if !known {
		return nil, nil
	}
	if isClient && h.ProducerEpoch == e.epoch {
		if m, ok := e.find(h.BaseSequence, h.LastSequence()); ok {
			return &m, nil
		}
	}
	if h.ProducerEpoch < e.epoch {
		return nil, fmt.Errorf("%w: producer %d has epoch %d, last seen %d", ErrInvalidProducerEpoch, h.ProducerID, h.ProducerEpoch, e.epoch)
	}
	if !isClient || e.epoch == batch.NoProducerEpoch {
		return nil, nil
	}
	if h.ProducerEpoch > e.epoch {
		if h.BaseSequence != 0 {
			return nil, fmt.Errorf("%w: producer %d begins epoch %d, after %d, with sequence %d",
				ErrOutOfOrderSequence, h.ProducerID, h.ProducerEpoch, e.epoch, h.BaseSequence)
		}
		return nil, nil
	}
	if last := e.lastSeq(); !follows(last, h.BaseSequence) {
		return nil, fmt.Errorf("%w: producer %d sends sequence %d after %d", ErrOutOfOrderSequence, h.ProducerID, h.BaseSequence, last)
	}
	return nil, nil
}

// follows tells whether next is the sequence after last; the one after the largest int32 is 0.
func follows(last, next int32) bool {
	return int64(next) == int64(last)+1 || (next == 0 && last == math.MaxInt32)
}

// Undo takes one Update back. The zero value takes nothing back.
type Undo struct {
	producerID int64
	changed    bool
	existed    bool
	shifted    bool // the oldest batch had to go:
	dropped    BatchMeta
	before     entry
}

// Update remembers a batch that is appended with the given base offset, without checking it.
// A control batch, which ends a transaction, is remembered by its epoch alone.
func (s *State) Update(h batch.Header, baseOffset int64) Undo {
	if !h.HasProducerID() {
		return Undo{}
	}
	e, existed := s.entries[h.ProducerID]
	if !existed {
		if s.entries == nil {
			s.entries = make(map[int64]*entry)
		}
		e = new(entry)
		*e = newEntry()
		s.entries[h.ProducerID] = e
	}
	undo := Undo{producerID: h.ProducerID, changed: true, existed: existed, before: *e}
	if e.epoch != h.ProducerEpoch {
		// The old epoch's batches stay where they are: an undo may want them back.
		e.epoch, e.batches, e.older = h.ProducerEpoch, 0, nil
	}
	e.lastTimestamp = h.MaxTimestamp
	if h.IsControl() {
		e.txnFirstOffset = -1
		return undo
	}
	if e.batches == BatchesKept {
		undo.shifted, undo.dropped = true, e.older[0]
	}
	e.push(BatchMeta{
		LastOffset: baseOffset + int64(h.LastOffsetDelta), Timestamp: h.MaxTimestamp,
		LastSeq: h.LastSequence(), OffsetDelta: h.LastOffsetDelta,
	})
	return undo
}

// push makes m the last batch.
func (e *entry) push(m BatchMeta) {
	if e.batches > 0 {
		if e.older == nil {
			e.older = new([BatchesKept - 1]BatchMeta)
		}
		if e.batches == BatchesKept {
			copy(e.older[:], e.older[1:])
			e.batches--
		}
		e.older[e.batches-1] = e.last
	}
	e.last = m
	e.batches++
}

// Undo takes an Update back. Several are taken back in reverse order.
func (s *State) Undo(u Undo) {
	switch {
	case !u.changed:
	case !u.existed:
		delete(s.entries, u.producerID)
	default:
		if older := u.before.older; u.shifted {
			copy(older[1:], older[:])
			older[0] = u.dropped
		}
		before := u.before
		s.entries[u.producerID] = &before
	}
}

// Expire forgets the producers whose last batch is older than retention, and tells how many those were.
// The age is that of the batch's largest timestamp, as the producer gave it.
func (s *State) Expire(nowMs int64, retention time.Duration) int {
	before := len(s.entries)
	for id, e := range s.entries {
		if e.txnFirstOffset < 0 && nowMs-e.lastTimestamp >= retention.Milliseconds() {
			delete(s.entries, id)
		}
	}
	return before - len(s.entries)
}

// Clear forgets all producers, as when the log is truncated as a whole.
func (s *State) Clear() { s.entries = nil }

// Clone is an independent copy.
func (s *State) Clone() *State {
	c := &State{entries: make(map[int64]*entry, len(s.entries))}
	for id, e := range s.entries {
		copied := *e
		if e.older != nil {
			older := *e.older
			copied.older = &older
		}
		c.entries[id] = &copied
	}
	return c
}

// Info is what DescribeProducers tells about a producer.
type Info struct {
	ProducerID       int64
	LastTimestamp    int64
	TxnFirstOffset   int64 // -1: none
	LastSequence     int32 // -1: none in this epoch
	CoordinatorEpoch int32 // -1: none
	ProducerEpoch    int16
}

// Active lists all producers by id.
func (s *State) Active() []Info {
	list := make([]Info, 0, len(s.entries))
	for id, e := range s.entries {
		list = append(list, Info{
			ProducerID: id, ProducerEpoch: e.epoch, LastSequence: e.lastSeq(), LastTimestamp: e.lastTimestamp,
			CoordinatorEpoch: e.coordinatorEpoch, TxnFirstOffset: e.txnFirstOffset,
		})
	}
	slices.SortFunc(list, func(a, b Info) int {
		if a.ProducerID < b.ProducerID {
			return -1
		}
		return 1
	})
	return list
}
