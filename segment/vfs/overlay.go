package vfs

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Overlay is a file system on top of another, which it never changes: what is written stays in memory,
// and reads find it there. It is for looking at what a change would come to. It makes files and folders and writes
// into them; it removes and renames nothing (fs.ErrPermission). Its methods may be called concurrently.
type Overlay struct {
	base FS

	mu    sync.Mutex // guards the fields below, not what lies in a patched; not held across a file operation
	files map[string]*patched
	dirs  map[string]bool
}

// NewOverlay gives one that shows base as it is.
func NewOverlay(base FS) *Overlay {
	return &Overlay{base: base, files: map[string]*patched{}, dirs: map[string]bool{}}
}

// patched is a file that was written to.
type patched struct {
	mu   sync.Mutex
	size int64
	rows []patch
}

// patch is bytes that were written one behind the other.
type patch struct {
	at int64
	b  []byte
}

// OpenFile opens a file. One that is opened for writing has no direct I/O from then on.
func (o *Overlay) OpenFile(name string, flag int, perm os.FileMode) (File, error) {
	key := filepath.Clean(name)
	writes := flag&(WriteOnly|ReadWrite) != 0
	o.mu.Lock()
	p := o.files[key]
	o.mu.Unlock()
	if p == nil && !writes {
		return o.base.OpenFile(name, flag, perm)
	}
	if flag&Direct != 0 {
		return nil, &os.PathError{Op: "open", Path: name, Err: ErrNoDirect}
	}
	under, err := o.base.OpenFile(name, ReadOnly, 0)
	if errors.Is(err, fs.ErrNotExist) && (p != nil || flag&Create != 0) {
		under, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	if p == nil {
		p = new(patched)
		if under != nil {
			if p.size, err = under.Size(); err != nil {
				return nil, errors.Join(err, under.Close())
			}
		}
		o.mu.Lock()
		if other := o.files[key]; other != nil {
			p = other
		} else {
			o.files[key] = p
		}
		o.mu.Unlock()
	}
	return &overlayFile{name: name, under: under, p: p, writes: writes}, nil
}

// MkdirAll makes a directory and those above it.
func (o *Overlay) MkdirAll(name string, _ os.FileMode) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for dir := filepath.Clean(name); !o.dirs[dir] && filepath.Dir(dir) != dir; dir = filepath.Dir(dir) {
		o.dirs[dir] = true
	}
	return nil
}

