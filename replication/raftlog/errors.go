package raftlog

import (
	"errors"
	"fmt"
	"time"
)

// Of opening.
var (
	// ErrFutureFormat means that the directory was written by a newer millrace.
	ErrFutureFormat = errors.New("raftlog: written in a newer format than this version reads")
	// ErrCorrupt means that what was stored is damaged or missing; see [CorruptError].
	ErrCorrupt = errors.New("raftlog: damaged")
)

// Of writing.
var (
	// ErrGap means that entries do not follow those that are there. Nothing was written.
	ErrGap = errors.New("raftlog: entries do not follow the log")
	// ErrNoSpace means that the disk is too full to write safely. Nothing was written.
	ErrNoSpace = errors.New("raftlog: disk too full")
	// ErrFailed means that an earlier write failed, so what is on the disk is not known
	// before the log is opened again.
	ErrFailed = errors.New("raftlog: refuses writes after a failed one")
	// ErrReplaced means that a snapshot from the leader has replaced entries that the leader does not know. Raft has to begin again.
	ErrReplaced = errors.New("raftlog: a snapshot has replaced the log")
	// ErrClosed means that the log was closed.
	ErrClosed = errors.New("raftlog: closed")
	// ErrStalled means that the disk did not answer within the bound; see [StallError].
	ErrStalled = errors.New("raftlog: the disk does not answer")
)

// CorruptError says what is damaged or missing.
type CorruptError struct {
	What string // for instance "entry 17", or the name of a file
	Err  error
}

// Error names what is damaged and how.
func (e *CorruptError) Error() string { return fmt.Sprintf("%v: %s: %v", ErrCorrupt, e.What, e.Err) }

// Unwrap gives ErrCorrupt and the reason.
func (e *CorruptError) Unwrap() []error { return []error{ErrCorrupt, e.Err} }

// StallError is ErrStalled for one operation.
type StallError struct {
	Op    string
	Bound time.Duration
}

// Error names the operation and how long it was waited for.
func (e *StallError) Error() string {
	return fmt.Sprintf("%v: %s has not come back within %v", ErrStalled, e.Op, e.Bound)
}

// Unwrap gives ErrStalled.
func (e *StallError) Unwrap() error { return ErrStalled }
