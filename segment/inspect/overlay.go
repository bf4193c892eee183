package inspect

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// Overlay is what the journal has that the segments have not: a start after a crash would write it there. As a file system it
// shows the segments as they would be then, and writes nothing.
type Overlay struct {
	files map[string]*overlaid // by the path of the .log
}

// overlaid is a .log file that the journal writes to.
type overlaid struct {
	id     segment.LogID
	base   int64
	size   int64          // then
	writes []overlayWrite // in the order of the journal
}

type overlayWrite struct {
	at    int64
	bytes []byte
}

// NewOverlay reads the journal of a data directory as a start after a crash does; nil when it has nothing for itself, as after a clean close.
// Memory: what the journal alone has, which is no more than the journal (64 MiB, unless told otherwise). A file of the journal that
// has no header, or one of a later version, is passed over.
func NewOverlay(fsys vfs.FS, p *Place) (*Overlay, error) {
	if len(p.Journal) == 0 || p.Clean.There() || p.Kind != WholeDirectory {
		return nil, nil
	}
	r := overlayReader{fs: fsys, place: p, files: map[string]*overlaid{}, first: map[PartitionKey]int64{}}
	if err := r.scan(); err != nil {
		return nil, err
	}
	for _, f := range r.order {
		if err := r.replay(f); err != nil {
			return nil, err
		}
	}
	for path, f := range r.files {
		if err := f.trim(fsys, path); err != nil {
			return nil, err
		}
		if len(f.writes) == 0 {
			delete(r.files, path)
		}
	}
	if len(r.files) == 0 {
		return nil, nil
	}
	return &Overlay{files: r.files}, nil
}

// overlayReader goes through the journal twice, as recovery does.
type overlayReader struct {
	fs     vfs.FS
	place  *Place
	order  []journalFile // by generation, those that are needed
	number int64         // of the entry that is being read
	files  map[string]*overlaid
	// bases are of the segments that have entries, and voids the numbers of the last entries that say that a log was deleted.
	bases map[PartitionKey][]int64
	voids map[PartitionKey]int64
	first map[PartitionKey]int64 // base of the first segment that was not removed
}

type journalFile struct {
	path       string
	generation uint64
	from       int64 // number of its first entry
}

func (r *overlayReader) each(path string, visit func(segment.JournalRound) error) (uint64, error) {
	generation, _, err := segment.Journal(r.fs, path, visit)
	return generation, err
}

func passedOver(err error) bool {
	return errors.Is(err, segment.ErrDamaged) || errors.Is(err, segment.ErrFormat) || errors.Is(err, fs.ErrNotExist)
}

// scan finds which files are needed, in their order, and what they say of whole logs.
func (r *overlayReader) scan() error {
	oldest := uint64(0)
	var all []journalFile
	for _, f := range r.place.Journal {
		generation, err := r.each(f.Path, func(round segment.JournalRound) error {
			oldest = max(oldest, round.Oldest)
			return nil
		})
		if passedOver(err) {
			continue
		}
		if err != nil {
			return err
		}
		all = append(all, journalFile{path: f.Path, generation: generation})
	}
	slices.SortFunc(all, func(a, b journalFile) int { return cmp.Compare(a.generation, b.generation) })
	r.bases, r.voids = map[PartitionKey][]int64{}, map[PartitionKey]int64{}
	for _, f := range all {
		f.from = r.number
		_, err := r.each(f.path, func(round segment.JournalRound) error {
			for _, e := range round.Entries {
				key := PartitionKey{e.Log.TopicID, e.Log.Partition}
				if r.number++; e.Position == segment.DeletedLog {
					r.voids[key] = r.number
				} else if known := r.bases[key]; len(known) == 0 || known[len(known)-1] != e.Base {
					r.bases[key] = append(known, e.Base)
				}
			}
			return nil
		})
		if err != nil && !passedOver(err) {
			return err
		}
		if f.generation >= oldest {
			r.order = append(r.order, f)
		}
	}
	return r.findFirsts()
}

