package command

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/urfave/cli/v2"

	"github.com/millrace/millrace/cli/bench"
)

// workload is one subcommand of bench.
type workload struct {
	name, usage, examples string
	run                   func(context.Context, bench.Config) (*bench.Result, error)
	records, partitions   int
	linger                time.Duration
	rate                  int
	sends                 bool // has flags for producing
}

var workloads = []workload{
	{"produce", "how many records a second the broker takes", `  millrace bench produce
  millrace bench produce --size 256 --records 2000000 --compression zstd
  millrace bench produce --rate 5000 --records 50000 --linger 0s     latency at that rate`, bench.Produce, 500_000, 6, 5 * time.Millisecond, 0, true},
	{"consume", "how many records a second the broker serves", `  millrace bench consume
  millrace bench consume --clients 3
  millrace bench consume --topic demo --records 100000               of a topic that is there`, bench.Consume, 500_000, 6, 5 * time.Millisecond, 0, true},
	{"sync", "clients that wait for each acknowledgement before they send again", `  millrace bench sync
  millrace bench sync --clients 64 --records 9600
  millrace bench sync --clients 256 --partitions 256 --records 38400   each on a partition of its own`, bench.Sync, 2_000, 6, 0, 0, true},
	{"e2e", "latency from sending to receiving at a steady rate", `  millrace bench e2e
  millrace bench e2e --rate 10000 --records 100000`, bench.EndToEnd, 3_000, 6, 0, 1000, true},
	{"create", "how long the creation of a topic takes", `  millrace bench create
  millrace bench create --partitions 1000`, bench.Create, 0, 100, 0, 0, false},
}

func benchCommand(e *env) *cli.Command {
	c := &cli.Command{
		Name:  "bench",
		Usage: "measure any Kafka broker",
		Description: `Each workload makes a topic of its own, measures, and deletes the topic again. Rates count acknowledged records; percentiles are
within one percent; memory does not grow with --records.

Examples:
  millrace bench produce
  millrace bench sync --clients 64 --records 9600
  millrace bench e2e --rate 1000 --output json`,
	}
	for _, w := range workloads {
		c.Subcommands = append(c.Subcommands, e.workloadCommand(w))
	}
	return c
}

func (e *env) workloadCommand(w workload) *cli.Command {
	var flags []cli.Flag
	if w.sends {
		flags = append(flags,
			&cli.IntFlag{Name: "records", Aliases: []string{"n"}, Value: w.records, Usage: "records in all"},
			&cli.IntFlag{Name: "size", Value: 1024, Usage: "bytes of each value; one half is random, the other zeros"},
			&cli.StringFlag{Name: "acks", Value: "all", Usage: "all, 1 or 0"},
			&cli.StringFlag{Name: "compression", Aliases: []string{"z"}, Value: "none", Usage: "none, gzip, snappy, lz4 or zstd"},
			&cli.StringFlag{Name: "topic", Usage: "use this topic, and leave it"},
		)
	}
	if w.sends && w.name != "e2e" {
		flags = append(flags, &cli.IntFlag{Name: "clients", Value: 1, Usage: "clients at once"})
	}
	if w.sends && w.name != "sync" {
		flags = append(flags, &cli.DurationFlag{Name: "linger", Value: w.linger, Usage: "how long a batch waits for more records"})
	}
	if w.name == "produce" || w.name == "e2e" {
		flags = append(flags, &cli.IntFlag{Name: "rate", Value: w.rate, Usage: "records a second; 0: as many as the broker takes"})
	}
	flags = append(flags,
		&cli.IntFlag{Name: "partitions", Aliases: []string{"p"}, Value: w.partitions, Usage: "partitions of the topic"},
		&cli.IntFlag{Name: "replication-factor", Aliases: []string{"r"}, Value: -1, DefaultText: "the broker's default.replication.factor", Usage: "replicas of each partition"},
		&cli.BoolFlag{Name: "keep", Usage: "leave the topic behind"},
		&cli.StringFlag{Name: "pid", Usage: "process ids of the broker, comma separated: adds its CPU time and memory (Linux, same machine)"},
		&cli.DurationFlag{Name: "limit", Value: 5 * time.Minute, Usage: "give up after this time"},
		outputFlag("table"),
	)
	return &cli.Command{
		Name: w.name, Usage: w.usage, Description: "Examples:\n" + w.examples, Flags: clientFlags(flags...),
		Action: func(c *cli.Context) error { return e.bench(c, w) },
	}
}

