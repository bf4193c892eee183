package engine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/millrace/millrace/segment/vfs"
)

// catalogDisk gives the catalogue what it needs of the file system. Only the
// catalogue's writer uses it.
type catalogDisk struct {
	fs       vfs.FS
	reserved map[string]bool // files that have their blocks
}

func newCatalogDisk(fs vfs.FS) *catalogDisk {
	return &catalogDisk{fs: fs, reserved: map[string]bool{}}
}

func (d *catalogDisk) SyncDir(dir string) error { return d.fs.SyncDir(dir) }

func (d *catalogDisk) FreeBytes(dir string) (uint64, error) {
	free, _, err := d.fs.Space(dir)
	return free, err
}

// Reserve allocates the blocks of files that have come since the last call.
func (d *catalogDisk) Reserve(dir, suffix string, size int64) error {
	entries, err := d.fs.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		if !strings.HasSuffix(name, suffix) || d.reserved[name] {
			continue
		}
		if err := d.allocate(name, size); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		d.reserved[name] = true
	}
	return nil
}

func (d *catalogDisk) allocate(name string, size int64) error {
	f, err := d.fs.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Allocate(size), f.Close())
}
