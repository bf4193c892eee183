package segment

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/millrace/millrace/segment/vfs"
)

// journalScan is what a recovery finds in the journal.
type journalScan struct {
	files   []scannedFile // by generation
	oldest  uint64        // the first generation that is needed
	latest  uint64
	deleted map[logKey]uint64  // logs that were deleted, and the number of the entry that says so
	bases   map[logKey][]int64 // of the segments that have entries
}

type scannedFile struct {
	name       string
	generation uint64
	size       int64
	holes      []journalHole
	torn       int64 // position of an incomplete round at the end, -1 when there is none
}

// journalHole is a damaged round, or several, with what the next whole one is.
type journalHole struct {
	from, to int64
	sequence uint64 // of the round at to
}

// replayJournal brings into the segments what the journal has and they may not,
// makes that durable, and removes the journal. It may be cut short and begun anew at
// any time. Memory: one file of the journal.
func (d *Dir) replayJournal(clean bool) error {
	names, err := d.journalNames()
	if err != nil || len(names) == 0 {
		return err
	}
	if !clean {
		if err := d.replay(names); err != nil {
			return err
		}
	}
	for _, name := range names {
		if err := d.fs.Remove(name); err != nil {
			return err
		}
	}
	return d.fs.SyncDir(filepath.Join(d.opts.Path, journalFolder))
}

// journalNames lists the files of the journal.
func (d *Dir) journalNames() (names []string, err error) {
	folder := filepath.Join(d.opts.Path, journalFolder)
	entries, err := d.fs.ReadDir(folder)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if journalNumber(e.Name()) > 0 {
			names = append(names, filepath.Join(folder, e.Name()))
		}
	}
	return names, err
}

