package inspect

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// Overlay is a place as the next start will leave its segments: with what the journal has in them. It is made by the code of the start,
// which writes into memory.
type Overlay struct {
	fs    *vfs.Overlay
	alone map[string][]span // by the path of the .log: batches that the journal alone has
	// Said is what a start would say of the journal.
	Said []Finding
}

// span is a range of a file.
type span struct{ from, to int64 }

// NewOverlay replays the journal of a place, and makes that one of what comes of it: lengths, segments and partitions that the journal
// alone has. It is nil when the journal has nothing for itself, as after a clean close, and for a single file. Memory: the journal (64 MiB,
// unless told otherwise). The error is that of the file system, or segment.ErrFormat for a journal of a later version.
func NewOverlay(fsys vfs.FS, p *Place) (*Overlay, error) {
	if p.Kind == OneFile {
		return nil, nil
	}
	o := &Overlay{alone: map[string][]span{}}
	over, known, err := replay(fsys, p, func(f Finding) { o.Said = append(o.Said, f) })
	if err != nil && p.Held && !errors.Is(err, segment.ErrFormat) {
		return nil, nil // who writes to it meanwhile leaves all kinds of things
	}
	if err != nil || len(known) == 0 {
		return nil, err
	}
	o.fs = over
	if err := p.apply(over); err != nil {
		return nil, err
	}
	for _, path := range over.Written() {
		if err := o.compare(fsys, path); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// replay does what a start does with the journal of a millrace, in memory; known is how far it has filled which files.
func replay(fsys vfs.FS, p *Place, say func(Finding)) (over *vfs.Overlay, known map[string]int64, err error) {
	if p.Layout != Millrace || p.Lock == "" {
		return nil, nil, nil
	}
	over = vfs.NewOverlay(fsys)
	known, err = segment.ReplayJournal(over, filepath.Dir(p.Lock), slog.New(&listener{tell: say}))
	return over, known, err
}

// apply looks again at the partitions that were written to.
func (p *Place) apply(over *vfs.Overlay) error {
	var folders []string
	for _, path := range over.Written() {
		if dir := filepath.Dir(path); !slices.Contains(folders, dir) {
			folders = append(folders, dir)
		}
	}
	for _, dir := range folders {
		at := slices.IndexFunc(p.Partitions, func(part Partition) bool { return filepath.Clean(part.Path) == dir })
		if at < 0 && p.Kind != WholeDirectory {
			continue
		}
		part := namePartition(dir)
		if at >= 0 {
			part = namePartition(p.Partitions[at].Path)
		}
		if err := part.find(over); err != nil {
			return err
		}
		if at < 0 {
			p.Partitions = append(p.Partitions, part)
		} else {
			p.Partitions[at] = part
		}
	}
	p.sort()
	return nil
}

// compare finds which of the batches that were written to a file it does not have below.
func (o *Overlay) compare(below vfs.FS, path string) (err error) {
	file, err := below.OpenFile(path, vfs.ReadOnly, 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil {
		defer func() { err = errors.Join(err, file.Close()) }()
	}
	var there []byte
	return o.fs.Writes(path, func(at int64, b []byte) error {
		n := 0
		if file != nil {
			there = slices.Grow(there[:0], len(b))[:len(b)]
			var err error
			if n, err = file.ReadAt(there, at); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
		}
		for one, err := range batch.All(b) {
			if err != nil {
				return nil // a start writes whole batches
			}
			to := len(b) - len(b[len(one):])
			if to > n || !bytes.Equal(one, there[:to]) {
				o.alone[path] = append(o.alone[path], span{at, at + int64(to)})
			}
			b, at, n = b[to:], at+int64(to), n-to
			there = there[min(to, len(there)):]
		}
		return nil
	})
}

// FS shows the segments as the journal would leave them, for reading; o may be nil.
func (o *Overlay) FS(below vfs.FS) vfs.FS {
	if o == nil {
		return below
	}
	return o.fs
}

// Alone tells whether the journal alone has some of the n bytes at a position of a .log file.
func (o *Overlay) Alone(path string, position, n int64) bool {
	return o != nil && slices.ContainsFunc(o.alone[filepath.Clean(path)], func(s span) bool { return s.from < position+n && position < s.to })
}

// Bytes is how much the journal alone has of a partition.
func (o *Overlay) Bytes(p *Partition) (n int64) {
	if o == nil || p.Layout != Millrace || p.State != Live {
		return 0
	}
	for i := range p.Segments {
		for _, s := range o.alone[filepath.Clean(p.Segments[i].Log.Path)] {
			n += s.to - s.from
		}
	}
	return n
}
