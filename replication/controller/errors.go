package controller

import (
	"errors"

	"github.com/millrace/millrace/engine/catalog"
)

// Of proposals. Those of the catalogue apply too: ErrClosed, ErrTooLarge, ErrStalled, ErrFailed. Each of these also is
// the one of the catalogue's errors that tells clients what to do.
var (
	// ErrNotLeader means that this node does not lead, so it took nothing up.
	ErrNotLeader error = &proposalError{"controller: not the leader", catalog.ErrNoLeader}
	// ErrNoLeader means that no leader is known at the moment.
	ErrNoLeader error = &proposalError{"controller: no leader", catalog.ErrNoLeader}
	// ErrUnknownOutcome means that the deadline, or the end of this node's part, came first: the command may still take effect, once.
	ErrUnknownOutcome error = &proposalError{"controller: it is not known what became of the change", catalog.ErrUnknownOutcome}
	// ErrForgotten means that a command was sent again so late that nobody remembers whether it was applied before. It was not applied now.
	ErrForgotten error = &proposalError{"controller: too late to tell whether the change was made", catalog.ErrUnknownOutcome}
	// ErrRefused means that bytes that were handed on are no proposal that this version knows.
	ErrRefused error = &proposalError{"controller: not a proposal that this version knows", catalog.ErrUnknownCommand}
)

// proposalError is why a proposal failed, and the catalogue's error that it is.
type proposalError struct {
	text string
	kind error
}

// Error is the text.
func (e *proposalError) Error() string { return e.text }

// Unwrap returns the catalogue's error.
func (e *proposalError) Unwrap() error { return e.kind }

// Of opening and membership.
var (
	// ErrBootstrapped means that the directory holds the state of a cluster already.
	ErrBootstrapped = errors.New("controller: there is a cluster's state already")
	// ErrCorrupt means that stored state is damaged.
	ErrCorrupt = errors.New("controller: damaged state")
	// ErrFutureFormat means that stored state was written by a newer version.
	ErrFutureFormat = errors.New("controller: written in a newer format than this version reads")
	// ErrLastVoter means that a member may not leave as the others would not be a majority without it.
	ErrLastVoter = errors.New("controller: the remaining voters would have no majority")
)
