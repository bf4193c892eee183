package vfs

import (
	"os"

	"golang.org/x/sys/windows"
)

func lockFile(f *os.File) error {
	const wholeFile = ^uint32(0)
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY,
		0, wholeFile, wholeFile, new(windows.Overlapped))
	switch err {
	case nil:
		return nil
	case windows.ERROR_LOCK_VIOLATION:
		return &LockedError{Name: f.Name()}
	}
	return &os.PathError{Op: "lock", Path: f.Name(), Err: err}
}
