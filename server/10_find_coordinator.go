package server

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine"
)

// FindCoordinator (v0-6).
//
// v1: transactional ids beside groups
// v3: flexible
// v4: many keys at once
// v5: transactions that can be aborted: nothing to see here
// v6: share groups
//
// The coordinator of a group is the leader of its partition of __consumer_offsets, which exists from here on.
// There is no coordinator of transactions and of share groups. Kafka would say COORDINATOR_NOT_AVAILABLE while it
// makes theirs, and clients would ask again until they give up after a minute; INVALID_REQUEST tells them at once.
var findCoordinator = api{key: 10, min: 0, max: 6, serve: (*Server).findCoordinator}

const (
	coordinatorOfGroup       = 0
	coordinatorOfTransaction = 1
)

func (s *Server) findCoordinator(ctx context.Context, c *call, req kmsg.Request) (kmsg.Response, error) {
	r := req.(*kmsg.FindCoordinatorRequest)
	resp := kmsg.NewPtrFindCoordinatorResponse()
	if c.version < 4 {
		found := s.coordinatorOf(ctx, c, r.CoordinatorType, r.CoordinatorKey)
		resp.ErrorCode, resp.ErrorMessage = found.ErrorCode, found.ErrorMessage
		resp.NodeID, resp.Host, resp.Port = found.NodeID, found.Host, found.Port
		if found.ErrorCode == codeNone {
			message := "NONE"
			resp.ErrorMessage = &message
		}
		return resp, nil
	}
	for _, key := range r.CoordinatorKeys {
		resp.Coordinators = append(resp.Coordinators, s.coordinatorOf(ctx, c, r.CoordinatorType, key))
	}
	return resp, nil
}

func (s *Server) coordinatorOf(ctx context.Context, c *call, kind int8, key string) kmsg.FindCoordinatorResponseCoordinator {
	found := kmsg.NewFindCoordinatorResponseCoordinator()
	message := ""
	found.Key, found.NodeID, found.Port, found.ErrorMessage = key, -1, -1, &message
	switch kind {
	case coordinatorOfGroup:
	case coordinatorOfTransaction:
		found.ErrorCode, message = codeInvalidRequest, "This broker has no transaction coordinator."
		return found
	default:
		found.ErrorCode, message = codeInvalidRequest, "This broker has no coordinator of this type."
		return found
	}
	if err := s.engine.Groups().EnsureTopic(ctx); err != nil {
		found.ErrorCode, message = errorCode(err), "The coordinator is not available."
		return found
	}
	leader, host, port := s.leaderOfGroup(c, key)
	if leader < 0 {
		found.ErrorCode, message = codeCoordinatorNotAvailable, "The coordinator is not available."
		return found
	}
	found.NodeID, found.Host, found.Port = leader, host, port
	return found
}

// leaderOfGroup is the broker that leads the group's partition of __consumer_offsets, -1 when none does.
func (s *Server) leaderOfGroup(c *call, group string) (id int32, host string, port int32) {
	img := s.engine.Image()
	topic := img.Topic(engine.OffsetsTopic)
	partition, exists := s.engine.Groups().PartitionFor(group)
	if topic == nil || !exists || int(partition) >= len(topic.Partitions) {
		return -1, "", -1
	}
	leader, _ := s.available(img, topic, int(partition))
	if leader < 0 {
		return -1, "", -1
	}
	host, port, _, found := s.brokerEndpoint(c, leader)
	if !found {
		return -1, "", -1
	}
	return leader, host, port
}