func (e *env) bench(c *cli.Context, w workload) error {
	if c.NArg() > 0 {
		return usagef(commandPath(c), "takes no argument; what is %q?", c.Args().First())
	}
	asJSON, err := wantsJSON(c)
	if err != nil {
		return err
	}
	cfg, err := benchConfig(c, w)
	if err != nil {
		return err
	}
	cl, err := e.connect(c) // says clearly when there is no broker
	if err != nil {
		return err
	}
	addresses := cl.OptValue(kgo.SeedBrokers).([]string)
	cl.Close()
	cfg.Client = []kgo.Opt{
		kgo.SeedBrokers(addresses...), kgo.ClientID("millrace-bench"), kgo.DialTimeout(c.Duration("timeout")), kgo.AllowIdempotentProduceCancellation(),
	}
	cfg.Progress = new(atomic.Int64)
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("limit"))
	defer cancel()
	total := cfg.Records
	if w.name == "consume" {
		total *= cfg.Clients // each reads all
	}
	endProgress := e.progress(func() string { return count(cfg.Progress.Load(), "record") + " of " + strconv.Itoa(total) })
	res, err := w.run(ctx, cfg)
	endProgress()
	if c.Context.Err() == nil && ctx.Err() != nil {
		return fmt.Errorf("not done within %v; --limit allows for more", c.Duration("limit"))
	}
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		return topicError(cfg.Topic, err, "")
	}
	if err != nil {
		return err
	}
	if asJSON {
		err = writeJSON(e.Out, res)
	} else {
		err = e.writeBench(res)
	}
	if err == nil && res.Failed > 0 {
		err = fmt.Errorf("%d of %s failed, the first with: %s", res.Failed, count(res.Records, "record"), res.FirstFailure)
	}
	return err
}

func benchConfig(c *cli.Context, w workload) (bench.Config, error) {
	cfg := bench.Config{
		Records: c.Int("records"), SizeBytes: c.Int("size"), Partitions: c.Int("partitions"), ReplicationFactor: c.Int("replication-factor"), Clients: max(1, c.Int("clients")),
		Rate: c.Int("rate"), Linger: c.Duration("linger"), Topic: c.String("topic"), Keep: c.Bool("keep"),
	}
	for _, f := range []string{"records", "size", "clients", "partitions"} {
		if c.IsSet(f) && c.Int(f) < 1 {
			return cfg, usagef(commandPath(c), "--%s must be at least 1", f)
		}
	}
	if w.name == "produce" && cfg.Rate > 0 && cfg.Clients > 1 {
		return cfg, usagef(commandPath(c), "--rate is for one client; leave --clients out")
	}
	if w.sends && cfg.Records < cfg.Clients {
		return cfg, usagef(commandPath(c), "--records must be at least --clients")
	}
	if cfg.SizeBytes > 1_000_000 {
		return cfg, usagef(commandPath(c), "--size must be at most 1000000")
	}
	if cfg.Rate < 0 || (w.name == "e2e" && cfg.Rate == 0) {
		return cfg, usagef(commandPath(c), "--rate must be at least 1")
	}
	if w.sends {
		acks, err := acksOpts(c.String("acks"), true, false)
		if err != nil {
			return cfg, usagef(commandPath(c), "%v", err)
		}
		codec, err := compressionOpt(c.String("compression"))
		if err != nil {
			return cfg, usagef(commandPath(c), "%v", err)
		}
		cfg.Producer = append(acks, codec)
	}
	for p := range strings.SplitSeq(c.String("pid"), ",") {
		if p = strings.TrimSpace(p); p == "" {
			continue
		}
		pid, err := strconv.Atoi(p)
		if err != nil || pid < 1 {
			return cfg, usagef(commandPath(c), "--pid %q is not a process id", p)
		}
		cfg.PIDs = append(cfg.PIDs, pid)
	}
	return cfg, nil
}

// writeBench writes a result for people: one figure a line.
func (e *env) writeBench(r *bench.Result) error {
	rows := [][]string{}
	add := func(name, format string, args ...any) {
		rows = append(rows, []string{name, fmt.Sprintf(format, args...)})
	}
	if r.Records > 0 {
		add("records", "%d of %d bytes, %d failed", r.Records, r.SizeBytes, r.Failed)
	}
	if r.Partitions > 0 {
		add("partitions", "%d", r.Partitions)
	}
	if r.Clients > 1 {
		add("clients", "%d", r.Clients)
	}
	add("time", "%s", time.Duration(math.Round(r.Seconds*1e6)*1e3))
	if r.Records > 0 {
		add("rate", "%.0f records/s, %.1f MB/s", r.RecordsPerSecond, r.MBPerSecond)
	}
	if l := r.Latency; l != nil {
		add("latency", "p50 %.2f  p90 %.2f  p99 %.2f  p99.9 %.2f  max %.2f ms", l.P50, l.P90, l.P99, l.P999, l.Max)
	}
	if s := r.Server; s != nil {
		per := ""
		if r.Records > 0 {
			per = fmt.Sprintf(" (%.2f per million records)", s.CPUSecondsPerMillion)
		}
		add("broker", "%.2f CPU seconds%s, peak memory %d MB", s.CPUSeconds, per, s.PeakRSSBytes>>20)
	}
	return writeTable(e.Out, []string{"WORKLOAD", r.Workload}, rows)
}
