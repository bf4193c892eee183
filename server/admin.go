package server

import (
	"context"
	"errors"
	"time"

	"github.com/millrace/millrace/engine"
)

// within bounds a request that changes the catalogue by the time its client gives it.
// A client that gives none has its request timed out at once, as with Kafka.
func within(ctx context.Context, timeoutMillis int32) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, time.Duration(max(timeoutMillis, 0))*time.Millisecond)
}

// adminError is the code and the words for an error of the administration of
// topics and configs. Other rooms' errors have a code only.
func adminError(err error) (code int16, message *string) {
	var refused *engine.AdminError
	if errors.As(err, &refused) && refused.Message != "" {
		message = &refused.Message
	}
	return errorCode(err), message
}
