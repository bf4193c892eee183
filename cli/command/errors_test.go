package command

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
)

func TestExplain(t *testing.T) {
	tests := []struct {
		name string
		err  error
		code int
		want string
	}{
		{"usage", usagef("millrace topic create", "which topic?"), ExitUsage, "Run 'millrace topic create --help'"},
		{"refused", &unreachableError{[]string{"h:1"}, fmt.Errorf("dial: %w", syscall.ECONNREFUSED)}, ExitUnreachable, "no Kafka broker answers at h:1: connection refused"},
		{"silent", &unreachableError{[]string{"h:1"}, context.DeadlineExceeded}, ExitUnreachable, "no answer within the time"},
		{"unknown topic", topicError("demo", kerr.UnknownTopicOrPartition, ""), ExitNotFound, "millrace topic create demo"},
		{"unknown partition", &notFoundError{"demo", 7}, ExitNotFound, `topic "demo" has no partition 7`},
		{"broker's own words", topicError("demo", kerr.InvalidConfig, "no such key"), ExitFailed, `topic "demo": INVALID_CONFIG: no such key`},
		{"kafka error alone", kerr.PolicyViolation, ExitFailed, "POLICY_VIOLATION: "},
		{"two missing", errors.Join(&notFoundError{"a", -1}, &notFoundError{"b", -1}), ExitNotFound, `topic "b" does not exist`},
		{"missing and failed", errors.Join(&notFoundError{"a", -1}, errors.New("x")), ExitFailed, "x"},
		{"other", errors.New("boom"), ExitFailed, "boom"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			message, code := explain(tt.err)
			if code != tt.code || !strings.Contains(message, tt.want) {
				t.Errorf("got %d, %q; want %d with %q", code, message, tt.code, tt.want)
			}
		})
	}
}
