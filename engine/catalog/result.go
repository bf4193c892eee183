package catalog

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// itemErrors are the errors of items by their code in an encoded result. Codes are for ever.
var itemErrors = [...]error{
	1: ErrTopicExists, 2: ErrUnknownTopic, 3: ErrConflict, 4: ErrInvalid, 5: ErrClusterMismatch,
	6: ErrNotApplied, 7: ErrBrokerInUse, 8: ErrDirInUse, 9: ErrUnknownBroker, 10: ErrStaleBrokerEpoch, 11: ErrUnsupportedFeature, 12: ErrFeatureUpdate,
	13: ErrNotLeader, 14: ErrFencedLeaderEpoch, 15: ErrIneligibleReplica, 16: ErrElectionNotNeeded, 17: ErrPreferredLeaderNotAvailable,
	18: ErrEligibleLeadersNotAvailable, 19: ErrNoReassignment, 20: ErrInvalidAssignment, 21: ErrUncleanCancel, 22: ErrFactorChanged,
}

// EncodeResult writes a result but for its image, so that a command that comes again can be answered as it was:
//
//	version(1) first producer id, number of items (uvarint each)
//	for each item with an error: distance from the one before, code (0: text follows), text length, text (uvarint each)
func EncodeResult(res Result) []byte {
	b := binary.AppendUvarint([]byte{1}, uint64(res.FirstProducerID))
	b = binary.AppendUvarint(b, uint64(len(res.Errors)))
	last := 0
	for i, err := range res.Errors {
		if err == nil {
			continue
		}
		b = binary.AppendUvarint(b, uint64(i-last))
		last = i
		code, text := 0, err.Error()
		for c, known := range itemErrors {
			if known != nil && err == known {
				code, text = c, ""
			}
		}
		b = binary.AppendUvarint(b, uint64(code))
		if code == 0 {
			b = append(binary.AppendUvarint(b, uint64(len(text))), text...)
		}
	}
	return b
}

// maxItems bounds what DecodeResult allocates; no command is that large.
const maxItems = 1 << 22

// DecodeResult reads what [EncodeResult] wrote. It allocates an error per item of the command, which may be many for few bytes.
func DecodeResult(b []byte) (Result, error) {
	if len(b) == 0 || b[0] != 1 {
		return Result{}, fmt.Errorf("%w: a result", ErrFutureFormat)
	}
	b = b[1:]
	bad := false
	number := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			bad = true
			return 0
		}
		b = b[n:]
		return v
	}
	corrupt := &CorruptError{Key: "result", Err: errors.New("it does not add up")}
	res := Result{FirstProducerID: int64(number())}
	items := number()
	if bad || items > maxItems {
		return Result{}, corrupt
	}
	res.Errors = make([]error, items)
	at := uint64(0)
	for first := true; len(b) > 0; first = false {
		distance := number()
		code := number()
		if at += distance; bad || !first && distance == 0 || distance > items || at >= items || code >= uint64(len(itemErrors)) {
			return Result{}, corrupt
		}
		if code > 0 {
			res.Errors[at] = itemErrors[code]
			continue
		}
		length := number()
		if bad || length > uint64(len(b)) {
			return Result{}, corrupt
		}
		res.Errors[at] = errors.New(string(b[:length]))
		b = b[length:]
	}
	return res, nil
}
