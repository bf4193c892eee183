package server

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestAutoCreatedTopicIsInTheNextAnswer: as with Kafka, the question that creates a
// topic is answered that it is unknown.
func TestAutoCreatedTopicIsInTheNextAnswer(t *testing.T) {
	_, addr := startServer(t, nil)
	cl := newClient(t, addr)
	ask := func(create bool) kmsg.MetadataResponseTopic {
		t.Helper()
		req := kmsg.NewPtrMetadataRequest()
		topic := kmsg.NewMetadataRequestTopic()
		topic.Topic = kmsg.StringPtr("asked-for")
		req.Topics, req.AllowAutoTopicCreation = append(req.Topics, topic), create
		resp, err := req.RequestWith(t.Context(), cl)
		if err != nil || len(resp.Topics) != 1 {
			t.Fatalf("have %+v, %v", resp, err)
		}
		return resp.Topics[0]
	}
	for _, step := range []struct {
		name       string
		create     bool
		code       int16
		partitions int
	}{
		{"not to be created", false, codeUnknownTopicOrPartition, 0},
		{"created by this", true, codeUnknownTopicOrPartition, 0},
		{"there", true, codeNone, 3},
	} {
		if have := ask(step.create); have.ErrorCode != step.code || len(have.Partitions) != step.partitions {
			t.Errorf("%s: have code %d and %d partitions, want %d and %d", step.name, have.ErrorCode, len(have.Partitions), step.code, step.partitions)
		}
	}
}
