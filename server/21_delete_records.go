package server

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DeleteRecords (v0-2). An offset of -1 is the high watermark.
//
// v2: flexible
//
// Kafka's timeout counts only the wait for other replicas, so some clients send 0.
var deleteRecords = api{key: 21, min: 0, max: 2, serve: (*Server).deleteRecords}

// leastDeleteTime is how long a new log start offset may always take to become durable.
const leastDeleteTime = 5 * time.Second

func (s *Server) deleteRecords(ctx context.Context, _ *call, request kmsg.Request) (kmsg.Response, error) {
	req := request.(*kmsg.DeleteRecordsRequest)
	resp := kmsg.NewPtrDeleteRecordsResponse()
	ctx, cancel := context.WithTimeout(ctx, max(time.Duration(req.TimeoutMillis)*time.Millisecond, leastDeleteTime))
	defer cancel()
	img := s.engine.Image()
	for i := range req.Topics {
		rt := kmsg.NewDeleteRecordsResponseTopic()
		rt.Topic = req.Topics[i].Topic
		topic := img.Topic(rt.Topic)
		for _, want := range req.Topics[i].Partitions {
			rp := kmsg.NewDeleteRecordsResponseTopicPartition()
			rp.Partition, rp.LowWatermark = want.Partition, -1
			p, err := s.partition(topic, want.Partition)
			if err == nil {
				var start int64
				if start, err = p.DeleteRecordsBefore(ctx, want.Offset); err == nil {
					rp.LowWatermark = start
				}
			}
			rp.ErrorCode = errorCode(err)
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp, nil
}
