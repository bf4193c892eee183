package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	topic      = "chaos"
	partitions = 6
	producers  = 3 // the first is the steady one
	steady     = 5 * time.Millisecond
	patience   = 60 * time.Second // of those who wait for an acknowledgement

	overhead = 500 * time.Millisecond // what clients wait longer than brokers were told to
)

type place struct {
	partition int32
	offset    int64
}

// ack is one acknowledgement of the steady producer.
type ack struct{ sent, came time.Time }

// load is producers that go on through everything, and what they were told.
type load struct {
	stop    context.CancelFunc
	once    sync.Once
	working sync.WaitGroup

	mu    sync.Mutex
	acked map[place]string
	sent  [producers][partitions]int
	acks  [partitions][]ack
	wrong []error
}

func newClient(addresses []string, opts ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(addresses...), kgo.MetadataMinAge(50 * time.Millisecond), kgo.DialTimeout(time.Second),
		kgo.RequestTimeoutOverhead(overhead), kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }),
	}, opts...)...)
}

func startLoad(ctx context.Context, addresses []string) (*load, error) {
	l := &load{acked: map[place]string{}}
	ctx, l.stop = context.WithCancel(ctx)
	cl, err := newClient(addresses)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	small := "1048576"
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, partitions, 3, map[string]*string{"segment.bytes": &small}, topic); err != nil {
		return nil, err
	}
	for id := range producers {
		cl, err := newClient(addresses, kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0),
			kgo.ProduceRequestTimeout(options.timeout), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerOnDataLossDetected(func(_ string, p int32) {
				l.fail(fmt.Errorf("producer %d was told that records of partition %d are lost", id, p))
			}))
		if err != nil {
			return nil, err
		}
		l.working.Go(func() {
			defer cl.Close()
			l.produce(ctx, id, cl)
		})
	}
	return l, nil
}

func (l *load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong = append(l.wrong, err)
}

// produce sends values "producer partition number …" until ctx ends, and then waits for all acknowledgements.
func (l *load) produce(ctx context.Context, id int, cl *kgo.Client) {
	const most = 2000 // records of a producer that wait for an acknowledgement
	var open atomic.Int64
	filler := strings.Repeat("x", 400)
	for i, next := 0, time.Now(); ctx.Err() == nil; i++ {
		next = next.Add(steady)
		time.Sleep(time.Until(next))
		if open.Load() >= most {
			continue
		}
		p := int32(i % partitions)
		l.mu.Lock()
		number := l.sent[id][p]
		l.sent[id][p]++
		l.mu.Unlock()
		value, sent := fmt.Sprintf("%d %d %d %s", id, p, number, filler), time.Now()
		open.Add(1)
		cl.Produce(context.Background(), &kgo.Record{Partition: p, Value: []byte(value)}, func(r *kgo.Record, err error) {
			open.Add(-1)
			if err != nil {
				l.fail(fmt.Errorf("producer %d gave up on record %d of partition %d: %w", id, number, p, err))
				return
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			at := place{r.Partition, r.Offset}
			if other, taken := l.acked[at]; taken {
				l.wrong = append(l.wrong, fmt.Errorf("%s was acknowledged at %v, as %s had been", short(value), at, short(other)))
			}
			l.acked[at] = value
			if id == 0 {
				l.acks[p] = append(l.acks[p], ack{sent, time.Now()})
			}
		})
	}
	flush, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := cl.Flush(flush); err != nil {
		l.fail(fmt.Errorf("producer %d still has %d records that are not acknowledged: %w", id, open.Load(), err))
	}
}

// end stops the producers, when all they sent is acknowledged.
func (l *load) end() error {
	l.once.Do(func() {
		l.stop()
		l.working.Wait()
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.wrong...)
}

// await waits until, of every partition, a record has been acknowledged that was sent after since.
func (l *load) await(ctx context.Context, since time.Time) error {
	end := time.Now().Add(patience)
	for {
		waits := -1
		l.mu.Lock()
		for p, acks := range l.acks {
			if len(acks) == 0 || acks[len(acks)-1].sent.Before(since) {
				waits = p
			}
		}
		l.mu.Unlock()
		switch {
		case waits < 0:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(end):
			return fmt.Errorf("nothing of partition %d was acknowledged within %s", waits, patience)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// gap is the longest time after since in which nothing of a partition was acknowledged, of that partition of which it is longest.
func (l *load) gap(since time.Time) (longest time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, acks := range l.acks {
		from := since
		for _, a := range acks {
			if a.came.After(since) {
				longest, from = max(longest, a.came.Sub(from)), a.came
			}
		}
	}
	return longest
}

func short(value string) string { return fmt.Sprintf("%.24q", value) }

// verify compares what is stored with what was acknowledged and what was sent.
func (l *load) verify(stored [partitions][]string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var wrong []error
	say := func(format string, args ...any) {
		if len(wrong) < 20 {
			wrong = append(wrong, fmt.Errorf(format, args...))
		}
	}
	for at, value := range l.acked {
		if at.offset >= int64(len(stored[at.partition])) {
			say("LOST: %s was acknowledged at %v, but the log ends at %d", short(value), at, len(stored[at.partition]))
		} else if got := stored[at.partition][at.offset]; got != value {
			say("LOST: %s was acknowledged at %v, where %s is", short(value), at, short(got))
		}
	}
	total := 0
	for p := range partitions {
		var next [producers]int
		for offset, value := range stored[p] {
			total++
			fields := strings.Fields(value)
			id, _ := strconv.Atoi(fields[0])
			number, _ := strconv.Atoi(fields[2])
			if number != next[id] {
				say("ORDER: partition %d offset %d holds %s, want number %d of this producer", p, offset, short(value), next[id])
			}
			next[id] = number + 1
		}
		for id, n := range next {
			if n != l.sent[id][p] {
				say("partition %d holds %d records of producer %d, which sent %d", p, n, id, l.sent[id][p])
			}
		}
	}
	log.Printf("    %d records acknowledged, %d stored", len(l.acked), total)
	return errors.Join(wrong...)
}

// readAll gives each partition's values from its start to its present end; the index is the offset.
func readAll(ctx context.Context, addresses []string) (values [partitions][]string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cl, err := newClient(addresses)
	if err != nil {
		return values, err
	}
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, topic)
	if err = errors.Join(err, ends.Error()); err != nil {
		return values, err
	}
	for p := range int32(partitions) {
		end, _ := ends.Lookup(topic, p)
		cl, err := newClient(addresses, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {p: kgo.NewOffset().At(0)}}), kgo.FetchMaxWait(200*time.Millisecond))
		if err != nil {
			return values, err
		}
		for int64(len(values[p])) < end.Offset && err == nil {
			fetches := cl.PollFetches(ctx)
			if err = fetches.Err(); err != nil {
				err = fmt.Errorf("partition %d at offset %d of %d: %w", p, len(values[p]), end.Offset, err)
			}
			fetches.EachRecord(func(r *kgo.Record) {
				if err == nil && r.Offset != int64(len(values[p])) {
					err = fmt.Errorf("partition %d: offset %d comes after %d", p, r.Offset, len(values[p])-1)
				}
				values[p] = append(values[p], string(r.Value))
			})
		}
		cl.Close()
		if err != nil {
			return values, err
		}
	}
	return values, nil
}
