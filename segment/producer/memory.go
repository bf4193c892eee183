package producer

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
)

// What [State.EncodeAll] writes: entries back to back, all integers big-endian, each
//
//	| producer id i64 | epoch i16 | last timestamp i64 | coordinator epoch i32 | first offset of the transaction i64 | batches u8 |
//
// and behind it that many batches, oldest first, each
//
//	| last offset i64 | timestamp i64 | last sequence i32 | offset delta i32 |
const (
	memoryEntrySize = 8 + 2 + 8 + 4 + 8 + 1
	memoryBatchSize = 8 + 8 + 4 + 4
)

// EncodedSize is about how many bytes EncodeAll gives.
func (s *State) EncodedSize() int { return len(s.entries) * (memoryEntrySize + memoryBatchSize) }

// EncodeAll writes all that is remembered, unlike [State.Encode]: who reads it finds the same duplicates. By producer id, and
// without a checksum: it is a part of something that has one.
func (s *State) EncodeAll() []byte {
	be, b := binary.BigEndian, make([]byte, 0, s.EncodedSize())
	for _, id := range slices.Sorted(maps.Keys(s.entries)) {
		e := s.entries[id]
		b = be.AppendUint64(b, uint64(id))
		b = be.AppendUint16(b, uint16(e.epoch))
		b = be.AppendUint64(b, uint64(e.lastTimestamp))
		b = be.AppendUint32(b, uint32(e.coordinatorEpoch))
		b = be.AppendUint64(b, uint64(e.txnFirstOffset))
		b = append(b, byte(e.batches))
		for i := range int(e.batches) {
			m := e.last
			if i < int(e.batches)-1 {
				m = e.older[i]
			}
			b = be.AppendUint64(b, uint64(m.LastOffset))
			b = be.AppendUint64(b, uint64(m.Timestamp))
			b = be.AppendUint32(b, uint32(m.LastSeq))
			b = be.AppendUint32(b, uint32(m.OffsetDelta))
		}
	}
	return b
}

// DecodeAll reads what EncodeAll wrote. Every error is ErrCorruptSnapshot.
func DecodeAll(b []byte) (*State, error) {
	be, s := binary.BigEndian, &State{entries: make(map[int64]*entry)}
	for len(b) > 0 {
		if len(b) < memoryEntrySize {
			return nil, fmt.Errorf("%w: %d bytes are less than a producer", ErrCorruptSnapshot, len(b))
		}
		e := &entry{
			epoch: int16(be.Uint16(b[8:])), lastTimestamp: int64(be.Uint64(b[10:])),
			coordinatorEpoch: int32(be.Uint32(b[18:])), txnFirstOffset: int64(be.Uint64(b[22:])),
		}
		id, batches := int64(be.Uint64(b)), int(b[30])
		b = b[memoryEntrySize:]
		if batches > BatchesKept || len(b) < batches*memoryBatchSize {
			return nil, fmt.Errorf("%w: %d bytes for %d batches", ErrCorruptSnapshot, len(b), batches)
		}
		for range batches {
			e.push(BatchMeta{
				LastOffset: int64(be.Uint64(b)), Timestamp: int64(be.Uint64(b[8:])),
				LastSeq: int32(be.Uint32(b[16:])), OffsetDelta: int32(be.Uint32(b[20:])),
			})
			b = b[memoryBatchSize:]
		}
		s.entries[id] = e
	}
	return s, nil
}
