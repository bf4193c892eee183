package engine

import "errors"

// Administration of topics and configs. They come wrapped in an [AdminError],
// which has the words.
var (
	// ErrInvalidTopicName says that no topic may have this name.
	ErrInvalidTopicName = errors.New("engine: invalid topic name")
	// ErrTopicExists says that a topic of this name exists.
	ErrTopicExists = errors.New("engine: topic exists")
	// ErrUnknownTopic says that no topic has this name.
	ErrUnknownTopic = errors.New("engine: unknown topic")
	// ErrUnknownTopicID says that no topic has this id.
	ErrUnknownTopicID = errors.New("engine: unknown topic id")
	// ErrInvalidPartitions says that a number of partitions makes no sense.
	ErrInvalidPartitions = errors.New("engine: invalid number of partitions")
	// ErrInvalidReplicationFactor says that there are not as many brokers, or less than one was asked for.
	ErrInvalidReplicationFactor = errors.New("engine: invalid replication factor")
	// ErrInvalidAssignment says that an assignment of replicas contradicts itself or the brokers there are.
	ErrInvalidAssignment = errors.New("engine: invalid replica assignment")
	// ErrInvalidConfig says that a key is unknown or its value wrong.
	ErrInvalidConfig = errors.New("engine: invalid config")
	// ErrInvalidRequest says that a request contradicts itself.
	ErrInvalidRequest = errors.New("engine: invalid request")
	// ErrTooMuchAtOnce says that one request asks for more than one change may hold.
	ErrTooMuchAtOnce = errors.New("engine: too much in one request")
	// ErrDeletionDisabled says that delete.topic.enable is off.
	ErrDeletionDisabled = errors.New("engine: deleting topics is disabled")
)

// AdminError is a refusal with the words that Kafka finds for it.
type AdminError struct {
	Kind    error  // one of the errors above
	Message string // for the client; "" when Kafka says nothing
}

// Error is the message, or else the kind.
func (e *AdminError) Error() string {
	if e.Message == "" {
		return e.Kind.Error()
	}
	return e.Message
}

// Unwrap returns the kind.
func (e *AdminError) Unwrap() error { return e.Kind }

func refuse(kind error, message string) error { return &AdminError{Kind: kind, Message: message} }
