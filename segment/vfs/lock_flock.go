//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package vfs

import (
	"os"

	"golang.org/x/sys/unix"
)

// lockFile uses flock, not fcntl: fcntl locks are lost when any descriptor of the file is closed,
// and do not hold within a process.
func lockFile(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if ctl := raw.Control(func(fd uintptr) {
		for {
			if err = unix.Flock(int(fd), unix.LOCK_EX|unix.LOCK_NB); err != unix.EINTR {
				return
			}
		}
	}); ctl != nil {
		return ctl
	}
	switch err {
	case nil:
		return nil
	case unix.EWOULDBLOCK:
		return &LockedError{Name: f.Name()}
	}
	return &os.PathError{Op: "flock", Path: f.Name(), Err: err}
}
