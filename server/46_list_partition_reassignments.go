package server

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine/catalog"
)

// ListPartitionReassignments (v0). Null topics are all. Partitions that are not being moved, or do not exist, are left out.
var listPartitionReassignments = api{key: 46, min: 0, max: 0, serve: (*Server).listPartitionReassignments}

func (s *Server) listPartitionReassignments(_ context.Context, _ *call, request kmsg.Request) (kmsg.Response, error) {
	req := request.(*kmsg.ListPartitionReassignmentsRequest)
	resp := kmsg.NewPtrListPartitionReassignmentsResponse()
	img := s.engine.Image()
	add := func(t *catalog.Topic, index int32) {
		p := &t.Partitions[index]
		if n := len(resp.Topics); n == 0 || resp.Topics[n-1].Topic != t.Name {
			rt := kmsg.NewListPartitionReassignmentsResponseTopic()
			rt.Topic = t.Name
			resp.Topics = append(resp.Topics, rt)
		}
		rp := kmsg.NewListPartitionReassignmentsResponseTopicPartition()
		rp.Partition, rp.Replicas, rp.AddingReplicas, rp.RemovingReplicas = index, p.Replicas, p.Adding, p.Removing
		rt := &resp.Topics[len(resp.Topics)-1]
		rt.Partitions = append(rt.Partitions, rp)
	}
	if req.Topics == nil {
		for t, index := range img.Reassigning() {
			add(t, index)
		}
		return resp, nil
	}
	for i := range req.Topics {
		t := img.Topic(req.Topics[i].Topic)
		if t == nil {
			continue
		}
		for _, index := range req.Topics[i].Partitions {
			if index >= 0 && int(index) < len(t.Partitions) && t.Partitions[index].Reassigning() {
				add(t, index)
			}
		}
	}
	return resp, nil
}
