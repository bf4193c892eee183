package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/config"
	"github.com/millrace/millrace/replication"
	"github.com/millrace/millrace/segment/vfs"
	"github.com/millrace/millrace/server"
)

// ErrUnclean says that requests in flight did not finish within the shutdown timeout. What was acknowledged is safe.
var ErrUnclean = errors.New("not every request finished within --shutdown-timeout; what was acknowledged is on the disk")

// Run runs the broker until a signal ends it: it parses, builds from the bottom up, plugs, opens, waits, and closes in the
// reverse order. A nil error is a clean end.
func Run(s Settings, stdout, stderr io.Writer, version string) error {
	begun := time.Now()
	logger, err := newLogger(stderr, s)
	if err != nil {
		return err
	}
	broker, err := configure(s, logger)
	if err != nil {
		return err
	}
	dataDir := strings.Join(broker.LogDirs, ", ")
	connections, logFiles := raiseLimits(logger)
	addProcessor(os.Getenv("GOMAXPROCS"))
	collectEarly(os.Getenv("GOGC"))
	ctx, stopSignals := untilSignal(logger)
	defer stopSignals()

	listeners, err := listen(broker.Listeners) // before the data is opened: a port in use should be said at once
	if err != nil {
		return err
	}
	defer closeAll(listeners)
	seen := newMetrics(version)
	node, err := openNode(broker, listeners, logger)
	if err != nil {
		return err
	}
	eng, err := engine.Open(ctx, engine.Options{
		FS: seen.disk(vfs.OS()), Config: broker, Now: time.Now, Logger: logger, OpenFiles: logFiles, Metrics: seen.engine(), Cluster: cluster(node),
	})
	if err != nil {
		return errors.Join(openError(dataDir, err), closeNode(node, s.ShutdownTimeout))
	}
	options := serverOptions(broker, connections, logger)
	options.Metrics = seen.server()
	srv, err := server.New(eng, options)
	if err != nil {
		return errors.Join(err, closeEngine(eng, s.ShutdownTimeout), closeNode(node, s.ShutdownTimeout))
	}
	var serving atomic.Bool
	ready := func() error {
		if !serving.Load() {
			return errors.New("starting or stopping")
		}
		return eng.Health()
	}
	seen.attach(eng, srv, ready)
	web, err := openHTTP(s.HTTP, logger, ready, seen.handler())
	if err != nil {
		return errors.Join(err, closeEngine(eng, s.ShutdownTimeout), closeNode(node, s.ShutdownTimeout))
	}
	doors := open(srv, listeners)
	if node != nil {
		if err := node.Serve(ctx); err != nil && ctx.Err() == nil {
			return errors.Join(err, shut(srv, doors, web, eng, node, s.ShutdownTimeout, logger))
		}
	}
	serving.Store(true)
	for _, l := range listeners {
		logger.Info("listening", "address", l.Addr().String(), "data", dataDir, "version", version, "ready_ms", time.Since(begun).Milliseconds())
	}
	greet(stdout, os.Args[0], version, listeners[0].Addr(), dataDir)

	failed := doors.wait(ctx)

	serving.Store(false)
	logger.Info("stopping", "timeout", s.ShutdownTimeout.String())
	return errors.Join(failed, shut(srv, doors, web, eng, node, s.ShutdownTimeout, logger))
}

// configure turns the settings into the broker's configuration and says what of it has no effect.
func configure(s Settings, logger *slog.Logger) (*config.Broker, error) {
	props, err := s.Properties()
	if err != nil {
		return nil, err
	}
	broker, warnings, err := config.ParseBroker(props)
	if err != nil {
		return nil, &ConfigError{err}
	}
	for _, w := range warnings {
		logger.Warn(w.String())
	}
	return broker, nil
}

// raiseLimits lets the process open as many files as the system allows, and returns how many of them clients may have, and how
// many the log may keep open.
func raiseLimits(logger *slog.Logger) (connections, logFiles int) {
	files, err := raiseFileLimit()
	if err != nil {
		logger.Warn("the limit of open files could not be raised", "error", err, "limit", files)
	}
	connections, logFiles = connectionBound(files), logFileBound(files)
	logger.Debug("limits", "open_files", files, "connections", connections, "log_files", logFiles)
	return connections, logFiles
}

