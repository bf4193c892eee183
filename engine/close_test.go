package engine

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/engine/config"
	"github.com/millrace/millrace/segment/vfs"
)

func openOn(t *testing.T, fs vfs.FS, dir string) (*Engine, error) {
	t.Helper()
	cfg, _, err := config.ParseBroker(map[string]string{"log.dirs": dir, "node.id": "1"})
	if err != nil {
		t.Fatal(err)
	}
	return Open(context.Background(), Options{FS: fs, Config: cfg, Now: time.Now, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
}

// A disk that stalls keeps no close from ending in time; as something may still write
// then, nobody else may open the directory while this process lives.
func TestCloseEndsInTimeOnAStalledDisk(t *testing.T) {
	for name, where := range map[string]vfs.Fault{
		"log":       {Op: vfs.OpSync, Path: "*.journal"},
		"catalogue": {Op: vfs.OpSyncDir, Path: "catalog"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			faulty := vfs.NewFaulty(vfs.OS())
			e, err := openOn(t, faulty, dir)
			if err != nil {
				t.Fatal(err)
			}
			p := partitionOf(e, createTopic(t, e, "orders", 1, nil), 0)
			hold, stalled := make(chan struct{}), make(chan struct{})
			where.Nth, where.Stall, where.Do = 1, hold, func() { close(stalled) }
			marked := make(chan struct{}) // the last thing that a close does with the logs
			faulty.Inject(where, vfs.Fault{Op: vfs.OpSyncDir, Path: filepath.Base(dir), Nth: 1, Do: func() { close(marked) }})
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				produce(t, p, -1, "x")
				e.Catalog().Propose(context.Background(), catalog.AllocateProducerIDs{BrokerID: 1, Count: 1})
			}()
			<-stalled
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			if err := e.Close(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("close: %v", err)
			}
			if _, err := openOn(t, vfs.OS(), dir); !errors.Is(err, ErrDirectoryInUse) {
				t.Errorf("open while the last engine may still write: %v", err)
			}
			close(hold)
			<-ended
			<-marked
			e.catalog.Close() // waits
		})
	}
}

// A folder that cannot be set aside keeps no broker from starting.
func TestFolderThatCannotBeSetAside(t *testing.T) {
	dir := t.TempDir()
	e, err := openOn(t, vfs.OS(), dir)
	if err != nil {
		t.Fatal(err)
	}
	produce(t, partitionOf(e, createTopic(t, e, "orders", 1, nil), 0), -1, "x")
	if err := e.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	folders, err := filepath.Glob(filepath.Join(dir, "topics", "orders-0.*"))
	if err != nil || len(folders) != 1 {
		t.Fatal(folders, err)
	}
	unknown := filepath.Join(dir, "topics", "other-0.AAAAAAAAAAAAAAAAAAAAAA")
	if err := os.CopyFS(unknown, os.DirFS(folders[0])); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(unknown+".stray", os.DirFS(folders[0])); err != nil { // one of before is in the way
		t.Fatal(err)
	}
	e, err = openOn(t, vfs.OS(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(unknown); err != nil {
		t.Errorf("the folder is gone: %v", err)
	}
}
