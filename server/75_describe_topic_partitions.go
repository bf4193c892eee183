package server

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/catalog"
)

// DescribeTopicPartitions (v0): like Metadata, page by page. Topics come in the
// order of their names; a page that is not the last names where the next begins.
var describeTopicPartitions = api{key: 75, min: 0, max: 0, serve: (*Server).describeTopicPartitions}

func (s *Server) describeTopicPartitions(_ context.Context, _ *call, request kmsg.Request) (kmsg.Response, error) {
	req := request.(*kmsg.DescribeTopicPartitionsRequest)
	resp := kmsg.NewPtrDescribeTopicPartitionsResponse()
	img := s.engine.Image()
	all := len(req.Topics) == 0
	names, ok := topicPage(img, req)
	if !ok {
		return refusedTopicPage(req), nil
	}
	left := max(min(int(req.ResponsePartitionLimit), s.engine.Config().MaxRequestPartitionSize), 1)
	next := func(topic string, partition int32) {
		c := kmsg.NewDescribeTopicPartitionsResponseNextCursor()
		c.Topic, c.Partition = topic, partition
		resp.NextCursor = &c
	}
	for _, name := range names {
		if left == 0 {
			next(name, 0)
			break
		}
		rt := kmsg.NewDescribeTopicPartitionsResponseTopic()
		rt.Topic, rt.IsInternal, rt.AuthorizedOperations = &name, engine.IsInternal(name), topicOperations
		t := img.Topic(name)
		if t == nil {
			if !all {
				rt.ErrorCode = codeUnknownTopicOrPartition
				if engine.CheckTopicName(name) != nil {
					rt.ErrorCode = codeInvalidTopicException
				}
				resp.Topics = append(resp.Topics, rt)
			}
			continue
		}
		rt.TopicID = t.ID
		from := 0
		if req.Cursor != nil && req.Cursor.Topic == name {
			from = int(req.Cursor.Partition)
		}
		to := min(len(t.Partitions), from+left)
		for i := from; i < to; i++ {
			rt.Partitions = append(rt.Partitions, s.describePartition(img, t, i))
		}
		resp.Topics = append(resp.Topics, rt)
		if to < len(t.Partitions) {
			next(name, int32(to))
			break
		}
		left -= max(to-from, 0)
	}
	return resp, nil
}

// topicPage lists the names to be described, from the cursor on. It fails when the
// cursor makes no sense.
func topicPage(img *catalog.Image, req *kmsg.DescribeTopicPartitionsRequest) (names []string, ok bool) {
	from := ""
	if req.Cursor != nil {
		from = req.Cursor.Topic
		if req.Cursor.Partition < 0 {
			return nil, false
		}
	}
	if len(req.Topics) == 0 {
		for _, t := range img.Topics() {
			if t.Name >= from {
				names = append(names, t.Name)
			}
		}
		return names, true
	}
	for i := range req.Topics {
		if req.Topics[i].Topic >= from {
			names = append(names, req.Topics[i].Topic)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return names, req.Cursor == nil || slices.Contains(names, from)
}

// refusedTopicPage answers INVALID_REQUEST for every topic that was named: the
// response has no other place for it.
func refusedTopicPage(req *kmsg.DescribeTopicPartitionsRequest) kmsg.Response {
	resp := kmsg.NewPtrDescribeTopicPartitionsResponse()
	for i := range req.Topics {
		rt := kmsg.NewDescribeTopicPartitionsResponseTopic()
		rt.ErrorCode, rt.Topic, rt.AuthorizedOperations = codeInvalidRequest, &req.Topics[i].Topic, noOperations
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}

func (s *Server) describePartition(img *catalog.Image, t *catalog.Topic, i int) kmsg.DescribeTopicPartitionsResponseTopicPartition {
	p := &t.Partitions[i]
	rp := kmsg.NewDescribeTopicPartitionsResponseTopicPartition()
	rp.Partition, rp.LeaderEpoch = int32(i), p.LeaderEpoch
	rp.Replicas, rp.ISR = p.Replicas, p.ISR
	rp.EligibleLeaderReplicas, rp.LastKnownELR = append([]int32{}, p.ELR...), append([]int32{}, p.LastKnownELR...) // null means that they are not known
	rp.LeaderID, rp.OfflineReplicas = s.available(img, t, i)                                                       // unlike in Metadata it is no error that there is none
	return rp
}
