package bench

import (
	"context"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

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
	r.send(ctx, r.cl, min(cfg.Records/20, warmUpRecords))
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
	return r.result(ctx, "produce", each*len(clients), time.Since(begun), nil)
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
	samples := make([]time.Duration, r.Records)
	var wg sync.WaitGroup
	r.Progress.Store(0)
	r.usage = measure(r.PIDs)
	begun := time.Now()
	atRate(ctx, begun, r.Records, r.Rate, func(i int, due time.Time) {
		wg.Add(1)
		r.cl.Produce(ctx, &kgo.Record{Topic: r.Topic, Value: r.value}, func(_ *kgo.Record, err error) {
			if err != nil {
				r.fail(err)
			}
			samples[i] = time.Since(due)
			r.Progress.Add(1)
			wg.Done()
		})
	})
	wg.Wait()
	return r.result(ctx, "produce", r.Records, time.Since(begun), samples)
}

// Sync has each of Clients send one record, wait for the acknowledgement, and send the next. Connecting counts, as it does for a
// program that starts and sends.
func Sync(ctx context.Context, cfg Config) (res *Result, err error) {
	cfg.Linger = 0
	r, err := start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer r.finish(ctx, &err)
	n := max(1, cfg.Clients)
	each := cfg.Records / n
	samples := make([][]time.Duration, n)
	var wg sync.WaitGroup
	r.usage = measure(cfg.PIDs)
	begun := time.Now()
	for i := range n {
		cl, err := kgo.NewClient(r.producerOpts()...) // not in the goroutine: the clients share options that NewClient writes to
		if err != nil {
			r.fail(err)
			continue
		}
		wg.Go(func() {
			defer cl.Close()
			for range each {
				sent := time.Now()
				if err := cl.ProduceSync(ctx, &kgo.Record{Topic: r.Topic, Value: r.value}).FirstErr(); err != nil {
					r.fail(err)
				}
				samples[i] = append(samples[i], time.Since(sent))
				r.Progress.Add(1)
			}
		})
	}
	wg.Wait()
	took := time.Since(begun)
	var all []time.Duration
	for _, s := range samples {
		all = append(all, s...)
	}
	return r.result(ctx, "sync", each*n, took, all)
}

// Consume has each of Clients read Records from the start of the topic, which is filled first unless it was named.
func Consume(ctx context.Context, cfg Config) (res *Result, err error) {
	r, err := start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer r.finish(ctx, &err)
	if r.own {
		r.send(ctx, r.cl, cfg.Records)
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
	return r.result(ctx, "consume", cfg.Records*n, time.Since(begun), nil)
}

func (r *run) consumerOpts(extra ...kgo.Opt) []kgo.Opt {
	opts := append([]kgo.Opt{}, r.Client...)
	return append(append(opts, kgo.ConsumeTopics(r.Topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())), extra...)
}

// read consumes Records from the start with a client of its own.
func (r *run) read(ctx context.Context) {
	cl, err := kgo.NewClient(r.consumerOpts(kgo.FetchMaxPartitionBytes(fetchPartitionBytes), kgo.FetchMaxBytes(fetchBytes))...)
	if err != nil {
		r.fail(err)
		return
	}
	defer cl.Close()
	for got := 0; got < r.Records; {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			r.fail(err)
			return
		}
		got += fetches.NumRecords()
		r.Progress.Add(int64(fetches.NumRecords()))
	}
}

// EndToEnd sends at Rate while one consumer tails the topic. The latency is from the moment a record was due to the return of the
// poll that delivered it; the moment travels in the first eight bytes of the value.
func EndToEnd(ctx context.Context, cfg Config) (res *Result, err error) {
	if cfg.Rate <= 0 {
		return nil, ErrRate
	}
	cfg.SizeBytes = max(cfg.SizeBytes, 8)
	r, err := start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer r.finish(ctx, &err)
	consumer, err := kgo.NewClient(r.consumerOpts(kgo.FetchMaxWait(500 * time.Millisecond))...)
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	const warm = 100
	r.send(ctx, r.cl, warm)
	for got := 0; got < warm && ctx.Err() == nil && r.failed.Load() == 0; {
		got += consumer.PollFetches(ctx).NumRecords()
	}
	r.Progress.Store(0)
	r.usage = measure(cfg.PIDs)
	begun := time.Now()
	samples := make([]time.Duration, 0, cfg.Records)
	var tail sync.WaitGroup
	tail.Go(func() { // ends when all records arrived, or with ctx
		for len(samples)+int(r.failed.Load()) < cfg.Records && ctx.Err() == nil {
			consumer.PollFetches(ctx).EachRecord(func(rec *kgo.Record) {
				samples = append(samples, time.Since(begun)-time.Duration(binary.BigEndian.Uint64(rec.Value)))
				r.Progress.Add(1)
			})
		}
	})
	atRate(ctx, begun, cfg.Records, cfg.Rate, func(_ int, due time.Time) {
		value := append([]byte(nil), r.value...)
		binary.BigEndian.PutUint64(value, uint64(due.Sub(begun)))
		r.cl.Produce(ctx, &kgo.Record{Topic: r.Topic, Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				r.fail(err)
			}
		})
	})
	tail.Wait()
	return r.result(ctx, "e2e", cfg.Records, time.Since(begun), samples)
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
	return r.result(ctx, "create", 0, took, nil)
}
