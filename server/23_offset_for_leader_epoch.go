package server

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// OffsetForLeaderEpoch (v2-4). Consumers ask it after a change of leader, to find
// out whether what they have read was cut off.
//
// v3: replica id, which makes no difference here
// v4: flexible
var offsetForLeaderEpoch = api{key: 23, min: 2, max: 4, serve: (*Server).offsetForLeaderEpoch}

func (s *Server) offsetForLeaderEpoch(_ context.Context, _ *call, request kmsg.Request) (kmsg.Response, error) {
	req := request.(*kmsg.OffsetForLeaderEpochRequest)
	resp := kmsg.NewPtrOffsetForLeaderEpochResponse()
	img := s.engine.Image()
	for i := range req.Topics {
		rt := kmsg.NewOffsetForLeaderEpochResponseTopic()
		rt.Topic = req.Topics[i].Topic
		topic := img.Topic(rt.Topic)
		for _, want := range req.Topics[i].Partitions {
			rp := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			rp.Partition, rp.LeaderEpoch, rp.EndOffset = want.Partition, -1, -1
			p, err := s.partition(topic, want.Partition)
			if err == nil {
				err = p.CheckLeader(want.CurrentLeaderEpoch)
			}
			if err == nil {
				rp.LeaderEpoch, rp.EndOffset = p.EndOffsetForEpoch(want.LeaderEpoch)
			}
			rp.ErrorCode = errorCode(err)
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp, nil
}
