package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// The flags of FS.OpenFile, for packages that do not import os.
const (
	ReadOnly  = os.O_RDONLY
	WriteOnly = os.O_WRONLY
	ReadWrite = os.O_RDWR
	Create    = os.O_CREATE // when it does not exist
	Exclusive = os.O_EXCL   // with Create: fail when it exists
	Trunc     = os.O_TRUNC  // empty it
	Direct    = 1 << 30     // past the page cache: see BlockSize; ErrNoDirect or EINVAL where that cannot be
)

// BlockSize is what memory, offset and length of each read and write of a file opened with Direct
// are multiples of. 512 would do on many disks; 4096 does on all.
const BlockSize = 4096

// FS is a file system. All methods may be called concurrently, and all may block for as long as the
// disk takes: there is no deadline that the kernel would honour. Errors satisfy errors.Is with
// fs.ErrNotExist, fs.ErrExist and the like, and name the file.
type FS interface {
	// OpenFile opens a file (not a directory) as os.OpenFile does, but refuses O_APPEND. A file that
	// it creates has a durable name only after SyncDir of its directory.
	OpenFile(name string, flag int, perm os.FileMode) (File, error)
	// MkdirAll creates a directory and those above it; fine when it exists. See MkdirAllDurable.
	MkdirAll(name string, perm os.FileMode) error
	// Remove removes a file or an empty directory. Open files stay readable, except on Windows, where it fails.
	Remove(name string) error
	// RemoveAll removes name and all below it; fine when there is nothing. A crash may leave any part of it.
	RemoveAll(name string) error
	// Rename moves a file or directory; a file at newName is replaced in one step, a directory there is an error.
	Rename(oldName, newName string) error
	// ReadDir lists a directory, sorted by name.
	ReadDir(name string) ([]os.DirEntry, error)
	// Stat describes a file or directory.
	Stat(name string) (os.FileInfo, error)
	// SyncDir makes the creates, renames and removes in the directory durable before it returns.
	SyncDir(name string) error
	// SyncAll makes everything in the directory and below it durable before it returns, as Sync of each
	// file and SyncDir of each directory would, and perhaps more: for when there is much of it.
	SyncAll(name string) error
	// Lock takes the exclusive lock that the file stands for, creating the file when missing, and
	// fails at once with a *LockedError when it is held, be it by this process. Close releases it and
	// leaves the file; so does the end of the process.
	Lock(name string) (io.Closer, error)
	// Space is what the disk that holds the file or directory has left for this process, and how
	// large it is, in bytes.
	Space(name string) (free, total uint64, err error)
}

// File is an open file, read and written at offsets: it has no position of its own. All methods may
// be called concurrently, and concurrently with Close, after which they fail with fs.ErrClosed.
// Overlapping writes in parallel, or Truncate and Allocate in parallel with any change of the
// length, leave either outcome.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// WriteVAt writes the buffers one after the other from off on, with one system call where there
	// is one for it. It returns either all bytes and no error, or an error and how many bytes are
	// known to be written. The buffers are not kept and the slice of them is not changed.
	WriteVAt(bufs [][]byte, off int64) (int, error)
	// Truncate sets the length; bytes gained are zero.
	Truncate(size int64) error
	// Allocate makes the file at least size bytes long, the bytes gained are zero, and reserves the
	// space where the file system can, so that writing within it does not run out of space. It never shrinks.
	Allocate(size int64) error
	// Sync makes contents and length durable before it returns. After an error see the package comment.
	Sync() error
	// Size is the length.
	Size() (int64, error)
	// Name is the name it was opened with.
	Name() string
}

// tempSuffix ends the name of the file that WriteFileAtomic writes before it renames it.
const tempSuffix = ".tmp"

// WriteFileAtomic puts data into the file in one step that a crash does not split: after it, the
// file is as it was before or holds data, and once WriteFileAtomic has returned nil it holds data
// for good. It writes name + ".tmp", syncs it, renames it and syncs the directory, which must
// exist. A crash may leave the .tmp file; the next call overwrites it. After an error the file may
// hold either. Not for two writers of the same name at a time.
func WriteFileAtomic(fsys FS, name string, data []byte) error {
	temp := name + tempSuffix
	if err := writeSynced(fsys, temp, data); err != nil {
		return errors.Join(err, removeIfExists(fsys, temp))
	}
	if err := fsys.Rename(temp, name); err != nil {
		return errors.Join(err, removeIfExists(fsys, temp))
	}
	return fsys.SyncDir(filepath.Dir(name))
}

func writeSynced(fsys FS, name string, data []byte) (err error) {
	f, err := fsys.OpenFile(name, WriteOnly|Create|Trunc, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.WriteAt(data, 0); err != nil {
		return err
	}
	return f.Sync()
}

func removeIfExists(fsys FS, name string) error {
	if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// ReadFile returns the contents of a file: for small ones, as it all goes into memory.
func ReadFile(fsys FS, name string) (data []byte, err error) {
	f, err := fsys.OpenFile(name, ReadOnly, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	data = make([]byte, size)
	n, err := f.ReadAt(data, 0)
	if err == io.EOF { // it has shrunk meanwhile, or it is empty
		err = nil
	}
	return data[:n], err
}

// MkdirAllDurable is MkdirAll, and the directories that it created are durable when it returns.
// Those that existed before are taken to be durable already.
func MkdirAllDurable(fsys FS, name string, perm os.FileMode) error {
	name = filepath.Clean(name)
	var made []string
	for dir := name; ; dir = filepath.Dir(dir) {
		_, err := fsys.Stat(dir)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if filepath.Dir(dir) == dir { // a root that does not exist: MkdirAll will tell
			break
		}
		made = append(made, dir)
	}
	if err := fsys.MkdirAll(name, perm); err != nil {
		return err
	}
	for i := len(made) - 1; i >= 0; i-- { // from the top, so that a crash leaves no gap
		if err := fsys.SyncDir(filepath.Dir(made[i])); err != nil {
			return err
		}
	}
	return nil
}
