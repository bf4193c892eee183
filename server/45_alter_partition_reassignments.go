package server

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine"
)

// AlterPartitionReassignments (v0-1). All moves of a request begin with one change of the catalogue, and the answer does not
// wait for them. Null replicas end what is in progress. On a node that is alone the only assignment that may be asked for is the one that is.
//
// v1: a change of the replication factor may be forbidden
var alterPartitionReassignments = api{key: 45, min: 0, max: 1, serve: (*Server).alterPartitionReassignments}

func (s *Server) alterPartitionReassignments(ctx context.Context, c *call, request kmsg.Request) (kmsg.Response, error) {
	req := request.(*kmsg.AlterPartitionAssignmentsRequest)
	resp := kmsg.NewPtrAlterPartitionAssignmentsResponse()
	resp.AllowReplicationFactorChange = req.AllowReplicationFactorChange
	ctx, cancel := within(ctx, req.TimeoutMillis)
	defer cancel()
	var wanted []engine.Reassignment
	for i := range req.Topics {
		for _, p := range req.Topics[i].Partitions {
			wanted = append(wanted, engine.Reassignment{
				PartitionName: engine.PartitionName{Topic: req.Topics[i].Topic, Partition: p.Partition}, Replicas: p.Replicas,
			})
		}
	}
	errs := s.engine.Topics().Reassign(ctx, wanted, c.version >= 1 && !req.AllowReplicationFactorChange)
	for i := range req.Topics {
		rt := kmsg.NewAlterPartitionAssignmentsResponseTopic()
		rt.Topic = req.Topics[i].Topic
		for _, p := range req.Topics[i].Partitions {
			rp := kmsg.NewAlterPartitionAssignmentsResponseTopicPartition()
			rp.Partition = p.Partition
			rp.ErrorCode, rp.ErrorMessage = adminError(errs[0])
			rt.Partitions, errs = append(rt.Partitions, rp), errs[1:]
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp, nil
}
