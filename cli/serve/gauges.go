package serve

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/server"
)

// snapshot is what one scrape has read.
type snapshot struct {
	engine engine.Stats
	server server.Stats
	ready  error
}

// reading is one metric that is read when it is scraped.
type reading struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(s *snapshot, tell func(value float64, labels ...string))
}

func gauge(name, help string, value func(s *snapshot) float64) reading {
	return reading{prometheus.NewDesc(name, help, nil, nil), prometheus.GaugeValue, func(s *snapshot, tell func(float64, ...string)) { tell(value(s)) }}
}

func counter(name, help string, value func(s *snapshot) int64) reading {
	return reading{prometheus.NewDesc(name, help, nil, nil), prometheus.CounterValue, func(s *snapshot, tell func(float64, ...string)) { tell(float64(value(s))) }}
}

// perDir is a gauge of each log directory; a negative value is not told.
func perDir(name, help string, value func(d *engine.DirStats) float64) reading {
	return reading{prometheus.NewDesc(name, help, []string{"dir"}, nil), prometheus.GaugeValue, func(s *snapshot, tell func(float64, ...string)) {
		for i := range s.engine.Dirs {
			if v := value(&s.engine.Dirs[i]); v >= 0 {
				tell(v, s.engine.Dirs[i].Path)
			}
		}
	}}
}

