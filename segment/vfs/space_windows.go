package vfs

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/windows"
)

// space asks for the directory, as Windows does not take a file here.
func space(name string) (free, total uint64, err error) {
	info, err := os.Stat(name)
	if err != nil {
		return 0, 0, err
	}
	if !info.IsDir() {
		name = filepath.Dir(name)
	}
	p, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return 0, 0, err
	}
	err = windows.GetDiskFreeSpaceEx(p, &free, &total, nil)
	return free, total, err
}
