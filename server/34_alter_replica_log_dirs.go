package server

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/catalog"
)

// AlterReplicaLogDirs (v1-2). It is answered when the moves are recorded, and they go on
// after that. To move a replica to where it is already ends a move that is under way. Of a partition that is
// named twice the last counts.
//
// v2: flexible
var alterReplicaLogDirs = api{key: 34, min: 1, max: 2, serve: (*Server).alterReplicaLogDirs}

// alterReplicaLogDirsTime bounds the wait for the catalogue; the request has no timeout of its own.
const alterReplicaLogDirsTime = 30 * time.Second

func (s *Server) alterReplicaLogDirs(ctx context.Context, _ *call, request kmsg.Request) (kmsg.Response, error) {
	type replica struct {
		topic     string
		partition int32
	}
	ctx, cancel := context.WithTimeout(ctx, alterReplicaLogDirsTime)
	defer cancel()
	req := request.(*kmsg.AlterReplicaLogDirsRequest)
	resp := kmsg.NewPtrAlterReplicaLogDirsResponse()
	to, place := map[replica]string{}, map[string]int{}
	for i := range req.Dirs {
		for _, topic := range req.Dirs[i].Topics {
			if _, found := place[topic.Topic]; !found {
				place[topic.Topic] = len(resp.Topics)
				rt := kmsg.NewAlterReplicaLogDirsResponseTopic()
				rt.Topic = topic.Topic
				resp.Topics = append(resp.Topics, rt)
			}
			rt := &resp.Topics[place[topic.Topic]]
			for _, index := range topic.Partitions {
				r := replica{topic.Topic, index}
				if _, found := to[r]; !found {
					rp := kmsg.NewAlterReplicaLogDirsResponseTopicPartition()
					rp.Partition = index
					rt.Partitions = append(rt.Partitions, rp)
				}
				to[r] = req.Dirs[i].Dir
			}
		}
	}
	var moves []engine.Move
	var of []*int16
	image := s.engine.Image()
	for i := range resp.Topics {
		for n := range resp.Topics[i].Partitions {
			rp := &resp.Topics[i].Partitions[n]
			dir := to[replica{resp.Topics[i].Topic, rp.Partition}]
			p, err := s.movable(image.Topic(resp.Topics[i].Topic), rp.Partition, dir)
			if err != nil {
				rp.ErrorCode = moveCode(err)
				continue
			}
			moves, of = append(moves, engine.Move{Partition: p, Dir: dir}), append(of, &rp.ErrorCode)
		}
	}
	for i, err := range s.engine.MoveReplicas(ctx, moves) {
		*of[i] = moveCode(err)
	}
	return resp, nil
}

// movable looks at the directory first, as Kafka does.
func (s *Server) movable(topic *catalog.Topic, index int32, dir string) (*engine.Partition, error) {
	if err := s.engine.CheckLogDir(dir); err != nil {
		return nil, err
	}
	return s.partition(topic, index)
}

func moveCode(err error) int16 {
	if errors.Is(err, catalog.ErrNoLeader) {
		return codeRequestTimedOut // Kafka asks no controller for this
	}
	if errors.Is(err, engine.ErrNotHere) || errors.Is(err, catalog.ErrConflict) {
		return codeReplicaNotAvailable
	}
	return errorCode(err)
}
