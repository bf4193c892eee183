package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"

	"github.com/millrace/millrace/segment/batch"
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
// The CRC-32C covers what follows it. Sections, each behind its length (u4): offset index, time index, leader
// epochs, producers, as in the files that hold them else.
type checkpoint struct {
	base           int64
	position       int64 // bytes of the segment that it is about
	next           int64 // offset behind them
	sum            uint32
	summed         bool // sum is the CRC-32C of those bytes
	firstTimestamp int64
	index          indexer
	epochs         epochs
	producers      []byte // a producer snapshot
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
	cp.epochs, err = decodeEpochs(sections[2])
	return cp, err
}

// checkpointAfter is how many bytes of a log make a checkpoint worth while. An open after a crash reads
// at most about checkpointTotal bytes, as long as there are not so many logs that their share gets too small.
func (d *Dir) checkpointAfter() int64 {
	d.mu.Lock()
	logs := len(d.logs)
	d.mu.Unlock()
	most := d.opts.CheckpointBytes
	return max(most/16, min(most, 64*most/int64(max(1, logs))))
}

// checkpoint has one written of l, when enough has come since the last one. Committer only.
func (c *committer) checkpoint(l *Log) {
	s := l.active()
	if s == nil || l.w.deleted || s.unsynced || s.flushed != s.size.Load() ||
		s.flushed-s.saved < c.dir.opts.CheckpointBytes/16 || s.flushed-s.saved < c.dir.checkpointAfter() || !l.saving.CompareAndSwap(false, true) {
		return
	}
	s.saved = s.flushed
	cp := l.checkpoint(s)
	c.dir.toJanitor(func() {
		defer l.saving.Store(false)
		err := replace(c.dir.fs, s.name(checkpointSuffix), cp.encode(), overwrite)
		switch {
		case err == nil, errors.Is(err, os.ErrNotExist): // its folder is gone
		case vfs.Full(err):
			c.dir.log.Debug("no room for a checkpoint: the next start reads more", "partition", l.id.String(), "error", err)
		default:
			_ = c.dir.failed("checkpoint", s.name(checkpointSuffix), err)
		}
	})
}

// checkpoint takes what is known of the active segment, all of which is in its file. Committer only, or
// after it has ended.
func (l *Log) checkpoint(s *segmentFile) *checkpoint {
	return &checkpoint{
		base: s.base, position: s.size.Load(), next: l.w.next, sum: s.sum, summed: s.summed,
		firstTimestamp: s.firstTimestamp, index: s.writer, epochs: *l.epochs.Load(), producers: l.w.producers.Encode(),
	}
}

// replace puts a file in the place of one of that name, by a rename that is not made durable.
func replace(fs vfs.FS, name string, data []byte, write func(fs vfs.FS, name string, data []byte) error) error {
	if err := write(fs, name+".tmp", data); err != nil {
		return err
	}
	return fs.Rename(name+".tmp", name)
}

// resume reads the checkpoint of the active segment, nil when there is none that can be believed.
func (l *Log) resume(s *segmentFile, size int64) (*checkpoint, error) {
	name := s.name(checkpointSuffix)
	b, err := vfs.ReadFile(l.dir.fs, name)
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
	if err == nil { // nothing before that is the end that a crash leaves
		l.w.known = max(l.w.known, cp.position)
	}
	if err == nil && cp.position > size {
		l.dir.log.Error(SaidShortened,
			"partition", l.id.String(), "file", s.name(".log"), "bytes", size, "bytesThen", cp.position, "lastOffset", cp.next-1)
		return nil, nil
	}
	if err == nil {
		err = l.compare(s, cp)
	}
	if errors.Is(err, errRead) {
		return nil, err
	}
	if err != nil {
		l.dir.log.Warn(SaidCheckpoint, "partition", l.id.String(), "file", name, "error", err)
		return nil, nil
	}
	return cp, nil
}

// compare steps through the batches behind the last one that cp has indexed, which must lead to where it ends.
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
	next := s.base
	for walk.next() {
		next = walk.header.NextOffset()
	}
	if walk.err != nil {
		return walk.err
	}
	if next != cp.next {
		return fmt.Errorf("%w: the records end at %d, not at %d", errDamaged, next, cp.next)
	}
	return nil
}

// sumUp goes on with the CRC of the segment over one more batch.
func (s *segmentFile) sumUp(h batch.Header) {
	var prefix [batch.HeaderSize]byte
	batch.PutHeader(prefix[:], h)
	s.sum = batch.ExtendSum(s.sum, prefix[:], h)
}
