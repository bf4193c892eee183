package vfs

import (
	"errors"
	"os"
	"slices"
)

// faultyFile is an open file of a Faulty. Faults go by the name it was opened with.
type faultyFile struct {
	File // Name is that of the inner file
	fs   *Faulty
}

func (f *faultyFile) check(op Op) error { return f.fs.check(op, f.Name()) }

func (f *faultyFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.check(OpRead); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

func (f *faultyFile) WriteAt(p []byte, off int64) (int, error) {
	if fault := f.fs.strike(OpWrite, f.Name()); fault != nil {
		return f.writeShort(fault, p, off)
	}
	return f.File.WriteAt(p, off)
}

func (f *faultyFile) WriteVAt(bufs [][]byte, off int64) (int, error) {
	if fault := f.fs.strike(OpWrite, f.Name()); fault != nil {
		return f.writeShort(fault, slices.Concat(bufs...), off)
	}
	return f.File.WriteVAt(bufs, off)
}

// writeShort writes as much as the fault allows, and fails. The last byte at least is not written.
func (f *faultyFile) writeShort(fault *Fault, p []byte, off int64) (int, error) {
	failed := &os.PathError{Op: OpWrite.String(), Path: f.Name(), Err: fault.err()}
	short := min(fault.Short, len(p)-1)
	if short <= 0 {
		return 0, failed
	}
	n, err := f.File.WriteAt(p[:short], off)
	if err != nil {
		return n, errors.Join(failed, err)
	}
	return n, failed
}

func (f *faultyFile) Truncate(size int64) error {
	if err := f.check(OpTruncate); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f *faultyFile) Allocate(size int64) error {
	if err := f.check(OpAllocate); err != nil {
		return err
	}
	return f.File.Allocate(size)
}

func (f *faultyFile) Sync() error {
	if err := f.check(OpSync); err != nil {
		f.failSync()
		return err
	}
	return f.File.Sync()
}

// failSync tells a Mem below, also below another Faulty, that its sync is to fail.
func (f *faultyFile) failSync() {
	if mem, ok := f.File.(interface{ failSync() }); ok {
		mem.failSync()
	}
}

func (f *faultyFile) Size() (int64, error) {
	if err := f.check(OpSize); err != nil {
		return 0, err
	}
	return f.File.Size()
}

// Close closes the inner file also when it fails, so that a test leaks nothing.
func (f *faultyFile) Close() error {
	failed := f.check(OpClose)
	if err := f.File.Close(); err != nil && failed == nil {
		return err
	}
	return failed
}
