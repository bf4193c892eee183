package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/segment/vfs"
)

// Metadata is the catalogue as the engine uses it: of this node alone ([catalog.Catalog]), or
// of a cluster. Its methods may be called concurrently.
type Metadata interface {
	// Image is the state now. Hold one for the length of a request.
	Image() *catalog.Image
	// Propose has a command applied, and returns when this node's image shows it and its subscribers have been
	// told. It waits until ctx ends; then the command may still be applied, once.
	Propose(ctx context.Context, cmd catalog.Command) (catalog.Result, error)
	// Subscribe has fn called after every change, in their order and never concurrently. fn must not block, nor propose.
	Subscribe(fn func(old, new *catalog.Image)) (stop func())
	// Err is nil while changes can be made.
	Err() error
	// Close ends it. Images stay readable.
	Close() error
}

// openMetadata opens the catalogue of this node, or its part of the cluster's.
func (e *Engine) openMetadata(ctx context.Context) (Metadata, error) {
	joined, err := e.inCluster()
	switch {
	case err != nil:
		return nil, err
	case e.options.Cluster == nil && joined:
		return nil, fmt.Errorf("%w: %s is of a node of a cluster, and this one is started without --cluster", ErrIdentity, e.dataDir())
	case e.options.Cluster == nil:
		return opened(e.openCatalog())
	}
	home := Home{FS: e.options.FS, Dir: e.dataDir(), ClusterID: e.ClusterID(), NodeID: e.NodeID()}
	for _, d := range e.dirs {
		if d.fault == nil {
			home.DirIDs = append(home.DirIDs, d.meta.DirID)
		}
	}
	switch _, err := e.options.FS.Stat(filepath.Join(e.dataDir(), catalogFolder)); {
	case err == nil: // also when the folder is there: it was stopped before it was one of several, perhaps
		home.Single = e.singleImage
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return nil, err
	}
	e.disk = e.newDisk()
	home.Disk = e.disk
	return e.options.Cluster.Open(ctx, home)
}

func (e *Engine) newDisk() *MetadataDisk {
	return newMetadataDisk(e.options.FS, e.options.Now, e.options.Config.LogDirStallTimeout, e.log)
}

// inCluster tells whether the node has been one of several.
func (e *Engine) inCluster() (bool, error) {
	_, err := e.options.FS.Stat(filepath.Join(e.dataDir(), ClusterFolder))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (e *Engine) openCatalog() (*catalog.Catalog, error) {
	e.disk = e.newDisk()
	return catalog.Open(catalog.Options{
		Dir: filepath.Join(e.dataDir(), catalogFolder), ClusterID: e.ClusterID(), Disk: e.disk, Logger: e.log,
		Metrics: e.options.Metrics.Catalog,
	})
}

// opened keeps a nil *Catalog from becoming a Metadata that is not nil.
func opened(c *catalog.Catalog, err error) (Metadata, error) {
	if err != nil {
		return nil, err
	}
	return c, nil
}

// singleImage reads the catalogue that this node had while it was alone.
func (e *Engine) singleImage() (*catalog.Image, error) {
	c, err := e.openCatalog()
	if err != nil {
		return nil, err
	}
	image := c.Image()
	err = errors.Join(c.Close(), e.disk.Close())
	e.disk = nil
	return image, err
}

// loadIdentity finds out, or decides, whose the directory with the catalogue is.
func (e *Engine) loadIdentity(ctx context.Context, d *logDir) (err error) {
	id := ""
	if e.options.Cluster != nil {
		known, err := peekMeta(e.options.FS, d.path)
		if err != nil {
			return err
		}
		if id, err = e.options.Cluster.Identify(ctx, known.ClusterID); err != nil {
			return err
		}
		if known.ClusterID == "" { // first, since a directory with an identity and without a catalogue is taken for one of several
			if err := vfs.MkdirAllDurable(e.options.FS, filepath.Join(d.path, ClusterFolder), 0o755); err != nil {
				return err
			}
		}
	}
	d.meta, err = loadMeta(e.options.FS, d.path, e.options.Config.NodeID, id)
	return err
}

// peekMeta reads the identity of a log directory; the zero value when it has none yet.
func peekMeta(fs vfs.FS, dir string) (meta, error) {
	name := filepath.Join(dir, metaFile)
	text, err := vfs.ReadFile(fs, name)
	if errors.Is(err, os.ErrNotExist) {
		return meta{}, nil
	}
	if err != nil {
		return meta{}, err
	}
	m, err := decodeMeta(text)
	if err != nil {
		return meta{}, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

// follower gives the engine every change of the metadata once and in order, also those
// between its first look and its subscription.
type follower struct {
	mu   sync.Mutex // held while a change is followed, which touches no disk; guards seen
	seen *catalog.Image
}

// since returns image with the events that lead to it from the one that was seen last, and calls follow with
// that; not when it was seen.
func (f *follower) since(old, image *catalog.Image, follow func(*catalog.Image)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if image.Version() <= f.seen.Version() {
		return
	}
	if old != f.seen {
		image = image.WithEventsSince(f.seen)
	}
	follow(image)
	f.seen = image
}
