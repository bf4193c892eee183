package segment

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/millrace/millrace/segment/vfs"
)

// A segment that was left has a file ….sealed beside it: a line (see encodeLine) that says what the log
// file held then, so that a later look can tell what is missing or has changed:
//
//	1 1073740912 77 8d5bf3a1 942d4941
//	  length     |  CRC-32C of the whole file, which covers base offsets and epochs as well
//	             offset that follows the last record, where the next segment begins
//
// There is none when damage keeps the CRC from being known.
const (
	sealedSuffix  = ".sealed"
	sealedVersion = "1"
)

// seal is what the file ….sealed says.
type seal struct {
	length, next int64
	sum          uint32
}

func (x seal) encode() []byte {
	return encodeLine(fmt.Sprintf("%s %d %d %08x", sealedVersion, x.length, x.next, x.sum))
}

// decodeSeal fails with errDamaged, or with ErrFormat for a later version.
func decodeSeal(line []byte) (x seal, err error) {
	fields, err := decodeLine(line, sealedVersion, 3)
	if err != nil {
		return x, err
	}
	length, err1 := strconv.ParseInt(fields[0], 10, 64)
	next, err2 := strconv.ParseInt(fields[1], 10, 64)
	sum, err3 := strconv.ParseUint(fields[2], 16, 32)
	if err := errors.Join(err1, err2, err3); err != nil || length < 0 || next < 0 {
		return x, fmt.Errorf("%w: %q", errDamaged, line)
	}
	return seal{length, next, uint32(sum)}, nil
}

// writeSeal notes what the active segment holds, which is about to be left. Committer only.
func (l *Log) writeSeal() error {
	s := l.active()
	if !s.summed { // a note from before a crash in a roll would hide what has come since
		if err := l.dir.fs.Remove(s.name(sealedSuffix)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	return overwrite(l.dir.fs, s.name(sealedSuffix), seal{s.size.Load(), l.w.next, s.sum}.encode())
}

// readSeal gives the note of what a sealed segment holds, nil when there is none that says anything.
func (l *Log) readSeal(s *segmentFile) (*seal, error) {
	name := s.name(sealedSuffix)
	line, err := vfs.ReadFile(l.dir.fs, name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	x, err := decodeSeal(line)
	if err != nil {
		l.dir.log.Warn(SaidSealDamaged, "partition", l.id.String(), "file", name, "error", err)
		return nil, nil
	}
	return &x, nil
}

// readSeals reads the notes of all segments but the last. A segment that begins before the one before it
// ends, as a copy of a file does under another name, is taken out of the log: its records are there already, or
// nobody knows whose they are.
func (l *Log) readSeals() ([]*seal, error) {
	all := *l.segments.Load()
	kept, seals := all[:0:0], make([]*seal, 0, len(all))
	for i, s := range all {
		if n := len(kept); n > 0 && seals[n-1] != nil && s.base < seals[n-1].next {
			l.dir.log.Error(SaidDuplicate, "partition", l.id.String(), "file", s.name(".log"),
				"firstOffset", s.base, "before", kept[n-1].name(".log"), "lastOffset", seals[n-1].next-1)
			continue
		}
		if i > 0 && i == len(all)-1 { // the one before may have no note, as it was the last
			first, err := l.firstOffset(s)
			if err != nil {
				return nil, err
			}
			if first >= 0 && first < s.base {
				l.dir.log.Error(SaidDuplicate, "partition", l.id.String(), "file", s.name(".log"), "firstOffset", first)
				continue
			}
		}
		var x *seal
		if i < len(all)-1 {
			var err error
			if x, err = l.readSeal(s); err != nil {
				return nil, err
			}
		}
		kept, seals = append(kept, s), append(seals, x)
	}
	l.segments.Store(&kept)
	return seals, nil
}

// firstOffset is the larger of the offsets that a segment's first two batches say they have, as far as they are whole: one
// of them alone may have been damaged where no CRC covers it. -1 when there is none.
func (l *Log) firstOffset(s *segmentFile) (int64, error) {
	size, err := l.fileSize(s)
	if err != nil {
		return -1, err
	}
	f, err := l.dir.files.acquire(&s.handle)
	if err != nil {
		return -1, err
	}
	defer l.dir.files.release(&s.handle)
	walk, first := walker{file: f, end: size, whole: true, readAhead: seekWindow}, int64(-1)
	for n := 0; n < 2 && walk.next(); n++ {
		first = max(first, walk.header.BaseOffset)
	}
	if errors.Is(walk.err, errRead) {
		return -1, walk.err
	}
	return first, nil
}

// checkSeal compares the file of a sealed segment, and where the next one begins, with what they were
// when it was left. It says what is missing, and gives the bytes that are worth reading.
func (l *Log) checkSeal(s *segmentFile, x *seal, size, nextBase int64) (int64, error) {
	if x == nil {
		return size, nil
	}
	if size < x.length {
		end, err := l.endOf(s, size)
		if err != nil {
			return 0, err
		}
		l.dir.log.Error(SaidSealShorter,
			"partition", l.id.String(), "file", s.name(".log"), "bytes", size, "bytesThen", x.length, "firstOffset", end, "lastOffset", x.next-1)
	}
	if nextBase != x.next {
		l.dir.log.Error(SaidGap, "partition", l.id.String(),
			"file", s.name(".log"), "firstOffset", x.next, "lastOffset", nextBase-1)
	} else if size > x.length {
		l.dir.log.Error(SaidSealLonger,
			"partition", l.id.String(), "file", s.name(".log"), "bytes", size, "bytesThen", x.length, "lastOffset", x.next-1)
		size = x.length
	}
	return size, nil
}

// endOf reads where the whole batches at the front of a segment end.
func (l *Log) endOf(s *segmentFile, size int64) (int64, error) {
	f, err := l.dir.files.acquire(&s.handle)
	if err != nil {
		return 0, err
	}
	defer l.dir.files.release(&s.handle)
	walk := walker{file: f, end: size, expect: s.base}
	for walk.next() || errors.Is(walk.err, errMisplaced) {
	}
	if errors.Is(walk.err, errRead) {
		return 0, walk.err
	}
	return walk.expect, nil
}
