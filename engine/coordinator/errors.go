package coordinator

import (
	"context"
	"errors"
	"fmt"
)

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

// What a Log returns, wrapped or not, for a batch that is not committed. Anything else counts as a failure of its disk.
var (
	// ErrNotLeader says that this node does not lead the partition in the epoch that the Log was asked for.
	ErrNotLeader = errors.New("coordinator: not the leader of the partition")
	// ErrNotEnoughReplicas says that too few replicas are in sync, noticed before the batch was written or after.
	ErrNotEnoughReplicas = errors.New("coordinator: not enough replicas in sync")
	// ErrNoPartition says that the partition is not there, or no longer.
	ErrNoPartition = errors.New("coordinator: no such partition")
	// ErrTimedOut says that the log would not wait longer for room, or for the replicas.
	ErrTimedOut = errors.New("coordinator: log timed out")
	// ErrTooLarge says that the log never takes a batch of this size.
	ErrTooLarge = errors.New("coordinator: batch too large for the log")
)

// storeErrors is how Kafka translates what an append says for the clients of a group (CoordinatorOperationExceptionHelper
// and GroupMetadataManager.appendGroupMetadataErrorToResponseError, which agree).
var storeErrors = []struct{ cause, told error }{
	{ErrNoPartition, ErrNotAvailable},           // UNKNOWN_TOPIC_OR_PARTITION → COORDINATOR_NOT_AVAILABLE
	{ErrNotEnoughReplicas, ErrNotAvailable},     // NOT_ENOUGH_REPLICAS, also after the append
	{ErrTimedOut, ErrNotAvailable},              // REQUEST_TIMED_OUT
	{context.DeadlineExceeded, ErrNotAvailable}, // likewise
	{ErrTooLarge, ErrUnstorable},                // MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE → UNKNOWN_SERVER_ERROR
	{ErrNotLeader, ErrNotCoordinator},           // NOT_LEADER_OR_FOLLOWER → NOT_COORDINATOR
	{context.Canceled, ErrNotCoordinator},       // resigned, or closed
}

// storeError is what a client is told about an append that failed. The cause is told to the operator alone: it has
// a meaning of its own in other rooms.
func storeError(cause error) error {
	for _, e := range storeErrors {
		if errors.Is(cause, e.cause) {
			return fmt.Errorf("%w: %v", e.told, cause)
		}
	}
	return fmt.Errorf("%w: %v", ErrNotCoordinator, cause) // KAFKA_STORAGE_ERROR → NOT_COORDINATOR
}
