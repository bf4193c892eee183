// Package bench puts a bounded load on any broker that speaks the Kafka protocol and says what came of it.
//
// Five workloads: Produce (as fast as the broker takes it, or at a rate), Sync (one record in flight per client), Consume (from the
// start), EndToEnd (from the intended moment of sending to the return of a consumer's poll) and Create (one topic). Each makes its
// own topic unless it is told one, warms up, measures, and deletes the topic again. Rates count acknowledged records only.
package bench

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Config is one workload's load.
type Config struct {
	Client            []kgo.Opt     // how to reach the broker
	Records           int           // in all, over all clients
	SizeBytes         int           // of each value: one half random, the other half zeros
	Partitions        int           // of the topic that is made
	ReplicationFactor int           // of the topic that is made; -1: the broker's default
	Clients           int           // connections of their own (Produce, Sync, Consume)
	Rate              int           // records a second; 0: as many as possible (Produce), needed by EndToEnd
	Linger            time.Duration // how long a batch waits for more records
	Producer          []kgo.Opt     // acks, compression, idempotence
	Topic             string        // use this topic and leave it; empty: make one and delete it afterwards
	Keep              bool          // leave the topic behind
	PIDs              []int         // processes of the broker, for CPU time and memory (Linux)
	Progress          *atomic.Int64 // counts records as they are done, for display
}

// Result is what a workload measured.
type Result struct {
	Workload         string   `json:"workload"`
	Topic            string   `json:"topic"`
	Records          int      `json:"records"`
	Failed           int64    `json:"failed"`
	FirstFailure     string   `json:"first_failure,omitempty"`
	SizeBytes        int      `json:"size_bytes"`
	Partitions       int      `json:"partitions,omitempty"` // of a topic made for the run
	Clients          int      `json:"clients"`
	Seconds          float64  `json:"seconds"`
	RecordsPerSecond float64  `json:"records_per_second,omitempty"`
	MBPerSecond      float64  `json:"mb_per_second,omitempty"`
	Latency          *Latency `json:"latency_ms,omitempty"`
	Server           *Server  `json:"server,omitempty"`
}

// ErrRate is returned by EndToEnd without a rate.
var ErrRate = errors.New("end to end needs a rate")

// warmUpRecords bounds the records that are sent before Produce starts to measure.
const warmUpRecords = 20_000

// bufferedBytes bounds what one client holds that is not acknowledged.
const bufferedBytes = 256 << 20

// fetchBytes and fetchPartitionBytes are what consumers ask for at once.
const (
	fetchBytes          = 32 << 20
	fetchPartitionBytes = 4 << 20
)

// run is one workload on its topic.
type run struct {
	Config
	own    bool // the topic was made for this run
	cl     *kgo.Client
	value  []byte
	failed atomic.Int64
	first  atomic.Pointer[error]
	usage  usage
	took   digest // latencies
}

// start makes the client, the value to send, and the topic.
func start(ctx context.Context, cfg Config) (*run, error) {
	if cfg.Progress == nil {
		cfg.Progress = new(atomic.Int64)
	}
	if cfg.Topic == "" { // a broker may take a while to know everywhere what it has just made
		cfg.Producer = append(cfg.Producer, kgo.UnknownTopicRetries(-1))
	}
	r := &run{Config: cfg, value: payload(cfg.SizeBytes)}
	cl, err := kgo.NewClient(r.producerOpts()...)
	if err != nil {
		return nil, err
	}
	r.cl = cl
	if cfg.Topic == "" {
		err = r.createTopic(ctx)
	} else {
		err = r.findTopic(ctx)
	}
	if err != nil {
		cl.Close()
		return nil, err
	}
	return r, nil
}

// findTopic fails at once when there is no such topic; a producer would look for it for 20 seconds.
func (r *run) findTopic(ctx context.Context) error {
	topics, err := kadm.NewClient(r.cl).ListTopics(ctx, r.Topic)
	if err == nil {
		err = topics[r.Topic].Err
	}
	if err != nil {
		return fmt.Errorf("topic %s: %w", r.Topic, err)
	}
	return nil
}

