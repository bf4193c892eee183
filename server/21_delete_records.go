package server

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DeleteRecords (v0-2). An offset of -1 is the high watermark.
//
// v2: flexible
var deleteRecords = api{key: 21, min: 0, max: 2, serve: (*Server).deleteRecords}

func (s *Server) deleteRecords(ctx context.Context, _ *call, request kmsg.Request) (kmsg.Response, error) {
	req := request.(*kmsg.DeleteRecordsRequest)
	resp := kmsg.NewPtrDeleteRecordsResponse()
	ctx, cancel := context.WithTimeout(ctx, time.Duration(max(req.TimeoutMillis, 0))*time.Millisecond)
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
