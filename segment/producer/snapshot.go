package producer

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/millrace/millrace/segment/batch"
)

// A .snapshot file is Kafka's own, all integers big-endian:
//
//	 0         2          6          10
//	+---------+----------+----------+--------------------
//	| version | CRC-32C  | number of| entries of 46 bytes
//	| = 1     | of 6..   | entries  |
//	| int16   | uint32   | int32    |
//	+---------+----------+----------+--------------------
//
// An entry. Of the batches only the last is kept; -1 says that there is none:
//
//	 0          8       10         14         22       26          34            38
//	+----------+-------+----------+----------+--------+-----------+-------------+-----------------+
//	| producer | epoch | last     | last     | offset | last      | coordinator | first offset of |
//	| id       | int16 | sequence | offset   | delta  | timestamp | epoch       | the transaction |
//	| int64    |       | int32    | int64    | int32  | int64     | int32       | int64           |
//	+----------+-------+----------+----------+--------+-----------+-------------+-----------------+
const (
	snapshotVersion    = 1
	snapshotHeaderSize = 10
	snapshotCRCEnd     = 6
	entrySize          = 46
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode writes the state as a snapshot file, by producer id. Duplicates of other batches than
// each producer's last are not found any more by who reads it, as in Kafka.
func (s *State) Encode() []byte {
	b := make([]byte, snapshotHeaderSize, snapshotHeaderSize+entrySize*len(s.entries))
	binary.BigEndian.PutUint16(b, snapshotVersion)
	binary.BigEndian.PutUint32(b[snapshotCRCEnd:], uint32(len(s.entries)))
	for _, info := range s.Active() {
		e := s.entries[info.ProducerID]
		last := BatchMeta{LastSeq: batch.NoSequence, LastOffset: -1}
		if e.batches > 0 {
			last = e.last
		}
		b = binary.BigEndian.AppendUint64(b, uint64(info.ProducerID))
		b = binary.BigEndian.AppendUint16(b, uint16(e.epoch))
		b = binary.BigEndian.AppendUint32(b, uint32(last.LastSeq))
		b = binary.BigEndian.AppendUint64(b, uint64(last.LastOffset))
		b = binary.BigEndian.AppendUint32(b, uint32(last.OffsetDelta))
		b = binary.BigEndian.AppendUint64(b, uint64(e.lastTimestamp))
		b = binary.BigEndian.AppendUint32(b, uint32(e.coordinatorEpoch))
		b = binary.BigEndian.AppendUint64(b, uint64(e.txnFirstOffset))
	}
	binary.BigEndian.PutUint32(b[2:], crc32.Checksum(b[snapshotCRCEnd:], castagnoli))
	return b
}

// Decode reads a snapshot file. Every error is ErrCorruptSnapshot.
func Decode(b []byte) (*State, error) {
	if len(b) < snapshotHeaderSize {
		return nil, fmt.Errorf("%w: %d bytes", ErrCorruptSnapshot, len(b))
	}
	if v := binary.BigEndian.Uint16(b); v != snapshotVersion {
		return nil, fmt.Errorf("%w: version %d, known is %d", ErrCorruptSnapshot, v, snapshotVersion)
	}
	if stored, sum := binary.BigEndian.Uint32(b[2:]), crc32.Checksum(b[snapshotCRCEnd:], castagnoli); stored != sum {
		return nil, fmt.Errorf("%w: stored CRC %08x, computed %08x", ErrCorruptSnapshot, stored, sum)
	}
	n := binary.BigEndian.Uint32(b[snapshotCRCEnd:])
	b = b[snapshotHeaderSize:]
	if uint64(len(b)) != uint64(n)*entrySize {
		return nil, fmt.Errorf("%w: %d bytes for %d entries", ErrCorruptSnapshot, len(b), n)
	}
	s := &State{entries: make(map[int64]*entry, n)}
	for ; len(b) > 0; b = b[entrySize:] {
		s.entries[int64(binary.BigEndian.Uint64(b))] = decodeEntry(b)
	}
	return s, nil
}

func decodeEntry(b []byte) *entry {
	e := &entry{
		epoch:            int16(binary.BigEndian.Uint16(b[8:])),
		lastTimestamp:    int64(binary.BigEndian.Uint64(b[26:])),
		coordinatorEpoch: int32(binary.BigEndian.Uint32(b[34:])),
		txnFirstOffset:   max(-1, int64(binary.BigEndian.Uint64(b[38:]))),
	}
	last := BatchMeta{
		LastSeq:     int32(binary.BigEndian.Uint32(b[10:])),
		LastOffset:  int64(binary.BigEndian.Uint64(b[14:])),
		OffsetDelta: int32(binary.BigEndian.Uint32(b[22:])),
		Timestamp:   e.lastTimestamp,
	}
	if last.LastOffset >= 0 {
		e.push(last)
	}
	return e
}
