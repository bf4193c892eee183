package segment

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/millrace/millrace/segment/vfs"
)

// What the journal holds of a log that was cut must not come back with a replay: others have the offsets by then. The
// file journal-void, which stays in the log's folder, says which rounds count no more for it. That does not depend on what becomes of
// the journal's files, which are used again in an order of their own. It is a line (see encodeLine):
//
//	1 17 4 7d793037
//	  |  first round of that generation that counts
//	  generation; all that are smaller are void
//
// A generation is not given out again as long as such a file knows it.
const (
	voidFile    = "journal-void"
	voidVersion = "1"
)

// roundNumber names a round of the journal.
type roundNumber struct{ generation, sequence uint64 }

func (n roundNumber) before(m roundNumber) bool {
	return n.generation < m.generation || n.generation == m.generation && n.sequence < m.sequence
}

// nextRound is the first that may be written from now on.
func (j *journal) nextRound() roundNumber {
	if j.current != nil {
		return roundNumber{j.current.generation, j.current.sequence}
	}
	return roundNumber{j.generation + 1, 0}
}

func encodeVoid(n roundNumber) []byte {
	return encodeLine(fmt.Sprint(voidVersion, " ", n.generation, " ", n.sequence))
}

// decodeVoid fails with errDamaged, or with ErrFormat for a later version.
func decodeVoid(line []byte) (n roundNumber, err error) {
	fields, err := decodeLine(line, voidVersion, 2)
	if err != nil {
		return n, err
	}
	generation, err1 := strconv.ParseUint(fields[0], 10, 64)
	sequence, err2 := strconv.ParseUint(fields[1], 10, 64)
	if errors.Join(err1, err2) != nil {
		return n, fmt.Errorf("%w: %q", errDamaged, line)
	}
	return roundNumber{generation, sequence}, nil
}

// readVoid gives the first round of the journal that counts for the log that lies in a folder: the zero one, when
// there is no such file, or a damaged one, which is said.
func (d *Dir) readVoid(folder string) (n roundNumber, err error) {
	name := filepath.Join(folder, voidFile)
	line, err := vfs.ReadFile(d.fs, name)
	if errors.Is(err, os.ErrNotExist) {
		return n, nil
	}
	if err == nil {
		n, err = decodeVoid(line)
	}
	if errors.Is(err, errDamaged) {
		d.log.Error(SaidVoidDamaged, "file", name, "error", err)
		return roundNumber{}, nil
	}
	if err != nil {
		return n, fmt.Errorf("%s: %w", name, err)
	}
	return n, nil
}

// recoverVoid keeps the generations that the log knows to be void from being given out again.
func (l *Log) recoverVoid() error {
	n, err := l.dir.readVoid(l.path)
	if err != nil {
		return err
	}
	l.dir.mu.Lock()
	defer l.dir.mu.Unlock()
	l.dir.generation = max(l.dir.generation, n.generation)
	return nil
}

// voids is what a replay knows of them.
type voids struct {
	dir   *Dir
	known map[logKey]roundNumber
}

// void tells whether an entry is of a log that was cut since.
func (v *voids) void(e *journalEntry) (bool, error) {
	first, known := v.known[e.id.key()]
	if !known {
		var err error
		if first, err = v.dir.readVoid(filepath.Join(v.dir.topics, e.id.folder())); err != nil {
			return false, err
		}
		v.known[e.id.key()] = first
	}
	return e.round.before(first), nil
}
