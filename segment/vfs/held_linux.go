package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Held tries both kinds of lock on a file that is open for reading alone.
func (osFS) Held(name string) (held bool, err error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close() // which also releases what was taken
	raw, err := f.SyscallConn()
	if err != nil {
		return false, err
	}
	ctl := raw.Control(func(fd uintptr) {
		err = unix.Flock(int(fd), unix.LOCK_SH|unix.LOCK_NB)
		if held = err == unix.EWOULDBLOCK; held || err != nil {
			return
		}
		lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
		err = unix.FcntlFlock(fd, unix.F_GETLK, &lock)
		held = err == nil && lock.Type != unix.F_UNLCK
	})
	switch {
	case ctl != nil:
		return false, ctl
	case held:
		return true, nil
	case err != nil:
		return false, &os.PathError{Op: "flock", Path: name, Err: err}
	}
	return false, nil
}

// cached asks cachestat, which Linux has from 6.5 on.
func (f *osFile) cached(off, n int64) (int64, bool) {
	var stat unix.Cachestat_t
	err := f.control("cachestat", func(fd int) error {
		return unix.Cachestat(uint(fd), &unix.CachestatRange{Off: uint64(off), Len: uint64(n)}, &stat, 0)
	})
	return min(int64(stat.Cache)*int64(os.Getpagesize()), n), err == nil
}
