package server

import (
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

func createTopic(t *testing.T, c *rawClient, name string, partitions int32) [16]byte {
	t.Helper()
	create := kmsg.NewPtrCreateTopicsRequest()
	create.SetVersion(7)
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, partitions, 1
	create.Topics, create.TimeoutMillis = append(create.Topics, topic), 10000
	resp := c.ask(create).(*kmsg.CreateTopicsResponse)
	if resp.Topics[0].ErrorCode != 0 {
		t.Fatalf("create topic: error %d", resp.Topics[0].ErrorCode)
	}
	return resp.Topics[0].TopicID
}

func TestResponsesComeInTheOrderOfRequests(t *testing.T) {
	_, addr := startServer(t, func(o *Options) { o.ReadAhead, o.ReadAheadMax = 8, 1<<20 })
	c := dialRaw(t, addr)
	b := &broker{rawClient: c, topic: createTopic(t, c, likeTopic, 3)}
	r := rand.New(rand.NewPCG(3, 4))
	var requests []kmsg.Request
	for range 400 {
		switch r.IntN(8) {
		case 0:
			requests = append(requests, kmsg.NewPtrDescribeClusterRequest())
		case 1:
			requests = append(requests, fetchRequest(9, b, fetchOf{0, 0, -1, -1}))
		case 2: // refused at once, while those before it wait for the disk
			requests = append(requests, produceRequest(9, b, -1, 99, newBatch(t, batch.BuilderOptions{}, likeTime, "x")))
		case 3:
			requests = append(requests, produceRequest(9, b, 0, int32(r.IntN(3)), newBatch(t, batch.BuilderOptions{}, likeTime, "x")))
		default:
			value := strings.Repeat("v", r.IntN(100_000))
			requests = append(requests, produceRequest(9, b, int16(-1+2*r.IntN(2)), int32(r.IntN(3)), newBatch(t, batch.BuilderOptions{}, likeTime, value)))
		}
	}
	first := c.id + 1
	go func() {
		f := kmsg.NewRequestFormatter(kmsg.FormatterClientID("raw"))
		for i, req := range requests {
			if _, err := c.nc.Write(f.AppendRequest(nil, req, first+int32(i))); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for i, req := range requests {
		if p, ok := req.(*kmsg.ProduceRequest); ok && p.Acks == 0 {
			continue
		}
		resp, id, err := c.receive(req)
		if err != nil {
			t.Fatalf("response %d: %v", i, err)
		}
		if id != first+int32(i) {
			t.Fatalf("response to %d, expected %d", id-first, i)
		}
		if p, ok := req.(*kmsg.ProduceRequest); ok {
			want := int16(0)
			if p.Topics[0].Partitions[0].Partition == 99 {
				want = codeUnknownTopicOrPartition
			}
			if got := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode; got != want {
				t.Fatalf("response %d: error %d, want %d", i, got, want)
			}
		}
	}
}

func TestProduceWithoutAcksClosesOnError(t *testing.T) {
	_, addr := startServer(t, nil)
	c := dialRaw(t, addr)
	b := &broker{rawClient: c, topic: createTopic(t, c, likeTopic, 1)}
	good := newBatch(t, batch.BuilderOptions{}, likeTime, "x")
	c.send(produceRequest(9, b, 0, 0, good))
	c.ask(kmsg.NewPtrDescribeClusterRequest()) // still there
	c.send(produceRequest(9, b, 0, 5, good))
	if _, _, err := c.receive(kmsg.NewPtrDescribeClusterRequest()); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want the connection closed", err)
	}
}

// TestStalledDiskTimesOutProducers is fault 1 of the audit: a producer hears within
// its own timeout, whatever the disk does, and that the disk is the reason.
func TestStalledDiskTimesOutProducers(t *testing.T) {
	release := make(chan struct{})
	fs := vfs.NewFaulty(vfs.OS())
	_, addr := startServerOn(t, fs, nil)
	c := dialRaw(t, addr)
	b := &broker{rawClient: c, topic: createTopic(t, c, likeTopic, 2)}
	good := func() []byte { return newBatch(t, batch.BuilderOptions{}, likeTime, "x") }
	c.ask(produceRequest(9, b, -1, 0, good()))

	fs.Inject(vfs.Fault{Op: vfs.OpSync, Path: "*.journal", Stall: release})
	requests := []*kmsg.ProduceRequest{produceRequest(9, b, -1, 0, good()), produceRequest(9, b, 1, 0, good()), produceRequest(9, b, -1, 77, nil)}
	start := time.Now()
	for _, req := range requests {
		req.TimeoutMillis = 1500
		c.send(req)
	}
	for i, want := range []int16{codeKafkaStorageError, codeKafkaStorageError, codeUnknownTopicOrPartition} {
		resp, _, err := c.receive(requests[i])
		if err != nil {
			t.Fatal(err)
		}
		if got := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode; got != want {
			t.Errorf("request %d: error %d, want %d", i, got, want)
		}
	}
	if took := time.Since(start); took < 1500*time.Millisecond || took > leastProduceTime+2*time.Second {
		t.Errorf("answered after %v", took)
	}
	if resp := c.ask(fetchRequest(12, b, fetchOf{0, 0, -1, -1})).(*kmsg.FetchResponse); resp.Topics[0].Partitions[0].HighWatermark != 1 {
		t.Errorf("high watermark %d while the disk stalls", resp.Topics[0].Partitions[0].HighWatermark)
	}
	close(release)
	if code := c.ask(produceRequest(9, b, -1, 0, good())).(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode; code != codeNone {
		t.Errorf("after the stall: error %d", code)
	}
}

// TestAnnouncedFramesTakeNoMemory is what makes Kafka run out of memory: clients
// that announce large requests and send little of them.
func TestAnnouncedFramesTakeNoMemory(t *testing.T) {
	s, addr := startServer(t, nil)
	c := dialRaw(t, addr)
	b := &broker{rawClient: c, topic: createTopic(t, c, likeTopic, 1)}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const connections, announced, sent = 40, 99 << 20, 64 << 10
	fronts := [][]byte{
		request(3, 9, 1, 0), // Metadata
		request(0, 9, 1, 0), // Produce without topics, but with much behind it
		largeProduce(9, announced-1000)[:100],
	}
	for i := range connections {
		nc := dialRaw(t, addr).nc
		frame := make([]byte, 4+sent)
		copy(frame, fronts[i%len(fronts)])
		frame[0], frame[1], frame[2], frame[3] = announced>>24, announced>>16&0xff, 0, 0
		if _, err := nc.Write(frame); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(5 * time.Second); s.Stats().Connections < connections+1; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("connections are missing")
		}
	}
	for range 20 { // it serves on meanwhile
		resp := c.ask(produceRequest(9, b, -1, 0, newBatch(t, batch.BuilderOptions{}, likeTime, strings.Repeat("x", 100_000))))
		if code := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode; code != codeNone {
			t.Fatalf("error %d", code)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	grown := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("%d connections took %d KiB of heap each", connections, grown/connections/1024)
	if grown > connections*256<<10 {
		t.Errorf("the heap has grown by %d KiB", grown>>10)
	}
}
