package server

import (
	"context"
	"errors"
	"syscall"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/engine/coordinator"
	"github.com/millrace/millrace/engine/group"
	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/producer"
)

// errorCodes is the one place where errors of the rooms below become Kafka's
// codes. The first that matches counts.
var errorCodes = []struct {
	err  error
	code int16
}{
	// What a cluster says of a change. NOT_CONTROLLER has clients ask again, as nothing was done; REQUEST_TIMED_OUT, which also is Kafka's answer
	// when its controller is not reached, leaves it to the user whether to look first. Both come with an ended deadline, too.
	{catalog.ErrUnknownOutcome, codeRequestTimedOut},
	{catalog.ErrNoLeader, codeNotController},
	{context.DeadlineExceeded, codeRequestTimedOut},
	{context.Canceled, codeRequestTimedOut},

	{errRequiredAcks, codeInvalidRequiredAcks},
	{errUnknownTopicID, codeUnknownTopicID},
	{engine.ErrNotHere, codeNotLeaderOrFollower},
	{engine.ErrDirOffline, codeKafkaStorageError},
	{engine.ErrMoving, codeKafkaStorageError},
	{engine.ErrUnknownLogDir, codeLogDirNotFound},
	{errTimedOut, codeRequestTimedOut},

	{group.ErrUnknownMemberID, codeUnknownMemberID},
	{group.ErrMemberIDRequired, codeMemberIDRequired},
	{group.ErrFencedInstanceID, codeFencedInstanceID},
	{group.ErrIllegalGeneration, codeIllegalGeneration},
	{group.ErrRebalanceInProgress, codeRebalanceInProgress},
	{group.ErrInconsistentProtocol, codeInconsistentGroupProtocol},
	{group.ErrInvalidSessionTimeout, codeInvalidSessionTimeout},
	{group.ErrGroupMaxSizeReached, codeGroupMaxSizeReached},
	{group.ErrInvalidGroupID, codeInvalidGroupID},
	{group.ErrGroupIDNotFound, codeGroupIDNotFound},
	{group.ErrNonEmptyGroup, codeNonEmptyGroup},
	{group.ErrPartlyDeleted, codeCoordinatorNotAvailable},
	{group.ErrSubscribedToTopic, codeGroupSubscribedToTopic},
	{group.ErrOffsetMetadataTooLarge, codeOffsetMetadataTooLarge},

	{coordinator.ErrLoading, codeCoordinatorLoadInProgress},
	{coordinator.ErrNotAvailable, codeCoordinatorNotAvailable},
	{coordinator.ErrNotCoordinator, codeNotCoordinator},
	{coordinator.ErrUnstorable, codeUnknownServerError},

	{engine.ErrUnknownPartition, codeUnknownTopicOrPartition},
	{engine.ErrNotEnoughReplicas, codeNotEnoughReplicas},
	{engine.ErrNotEnoughReplicasAfterAppend, codeNotEnoughReplicasAfterAppend},
	{engine.ErrInternalTopic, codeInvalidTopicException},
	{engine.ErrTransactional, codeInvalidTxnState},
	{engine.ErrEmptyProduce, codeInvalidRecord},
	{engine.ErrOffsetOutOfRange, codeOffsetOutOfRange},
	{engine.ErrOffsetNotAvailable, codeOffsetNotAvailable},
	{engine.ErrFencedLeaderEpoch, codeFencedLeaderEpoch},
	{engine.ErrUnknownLeaderEpoch, codeUnknownLeaderEpoch},
	{engine.ErrPolicyViolation, codePolicyViolation},

	{engine.ErrInvalidTopicName, codeInvalidTopicException},
	{engine.ErrTopicExists, codeTopicAlreadyExists},
	{engine.ErrUnknownTopic, codeUnknownTopicOrPartition},
	{engine.ErrUnknownTopicID, codeUnknownTopicID},
	{engine.ErrInvalidPartitions, codeInvalidPartitions},
	{engine.ErrInvalidReplicationFactor, codeInvalidReplicationFactor},
	{engine.ErrInvalidAssignment, codeInvalidReplicaAssignment},
	{engine.ErrInvalidConfig, codeInvalidConfig},
	{engine.ErrInvalidRequest, codeInvalidRequest},
	{engine.ErrTooMuchAtOnce, codePolicyViolation},
	{engine.ErrDeletionDisabled, codeTopicDeletionDisabled},

	{batch.ErrTooLarge, codeMessageTooLarge},
	{batch.ErrInvalidRecord, codeInvalidRecord},
	{batch.ErrInvalidTimestamp, codeInvalidTimestamp},
	{batch.ErrUnsupportedCompression, codeUnsupportedCompressionType},
	{batch.ErrLargerThanSegment, codeRecordListTooLarge},
	{batch.ErrUnknownCodec, codeUnknownServerError}, // so does Kafka
	{batch.ErrDecompression, codeUnknownServerError},
	{batch.ErrNotRebuildable, codeUnknownServerError},
	{batch.ErrTooManyBytes, codeMessageTooLarge},
	{batch.ErrTruncated, codeCorruptMessage},
	{batch.ErrCorrupt, codeCorruptMessage},

	{producer.ErrOutOfOrderSequence, codeOutOfOrderSequenceNumber},
	{producer.ErrInvalidProducerEpoch, codeInvalidProducerEpoch},

	{segment.ErrOffsetOutOfRange, codeOffsetOutOfRange},
	{segment.ErrDeleted, codeUnknownTopicOrPartition},
	{segment.ErrTooLarge, codeRecordListTooLarge},
	{segment.ErrNoSpace, codeKafkaStorageError},
	{segment.ErrNoDescriptors, codeKafkaStorageError},
	{segment.ErrQueueFull, codeRequestTimedOut},
	{segment.ErrFenced, codeKafkaStorageError},
	{segment.ErrStalled, codeKafkaStorageError},
	{segment.ErrCorrupt, codeCorruptMessage},
	{segment.ErrClosed, codeNotLeaderOrFollower},
	{segment.ErrStaleEpoch, codeNotLeaderOrFollower},

	{catalog.ErrTopicExists, codeTopicAlreadyExists},
	{catalog.ErrUnknownTopic, codeUnknownTopicOrPartition},
	{catalog.ErrTooLarge, codeInvalidRequest},
	{catalog.ErrNoSpace, codeKafkaStorageError},
	{catalog.ErrFailed, codeKafkaStorageError},
	{catalog.ErrStalled, codeKafkaStorageError}, // retried by clients, as is the REQUEST_TIMED_OUT of a controller that cannot write, but says why
	{catalog.ErrClosed, codeBrokerNotAvailable},
	{catalog.ErrBrokerInUse, codeDuplicateBrokerRegistration},
	{catalog.ErrStaleBrokerEpoch, codeStaleBrokerEpoch},
	{catalog.ErrUnknownBroker, codeBrokerIDNotRegistered},
	{catalog.ErrNotLeader, codeNotLeaderOrFollower},
	{catalog.ErrFencedLeaderEpoch, codeFencedLeaderEpoch},
	{catalog.ErrUnknownCommand, codeUnsupportedVersion}, // by an older node, while the cluster is being upgraded
	{catalog.ErrElectionNotNeeded, codeElectionNotNeeded},
	{catalog.ErrPreferredLeaderNotAvailable, codePreferredLeaderNotAvailable},
	{catalog.ErrEligibleLeadersNotAvailable, codeEligibleLeadersNotAvailable},
	{catalog.ErrNoReassignment, codeNoReassignmentInProgress},
	{catalog.ErrInvalidAssignment, codeInvalidReplicaAssignment},
	{catalog.ErrUncleanCancel, codeInvalidReplicaAssignment},
	{catalog.ErrFactorChanged, codeInvalidReplicationFactor},
	{catalog.ErrUnsupportedFeature, codeInvalidUpdateVersion}, // of UpdateFeatures; a registration is no client's
	{catalog.ErrFeatureUpdate, codeInvalidUpdateVersion},

	{syscall.EIO, codeKafkaStorageError}, // of a read
}

// errorCode is the Kafka code of an error, codeUnknownServerError for one that
// is not in the table.
func errorCode(err error) int16 {
	if err == nil {
		return codeNone
	}
	for _, e := range errorCodes {
		if errors.Is(err, e.err) {
			return e.code
		}
	}
	return codeUnknownServerError
}
