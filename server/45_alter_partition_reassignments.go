package server

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine/catalog"
)

// AlterPartitionReassignments (v0-1). On one node the only assignment that may be
// asked for is the one that is. Null replicas cancel a reassignment; none is ever under way.
//
// v1: a change of the replication factor may be forbidden
var alterPartitionReassignments = api{key: 45, min: 0, max: 1, serve: (*Server).alterPartitionReassignments}

func (s *Server) alterPartitionReassignments(_ context.Context, _ *call, request kmsg.Request) (kmsg.Response, error) {
	req := request.(*kmsg.AlterPartitionAssignmentsRequest)
	resp := kmsg.NewPtrAlterPartitionAssignmentsResponse()
	resp.AllowReplicationFactorChange = req.AllowReplicationFactorChange
	img := s.engine.Image()
	for i := range req.Topics {
		rt := kmsg.NewAlterPartitionAssignmentsResponseTopic()
		rt.Topic = req.Topics[i].Topic
		topic := img.Topic(rt.Topic)
		for n := range req.Topics[i].Partitions {
			p := &req.Topics[i].Partitions[n]
			rp := kmsg.NewAlterPartitionAssignmentsResponseTopicPartition()
			rp.Partition = p.Partition
			rp.ErrorCode, rp.ErrorMessage = s.reassign(img, topic, rt.Topic, p)
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp, nil
}

// reassign judges the assignment that is asked for one partition.
func (s *Server) reassign(img *catalog.Image, topic *catalog.Topic, name string, p *kmsg.AlterPartitionAssignmentsRequestTopicPartition) (code int16, message *string) {
	switch {
	case topic == nil:
		return codeUnknownTopicOrPartition, nullable(fmt.Sprintf("Unable to find a topic named %s.", name))
	case p.Partition < 0 || int(p.Partition) >= len(topic.Partitions):
		return codeUnknownTopicOrPartition, nullable(fmt.Sprintf("Unable to find partition %s:%d.", name, p.Partition))
	case p.Replicas == nil:
		return codeNoReassignmentInProgress, nil
	}
	return adminError(s.engine.Topics().CheckReassignment(img, topic.Partitions[p.Partition].Replicas, p.Replicas))
}
