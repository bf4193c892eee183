package server

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/catalog"
)

// ListOffsets (v1-11).
//
// v2: isolation level
// v4: current leader epoch in the request, leader epoch in the response
// v6: flexible
// v7: the offset of the largest timestamp
// v8: the earliest local offset, which is the log start offset here
// v9: the latest tiered offset, which is none here
// v10: timeout, which only concerns tiered storage
// v11: the earliest offset that is not tiered yet, which is none here
var listOffsets = api{key: 2, min: 1, max: 11, serve: (*Server).listOffsets}

// The timestamps that stand for something else.
const (
	latestTimestamp          = -1
	earliestTimestamp        = -2
	maxTimestamp             = -3
	earliestLocalTimestamp   = -4
	latestTieredTimestamp    = -5
	earliestPendingTimestamp = -6
)

// timestampSince is the first version that knows a special timestamp.
var timestampSince = map[int64]int16{
	latestTimestamp: 1, earliestTimestamp: 1, maxTimestamp: 7,
	earliestLocalTimestamp: 8, latestTieredTimestamp: 9, earliestPendingTimestamp: 11,
}

func (s *Server) listOffsets(_ context.Context, c *call, request kmsg.Request) (kmsg.Response, error) {
	req := request.(*kmsg.ListOffsetsRequest)
	resp := kmsg.NewPtrListOffsetsResponse()
	img := s.engine.Image()
	type place struct {
		topic     string
		partition int32
	}
	times := map[place]int{}
	for i := range req.Topics {
		for j := range req.Topics[i].Partitions {
			times[place{req.Topics[i].Topic, req.Topics[i].Partitions[j].Partition}]++
		}
	}
	for i := range req.Topics {
		t := &req.Topics[i]
		rt := kmsg.NewListOffsetsResponseTopic()
		rt.Topic = t.Topic
		topic := img.Topic(t.Topic)
		for j := range t.Partitions {
			p := &t.Partitions[j]
			rp := kmsg.NewListOffsetsResponseTopicPartition()
			rp.Partition, rp.Timestamp, rp.Offset = p.Partition, -1, -1
			since, special := timestampSince[p.Timestamp]
			switch {
			case times[place{t.Topic, p.Partition}] == 0:
				continue // it was named more than once and has been refused
			case times[place{t.Topic, p.Partition}] > 1:
				rp.ErrorCode = codeInvalidRequest
				times[place{t.Topic, p.Partition}] = 0
			case p.Timestamp < 0 && (!special || c.version < since):
				rp.ErrorCode = codeUnsupportedVersion
			default:
				if err := s.listOffset(topic, req, p, &rp); err != nil {
					rp = kmsg.NewListOffsetsResponseTopicPartition()
					rp.Partition, rp.Timestamp, rp.Offset = p.Partition, -1, -1
					if rp.ErrorCode = errorCode(err); rp.ErrorCode == codeOffsetNotAvailable && c.version < 5 {
						rp.ErrorCode = codeLeaderNotAvailable // older clients do not know the other
					}
				}
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp, nil
}

// partition finds a partition of a topic in the catalogue.
func (s *Server) partition(t *catalog.Topic, index int32) (*engine.Partition, error) {
	if t == nil || index < 0 || int(index) >= len(t.Partitions) {
		return nil, engine.ErrUnknownPartition
	}
	return s.engine.Partition(t.ID, index)
}

func (s *Server) listOffset(topic *catalog.Topic, req *kmsg.ListOffsetsRequest, want *kmsg.ListOffsetsRequestTopicPartition, out *kmsg.ListOffsetsResponseTopicPartition) error {
	p, err := s.partition(topic, want.Partition)
	if err != nil {
		return err
	}
	if err := p.CheckLeader(want.CurrentLeaderEpoch); err != nil {
		return err
	}
	const consumer, readCommitted = -1, 1
	end := p.HighWatermark()
	switch {
	case req.ReplicaID != consumer:
		end = p.LogEndOffset()
	case req.IsolationLevel == readCommitted:
		end = p.LastStableOffset()
	}
	latest := error(nil)
	if req.ReplicaID == consumer {
		latest = p.CheckLatest()
	}
	switch want.Timestamp {
	case latestTimestamp:
		if latest != nil {
			return latest
		}
		out.Offset, out.LeaderEpoch = end, p.LeaderEpoch()
	case earliestTimestamp, earliestLocalTimestamp:
		start := p.LogStartOffset()
		out.Offset, out.LeaderEpoch = start, p.EpochAt(start)
	case latestTieredTimestamp, earliestPendingTimestamp:
		// Nothing is tiered.
	case maxTimestamp:
		at, found, err := p.MaxTimestamp()
		if err != nil {
			return err
		}
		if !found || at.Offset >= end {
			return latest
		}
		out.Offset, out.Timestamp, out.LeaderEpoch = at.Offset, at.Timestamp, at.LeaderEpoch
	default:
		at, found, err := p.OffsetForTimestamp(want.Timestamp)
		if err != nil {
			return err
		}
		if !found || at.Offset >= end {
			return latest
		}
		out.Offset, out.Timestamp, out.LeaderEpoch = at.Offset, at.Timestamp, at.LeaderEpoch
	}
	return nil
}
