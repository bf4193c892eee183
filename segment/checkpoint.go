package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"time"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/producer"
	"github.com/millrace/millrace/segment/vfs"
)

// A checkpoint is what an open would otherwise have to read the active segment from its beginning for: it
// says that the first so many bytes were durable and whole, and holds all that is derived from them. The
// file lies beside its segment under the name ….checkpoint, replaced in one step now and then and by a clean
// close. It is only ever believed whole, and nothing is lost without it. All integers are big-endian:
//
//	+----------+-----------+--------+--------+-------------+---------+--------+----------+-
//	| MILLCKPT | version u4| CRC u4 | base i8| position i8 | next i8 | sum u4 | summed u4|
//	+----------+-----------+--------+--------+-------------+---------+--------+----------+-
//	+--------------------+----------------------+-------------------+---------------+-------------+-
//	| first timestamp i8 | largest timestamp i8 | its offset i8     | since entry u4| sections …  |
//	+--------------------+----------------------+-------------------+---------------+-------------+-
//
// The CRC-32C covers what follows it. Sections, each behind its length (u4): offset index, time index and leader
// epochs as in the files that hold them else, and producers with all that is remembered of them.
type checkpoint struct {
	base           int64
	position       int64 // bytes of the segment that it is about
	next           int64 // offset behind them
	sum            uint32
	summed         bool // sum is the CRC-32C of those bytes
	firstTimestamp int64
	index          indexer
	epochs         epochs
	producers      []byte // producer.State.EncodeAll
}

const (
	checkpointSuffix  = ".checkpoint"
	checkpointMagic   = "MILLCKPT"
	checkpointVersion = 1
	checkpointFixed   = 8 + 4 + 4 + 3*8 + 2*4 + 3*8 + 4
)

func (cp *checkpoint) encode() []byte {
	be := binary.BigEndian
	b := append(make([]byte, 0, 4096), checkpointMagic...)
	b = be.AppendUint32(b, checkpointVersion)
	b = be.AppendUint32(b, 0)
	for _, v := range []int64{cp.base, cp.position, cp.next} {
		b = be.AppendUint64(b, uint64(v))
	}
	b = be.AppendUint32(b, cp.sum)
	summed := uint32(0)
	if cp.summed {
		summed = 1
	}
	b = be.AppendUint32(b, summed)
	for _, v := range []int64{cp.firstTimestamp, cp.index.largest.timestamp, cp.index.largest.offset} {
		b = be.AppendUint64(b, uint64(v))
	}
	b = be.AppendUint32(b, uint32(cp.index.sinceEntry))
	offsets, times := cp.index.encode(cp.base)
	for _, section := range [][]byte{offsets, times, cp.epochs.encode(), cp.producers} {
		b = be.AppendUint32(b, uint32(len(section)))
		b = append(b, section...)
	}
	be.PutUint32(b[12:], crc32.Checksum(b[16:], castagnoli))
	return b
}

// decodeCheckpoint fails with errDamaged, or with ErrFormat for another version.
func decodeCheckpoint(b []byte) (*checkpoint, error) {
	be := binary.BigEndian
	if len(b) < checkpointFixed || string(b[:8]) != checkpointMagic {
		return nil, fmt.Errorf("%w: %d bytes are no checkpoint", errDamaged, len(b))
	}
	if v := be.Uint32(b[8:]); v != checkpointVersion {
		return nil, fmt.Errorf("%w: checkpoint of version %d, this program knows %d", ErrFormat, v, checkpointVersion)
	}
	if sum := crc32.Checksum(b[16:], castagnoli); sum != be.Uint32(b[12:]) {
		return nil, fmt.Errorf("%w: checkpoint has a wrong checksum", errDamaged)
	}
	next64 := func() int64 {
		v := int64(be.Uint64(b))
		b = b[8:]
		return v
	}
	next32 := func() uint32 {
		v := be.Uint32(b)
		b = b[4:]
		return v
	}
	b = b[16:]
	cp := &checkpoint{base: next64(), position: next64(), next: next64(), sum: next32(), summed: next32() == 1, firstTimestamp: next64()}
	cp.index.largest = timeEntry{timestamp: next64(), offset: next64()}
	cp.index.sinceEntry = int(next32())
	var sections [4][]byte
	for i := range sections {
		if len(b) < 4 || int64(be.Uint32(b)) > int64(len(b)-4) {
			return nil, fmt.Errorf("%w: checkpoint ends early", errDamaged)
		}
		n := next32()
		sections[i], b = b[:n], b[n:]
	}
	x, err := decodeIndexes(cp.base, cp.position, sections[0], sections[1])
	if err != nil {
		return nil, err
	}
	cp.index.indexes, cp.producers = *x, sections[3]
	if cp.epochs, err = decodeEpochs(sections[2]); err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if _, err = producer.DecodeAll(cp.producers); err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return cp, nil
}