func (d *Dir) replay(names []string) error {
	scan := journalScan{deleted: map[logKey]uint64{}, bases: map[logKey][]int64{}}
	for _, name := range names {
		if err := scan.file(d.fs, name); err != nil {
			return err
		}
	}
	for _, f := range scan.files {
		d.sayJournal(f)
	}
	slices.SortFunc(scan.files, func(a, b scannedFile) int { return int(int64(a.generation) - int64(b.generation)) })
	d.generation = scan.latest
	number := uint64(0)
	cuts := voids{dir: d, known: map[logKey]roundNumber{}}
	for _, f := range scan.files { // deletions first: they void what stands before them
		if err := d.eachEntry(f, func(_ uint64, e journalEntry) error {
			key := e.id.key()
			if void, err := cuts.void(&e); err != nil || void {
				return err
			}
			if number++; e.position == deletedLog {
				scan.deleted[key] = number
			} else if known := scan.bases[key]; len(known) == 0 || known[len(known)-1] != e.base {
				scan.bases[key] = append(known, e.base)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	r := replayer{dir: d, bases: scan.bases, firsts: map[logKey]int64{}, touched: map[string]*replayed{}}
	r.holes = slices.ContainsFunc(scan.files, func(f scannedFile) bool { return len(f.holes) > 0 })
	defer r.close()
	number = 0
	for _, f := range scan.files {
		needed := f.generation >= scan.oldest
		if err := d.eachEntry(f, func(_ uint64, e journalEntry) error {
			if void, err := cuts.void(&e); err != nil || void {
				return err
			}
			if number++; !needed || e.position == deletedLog || number < scan.deleted[e.id.key()] {
				return nil
			}
			return r.apply(e)
		}); err != nil {
			return err
		}
	}
	if err := r.leave(); err != nil {
		return err
	}
	if r.entries > 0 {
		d.log.Info("replayed the journal", "entries", r.entries, "bytes", r.bytes)
	}
	// Names of files that were found too: a crash may have come before they were durable.
	return d.fs.SyncAll(d.topics)
}

// file notes one file of the journal and the oldest generation that its rounds need.
func (scan *journalScan) file(fs vfs.FS, name string) error {
	f, err := fs.OpenFile(name, vfs.ReadOnly, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, vfs.BlockSize)
	n, err := f.ReadAt(block, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	generation, err := decodeJournalHeader(block[:n])
	if errors.Is(err, errDamaged) {
		return nil // made, and no round in it was acknowledged
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	size, err := f.Size()
	if err != nil {
		return err
	}
	file := scannedFile{name: name, generation: generation, size: size, torn: -1}
	if err := file.findHoles(f); err != nil {
		return err
	}
	scan.files = append(scan.files, file)
	scan.latest = max(scan.latest, generation)
	_, _, err = walkRounds(f, file, func(oldest uint64, _ journalEntry) error {
		scan.oldest = max(scan.oldest, oldest)
		return nil
	})
	return err
}

func (d *Dir) eachEntry(file scannedFile, visit func(oldest uint64, e journalEntry) error) error {
	f, err := d.fs.OpenFile(file.name, vfs.ReadOnly, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, _, err = walkRounds(f, file, visit)
	return err
}

// walkRounds visits the entries of all whole rounds of a file, and tells where it ended, and before
// which round. It reads a round at a time.
func walkRounds(f vfs.File, file scannedFile, visit func(oldest uint64, e journalEntry) error) (at int64, sequence uint64, err error) {
	var round []byte
	at = vfs.BlockSize
	holes := file.holes
	for at+roundHeader <= file.size {
		if round, err = readRound(f, at, file.size, round); err != nil {
			return at, sequence, err
		}
		var failed error
		if !decodeRound(round, file.generation, sequence, func(oldest uint64, e journalEntry) {
			if failed == nil {
				failed = visit(oldest, e)
			}
		}) {
			if len(holes) == 0 || holes[0].from != at {
				return at, sequence, nil
			}
			at, sequence, holes = holes[0].to, holes[0].sequence, holes[1:]
			continue
		}
		if failed != nil {
			return at, sequence, failed
		}
		at += roundUp(int64(len(round)))
		sequence++
	}
	return at, sequence, nil
}

// readRound reads the round at a position, be it whole or not; nothing when none begins there.
func readRound(f vfs.File, at, size int64, buf []byte) ([]byte, error) {
	buf = slices.Grow(buf[:0], roundHeader)[:roundHeader]
	if _, err := f.ReadAt(buf, at); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	length := roundLength(buf)
	if length < roundHeader || length > size-at {
		return buf[:0], nil
	}
	buf = slices.Grow(buf[:0], int(length))[:length]
	if _, err := f.ReadAt(buf, at); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return buf, nil
}

// replayer writes entries into segments.
type replayer struct {
	dir     *Dir
	bases   map[logKey][]int64 // of the segments that have entries
	firsts  map[logKey]int64   // base of the first segment that was not removed; -1: the log is being removed
	touched map[string]*replayed
	entries int
	bytes   int64
	holes   bool // a round of the journal is damaged
}

// replayed is a file that was written to.
type replayed struct {
	file vfs.File // nil when it was left alone
	size int64
}

func (r *replayer) apply(e journalEntry) error {
	d := r.dir
	path := filepath.Join(d.topics, e.id.folder())
	first, err := r.first(e.id, path)
	if err != nil || first < 0 || e.base < first {
		return err
	}
	s := newSegmentFile(path, e.base)
	f, err := r.file(s, e.position)
	if err != nil || f.file == nil {
		return err
	}
	if e.position > f.size && !r.holes { // what a damaged round held is missing, and shows as damage
		d.log.Warn(SaidJournalHole, "partition", e.id.String(), "file", s.name(".log"), "position", e.position)
		return nil
	}
	if _, err := f.file.WriteAt(e.bytes, e.position); err != nil {
		return err
	}
	f.size = max(f.size, e.position+int64(len(e.bytes)))
	d.known[s.name(".log")] = max(d.known[s.name(".log")], e.position+int64(len(e.bytes)))
	r.entries++
	r.bytes += int64(len(e.bytes))
	return nil
}

// first gives the base offset of the first segment of a log that was not removed:
// the last of all that are known which does not lie behind the log start offset.
func (r *replayer) first(id LogID, path string) (int64, error) {
	if first, known := r.firsts[id.key()]; known {
		return first, nil
	}
	first, err := r.findFirst(id, path)
	if err == nil {
		r.firsts[id.key()] = first
	}
	return first, err
}

func (r *replayer) findFirst(id LogID, path string) (int64, error) {
	fs := r.dir.fs
	if _, err := fs.Stat(path + deletedSuffix); err == nil {
		return -1, nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	text, err := vfs.ReadFile(fs, filepath.Join(path, startFile))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	start, err := decodeStart(text)
	if err != nil {
		return 0, nil // recoverStart says what there is to say
	}
	entries, err := fs.ReadDir(path)
	if err != nil {
		return 0, err
	}
	bases := r.bases[id.key()]
	for _, e := range entries {
		if offset, suffix, ok := parseFile(e.Name()); ok && suffix == "log" {
			bases = append(bases, offset)
		}
	}
	first := int64(0)
	for _, base := range bases {
		if base <= start {
			first = max(first, base)
		}
	}
	return first, nil
}

// file opens a segment, or makes it when the entry is its first.
func (r *replayer) file(s *segmentFile, position int64) (*replayed, error) {
	name, fs := s.name(".log"), r.dir.fs
	if f := r.touched[name]; f != nil {
		return f, nil
	}
	if len(r.touched) >= r.dir.opts.OpenFiles {
		if err := r.leave(); err != nil {
			return nil, err
		}
	}
	f := &replayed{}
	file, err := fs.OpenFile(name, vfs.ReadWrite, 0)
	if errors.Is(err, os.ErrNotExist) {
		if position > 0 {
			return f, nil // removed since
		}
		if err := fs.MkdirAll(s.folder, 0o755); err != nil {
			return nil, err
		}
		file, err = fs.OpenFile(name, vfs.ReadWrite|vfs.Create, 0o644)
	}
	if err != nil {
		return nil, err
	}
	f.file = file
	r.touched[name] = f
	f.size, err = file.Size()
	return f, err
}

// leave closes the files: what was written to them is not durable yet.
func (r *replayer) leave() error {
	for name, f := range r.touched {
		if err := f.file.Close(); err != nil {
			return err
		}
		delete(r.touched, name)
	}
	return nil
}

func (r *replayer) close() {
	for _, f := range r.touched {
		f.file.Close() // only after a failure, which is told
	}
}
