package server

import (
	"context"
	"errors"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/catalog"
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
	{context.DeadlineExceeded, codeRequestTimedOut},
	{context.Canceled, codeRequestTimedOut},

	{errRequiredAcks, codeInvalidRequiredAcks},
	{errUnknownTopicID, codeUnknownTopicID},
	{errNotHere, codeNotLeaderOrFollower},
	{errTimedOut, codeRequestTimedOut},

	{engine.ErrUnknownPartition, codeUnknownTopicOrPartition},
	{engine.ErrNotEnoughReplicas, codeNotEnoughReplicas},
	{engine.ErrInternalTopic, codeInvalidTopicException},
	{engine.ErrTransactional, codeInvalidTxnState},
	{engine.ErrEmptyProduce, codeInvalidRecord},
	{engine.ErrOffsetOutOfRange, codeOffsetOutOfRange},
	{engine.ErrFencedLeaderEpoch, codeFencedLeaderEpoch},
	{engine.ErrUnknownLeaderEpoch, codeUnknownLeaderEpoch},
	{engine.ErrPolicyViolation, codePolicyViolation},

	{batch.ErrTooLarge, codeMessageTooLarge},
	{batch.ErrInvalidRecord, codeInvalidRecord},
	{batch.ErrInvalidTimestamp, codeInvalidTimestamp},
	{batch.ErrUnsupportedCompression, codeUnsupportedCompressionType},
	{batch.ErrUnknownCodec, codeCorruptMessage},
	{batch.ErrDecompression, codeCorruptMessage},
	{batch.ErrTooManyBytes, codeMessageTooLarge},
	{batch.ErrTruncated, codeCorruptMessage},
	{batch.ErrCorrupt, codeCorruptMessage},

	{producer.ErrOutOfOrderSequence, codeOutOfOrderSequenceNumber},
	{producer.ErrInvalidProducerEpoch, codeInvalidProducerEpoch},

	{segment.ErrOffsetOutOfRange, codeOffsetOutOfRange},
	{segment.ErrDeleted, codeUnknownTopicOrPartition},
	{segment.ErrTooLarge, codeRecordListTooLarge},
	{segment.ErrNoSpace, codeKafkaStorageError},
	{segment.ErrFenced, codeKafkaStorageError},
	{segment.ErrCorrupt, codeKafkaStorageError},
	{segment.ErrClosed, codeNotLeaderOrFollower},

	{catalog.ErrTopicExists, codeTopicAlreadyExists},
	{catalog.ErrUnknownTopic, codeUnknownTopicOrPartition},
	{catalog.ErrTooLarge, codeInvalidRequest},
	{catalog.ErrFailed, codeKafkaStorageError},
	{catalog.ErrClosed, codeBrokerNotAvailable},
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
