package engine

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/segment/vfs"
)

// catalogDisk gives the catalogue what it needs of the file system, watched: what stalls
// here stalls the catalogue, and the logs only when they meet it themselves. But
// for Stall and Err, only the catalogue's writer uses it.
type catalogDisk struct {
	fs       *vfs.Watched
	reserved map[string]bool // files that have their blocks
	probe    vfs.File        // nil before the first probe
}

func newCatalogDisk(fs vfs.FS, now func() time.Time, limit time.Duration, log *slog.Logger) *catalogDisk {
	said := time.Time{}
	told := func(e vfs.WatchEvent) {
		where := []any{"operation", e.Op.String(), "file", e.Name, "seconds", e.Took.Seconds()}
		switch at := now(); {
		case e.Kind == vfs.Stalled:
			log.Error("the catalogue's disk does not answer: changes of topics and configurations are refused until it does, all else goes on", where...)
		case e.Kind == vfs.Recovered:
			log.Warn("the catalogue's disk answers again: changes are taken", where...)
		case said.IsZero() || at.Sub(said) >= time.Minute:
			said = at
			log.Warn("the catalogue's disk is slow", where...)
		}
	}
	return &catalogDisk{
		fs:       vfs.Watch(fs, vfs.WatchOptions{Now: now, Stall: limit, Told: told}),
		reserved: map[string]bool{},
	}
}

func (d *catalogDisk) SyncDir(dir string) error { return d.fs.SyncDir(dir) }

func (d *catalogDisk) FreeBytes(dir string) (uint64, error) {
	free, _, err := d.fs.Space(dir)
	return free, err
}

func (d *catalogDisk) Stall() context.Context { return d.fs.Context() }

// Begin counts as a write: what Badger does is to be durable.
func (d *catalogDisk) Begin(what, dir string) (end func()) {
	o := d.fs.Begin(vfs.OpSync, filepath.Join(dir, "("+what+")"))
	return func() { d.fs.End(o) }
}

// probeFile is written before Badger is let at its files; nobody reads it.
const probeFile = "probe"

// Probe writes a byte and syncs it, and writes it again: a file system that is being frozen
// stops writes a good while (milliseconds) before it stops page faults, so none that
// comes right behind a write is stopped.
func (d *catalogDisk) Probe(dir string) error {
	if d.probe == nil {
		f, err := d.fs.OpenFile(filepath.Join(dir, probeFile), os.O_CREATE|os.O_RDWR, 0o644)
		if err != nil {
			return noRoom(err)
		}
		d.probe = f
	}
	if _, err := d.probe.WriteAt([]byte{'\n'}, 0); err != nil {
		return noRoom(err)
	}
	if err := d.probe.Sync(); err != nil {
		return noRoom(err)
	}
	_, err := d.probe.WriteAt([]byte{'\n'}, 0)
	return noRoom(err)
}

// noRoom tells the catalogue of a full disk in its own words.
func noRoom(err error) error {
	if vfs.Full(err) {
		return errors.Join(catalog.ErrNoSpace, err)
	}
	return err
}

// close ends the use of the disk, when the catalogue is closed.
func (d *catalogDisk) close() error {
	if d.probe == nil {
		return nil
	}
	return d.probe.Close()
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
