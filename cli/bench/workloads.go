package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Produce sends Records, as fast as possible or at Rate. At a rate the latency is from the moment a record was due to its
// acknowledgement, so that a broker which falls behind cannot hide it.
func Produce(ctx context.Context, cfg Config) (res *Result, err error) {
	r, err := start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer r.finish(ctx, &err)
	if err := r.fill(ctx, min(cfg.Records/20, warmUpRecords)); err != nil {
		return nil, err
	}
	if cfg.Rate > 0 {
		return r.produceAtRate(ctx)
	}
	clients, closeAll, err := r.clients(ctx, max(1, cfg.Clients), r.producerOpts())
	if err != nil {
		return nil, err
	}
	defer closeAll()
	r.Progress.Store(0)
	r.usage = measure(cfg.PIDs)
	begun := time.Now()
	each := cfg.Records / len(clients)
	var wg sync.WaitGroup
	for _, cl := range clients {
		wg.Go(func() { r.send(ctx, cl, each) })
	}
	wg.Wait()
	return r.result(ctx, "produce", each*len(clients), time.Since(begun))
}

// clients returns n connected clients; the first is the run's own when it produces.
func (r *run) clients(ctx context.Context, n int, opts []kgo.Opt) (clients []*kgo.Client, closeAll func(), err error) {
	closeAll = func() {
		for _, cl := range clients[1:] {
			cl.Close()
		}
	}
	clients = append(clients, r.cl)
	for range n - 1 {
		cl, err := kgo.NewClient(opts...)
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		clients = append(clients, cl)
		if err := cl.Ping(ctx); err != nil {
			closeAll()
			return nil, nil, err
		}
	}
	return clients, closeAll, nil
}

func (r *run) produceAtRate(ctx context.Context) (*Result, error) {
	var wg sync.WaitGroup
	r.Progress.Store(0)
	r.usage = measure(r.PIDs)
	begun := time.Now()
	atRate(ctx, begun, r.Records, r.Rate, func(_ int, due time.Time) {
		wg.Add(1)
		r.cl.Produce(ctx, &kgo.Record{Topic: r.Topic, Value: r.value}, func(_ *kgo.Record, err error) {
			if err != nil {
				r.fail(err)
			} else {
				r.took.add(time.Since(due))
			}
			r.Progress.Add(1)
			wg.Done()
		})
	})
	wg.Wait()
	return r.result(ctx, "produce", r.Records, time.Since(begun))
}

// Sync has each of Clients send one record, wait for the acknowledgement, and send the next. Connecting counts, as it does for a
// program that starts and sends. With at least as many clients as partitions of a topic made for the run, each client keeps to one
// partition, so that all are in use.
func Sync(ctx context.Context, cfg Config) (res *Result, err error) {
	cfg.Linger = 0
	r, err := start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer r.finish(ctx, &err)
	n := max(1, cfg.Clients)
	each, spread := cfg.Records/n, r.own && n >= r.Partitions
	var wg sync.WaitGroup
	r.usage = measure(cfg.PIDs)
	begun := time.Now()
	for i := range n {
		opts := r.producerOpts()
		if spread {
			opts = append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))
		}
		cl, err := kgo.NewClient(opts...) // not in the goroutine: the clients share options that NewClient writes to
		if err != nil {
			return nil, err
		}
		wg.Go(func() {
			defer cl.Close()
			for range each {
				sent := time.Now()
				if err := cl.ProduceSync(ctx, &kgo.Record{Topic: r.Topic, Partition: int32(i % max(r.Partitions, 1)), Value: r.value}).FirstErr(); err != nil {
					r.fail(err)
				} else {
					r.took.add(time.Since(sent))
				}
				r.Progress.Add(1)
			}
		})
	}
	wg.Wait()
	return r.result(ctx, "sync", each*n, time.Since(begun))
}

// Consume has each of Clients read Records from the start of the topic, which is filled first unless it was named.
func Consume(ctx context.Context, cfg Config) (res *Result, err error) {
	r, err := start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer r.finish(ctx, &err)
	if r.own {
		err = r.fill(ctx, cfg.Records)
	} else {
		err = r.enough(ctx)
	}
	if err != nil {
		return nil, err
	}
	n := max(1, cfg.Clients)
	var wg sync.WaitGroup
	r.Progress.Store(0)
	r.usage = measure(cfg.PIDs)
	begun := time.Now()
	for range n {
		wg.Go(func() { r.read(ctx) })
	}
	wg.Wait()
	return r.result(ctx, "consume", cfg.Records*n, time.Since(begun))
}

func (r *run) consumerOpts(extra ...kgo.Opt) []kgo.Opt {
	opts := append([]kgo.Opt{}, r.Client...)
	return append(append(opts, kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())), extra...)
}

// read consumes Records from the start with a client of its own. What it cannot have counts as failed.
func (r *run) read(ctx context.Context) {
	cl, err := kgo.NewClient(r.consumerOpts(kgo.ConsumeTopics(r.Topic), kgo.FetchMaxPartitionBytes(fetchPartitionBytes), kgo.FetchMaxBytes(fetchBytes))...)
	if err != nil {
		r.lose(r.Records, err)
		return
	}
	defer cl.Close()
	for got := 0; got < r.Records; {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			r.lose(r.Records-got, err)
			return
		}
		got += fetches.NumRecords()
		r.Progress.Add(int64(fetches.NumRecords()))
	}
}

