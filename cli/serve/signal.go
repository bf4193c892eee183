package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// oneSignal is how close together two signals count as one: tools such as timeout(1) signal a process and then its group.
const oneSignal = 100 * time.Millisecond

// untilSignal returns a context that ends with the first SIGTERM or SIGINT. A second one ends the process at once, with the exit
// code that shells use for a signal: 130 or 143. What was acknowledged is on the disk in any case.
func untilSignal(logger *slog.Logger) (ctx context.Context, stop func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // ends at stop
		var first time.Time
		for {
			select {
			case got := <-signals:
				if !first.IsZero() {
					if time.Since(first) < oneSignal {
						continue
					}
					os.Exit(exitCode(got))
				}
				first = time.Now()
				logger.Info("told to end; a second signal ends at once", "signal", got.String())
				cancel()
			case <-done:
				return
			}
		}
	}()
	return ctx, func() { signal.Stop(signals); close(done); cancel() }
}

func exitCode(s os.Signal) int {
	if n, ok := s.(syscall.Signal); ok {
		return 128 + int(n)
	}
	return 1
}

// listenError says why an address cannot be listened on, and what helps.
func listenError(address, flag string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s is in use by another program; end it, or choose another address with %s HOST:PORT", address, flag)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s is not an address of this machine; choose another with %s HOST:PORT", address, flag)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("no permission to listen on %s; choose a port above 1023 with %s HOST:PORT", address, flag)
	}
	return fmt.Errorf("cannot listen on %s: %w", address, err)
}
