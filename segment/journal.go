package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/millrace/millrace/segment/vfs"
)

// The journal makes the small appends of a round durable with one write and one
// sync, whatever the number of their logs. It is a row of files, each a header
// block and then rounds, every one of which begins at a block:
//
//	file   | magic 8 | version u32 | generation u64 | CRC u32 |               padded to a block
//	round  | magic u32 | CRC u32 | length u32 | entries u32 | generation u64 | sequence u64 | oldest u64 | entries … |
//	entry  | topic id 16 | partition u32 | segment base i64 | position i64 | length u32 | name length u16 | name | bytes |
//
// All integers are big-endian. A round's CRC-32C covers what follows it, up to
// length. The generation rises with each use of a file, the sequence with each
// round of a generation, from 0: what an earlier use has left behind is known by that.
// oldest is the first generation that was still needed when the round was written.
// An entry's bytes are whole batches that belong at a position of a segment;
// position -1 says that the log was deleted, and that earlier entries of it are void.
const (
	journalFolder  = "journal"
	journalSuffix  = ".journal"
	journalMagic   = "MILLJRNL"
	journalVersion = 1
	roundMagic     = 0x4d4c5252 // "MLRR"
	roundHeader    = 40
	entryHeader    = 16 + 4 + 8 + 8 + 4 + 2
	maxJournalName = 1 << 10
	// journalRound is about how many bytes go into one round: more are split.
	journalRound = 4 << 20
	// journalGrowth is how much longer a file becomes when a round reaches its end: with
	// zeros, once for many rounds. A sync of a file that has grown costs another write
	// of the file system's; over what is there already it is half as long.
	journalGrowth = 1 << 20
	deletedLog    = -1
)

// journal is the committer's end of it. The committer alone uses it.
type journal struct {
	dir        *Dir
	folder     string
	fileBytes  int64 // a file is left when it is larger
	generation uint64
	current    *journalFile
	old        []*journalFile // left; their segments are being flushed, or wait for it
	free       []*journalFile // to be used again
	made       int            // files so far, for their names
	unnamed    bool           // a file's name is not durable yet
	dirty      []*journalFile // written and not synced

	memory  []byte // aligned
	release func()
	buf     []byte // the round that is being gathered, a prefix of memory
	entries uint32
}

type journalFile struct {
	name       string
	file       vfs.File
	generation uint64
	sequence   uint64
	size       int64 // where the next round begins
	length     int64 // of the file
}

func (j *journal) init(d *Dir, generation uint64) {
	j.dir, j.folder, j.generation, j.fileBytes = d, filepath.Join(d.opts.Path, journalFolder), generation, d.opts.JournalFileBytes
}

// oldest is the first generation that is still needed.
func (j *journal) oldest() uint64 {
	if len(j.old) > 0 {
		return j.old[0].generation
	}
	if j.current != nil {
		return j.current.generation
	}
	return j.generation + 1
}

// bytes is how much of the journal is needed.
func (j *journal) bytes() int64 {
	n := int64(0)
	for _, f := range j.old {
		n += f.size
	}
	if j.current != nil {
		n += j.current.size
	}
	return n
}

// holds tells whether a recovery may find rounds of a generation.
func (j *journal) holds(generation uint64) bool {
	if j.current != nil && j.current.generation == generation {
		return true
	}
	is := func(f *journalFile) bool { return f.generation == generation }
	return slices.ContainsFunc(j.old, is) || slices.ContainsFunc(j.free, is)
}

