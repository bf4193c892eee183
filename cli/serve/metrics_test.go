package serve

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/config"
	"github.com/millrace/millrace/segment/vfs"
	"github.com/millrace/millrace/server"
)

// startSeen runs a broker that is measured, on a free port, for the length of a test.
func startSeen(t *testing.T, seen *metrics) (address string, web http.Handler) {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	cfg, _, err := config.ParseBroker(map[string]string{"node.id": "1", "log.dirs": t.TempDir(), "group.initial.rebalance.delay.ms": "0"})
	if err != nil {
		t.Fatal(err)
	}
	eng, err := engine.Open(t.Context(), engine.Options{FS: seen.disk(vfs.OS()), Config: cfg, Now: time.Now, Logger: logger, Metrics: seen.engine()})
	if err != nil {
		t.Fatal(err)
	}
	options := serverOptions(cfg, 100, logger)
	options.Metrics = seen.server()
	srv, err := server.New(eng, options)
	if err != nil {
		t.Fatal(err)
	}
	ready := func() error { return eng.Fault() }
	seen.attach(eng, srv, ready)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
		if err := eng.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String(), httpHandler(ready, seen.handler())
}

// scrape reads /metrics as Prometheus does; text that does not parse fails the test.
func scrape(t *testing.T, web http.Handler) map[string]*dto.MetricFamily {
	t.Helper()
	w := httptest.NewRecorder()
	web.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("/metrics: %d %s", w.Code, w.Body)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(w.Body)
	if err != nil {
		t.Fatalf("/metrics does not parse: %v", err)
	}
	return families
}