// checkpointAfter is how many bytes of a log make a checkpoint worth while. An open after a crash reads
// at most about 64 times CheckpointBytes, as long as there are not so many logs that the share of each gets too small.
func (d *Dir) checkpointAfter() int64 {
	d.mu.Lock()
	logs := len(d.logs)
	d.mu.Unlock()
	most := d.opts.CheckpointBytes
	return max(most/16, min(most, 64*most/int64(max(1, logs))))
}

// A checkpoint that takes more than checkpointSmall bytes is worth while only after checkpointShare times as many of the log.
const (
	checkpointSmall = 64 << 10
	checkpointShare = 16
)

// capture takes what is known of a log, if enough has come to it since its last checkpoint. Nothing of the log may be
// stamped and not published, and all of it must be durable when the checkpoint is given to save. Committer only.
func (c *committer) capture(l *Log, s *segmentFile) *checkpoint {
	grown := s.size.Load() - s.saved
	if l.w.deleted || grown < c.dir.opts.CheckpointBytes/16 || grown < c.dir.checkpointAfter() {
		return nil
	}
	takes := len(s.writer.offsets)*offsetEntrySize + len(s.writer.times)*timeEntrySize + l.w.producers.EncodedSize()
	if takes > checkpointSmall && grown < int64(checkpointShare*takes) || !l.saving.CompareAndSwap(false, true) {
		return nil
	}
	return l.checkpoint(s)
}

// save has the janitor write a checkpoint, when it has nothing else to do.
func (c *committer) save(l *Log, s *segmentFile, cp *checkpoint) {
	s.saved = cp.position // if it cannot be written, the next one comes after as much again
	d := c.dir
	d.mu.Lock()
	d.saves = append(d.saves, func() { d.save(l, s, cp) })
	d.mu.Unlock()
	d.wakeJanitor()
}

// save runs on the janitor.
func (d *Dir) save(l *Log, s *segmentFile, cp *checkpoint) {
	defer l.saving.Store(false)
	if l.dropped || l.active() != s {
		return
	}
	name := s.name(checkpointSuffix)
	err := replace(d.fs, name, cp.encode(), overwrite)
	if err == nil || errors.Is(err, os.ErrNotExist) { // its folder is gone
		return
	}
	if now := d.opts.Now(); now.Sub(d.saveSaid) >= time.Minute || now.Before(d.saveSaid) {
		d.saveSaid = now
		d.log.Warn("cannot write a checkpoint: after a crash the next start has more to read", "partition", l.id.String(), "file", name, "error", err)
	}
}

// checkpoint takes what is known of the active segment. Committer only, or after it has ended.
func (l *Log) checkpoint(s *segmentFile) *checkpoint {
	return &checkpoint{
		base: s.base, position: s.size.Load(), next: l.w.next, sum: s.sum, summed: s.summed,
		firstTimestamp: s.firstTimestamp, index: s.writer, epochs: *l.epochs.Load(), producers: l.w.producers.EncodeAll(),
	}
}

