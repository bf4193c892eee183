package vfs

import "errors"

// ErrLocked says that another process, or another part of this one, holds the lock file.
var ErrLocked = errors.New("vfs: locked by another process")

// ErrAppendFlag says that a file was to be opened with O_APPEND, which makes Linux ignore the offset of every write.
var ErrAppendFlag = errors.New("vfs: files are written at offsets, O_APPEND is not allowed")

// ErrNoDirect says that this system knows no direct I/O.
var ErrNoDirect = errors.New("vfs: no direct I/O on this system")

// LockedError is ErrLocked for one lock file.
type LockedError struct {
	Name string // the lock file
}

// Error names the lock file.
func (e *LockedError) Error() string { return ErrLocked.Error() + ": " + e.Name }

// Unwrap gives ErrLocked.
func (e *LockedError) Unwrap() error { return ErrLocked }
