package batch

import (
	"errors"
	"fmt"
)

// Reading bytes.
var (
	// ErrTruncated says that the bytes end before the batch does.
	ErrTruncated = errors.New("batch: truncated")
	// ErrCorrupt says that the bytes are not a record batch: wrong magic, length or CRC.
	ErrCorrupt = errors.New("batch: corrupt")
	// ErrUnsupportedCompression says that the codec is not allowed for the version of the request that carried it.
	ErrUnsupportedCompression = errors.New("batch: unsupported compression")
	// ErrUnknownCodec says that no codec has that number or name.
	ErrUnknownCodec = errors.New("batch: unknown codec")
	// ErrDecompression says that the records are not what their codec should have produced.
	ErrDecompression = errors.New("batch: cannot decompress")
	// ErrTooManyBytes says that decompressed records exceed the bound that the caller has set.
	ErrTooManyBytes = errors.New("batch: decompressed records exceed the bound")
)

// Admitting what a client has produced.
var (
	// ErrTooLarge says that the batch is larger than max.message.bytes.
	ErrTooLarge = errors.New("batch: too large")
	// ErrLargerThanSegment says that the batch does not fit into one segment (segment.bytes).
	ErrLargerThanSegment = errors.New("batch: larger than a segment")
	// ErrNotRebuildable says that the records would have to be written anew but cannot be. Kafka answers
	// UNKNOWN_SERVER_ERROR to it, as it does to ErrUnknownCodec and ErrDecompression.
	ErrNotRebuildable = errors.New("batch: cannot be rebuilt")
	// ErrInvalidRecord says that the batch or one of its records is not what a client may produce.
	ErrInvalidRecord = errors.New("batch: invalid record")
	// ErrInvalidTimestamp says that a record's timestamp is out of the topic's range.
	ErrInvalidTimestamp = errors.New("batch: invalid timestamp")
)

// RecordError is what is wrong with one record.
type RecordError struct {
	Index   int32 // place of the record in its batch
	Message string
}

// RecordErrors says that single records of a well-formed batch were refused; none of the batch is stored.
type RecordErrors struct {
	Err     error // ErrInvalidRecord or ErrInvalidTimestamp
	Records []RecordError
	Message string
}

// Error is the message for the client.
func (e *RecordErrors) Error() string { return fmt.Sprintf("%v: %s", e.Err, e.Message) }

// Unwrap gives the sentinel that says which kind of refusal it is.
func (e *RecordErrors) Unwrap() error { return e.Err }
