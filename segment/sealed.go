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
	if !s.summed {
		return nil
	}
	return overwrite(l.dir.fs, s.name(sealedSuffix), seal{s.size.Load(), l.w.next, s.sum}.encode())
}

// readSeal gives the seal of a segment, nil when there is none that says anything.
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
		l.dir.log.Warn("the note of what a segment holds is damaged: changes of its length are not found", "partition", l.id.String(), "file", name, "error", err)
		return nil, nil
	}
	return &x, nil
}

// checkSeal compares the file of a sealed segment, and where the next one begins, with what they were
// when it was left. It says what is missing, and gives the bytes that are worth reading.
func (l *Log) checkSeal(s *segmentFile, size, nextBase int64) (int64, error) {
	x, err := l.readSeal(s)
	if err != nil || x == nil {
		return size, err
	}
	if size < x.length {
		end, err := l.endOf(s, size)
		if err != nil {
			return 0, err
		}
		l.dir.log.Error("a segment has become shorter since it was left: the records at its end are missing, and are not served",
			"partition", l.id.String(), "file", s.name(".log"), "bytes", size, "bytesThen", x.length, "firstOffset", end, "lastOffset", x.next-1)
	}
	if nextBase != x.next {
		l.dir.log.Error("segments are missing between two others: their records are not served", "partition", l.id.String(),
			"file", s.name(".log"), "firstOffset", x.next, "lastOffset", nextBase-1)
	} else if size > x.length {
		l.dir.log.Error("a segment has become longer since it was left: what follows its end then is not served",
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
