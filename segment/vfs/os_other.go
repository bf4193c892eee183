//go:build !linux

package vfs

import (
	"errors"
	"os"
)

// directFlag: there is none, or none that behaves like that of Linux.
const directFlag = 0

// WriteVAt writes the buffers one by one.
func (f *osFile) WriteVAt(bufs [][]byte, off int64) (int, error) {
	total := 0
	for _, b := range bufs {
		n, err := f.WriteAt(b, off+int64(total))
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// Allocate sets the length only: the space is not reserved.
func (f *osFile) Allocate(size int64) error { return f.extend(size) }

// syncFS: the systems have a sync that does not wait, or none.
func syncFS(*os.File) error { return errors.ErrUnsupported }
