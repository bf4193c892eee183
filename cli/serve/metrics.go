package serve

import (
	"context"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/segment/vfs"
	"github.com/millrace/millrace/server"
)

// metrics is what /metrics tells. The rooms below declare what they measure and know nothing of Prometheus: what happens is told to
// histograms as it happens; what can be read at any moment is read when it is scraped (gauges.go).
type metrics struct {
	registry *prometheus.Registry
	clock    func() time.Duration
	sources  atomic.Pointer[sources] // nil until attach
}

// sources is where gauges and counters are read.
type sources struct {
	engine *engine.Engine
	server *server.Server
	ready  func() error
}

// Boundaries of histograms.
var (
	stageBuckets   = []float64{10e-6, 20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, .1, .2, .5, 1, 2, 5, 10, 30}
	requestBuckets = []float64{100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, .1, .2, .5, 1, 2, 5, 10, 30}
	countBuckets   = prometheus.ExponentialBuckets(1, 2, 11)
	bytesBuckets   = prometheus.ExponentialBuckets(256, 4, 10)
)

// newMetrics makes the registry, with the process and the Go runtime in it.
func newMetrics(version string) *metrics {
	begun := time.Now()
	m := &metrics{registry: prometheus.NewRegistry(), clock: func() time.Duration { return time.Since(begun) }}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), m)
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "millrace_build_info", Help: "Always 1; the labels say what is running.",
	}, []string{"version", "go_version"})
	build.WithLabelValues(version, runtime.Version()).Set(1)
	m.registry.MustRegister(build)
	return m
}

// attach lets scrapes read from a broker that is open.
func (m *metrics) attach(eng *engine.Engine, srv *server.Server, ready func() error) {
	m.sources.Store(&sources{eng, srv, ready})
}

// handler answers /metrics, a few scrapes at a time; what can be told is told even when something cannot.
func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
}

// disk measures the operations of a file system that a log waits for.
func (m *metrics) disk(fs vfs.FS) vfs.FS {
	seconds := m.histograms("millrace_disk_operation_seconds", "Seconds that one file operation of the log took. A slow sync is the disk; a slow write is the kernel holding back because the disk does not keep up.",
		"operation", stageBuckets)
	failed := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "millrace_disk_errors_total", Help: "File operations of the log that failed. Any that is not a full disk fences the directory until a restart; see the log for file and cause.",
	}, []string{"operation"})
	m.registry.MustRegister(failed)
	for _, op := range []vfs.Op{vfs.OpRead, vfs.OpWrite, vfs.OpSync, vfs.OpSyncDir} {
		failed.WithLabelValues(op.String()) // so that it is there with 0
	}
	return vfs.Timed(fs, &vfs.Times{
		Clock: m.clock, Read: seconds("read"), Write: seconds("write"), Sync: seconds("sync"), SyncDir: seconds("syncdir"),
		Failed: func(op vfs.Op) { failed.WithLabelValues(op.String()).Inc() },
	})
}

const (
	produceHelp = "Seconds of each stage of producing, in this order: read (a request arrives), validate (a batch is checked), queue (a batch waits for the committer), " +
		"write, sync and publish (a round of the committer: to the kernel, to the disk, to readers), wait (an answer waits for earlier ones, or for a free core), send (answers go to the socket)."
	fetchHelp = "Seconds of each stage of fetching, in this order: wait (for fetch.min.bytes; long and harmless at the end of a log), read (records from the log, checked), send (to the socket)."
)

