package vfs

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Mem is a file system in memory that knows what a power cut would take. "a", "/a" and "./a" are the
// same file. There are no permissions, and no clock: modification times are zero. It never blocks,
// and is for concurrent use. What was removed stays in memory for the sake of open files.
type Mem struct {
	mu          sync.Mutex
	tree        *tree
	locks       map[string]bool
	free, total uint64 // what Space says
	base        *tree  // as it was when Record was called, nil before
	journal     []op   // what has happened since
}

// NewMem gives an empty file system.
func NewMem() *Mem { return newMem(newTree()) }

func newMem(t *tree) *Mem {
	const plenty = 1 << 40
	return &Mem{tree: t, locks: map[string]bool{}, free: plenty, total: plenty}
}

// SetSpace sets what Space says, 1 TiB of 1 TiB at first. It limits nothing: let a Faulty return ENOSPC.
func (m *Mem) SetSpace(free, total uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.free, m.total = free, total
}

// do applies an operation and remembers it when recording.
func (m *Mem) do(o op) {
	m.tree.apply(o)
	if m.base != nil {
		m.journal = append(m.journal, o)
	}
}

// split gives the elements of a path, none for the root.
func split(name string) []string {
	clean := path.Clean("/" + filepath.ToSlash(name))
	if clean == "/" {
		return nil
	}
	return strings.Split(clean[1:], "/")
}

// find gives the number of the node with this name.
func (m *Mem) find(name string) (uint64, error) {
	id := uint64(rootNode)
	for _, part := range split(name) {
		dir := m.tree.nodes[id]
		if !dir.isDir() {
			return 0, syscall.ENOTDIR
		}
		child, ok := dir.now[part]
		if !ok {
			return 0, fs.ErrNotExist
		}
		id = child
	}
	return id, nil
}

// findEntry gives the place of a name, the node there or 0, and an error when its directory is not there.
func (m *Mem) findEntry(name string) (entry, uint64, error) {
	parts := split(name)
	if len(parts) == 0 {
		return entry{}, 0, syscall.EINVAL // the root is in no directory
	}
	dir, err := m.find(path.Join(parts[:len(parts)-1]...))
	if err != nil {
		return entry{}, 0, err
	}
	if !m.tree.nodes[dir].isDir() {
		return entry{}, 0, syscall.ENOTDIR
	}
	e := entry{dir: dir, name: parts[len(parts)-1]}
	return e, m.tree.nodes[dir].now[e.name], nil
}

// OpenFile opens a file, or creates it.
func (m *Mem) OpenFile(name string, flag int, perm os.FileMode) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id, err := m.open(name, flag, perm)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	access := flag & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR)
	return &memFile{mem: m, name: name, node: id, reads: access != os.O_WRONLY, writes: access != os.O_RDONLY, direct: flag&Direct != 0}, nil
}

func (m *Mem) open(name string, flag int, perm os.FileMode) (uint64, error) {
	if flag&os.O_APPEND != 0 {
		return 0, ErrAppendFlag
	}
	if len(split(name)) == 0 {
		return 0, syscall.EISDIR
	}
	e, id, err := m.findEntry(name)
	switch {
	case err != nil:
		return 0, err
	case id == 0 && flag&os.O_CREATE == 0:
		return 0, fs.ErrNotExist
	case id == 0:
		id = m.tree.last + 1
		m.do(op{kind: opCreate, path: name, node: id, to: e, mode: perm.Perm()})
		return id, nil
	case flag&os.O_CREATE != 0 && flag&os.O_EXCL != 0:
		return 0, fs.ErrExist
	case m.tree.nodes[id].isDir():
		return 0, syscall.EISDIR
	}
	if flag&os.O_TRUNC != 0 {
		m.do(op{kind: opTruncate, path: name, node: id})
	}
	return id, nil
}

// MkdirAll creates a directory and those above it.
func (m *Mem) MkdirAll(name string, perm os.FileMode) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	parts := split(name)
	for i := range parts {
		dir := path.Join(parts[:i+1]...)
		e, id, err := m.findEntry(dir)
		if err == nil && id == 0 {
			m.do(op{kind: opMkdir, path: dir, node: m.tree.last + 1, to: e, mode: perm.Perm()})
			continue
		}
		if err == nil && !m.tree.nodes[id].isDir() {
			err = syscall.ENOTDIR
		}
		if err != nil {
			return &os.PathError{Op: "mkdir", Path: name, Err: err}
		}
	}
	return nil
}

// Remove removes a file or an empty directory.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, id, err := m.findEntry(name)
	if err == nil && id == 0 {
		err = fs.ErrNotExist
	}
	if err == nil && len(m.tree.nodes[id].now) > 0 {
		err = syscall.ENOTEMPTY
	}
	if err != nil {
		return &os.PathError{Op: "remove", Path: name, Err: err}
	}
	m.do(op{kind: opRemove, path: name, node: id, from: e})
	return nil
}

// RemoveAll removes name and all below it, one by one: each is an operation of its own.
func (m *Mem) RemoveAll(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, id, err := m.findEntry(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && id == 0 {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "removeall", Path: name, Err: err}
	}
	m.removeAll(e, id, name)
	return nil
}

func (m *Mem) removeAll(e entry, id uint64, name string) {
	children := m.tree.nodes[id].now
	for _, child := range slices.Sorted(maps.Keys(children)) {
		m.removeAll(entry{dir: id, name: child}, children[child], path.Join(name, child))
	}
	m.do(op{kind: opRemove, path: name, node: id, from: e})
}

