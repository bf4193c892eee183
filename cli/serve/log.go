package serve

import (
	"fmt"
	"io"
	"log/slog"
)

// newLogger logs to w as the settings say.
func newLogger(w io.Writer, s Settings) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(s.LogLevel)); err != nil {
		return nil, &ConfigError{fmt.Errorf("--log-level %q is not one of debug, info, warn, error", s.LogLevel)}
	}
	opts := &slog.HandlerOptions{Level: level}
	switch s.LogFormat {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, &ConfigError{fmt.Errorf("--log-format %q is not one of text, json", s.LogFormat)}
}
