package server

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ElectLeaders (v0-2). On one node every partition is led by its only replica, so
// there is never anything to elect. Null topics are all; those that need no
// election are left out then.
//
// v1: election type, an error code for the whole response
// v2: flexible
var electLeaders = api{key: 43, min: 0, max: 2, serve: (*Server).electLeaders}

func (s *Server) electLeaders(_ context.Context, c *call, request kmsg.Request) (kmsg.Response, error) {
	const preferred, unclean = 0, 1
	req := request.(*kmsg.ElectLeadersRequest)
	resp := kmsg.NewPtrElectLeadersResponse()
	if c.version >= 1 && req.ElectionType != preferred && req.ElectionType != unclean {
		resp.ErrorCode = codeInvalidRequest
		message := fmt.Sprintf("Unknown election type %d", req.ElectionType)
		for i := range req.Topics {
			rt := kmsg.NewElectLeadersResponseTopic()
			rt.Topic = req.Topics[i].Topic
			for _, index := range req.Topics[i].Partitions {
				rt.Partitions = append(rt.Partitions, elected(index, codeInvalidRequest, message))
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil
	}
	img := s.engine.Image()
	if req.Topics == nil {
		for _, topic := range img.Topics() {
			rt := kmsg.NewElectLeadersResponseTopic()
			rt.Topic = topic.Name
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil
	}
	for i := range req.Topics {
		rt := kmsg.NewElectLeadersResponseTopic()
		rt.Topic = req.Topics[i].Topic
		topic := img.Topic(rt.Topic)
		for _, index := range req.Topics[i].Partitions {
			rp := elected(index, codeElectionNotNeeded, "Leader election not needed for topic partition.")
			switch {
			case topic == nil:
				rp = elected(index, codeUnknownTopicOrPartition, "No such topic as "+rt.Topic)
			case index < 0 || int(index) >= len(topic.Partitions):
				rp = elected(index, codeUnknownTopicOrPartition, fmt.Sprintf("No such partition as %s-%d", rt.Topic, index))
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp, nil
}

func elected(partition int32, code int16, message string) kmsg.ElectLeadersResponseTopicPartition {
	rp := kmsg.NewElectLeadersResponseTopicPartition()
	rp.Partition, rp.ErrorCode, rp.ErrorMessage = partition, code, nullable(message)
	return rp
}
