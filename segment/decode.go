package segment

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"path/filepath"

	"github.com/millrace/millrace/segment/producer"
	"github.com/millrace/millrace/segment/vfs"
)

// The names of what lies in a log directory, for those that look at one without opening it.
const (
	TopicsFolder     = topicsFolder     // folder of the partitions' folders
	JournalFolder    = journalFolder    // folder of the journal's files
	CleanMarker      = cleanMarker      // file that a clean close leaves
	DeletedSuffix    = deletedSuffix    // ends the name of what waits for its removal
	StraySuffix      = straySuffix      // ends the name of a partition's folder that belongs to no topic
	EpochsFile       = epochsFile       // leader epochs of a partition
	LogStartFile     = startFile        // log start offset of a partition
	TruncationFile   = cutFile          // of a partition: a truncation that a crash has cut short
	JournalVoidFile  = voidFile         // of a partition: which rounds of the journal count no more for it
	SealedSuffix     = sealedSuffix     // ends the name of the note of what a segment held when it was left
	CheckpointSuffix = checkpointSuffix // ends the name of the checkpoint of a partition's last segment
)

// ErrDamaged says that a file does not hold what was written.
var ErrDamaged = errDamaged

// FolderName is the name of the folder of a partition, below TopicsFolder.
func (id LogID) FolderName() string { return id.folder() }

// ParseFolder is the reverse of FolderName; a long topic name comes back cut. It does
// not take names that end with DeletedSuffix or StraySuffix.
func ParseFolder(name string) (LogID, bool) { return parseFolder(name) }

// ParseFile takes the name of a file apart that is called by an offset of 20 digits:
// "00000000000000000042.log" is 42 and "log".
func ParseFile(name string) (offset int64, suffix string, ok bool) { return parseFile(name) }

// FileName is the reverse of ParseFile.
func FileName(offset int64, suffix string) string { return fmt.Sprintf("%020d.%s", offset, suffix) }

// JournalNumber is the number in the name of a file of the journal, 0 when it is none.
func JournalNumber(name string) int { return journalNumber(name) }

// OffsetEntry is an entry of an offset index: the last offset of the batch that begins at a position.
type OffsetEntry struct{ Offset, Position int64 }

// TimeEntry is an entry of a time index: the largest timestamp so far, and the last offset of its batch.
type TimeEntry struct{ Timestamp, Offset int64 }

// OffsetEntrySize and TimeEntrySize are the bytes that an entry takes in its file.
const (
	OffsetEntrySize = offsetEntrySize
	TimeEntrySize   = timeEntrySize
)

// DecodeOffsetEntry takes the entry at the front of b as it is; base is the segment's.
func DecodeOffsetEntry(base int64, b []byte) OffsetEntry {
	return OffsetEntry{base + int64(binary.BigEndian.Uint32(b)), int64(binary.BigEndian.Uint32(b[4:]))}
}

// DecodeTimeEntry takes the entry at the front of b as it is; base is the segment's.
func DecodeTimeEntry(base int64, b []byte) TimeEntry {
	return TimeEntry{int64(binary.BigEndian.Uint64(b)), base + int64(binary.BigEndian.Uint32(b[8:]))}
}

// DecodeIndexes reads both index files of a segment whose log has size bytes, and refuses with
// ErrFormat what cannot have been written for such a log, as the server does.
func DecodeIndexes(base, size int64, offsets, times []byte) ([]OffsetEntry, []TimeEntry, error) {
	x, err := decodeIndexes(base, size, offsets, times)
	if err != nil {
		return nil, nil, err
	}
	return x.entries()
}

func (x *indexes) entries() ([]OffsetEntry, []TimeEntry, error) {
	offsets := make([]OffsetEntry, len(x.offsets))
	for i, e := range x.offsets {
		offsets[i] = OffsetEntry{e.offset, e.position}
	}
	times := make([]TimeEntry, len(x.times))
	for i, e := range x.times {
		times[i] = TimeEntry{e.timestamp, e.offset}
	}
	return offsets, times, nil
}

