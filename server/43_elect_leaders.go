package server

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/catalog"
)

// ElectLeaders (v0-2). All elections of a request are one change of the catalogue. Null topics are all; those that need no
// election are left out then.
//
// v1: election type, an error code for the whole response
// v2: flexible
var electLeaders = api{key: 43, min: 0, max: 2, serve: (*Server).electLeaders}

func (s *Server) electLeaders(ctx context.Context, c *call, request kmsg.Request) (kmsg.Response, error) {
	req := request.(*kmsg.ElectLeadersRequest)
	resp := kmsg.NewPtrElectLeadersResponse()
	kind := catalog.ElectionKind(req.ElectionType)
	if c.version == 0 {
		kind = catalog.PreferredElection
	}
	all := req.Topics == nil
	if all {
		for _, t := range s.engine.Image().Topics() {
			rt := kmsg.NewElectLeadersRequestTopic()
			rt.Topic = t.Name
			for i := range t.Partitions {
				rt.Partitions = append(rt.Partitions, int32(i))
			}
			req.Topics = append(req.Topics, rt)
		}
	}
	var of []engine.PartitionName
	for i := range req.Topics {
		for _, index := range req.Topics[i].Partitions {
			of = append(of, engine.PartitionName{Topic: req.Topics[i].Topic, Partition: index})
		}
	}
	var codes []int16
	var messages []*string
	switch kind {
	case catalog.PreferredElection, catalog.UncleanElection:
		ctx, cancel := within(ctx, req.TimeoutMillis)
		defer cancel()
		for _, err := range s.engine.Topics().ElectLeaders(ctx, kind, of) {
			code, message := adminError(err)
			codes, messages = append(codes, code), append(messages, message)
		}
	default:
		message := fmt.Sprintf("Unknown election type %d", req.ElectionType)
		resp.ErrorCode = codeInvalidRequest
		for range of {
			codes, messages = append(codes, codeInvalidRequest), append(messages, &message)
		}
		if all {
			req.Topics = nil
		}
	}
	n := 0
	for i := range req.Topics {
		rt := kmsg.NewElectLeadersResponseTopic()
		rt.Topic = req.Topics[i].Topic
		for _, index := range req.Topics[i].Partitions {
			if !all || codes[n] != codeElectionNotNeeded {
				rp := kmsg.NewElectLeadersResponseTopicPartition()
				rp.Partition, rp.ErrorCode, rp.ErrorMessage = index, codes[n], messages[n]
				rt.Partitions = append(rt.Partitions, rp)
			}
			n++
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp, nil
}
