package server

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine"
)

// CreatePartitions (v0-3). All topics of a request are one change of the catalogue.
//
// v2: flexible
// v3: THROTTLING_QUOTA_EXCEEDED
var createPartitions = api{key: 37, min: 0, max: 3, serve: (*Server).createPartitions}

func (s *Server) createPartitions(ctx context.Context, _ *call, request kmsg.Request) (kmsg.Response, error) {
	req := request.(*kmsg.CreatePartitionsRequest)
	resp := kmsg.NewPtrCreatePartitionsResponse()
	ctx, cancel := within(ctx, req.TimeoutMillis)
	defer cancel()
	topics := make([]engine.MorePartitions, len(req.Topics))
	for i := range req.Topics {
		t := &req.Topics[i]
		topics[i] = engine.MorePartitions{Topic: t.Topic, Count: t.Count}
		if t.Assignment == nil {
			continue // the broker chooses
		}
		topics[i].Assignments = make([][]int32, len(t.Assignment))
		for n, a := range t.Assignment {
			topics[i].Assignments[n] = a.Replicas
		}
	}
	for _, g := range s.engine.Topics().CreatePartitions(ctx, topics, req.ValidateOnly) {
		rt := kmsg.NewCreatePartitionsResponseTopic()
		rt.Topic = g.Topic
		rt.ErrorCode, rt.ErrorMessage = adminError(g.Err)
		resp.Topics = append(resp.Topics, rt)
	}
	return resp, nil
}
