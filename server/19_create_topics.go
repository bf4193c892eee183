package server

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine"
)

// CreateTopics (v2-7). All topics of a request are one change of the catalogue.
//
// v4: -1 stands for the broker's number of partitions and replication factor
// v5: flexible; the answer tells partitions, replication factor and configs
// v6: THROTTLING_QUOTA_EXCEEDED
// v7: the answer tells the topic's id
//
// Not offered: policies (create.topic.policy.class.name) and quotas.
var createTopics = api{key: 19, min: 2, max: 7, serve: (*Server).createTopics}

func (s *Server) createTopics(ctx context.Context, _ *call, request kmsg.Request) (kmsg.Response, error) {
	req := request.(*kmsg.CreateTopicsRequest)
	resp := kmsg.NewPtrCreateTopicsResponse()
	ctx, cancel := within(ctx, req.TimeoutMillis)
	defer cancel()
	topics := make([]engine.NewTopic, len(req.Topics))
	for i := range req.Topics {
		topics[i] = newTopic(&req.Topics[i])
	}
	for _, c := range s.engine.Topics().Create(ctx, topics, req.ValidateOnly) {
		resp.Topics = append(resp.Topics, createdTopic(c))
	}
	return resp, nil
}

func newTopic(t *kmsg.CreateTopicsRequestTopic) engine.NewTopic {
	n := engine.NewTopic{Name: t.Topic, Partitions: t.NumPartitions, ReplicationFactor: t.ReplicationFactor}
	for _, a := range t.ReplicaAssignment {
		n.Assignments = append(n.Assignments, engine.Assignment{Partition: a.Partition, Replicas: a.Replicas})
	}
	for _, c := range t.Configs {
		n.Configs = append(n.Configs, engine.ConfigValue{Name: c.Name, Value: c.Value})
	}
	return n
}

func createdTopic(c engine.CreatedTopic) kmsg.CreateTopicsResponseTopic {
	rt := kmsg.NewCreateTopicsResponseTopic()
	rt.Topic = c.Name
	rt.Configs = []kmsg.CreateTopicsResponseTopicConfig{} // null would say that they may not be seen
	if rt.ErrorCode, rt.ErrorMessage = adminError(c.Err); rt.ErrorCode != codeNone {
		return rt
	}
	rt.TopicID, rt.NumPartitions, rt.ReplicationFactor = c.ID, c.Partitions, c.ReplicationFactor
	for _, e := range c.Configs {
		rc := kmsg.NewCreateTopicsResponseTopicConfig()
		rc.Name, rc.Value, rc.Source, rc.ReadOnly, rc.IsSensitive = e.Name, e.Value, int8(e.Source), e.ReadOnly, e.Sensitive
		rt.Configs = append(rt.Configs, rc)
	}
	return rt
}
