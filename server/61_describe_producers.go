package server

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine"
)

// DescribeProducers (v0).
var describeProducers = api{key: 61, min: 0, max: 0, serve: (*Server).describeProducers}

// describeProducersTime bounds the wait for the committer's current round.
const describeProducersTime = 10 * time.Second

func (s *Server) describeProducers(ctx context.Context, _ *call, request kmsg.Request) (kmsg.Response, error) {
	req := request.(*kmsg.DescribeProducersRequest)
	resp := kmsg.NewPtrDescribeProducersResponse()
	ctx, cancel := context.WithTimeout(ctx, describeProducersTime)
	defer cancel()
	img := s.engine.Image()
	for i := range req.Topics {
		rt := kmsg.NewDescribeProducersResponseTopic()
		rt.Topic = req.Topics[i].Topic
		topic, invalid := img.Topic(rt.Topic), engine.CheckTopicName(rt.Topic)
		for _, index := range req.Topics[i].Partitions {
			rp := kmsg.NewDescribeProducersResponseTopicPartition()
			rp.Partition = index
			p, err := s.partition(topic, index)
			switch {
			case invalid != nil:
				rp.ErrorCode, rp.ErrorMessage = codeInvalidTopicException, nullable(invalid.Error())
			case topic == nil:
				rp.ErrorCode, rp.ErrorMessage = codeUnknownTopicOrPartition, nullable("This server does not host this topic-partition.")
			case err != nil:
				rp.ErrorCode = errorCode(err)
			default:
				rp.ErrorCode = errorCode(activeProducers(ctx, p, &rp))
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp, nil
}

func activeProducers(ctx context.Context, p *engine.Partition, rp *kmsg.DescribeProducersResponseTopicPartition) error {
	list, err := p.Producers(ctx)
	if err != nil {
		return err
	}
	for _, info := range list {
		a := kmsg.NewDescribeProducersResponseTopicPartitionActiveProducer()
		a.ProducerID, a.ProducerEpoch = info.ProducerID, int32(info.ProducerEpoch)
		a.LastSequence, a.LastTimestamp = info.LastSequence, info.LastTimestamp
		a.CoordinatorEpoch, a.CurrentTxnStartOffset = info.CoordinatorEpoch, info.TxnFirstOffset
		rp.ActiveProducers = append(rp.ActiveProducers, a)
	}
	return nil
}
