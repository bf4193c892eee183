package server

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/segment/batch"
)

// recordOffsets reads the headers of the batches in a partition's answer, and
// fails when there is anything but whole batches that follow each other.
func recordOffsets(t *testing.T, b []byte, from int64) (next int64) {
	t.Helper()
	for next = from; len(b) > 0; {
		h, err := batch.Check(b)
		if err != nil {
			t.Fatalf("behind offset %d: %v", next, err)
		}
		if h.BaseOffset != next {
			t.Fatalf("batch at %d, expected %d", h.BaseOffset, next)
		}
		next = h.NextOffset()
		b = b[h.Size():]
	}
	return next
}

// TestFetchGivesWholeBatchesWithinItsBounds reads random batches of three
// partitions with random bounds, and gets each of them once.
func TestFetchGivesWholeBatchesWithinItsBounds(t *testing.T) {
	_, addr := startServer(t, func(o *Options) { o.FetchMaxBytes = 500_000 })
	c := dialRaw(t, addr)
	b := &broker{rawClient: c, topic: createTopic(t, c, likeTopic, 3)}
	r := rand.New(rand.NewPCG(7, 8))
	const batches = 60
	for range batches {
		for p := range int32(3) {
			value := make([]byte, r.IntN(1+r.IntN(300_000)))
			c.ask(produceRequest(9, b, -1, p, newBatch(t, batch.BuilderOptions{}, likeTime, string(value), "x")))
		}
	}
	const end = 2 * batches
	var next [3]int64
	for round := 0; next != [3]int64{end, end, end}; round++ {
		if round > 3*batches {
			t.Fatalf("no progress: %v", next)
		}
		req := fetchRequest(int16(4+r.IntN(15)), b, fetchOf{0, next[0], -1, -1}, fetchOf{1, next[1], -1, -1}, fetchOf{2, next[2], -1, -1})
		req.MaxBytes = int32(r.IntN(1 + r.IntN(1_000_000)))
		for i := range req.Topics[0].Partitions {
			req.Topics[0].Partitions[i].PartitionMaxBytes = int32(r.IntN(1 + r.IntN(400_000)))
		}
		resp := c.ask(req).(*kmsg.FetchResponse)
		total, first := 0, true
		for i, rp := range resp.Topics[0].Partitions {
			got := recordOffsets(t, rp.RecordBatches, next[i])
			limit := min(int(req.Topics[0].Partitions[i].PartitionMaxBytes), min(int(req.MaxBytes), 500_000)-total)
			if n := len(rp.RecordBatches); n > max(limit, 0) {
				if h, _ := batch.ReadHeader(rp.RecordBatches); !first || h.Size() != n {
					t.Fatalf("partition %d: %d bytes, %d allowed", i, n, limit)
				}
			}
			total += len(rp.RecordBatches)
			first = first && len(rp.RecordBatches) == 0
			next[i] = got
		}
		if first {
			t.Fatalf("nothing came from %v", next)
		}
	}
}

// waitingFetch sends a fetch that has nothing to give and waits for a minute.
func waitingFetch(c *rawClient, b *broker, minBytes int32, offset int64) *kmsg.FetchRequest {
	req := fetchRequest(12, b, fetchOf{0, offset, -1, -1}, fetchOf{1, offset, -1, -1})
	req.MaxWaitMillis, req.MinBytes = 60_000, minBytes
	c.send(req)
	return req
}

