package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
)

// probeName is the file that ProbeDirect writes and removes.
const probeName = "direct-io-probe"

// ProbeDirect tries in a directory whether its file system does direct I/O: nil when a block that
// was written so is read back so. Otherwise it says what is in the way: ErrNoDirect, EINVAL (tmpfs
// of older kernels, many FUSE file systems), or whatever else is wrong with the disk.
func ProbeDirect(fsys FS, dir string) (err error) {
	name := filepath.Join(dir, probeName)
	f, err := fsys.OpenFile(name, ReadWrite|Create|Trunc|Direct, 0o644)
	if err != nil {
		return errors.Join(err, removeIfExists(fsys, name)) // some create it before they refuse
	}
	defer func() { err = errors.Join(err, f.Close(), fsys.Remove(name)) }()
	memory, free := Aligned(2 * BlockSize)
	defer free()
	wrote, read := memory[:BlockSize], memory[BlockSize:]
	for i := range wrote {
		wrote[i] = byte(i)
	}
	if _, err := f.WriteVAt([][]byte{wrote}, 0); err != nil {
		return err
	}
	if _, err := f.ReadAt(read, 0); err != nil {
		return err
	}
	if !bytes.Equal(wrote, read) {
		return fmt.Errorf("vfs: %s: direct I/O does not give back what was written", name)
	}
	return nil
}
