// Command kill9 kills a broker in the middle of a load, again and again, and then reads everything back: every record
// acknowledged to an idempotent acks=all producer is there once, in order, at the offset it was acknowledged at.
//
// BOOTSTRAP names the broker; RESTART_CMD kills it with SIGKILL, starts it on the same data and port, and returns when
// it listens. The producers go on meanwhile.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/testdata/interop/kit"
)

const (
	partitions = 3
	producers  = 2
)

// place is where a record was acknowledged.
type place struct {
	partition int32
	offset    int64
}

// load is what the producers were told.
type load struct {
	topic string
	mu    sync.Mutex
	acked map[place]string
	sent  [producers][partitions]int
}

func main() {
	rounds := flag.Int("rounds", 10, "how many times to kill the broker")
	limit := flag.Duration("limit", 10*time.Minute, "give up after this")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), *limit)
	defer cancel()

	l := &load{topic: "kill9-" + os.Getenv("RUN"), acked: map[place]string{}}
	adm := kadm.NewClient(client())
	_, err := adm.CreateTopic(ctx, partitions, -1, nil, l.topic)
	kit.Must(err)

	var stop atomic.Bool
	var working sync.WaitGroup
	for id := range producers {
		working.Go(func() { l.produce(ctx, id, &stop) })
	}
	for round := range *rounds {
		before := l.count()
		time.Sleep(time.Duration(200+rand.IntN(500)) * time.Millisecond)
		kit.Eventually(ctx, "acknowledgements before the kill", func() bool { return l.count() > before })
		kit.Restart(ctx)
		promised := l.snapshot() // whatever is acknowledged by now must be readable
		log.Printf("round %d: %d records were acknowledged before and during the kill", round+1, len(promised))
		verify(promised, l.read(ctx, adm))
	}
	after := l.count()
	kit.Eventually(ctx, "acknowledgements after the last kill", func() bool { return l.count() > after })
	stop.Store(true)
	working.Wait()
	records := l.read(ctx, adm)
	verify(l.acked, records)
	l.verifyOrder(records)
	fmt.Printf("%d kills, %d records acknowledged, each once, in order, at its offset\n", *rounds, len(l.acked))
}

// client asks for metadata soon after a failure: by default it would sit out five seconds of each restart.
func client(opts ...kgo.Opt) *kgo.Client {
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(kit.Brokers()...), kgo.MetadataMinAge(100*time.Millisecond))...)
	kit.Must(err)
	return cl
}

// produce sends values "producer partition number" until told to stop, and then waits for all acknowledgements.
func (l *load) produce(ctx context.Context, id int, stop *atomic.Bool) {
	cl := client(kgo.DefaultProduceTopic(l.topic), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
	defer cl.Close()
	for i := 0; !stop.Load(); i++ {
		p := int32(i % partitions)
		value := fmt.Sprintf("%d %d %d", id, p, l.sent[id][p])
		l.sent[id][p]++
		cl.Produce(ctx, &kgo.Record{Partition: p, Value: []byte(value)}, func(r *kgo.Record, err error) {
			kit.Must(err)
			l.mu.Lock()
			defer l.mu.Unlock()
			at := place{r.Partition, r.Offset}
			other, taken := l.acked[at]
			kit.Check(!taken, "%q was acknowledged at %v, as %q had been", value, at, other)
			l.acked[at] = value
		})
		if i%2 == 0 {
			time.Sleep(200 * time.Microsecond)
		}
	}
	kit.Must(cl.Flush(ctx))
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

func (l *load) snapshot() map[place]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make(map[place]string, len(l.acked))
	for at, value := range l.acked {
		all[at] = value
	}
	return all
}

// read gives each partition's values from its start to its present end; the index is the offset.
func (l *load) read(ctx context.Context, adm *kadm.Client) (values [partitions][]string) {
	ends, err := adm.ListEndOffsets(ctx, l.topic)
	kit.Must(err)
	kit.Must(ends.Error())
	for p := range int32(partitions) {
		end, _ := ends.Lookup(l.topic, p)
		cl := client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{l.topic: {p: kgo.NewOffset().At(0)}}))
		for int64(len(values[p])) < end.Offset {
			fetches := cl.PollFetches(ctx)
			kit.Must(fetches.Err())
			fetches.EachRecord(func(r *kgo.Record) {
				kit.Check(r.Offset == int64(len(values[p])), "partition %d: offset %d comes after %d", p, r.Offset, len(values[p])-1)
				values[p] = append(values[p], string(r.Value))
			})
		}
		cl.Close()
	}
	return values
}

// verify fails unless every promise was kept.
func verify(promised map[place]string, values [partitions][]string) {
	for at, value := range promised {
		kit.Check(at.offset < int64(len(values[at.partition])), "%q was acknowledged at %v, but the log ends at %d", value, at, len(values[at.partition]))
		got := values[at.partition][at.offset]
		kit.Check(got == value, "%q was acknowledged at %v, where %q is", value, at, got)
	}
}

// verifyOrder fails unless each producer's records to each partition are all there, once, in order, and nothing else.
func (l *load) verifyOrder(values [partitions][]string) {
	for p := range partitions {
		var next [producers]int
		for offset, value := range values[p] {
			var f [3]int
			for i, field := range strings.Fields(value) {
				n, err := strconv.Atoi(field)
				kit.Must(err)
				f[i] = n
			}
			kit.Check(f[1] == p && f[2] == next[f[0]], "partition %d offset %d holds %q, want number %d of this producer", p, offset, value, next[f[0]])
			next[f[0]]++
		}
		for id, n := range next {
			kit.Check(n == l.sent[id][p], "partition %d holds %d records of producer %d, which had %d acknowledged", p, n, id, l.sent[id][p])
		}
	}
}
