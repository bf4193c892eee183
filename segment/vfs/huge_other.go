//go:build darwin || dragonfly || freebsd

package vfs

// adviseHuge leaves the size of pages to the system.
func adviseHuge([]byte) {}
