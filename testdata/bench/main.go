// Command bench compares millrace with Apache Kafka, one node each on this machine or, with -nodes 3, three of each, and prints a table.
//
//	go run ./testdata/bench -millrace bin/millrace [-nodes 3] [-rounds 5] [-only sync] [-scale 0.1]
//
// Kafka comes from Maven by its name, once as it is and once flushing every append (log.flush.interval.messages=1), which is what
// millrace does always. The load is "millrace bench" against all of them. Every round runs each row once on each server, one after
// the other, beginning with another server each time; rounds that warm up do not count. Close other programs first: the load
// generator and three brokers share the machine.
//
// Several nodes are a cluster: as many replicas as nodes, a majority of them in sync for an acknowledgement (acks=all), and Kafka as it is only, without
// fsync. CPU seconds are those of all nodes together, memory is that of one node in the mean.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// row is one line of the table. A row without arguments takes its figure from the run of the row before it.
type row struct {
	name    string
	args    string // of millrace bench
	records int    // before -scale; 0: the workload has none
	unit    string
	figure  func(result) float64
}

var rowsOfTable = []row{
	{"produce 1 KiB, 6 partitions", "produce --size 1024 --partitions 6", 400_000, "records/s", rate},
	{"produce 256 B, 6 partitions", "produce --size 256 --partitions 6", 800_000, "records/s", rate},
	{"produce 1 KiB, 100 partitions", "produce --size 1024 --partitions 100", 400_000, "records/s", rate},
	{"consume 1 KiB, 6 partitions", "consume --partitions 6", 300_000, "records/s", rate},
	{"1 synchronous producer", "sync --clients 1", 2_000, "records/s", rate},
	{"64 synchronous producers", "sync --clients 64", 9_600, "records/s", rate},
	{"256 synchronous producers, 256 partitions", "sync --clients 256 --partitions 256", 38_400, "records/s", rate},
	{"end to end at 1,000/s, p50", "e2e --rate 1000", 3_000, "ms", func(r result) float64 { return r.Latency.P50 }},
	{"end to end at 1,000/s, p99", "", 0, "ms", func(r result) float64 { return r.Latency.P99 }},
	{"create 100 partitions", "create --partitions 100", 0, "ms", func(r result) float64 { return r.Seconds * 1000 }},
}

func rate(r result) float64 { return r.RecordsPerSecond }

// result is what "millrace bench --output json" prints, as far as the table needs it.
type result struct {
	Seconds          float64 `json:"seconds"`
	RecordsPerSecond float64 `json:"records_per_second"`
	Latency          struct {
		P50 float64 `json:"p50"`
		P99 float64 `json:"p99"`
	} `json:"latency_ms"`
	Server struct {
		CPUPerMillion float64 `json:"cpu_seconds_per_million_records"`
		PeakRSSBytes  int64   `json:"peak_rss_bytes"`
	} `json:"server"`
	failed bool
}

type options struct {
	millrace, dir string
	nodes         int // of each make
	rounds, warm  int
	only          string
	scale         float64
}

func main() {
	var o options
	flag.StringVar(&o.millrace, "millrace", "bin/millrace", "the binary to measure, also the load generator")
	flag.StringVar(&o.dir, "dir", ".cache/bench", "where Kafka's jars and the brokers' data are kept; should lie on a real disk")
	flag.IntVar(&o.nodes, "nodes", 1, "nodes of each make; several are a cluster")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds that count")
	flag.IntVar(&o.warm, "warm-up", 2, "rounds before those")
	flag.StringVar(&o.only, "only", "", "only rows with this in their name")
	flag.Float64Var(&o.scale, "scale", 1, "multiplies the number of records")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	var err error
	if o.millrace, err = filepath.Abs(o.millrace); err != nil {
		return err
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	libs, err := fetchKafka(ctx, o.dir)
	if err != nil {
		return err
	}
	starts := []func() (*server, error){func() (*server, error) { return startKafka(ctx, "kafka", o.nodes, o.dir, libs) }}
	if o.nodes == 1 {
		starts = append(starts, func() (*server, error) {
			return startKafka(ctx, "kafka fsync", 1, o.dir, libs, "log.flush.interval.messages=1")
		})
	}
	starts = append(starts, func() (*server, error) { return startMillrace(ctx, o.millrace, o.nodes, o.dir) })
	var servers []*server
	defer func() {
		for _, s := range servers {
			s.stop()
		}
	}()
	for _, start := range starts {
		s, err := start()
		if err != nil {
			return err
		}
		servers = append(servers, s)
		fmt.Fprintf(os.Stderr, "%s is ready at %s after %v\n", s.name, s.address, s.ready.Round(time.Millisecond))
	}
	t := newTable(servers)
	for round := -o.warm; round < o.rounds && ctx.Err() == nil; round++ {
		fmt.Fprintf(os.Stderr, "round %d of %d%s\n", round+o.warm+1, o.warm+o.rounds, map[bool]string{true: " (warm-up)"}[round < 0])
		if err := playRound(ctx, o, servers, round, t); err != nil {
			return err
		}
	}
	t.print(os.Stdout, rowsOfTable)
	return ctx.Err()
}

// playRound runs every row once on every server, beginning with another one each time.
func playRound(ctx context.Context, o options, servers []*server, round int, t *table) error {
	last := map[string]result{}
	for _, r := range rowsOfTable {
		if !strings.Contains(r.name, o.only) {
			continue
		}
		for i := range servers {
			s := servers[(i+round+o.warm)%len(servers)]
			if r.args != "" {
				last[s.name] = load(ctx, o, s, r)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if round >= 0 {
				t.add(r.name, s.name, last[s.name])
			}
		}
	}
	return nil
}

// load runs one workload against one server; a run that fails is reported and marked.
func load(ctx context.Context, o options, s *server, r row) result {
	args := append([]string{"bench"}, strings.Fields(r.args)...)
	args = append(args, "--bootstrap", s.address, "--pid", strings.Join(s.pids, ","), "--output", "json", "--limit", "150s")
	if r.records > 0 {
		args = append(args, "--records", strconv.Itoa(max(256, int(float64(r.records)*o.scale))))
	}
	cmd := exec.CommandContext(ctx, o.millrace, args...)
	out, err := cmd.Output()
	var res result
	if err == nil {
		err = json.Unmarshal(out, &res)
	}
	res.Server.PeakRSSBytes /= int64(len(s.pids)) // of one node
	if err != nil {
		res.failed = true
		if exit, ok := err.(*exec.ExitError); ok {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
		}
		if ctx.Err() == nil {
			fmt.Fprintf(os.Stderr, "%s on %s failed: %v\n", r.name, s.name, err)
		}
	}
	return res
}
