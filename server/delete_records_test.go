package server

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestDeleteRecordsWithoutTimeout: a timeout of 0 does not hurry what this broker
// does alone.
func TestDeleteRecordsWithoutTimeout(t *testing.T) {
	_, addr := startServer(t, nil, "num.partitions", "1")
	cl := newClient(t, addr, kgo.DefaultProduceTopic("shortened"), kgo.ProducerLinger(time.Millisecond))
	if err := cl.ProduceSync(t.Context(), kgo.StringRecord("a"), kgo.StringRecord("b")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	req := kmsg.NewPtrDeleteRecordsRequest()
	topic := kmsg.NewDeleteRecordsRequestTopic()
	part := kmsg.NewDeleteRecordsRequestTopicPartition()
	part.Offset = 1
	topic.Topic, topic.Partitions = "shortened", append(topic.Partitions, part)
	req.Topics, req.TimeoutMillis = append(req.Topics, topic), 0
	resp, err := req.RequestWith(t.Context(), cl)
	if err != nil || len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		t.Fatalf("have %+v, %v", resp, err)
	}
	if have := resp.Topics[0].Partitions[0]; have.ErrorCode != codeNone || have.LowWatermark != 1 {
		t.Errorf("have code %d, low watermark %d", have.ErrorCode, have.LowWatermark)
	}
}
