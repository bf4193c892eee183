package server

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine/group"
)

// OffsetDelete (v0). Offsets of topics that the group reads stay.
var offsetDelete = api{key: 47, min: 0, max: 0, serve: (*Server).offsetDelete}

func (s *Server) offsetDelete(ctx context.Context, _ *call, req kmsg.Request) (kmsg.Response, error) {
	r := req.(*kmsg.OffsetDeleteRequest)
	image := s.engine.Image()
	var ev group.DeleteOffsets
	var answered offsetDeleteAnswer
	for _, t := range r.Topics {
		topic := image.Topic(t.Topic)
		wanted := group.DeleteTopic{Topic: t.Topic}
		for _, p := range t.Partitions {
			if topic == nil || p.Partition < 0 || int(p.Partition) >= len(topic.Partitions) {
				answered.add(t.Topic, p.Partition, codeUnknownTopicOrPartition)
				continue
			}
			wanted.Partitions = append(wanted.Partitions, p.Partition)
		}
		if len(wanted.Partitions) > 0 {
			ev.Topics = append(ev.Topics, wanted)
		}
	}
	answer := s.engine.Groups().DeleteOffsets(ctx, r.Group, ev)
	if answer.Err != nil {
		resp := kmsg.NewPtrOffsetDeleteResponse()
		resp.ErrorCode = errorCode(answer.Err)
		return resp, nil
	}
	for _, t := range answer.Topics {
		for _, p := range t.Partitions {
			answered.add(t.Topic, p.Partition, errorCode(p.Err))
		}
	}
	resp := kmsg.NewPtrOffsetDeleteResponse()
	resp.Topics = answered.topics
	return resp, nil
}

// offsetDeleteAnswer gathers the outcomes of partitions by topic.
type offsetDeleteAnswer struct {
	topics []kmsg.OffsetDeleteResponseTopic
	places map[string]int
}

func (a *offsetDeleteAnswer) add(topic string, partition int32, code int16) {
	at, ok := a.places[topic]
	if !ok {
		if a.places == nil {
			a.places = map[string]int{}
		}
		at = len(a.topics)
		a.places[topic] = at
		a.topics = append(a.topics, kmsg.OffsetDeleteResponseTopic{Topic: topic})
	}
	p := kmsg.NewOffsetDeleteResponseTopicPartition()
	p.Partition, p.ErrorCode = partition, code
	a.topics[at].Partitions = append(a.topics[at].Partitions, p)
}