// Rename moves a file or directory.
func (m *Mem) Rename(oldName, newName string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.rename(oldName, newName); err != nil {
		return &os.LinkError{Op: "rename", Old: oldName, New: newName, Err: err}
	}
	return nil
}

func (m *Mem) rename(oldName, newName string) error {
	from, id, err := m.findEntry(oldName)
	if err != nil {
		return err
	}
	to, replaced, err := m.findEntry(newName)
	if err != nil {
		return err
	}
	if id == 0 {
		return fs.ErrNotExist
	}
	isDir := m.tree.nodes[id].isDir()
	switch {
	case replaced != 0 && m.tree.nodes[replaced].isDir():
		return fs.ErrExist
	case isDir && strings.HasPrefix(path.Join(split(newName)...)+"/", path.Join(split(oldName)...)+"/"):
		return syscall.EINVAL // into itself
	case replaced != 0 && isDir:
		return syscall.ENOTDIR
	case replaced == id:
		return nil
	}
	m.do(op{kind: opRename, path: oldName + " to " + newName, node: id, from: from, to: to})
	return nil
}

// SyncDir makes the changes of names in a directory safe. A rename between two directories is safe after a sync of either.
func (m *Mem) SyncDir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	id, err := m.find(name)
	if err == nil && !m.tree.nodes[id].isDir() {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return &os.PathError{Op: "syncdir", Path: name, Err: err}
	}
	m.do(op{kind: opSyncDir, path: name, node: id})
	return nil
}

// SyncAll syncs one file and directory after the other: each is an operation of its own.
func (m *Mem) SyncAll(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	id, err := m.find(name)
	if err != nil {
		return &os.PathError{Op: "syncall", Path: name, Err: err}
	}
	m.syncAll(name, id)
	return nil
}

func (m *Mem) syncAll(name string, id uint64) {
	n := m.tree.nodes[id]
	if !n.isDir() {
		m.do(op{kind: opSync, path: name, node: id})
		return
	}
	for _, child := range slices.Sorted(maps.Keys(n.now)) {
		m.syncAll(path.Join(name, child), n.now[child])
	}
	m.do(op{kind: opSyncDir, path: name, node: id})
}

// Lock takes the lock that the file stands for, within this Mem.
func (m *Mem) Lock(name string) (io.Closer, error) {
	f, err := m.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	defer f.Close() // always nil
	m.mu.Lock()
	defer m.mu.Unlock()
	key := path.Join(split(name)...)
	if m.locks[key] {
		return nil, &LockedError{Name: name}
	}
	m.locks[key] = true
	return &memLock{mem: m, key: key}, nil
}

type memLock struct {
	mem  *Mem
	key  string
	once sync.Once
}

// Close releases the lock.
func (l *memLock) Close() error {
	err := fs.ErrClosed
	l.once.Do(func() {
		l.mem.mu.Lock()
		defer l.mem.mu.Unlock()
		delete(l.mem.locks, l.key)
		err = nil
	})
	return err
}

// Space is what SetSpace has set.
func (m *Mem) Space(name string) (free, total uint64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.find(name); err != nil {
		return 0, 0, &os.PathError{Op: "space", Path: name, Err: err}
	}
	return m.free, m.total, nil
}

// Crash gives a file system as it would be found after a power cut now; m itself is not touched, nor
// are files open in it. What was synced is there. Of the rest each 512-byte sector and each change of
// a name (create, rename, remove) is kept with probability keep: none with 0, all with 1. A length
// that was not synced may also be anything between the old and the new. The same seed on the same
// state gives the same result. Locks are free, and nothing in it is dirty.
func (m *Mem) Crash(seed uint64, keep float64) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	crashed := newMem(m.tree.crash(rand.New(rand.NewPCG(seed, seed)), keep))
	crashed.free, crashed.total = m.free, m.total
	return crashed
}

// Dirty tells whether a power cut could take something of name: of a file, contents or length; of a
// directory, the entries directly in it. A name that does not exist is not dirty.
func (m *Mem) Dirty(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	id, err := m.find(name)
	return err == nil && m.tree.dirty(id)
}

// Unsynced lists all names that are Dirty, sorted, without a leading slash ("." is the root).
func (m *Mem) Unsynced() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	var walk func(name string, id uint64)
	walk = func(name string, id uint64) {
		if m.tree.dirty(id) {
			names = append(names, name)
		}
		for child, childID := range m.tree.nodes[id].now {
			walk(path.Join(name, child), childID)
		}
	}
	walk(".", rootNode)
	slices.Sort(names)
	return names
}

// Record begins to remember every operation that changes something or makes it safe (not those that
// fail, nor reads), for Replay. Calling it again begins anew.
func (m *Mem) Record() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.base, m.journal = m.tree.clone(), nil
}

// Ops is how many operations have been made since Record. What was acknowledged when Ops was n must
// be found in Replay(n) and all later ones, after any Crash.
func (m *Mem) Ops() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.journal)
}

// Op tells what the n-th operation since Record was, counted from 1 as in Replay: it is the last that Replay(n) has seen.
func (m *Mem) Op(n int) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.journal[n-1].String()
}

// Replay gives the file system as it was after the first n operations since Record, and with what
// was not synced at that time: Replay(n).Crash(seed, keep) drops of that. Locks are free. It panics
// when n is negative or more than Ops.
func (m *Mem) Replay(n int) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.base == nil {
		panic("vfs: Replay without Record")
	}
	t := m.base.clone()
	for _, o := range m.journal[:n] {
		t.apply(o)
	}
	replayed := newMem(t)
	replayed.free, replayed.total = m.free, m.total
	return replayed
}
