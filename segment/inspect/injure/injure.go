// Package injure harms a log directory in every way that has a name, for tests: of what verify finds and a
// server says, and of what a repair makes of it.
package injure

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/inspect"
	"github.com/millrace/millrace/segment/vfs"
)

// From says what an injury presupposes.
type From int

// What a directory is like before it.
const (
	Killed    From = iota // the process was killed, all records are in segments
	Closed                // closed well; the mark of that is removed, as an open does first
	Journaled             // the process was killed, the newest records are in the journal alone
)

// Injury is one way to harm a directory.
type Injury struct {
	Name string
	From From
	What string // verify says so
	// AtStart tells that a server says the same when it opens the directory; WhenRead, when it has
	// read all of the partition. Neither: it does not notice.
	AtStart, WhenRead bool
	Do                func(p *Patient) error
}

// Patient is the directory to harm.
type Patient struct {
	FS     vfs.FS
	Dir    string
	Part   *inspect.Partition // with three segments at least
	Random *rand.Rand
}

// Admit takes a partition of a directory in.
func Admit(fsys vfs.FS, dir, partition string, random *rand.Rand) (*Patient, error) {
	place, err := inspect.Find(fsys, dir)
	if err != nil {
		return nil, err
	}
	for i := range place.Partitions {
		if p := &place.Partitions[i]; p.Name() == partition && p.State == inspect.Live {
			return &Patient{fsys, dir, p, random}, nil
		}
	}
	return nil, fmt.Errorf("no partition %s in %s", partition, dir)
}

// Find gives the injury of a name.
func Find(name string) (Injury, bool) {
	for _, i := range All {
		if i.Name == name {
			return i, true
		}
	}
	return Injury{}, false
}

// All are the injuries.
var All = []Injury{
	{Name: "bit-in-header", What: segment.SaidDamaged, WhenRead: true, Do: flip(middle, recordCount)},
	{Name: "bit-in-payload", What: segment.SaidDamaged, WhenRead: true, Do: flip(middle, payload)},
	{Name: "bit-in-crc", What: segment.SaidDamaged, WhenRead: true, Do: flip(middle, crc)},
	{Name: "bit-in-length", What: segment.SaidDamaged, WhenRead: true, Do: flip(middle, length)},
	{Name: "bit-in-magic", What: segment.SaidDamaged, WhenRead: true, Do: flip(middle, magic)},
	{Name: "bit-in-base-offset", What: inspect.SaidOffsetWrong, WhenRead: true, Do: flip(middle, baseOffset)},
	{Name: "wrong-epoch", What: inspect.SaidEpochWrong, Do: flip(middle, epoch)},
	{Name: "last-bit-in-header", What: segment.SaidTornEnd, AtStart: true, Do: flip(last, recordCount)},
	{Name: "last-bit-in-payload", What: segment.SaidTornEnd, AtStart: true, Do: flip(last, payload)},
	{Name: "last-bit-in-crc", What: segment.SaidTornEnd, AtStart: true, Do: flip(last, crc)},
	{Name: "last-bit-in-base-offset", What: segment.SaidOffsetWrong, AtStart: true, Do: flip(last, baseOffset)},
	{Name: "first-bit-in-base-offset", What: segment.SaidOffsetWrong, AtStart: true, Do: flipFirst},
	{Name: "known-bit-in-payload", From: Journaled, What: segment.SaidDamaged, AtStart: true, Do: flip(last, payload)},
	{Name: "known-bit-in-length", From: Journaled, What: segment.SaidDamaged, AtStart: true, Do: flip(last, length)},
	{Name: "torn-tail", What: segment.SaidTornEnd, AtStart: true, Do: tornTail},
	{Name: "zeroed-block", What: segment.SaidDamaged, WhenRead: true, Do: zeroBlock(middle)},
	{Name: "last-zeroed-block", What: segment.SaidTornEnd, AtStart: true, Do: zeroBlock(last)},
	{Name: "missing-index", What: segment.SaidIndexes, WhenRead: true, Do: remove(index)},
	{Name: "stale-index", What: segment.SaidIndexes, WhenRead: true, Do: stale(index)},
	{Name: "garbage-index", What: segment.SaidIndexes, WhenRead: true, Do: garbage(index)},
	{Name: "missing-time-index", What: segment.SaidIndexes, WhenRead: true, Do: remove(timeIndex)},
	{Name: "short-time-index", What: segment.SaidIndexes, WhenRead: true, Do: shorten(timeIndex)},
	{Name: "garbage-time-index", What: segment.SaidIndexes, WhenRead: true, Do: garbage(timeIndex)},
	{Name: "duplicate-segment", What: segment.SaidDuplicate, AtStart: true, Do: duplicate},
	{Name: "duplicate-at-end", What: segment.SaidDuplicate, AtStart: true, Do: duplicateAtEnd},
	{Name: "gap", What: segment.SaidGap, AtStart: true, Do: gap},
	{Name: "foreign-file", What: segment.SaidForeign, AtStart: true, Do: foreign(func(p *Patient) string { return p.Part.Path })},
	{Name: "foreign-file-among-topics", What: segment.SaidForeign, AtStart: true, Do: foreign(func(p *Patient) string { return filepath.Join(p.Dir, segment.TopicsFolder) })},
	{Name: "truncated-snapshot", From: Closed, What: segment.SaidSnapshot, AtStart: true, Do: shorten(snapshot)},
	{Name: "garbage-snapshot", From: Closed, What: segment.SaidSnapshot, AtStart: true, Do: garbage(snapshot)},
	{Name: "half-written-journal", From: Journaled, What: segment.SaidJournalTorn, AtStart: true, Do: halfJournal},
	{Name: "damaged-journal", From: Journaled, What: segment.SaidJournalDamaged, AtStart: true, Do: damagedJournal},
	{Name: "garbage-epochs", From: Closed, What: segment.SaidEpochs, AtStart: true, Do: garbage(epochs)},
	{Name: "garbage-log-start", From: Closed, What: segment.SaidLogStart, AtStart: true, Do: garbageStart},
	{Name: "garbage-seal", What: segment.SaidSealDamaged, AtStart: true, Do: garbage(seal)},
	{Name: "shortened-segment", What: segment.SaidSealShorter, AtStart: true, Do: shortenedSegment},
	{Name: "lengthened-segment", What: segment.SaidSealLonger, AtStart: true, Do: lengthenedSegment},
	{Name: "garbage-checkpoint", From: Closed, What: segment.SaidCheckpoint, AtStart: true, Do: garbage(checkpoint)},
	{Name: "shortened-behind-checkpoint", From: Closed, What: segment.SaidShortened, AtStart: true, Do: shortenedLast},
}

