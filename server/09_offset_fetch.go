package server

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine/coordinator"
)

// OffsetFetch (v1-10).
//
// v2: no topics for all of them; an error for the group as a whole
// v5: leader epochs
// v6: flexible
// v7: the client may want to wait for commits that are on their way
// v8: many groups at once
// v9: members of the new consumer protocol; a classic group does not look at them
// v10: topic ids
//
// Offsets of a group that does not exist are -1.
var offsetFetch = api{key: 9, min: 1, max: 10, serve: (*Server).offsetFetch}

func (s *Server) offsetFetch(ctx context.Context, c *call, req kmsg.Request) (kmsg.Response, error) {
	r := req.(*kmsg.OffsetFetchRequest)
	resp := kmsg.NewPtrOffsetFetchResponse()
	if c.version >= 8 {
		for _, g := range r.Groups {
			resp.Groups = append(resp.Groups, s.fetchGroup(ctx, c.version, g, r.RequireStable))
		}
		return resp, nil
	}
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = r.Group
	if r.Topics != nil || c.version < 2 {
		g.Topics = []kmsg.OffsetFetchRequestGroupTopic{}
	}
	for _, t := range r.Topics {
		g.Topics = append(g.Topics, kmsg.OffsetFetchRequestGroupTopic{Topic: t.Topic, Partitions: t.Partitions})
	}
	answer := s.fetchGroup(ctx, c.version, g, r.RequireStable)
	resp.ErrorCode = answer.ErrorCode
	if c.version < 2 && answer.ErrorCode != codeNone {
		answer.Topics = failedTopics(g.Topics, answer.ErrorCode)
	}
	for _, t := range answer.Topics {
		rt := kmsg.NewOffsetFetchResponseTopic()
		rt.Topic = t.Topic
		for _, p := range t.Partitions {
			rt.Partitions = append(rt.Partitions, kmsg.OffsetFetchResponseTopicPartition{
				Partition: p.Partition, Offset: p.Offset, LeaderEpoch: p.LeaderEpoch, Metadata: p.Metadata, ErrorCode: p.ErrorCode,
			})
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp, nil
}

// fetchGroup answers for one group, in the form of version 8.
func (s *Server) fetchGroup(ctx context.Context, version int16, g kmsg.OffsetFetchRequestGroup, stable bool) kmsg.OffsetFetchResponseGroup {
	resp := kmsg.NewOffsetFetchResponseGroup()
	resp.Group = g.Group
	all := g.Topics == nil
	image := s.engine.Image()
	var wanted []coordinator.FetchTopic
	var unknown []kmsg.OffsetFetchRequestGroupTopic
	for _, t := range g.Topics {
		name := t.Topic
		if version >= 10 {
			topic := image.TopicByID(t.TopicID)
			if topic == nil {
				unknown = append(unknown, t)
				continue
			}
			name = topic.Name
		}
		wanted = append(wanted, coordinator.FetchTopic{Topic: name, TopicID: t.TopicID, Partitions: t.Partitions})
	}
	fetched, err := s.engine.Groups().FetchOffsets(ctx, g.Group, wanted, all, stable)
	if err != nil {
		resp.ErrorCode = errorCode(err)
		return resp
	}
	for _, t := range fetched {
		rt := kmsg.NewOffsetFetchResponseGroupTopic()
		rt.Topic, rt.TopicID = t.Topic, t.TopicID
		if all && version >= 10 {
			topic := image.Topic(t.Topic)
			if topic == nil {
				continue // without an id it cannot be told
			}
			rt.TopicID = topic.ID
		}
		for _, o := range t.Offsets {
			rt.Partitions = append(rt.Partitions, kmsg.OffsetFetchResponseGroupTopicPartition{
				Partition: o.Partition, Offset: o.Offset, LeaderEpoch: o.LeaderEpoch, Metadata: &o.Metadata,
			})
		}
		resp.Topics = append(resp.Topics, rt)
	}
	resp.Topics = append(resp.Topics, failedTopics(unknown, codeUnknownTopicID)...)
	return resp
}

// failedTopics answers for topics with the same error for each partition.
func failedTopics(topics []kmsg.OffsetFetchRequestGroupTopic, code int16) []kmsg.OffsetFetchResponseGroupTopic {
	var failed []kmsg.OffsetFetchResponseGroupTopic
	none := ""
	for _, t := range topics {
		rt := kmsg.NewOffsetFetchResponseGroupTopic()
		rt.Topic, rt.TopicID = t.Topic, t.TopicID
		for _, p := range t.Partitions {
			rt.Partitions = append(rt.Partitions, kmsg.OffsetFetchResponseGroupTopicPartition{
				Partition: p, Offset: -1, LeaderEpoch: -1, Metadata: &none, ErrorCode: code,
			})
		}
		failed = append(failed, rt)
	}
	return failed
}
