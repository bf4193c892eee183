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
	first := func(s os.Signal) {
		logger.Info("told to end; a second signal ends at once", "signal", s.String())
		cancel()
	}
	second := func(s os.Signal) { os.Exit(exitCode(s)) }
	go watchSignals(signals, time.Now, first, second)
	return ctx, func() { signal.Stop(signals); close(signals); cancel() }
}

// watchSignals calls first at the first signal and second at a later one that does not belong to it. It ends when signals is closed.
func watchSignals(signals <-chan os.Signal, now func() time.Time, first, second func(os.Signal)) {
	var begun time.Time
	for s := range signals {
		switch {
		case begun.IsZero():
			begun = now()
			first(s)
		case now().Sub(begun) >= oneSignal:
			second(s)
		}
	}
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
