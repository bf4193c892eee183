//go:build darwin || dragonfly || freebsd || linux

package vfs

import "golang.org/x/sys/unix"

func freeBytes(name string) (uint64, error) {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(name, &st)
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return 0, err
		}
	}
	if int64(st.Bavail) < 0 { // FreeBSD: root has eaten into the reserve
		return 0, nil
	}
	return uint64(st.Bavail) * uint64(st.Bsize), nil
}
