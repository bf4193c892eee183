package vfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Op is a kind of operation, as Faulty tells them apart.
type Op int

// The kinds of operation. The methods of FS and File are one each, but for those in the comments.
const (
	OpAny Op = iota // in a Fault or a Count: all of the below
	OpOpen
	OpMkdir  // MkdirAll
	OpRemove // Remove and RemoveAll
	OpRename
	OpReadDir
	OpStat
	OpSyncDir
	OpLock
	OpSpace
	OpRead  // ReadAt
	OpWrite // WriteAt and WriteVAt
	OpTruncate
	OpAllocate
	OpSync
	OpSize
	OpClose // of a file; releasing a lock is not an operation
)

var opNames = [...]string{"any", "open", "mkdir", "remove", "rename", "readdir", "stat", "syncdir", "lock", "space",
	"read", "write", "truncate", "allocate", "sync", "size", "close"}

// String is a word for people.
func (o Op) String() string {
	if o < 0 || int(o) >= len(opNames) {
		return fmt.Sprintf("op %d", int(o))
	}
	return opNames[o]
}

// ErrInjected is what a Fault returns that names no error of its own but has to return one.
var ErrInjected = errors.New("vfs: injected fault")

// Fault is something that goes wrong. Op, Path and Nth say when, the others what; nothing set there
// means that the operation fails with ErrInjected and has done nothing.
type Fault struct {
	Op Op // the kind of operation

	// Path is a pattern as in path.Match, "" for all. Without a slash it is compared with the last
	// element of the name, otherwise with the whole. For a rename either name may match.
	Path string

	// Nth picks one of the operations that match, counted from 1 since the fault was added; 0 picks
	// all, and a negative one all from the -Nth on.
	Nth int

	// Err is what the operation returns. A Sync that fails also loses track of what was to be saved:
	// see the package comment.
	Err error

	// Short lets a write, before it fails, write this many bytes.
	Short int

	// Stall holds the operation until the channel is closed or gives a value. Then it is carried out,
	// unless Err or Short is set too.
	Stall <-chan struct{}

	// Do is called before anything else, by the goroutine of the operation, with nothing locked: to
	// take a Crash at this moment, or to tell the test that it has come. With Do alone, the
	// operation is then carried out.
	Do func()
}

// fails tells whether the operation is not carried out (in full).
func (f *Fault) fails() bool {
	return f.Err != nil || f.Short > 0 || f.Stall == nil && f.Do == nil
}

func (f *Fault) err() error {
	switch {
	case f.Err != nil:
		return f.Err
	case f.Short > 0:
		return io.ErrShortWrite
	}
	return ErrInjected
}

// Faulty wraps a file system, counts operations, and makes chosen ones go wrong. It is for
// concurrent use, and blocks where a fault stalls or the inner one does.
type Faulty struct {
	inner FS

	mu      sync.Mutex
	faults  []*armed
	counts  map[counted]int
	stalled int
}

// armed is a fault and how many operations have matched it.
type armed struct {
	Fault
	seen int
}

type counted struct {
	op   Op
	name string
}

// NewFaulty wraps inner. It panics when the pattern of a fault is malformed.
func NewFaulty(inner FS, faults ...Fault) *Faulty {
	f := &Faulty{inner: inner, counts: map[counted]int{}}
	f.Inject(faults...)
	return f
}

// Inject adds faults; they count from now. When several hit one operation, the first added is taken.
func (f *Faulty) Inject(faults ...Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fault := range faults {
		if _, err := path.Match(fault.Path, ""); err != nil {
			panic(fmt.Sprintf("vfs: fault with path %q: %v", fault.Path, err))
		}
		f.faults = append(f.faults, &armed{Fault: fault})
	}
}

// Heal removes all faults. Operations that are stalled stay so until their channel lets go.
func (f *Faulty) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = nil
}

// Count is how many operations have begun of this kind, on names that match the pattern of a Fault's
// Path ("" for all). It includes those that failed or are under way. A rename counts under its old name.
func (f *Faulty) Count(op Op, pattern string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for c, count := range f.counts {
		if (op == OpAny || op == c.op) && matches(pattern, c.name) {
			n += count
		}
	}
	return n
}

// Stalled is how many operations are held by a fault now.
func (f *Faulty) Stalled() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stalled
}

