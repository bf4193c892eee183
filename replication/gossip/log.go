package gossip

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// sayings hands what memberlist says to slog, a level lower, each thing once a minute and in between as debugging: what it says are hints.
type sayings struct {
	log *slog.Logger
	now func() time.Time

	mu   sync.Mutex // guards last; never held across a call
	last map[string]time.Time
}

const (
	saidAgain   = time.Minute
	mostSayings = 256
)

// Write takes one line, as log.Logger writes them: "[WARN] memberlist: text".
func (s *sayings) Write(line []byte) (int, error) {
	label, text, found := strings.Cut(strings.TrimSpace(string(line)), "] ")
	if !found {
		label, text = "", label
	}
	text = strings.TrimPrefix(text, "memberlist: ")
	level := slog.LevelDebug
	switch strings.TrimPrefix(label, "[") {
	case "ERR", "ERROR":
		level = slog.LevelWarn
	case "WARN":
		level = slog.LevelInfo
	}
	s.say(level, kindOf(text), text)
	return len(line), nil
}

// say tells a thing, or as debugging when it was told within the last minute.
func (s *sayings) say(level slog.Level, kind, text string, args ...any) {
	if level > slog.LevelDebug && s.again(kind) {
		level = slog.LevelDebug
	}
	s.log.Log(context.Background(), level, text, args...)
}

// kindOf is a message without what differs from one time to the next.
func kindOf(text string) string {
	if at := strings.IndexAny(text, "0123456789'\"(:="); at >= 0 {
		return text[:at]
	}
	return text
}

func (s *sayings) again(kind string) bool {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, said := s.last[kind]; said && now.Sub(at) < saidAgain {
		return true
	}
	if len(s.last) >= mostSayings {
		clear(s.last)
	}
	s.last[kind] = now
	return false
}