func (r *run) createTopic(ctx context.Context) error {
	var name [8]byte
	rand.Read(name[:])
	r.Topic, r.own = "millrace-bench-"+hex.EncodeToString(name[:]), true
	_, err := kadm.NewClient(r.cl).CreateTopic(ctx, int32(r.Partitions), int16(r.ReplicationFactor), nil, r.Topic)
	if err != nil {
		return fmt.Errorf("creating topic %s: %w", r.Topic, err)
	}
	return nil
}

// finish deletes the topic if the run made it, also after Ctrl-C, and adds a failure of that to err.
func (r *run) finish(ctx context.Context, err *error) {
	defer r.cl.Close()
	if !r.own || r.Keep {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if _, failed := kadm.NewClient(r.cl).DeleteTopic(ctx, r.Topic); failed != nil {
		*err = errors.Join(*err, fmt.Errorf("deleting topic %s: %w", r.Topic, failed))
	}
}

func (r *run) producerOpts() []kgo.Opt {
	opts := append([]kgo.Opt{}, r.Client...)
	opts = append(opts, kgo.ProducerLinger(r.Linger), kgo.MaxBufferedRecords(200_000), kgo.MaxBufferedBytes(bufferedBytes), kgo.ProducerBatchMaxBytes(1<<20), kgo.RecordPartitioner(kgo.StickyPartitioner()))
	return append(opts, r.Producer...)
}

// payload is half random and half zeros, so that compression has something to find and not too much.
func payload(size int) []byte {
	b := make([]byte, size)
	rand.Read(b[:size/2])
	return b
}

func (r *run) fail(err error) {
	r.failed.Add(1)
	r.first.CompareAndSwap(nil, &err)
}

// send produces n records as fast as the client takes them and waits for all answers.
func (r *run) send(ctx context.Context, cl *kgo.Client, n int) {
	var wg sync.WaitGroup
	wg.Add(n)
	for range n {
		cl.Produce(ctx, &kgo.Record{Topic: r.Topic, Value: r.value}, func(_ *kgo.Record, err error) {
			if err != nil {
				r.fail(err)
			}
			r.Progress.Add(1)
			wg.Done()
		})
	}
	wg.Wait()
}

// fill sends n records that are not measured; a broker that refuses one is not measured at all.
func (r *run) fill(ctx context.Context, n int) error {
	r.send(ctx, r.cl, n)
	if err := r.first.Load(); err != nil {
		return fmt.Errorf("sending %d records before the measurement: %w", n, *err)
	}
	return ctx.Err()
}

// result sums up; n records were meant to be done in the time since begun.
func (r *run) result(ctx context.Context, workload string, n int, took time.Duration) (*Result, error) {
	failed := min(r.failed.Load(), int64(n)) // what is lost may fail again
	res := &Result{
		Workload: workload, Topic: r.Topic, Records: n, Failed: failed, SizeBytes: r.SizeBytes, Partitions: r.Partitions, Clients: max(1, r.Clients),
		Seconds: took.Seconds(), Latency: r.took.latency(), Server: r.usage.since(n),
	}
	if !r.own {
		res.Partitions = 0
	}
	if n > 0 && took > 0 {
		res.RecordsPerSecond = float64(n-int(failed)) / took.Seconds()
		res.MBPerSecond = res.RecordsPerSecond * float64(r.SizeBytes) / 1e6
	}
	if err := r.first.Load(); err != nil {
		res.FirstFailure = (*err).Error()
	}
	return res, ctx.Err()
}

// atRate calls do for i = 0…n-1 at the rate, each with the moment that it was due.
func atRate(ctx context.Context, begun time.Time, n, rate int, do func(i int, due time.Time)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i := range n {
		due := begun.Add(time.Duration(i) * time.Second / time.Duration(rate))
		if wait := time.Until(due); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return
			}
		}
		do(i, due)
	}
}
