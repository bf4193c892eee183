//go:build darwin || dragonfly || freebsd || linux

package vfs

import "golang.org/x/sys/unix"

// mapped asks the system for memory, nil when it gives none.
func mapped(n int) (b []byte, free func()) {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, nil
	}
	return b, func() { unix.Munmap(b) } // it can only fail for what was not mapped
}
