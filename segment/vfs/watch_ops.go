package vfs

import (
	"io"
	"os"
)

// OpenFile is OpOpen.
func (w *Watched) OpenFile(name string, flag int, perm os.FileMode) (File, error) {
	o := w.Begin(OpOpen, name)
	f, err := w.inner.OpenFile(name, flag, perm)
	w.End(o)
	if err != nil {
		return nil, err
	}
	return &watchedFile{File: f, w: w, name: name}, nil
}

// MkdirAll is OpMkdir.
func (w *Watched) MkdirAll(name string, perm os.FileMode) error {
	defer w.End(w.Begin(OpMkdir, name))
	return w.inner.MkdirAll(name, perm)
}

// Remove is OpRemove.
func (w *Watched) Remove(name string) error {
	defer w.End(w.Begin(OpRemove, name))
	return w.inner.Remove(name)
}

// RemoveAll is one OpRemove, however much it removes.
func (w *Watched) RemoveAll(name string) error {
	defer w.End(w.Begin(OpRemove, name))
	return w.inner.RemoveAll(name)
}

// Rename is OpRename, under the new name.
func (w *Watched) Rename(oldName, newName string) error {
	defer w.End(w.Begin(OpRename, newName))
	return w.inner.Rename(oldName, newName)
}

// ReadDir is OpReadDir.
func (w *Watched) ReadDir(name string) ([]os.DirEntry, error) {
	defer w.End(w.Begin(OpReadDir, name))
	return w.inner.ReadDir(name)
}

// Stat is OpStat.
func (w *Watched) Stat(name string) (os.FileInfo, error) {
	defer w.End(w.Begin(OpStat, name))
	return w.inner.Stat(name)
}

// SyncAll is OpSyncDir.
func (w *Watched) SyncAll(name string) error {
	defer w.End(w.Begin(OpSyncDir, name))
	return w.inner.SyncAll(name)
}

// SyncDir is OpSyncDir.
func (w *Watched) SyncDir(name string) error {
	defer w.End(w.Begin(OpSyncDir, name))
	return w.inner.SyncDir(name)
}

// Lock is OpLock.
func (w *Watched) Lock(name string) (io.Closer, error) {
	defer w.End(w.Begin(OpLock, name))
	return w.inner.Lock(name)
}

// Space is OpSpace.
func (w *Watched) Space(name string) (free, total uint64, err error) {
	defer w.End(w.Begin(OpSpace, name))
	return w.inner.Space(name)
}

// watchedFile is an open file of a Watched.
type watchedFile struct {
	File
	w    *Watched
	name string
}

func (f *watchedFile) ReadAt(p []byte, off int64) (int, error) {
	defer f.w.End(f.w.Begin(OpRead, f.name))
	return f.File.ReadAt(p, off)
}

func (f *watchedFile) WriteAt(p []byte, off int64) (int, error) {
	defer f.w.End(f.w.Begin(OpWrite, f.name))
	return f.File.WriteAt(p, off)
}

func (f *watchedFile) WriteVAt(bufs [][]byte, off int64) (int, error) {
	defer f.w.End(f.w.Begin(OpWrite, f.name))
	return f.File.WriteVAt(bufs, off)
}

func (f *watchedFile) Truncate(size int64) error {
	defer f.w.End(f.w.Begin(OpTruncate, f.name))
	return f.File.Truncate(size)
}

func (f *watchedFile) Allocate(size int64) error {
	defer f.w.End(f.w.Begin(OpAllocate, f.name))
	return f.File.Allocate(size)
}

func (f *watchedFile) Sync() error {
	defer f.w.End(f.w.Begin(OpSync, f.name))
	return f.File.Sync()
}

func (f *watchedFile) Size() (int64, error) {
	defer f.w.End(f.w.Begin(OpSize, f.name))
	return f.File.Size()
}

func (f *watchedFile) Close() error {
	defer f.w.End(f.w.Begin(OpClose, f.name))
	return f.File.Close()
}
