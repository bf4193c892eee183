package coordinator

import "errors"

// Why a coordinator cannot answer about a group.
var (
	// ErrNotAvailable says that the request could not be completed in time; the client may try again.
	ErrNotAvailable = errors.New("coordinator: not available")
	// ErrLoading says that the groups are still being read from the log.
	ErrLoading = errors.New("coordinator: load in progress")
	// ErrNotCoordinator says that this node does not have the group, or could not load or store it.
	ErrNotCoordinator = errors.New("coordinator: not the coordinator of the group")
	// ErrUnstorable says that a record of the group is more than the log takes, now or ever.
	ErrUnstorable = errors.New("coordinator: record cannot be stored")
)

// ErrTooLarge is what a Log returns, wrapped or not, for a batch that it never takes.
var ErrTooLarge = errors.New("coordinator: batch too large for the log")
