//go:build darwin || dragonfly || freebsd || linux

package vfs

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugePage is what the large pages of most processors have.
const hugePage = 2 << 20

// mapped asks the system for memory, nil when it gives none. From a huge page on it
// begins at one, and may be made of them: a direct write of many small pages is split
// into several requests to the disk, and each page costs.
func mapped(n int) (b []byte, free func()) {
	size := n
	if n >= hugePage {
		size += hugePage
	}
	all, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, nil
	}
	free = func() { unix.Munmap(all) } // it can only fail for what was not mapped
	if n < hugePage {
		return all, free
	}
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(all)))) & (hugePage - 1)
	b = all[skip : skip+n : skip+n]
	adviseHuge(b)
	return b, free
}