// Indexer builds the indexes of a segment as its writer does.
type Indexer struct{ x indexer }

// NewIndexer gives an empty one.
func NewIndexer() *Indexer { return &Indexer{newIndexer()} }

// Add notes one batch; interval is index.interval.bytes.
func (x *Indexer) Add(lastOffset, maxTimestamp, position int64, size, interval int) {
	x.x.add(lastOffset, maxTimestamp, position, size, interval)
}

// SkipDamage makes the next batch get an entry, by which readers step over what lies before it.
func (x *Indexer) SkipDamage(interval int) { x.x.sinceEntry = interval + 1 }

// Files gives the contents of the index and the time index of a segment that is left.
func (x *Indexer) Files(base int64) (offsets, times []byte) {
	x.x.addTime()
	return x.x.encode(base)
}

// EpochEntry says that a leader epoch began at an offset.
type EpochEntry struct {
	Epoch int32
	Start int64
}

// DecodeEpochs reads a leader-epoch-checkpoint, Kafka's or ours. Errors are ErrFormat.
func DecodeEpochs(b []byte) ([]EpochEntry, error) {
	e, err := decodeEpochs(b)
	if err != nil {
		return nil, err
	}
	return e.entries(), nil
}

func (e epochs) entries() []EpochEntry {
	list := make([]EpochEntry, len(e))
	for i, entry := range e {
		list[i] = EpochEntry{entry.epoch, entry.start}
	}
	return list
}

// EncodeEpochs is the reverse of DecodeEpochs.
func EncodeEpochs(list []EpochEntry) []byte {
	e := make(epochs, len(list))
	for i, entry := range list {
		e[i] = epochEntry{entry.Epoch, entry.Start}
	}
	return e.encode()
}

// DecodeLogStart reads the file LogStartFile; ErrDamaged, or ErrFormat for a later version.
func DecodeLogStart(b []byte) (int64, error) { return decodeStart(b) }

// EncodeLogStart is the reverse of DecodeLogStart.
func EncodeLogStart(offset int64) []byte { return encodeStart(offset) }

// Sealed says what the log file of a segment held when it was left.
type Sealed struct {
	Length int64  // bytes
	Next   int64  // offset that follows the last record
	Sum    uint32 // CRC-32C of the whole file
}

// DecodeSealed reads a file that ends with SealedSuffix; ErrDamaged, or ErrFormat for a later version.
func DecodeSealed(b []byte) (Sealed, error) {
	x, err := decodeSeal(b)
	return Sealed{x.length, x.next, x.sum}, err
}

// EncodeSealed is the reverse of DecodeSealed.
func EncodeSealed(x Sealed) []byte { return seal{x.Length, x.Next, x.Sum}.encode() }

// Checkpoint is what a file that ends with CheckpointSuffix holds.
type Checkpoint struct {
	Base, Position, Next int64  // the segment, how many of its bytes it is about, and the offset behind them
	Sum                  uint32 // CRC-32C of those bytes
	Summed               bool   // Sum is known
	FirstTimestamp       int64
	Largest              TimeEntry
	Offsets              []OffsetEntry
	Times                []TimeEntry
	Epochs               []EpochEntry
	Producers            []byte // a producer snapshot, which has the last batch of each
}

// DecodeCheckpoint reads a checkpoint; ErrDamaged, or ErrFormat for another version.
func DecodeCheckpoint(b []byte) (*Checkpoint, error) {
	cp, err := decodeCheckpoint(b)
	if err != nil {
		return nil, err
	}
	out := &Checkpoint{
		Base: cp.base, Position: cp.position, Next: cp.next, Sum: cp.sum, Summed: cp.summed, FirstTimestamp: cp.firstTimestamp,
		Largest: TimeEntry{cp.index.largest.timestamp, cp.index.largest.offset}, Epochs: cp.epochs.entries(),
	}
	state, err := producer.DecodeAll(cp.producers)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	out.Producers = state.Encode()
	out.Offsets, out.Times, err = cp.index.entries()
	return out, err
}

