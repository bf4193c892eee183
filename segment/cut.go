package segment

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/millrace/millrace/segment/vfs"
)

// A cut takes the end off a log, or all that it holds. It is several changes of files, so it is written down
// first, durably, in the file truncation of the log's folder, and that goes when they are done. An open that finds
// it does them again: a crash leaves the log as it was before, or cut. The file is a line (see encodeLine):
//
//	1 0 8192 57 0 5d41402a
//	  | |    |  1: the whole log is dropped, and begins anew at the end offset
//	  | |    log end offset from now on
//	  | bytes of the last segment that stay
//	  base offset of the last segment that stays; those behind it go
const (
	cutFile    = "truncation"
	cutVersion = "1"
)

type cut struct {
	base, position int64
	end            int64
	whole          bool // nothing stays: base and end are the new log start offset, position is 0
}

func (c cut) encode() []byte {
	whole := 0
	if c.whole {
		whole = 1
	}
	return encodeLine(fmt.Sprint(cutVersion, " ", c.base, " ", c.position, " ", c.end, " ", whole))
}

// decodeCut fails with errDamaged, or with ErrFormat for a later version.
func decodeCut(line []byte) (c cut, err error) {
	fields, err := decodeLine(line, cutVersion, 4)
	if err != nil {
		return c, err
	}
	var numbers [4]int64
	for i, field := range fields {
		if numbers[i], err = strconv.ParseInt(field, 10, 64); err != nil || numbers[i] < 0 {
			return c, fmt.Errorf("%w: %q", errDamaged, line)
		}
	}
	c = cut{base: numbers[0], position: numbers[1], end: numbers[2], whole: numbers[3] == 1}
	if c.end < c.base || numbers[3] > 1 || c.whole && (c.position > 0 || c.end > c.base) {
		return c, fmt.Errorf("%w: %q", errDamaged, line)
	}
	return c, nil
}

// readCut gives the cut that a crash has left undone, nil when there is none. One that is damaged is not
// believed: the log is as it was before, or anything between that and cut.
func (l *Log) readCut() (*cut, error) {
	name := filepath.Join(l.path, cutFile)
	line, err := vfs.ReadFile(l.dir.fs, name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	c, err := decodeCut(line)
	if errors.Is(err, errDamaged) {
		l.dir.log.Error(SaidCutDamaged, "partition", l.id.String(), "file", name, "error", err)
		return nil, errors.Join(l.dir.fs.Remove(name), l.dir.fs.SyncDir(l.path))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &c, nil
}

// carryOut changes the files as c, which is written down, says, durably, and then removes what is written down. It may
// be done again after any part of it. Log files get their ….deleted name: who calls it, or the next open, removes them.
func (l *Log) carryOut(c *cut) error {
	fs := l.dir.fs
	entries, err := fs.ReadDir(l.path)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		goes, err := l.goes(c, entry.Name())
		if err != nil {
			return err
		}
		name := filepath.Join(l.path, entry.Name())
		switch {
		case !goes:
		case strings.HasSuffix(name, ".log"): // removing a large file takes long, and appends are waiting
			err = fs.Rename(name, name+deletedSuffix)
		default:
			err = fs.Remove(name)
		}
		if err != nil {
			return err
		}
	}
	if err := l.cutEpochs(c); err != nil {
		return err
	}
	if c.whole {
		if err := replace(fs, filepath.Join(l.path, startFile), encodeStart(c.end), overwrite); err != nil {
			return err
		}
	}
	if err := l.cutSegment(c); err != nil {
		return err
	}
	if err := fs.SyncDir(l.path); err != nil {
		return err
	}
	if err := fs.Remove(filepath.Join(l.path, cutFile)); err != nil {
		return err
	}
	return fs.SyncDir(l.path)
}

// goes tells whether a file of the log's folder speaks of what c takes away. What waits for its removal already does not.
func (l *Log) goes(c *cut, name string) (bool, error) {
	number, suffix, ok := parseFile(name)
	if !ok || !ownName(name) || strings.HasSuffix(name, deletedSuffix) {
		return false, nil
	}
	switch {
	case suffix == "snapshot":
		return c.whole || number > c.end, nil
	case number != c.base:
		return c.whole || number > c.base, nil
	case suffix == checkpointSuffix[1:]:
		cp, err := l.readCheckpoint(newSegmentFile(l.path, number))
		if err != nil && !errors.Is(err, errDamaged) && !errors.Is(err, ErrFormat) {
			return false, err
		}
		return cp == nil || cp.position > c.position || c.whole, nil
	}
	return suffix != "log", nil
}

// cutEpochs has the leader epoch checkpoint know none that begins at or behind the end: later ones may begin there.
func (l *Log) cutEpochs(c *cut) error {
	name := filepath.Join(l.path, epochsFile)
	text, err := vfs.ReadFile(l.dir.fs, name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	known, err := decodeEpochs(text)
	if err != nil || c.whole {
		return l.dir.fs.Remove(name) // damaged: they are read from the records
	}
	kept := known.truncateTo(c.end)
	if len(kept) == len(known) {
		return nil
	}
	return replace(l.dir.fs, name, kept.encode(), overwrite)
}

// cutSegment makes the last segment that stays as short as it is to be.
func (l *Log) cutSegment(c *cut) error {
	s := newSegmentFile(l.path, c.base)
	flags := vfs.ReadWrite
	if c.position == 0 {
		flags |= vfs.Create
	}
	f, err := l.dir.fs.OpenFile(s.name(".log"), flags, 0o644)
	if errors.Is(err, os.ErrNotExist) {
		return nil // it has been lost since: the open says what is missing
	}
	if err != nil {
		return err
	}
	size, err := f.Size()
	if err == nil && size > c.position {
		err = f.Truncate(c.position)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// finishCut does what a crash has kept from being done, and gives what that was, nil when it was nothing.
func (l *Log) finishCut() (*cut, error) {
	c, err := l.readCut()
	if err != nil || c == nil {
		return nil, err
	}
	l.dir.log.Info("a truncation that a crash has cut short is done now", "partition", l.id.String(), "logEndOffset", c.end, "everything", c.whole)
	if err := l.carryOut(c); err != nil {
		return nil, fmt.Errorf("truncate to offset %d: %w", c.end, err)
	}
	return c, nil
}
