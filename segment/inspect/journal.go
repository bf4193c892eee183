package inspect

import (
	"cmp"
	"errors"
	"io/fs"
	"slices"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/producer"
	"github.com/millrace/millrace/segment/vfs"
)

// PartitionKey is what identifies a partition of millrace's.
type PartitionKey struct {
	TopicID [16]byte
	Number  int32
}

// Key is the partition's.
func (p *Partition) Key() PartitionKey { return PartitionKey{p.TopicID, p.Number} }

// JournalTail is what the journal has for a segment behind the end of its file.
type JournalTail struct {
	Log      segment.LogID
	Base     int64 // of the segment
	Position int64 // in the segment's file
	Bytes    []byte
}

// JournalTails reads the journal as a start after a crash does, and gives what that would bring into
// the segments: for each partition, the bytes behind the ends of their files, in order. After a clean close there is nothing.
// Memory: what it gives, which is no more than the journal (64 MiB, unless told otherwise). A file that cannot be read as one of the
// journal's is passed over.
func JournalTails(fsys vfs.FS, p *Place) (map[PartitionKey][]JournalTail, error) {
	if len(p.Journal) == 0 || p.Clean.There() {
		return nil, nil
	}
	type rounds struct {
		file       string
		generation uint64
	}
	var files []rounds
	oldest := uint64(0)
	for _, f := range p.Journal {
		generation, _, err := segment.Journal(fsys, f.Path, func(r segment.JournalRound) error {
			oldest = max(oldest, r.Oldest)
			return nil
		})
		if errors.Is(err, segment.ErrDamaged) || errors.Is(err, segment.ErrFormat) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		files = append(files, rounds{f.Path, generation})
	}
	slices.SortFunc(files, func(a, b rounds) int { return cmp.Compare(a.generation, b.generation) })
	ends := map[PartitionKey]map[int64]int64{} // lengths of the log files, by base
	first := map[PartitionKey]int64{}          // base of the first segment that is there
	for i := range p.Partitions {
		part := &p.Partitions[i]
		if part.State != Live {
			continue
		}
		sizes := map[int64]int64{}
		for _, s := range part.Segments {
			if s.Log.There() {
				sizes[s.Base] = s.Log.Size
			}
		}
		ends[part.Key()] = sizes
		if part.LogStart.There() && len(part.Segments) > 0 {
			first[part.Key()] = part.Segments[0].Base
		}
	}
	tails := map[PartitionKey][]JournalTail{}
	for _, f := range files {
		if f.generation < oldest {
			continue
		}
		_, _, err := segment.Journal(fsys, f.file, func(r segment.JournalRound) error {
			for _, e := range r.Entries {
				key := PartitionKey{e.Log.TopicID, e.Log.Partition}
				if e.Position == segment.DeletedLog {
					delete(tails, key)
					continue
				}
				if e.Base < first[key] {
					continue // of a segment that was removed
				}
				if ends[key] == nil {
					ends[key] = map[int64]int64{}
				}
				end := ends[key][e.Base]
				if e.Position > end || e.Position+int64(len(e.Bytes)) <= end {
					continue
				}
				tails[key] = append(tails[key], JournalTail{Log: e.Log, Base: e.Base, Position: end, Bytes: slices.Clone(e.Bytes[end-e.Position:])})
				ends[key][e.Base] = e.Position + int64(len(e.Bytes))
			}
			return nil
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return tails, nil
}

// addJournal counts what the journal alone has.
func (v *Surveyor) addJournal(s *Summary) {
	for _, t := range v.Journal[s.Key()] {
		if s.State != Live {
			return
		}
		s.Journaled += int64(len(t.Bytes))
		s.Contents.Bytes += int64(len(t.Bytes))
		for b, err := range batch.All(t.Bytes) {
			if err != nil {
				break
			}
			h, _ := batch.ReadHeader(b) // All has read it
			if !s.Counted {
				n := s.Records + h.NextOffset() - s.Next
				c := Contents{First: s.First, FirstTimestamp: s.FirstTimestamp, MaxTimestamp: s.MaxTimestamp}
				c.add(h)
				s.First, s.FirstTimestamp, s.MaxTimestamp, s.Next, s.Records = c.First, c.FirstTimestamp, c.MaxTimestamp, c.Next, n
				continue
			}
			s.Contents.add(h)
			s.produced(h)
		}
	}
}

func checkSnapshot(b []byte) error {
	_, err := producer.Decode(b)
	return err
}

// AddJournaled adds the partitions that the journal alone has to the place, with no folder and no segment yet.
func (p *Place) AddJournaled(tails map[PartitionKey][]JournalTail) {
	known := map[PartitionKey]bool{}
	for i := range p.Partitions {
		if p.Partitions[i].State == Live {
			known[p.Partitions[i].Key()] = true
		}
	}
	for key, list := range tails {
		if id := list[0].Log; !known[key] && len(list) > 0 {
			p.Partitions = append(p.Partitions, Partition{Topic: id.Topic, TopicID: id.TopicID, Number: id.Partition, Layout: Millrace})
		}
	}
	p.sort()
}