// perDirCounter is a counter of each log directory.
func perDirCounter(name, help string, value func(d *engine.DirStats) int64) reading {
	return reading{prometheus.NewDesc(name, help, []string{"dir"}, nil), prometheus.CounterValue, func(s *snapshot, tell func(float64, ...string)) {
		for i := range s.engine.Dirs {
			tell(float64(value(&s.engine.Dirs[i])), s.engine.Dirs[i].Path)
		}
	}}
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// readings is everything that is read at a scrape. Each costs nothing until then.
var readings = []reading{
	gauge("millrace_ready", "1 while the broker serves clients, as /readyz says; /readyz has the reason when it is 0.", func(s *snapshot) float64 { return boolean(s.ready == nil) }),

	gauge("millrace_connections", "Client connections that are open.", func(s *snapshot) float64 { return float64(s.server.Connections) }),
	counter("millrace_connections_accepted_total", "Client connections that were taken.", func(s *snapshot) int64 { return s.server.Accepted }),
	counter("millrace_connections_refused_total", "Client connections that were closed at once: max.connections, max.connections.per.ip, the limit of open files, or a shutdown.", func(s *snapshot) int64 { return s.server.Refused }),
	counter("millrace_connections_malformed_total", "Client connections that were closed because of what they sent.", func(s *snapshot) int64 { return s.server.Malformed }),
	counter("millrace_requests_total", "Requests that were read.", func(s *snapshot) int64 { return s.server.Requests }),
	counter("millrace_panics_total", "Requests whose handler panicked; each is a bug, with its stack in the log.", func(s *snapshot) int64 { return s.server.Panics }),
	counter("millrace_network_received_bytes_total", "Bytes of the requests that were read.", func(s *snapshot) int64 { return s.server.ReceivedBytes }),
	counter("millrace_network_sent_bytes_total", "Bytes of responses that the kernel has taken.", func(s *snapshot) int64 { return s.server.SentBytes }),

	counter("millrace_produced_records_total", "Records from clients that are on the disk; duplicates of idempotent producers are left out.", func(s *snapshot) int64 { return s.engine.ProducedRecords }),
	counter("millrace_produced_bytes_total", "Bytes of the batches of those records, as they are stored.", func(s *snapshot) int64 { return s.engine.ProducedBytes }),
	counter("millrace_fetched_records_total", "Records in responses to fetches; a batch counts whole even if the client asked for its middle.", func(s *snapshot) int64 { return s.server.FetchedRecords }),
	counter("millrace_fetched_bytes_total", "Bytes of the batches of those records.", func(s *snapshot) int64 { return s.server.FetchedBytes }),

	gauge("millrace_request_memory_bytes", "Memory of requests that are being read or worked on. At its limit, readers wait for up to 30 s, then close their connections.", func(s *snapshot) float64 { return float64(s.server.RequestMemory.Used) }),
	gauge("millrace_request_memory_limit_bytes", "The limit of that: queued.max.request.bytes.", func(s *snapshot) float64 { return float64(s.server.RequestMemory.Bound) }),
	gauge("millrace_response_memory_bytes", "Memory of records on their way to consumers. At its limit, fetches wait.", func(s *snapshot) float64 { return float64(s.server.ResponseMemory.Used) }),
	gauge("millrace_response_memory_limit_bytes", "The limit of that.", func(s *snapshot) float64 { return float64(s.server.ResponseMemory.Bound) }),
	gauge("millrace_fetch_sessions", "Fetch sessions (KIP-227).", func(s *snapshot) float64 { return float64(s.server.FetchSessions) }),
	gauge("millrace_fetch_sessions_limit", "The limit of that: max.incremental.fetch.session.cache.slots. Beyond it consumers send whole requests.", func(s *snapshot) float64 { return float64(s.server.SessionsBound) }),
	gauge("millrace_fetch_session_partitions", "Partitions that the fetch sessions remember.", func(s *snapshot) float64 { return float64(s.server.SessionPartitions) }),

	gauge("millrace_topics", "Topics, internal ones included.", func(s *snapshot) float64 { return float64(s.engine.Topics) }),
	gauge("millrace_partitions", "Partitions of all topics.", func(s *snapshot) float64 { return float64(s.engine.Partitions) }),
	gauge("millrace_partitions_led", "Partitions that this node leads.", func(s *snapshot) float64 { return float64(s.engine.Led) }),
	gauge("millrace_partitions_under_replicated", "Partitions that this node leads and of which a replica is not in sync.", func(s *snapshot) float64 { return float64(s.engine.UnderReplicated) }),
	gauge("millrace_partitions_below_minimum", "Partitions that this node leads and of which fewer replicas are in sync than min.insync.replicas: acks=all is refused.", func(s *snapshot) float64 { return float64(s.engine.BelowMinimum) }),
	gauge("millrace_partitions_without_leader", "Partitions of the whole cluster that nobody leads.", func(s *snapshot) float64 { return float64(s.engine.Leaderless) }),
	gauge("millrace_brokers", "Brokers that have registered; 0 on a node that is alone.", func(s *snapshot) float64 { return float64(s.engine.Brokers) }),
	gauge("millrace_brokers_fenced", "Those of them that count as dead.", func(s *snapshot) float64 { return float64(s.engine.Fenced) }),
	{
		prometheus.NewDesc("millrace_groups", "Consumer groups by state. PreparingRebalance for long means that members do not come back.", []string{"state"}, nil),
		prometheus.GaugeValue,
		func(s *snapshot, tell func(float64, ...string)) {
			for state, n := range s.engine.Groups.ByState {
				tell(float64(n), state.String())
			}
		},
	},
	gauge("millrace_groups_loading_partitions", "Partitions of __consumer_offsets that are still being loaded; their groups get COORDINATOR_LOAD_IN_PROGRESS.", func(s *snapshot) float64 { return float64(s.engine.Groups.Loading) }),
	gauge("millrace_groups_pending_bytes", "Bytes of group state and committed offsets on their way to the log.", func(s *snapshot) float64 { return float64(s.engine.GroupPendingBytes) }),

	perDir("millrace_log_dir_fenced", "1 when an error of the disk has fenced the directory: appends get KAFKA_STORAGE_ERROR until a restart.", func(d *engine.DirStats) float64 { return boolean(d.Err != nil && !d.Stalled) }),
	perDir("millrace_log_dir_direct_io", "1 when the log is written past the page cache, 0 when through it.", func(d *engine.DirStats) float64 { return boolean(d.Direct) }),
	perDir("millrace_log_dir_stalled", "1 while the directory's disk does not answer: appends get KAFKA_STORAGE_ERROR until it does; /readyz names the operation and the file.", func(d *engine.DirStats) float64 { return boolean(d.Stalled) }),
	perDirCounter("millrace_log_dir_stalls_total", "How often that has begun.", func(d *engine.DirStats) int64 { return d.Stalls }),
	perDirCounter("millrace_log_dir_direct_bytes_total", "Bytes of records that went straight into their segments.", func(d *engine.DirStats) int64 { return d.DirectBytes }),
	perDirCounter("millrace_log_dir_journaled_bytes_total", "Bytes of records that went through the journal.", func(d *engine.DirStats) int64 { return d.JournaledBytes }),
	perDirCounter("millrace_log_dir_flushes_total", "Flushes of the journal into the segments.", func(d *engine.DirStats) int64 { return d.Flushes }),
	perDir("millrace_log_dir_journal_bytes", "The part of the journal that is not in the segments yet.", func(d *engine.DirStats) float64 { return float64(d.JournalBytes) }),
	perDir("millrace_log_dir_journal_limit_bytes", "The limit of that. At it appends wait for a flush.", func(d *engine.DirStats) float64 { return float64(d.JournalBound) }),
	perDir("millrace_log_dir_tail_bytes", "The newest records, which are read from memory.", func(d *engine.DirStats) float64 { return float64(d.TailBytes) }),
	perDir("millrace_log_dir_tail_limit_bytes", "The limit of that: log.tail.bytes. What is on its way to the disk comes on top.", func(d *engine.DirStats) float64 { return float64(d.TailBound) }),
	perDir("millrace_log_dir_free_bytes", "Room left on the directory's file system. Missing when the file system does not answer within a second.", func(d *engine.DirStats) float64 { return float64(d.FreeBytes) }),
	perDir("millrace_log_dir_total_bytes", "Size of the directory's file system. Missing as above.", func(d *engine.DirStats) float64 { return float64(d.TotalBytes) }),
	perDir("millrace_log_dir_queue_bytes", "Batches that wait for the committer or are in its round. It stays high when the disk is slower than the producers.", func(d *engine.DirStats) float64 { return float64(d.QueueBytes) }),
	perDir("millrace_log_dir_queue_limit_bytes", "The limit of that. At it producers wait, each until its request.timeout.", func(d *engine.DirStats) float64 { return float64(d.QueueBound) }),
	perDir("millrace_log_dir_open_files", "Log files that are open.", func(d *engine.DirStats) float64 { return float64(d.OpenFiles) }),
	perDir("millrace_log_dir_open_files_limit", "How many may stay open while nobody uses them; those in use come on top.", func(d *engine.DirStats) float64 { return float64(d.IdleBound) }),
	perDir("millrace_log_dir_partitions", "Partitions in the directory, empty ones included.", func(d *engine.DirStats) float64 { return float64(d.Logs) }),
}
