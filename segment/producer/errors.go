package producer

import "errors"

// Refusing a batch.
var (
	// ErrOutOfOrderSequence says that the batch does not follow the producer's last one, or begins a new epoch
	// with another sequence than 0.
	ErrOutOfOrderSequence = errors.New("producer: sequence out of order")
	// ErrInvalidProducerEpoch says that a newer incarnation of the producer has already written.
	ErrInvalidProducerEpoch = errors.New("producer: epoch is older than the last one seen")
)

// ErrCorruptSnapshot says that a snapshot's bytes are not what was written, or of a version that is not known.
var ErrCorruptSnapshot = errors.New("producer: corrupt snapshot")
