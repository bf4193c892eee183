package vfs

import (
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"
)

// ReadDir lists a directory, sorted by name.
func (m *Mem) ReadDir(name string) ([]os.DirEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id, err := m.find(name)
	if err == nil && !m.tree.nodes[id].isDir() {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return nil, &os.PathError{Op: "readdir", Path: name, Err: err}
	}
	var list []os.DirEntry
	for child, childID := range m.tree.nodes[id].now {
		list = append(list, fs.FileInfoToDirEntry(m.info(child, childID)))
	}
	slices.SortFunc(list, func(a, b os.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return list, nil
}

// Stat describes a file or directory.
func (m *Mem) Stat(name string) (os.FileInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id, err := m.find(name)
	if err != nil {
		return nil, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	return m.info(path.Base(path.Clean("/"+name)), id), nil
}

func (m *Mem) info(name string, id uint64) memInfo {
	n := m.tree.nodes[id]
	info := memInfo{name: name, mode: n.mode}
	if !n.isDir() {
		info.size = n.contents.size
	}
	return info
}

// memInfo is an os.FileInfo without a time.
type memInfo struct {
	name string
	size int64
	mode fs.FileMode
}

func (i memInfo) Name() string       { return i.name }
func (i memInfo) Size() int64        { return i.size }
func (i memInfo) Mode() fs.FileMode  { return i.mode }
func (i memInfo) ModTime() time.Time { return time.Time{} }
func (i memInfo) IsDir() bool        { return i.mode.IsDir() }
func (i memInfo) Sys() any           { return nil }

// memFile is an open file of a Mem. It stays usable when its name is removed or given to another.
type memFile struct {
	mem           *Mem
	name          string
	node          uint64
	reads, writes bool
	direct        bool // refuses what Linux refuses to O_DIRECT
	closed        bool // under mem.mu
}

// use runs fn under the lock of the file system when the file is open and allowed is true.
func (f *memFile) use(action string, allowed bool, fn func() error) error {
	f.mem.mu.Lock()
	defer f.mem.mu.Unlock()
	err := fs.ErrClosed
	if !f.closed {
		err = syscall.EBADF
		if allowed {
			err = fn()
		}
	}
	if err != nil && err != io.EOF {
		return &os.PathError{Op: action, Path: f.name, Err: err}
	}
	return err
}

func (f *memFile) contents() *contents { return f.mem.tree.nodes[f.node].contents }

func (f *memFile) ReadAt(p []byte, off int64) (n int, err error) {
	err = f.use("read", f.reads, func() error {
		if off < 0 || f.direct && !aligned(off, p) {
			return syscall.EINVAL
		}
		n = f.contents().readAt(p, off)
		if n < len(p) {
			return io.EOF
		}
		return nil
	})
	return n, err
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	return f.WriteVAt([][]byte{p}, off)
}

func (f *memFile) WriteVAt(bufs [][]byte, off int64) (n int, err error) {
	if f.direct && !aligned(off, bufs...) {
		return 0, &os.PathError{Op: "write", Path: f.name, Err: syscall.EINVAL}
	}
	data := slices.Concat(bufs...)
	err = f.change("write", off, op{kind: opWrite, data: data, at: off})
	if err != nil {
		return 0, err
	}
	return len(data), nil
}

func (f *memFile) Truncate(size int64) error {
	return f.change("truncate", size, op{kind: opTruncate, at: size})
}

func (f *memFile) Allocate(size int64) error {
	return f.change("allocate", size, op{kind: opAllocate, at: size})
}

// change is an operation that needs a file open for writing and a number that is not negative.
func (f *memFile) change(action string, number int64, o op) error {
	return f.use(action, f.writes, func() error {
		if number < 0 {
			return syscall.EINVAL
		}
		return f.do(o)
	})
}

func (f *memFile) do(o op) error {
	o.node, o.path = f.node, f.name
	f.mem.do(o)
	return nil
}

func (f *memFile) Sync() error {
	return f.use("sync", true, func() error { return f.do(op{kind: opSync}) })
}

// failSync is what a Faulty does to the file instead of Sync. See the package comment.
func (f *memFile) failSync() {
	f.mem.mu.Lock()
	defer f.mem.mu.Unlock()
	_ = f.do(op{kind: opFailSync}) // always nil
}

func (f *memFile) Size() (size int64, err error) {
	err = f.use("size", true, func() error {
		size = f.contents().size
		return nil
	})
	return size, err
}

func (f *memFile) Name() string { return f.name }

func (f *memFile) Close() error {
	return f.use("close", true, func() error {
		f.closed = true
		return nil
	})
}
