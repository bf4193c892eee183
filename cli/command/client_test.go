package command

import (
	"net"
	"strings"
	"testing"
	"time"
)

// TestSilentBroker dials something that accepts and never answers: the command must end at --timeout, with 3.
func TestSilentBroker(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for _, command := range []string{"topic list", "topic create x", "consume x", "produce x", "bench create"} {
		t.Run(command, func(t *testing.T) {
			var out, errs strings.Builder
			begun := time.Now()
			args := append([]string{"millrace"}, strings.Fields(command)...)
			code := Main(append(args, "--bootstrap", l.Addr().String(), "--timeout", "200ms"), Streams{In: strings.NewReader(""), Out: &out, Err: &errs}, Build{})
			if code != ExitUnreachable || !strings.Contains(errs.String(), "no answer within the time given by --timeout") {
				t.Errorf("code %d, %s", code, errs.String())
			}
			if took := time.Since(begun); took > 5*time.Second {
				t.Errorf("gave up after %v", took)
			}
		})
	}
}

func TestSoftwareVersion(t *testing.T) {
	for in, want := range map[string]string{"0.1.0-dev": "0.1.0-dev", "v1 (x)": "v1--x", "": "unknown", "..": "unknown"} {
		if got := softwareVersion(in); got != want {
			t.Errorf("softwareVersion(%q) = %q, want %q", in, got, want)
		}
	}
}
