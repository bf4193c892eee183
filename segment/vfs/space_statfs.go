//go:build darwin || dragonfly || freebsd || linux

package vfs

import "golang.org/x/sys/unix"

func space(name string) (free, total uint64, err error) {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(name, &st)
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return 0, 0, err
		}
	}
	total = uint64(st.Blocks) * uint64(st.Bsize)
	if int64(st.Bavail) < 0 { // FreeBSD: root has eaten into the reserve
		return 0, total, nil
	}
	return uint64(st.Bavail) * uint64(st.Bsize), total, nil
}
