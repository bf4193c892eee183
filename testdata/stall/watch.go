package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/millrace/millrace/segment/batch"
)

// slack is what an answer may take beside what it has to wait for; the machine is loaded.
const slack = 2 * time.Second

// report is what one kind of question was answered while the disk was frozen.
type report struct {
	mu      sync.Mutex
	what    string
	asked   int
	longest time.Duration
	answers map[string]int
	wrong   error
}

func (r *report) note(took time.Duration, answer string, wrong error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	r.longest = max(r.longest, took)
	r.answers[answer]++
	if r.wrong == nil && wrong != nil {
		r.wrong = fmt.Errorf("%s: %w", r.what, wrong)
	}
}

// watch asks everything, again and again, while the disk is frozen.
func watch(ctx context.Context, b *broker, l *load, limit time.Duration, frozen time.Time, length time.Duration) error {
	ctx, cancel := context.WithDeadline(ctx, frozen.Add(length))
	defer cancel()
	var asking sync.WaitGroup
	var reports []*report
	ask := func(what string, within time.Duration, question func() (answer string, err error)) {
		r := &report{what: what, answers: map[string]int{}}
		reports = append(reports, r)
		asking.Go(func() {
			for ctx.Err() == nil {
				begun := time.Now()
				answer, err := question()
				took := time.Since(begun)
				if err == nil && took > within {
					err = fmt.Errorf("answered %s after %.1f s, allowed are %.1f", answer, took.Seconds(), within.Seconds())
				}
				r.note(took, answer, err)
				time.Sleep(200 * time.Millisecond)
			}
		})
	}
	ask("metadata", slack, request(b, kmsg.NewPtrMetadataRequest(), func(resp kmsg.Response) error { return nil }))
	ask("fetch from the start", slack, func() (string, error) { return fetchFirst(b) })
	ask("produce", limit+slack, func() (string, error) { return produceOne(b) })
	ask("create topic", limit+slack, request(b, createRequest(), func(resp kmsg.Response) error {
		return kerr.ErrorForCode(resp.(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode)
	}))
	ask("init producer id", limit+slack, request(b, initProducerIDRequest(), func(resp kmsg.Response) error {
		return kerr.ErrorForCode(resp.(*kmsg.InitProducerIDResponse).ErrorCode)
	}))
	ask("/livez", slack, func() (string, error) {
		status, body, err := b.get("/livez")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("status %d", status)
		}
		return body, err
	})
	ask("/readyz", slack, func() (string, error) {
		status, body, err := b.get("/readyz")
		since := time.Since(frozen)
		switch red := status == http.StatusServiceUnavailable; {
		case err != nil:
		case !red && since > limit+slack:
			err = fmt.Errorf("green %.1f s after the freeze", since.Seconds())
		case red && (!strings.Contains(body, "stalled") || !strings.Contains(body, "has not come back")):
			err = fmt.Errorf("does not say what is wrong: %s", body)
		}
		return fmt.Sprint(status), err
	})
	ask("garbage collection", slack, func() (string, error) { // a page fault on the frozen disk would never let it end
		status, _, err := b.get("/debug/pprof/heap?gc=1")
		return fmt.Sprint(status), err
	})
	asking.Wait()
	if _, body, err := b.get("/readyz"); err == nil {
		log.Printf("health at the end: %s", strings.ReplaceAll(body, "\n", " | "))
	}
	var first error
	for _, r := range reports {
		log.Printf("%-22s asked %4d times, longest %6.2f s, answers %v", r.what, r.asked, r.longest.Seconds(), r.answers)
		if first == nil {
			first = r.wrong
		}
	}
	return first
}

// versions leaves out the produce requests that name topics by id.
var versions = func() *kversion.Versions {
	v := kversion.Stable()
	v.SetMaxKeyVersion(0, 9)
	return v
}()

// request asks one thing on a connection of its own; judge gives the error that is in the answer.
func request(b *broker, req kmsg.Request, judge func(kmsg.Response) error) func() (string, error) {
	return func() (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		cl := newClient(b.address, kgo.RequestRetries(0), kgo.MaxVersions(versions))
		defer cl.Close()
		resp, err := cl.SeedBrokers()[0].Request(ctx, req)
		if err != nil {
			return "no answer", err
		}
		if err := judge(resp); err != nil {
			return kerr.TypedErrorForCode(codeOf(err)).Message, nil // an error in time is what is asked for
		}
		return "ok", nil
	}
}

func codeOf(err error) int16 {
	if ke, ok := err.(*kerr.Error); ok {
		return ke.Code
	}
	return -1
}

func createRequest() kmsg.Request {
	req := kmsg.NewPtrCreateTopicsRequest()
	one := kmsg.NewCreateTopicsRequestTopic()
	one.Topic, one.NumPartitions, one.ReplicationFactor = fmt.Sprintf("asked-%d", time.Now().UnixNano()), 1, 1
	req.Topics, req.TimeoutMillis = append(req.Topics, one), 60_000
	return req
}

func initProducerIDRequest() kmsg.Request {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.ProducerID, req.ProducerEpoch = -1, -1
	return req
}

// fetchFirst reads a record from the beginning of the topic.
func fetchFirst(b *broker) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	cl := newClient(b.address, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(0)}}))
	defer cl.Close()
	fetches := cl.PollFetches(ctx)
	if fetches.NumRecords() == 0 {
		return "nothing", fmt.Errorf("no records: %w", fetches.Err())
	}
	return "records", nil
}

// produceOne produces a batch whose request would wait for a minute, to a topic of its own.
func produceOne(b *broker) (string, error) {
	builder := batch.NewBuilder(batch.BuilderOptions{})
	builder.Append(time.Now().UnixMilli(), nil, []byte("x"), nil)
	records, err := builder.Build()
	if err != nil {
		return "", err
	}
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis = 9, -1, 60_000
	part := kmsg.NewProduceRequestTopicPartition()
	part.Records = records
	one := kmsg.NewProduceRequestTopic()
	one.Topic, one.Partitions = probeTopic, append(one.Partitions, part)
	req.Topics = append(req.Topics, one)
	return request(b, req, func(resp kmsg.Response) error {
		return kerr.ErrorForCode(resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode)
	})()
}
