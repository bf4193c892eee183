package serve

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"
)

// httpServer serves health, metrics and profiles to operators. It is off unless --http names an address.
type httpServer struct {
	server *http.Server
	done   chan struct{} // closed when the serving goroutine has ended
}

// startHTTP serves on l until Close. ready returns why the broker cannot serve clients, or nil.
func startHTTP(l net.Listener, ready func() error, metrics http.Handler) *httpServer {
	h := &httpServer{
		server: &http.Server{Handler: httpHandler(ready, metrics), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10},
		done:   make(chan struct{}),
	}
	go func() { // ends at Close
		defer close(h.done)
		h.server.Serve(l) // its error is http.ErrServerClosed, or the listener's, which health checks notice
	}()
	return h
}

func httpHandler(ready func() error, metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) { answerReady(w, r, ready()) })
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// Close ends the listener and waits for answers under way until ctx ends.
func (h *httpServer) Close(ctx context.Context) {
	if err := h.server.Shutdown(ctx); err != nil {
		h.server.Close()
	}
	<-h.done
}