// total adds up the series of a family that have all of the labels (name, value, …): values, or counts of histograms.
func total(f *dto.MetricFamily, labels ...string) (sum float64) {
	for _, m := range f.GetMetric() {
		have := map[string]string{}
		for _, l := range m.GetLabel() {
			have[l.GetName()] = l.GetValue()
		}
		match := true
		for i := 0; i+1 < len(labels); i += 2 {
			match = match && have[labels[i]] == labels[i+1]
		}
		if match {
			sum += m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

// TestMetricsOfALiveBroker sends real traffic and looks at what has moved.
func TestMetricsOfALiveBroker(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	address, web := startSeen(t, newMetrics("1.2.3"))

	idle := scrape(t, web)
	for _, name := range []string{"millrace_produced_records_total", "millrace_fetched_bytes_total", "millrace_committer_round_bytes", "millrace_errors_total"} {
		if n := total(idle[name]); n != 0 {
			t.Errorf("%s is %v before any traffic", name, n)
		}
	}

	const records, size = 500, 1000
	producer, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic("seen"), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	value := make([]byte, size)
	for range records / 100 {
		batch := make([]*kgo.Record, 100)
		for i := range batch {
			batch[i] = &kgo.Record{Value: value}
		}
		if err := producer.ProduceSync(ctx, batch...).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	consumer, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.ConsumeTopics("seen"), kgo.ConsumerGroup("readers"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Close()
	for got := 0; got < records; {
		fetches := consumer.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		got += fetches.NumRecords()
	}
	if err := consumer.CommitUncommittedOffsets(ctx); err != nil {
		t.Fatal(err)
	}

	// What a request takes is told after its answer, so the last one may be a moment late.
	atLeast := func(want float64, name string, labels ...string) {
		t.Helper()
		for {
			got := total(scrape(t, web)[name], labels...)
			if got >= want {
				return
			}
			if ctx.Err() != nil {
				t.Errorf("%s %v is %v, want %v or more", name, labels, got, want)
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
	for _, stage := range []string{"read", "validate", "queue", "write", "sync", "publish", "wait", "send"} {
		atLeast(records/100, "millrace_produce_stage_seconds", "stage", stage)
	}
	for _, stage := range []string{"wait", "read", "send"} {
		atLeast(1, "millrace_fetch_stage_seconds", "stage", stage)
	}
	for _, api := range []string{"Produce", "Fetch", "Metadata", "ApiVersions", "JoinGroup", "OffsetCommit"} {
		atLeast(1, "millrace_request_seconds", "api", api)
	}
	for _, op := range []string{"read", "write", "sync", "syncdir"} {
		atLeast(1, "millrace_disk_operation_seconds", "operation", op)
	}
	atLeast(1, "millrace_errors_total", "api", "JoinGroup", "code", "MEMBER_ID_REQUIRED") // how every member joins
	atLeast(1, "millrace_groups", "state", "Stable")
	for name, want := range map[string]float64{
		"millrace_ready": 1, "millrace_build_info": 1, "millrace_connections": 2, "millrace_connections_accepted_total": 2,
		"millrace_requests_total": 10, "millrace_network_received_bytes_total": records * size, "millrace_network_sent_bytes_total": records * size,
		"millrace_produced_records_total": records, "millrace_produced_bytes_total": records * size,
		"millrace_fetched_records_total": records, "millrace_fetched_bytes_total": records * size,
		"millrace_request_memory_limit_bytes": 1 << 20, "millrace_response_memory_limit_bytes": 1 << 20,
		"millrace_fetch_sessions": 1, "millrace_fetch_session_partitions": 1, "millrace_fetch_sessions_limit": 1,
		"millrace_topics": 2, "millrace_partitions": 51, "millrace_log_dir_partitions": 51,
		"millrace_catalog_proposal_seconds": 2, "millrace_committer_round_appends": records / 100, "millrace_committer_round_bytes": records / 100, "millrace_committer_round_segments": records / 100,
		"millrace_log_dir_free_bytes": 1, "millrace_log_dir_total_bytes": 1 << 20, "millrace_log_dir_queue_limit_bytes": 1 << 20, "millrace_log_dir_open_files_limit": 1,
		"process_cpu_seconds_total": 0, "go_goroutines": 3,
	} {
		atLeast(want, name)
	}
	now := scrape(t, web)
	for name, want := range map[string]float64{"millrace_produced_records_total": records, "millrace_log_dir_queue_bytes": 0, "millrace_log_dir_fenced": 0, "millrace_panics_total": 0, "millrace_disk_errors_total": 0} {
		if got := total(now[name]); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	compareWithDesign(t, now)
}

// compareWithDesign wants the metrics that are told to be those in the table of DESIGN.md.
func compareWithDesign(t *testing.T, told map[string]*dto.MetricFamily) {
	t.Helper()
	design, err := os.ReadFile("../../DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
	written := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(millrace_[a-z_]+)").FindAllSubmatch(design, -1) {
		written[string(m[1])] = true
	}
	for name := range written {
		if told[name] == nil {
			t.Errorf("%s is in DESIGN.md, and not told", name)
		}
	}
	for name, f := range told {
		if !strings.HasPrefix(name, "millrace_") {
			continue
		}
		if !written[name] {
			t.Errorf("%s is told, and not in DESIGN.md", name)
		}
		if len(f.GetHelp()) < 10 {
			t.Errorf("%s has no help", name)
		}
		if counter := f.GetType() == dto.MetricType_COUNTER; counter != strings.HasSuffix(name, "_total") {
			t.Errorf("%s is a %s", name, f.GetType())
		}
	}
}

// TestMetricsOfADiskThatFails counts what a disk refuses.
func TestMetricsOfADiskThatFails(t *testing.T) {
	seen := newMetrics("test")
	fs := vfs.NewFaulty(vfs.OS())
	disk := seen.disk(fs)
	fs.Inject(vfs.Fault{Op: vfs.OpSync})
	f, err := disk.OpenFile(t.TempDir()+"/x", vfs.Create|vfs.ReadWrite, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Sync() == nil {
		t.Fatal("no fault")
	}
	told := scrape(t, httpHandler(func() error { return nil }, seen.handler()))
	if n := total(told["millrace_disk_errors_total"], "operation", "sync"); n != 1 {
		t.Errorf("%v errors of sync", n)
	}
}

// TestMetricsBeforeTheBrokerIsOpen is a scrape that comes early.
func TestMetricsBeforeTheBrokerIsOpen(t *testing.T) {
	told := scrape(t, httpHandler(func() error { return nil }, newMetrics("test").handler()))
	if told["go_goroutines"] == nil || told["millrace_topics"] != nil {
		t.Error("an early scrape tells the wrong things")
	}
}

// BenchmarkMetricsOfAProduce is what measuring adds to one produce request with one batch that is alone in its round: the worst case.
func BenchmarkMetricsOfAProduce(b *testing.B) {
	m := newMetrics("test")
	e, s := m.engine(), m.server()
	request := s.Request("Produce")
	b.ReportAllocs()
	for b.Loop() {
		begun := m.clock()
		for _, o := range []engine.Observer{
			s.ProduceRead, e.ValidateSeconds, e.Log.QueueSeconds, e.Log.WriteSeconds, e.Log.SyncSeconds, e.Log.PublishSeconds, s.ProduceWait, s.ProduceSend, request,
		} {
			o.Observe((m.clock() - begun).Seconds())
		}
		for range 4 {
			m.clock() // the other ends of the stages
		}
		e.Log.RoundAppends.Observe(1)
		e.Log.RoundBytes.Observe(1024)
		e.Log.RoundFiles.Observe(1)
	}
}
