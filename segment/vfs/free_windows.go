package vfs

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/windows"
)

// freeBytes asks for the directory, as Windows does not take a file here.
func freeBytes(name string) (uint64, error) {
	info, err := os.Stat(name)
	if err != nil {
		return 0, err
	}
	if !info.IsDir() {
		name = filepath.Dir(name)
	}
	p, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return 0, err
	}
	var free uint64
	err = windows.GetDiskFreeSpaceEx(p, &free, nil, nil)
	return free, err
}
