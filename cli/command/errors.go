package command

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Exit codes, as documented in the README and in "millrace --help".
const (
	ExitOK          = 0
	ExitFailed      = 1   // the command was understood and did not succeed
	ExitUsage       = 2   // a command, flag, argument or configuration is wrong; nothing was done
	ExitUnreachable = 3   // no broker answered within --timeout
	ExitNotFound    = 4   // the topic or partition does not exist
	ExitInterrupted = 130 // ended by Ctrl-C before it was done
)

// usageError is a command line that cannot be carried out; Path is the command whose help explains more.
type usageError struct {
	Path    string
	Message string
}

func (e *usageError) Error() string { return e.Message }

func usagef(path, format string, args ...any) error {
	return &usageError{Path: path, Message: fmt.Sprintf(format, args...)}
}

// unreachableError says that no broker answered at the addresses.
type unreachableError struct {
	Addresses []string
	Err       error
}

func (e *unreachableError) Error() string {
	return fmt.Sprintf("no Kafka broker answers at %s: %v", strings.Join(e.Addresses, ","), e.Err)
}

func (e *unreachableError) Unwrap() error { return e.Err }

// notFoundError names a topic or partition that the broker does not have.
type notFoundError struct {
	Topic     string
	Partition int32 // -1: the topic itself
}

func (e *notFoundError) Error() string {
	if e.Partition >= 0 {
		return fmt.Sprintf("topic %q has no partition %d", e.Topic, e.Partition)
	}
	return fmt.Sprintf("topic %q does not exist", e.Topic)
}

// exitError carries an exit code that another package has decided.
type exitError struct {
	Code int
	Err  error
}

func (e *exitError) Error() string { return e.Err.Error() }
func (e *exitError) Unwrap() error { return e.Err }

// explain returns what to tell a person about err, with what to do next where that is known, and the exit code.
func explain(err error) (message string, code int) {
	var (
		usage       *usageError
		unreachable *unreachableError
		missing     *notFoundError
		exit        *exitError
	)
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var messages []string
		for _, each := range many.Unwrap() {
			m, c := explain(each)
			messages = append(messages, m)
			if code == 0 || c == ExitFailed {
				code = c
			}
		}
		return strings.Join(messages, "\n"), code
	}
	switch {
	case errors.As(err, &exit):
		return exit.Error(), exit.Code
	case errors.As(err, &usage):
		return fmt.Sprintf("%s\nRun '%s --help' for flags and examples.", usage.Message, usage.Path), ExitUsage
	case errors.As(err, &unreachable):
		return fmt.Sprintf("no Kafka broker answers at %s: %s\nStart one with 'millrace serve', or name another with --bootstrap HOST:PORT or MILLRACE_BOOTSTRAP.",
			strings.Join(unreachable.Addresses, ","), plainCause(unreachable.Err)), ExitUnreachable
	case errors.As(err, &missing):
		hint := "See 'millrace topic list', or create it with 'millrace topic create " + missing.Topic + "'."
		if missing.Partition >= 0 {
			hint = "See 'millrace topic describe " + missing.Topic + "'."
		}
		return missing.Error() + "\n" + hint, ExitNotFound
	}
	return plainCause(err), ExitFailed
}

// plainCause says the reason of a failed connection or request in words instead of in layers of wrapping.
func plainCause(err error) string {
	var dns *net.DNSError
	var kafka *kerr.Error
	var hungUp *kgo.ErrFirstReadEOF
	switch {
	case errors.As(err, &hungUp):
		return "it closed the connection at once (is it a Kafka broker, without TLS and SASL?)"
	case errors.As(err, &dns):
		return fmt.Sprintf("the host name %q cannot be resolved", dns.Name)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused (nothing listens there)"
	case errors.Is(err, context.DeadlineExceeded), isTimeout(err), errors.Is(err, kgo.ErrRecordTimeout):
		return "no answer within the time given by --timeout"
	case errors.As(err, &kafka) && err.Error() == kafka.Error():
		return fmt.Sprintf("%s: %s", kafka.Message, kafka.Description)
	}
	return err.Error()
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// topicError turns a broker's answer about a topic into an error worth reading; note is the broker's own message, if any.
func topicError(topic string, err error, note string) error {
	if errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID) {
		return &notFoundError{Topic: topic, Partition: -1}
	}
	var kafka *kerr.Error
	if errors.As(err, &kafka) {
		if note == "" {
			note = kafka.Description
		}
		return fmt.Errorf("topic %q: %s: %s", topic, kafka.Message, strings.TrimSpace(note))
	}
	return fmt.Errorf("topic %q: %w", topic, err)
}