// enough makes sure that a topic of others holds as many records as are to be read, as a consumer would wait for the rest in vain.
func (r *run) enough(ctx context.Context) error {
	admin := kadm.NewClient(r.cl)
	starts, err := admin.ListStartOffsets(ctx, r.Topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return fmt.Errorf("finding the start of topic %s: %w", r.Topic, err)
	}
	ends, err := admin.ListEndOffsets(ctx, r.Topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("finding the end of topic %s: %w", r.Topic, err)
	}
	held := int64(0)
	ends.Each(func(end kadm.ListedOffset) {
		start, _ := starts.Lookup(end.Topic, end.Partition)
		held += end.Offset - start.Offset
	})
	if held < int64(r.Records) {
		return fmt.Errorf("topic %s holds %d records, fewer than the %d to be read", r.Topic, held, r.Records)
	}
	return nil
}

// lose counts n records that will not come.
func (r *run) lose(n int, err error) {
	r.failed.Add(int64(n))
	r.first.CompareAndSwap(nil, &err)
}

// markBytes is what EndToEnd writes into each value: when the record was due, and which run it is of.
const markBytes = 16

// EndToEnd sends at Rate while one consumer tails the topic. The latency is from the moment a record was due to the return of the
// poll that delivered it; the moment travels in the value. Records of others in the topic are passed over.
func EndToEnd(ctx context.Context, cfg Config) (res *Result, err error) {
	if cfg.Rate <= 0 {
		return nil, ErrRate
	}
	cfg.SizeBytes = max(cfg.SizeBytes, markBytes)
	r, err := start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer r.finish(ctx, &err)
	from, err := r.tail(ctx)
	if err != nil {
		return nil, err
	}
	consumer, err := kgo.NewClient(r.consumerOpts(from, kgo.FetchMaxWait(500*time.Millisecond))...)
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	const warm = 100
	if err := r.fill(ctx, warm); err != nil {
		return nil, err
	}
	for got := 0; got < warm; {
		fetches := consumer.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, err
		}
		got += fetches.NumRecords()
	}
	r.Progress.Store(0)
	r.usage = measure(cfg.PIDs)
	begun := time.Now()
	sending, cancel := context.WithCancel(ctx)
	defer cancel()
	run := rand.Uint64()
	var tail sync.WaitGroup
	tail.Go(func() { // ends when all records arrived, when the broker refuses to give them, or with ctx
		for got := 0; got+int(r.failed.Load()) < cfg.Records && ctx.Err() == nil; {
			fetches := consumer.PollFetches(ctx)
			fetches.EachRecord(func(rec *kgo.Record) {
				if len(rec.Value) < markBytes || binary.BigEndian.Uint64(rec.Value[8:]) != run {
					return
				}
				r.took.add(time.Since(begun) - time.Duration(binary.BigEndian.Uint64(rec.Value)))
				got++
				r.Progress.Add(1)
			})
			if err := fetches.Err(); err != nil {
				r.lose(cfg.Records-got-int(r.failed.Load()), err)
				cancel()
				return
			}
		}
	})
	atRate(sending, begun, cfg.Records, cfg.Rate, func(_ int, due time.Time) {
		value := append([]byte(nil), r.value...)
		binary.BigEndian.PutUint64(value, uint64(due.Sub(begun)))
		binary.BigEndian.PutUint64(value[8:], run)
		r.cl.Produce(ctx, &kgo.Record{Topic: r.Topic, Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				r.fail(err)
			}
		})
	})
	tail.Wait()
	return r.result(ctx, "e2e", cfg.Records, time.Since(begun))
}

// tail says where a consumer begins that wants only what is sent from now on: at the start of a topic of our own, at the end of
// another, as it is now.
func (r *run) tail(ctx context.Context) (kgo.Opt, error) {
	if r.own {
		return kgo.ConsumeTopics(r.Topic), nil
	}
	ends, err := kadm.NewClient(r.cl).ListEndOffsets(ctx, r.Topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("finding the end of topic %s: %w", r.Topic, err)
	}
	return kgo.ConsumePartitions(ends.KOffsets()), nil
}

// Create measures how long the creation of a topic of Partitions takes, connecting included.
func Create(ctx context.Context, cfg Config) (res *Result, err error) {
	cfg.Topic, cfg.Records, cfg.SizeBytes = "", 0, 0
	if cfg.Progress == nil {
		cfg.Progress = new(atomic.Int64)
	}
	r := &run{Config: cfg}
	if r.cl, err = kgo.NewClient(cfg.Client...); err != nil {
		return nil, err
	}
	r.usage = measure(cfg.PIDs)
	begun := time.Now()
	if err := r.createTopic(ctx); err != nil {
		r.cl.Close()
		return nil, err
	}
	took := time.Since(begun)
	defer r.finish(ctx, &err)
	return r.result(ctx, "create", 0, took)
}
