package server

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// rateLog logs the first of each kind of event and then at most one per interval,
// with the number of those left out, so that a hostile client cannot fill the
// disk with log lines.
type rateLog struct {
	log      *slog.Logger
	now      func() time.Time
	interval time.Duration

	mu    sync.Mutex
	kinds map[string]*rateKind // one per message; messages are constants
}

type rateKind struct {
	next    time.Time
	omitted int
}

func (r *rateLog) warn(message string, attrs ...slog.Attr) {
	r.mu.Lock()
	k := r.kinds[message]
	if k == nil {
		k = &rateKind{}
		r.kinds[message] = k
	}
	now := r.now()
	if now.Before(k.next) {
		k.omitted++
		r.mu.Unlock()
		return
	}
	omitted := k.omitted
	k.omitted, k.next = 0, now.Add(r.interval)
	r.mu.Unlock()
	if omitted > 0 {
		attrs = append(attrs, slog.Int("similar", omitted))
	}
	r.log.LogAttrs(context.Background(), slog.LevelWarn, message, attrs...)
}
