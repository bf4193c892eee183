package controller

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// logger hands what raft says to slog, a level lower: what matters of it (who leads, who has gone) the controller
// says itself. Raft repeats itself several times a second while a peer is gone; each message is told once a minute, and
// in between as debugging.
type logger struct {
	hclog.Logger // does nothing
	log          *slog.Logger
	said         *sayings
}

type sayings struct {
	now func() time.Time

	mu   sync.Mutex // guards last; never held across a call
	last map[string]time.Time
}

// mostSayings bounds what is remembered; raft has fewer messages.
const mostSayings = 512

const saidAgain = time.Minute

func newLogger(to *slog.Logger, now func() time.Time) hclog.Logger {
	return &logger{Logger: hclog.NewNullLogger(), log: to.With("from", "raft"), said: &sayings{now: now, last: map[string]time.Time{}}}
}

// again tells whether a message has been told within the last minute.
func (s *sayings) again(msg string) bool {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, said := s.last[msg]; said && now.Sub(at) < saidAgain || len(s.last) >= mostSayings {
		return true
	}
	s.last[msg] = now
	return false
}

// usual are warnings of what is nothing to worry about.
var usual = map[string]bool{
	"failed to get previous log": true, // a follower that is asked for what is on its way, or that catches up
}

// Log maps the level and hands the message on.
func (l *logger) Log(level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	switch {
	case level >= hclog.Error:
		to = slog.LevelWarn
	case level == hclog.Warn:
		to = slog.LevelInfo
	}
	if to > slog.LevelDebug && (usual[msg] || l.said.again(msg)) {
		to = slog.LevelDebug
	}
	if !l.log.Enabled(context.Background(), to) {
		return
	}
	for i, arg := range args {
		if f, ok := arg.(hclog.Format); ok && len(f) > 0 {
			args[i] = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
	}
	l.log.Log(context.Background(), to, msg, args...)
}

// Trace is debugging.
func (l *logger) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }

// Debug is debugging.
func (l *logger) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }

// Info is debugging.
func (l *logger) Info(msg string, args ...any) { l.Log(hclog.Info, msg, args...) }

// Warn is information.
func (l *logger) Warn(msg string, args ...any) { l.Log(hclog.Warn, msg, args...) }

// Error is a warning.
func (l *logger) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

// IsDebug tells whether debugging is written.
func (l *logger) IsDebug() bool { return l.log.Enabled(context.Background(), slog.LevelDebug) }

// With gives every message more to say.
func (l *logger) With(args ...any) hclog.Logger {
	return &logger{Logger: l.Logger, log: l.log.With(args...), said: l.said}
}

// Named is itself: there is one raft.
func (l *logger) Named(string) hclog.Logger { return l }

// ResetNamed is itself.
func (l *logger) ResetNamed(string) hclog.Logger { return l }

// StandardLogger is for libraries that raft does not use.
func (l *logger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return log.New(io.Discard, "", 0)
}
