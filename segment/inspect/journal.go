package inspect

import (
	"cmp"
	"slices"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/vfs"
)

// PartitionKey is what identifies a partition of millrace's.
type PartitionKey struct {
	TopicID [16]byte
	Number  int32
}

// Key is the partition's.
func (p *Partition) Key() PartitionKey { return PartitionKey{p.TopicID, p.Number} }

// JournalTail is a piece of a segment that the journal has, and the segment's file has not, or not so.
type JournalTail struct {
	Log      segment.LogID
	Base     int64  // of the segment
	Position int64  // in the segment's file
	Bytes    []byte // whole batches
}

// JournalTails is what Overlay finds, by partition: in the order in which it was written, which is that of positions.
func JournalTails(fsys vfs.FS, p *Place) (map[PartitionKey][]JournalTail, error) {
	o, err := NewOverlay(fsys, p)
	if err != nil || o == nil {
		return nil, err
	}
	tails := map[PartitionKey][]JournalTail{}
	for _, f := range o.files {
		key := PartitionKey{f.id.TopicID, f.id.Partition}
		for _, w := range f.writes {
			tails[key] = append(tails[key], JournalTail{Log: f.id, Base: f.base, Position: w.at, Bytes: w.bytes})
		}
	}
	for _, list := range tails {
		slices.SortStableFunc(list, func(a, b JournalTail) int {
			return cmp.Or(cmp.Compare(a.Base, b.Base), cmp.Compare(a.Position, b.Position))
		})
	}
	return tails, nil
}