func TestWaitingFetchIsWokenByTheAppend(t *testing.T) {
	_, addr := startServer(t, nil)
	c, writer := dialRaw(t, addr), dialRaw(t, addr)
	b := &broker{rawClient: c, topic: createTopic(t, c, likeTopic, 2)}
	record := newBatch(t, batch.BuilderOptions{}, likeTime, string(make([]byte, 1000)))

	req := waitingFetch(c, b, 1, 0)
	writer.ask(produceRequest(9, b, -1, 1, bytes.Clone(record)))
	resp, _, err := c.receive(req)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(resp.(*kmsg.FetchResponse).Topics[0].Partitions[1].RecordBatches); n != len(record) {
		t.Errorf("%d bytes", n)
	}

	// Enough is what both partitions have together.
	writer.ask(produceRequest(9, b, -1, 0, bytes.Clone(record)))
	req = waitingFetch(c, b, 2500, 1)
	writer.ask(produceRequest(9, b, -1, 0, bytes.Clone(record)))
	writer.ask(produceRequest(9, b, -1, 1, bytes.Clone(record)))
	c.nc.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, err := c.nc.Read(make([]byte, 1)); err == nil {
		t.Fatalf("answered too early, %d bytes", n)
	}
	writer.ask(produceRequest(9, b, -1, 1, bytes.Clone(record)))
	writer.ask(produceRequest(9, b, -1, 0, bytes.Clone(record)))
	if resp, _, err = c.receive(req); err != nil {
		t.Fatal(err)
	}
	got := resp.(*kmsg.FetchResponse).Topics[0].Partitions
	if n := len(got[0].RecordBatches) + len(got[1].RecordBatches); n < 2500 {
		t.Errorf("%d bytes", n)
	}
}

func TestWaitingFetchIsAnsweredWhenItsTopicGoes(t *testing.T) {
	_, addr := startServer(t, nil)
	c, other := dialRaw(t, addr), dialRaw(t, addr)
	b := &broker{rawClient: c, topic: createTopic(t, c, likeTopic, 2)}
	req := waitingFetch(c, b, 1, 0)
	deleteTopic(t, other, likeTopic)
	resp, _, err := c.receive(req)
	if err != nil {
		t.Fatal(err)
	}
	if code := resp.(*kmsg.FetchResponse).Topics[0].Partitions[0].ErrorCode; code != codeUnknownTopicOrPartition {
		t.Errorf("error %d", code)
	}
}

func deleteTopic(t *testing.T, c *rawClient, name string) {
	t.Helper()
	del := kmsg.NewPtrDeleteTopicsRequest()
	del.SetVersion(6)
	topic := kmsg.NewDeleteTopicsRequestTopic()
	topic.Topic = &name
	del.Topics, del.TimeoutMillis = append(del.Topics, topic), 5000
	if resp := c.ask(del).(*kmsg.DeleteTopicsResponse); resp.Topics[0].ErrorCode != 0 {
		t.Fatalf("delete topic: error %d", resp.Topics[0].ErrorCode)
	}
}

func TestSessionNoticesThatItsTopicWasMadeAnew(t *testing.T) {
	_, addr := startServer(t, nil)
	c := dialRaw(t, addr)
	b := &broker{rawClient: c, topic: createTopic(t, c, likeTopic, 2)}
	ask := func(epoch int32) *kmsg.FetchResponse {
		req := fetchRequest(13, b, fetchOf{0, 0, -1, -1})
		req.SessionID, req.SessionEpoch = b.session, epoch
		if epoch > 0 {
			req.Topics = nil
		}
		resp := c.ask(req).(*kmsg.FetchResponse)
		b.session = resp.SessionID
		return resp
	}
	ask(0)
	deleteTopic(t, c, likeTopic)
	if got := ask(1).Topics[0].Partitions[0].ErrorCode; got != codeUnknownTopicOrPartition {
		t.Errorf("deleted: error %d", got)
	}
	createTopic(t, c, likeTopic, 2)
	if got := ask(2).Topics[0].Partitions[0].ErrorCode; got != codeInconsistentTopicID {
		t.Errorf("made anew: error %d", got)
	}
}

func TestShutdownAnswersWaitingFetches(t *testing.T) {
	s, addr := startServer(t, nil)
	c := dialRaw(t, addr)
	b := &broker{rawClient: c, topic: createTopic(t, c, likeTopic, 2)}
	req := waitingFetch(c, b, 1, 0)
	for s.Stats().Requests < 2 {
		time.Sleep(time.Millisecond) // until the server has it; there is nothing else to see
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.receive(req); err != nil {
		t.Errorf("the waiting fetch: %v", err)
	}
}
