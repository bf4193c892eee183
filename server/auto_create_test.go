package server

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestAutoCreatedTopic: the question that creates a topic is answered with it, but
// for a moment after a deletion it is answered, as by Kafka, that the topic is gone.
func TestAutoCreatedTopic(t *testing.T) {
	var later atomic.Int64
	_, addr := startServer(t, func(o *Options) {
		o.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	})
	cl := newClient(t, addr)
	remove := func() {
		t.Helper()
		req := kmsg.NewPtrDeleteTopicsRequest()
		topic := kmsg.NewDeleteTopicsRequestTopic()
		topic.Topic = kmsg.StringPtr("asked-for")
		req.Topics, req.TopicNames = append(req.Topics, topic), []string{"asked-for"}
		if resp, err := req.RequestWith(t.Context(), cl); err != nil || len(resp.Topics) != 1 || resp.Topics[0].ErrorCode != codeNone {
			t.Fatalf("have %+v, %v", resp, err)
		}
	}
	nothing := func() {}
	for _, step := range []struct {
		name       string
		before     func()
		create     bool
		code       int16
		partitions int
	}{
		{"not to be created", nothing, false, codeUnknownTopicOrPartition, 0},
		{"created by this", nothing, true, codeNone, 3},
		{"deleted", remove, true, codeUnknownTopicOrPartition, 0},
		{"created by the question before", nothing, true, codeNone, 3},
		{"deleted some time ago", func() { remove(); later.Store(int64(deletionTime)) }, true, codeNone, 3},
	} {
		step.before()
		req := kmsg.NewPtrMetadataRequest()
		topic := kmsg.NewMetadataRequestTopic()
		topic.Topic = kmsg.StringPtr("asked-for")
		req.Topics, req.AllowAutoTopicCreation = append(req.Topics, topic), step.create
		resp, err := req.RequestWith(t.Context(), cl)
		if err != nil || len(resp.Topics) != 1 {
			t.Fatalf("%s: have %+v, %v", step.name, resp, err)
		}
		if have := resp.Topics[0]; have.ErrorCode != step.code || len(have.Partitions) != step.partitions {
			t.Errorf("%s: have code %d and %d partitions, want %d and %d", step.name, have.ErrorCode, len(have.Partitions), step.code, step.partitions)
		}
	}
}

func TestDeletionsAreBounded(t *testing.T) {
	now := time.Unix(0, 0)
	d := newDeletions(func() time.Time { return now })
	for i := range 3 * mostDeletions {
		d.add(fmt.Sprint(i))
		if !d.recent(fmt.Sprint(i)) || len(d.at) > mostDeletions {
			t.Fatalf("%d are remembered, the newest: %t", len(d.at), d.recent(fmt.Sprint(i)))
		}
	}
	now = now.Add(deletionTime)
	if d.recent(fmt.Sprint(3*mostDeletions - 1)) {
		t.Error("a deletion is recent for ever")
	}
}