// ReadDir lists a directory, sorted by name.
func (o *Overlay) ReadDir(name string) ([]os.DirEntry, error) {
	dir := filepath.Clean(name)
	list, err := o.base.ReadDir(name)
	o.mu.Lock()
	defer o.mu.Unlock()
	if errors.Is(err, fs.ErrNotExist) && o.dirs[dir] {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	put := func(info memInfo) {
		entry := fs.FileInfoToDirEntry(info)
		if i := slices.IndexFunc(list, func(e os.DirEntry) bool { return e.Name() == info.name }); i < 0 {
			list = append(list, entry)
		} else if below, err := list[i].Info(); err == nil && !info.IsDir() && below.Size() < info.size {
			list[i] = entry
		}
	}
	for path, p := range o.files {
		if filepath.Dir(path) == dir {
			put(p.info(path))
		}
	}
	for path := range o.dirs {
		if filepath.Dir(path) == dir {
			put(memInfo{name: filepath.Base(path), mode: fs.ModeDir | 0o755})
		}
	}
	slices.SortFunc(list, func(a, b os.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return list, nil
}

// Stat describes a file or directory.
func (o *Overlay) Stat(name string) (os.FileInfo, error) {
	key := filepath.Clean(name)
	o.mu.Lock()
	p, made := o.files[key], o.dirs[key]
	o.mu.Unlock()
	info, err := o.base.Stat(name)
	if p != nil {
		if patched := p.info(key); err != nil || info.Size() < patched.size {
			return patched, nil
		}
	}
	if errors.Is(err, fs.ErrNotExist) && made {
		return memInfo{name: filepath.Base(key), mode: fs.ModeDir | 0o755}, nil
	}
	return info, err
}

// Written are the files that were opened for writing, by their clean paths, sorted.
func (o *Overlay) Written() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Sorted(maps.Keys(o.files))
}

// Writes gives what was written to a file, in the order of writing; what was written one behind the other comes as one. The bytes
// must not be changed, nor the file be written to meanwhile. An error of visit ends it.
func (o *Overlay) Writes(name string, visit func(at int64, b []byte) error) error {
	o.mu.Lock()
	p := o.files[filepath.Clean(name)]
	o.mu.Unlock()
	if p == nil {
		return nil
	}
	for _, r := range p.rows {
		if err := visit(r.at, r.b); err != nil {
			return err
		}
	}
	return nil
}

// Held asks the file system below.
func (o *Overlay) Held(name string) (bool, error) { return Held(o.base, name) }

// SyncDir does nothing: nothing is durable.
func (o *Overlay) SyncDir(string) error { return nil }

// SyncAll does nothing, as SyncDir.
func (o *Overlay) SyncAll(string) error { return nil }

// Space is the other file system's.
func (o *Overlay) Space(name string) (free, total uint64, err error) { return o.base.Space(name) }

// Remove is refused.
func (o *Overlay) Remove(name string) error { return refuse("remove", name) }

// RemoveAll is refused.
func (o *Overlay) RemoveAll(name string) error { return refuse("remove", name) }

// Rename is refused.
func (o *Overlay) Rename(oldName, _ string) error { return refuse("rename", oldName) }

// Lock is refused.
func (o *Overlay) Lock(name string) (io.Closer, error) { return nil, refuse("lock", name) }

func refuse(op, name string) error {
	return &os.PathError{Op: op, Path: name, Err: fs.ErrPermission}
}

func (p *patched) info(path string) memInfo {
	p.mu.Lock()
	defer p.mu.Unlock()
	return memInfo{name: filepath.Base(path), size: p.size, mode: 0o644}
}

// overlayFile is a file that was written to, opened.
type overlayFile struct {
	name   string
	under  File // nil: base has no such file
	p      *patched
	writes bool
}

func (f *overlayFile) Name() string { return f.name }

// Size is what was written to, or more when the file below has grown since.
func (f *overlayFile) Size() (size int64, err error) {
	if f.under != nil {
		if size, err = f.under.Size(); err != nil {
			return 0, err
		}
	}
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	return max(size, f.p.size), nil
}

func (f *overlayFile) ReadAt(b []byte, off int64) (int, error) {
	size, err := f.Size()
	if err != nil {
		return 0, err
	}
	n := int(max(0, min(int64(len(b)), size-off)))
	got := 0
	if f.under != nil {
		if got, err = f.under.ReadAt(b[:n], off); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
	}
	clear(b[got:n])
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	for _, r := range f.p.rows {
		if from := r.at - off; from >= 0 && from < int64(n) {
			copy(b[from:n], r.b)
		} else if from < 0 && -from < int64(len(r.b)) {
			copy(b[:n], r.b[-from:])
		}
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *overlayFile) WriteAt(b []byte, off int64) (int, error) {
	if !f.writes {
		return 0, refuse("write", f.name)
	}
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	if last := len(f.p.rows) - 1; last >= 0 && f.p.rows[last].at+int64(len(f.p.rows[last].b)) == off {
		f.p.rows[last].b = append(f.p.rows[last].b, b...)
	} else {
		f.p.rows = append(f.p.rows, patch{off, slices.Clone(b)})
	}
	f.p.size = max(f.p.size, off+int64(len(b)))
	return len(b), nil
}

func (f *overlayFile) WriteVAt(bufs [][]byte, off int64) (n int, err error) {
	for _, b := range bufs {
		wrote, err := f.WriteAt(b, off+int64(n))
		if n += wrote; err != nil {
			return n, err
		}
	}
	return n, nil
}

func (f *overlayFile) Truncate(int64) error { return refuse("truncate", f.name) }
func (f *overlayFile) Allocate(int64) error { return refuse("allocate", f.name) }
func (f *overlayFile) Sync() error          { return nil }

func (f *overlayFile) Close() error {
	if f.under == nil {
		return nil
	}
	return f.under.Close()
}