// engine says what the engine and the log measure.
func (m *metrics) engine() engine.Metrics {
	stage := m.histograms("millrace_produce_stage_seconds", produceHelp, "stage", stageBuckets)
	e := engine.Metrics{Clock: m.clock, ValidateSeconds: stage("validate")}
	e.Log.Clock = m.clock
	e.Log.QueueSeconds, e.Log.WriteSeconds, e.Log.SyncSeconds, e.Log.PublishSeconds = stage("queue"), stage("write"), stage("sync"), stage("publish")
	e.Log.RoundAppends = m.histogram("millrace_committer_round_appends", "Batches that the committer took in one round; the count is the number of rounds. Around 1 means that nothing is shared: one sync for each batch.", countBuckets)
	e.Log.RoundBytes = m.histogram("millrace_committer_round_bytes", "Bytes that the committer wrote in one round.", bytesBuckets)
	e.Log.RoundFiles = m.histogram("millrace_committer_round_segments", "Segment files that the committer wrote and synced in one round.", countBuckets)
	e.Catalog.Clock = m.clock
	e.Catalog.ProposalSeconds = m.histogram("millrace_catalog_proposal_seconds", "Seconds that one change of the catalogue took (topics, configurations, producer ids), waiting for earlier ones included.", requestBuckets)
	return e
}

// server says what the server measures. It goes with engine, whose stages it continues.
func (m *metrics) server() server.Metrics {
	produce := m.histograms("millrace_produce_stage_seconds", produceHelp, "stage", stageBuckets)
	fetch := m.histograms("millrace_fetch_stage_seconds", fetchHelp, "stage", stageBuckets)
	request := m.histograms("millrace_request_seconds", "Seconds from the last byte of a request until its answer was with the kernel. Fetch, JoinGroup and SyncGroup wait on purpose. An API that nobody has called is not here.",
		"api", requestBuckets)
	failed := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "millrace_errors_total", Help: "Error codes in responses, by Kafka's names of them; one response may carry several, one for each topic or partition.",
	}, []string{"api", "code"})
	m.registry.MustRegister(failed)
	return server.Metrics{
		Clock:       m.clock,
		ProduceRead: produce("read"), ProduceWait: produce("wait"), ProduceSend: produce("send"),
		FetchWait: fetch("wait"), FetchRead: fetch("read"), FetchSend: fetch("send"),
		Request: func(api string) server.Observer {
			return &lazyObserver{make: func() prometheus.Observer { return request(api) }}
		},
		Failed: func(api, code string, n int) { failed.WithLabelValues(api, code).Add(float64(n)) },
	}
}

func (m *metrics) histogram(name, help string, buckets []float64) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	m.registry.MustRegister(h)
	return h
}

// histograms registers a histogram with one label, unless it is there already, and returns what makes or finds its children.
func (m *metrics) histograms(name, help, label string, buckets []float64) func(value string) prometheus.Observer {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, []string{label})
	if err := m.registry.Register(v); err != nil {
		v = err.(prometheus.AlreadyRegisteredError).ExistingCollector.(*prometheus.HistogramVec) // anything else is a mistake in this file
	}
	return func(value string) prometheus.Observer { return v.WithLabelValues(value) }
}

// lazyObserver makes its series with the first measurement.
type lazyObserver struct {
	once sync.Once
	make func() prometheus.Observer
	to   prometheus.Observer
}

// Observe takes one measurement.
func (o *lazyObserver) Observe(v float64) {
	o.once.Do(func() { o.to = o.make() })
	o.to.Observe(v)
}

// spaceTimeout bounds how long a scrape waits for the file system to tell its free space.
const spaceTimeout = time.Second

// Describe lists what Collect may tell.
func (m *metrics) Describe(descriptions chan<- *prometheus.Desc) {
	for i := range readings {
		descriptions <- readings[i].desc
	}
}

// Collect reads everything that is read at a scrape.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	src := m.sources.Load()
	if src == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), spaceTimeout)
	defer cancel()
	s := &snapshot{engine: src.engine.Stats(ctx), server: src.server.Stats(), ready: src.ready()}
	for i := range readings {
		r := &readings[i]
		r.read(s, func(value float64, labels ...string) {
			out <- prometheus.MustNewConstMetric(r.desc, r.kind, value, labels...)
		})
	}
}
