package server

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/engine/group"
)

// OffsetCommit (v2-10).
//
// v2: the client may say how long to keep the offsets, until v5
// v6: leader epochs
// v7: static members
// v8: flexible
// v9: an unknown group is told apart from a stale generation
// v10: topic ids
//
// The answer comes when the offsets are durable. Partitions that do not exist are refused one by one.
var offsetCommit = api{key: 8, min: 2, max: 10, serve: (*Server).offsetCommit}

func (s *Server) offsetCommit(ctx context.Context, c *call, req kmsg.Request) (kmsg.Response, error) {
	r := req.(*kmsg.OffsetCommitRequest)
	image := s.engine.Image()
	var refused commitAnswer
	var topics []group.CommitTopic
	for _, t := range r.Topics {
		topic, code := findCommitTopic(image, c.version, t)
		wanted := group.CommitTopic{Topic: t.Topic, TopicID: t.TopicID}
		if topic != nil {
			wanted.Topic, wanted.TopicID = topic.Name, topic.ID
		}
		for _, p := range t.Partitions {
			switch {
			case topic == nil:
				refused.add(wanted.Topic, wanted.TopicID, p.Partition, code)
			case p.Partition < 0 || int(p.Partition) >= len(topic.Partitions):
				refused.add(wanted.Topic, wanted.TopicID, p.Partition, codeUnknownTopicOrPartition)
			default:
				wanted.Partitions = append(wanted.Partitions, group.CommitPartition{
					Partition: p.Partition, Offset: p.Offset, LeaderEpoch: p.LeaderEpoch, Metadata: text(p.Metadata),
				})
			}
		}
		if len(wanted.Partitions) > 0 {
			topics = append(topics, wanted)
		}
	}
	if len(topics) == 0 {
		return refused.response(), nil
	}
	ev := group.Commit{
		MemberID: r.MemberID, InstanceID: r.InstanceID, Generation: r.Generation, RetentionMs: -1,
		UnknownGroupError: c.version >= 9, Topics: topics,
	}
	if c.version <= 4 {
		ev.RetentionMs = r.RetentionTimeMillis
	}
	answer := s.engine.Groups().Commit(ctx, r.Group, ev)
	if answer.Err != nil {
		for _, t := range topics {
			for _, p := range t.Partitions {
				refused.add(t.Topic, t.TopicID, p.Partition, errorCode(answer.Err))
			}
		}
		return refused.response(), nil
	}
	for _, t := range answer.Topics {
		for _, p := range t.Partitions {
			refused.add(t.Topic, t.TopicID, p.Partition, errorCode(p.Err))
		}
	}
	return refused.response(), nil
}

// findCommitTopic is the topic that a commit means, or the code that says why there is none.
func findCommitTopic(image *catalog.Image, version int16, t kmsg.OffsetCommitRequestTopic) (*catalog.Topic, int16) {
	if version >= 10 {
		return image.TopicByID(t.TopicID), codeUnknownTopicID
	}
	return image.Topic(t.Topic), codeUnknownTopicOrPartition
}

// commitAnswer gathers the outcomes of partitions by topic.
type commitAnswer struct {
	topics []kmsg.OffsetCommitResponseTopic
	places map[commitPlace]int
}

type commitPlace struct {
	name string
	id   [16]byte
}

func (a *commitAnswer) add(name string, id [16]byte, partition int32, code int16) {
	place := commitPlace{name, id}
	at, ok := a.places[place]
	if !ok {
		if a.places == nil {
			a.places = map[commitPlace]int{}
		}
		at = len(a.topics)
		a.places[place] = at
		a.topics = append(a.topics, kmsg.OffsetCommitResponseTopic{Topic: name, TopicID: id})
	}
	p := kmsg.NewOffsetCommitResponseTopicPartition()
	p.Partition, p.ErrorCode = partition, code
	a.topics[at].Partitions = append(a.topics[at].Partitions, p)
}

func (a *commitAnswer) response() kmsg.Response {
	resp := kmsg.NewPtrOffsetCommitResponse()
	resp.Topics = a.topics
	return resp
}