// middle and last pick a segment: one that is neither first nor last, or the last with a record.
func middle(p *Patient) *inspect.Segment {
	logs := p.logs()
	return logs[1+p.Random.IntN(len(logs)-2)]
}

func last(p *Patient) *inspect.Segment {
	logs := p.logs()
	return logs[len(logs)-1]
}

func (p *Patient) logs() (list []*inspect.Segment) {
	for i := range p.Part.Segments {
		if s := &p.Part.Segments[i]; s.Log.Size > 0 {
			list = append(list, s)
		}
	}
	return list
}

// place is a batch in a file.
type place struct {
	at   int64
	size int64
}

func (p *Patient) batches(s *inspect.Segment) (list []place, err error) {
	b, err := inspect.OpenBatches(p.FS, s.Log.Path, inspect.Options{})
	if err != nil {
		return nil, err
	}
	defer b.Close()
	for b.Next() {
		list = append(list, place{b.Position(), int64(b.Header().Size())})
	}
	if len(list) < 3 {
		return nil, fmt.Errorf("%s has %d batches", s.Log.Path, len(list))
	}
	return list, b.Err()
}

// The bytes of a batch that a bit is flipped in: from, and how many.
func recordCount(place) (from, n int64) { return 57, 4 }
func payload(b place) (from, n int64)   { return batch.HeaderSize, b.size - batch.HeaderSize }
func crc(place) (from, n int64)         { return batch.MagicAt + 1, 4 }
func length(place) (from, n int64)      { return 8, 4 }
func magic(place) (from, n int64)       { return batch.MagicAt, 1 }
func baseOffset(place) (from, n int64)  { return 0, 8 }
func epoch(place) (from, n int64)       { return 12, 4 }

// flip flips one bit of one batch, which is neither the first nor the last of its file.
func flip(of func(*Patient) *inspect.Segment, where func(place) (from, n int64)) func(*Patient) error {
	return func(p *Patient) error {
		s := of(p)
		list, err := p.batches(s)
		if err != nil {
			return err
		}
		b := list[1+p.Random.IntN(len(list)-2)]
		from, n := where(b)
		return p.change(s.Log.Path, b.at+from+p.Random.Int64N(n), 1, func(b []byte) { b[0] ^= 1 << p.Random.IntN(8) })
	}
}

