package vfs

import "golang.org/x/sys/unix"

// adviseHuge asks for huge pages, which the system may have or not.
func adviseHuge(b []byte) { _ = unix.Madvise(b, unix.MADV_HUGEPAGE) }
