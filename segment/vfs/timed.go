package vfs

import (
	"errors"
	"io"
	"os"
	"time"
)

// Observer takes one measurement. It is called by many goroutines at once and must not block.
type Observer interface{ Observe(float64) }

// Times says what Timed measures: seconds of each kind of operation, those that fail included. An
// Observer that is nil is not told.
type Times struct {
	Clock   func() time.Duration // monotonic; required
	Read    Observer             // File.ReadAt
	Write   Observer             // File.WriteAt and File.WriteVAt
	Sync    Observer             // File.Sync
	SyncDir Observer             // FS.SyncDir
	Failed  func(Op)             // one of these that has failed, but for the end of a file; may be nil
}

// Timed wraps a file system and measures the operations that a log waits for. An operation costs two
// readings of the clock and one Observe more, and allocates nothing; an open file is 32 bytes larger.
func Timed(inner FS, t *Times) FS { return &timedFS{inner, t} }

type timedFS struct {
	FS
	times *Times
}

func (fs *timedFS) OpenFile(name string, flag int, perm os.FileMode) (File, error) {
	f, err := fs.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &timedFile{f, fs.times}, nil
}

func (fs *timedFS) SyncAll(name string) error {
	begun := fs.times.Clock()
	err := fs.FS.SyncAll(name)
	fs.times.ended(fs.times.SyncDir, OpSyncDir, begun, err)
	return err
}

func (fs *timedFS) SyncDir(name string) error {
	begun := fs.times.Clock()
	err := fs.FS.SyncDir(name)
	fs.times.ended(fs.times.SyncDir, OpSyncDir, begun, err)
	return err
}

type timedFile struct {
	File
	times *Times
}

func (f *timedFile) ReadAt(b []byte, off int64) (int, error) {
	begun := f.times.Clock()
	n, err := f.File.ReadAt(b, off)
	f.times.ended(f.times.Read, OpRead, begun, err)
	return n, err
}

func (f *timedFile) WriteAt(b []byte, off int64) (int, error) {
	begun := f.times.Clock()
	n, err := f.File.WriteAt(b, off)
	f.times.ended(f.times.Write, OpWrite, begun, err)
	return n, err
}

func (f *timedFile) WriteVAt(bufs [][]byte, off int64) (int, error) {
	begun := f.times.Clock()
	n, err := f.File.WriteVAt(bufs, off)
	f.times.ended(f.times.Write, OpWrite, begun, err)
	return n, err
}

func (f *timedFile) Sync() error {
	begun := f.times.Clock()
	err := f.File.Sync()
	f.times.ended(f.times.Sync, OpSync, begun, err)
	return err
}

func (t *Times) ended(o Observer, op Op, begun time.Duration, err error) {
	if o != nil {
		o.Observe((t.Clock() - begun).Seconds())
	}
	if err != nil && t.Failed != nil && !errors.Is(err, io.EOF) {
		t.Failed(op)
	}
}