// flipFirst makes the base offset of the first batch of the last segment less than the segment's.
func flipFirst(p *Patient) error {
	return p.change(last(p).Log.Path, 7, 1, func(b []byte) { b[0] &= b[0] - 1 })
}

// FlipAnywhere flips one bit of any file of the partition.
func FlipAnywhere(p *Patient) (string, error) {
	entries, err := p.FS.ReadDir(p.Part.Path)
	if err != nil {
		return "", err
	}
	for {
		name := filepath.Join(p.Part.Path, entries[p.Random.IntN(len(entries))].Name())
		text, err := vfs.ReadFile(p.FS, name)
		if err != nil {
			return "", err
		}
		if len(text) > 0 {
			at := p.Random.Int64N(int64(len(text)))
			return fmt.Sprintf("%s at %d", name, at), p.change(name, at, 1, func(b []byte) { b[0] ^= 1 << p.Random.IntN(8) })
		}
	}
}

// change changes n bytes of a file in place.
func (p *Patient) change(name string, at int64, n int, how func([]byte)) (err error) {
	f, err := p.FS.OpenFile(name, vfs.ReadWrite, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b := make([]byte, n)
	if _, err := f.ReadAt(b, at); err != nil {
		return err
	}
	how(b)
	if _, err = f.WriteAt(b, at); err != nil {
		return err
	}
	return f.Sync()
}

func (p *Patient) truncate(name string, size int64) (err error) {
	f, err := p.FS.OpenFile(name, vfs.ReadWrite, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(size); err != nil {
		return err
	}
	return f.Sync()
}

func (p *Patient) add(name string, b []byte) (err error) {
	f, err := p.FS.OpenFile(name, vfs.ReadWrite|vfs.Create, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(b, size); err != nil {
		return err
	}
	return f.Sync()
}

func (p *Patient) noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(1 + p.Random.IntN(255))
	}
	return b
}

// tornTail puts the front of a batch behind the last one.
func tornTail(p *Patient) error {
	s := last(p)
	list, err := p.batches(s)
	if err != nil {
		return err
	}
	text, err := vfs.ReadFile(p.FS, s.Log.Path)
	if err != nil {
		return err
	}
	b, end := list[len(list)-1], list[len(list)-1].at+list[len(list)-1].size
	torn := append([]byte(nil), text[b.at:b.at+1+p.Random.Int64N(b.size-1)]...)
	if len(torn) >= 8 {
		h, err := batch.ReadHeader(text[b.at:])
		if err != nil {
			return err
		}
		batch.PutBaseOffset(torn, h.NextOffset())
	}
	if err := p.truncate(s.Log.Path, end); err != nil {
		return err
	}
	if segment.IsZero(torn) {
		torn[0] = 1 // zeros are no damage
	}
	return p.add(s.Log.Path, torn)
}

// zeroBlock zeroes some bytes in the middle of a file, and so at least one batch.
func zeroBlock(of func(*Patient) *inspect.Segment) func(*Patient) error {
	return func(p *Patient) error {
		s := of(p)
		list, err := p.batches(s)
		if err != nil {
			return err
		}
		b := list[1+p.Random.IntN(len(list)-2)]
		return p.change(s.Log.Path, b.at, int(b.size), func(b []byte) { clear(b) })
	}
}

// The files of a partition that can be harmed as a whole.
func index(p *Patient) string     { return middle(p).Index.Path }
func timeIndex(p *Patient) string { return middle(p).TimeIndex.Path }
func seal(p *Patient) string      { return middle(p).Sealed.Path }
func checkpoint(p *Patient) string {
	return last(p).Checkpoint.Path
}
func epochs(p *Patient) string   { return p.Part.Epochs.Path }
func snapshot(p *Patient) string { return p.Part.Snapshots[len(p.Part.Snapshots)-1].Path }

func remove(which func(*Patient) string) func(*Patient) error {
	return func(p *Patient) error { return p.FS.Remove(which(p)) }
}

func garbage(which func(*Patient) string) func(*Patient) error {
	return func(p *Patient) error {
		name := which(p)
		text, err := vfs.ReadFile(p.FS, name)
		if err != nil {
			return err
		}
		return vfs.WriteFileAtomic(p.FS, name, p.noise(max(1, len(text))))
	}
}

func shorten(which func(*Patient) string) func(*Patient) error {
	return func(p *Patient) error {
		name := which(p)
		text, err := vfs.ReadFile(p.FS, name)
		if err != nil {
			return err
		}
		cut := len(text) / 2
		if strings.HasSuffix(name, ".timeindex") {
			cut = len(text) - segment.TimeEntrySize
		}
		return vfs.WriteFileAtomic(p.FS, name, text[:cut])
	}
}

// stale puts the index of another segment in the place of one.
func stale(which func(*Patient) string) func(*Patient) error {
	return func(p *Patient) error {
		name := which(p)
		text, err := vfs.ReadFile(p.FS, name)
		if err != nil {
			return err
		}
		if len(text) == 0 {
			return fmt.Errorf("%s is empty", name)
		}
		for i := 0; i < len(text); i += segment.OffsetEntrySize {
			binary.BigEndian.PutUint32(text[i+4:], binary.BigEndian.Uint32(text[i+4:])+7)
		}
		return vfs.WriteFileAtomic(p.FS, name, text)
	}
}

// duplicate copies a segment to a name in the middle of its offsets.
func duplicate(p *Patient) error {
	s := middle(p)
	text, err := vfs.ReadFile(p.FS, s.Log.Path)
	if err != nil {
		return err
	}
	return p.add(filepath.Join(p.Part.Path, segment.FileName(s.Base+1, "log")), text)
}

// duplicateAtEnd copies the first segment to a name behind the beginning of the last.
func duplicateAtEnd(p *Patient) error {
	text, err := vfs.ReadFile(p.FS, p.logs()[0].Log.Path)
	if err != nil {
		return err
	}
	return p.add(filepath.Join(p.Part.Path, segment.FileName(last(p).Base+1, "log")), text)
}

// gap removes a segment.
func gap(p *Patient) error {
	s := middle(p)
	for _, f := range []inspect.File{s.Log, s.Index, s.TimeIndex, s.Sealed} {
		if f.There() {
			if err := p.FS.Remove(f.Path); err != nil {
				return err
			}
		}
	}
	return p.FS.SyncDir(p.Part.Path)
}

func foreign(where func(*Patient) string) func(*Patient) error {
	return func(p *Patient) error {
		return p.add(filepath.Join(where(p), "core."+fmt.Sprint(p.Random.IntN(1000))), p.noise(100))
	}
}

func garbageStart(p *Patient) error {
	return vfs.WriteFileAtomic(p.FS, filepath.Join(p.Part.Path, segment.LogStartFile), p.noise(20))
}

func shortenedSegment(p *Patient) error {
	s := middle(p)
	list, err := p.batches(s)
	if err != nil {
		return err
	}
	return p.truncate(s.Log.Path, list[1+p.Random.IntN(len(list)-1)].at)
}

func lengthenedSegment(p *Patient) error { return p.add(middle(p).Log.Path, p.noise(100)) }

func shortenedLast(p *Patient) error {
	s := last(p)
	list, err := p.batches(s)
	if err != nil {
		return err
	}
	return p.truncate(s.Log.Path, list[1+p.Random.IntN(len(list)-1)].at)
}

// journal gives a file of the journal with rounds, and where those begin.
func (p *Patient) journal() (name string, rounds []int64, err error) {
	place, err := inspect.Find(p.FS, p.Dir)
	if err != nil {
		return "", nil, err
	}
	for _, f := range place.Journal {
		rounds = rounds[:0]
		if _, _, err := segment.Journal(p.FS, f.Path, func(r segment.JournalRound) error {
			rounds = append(rounds, r.Position)
			return nil
		}); err != nil {
			return "", nil, err
		}
		if len(rounds) >= 3 {
			return f.Path, rounds, nil
		}
	}
	return "", nil, errors.New("no file of the journal has three rounds")
}

// halfJournal tears the last round.
func halfJournal(p *Patient) error {
	name, rounds, err := p.journal()
	if err != nil {
		return err
	}
	return p.change(name, rounds[len(rounds)-1]+60, 40, func(b []byte) { clear(b) })
}

func damagedJournal(p *Patient) error {
	name, rounds, err := p.journal()
	if err != nil {
		return err
	}
	return p.change(name, rounds[1+p.Random.IntN(len(rounds)-2)]+60+p.Random.Int64N(20), 1, func(b []byte) { b[0] ^= 1 << p.Random.IntN(8) })
}
