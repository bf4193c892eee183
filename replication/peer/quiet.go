package peer

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// quiet tells each thing once a minute, however often it happens.
type quiet struct {
	log *slog.Logger
	now func() time.Time

	mu   sync.Mutex // guards last; never held across a call
	last map[string]time.Time
}

const (
	toldAgain = time.Minute
	mostTold  = 256 // things that are remembered; while there are more, they are not told
)

// say tells of what happened; key is what makes it the same thing.
func (q *quiet) say(level slog.Level, key, message string, args ...any) {
	if !q.again(key) {
		q.log.Log(context.Background(), level, message, args...)
	}
}

func (q *quiet) again(key string) bool {
	now := q.now()
	q.mu.Lock()
	defer q.mu.Unlock()
	if at, told := q.last[key]; told && now.Sub(at) < toldAgain {
		return true
	}
	if len(q.last) >= mostTold {
		for k, at := range q.last {
			if now.Sub(at) >= toldAgain {
				delete(q.last, k)
			}
		}
		if len(q.last) >= mostTold {
			return true
		}
	}
	q.last[key] = now
	return false
}