func matches(pattern, name string) bool {
	name = filepath.ToSlash(name)
	if pattern == "" {
		return true
	}
	if !strings.Contains(pattern, "/") {
		name = path.Base(name)
	}
	ok, _ := path.Match(pattern, name) // patterns of faults were checked by Inject; a bad one of Count matches nothing
	return ok
}

// begin counts an operation and picks the fault that hits it.
func (f *Faulty) begin(op Op, names []string) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counts[counted{op, names[0]}]++
	var hit *Fault
	for _, a := range f.faults {
		if a.Op != OpAny && a.Op != op {
			continue
		}
		if !slices.ContainsFunc(names, func(name string) bool { return matches(a.Path, name) }) {
			continue
		}
		a.seen++ // also when another fault is taken: the n-th is the n-th that happened
		if due := a.Nth == 0 || a.Nth == a.seen || a.Nth < 0 && a.seen >= -a.Nth; due && hit == nil {
			hit = &a.Fault
		}
	}
	return hit
}

// strike counts an operation and lets a fault act. It returns the fault when the operation is to fail with its error.
func (f *Faulty) strike(op Op, names ...string) *Fault {
	fault := f.begin(op, names)
	if fault == nil {
		return nil
	}
	if fault.Do != nil {
		fault.Do()
	}
	if fault.Stall != nil {
		f.addStalled(1)
		<-fault.Stall
		f.addStalled(-1)
	}
	if fault.fails() {
		return fault
	}
	return nil
}

func (f *Faulty) addStalled(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stalled += n
}

// check is strike for operations that only fail or do not.
func (f *Faulty) check(op Op, name string) error {
	if fault := f.strike(op, name); fault != nil {
		return &os.PathError{Op: op.String(), Path: name, Err: fault.err()}
	}
	return nil
}

// OpenFile is OpOpen.
func (f *Faulty) OpenFile(name string, flag int, perm os.FileMode) (File, error) {
	if err := f.check(OpOpen, name); err != nil {
		return nil, err
	}
	inner, err := f.inner.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &faultyFile{File: inner, fs: f}, nil
}

// MkdirAll is OpMkdir.
func (f *Faulty) MkdirAll(name string, perm os.FileMode) error {
	if err := f.check(OpMkdir, name); err != nil {
		return err
	}
	return f.inner.MkdirAll(name, perm)
}

// Remove is OpRemove.
func (f *Faulty) Remove(name string) error {
	if err := f.check(OpRemove, name); err != nil {
		return err
	}
	return f.inner.Remove(name)
}

// RemoveAll is one OpRemove, however much it removes.
func (f *Faulty) RemoveAll(name string) error {
	if err := f.check(OpRemove, name); err != nil {
		return err
	}
	return f.inner.RemoveAll(name)
}

// Rename is OpRename.
func (f *Faulty) Rename(oldName, newName string) error {
	if fault := f.strike(OpRename, oldName, newName); fault != nil {
		return &os.LinkError{Op: "rename", Old: oldName, New: newName, Err: fault.err()}
	}
	return f.inner.Rename(oldName, newName)
}

// ReadDir is OpReadDir.
func (f *Faulty) ReadDir(name string) ([]os.DirEntry, error) {
	if err := f.check(OpReadDir, name); err != nil {
		return nil, err
	}
	return f.inner.ReadDir(name)
}

// Stat is OpStat.
func (f *Faulty) Stat(name string) (os.FileInfo, error) {
	if err := f.check(OpStat, name); err != nil {
		return nil, err
	}
	return f.inner.Stat(name)
}

// SyncDir is OpSyncDir.
func (f *Faulty) SyncDir(name string) error {
	if err := f.check(OpSyncDir, name); err != nil {
		return err
	}
	return f.inner.SyncDir(name)
}

// SyncAll is one OpSyncDir, however much it syncs.
func (f *Faulty) SyncAll(name string) error {
	if err := f.check(OpSyncDir, name); err != nil {
		return err
	}
	return f.inner.SyncAll(name)
}

// Lock is OpLock.
func (f *Faulty) Lock(name string) (io.Closer, error) {
	if err := f.check(OpLock, name); err != nil {
		return nil, err
	}
	return f.inner.Lock(name)
}

// Space is OpSpace.
func (f *Faulty) Space(name string) (free, total uint64, err error) {
	if err := f.check(OpSpace, name); err != nil {
		return 0, 0, err
	}
	return f.inner.Space(name)
}