// JournalRound is one round of the journal: what became durable together.
type JournalRound struct {
	Generation, Sequence uint64
	Oldest               uint64 // the first generation that was needed when it was written
	Position             int64  // in the file
	Length               int64  // without padding
	Entries              []JournalEntry
}

// JournalEntry is what a round has for one log. Bytes hold until the next round.
type JournalEntry struct {
	Log      LogID
	Base     int64  // of the segment
	Position int64  // in the segment's file; DeletedLog: the log was deleted
	Bytes    []byte // whole batches
}

// DeletedLog is the position of an entry that voids all earlier ones of its log.
const DeletedLog = deletedLog

// Journal reads a file of the journal: its generation, and each whole round in turn. It ends at what is no
// round of this use of the file, which is how it ends in a file that is well: end is where that is.
// A file without a header gives ErrDamaged, one of a later version ErrFormat. It holds one round.
func Journal(fs vfs.FS, name string, visit func(JournalRound) error) (generation uint64, end int64, err error) {
	f, err := fs.OpenFile(name, vfs.ReadOnly, 0)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return 0, 0, err
	}
	block := make([]byte, vfs.BlockSize)
	n, err := f.ReadAt(block, 0)
	if err != nil && err != io.EOF {
		return 0, 0, err
	}
	if generation, err = decodeJournalHeader(block[:n]); err != nil {
		return 0, 0, fmt.Errorf("%s: %w", filepath.Base(name), err)
	}
	r := roundReader{file: f, generation: generation, at: vfs.BlockSize, size: size}
	for r.next() {
		if err := visit(r.round); err != nil {
			return generation, r.at, err
		}
	}
	return generation, r.at, r.err
}

// roundReader steps through the whole rounds of a journal file.
type roundReader struct {
	file       vfs.File
	generation uint64
	at, size   int64 // where the next round begins
	sequence   uint64
	bytes      []byte
	round      JournalRound
	err        error
}

func (r *roundReader) next() bool {
	var head [roundHeader]byte
	if r.at+roundHeader > r.size {
		return false
	}
	if _, r.err = r.file.ReadAt(head[:], r.at); r.err != nil {
		return false
	}
	length := roundLength(head[:])
	if length < roundHeader || length > r.size-r.at || binary.BigEndian.Uint64(head[16:]) != r.generation {
		return false
	}
	if int64(cap(r.bytes)) < length {
		r.bytes = make([]byte, length)
	}
	r.bytes = r.bytes[:length]
	if _, r.err = r.file.ReadAt(r.bytes, r.at); r.err != nil {
		return false
	}
	r.round = JournalRound{Generation: r.generation, Sequence: r.sequence, Position: r.at, Length: length, Entries: r.round.Entries[:0],
		Oldest: binary.BigEndian.Uint64(head[32:])}
	whole := decodeRound(r.bytes, r.generation, r.sequence, func(_ uint64, e journalEntry) {
		r.round.Entries = append(r.round.Entries, JournalEntry{e.id, e.base, e.position, e.bytes})
	})
	if !whole {
		return false
	}
	r.sequence++
	r.at += roundUp(length)
	return true
}

// IsZero tells whether there is nothing but zeros in b.
func IsZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// Checkpoint gives the contents of the checkpoint of a segment that was indexed batch by batch from its beginning: of position
// bytes with a CRC-32C of sum, behind which the offsets go on with next. first is the timestamp of its first batch, producers what producer.State.EncodeAll gives.
func (x *Indexer) Checkpoint(base, position, next int64, sum uint32, first int64, list []EpochEntry, producers []byte) []byte {
	cp := checkpoint{base: base, position: position, next: next, sum: sum, summed: true, firstTimestamp: first, index: x.x, producers: producers}
	for _, e := range list {
		cp.epochs = append(cp.epochs, epochEntry{e.Epoch, e.Start})
	}
	return cp.encode()
}
