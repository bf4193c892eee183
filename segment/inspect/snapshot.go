package inspect

import (
	"encoding/binary"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/producer"
	"github.com/millrace/millrace/segment/vfs"
)

var be = binary.BigEndian

// SnapshotEntry is what a producer snapshot says of a producer.
type SnapshotEntry struct {
	ProducerID       int64
	ProducerEpoch    int16
	LastSequence     int32
	LastOffset       int64 // -1: no batch is remembered
	OffsetDelta      int32 // from the last batch's first record to its last
	Timestamp        int64
	CoordinatorEpoch int32
	TxnFirstOffset   int64 // -1: none is open
}

const (
	snapshotHeader = 10
	snapshotEntry  = 46
)

// DecodeSnapshot reads a producer snapshot, Kafka's or ours, in the order of its entries. Errors are producer.ErrCorruptSnapshot.
func DecodeSnapshot(b []byte) ([]SnapshotEntry, error) {
	if err := checkSnapshot(b); err != nil {
		return nil, err
	}
	b = b[snapshotHeader:]
	list := make([]SnapshotEntry, 0, len(b)/snapshotEntry)

	for ; len(b) >= snapshotEntry; b = b[snapshotEntry:] {
		list = append(list, SnapshotEntry{
			ProducerID: int64(be.Uint64(b)), ProducerEpoch: int16(be.Uint16(b[8:])), LastSequence: int32(be.Uint32(b[10:])), LastOffset: int64(be.Uint64(b[14:])),
			OffsetDelta: int32(be.Uint32(b[22:])), Timestamp: int64(be.Uint64(b[26:])), CoordinatorEpoch: int32(be.Uint32(b[34:])), TxnFirstOffset: int64(be.Uint64(b[38:])),
		})
	}
	return list, nil
}

func checkSnapshot(b []byte) error {
	_, err := producer.Decode(b)
	return err
}

// snapshot takes the producers from the newest snapshot or checkpoint that is whole.
func (v *Surveyor) snapshot(s *Summary) error {
	s.Producers, s.ProducersAsOf = map[int64]Producer{}, s.LogStart
	if n := len(s.Segments); n > 0 && s.Segments[n-1].Checkpoint.There() {
		text, err := vfs.ReadFile(v.FS, s.Segments[n-1].Checkpoint.Path)
		if err != nil {
			return err
		}
		if cp, err := segment.DecodeCheckpoint(text); err == nil {
			if list, err := DecodeSnapshot(cp.Producers); err == nil {
				s.know(list, cp.Next)
			}
		}
	}
	for i := len(s.Snapshots) - 1; i >= 0; i-- {
		if s.Snapshots[i].Offset <= s.ProducersAsOf && s.ProducersAsOf > s.LogStart {
			return nil
		}
		text, err := vfs.ReadFile(v.FS, s.Snapshots[i].Path)
		if err != nil {
			return err
		}
		if list, err := DecodeSnapshot(text); err == nil {
			s.know(list, s.Snapshots[i].Offset)
			return nil
		}
	}
	return nil
}

func (s *Summary) know(list []SnapshotEntry, offset int64) {
	s.Producers, s.ProducersAsOf = make(map[int64]Producer, len(list)), offset
	for _, e := range list {
		s.Producers[e.ProducerID] = Producer{ID: e.ProducerID, Epoch: e.ProducerEpoch, LastOffset: e.LastOffset, LastSequence: e.LastSequence, TxnFirstOffset: e.TxnFirstOffset}
	}
}
