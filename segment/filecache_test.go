package segment

import (
	"context"
	"errors"
	"os"
	"sync"
	"syscall"
	"testing"

	"github.com/millrace/millrace/segment/vfs"
)

// openFiles counts how many files are open, and refuses more than limit with EMFILE.
type openFiles struct {
	vfs.FS
	mu    sync.Mutex
	open  int
	most  int
	limit int
}

func (fs *openFiles) OpenFile(name string, flag int, perm os.FileMode) (vfs.File, error) {
	if err := fs.take(); err != nil {
		return nil, err
	}
	f, err := fs.FS.OpenFile(name, flag, perm)
	if err != nil {
		fs.give()
		return nil, err
	}
	return &countedFile{File: f, fs: fs}, nil
}

func (fs *openFiles) SyncDir(name string) error { // it opens the folder
	if err := fs.take(); err != nil {
		return err
	}
	defer fs.give()
	return fs.FS.SyncDir(name)
}

func (fs *openFiles) take() error {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.limit > 0 && fs.open >= fs.limit {
		return syscall.EMFILE
	}
	fs.open++
	fs.most = max(fs.most, fs.open)
	return nil
}

func (fs *openFiles) give() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.open--
}

func (fs *openFiles) count() int {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.open
}

type countedFile struct {
	vfs.File
	fs   *openFiles
	once sync.Once
}

func (f *countedFile) Close() error {
	f.once.Do(f.fs.give)
	return f.File.Close()
}

// A file that is removed while it is read is closed when the reader is done:
// until then the disk keeps its bytes.
func TestRemovedSegmentIsClosedByItsLastReader(t *testing.T) {
	fs := &openFiles{FS: newMem(t)}
	d := openDir(t, fs)
	defer d.close(t)
	l := d.open(t, "orders", 0, smallSegments())
	for range 30 {
		l.mustAppend(t, makeBatch(t, 3, "x", 1))
	}
	before := fs.count()
	first := (*l.segments.Load())[0]
	if _, err := d.files.acquire(&first.handle); err != nil { // a reader
		t.Fatal(err)
	}
	if err := l.DeleteRecordsBefore(context.Background(), l.LogEndOffset()); err != nil {
		t.Fatal(err)
	}
	d.files.release(&first.handle)
	if n := fs.count(); n != 2 {
		t.Errorf("%d files are open, of %d before, one and the journal are left: those that were removed take up room", n, before)
	}
}

// When the process has no descriptor left, files that nobody uses make room; when
// there are none, the append fails and the next one may succeed: it is no fault
// of the disk.
func TestNoDescriptorsIsNoFault(t *testing.T) {
	fs := &openFiles{FS: newMem(t), limit: 12}
	d := openDir(t, fs, straightOnly)
	defer d.close(t)
	for i := range int32(50) {
		d.open(t, "orders", i, DefaultLogConfig()).mustAppend(t, makeBatch(t, 1, "x", 1))
	}
	fs.mu.Lock()
	fs.limit = 1
	fs.mu.Unlock()
	l := d.open(t, "late", 0, DefaultLogConfig())
	if r := l.appendAndWait(t, makeBatch(t, 1, "x", 1)); !errors.Is(r.Err, ErrNoDescriptors) || d.Err() != nil {
		t.Errorf("append without descriptors: %+v; directory: %v", r, d.Err())
	}
	fs.mu.Lock()
	fs.limit = 12
	fs.mu.Unlock()
	if r := l.mustAppend(t, makeBatch(t, 1, "x", 1)); r.BaseOffset != 0 {
		t.Errorf("append once there are some: %+v", r)
	}
}

// A round over more partitions than files may be open takes them in turn.
func TestOneRoundOverMorePartitionsThanDescriptors(t *testing.T) {
	fs := &openFiles{FS: newMem(t), limit: 40}
	faulty := vfs.NewFaulty(fs)
	d := openDir(t, faulty, straightOnly, func(o *DirOptions) { o.OpenFiles = 16 })
	defer d.close(t)
	d.open(t, "busy", 0, DefaultLogConfig()).mustAppend(t, makeBatch(t, 1, "x", 1))
	hold := make(chan struct{})
	faulty.Inject(vfs.Fault{Op: vfs.OpSync, Path: "*.log", Nth: 1, Stall: hold})
	const partitions = 200
	results := make(chan Result, partitions+1)
	for i := range int32(partitions + 1) {
		l := d.open(t, "orders", i, DefaultLogConfig())
		if i == 0 {
			l = d.open(t, "busy", 0, DefaultLogConfig()) // the others gather behind its sync
		}
		if err := l.Append(context.Background(), &Append{Batches: makeBatch(t, 1, "x", 1), Done: func(r Result) { results <- r }}); err != nil {
			t.Fatal(err)
		}
	}
	close(hold)
	for range partitions + 1 {
		if r := <-results; r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	if fs.most > fs.limit-10 {
		t.Errorf("%d files were open at a time", fs.most)
	}
}

// The one sync for all logs at a clean close needs a descriptor, too.
func TestCleanCloseWithoutDescriptors(t *testing.T) {
	faulty := vfs.NewFaulty(newMem(t))
	d := openDir(t, faulty, straightOnly, func(o *DirOptions) { o.SyncEach = 1 })
	for i := range int32(2) {
		d.open(t, "orders", i, DefaultLogConfig()).mustAppend(t, makeBatch(t, 1, "x", 1))
	}
	faulty.Inject(vfs.Fault{Op: vfs.OpSyncDir, Path: "topics", Nth: 1, Err: syscall.EMFILE})
	d.close(t)
}