// findFirsts finds where each log begins: segments before that were removed, whatever the journal has for them.
func (r *overlayReader) findFirsts() error {
	for i := range r.place.Partitions {
		p := &r.place.Partitions[i]
		key := p.Key()
		switch {
		case p.State == Deleted:
			r.first[key] = -1
		case p.State != Live || !p.LogStart.There() || r.first[key] < 0:
		default:
			text, err := vfs.ReadFile(r.fs, p.LogStart.Path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			start, err := segment.DecodeLogStart(text)
			if err != nil {
				continue
			}
			bases := slices.Clone(r.bases[key])
			for _, s := range p.Segments {
				if s.Log.There() {
					bases = append(bases, s.Base)
				}
			}
			for _, base := range bases {
				if base <= start {
					r.first[key] = max(r.first[key], base)
				}
			}
		}
	}
	return nil
}

func (r *overlayReader) replay(f journalFile) error {
	r.number = f.from
	_, err := r.each(f.path, func(round segment.JournalRound) error {
		for _, e := range round.Entries {
			key := PartitionKey{e.Log.TopicID, e.Log.Partition}
			r.number++
			if first := r.first[key]; e.Position == segment.DeletedLog || r.number < r.voids[key] || first < 0 || e.Base < first {
				continue
			}
			if err := r.apply(&e); err != nil {
				return err
			}
		}
		return nil
	})
	if passedOver(err) {
		return nil
	}
	return err
}

func (r *overlayReader) apply(e *segment.JournalEntry) error {
	path := filepath.Join(r.place.Path, segment.TopicsFolder, e.Log.FolderName(), segment.FileName(e.Base, "log"))
	f := r.files[path]
	if f == nil {
		f = &overlaid{id: e.Log, base: e.Base}
		info, err := r.fs.Stat(path)
		switch {
		case err == nil:
			f.size = info.Size()
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
		r.files[path] = f
	}
	if e.Position <= f.size {
		f.writes = append(f.writes, overlayWrite{e.Position, slices.Clone(e.Bytes)})
		f.size = max(f.size, e.Position+int64(len(e.Bytes)))
	}
	return nil
}

// trim leaves out what the file has already, batch by batch.
func (f *overlaid) trim(fsys vfs.FS, path string) error {
	file, err := fsys.OpenFile(path, vfs.ReadOnly, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	var kept []overlayWrite
	var there []byte
	overwritten := int64(-1) // up to where what was kept reaches: bytes of the file before that do not count
	for _, w := range f.writes {
		there = slices.Grow(there[:0], len(w.bytes))[:len(w.bytes)]
		n, err := file.ReadAt(there, w.at)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		for b, err := range batch.All(w.bytes) {
			if err != nil || w.at < overwritten || len(b) > n || !bytes.Equal(b, there[:len(b)]) {
				break
			}
			there, n = there[len(b):], n-len(b)
			w.at, w.bytes = w.at+int64(len(b)), w.bytes[len(b):]
		}
		if len(w.bytes) > 0 {
			kept = append(kept, w)
			overwritten = max(overwritten, w.at+int64(len(w.bytes)))
		}
	}
	f.writes = kept
	return nil
}

// FS shows the segments as the journal would leave them; o may be nil.
func (o *Overlay) FS(below vfs.FS) vfs.FS {
	if o == nil {
		return below
	}
	return overlayFS{below, o}
}

// Apply makes the place one of what the file system of FS has: lengths, segments and partitions that the journal alone has.
// A partition without a folder has the path that it would have.
func (o *Overlay) Apply(p *Place) {
	if o == nil {
		return
	}
	left := map[string]*overlaid{}
	for path, f := range o.files {
		left[path] = f
	}
	add := func(part *Partition) {
		for i := range part.Segments {
			if f := left[part.Segments[i].Log.Path]; f != nil {
				part.Segments[i].Log.Size = f.size
				delete(left, part.Segments[i].Log.Path)
			}
		}
		for path, f := range left {
			if filepath.Dir(path) != part.Path {
				continue
			}
			log := File{Path: path, Size: f.size}
			if i := slices.IndexFunc(part.Segments, func(s Segment) bool { return s.Base == f.base }); i >= 0 {
				part.Segments[i].Log = log
			} else {
				part.Segments = append(part.Segments, Segment{Base: f.base, Log: log})
			}
			delete(left, path)
		}
		slices.SortFunc(part.Segments, func(a, b Segment) int { return cmp.Compare(a.Base, b.Base) })
	}
	for i := range p.Partitions {
		add(&p.Partitions[i])
	}
	for path, f := range o.files {
		if left[path] != nil {
			part := Partition{Path: filepath.Dir(path), Topic: f.id.Topic, TopicID: f.id.TopicID, Number: f.id.Partition, Layout: Millrace}
			add(&part)
			p.Partitions = append(p.Partitions, part)
		}
	}
	p.sort()
}

// Alone tells whether the journal alone has some of the n bytes at a position of a .log file.
func (o *Overlay) Alone(path string, position, n int64) bool {
	if o == nil || o.files[path] == nil {
		return false
	}
	return slices.ContainsFunc(o.files[path].writes, func(w overlayWrite) bool { return w.at < position+n && position < w.at+int64(len(w.bytes)) })
}

// Bytes is how much the journal alone has of a partition.
func (o *Overlay) Bytes(p *Partition) (n int64) {
	if o == nil || p.Layout != Millrace || p.State != Live {
		return 0
	}
	for i := range p.Segments {
		if f := o.files[p.Segments[i].Log.Path]; f != nil {
			for _, w := range f.writes {
				n += int64(len(w.bytes))
			}
		}
	}
	return n
}

// overlayFS is a file system for reading.
type overlayFS struct {
	vfs.FS
	o *Overlay
}

// Held asks the file system below.
func (x overlayFS) Held(name string) (bool, error) { return vfs.Held(x.FS, name) }

// OpenFile opens for reading alone.
func (x overlayFS) OpenFile(name string, flag int, perm os.FileMode) (vfs.File, error) {
	if flag&^vfs.Direct != vfs.ReadOnly {
		return nil, &os.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	f := x.o.files[name]
	if f == nil {
		return x.FS.OpenFile(name, flag, perm)
	}
	if flag&vfs.Direct != 0 {
		return nil, &os.PathError{Op: "open", Path: name, Err: vfs.ErrNoDirect}
	}
	below, err := x.FS.OpenFile(name, flag, perm)
	if errors.Is(err, fs.ErrNotExist) {
		below, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &overlayFile{File: below, name: name, o: f}, nil
}

// overlayFile is a file with what the journal writes to it. The file below may not be there.
type overlayFile struct {
	vfs.File
	name string
	o    *overlaid
}

func (f *overlayFile) Name() string { return f.name }

func (f *overlayFile) Close() error {
	if f.File == nil {
		return nil
	}
	return f.File.Close()
}

func (f *overlayFile) Size() (int64, error) {
	if f.File == nil {
		return f.o.size, nil
	}
	size, err := f.File.Size()
	return max(size, f.o.size), err
}

func (f *overlayFile) ReadAt(p []byte, off int64) (int, error) {
	size, err := f.Size()
	if err != nil {
		return 0, err
	}
	n := int(min(int64(len(p)), max(0, size-off)))
	got := 0
	if f.File != nil {
		if got, err = f.File.ReadAt(p[:n], off); err != nil && !errors.Is(err, io.EOF) {
			return got, err
		}
	}
	clear(p[got:n])
	for _, w := range f.o.writes {
		if from, to := max(off, w.at), min(off+int64(n), w.at+int64(len(w.bytes))); from < to {
			copy(p[from-off:to-off], w.bytes[from-w.at:])
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
