package serve

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestWatchSignals(t *testing.T) {
	tests := []struct {
		name  string
		after []time.Duration // when each signal comes
		want  []string
	}{
		{"none", nil, nil},
		{"one", []time.Duration{0}, []string{"first terminated"}},
		{"a process and its group", []time.Duration{0, time.Millisecond}, []string{"first terminated"}},
		{"twice", []time.Duration{0, time.Second}, []string{"first terminated", "second terminated"}},
		{"group, then again", []time.Duration{0, time.Millisecond, oneSignal}, []string{"first terminated", "second terminated"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			signals := make(chan os.Signal, len(tt.after))
			for range tt.after {
				signals <- syscall.SIGTERM
			}
			close(signals)
			var got []string
			n := 0
			now := func() time.Time { n++; return time.Unix(1, 0).Add(tt.after[n-1]) }
			note := func(which string) func(os.Signal) {
				return func(s os.Signal) { got = append(got, which+" "+s.String()) }
			}
			watchSignals(signals, now, note("first"), note("second"))
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if got := exitCode(syscall.SIGINT); got != 130 {
		t.Errorf("SIGINT: exit code %d", got)
	}
	if got := exitCode(syscall.SIGTERM); got != 143 {
		t.Errorf("SIGTERM: exit code %d", got)
	}
}

func TestListenError(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{syscall.EADDRINUSE, "is in use by another program"},
		{syscall.EADDRNOTAVAIL, "is not an address of this machine"},
		{syscall.EACCES, "choose a port above 1023"},
		{errors.New("boom"), "cannot listen on h:1: "},
	} {
		if got := listenError("h:1", "--listen", fmt.Errorf("listen: %w", tt.err)).Error(); !strings.Contains(got, tt.want) {
			t.Errorf("%v: %q, want %q", tt.err, got, tt.want)
		}
	}
}