// replace puts a file in the place of one of that name, by a rename that is not made durable.
func replace(fs vfs.FS, name string, data []byte, write func(fs vfs.FS, name string, data []byte) error) error {
	err := write(fs, name+".tmp", data)
	if err == nil {
		err = fs.Rename(name+".tmp", name)
	}
	if err != nil {
		_ = fs.Remove(name + ".tmp") // the disk may be full
	}
	return err
}

// resume reads what is beside the active segment: its checkpoint, and the seal that it has when it was left once and
// its successor is gone. Those say what was durable, believed or not. What is not used is removed before anything is
// changed that it speaks of.
func (l *Log) resume(s *segmentFile, size int64) error {
	cp, err := l.readCheckpoint(s)
	if err != nil && !errors.Is(err, errDamaged) && !errors.Is(err, ErrFormat) {
		return err
	}
	remove := err != nil
	if cp != nil {
		l.w.promise(cp.position, cp.next)
		if cp.position > size {
			remove, cp = true, nil
		} else if err = l.compare(s, cp); errors.Is(err, errRead) {
			return err
		}
	}
	if err != nil {
		remove, cp = true, nil
		l.dir.log.Warn(SaidCheckpoint, "partition", l.id.String(), "file", s.name(checkpointSuffix), "error", err)
	}
	l.w.resumed = cp
	x, err := l.readSeal(s)
	if err != nil {
		return err
	}
	if x != nil {
		l.w.promise(x.length, x.next)
		if err := l.dir.fs.Remove(s.name(sealedSuffix)); err != nil {
			return err
		}
	}
	if remove {
		if err := l.dir.fs.Remove(s.name(checkpointSuffix)); err != nil {
			return err
		}
	}
	if x != nil || remove {
		return l.dir.fs.SyncDir(l.path)
	}
	return nil
}

// promise notes what was durable once.
func (w *writer) promise(position, next int64) {
	w.known, w.promised = max(w.known, position), max(w.promised, next)
}

// readCheckpoint gives the checkpoint of a segment, nil when there is none; errDamaged or ErrFormat when it says nothing.
func (l *Log) readCheckpoint(s *segmentFile) (*checkpoint, error) {
	b, err := vfs.ReadFile(l.dir.fs, s.name(checkpointSuffix))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	cp, err := decodeCheckpoint(b)
	if err == nil && cp.base != s.base {
		err = fmt.Errorf("%w: checkpoint of segment %d", errDamaged, cp.base)
	}
	if err != nil {
		return nil, err
	}
	return cp, nil
}

// compare steps through the batches behind the last one that cp has indexed, which must lead to where it ends. The
// offset that they lead to need not be the one that cp has: no CRC covers the base offset of a batch, so cp is the one to believe.
func (l *Log) compare(s *segmentFile, cp *checkpoint) error {
	f, err := l.dir.files.acquire(&s.handle)
	if err != nil {
		return fmt.Errorf("%w: %w", errRead, err)
	}
	defer l.dir.files.release(&s.handle)
	walk := walker{file: f, end: cp.position, readAhead: seekWindow}
	if n := len(cp.index.offsets); n > 0 {
		walk.position = cp.index.offsets[n-1].position
	}
	next, last := s.base, int64(0)
	for walk.next() || errors.Is(walk.err, errMisplaced) {
		next, last = walk.header.NextOffset(), walk.position
	}
	if walk.err == nil && next > cp.next { // it may be less: offsets are not given out again
		l.dir.sayCorrupt(l, &CorruptError{File: f.Name(), Position: last, Offset: next, Cause: fmt.Errorf("%w: the records end at %d, not at %d", errMisplaced, cp.next, next)})
	}
	return walk.err
}

// sumUp goes on with the CRC of the segment over one more batch.
func (s *segmentFile) sumUp(h batch.Header) {
	var prefix [batch.HeaderSize]byte
	batch.PutHeader(prefix[:], h)
	s.sum = batch.ExtendSum(s.sum, prefix[:], h)
}
