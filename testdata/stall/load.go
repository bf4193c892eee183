package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	topic      = "load"
	probeTopic = "probe" // of single requests
	partitions = 6
	producers  = 4
)

type place struct {
	partition int32
	offset    int64
}

// load is producers that go on through the stall, a group that reads and commits, and somebody who creates topics.
type load struct {
	address string
	stop    context.CancelFunc
	ended   sync.Once
	working sync.WaitGroup
	read    atomic.Int64 // by the group
	created atomic.Int64 // topics

	mu    sync.Mutex
	acked map[place]string
	lost  error // the first record that its producer gave up on
}

func newClient(address string, opts ...kgo.Opt) *kgo.Client {
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(address), kgo.MetadataMinAge(100*time.Millisecond))...)
	if err != nil {
		log.Fatal(err)
	}
	return cl
}

func startLoad(ctx context.Context, address string, create bool) (*load, error) {
	l := &load{address: address, acked: map[place]string{}}
	ctx, l.stop = context.WithCancel(ctx)
	cl := newClient(address)
	defer cl.Close()
	if _, err := kadm.NewClient(cl).CreateTopics(ctx, partitions, 1, nil, topic, probeTopic); err != nil {
		return nil, err
	}
	for id := range producers {
		l.working.Go(func() { l.produce(ctx, id) })
	}
	l.working.Go(func() { l.consume(ctx) })
	if create {
		l.working.Go(func() { l.createTopics(ctx) })
	}
	return l, nil
}

func (l *load) produce(ctx context.Context, id int) {
	cl := newClient(l.address, kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
	defer cl.Close()
	for i := 0; ctx.Err() == nil; i++ {
		value := fmt.Sprintf("%d %d", id, i)
		cl.Produce(context.WithoutCancel(ctx), &kgo.Record{Partition: int32(i % partitions), Value: []byte(value)}, func(r *kgo.Record, err error) {
			l.mu.Lock()
			defer l.mu.Unlock()
			if err != nil {
				l.lost = errors.Join(l.lost, err)
				return
			}
			l.acked[place{r.Partition, r.Offset}] = value
		})
		time.Sleep(time.Millisecond)
	}
	flush, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cl.Flush(flush)
}

func (l *load) consume(ctx context.Context) {
	cl := newClient(l.address, kgo.ConsumerGroup("readers"), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.AutoCommitInterval(200*time.Millisecond))
	defer cl.Close()
	for ctx.Err() == nil {
		l.read.Add(int64(cl.PollFetches(ctx).NumRecords()))
	}
}

func (l *load) createTopics(ctx context.Context) {
	cl := newClient(l.address)
	defer cl.Close()
	adm := kadm.NewClient(cl)
	for i := 0; ctx.Err() == nil; i++ {
		one, cancel := context.WithTimeout(ctx, 2*time.Second)
		if _, err := adm.CreateTopic(one, 1, 1, nil, fmt.Sprintf("made-%d", i)); err == nil {
			l.created.Add(1)
		}
		cancel()
		time.Sleep(5 * time.Millisecond)
	}
}

func (l *load) end() {
	l.ended.Do(func() {
		l.stop()
		l.working.Wait()
	})
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

// verify reads everything, and compares it with what was acknowledged.
func (l *load) verify(ctx context.Context) error {
	if l.lost != nil {
		return fmt.Errorf("a producer gave up: %w", l.lost)
	}
	stored, err := readAll(ctx, l.address)
	if err != nil {
		return err
	}
	twice := map[string]place{}
	for at, value := range stored {
		if other, is := twice[value]; is {
			return fmt.Errorf("%q is there twice, at %v and %v", value, at, other)
		}
		twice[value] = at
	}
	for at, value := range l.acked {
		if stored[at] != value {
			return fmt.Errorf("%q was acknowledged at %v, where %q is", value, at, stored[at])
		}
	}
	log.Printf("%d records acknowledged, each there once, at its offset; %d stored; the group has read %d; %d topics created", len(l.acked), len(stored), l.read.Load(), l.created.Load())
	return nil
}

// readAll reads the topic up to its present end.
func readAll(ctx context.Context, address string) (map[place]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	cl := newClient(address, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(200*time.Millisecond))
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	left := int64(0)
	ends.Each(func(o kadm.ListedOffset) { left += o.Offset })
	stored := map[place]string{}
	for int64(len(stored)) < left {
		fetches := cl.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("read %d of %d records: %w", len(stored), left, err)
		}
		fetches.EachRecord(func(r *kgo.Record) { stored[place{r.Partition, r.Offset}] = string(r.Value) })
	}
	return stored, nil
}