// addProcessor has the scheduler run one goroutine more at a time than there are cores, unless GOMAXPROCS says how many: the
// one that writes the log is in a system call most of the time, and the scheduler is slow to notice that its core is free.
func addProcessor(asked string) {
	if asked == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1)
	}
}

// collectEarly has the collector run when the heap has grown by half, unless GOGC says when: most of what is live are pooled
// buffers that it need not look into, so this costs nothing that was measured, and saves a tenth of the memory.
func collectEarly(asked string) {
	if asked == "" {
		debug.SetGCPercent(50)
	}
}

// listen opens every listener, or none.
func listen(wanted []config.Listener) ([]net.Listener, error) {
	var open []net.Listener
	for _, w := range wanted {
		address := net.JoinHostPort(w.Host, strconv.Itoa(int(w.Port)))
		l, err := net.Listen(network(w.Host), address)
		if err != nil {
			closeAll(open)
			return nil, listenError(address, "--listen", err)
		}
		open = append(open, l)
	}
	if len(open) == 0 {
		return nil, &ConfigError{errors.New("listeners is empty")}
	}
	return open, nil
}

// network keeps an IPv4 address to IPv4: Go would listen on [::] for 0.0.0.0.
func network(host string) string {
	if ip := net.ParseIP(host); ip != nil && ip.To4() != nil {
		return "tcp4"
	}
	return "tcp"
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		l.Close() // closed by the server already when all went well
	}
}

func serverOptions(broker *config.Broker, connections int, logger *slog.Logger) server.Options {
	o := server.OptionsFor(broker)
	o.MaxConnections = connections
	o.Now, o.Logger = time.Now, logger
	return o
}

func openHTTP(address string, logger *slog.Logger, ready func() error, metrics http.Handler) (*httpServer, error) {
	if address == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, listenError(address, "--http", err)
	}
	logger.Info("serving health, metrics and profiles", "address", l.Addr().String())
	return startHTTP(l, ready, metrics), nil
}

// doors are the goroutines that accept clients.
type doors struct {
	accepting sync.WaitGroup
	failed    chan error // of the first listener that ended by itself
}

// open accepts clients on every listener, each in a goroutine that ends when the server is shut down.
func open(srv *server.Server, listeners []net.Listener) *doors {
	d := &doors{failed: make(chan error, len(listeners))}
	for _, l := range listeners {
		d.accepting.Go(func() {
			if err := srv.Serve(context.Background(), l); err != nil {
				d.failed <- fmt.Errorf("listener %s: %w", l.Addr(), err)
			}
		})
	}
	return d
}

// wait returns when the broker was told to end (nil), or when a listener failed.
func (d *doors) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-d.failed:
		return err
	}
}

// shut closes from the top down: no new clients, requests in flight finish, health last, then the log. The timeout bounds the
// requests; the log gets as much again to write down what makes the next start quick.
func shut(srv *server.Server, d *doors, web *httpServer, eng *engine.Engine, node *replication.Node, timeout time.Duration, logger *slog.Logger) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	leave(node, timeout, logger)
	var failed error
	if err := srv.Shutdown(ctx); err != nil {
		logger.Warn("clients were cut off", "error", err)
		failed = ErrUnclean
	}
	d.accepting.Wait()
	if web != nil {
		web.Close(ctx)
	}
	failed = errors.Join(failed, closeEngine(eng, timeout), closeNode(node, timeout))
	if failed == nil {
		logger.Info("stopped")
	}
	return failed
}

func closeEngine(eng *engine.Engine, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), max(timeout, time.Second))
	defer cancel()
	if err := eng.Close(ctx); err != nil {
		return fmt.Errorf("closing the log: %w", err)
	}
	return nil
}

// openError says why the data could not be opened, and what helps.
func openError(dir string, err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("told to end while opening %s", dir)
	case errors.Is(err, engine.ErrDirectoryInUse):
		return fmt.Errorf("another process has %s open; end it, or choose another directory with --data", dir)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("no permission for the data directory %s: %w", dir, err)
	}
	return fmt.Errorf("opening %s: %w", dir, err)
}
