package config

import "fmt"

// ValueError is a value that its key does not take. Error is Kafka's own sentence.
type ValueError struct {
	Key, Value, Reason string
}

// Error says it as Kafka does.
func (e *ValueError) Error() string {
	return fmt.Sprintf("Invalid value %s for configuration %s: %s", e.Value, e.Key, e.Reason)
}

// ConflictError is a set of values that do not go together, or that this broker
// cannot keep. Its text is the whole sentence.
type ConflictError struct{ Reason string }

// Error is the sentence.
func (e *ConflictError) Error() string { return e.Reason }

// UnknownKeyError is a key that Kafka does not know.
type UnknownKeyError struct {
	Kind    string // topic or group; "" for a broker property
	Key     string
	Nearest string // a known key with a similar name, "" when there is none
}

// Error says it as Kafka does for topics and groups; for a broker property, which
// Kafka would pass over, it names the nearest key.
func (e *UnknownKeyError) Error() string {
	if e.Kind != "" {
		return fmt.Sprintf("Unknown %s config name: %s", e.Kind, e.Key)
	}
	if e.Nearest == "" {
		return fmt.Sprintf("unknown configuration key %s", e.Key)
	}
	return fmt.Sprintf("unknown configuration key %s; did you mean %s?", e.Key, e.Nearest)
}

// RefusedError is a value that asks for something that is not built here.
type RefusedError struct{ Key, Value, Reason string }

// Error names the key, the value and why it is refused.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("configuration %s=%s is refused: %s", e.Key, e.Value, e.Reason)
}

// Warning is a property that was accepted but does less than its name says.
type Warning struct{ Key, Text string }

// String is the warning in one line.
func (w Warning) String() string { return fmt.Sprintf("configuration %s %s", w.Key, w.Text) }
