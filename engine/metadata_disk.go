package engine

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/segment/vfs"
)

// MetadataDisk gives the catalogue, or this node's part of a cluster's, what it needs of the file system, watched: what stalls
// here stalls the metadata, and the logs only when they meet it themselves. Its methods may be called concurrently.
type MetadataDisk struct {
	fs       *vfs.Watched
	reserved sync.Map                 // names of files that have their blocks
	probe    atomic.Pointer[vfs.File] // nil before the first probe
}

func newMetadataDisk(fs vfs.FS, now func() time.Time, limit time.Duration, log *slog.Logger) *MetadataDisk {
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
	return &MetadataDisk{fs: vfs.Watch(fs, vfs.WatchOptions{Now: now, Stall: limit, Told: told})}
}

// SyncDir makes the creation of files in a directory durable.
func (d *MetadataDisk) SyncDir(dir string) error { return d.fs.SyncDir(dir) }

// FreeBytes is the room left on a directory's file system.
func (d *MetadataDisk) FreeBytes(dir string) (uint64, error) {
	free, _, err := d.fs.Space(dir)
	return free, err
}

// Stall gives a context that ends while an operation takes longer than the limit.
func (d *MetadataDisk) Stall() context.Context { return d.fs.Context() }

// Begin notes that Badger begins something. It counts as a write: what Badger does is to be durable.
func (d *MetadataDisk) Begin(what, dir string) (end func()) {
	o := d.fs.Begin(vfs.OpSync, filepath.Join(dir, "("+what+")"))
	return func() { d.fs.End(o) }
}

// probeFile is written before Badger is let at its files; nobody reads it.
const probeFile = "probe"

// Probe writes a byte and syncs it, and writes it again: a file system that is being frozen
// stops writes a good while (milliseconds) before it stops page faults, so none that
// comes right behind a write is stopped.
func (d *MetadataDisk) Probe(dir string) error {
	f, err := d.probeIn(dir)
	if err != nil {
		return noRoom(err)
	}
	if _, err := f.WriteAt([]byte{'\n'}, 0); err != nil {
		return noRoom(err)
	}
	if err := f.Sync(); err != nil {
		return noRoom(err)
	}
	_, err = f.WriteAt([]byte{'\n'}, 0)
	return noRoom(err)
}

func (d *MetadataDisk) probeIn(dir string) (vfs.File, error) {
	if f := d.probe.Load(); f != nil {
		return *f, nil
	}
	f, err := d.fs.OpenFile(filepath.Join(dir, probeFile), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if !d.probe.CompareAndSwap(nil, &f) {
		return *d.probe.Load(), f.Close()
	}
	return f, nil
}

// noRoom tells the catalogue of a full disk in its own words.
func noRoom(err error) error {
	if vfs.Full(err) {
		return errors.Join(catalog.ErrNoSpace, err)
	}
	return err
}

// Close ends the use of the disk, when the metadata is closed.
func (d *MetadataDisk) Close() error {
	if f := d.probe.Load(); f != nil {
		return (*f).Close()
	}
	return nil
}

// Reserve allocates the blocks of files that have come since the last call.
func (d *MetadataDisk) Reserve(dir, suffix string, size int64) error {
	entries, err := d.fs.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		if _, reserved := d.reserved.Load(name); reserved || !strings.HasSuffix(name, suffix) {
			continue
		}
		if err := d.allocate(name, size); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		d.reserved.Store(name, true)
	}
	return nil
}

func (d *MetadataDisk) allocate(name string, size int64) error {
	f, err := d.fs.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Allocate(size), f.Close())
}
