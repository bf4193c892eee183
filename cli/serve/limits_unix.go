//go:build unix

package serve

import "syscall"

// raiseFileLimit raises the soft limit of open files to the hard one and returns what holds now.
func raiseFileLimit() (uint64, error) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, err
	}
	if l.Cur >= l.Max {
		return uint64(l.Cur), nil
	}
	before := l.Cur
	l.Cur = l.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return uint64(before), err
	}
	return uint64(l.Cur), nil
}
