package controller

import "errors"

// Of proposals. Those of the catalogue apply too: ErrClosed, ErrTooLarge, ErrStalled, ErrFailed.
var (
	// ErrNotLeader means that this node does not lead, so it took nothing up.
	ErrNotLeader = errors.New("controller: not the leader")
	// ErrNoLeader means that no leader is known at the moment.
	ErrNoLeader = errors.New("controller: no leader")
	// ErrUnknownOutcome means that the deadline, or the end of this node's part, came first: the command may still take effect, once.
	ErrUnknownOutcome = errors.New("controller: it is not known what became of the change")
	// ErrForgotten means that a command was sent again so late that nobody remembers whether it was applied before. It was not applied now.
	ErrForgotten = errors.New("controller: too late to tell whether the change was made")
	// ErrRefused means that bytes that were handed on are no proposal that this version knows.
	ErrRefused = errors.New("controller: not a proposal that this version knows")
)

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
