package vfs

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
)

// OS gives the file system of the machine.
func OS() FS { return osFS{} }

type osFS struct{}

func (osFS) OpenFile(name string, flag int, perm os.FileMode) (File, error) {
	if flag&os.O_APPEND != 0 {
		return nil, &os.PathError{Op: "open", Path: name, Err: ErrAppendFlag}
	}
	if flag&Direct != 0 {
		if directFlag == 0 {
			return nil, &os.PathError{Op: "open", Path: name, Err: ErrNoDirect}
		}
		flag = flag&^Direct | directFlag
	}
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = &os.PathError{Op: "open", Path: name, Err: syscall.EISDIR}
	}
	if err != nil {
		f.Close() // nothing was written; the first error tells more
		return nil, err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close() // as above
		return nil, err
	}
	return &osFile{File: f, raw: raw}, nil
}

func (osFS) MkdirAll(name string, perm os.FileMode) error { return os.MkdirAll(name, perm) }
func (osFS) Remove(name string) error                     { return os.Remove(name) }
func (osFS) RemoveAll(name string) error                  { return os.RemoveAll(name) }
func (osFS) Rename(oldName, newName string) error         { return os.Rename(oldName, newName) }
func (osFS) ReadDir(name string) ([]os.DirEntry, error)   { return os.ReadDir(name) }
func (osFS) Stat(name string) (os.FileInfo, error)        { return os.Stat(name) }

func (osFS) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close() // opened for reading: closing it cannot lose anything
	info, err := d.Stat()
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return &os.PathError{Op: "syncdir", Path: name, Err: syscall.ENOTDIR}
	}
	if runtime.GOOS == "windows" { // NTFS journals names itself and refuses to flush a directory
		return nil
	}
	return d.Sync()
}

// SyncAll asks the system for all of its file system, or goes through the directory.
func (fs osFS) SyncAll(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close() // opened for reading: closing it cannot lose anything
	if err := syncFS(d); !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return filepath.WalkDir(name, func(path string, entry os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			return fs.SyncDir(path)
		case !entry.Type().IsRegular():
			return nil
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}

func (osFS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := lockFile(f); err != nil {
		f.Close() // nothing was written; the first error tells more
		return nil, err
	}
	return f, nil // closing the only descriptor of it releases the lock
}

func (osFS) Space(name string) (free, total uint64, err error) {
	free, total, err = space(name)
	if err != nil {
		return 0, 0, &os.PathError{Op: "space", Path: name, Err: err}
	}
	return free, total, nil
}

// osFile adds to os.File what os does not offer. Descriptors are used through raw only, which keeps
// Close from handing their number to another file in the middle of a call.
type osFile struct {
	*os.File
	raw syscall.RawConn
}

func (f *osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// extend is Allocate for file systems that cannot reserve space.
func (f *osFile) extend(size int64) error {
	now, err := f.Size()
	if err != nil || now >= size {
		return err
	}
	return f.Truncate(size)
}