// add gathers an entry into the round; b is copied. The caller writes when full answers true.
func (j *journal) add(id LogID, base, position int64, chunks ...[]byte) {
	n := 0
	for _, b := range chunks {
		n += len(b)
	}
	j.reserve(entryHeader + len(id.Topic) + n)
	if len(j.buf) == 0 {
		j.buf = j.memory[:roundHeader]
	}
	b := append(j.buf, id.TopicID[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(id.Partition))
	b = binary.BigEndian.AppendUint64(b, uint64(base))
	b = binary.BigEndian.AppendUint64(b, uint64(position))
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	b = binary.BigEndian.AppendUint16(b, uint16(len(id.Topic)))
	b = append(b, id.Topic...)
	for _, c := range chunks {
		b = append(b, c...)
	}
	j.buf = b
	j.entries++
}

// full tells whether the round is to be written before more is added to it.
func (j *journal) full() bool { return len(j.buf) >= journalRound }

// reserve makes room for n more bytes, and for the padding behind them.
func (j *journal) reserve(n int) {
	need := int(roundUp(int64(roundHeader + len(j.buf) + n)))
	if need <= len(j.memory) {
		return
	}
	memory, release := vfs.Aligned(max(need, 2*len(j.memory), 256<<10))
	copy(memory, j.buf)
	j.buf = memory[:len(j.buf)]
	if j.release != nil {
		j.release()
	}
	j.memory, j.release = memory, release
}

// write writes the gathered round; sync makes it durable.
func (j *journal) write() error {
	if j.entries == 0 {
		return nil
	}
	if j.current != nil && j.current.size >= j.fileBytes {
		j.rotate()
	}
	if j.current == nil {
		if err := j.begin(); err != nil {
			j.drop()
			return err
		}
	}
	f := j.current
	length := len(j.buf)
	padded := j.memory[:roundUp(int64(length))]
	clear(padded[length:])
	binary.BigEndian.PutUint32(padded, roundMagic)
	binary.BigEndian.PutUint32(padded[8:], uint32(length))
	binary.BigEndian.PutUint32(padded[12:], j.entries)
	binary.BigEndian.PutUint64(padded[16:], f.generation)
	binary.BigEndian.PutUint64(padded[24:], f.sequence)
	binary.BigEndian.PutUint64(padded[32:], j.oldest())
	binary.BigEndian.PutUint32(padded[4:], crc32.Checksum(padded[8:length], castagnoli))
	j.drop()
	if len(j.dirty) == 0 || j.dirty[len(j.dirty)-1] != f {
		j.dirty = append(j.dirty, f)
	}
	bufs := append(make([][]byte, 0, 2), padded)
	end := f.size + int64(len(padded))
	if end > f.length {
		bufs = append(bufs, journalZeros())
	}
	if _, err := f.file.WriteVAt(bufs, f.size); err != nil {
		return j.failedWrite(f, err)
	}
	if end > f.length {
		f.length = end + journalGrowth
	}
	f.size = end
	f.sequence++
	return nil
}

// journalZeros is what files grow with; nobody writes to it.
var journalZeros = sync.OnceValue(func() []byte {
	b, _ := vfs.Aligned(journalGrowth)
	return b
})

// drop forgets what was gathered.
func (j *journal) drop() { j.buf, j.entries = nil, 0 }

// failedWrite takes a round back that was not written whole: a recovery must not
// find it when others have taken the places of its batches.
func (j *journal) failedWrite(f *journalFile, cause error) error {
	err := j.dir.failed("write", f.name, cause)
	if j.dir.fenced() != nil {
		return err
	}
	if cut := f.file.Truncate(f.size); cut != nil {
		return j.dir.fence("truncate", f.name, cut)
	}
	f.length = f.size
	return err
}

// sync makes what was written durable.
func (j *journal) sync() error {
	for _, f := range j.dirty {
		if err := f.file.Sync(); err != nil {
			return j.dir.fence("sync", f.name, err)
		}
	}
	j.dirty = j.dirty[:0]
	if j.unnamed {
		if err := j.dir.fs.SyncDir(j.folder); err != nil {
			return j.dir.failedSync(j.folder, err)
		}
		j.unnamed = false
	}
	return nil
}

// rotate leaves the current file, if it has any round: what comes next goes to another.
func (j *journal) rotate() {
	if j.current != nil && j.current.sequence > 0 {
		j.old = append(j.old, j.current)
		j.current = nil
	}
}

// begin takes a file into use. Its header becomes durable with its first round.
func (j *journal) begin() error {
	f := &journalFile{}
	if n := len(j.free); n > 0 {
		f, j.free = j.free[n-1], j.free[:n-1]
	} else if err := j.create(f); err != nil {
		return err
	}
	block, release := vfs.Aligned(vfs.BlockSize)
	defer release()
	j.generation++
	f.generation, f.sequence, f.size = j.generation, 0, vfs.BlockSize
	encodeJournalHeader(block, f.generation)
	if _, err := f.file.WriteVAt([][]byte{block}, 0); err != nil {
		j.free = append(j.free, f)
		return j.dir.failed("write", f.name, err)
	}
	f.length = max(f.length, f.size)
	j.current = f
	return nil
}

func (j *journal) create(f *journalFile) error {
	fs := j.dir.fs
	f.name = filepath.Join(j.folder, fmt.Sprintf("%08d%s", j.made+1, journalSuffix))
	flags := vfs.ReadWrite | vfs.Create | vfs.Trunc
	if j.dir.direct {
		flags |= vfs.Direct
	}
	var err error
	if f.file, err = fs.OpenFile(f.name, flags, 0o644); err != nil {
		return j.dir.failed("create", f.name, err)
	}
	j.made++
	j.unnamed = true
	return nil
}

// flushed says that everything in the files that were left by rotate when there
// were n of them is in the segments now. A few are kept for another use.
func (j *journal) flushed(n int) {
	j.free = append(j.free, j.old[:n]...)
	j.old = append(j.old[:0], j.old[n:]...)
	for len(j.free) > 2 {
		f := j.free[0]
		j.free = j.free[1:]
		if err := errors.Join(f.file.Close(), j.dir.fs.Remove(f.name)); err != nil {
			j.dir.log.Warn("cannot remove a journal file that is not needed: it takes up room until the next start", "file", f.name, "error", err)
		}
	}
}

// close closes the files; remove tells to remove them too, since nothing in them is needed.
func (j *journal) close(remove bool) error {
	var errs []error
	all := append(append([]*journalFile{}, j.old...), j.free...)
	if j.current != nil {
		all = append(all, j.current)
	}
	for _, f := range all {
		errs = append(errs, f.file.Close())
		if remove {
			errs = append(errs, j.dir.fs.Remove(f.name))
		}
	}
	if remove && len(all) > 0 {
		errs = append(errs, j.dir.fs.SyncDir(j.folder))
	}
	j.current, j.old, j.free = nil, nil, nil
	if j.release != nil {
		j.release()
		j.release, j.memory = nil, nil
	}
	return errors.Join(errs...)
}

func encodeJournalHeader(block []byte, generation uint64) {
	n := copy(block, journalMagic)
	binary.BigEndian.PutUint32(block[n:], journalVersion)
	binary.BigEndian.PutUint64(block[n+4:], generation)
	binary.BigEndian.PutUint32(block[n+12:], crc32.Checksum(block[:n+12], castagnoli))
}

// decodeJournalHeader gives the generation; errDamaged when these are not the
// bytes of a header, ErrFormat for one of a later version.
func decodeJournalHeader(block []byte) (generation uint64, err error) {
	const n = len(journalMagic)
	if len(block) < n+16 || string(block[:n]) != journalMagic || binary.BigEndian.Uint32(block[n+12:]) != crc32.Checksum(block[:n+12], castagnoli) {
		return 0, fmt.Errorf("%w: no journal header", errDamaged)
	}
	if v := binary.BigEndian.Uint32(block[n:]); v != journalVersion {
		return 0, fmt.Errorf("%w: journal of version %d, this program knows %d", ErrFormat, v, journalVersion)
	}
	return binary.BigEndian.Uint64(block[n+4:]), nil
}

// journalEntry is a decoded entry; bytes lie in what it was decoded from.
type journalEntry struct {
	round    roundNumber
	id       LogID
	base     int64
	position int64
	bytes    []byte
}

// decodeRound visits the entries of the round that b is, without its padding; false
// when b is not a whole round of this generation and sequence.
func decodeRound(b []byte, generation, sequence uint64, visit func(oldest uint64, e journalEntry)) bool {
	if len(b) < roundHeader || roundLength(b) != int64(len(b)) ||
		binary.BigEndian.Uint64(b[16:]) != generation || binary.BigEndian.Uint64(b[24:]) != sequence ||
		crc32.Checksum(b[8:], castagnoli) != binary.BigEndian.Uint32(b[4:]) {
		return false
	}
	oldest := binary.BigEndian.Uint64(b[32:])
	rest := b[roundHeader:]
	for range binary.BigEndian.Uint32(b[12:]) {
		e, n := decodeEntry(rest)
		if n == 0 {
			return false
		}
		e.round = roundNumber{generation, sequence}
		visit(oldest, e)
		rest = rest[n:]
	}
	return true
}

// roundLength is the length in a round's header, 0 when it is none.
func roundLength(head []byte) int64 {
	if binary.BigEndian.Uint32(head) != roundMagic {
		return 0
	}
	return int64(binary.BigEndian.Uint32(head[8:]))
}

func decodeEntry(b []byte) (e journalEntry, n int) {
	if len(b) < entryHeader {
		return e, 0
	}
	copy(e.id.TopicID[:], b)
	e.id.Partition = int32(binary.BigEndian.Uint32(b[16:]))
	e.base = int64(binary.BigEndian.Uint64(b[20:]))
	e.position = int64(binary.BigEndian.Uint64(b[28:]))
	length, name := int64(binary.BigEndian.Uint32(b[36:])), int(binary.BigEndian.Uint16(b[40:]))
	if int64(len(b)-entryHeader) < int64(name)+length {
		return e, 0
	}
	e.id.Topic = string(b[entryHeader : entryHeader+name])
	n = entryHeader + name
	e.bytes = b[n : n+int(length)]
	return e, n + int(length)
}

// journalNumber is the number in the name of a journal file, 0 when it is none.
func journalNumber(name string) int {
	digits, ok := strings.CutSuffix(name, journalSuffix)
	n, err := strconv.Atoi(digits)
	if !ok || err != nil || n < 1 {
		return 0
	}
	return n
}

// makeJournalFolder makes the folder durable before anything in it is needed.
func (d *Dir) makeJournalFolder() error {
	name := filepath.Join(d.opts.Path, journalFolder)
	if _, err := d.fs.Stat(name); err == nil {
		return nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := d.fs.MkdirAll(name, 0o755); err != nil {
		return err
	}
	return d.fs.SyncDir(d.opts.Path)
}
