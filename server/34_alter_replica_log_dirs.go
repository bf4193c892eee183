package server

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine"
)

// AlterReplicaLogDirs (v1-2). To move a replica to where it is already is done, to
// move it elsewhere is refused. Of a partition that is named twice the last counts.
//
// v2: flexible
var alterReplicaLogDirs = api{key: 34, min: 1, max: 2, serve: (*Server).alterReplicaLogDirs}

func (s *Server) alterReplicaLogDirs(_ context.Context, _ *call, request kmsg.Request) (kmsg.Response, error) {
	type replica struct {
		topic     string
		partition int32
	}
	req := request.(*kmsg.AlterReplicaLogDirsRequest)
	resp := kmsg.NewPtrAlterReplicaLogDirsResponse()
	dirs := s.engine.LogDirs()
	codes, place := map[replica]int16{}, map[string]int{}
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
				if _, found := codes[r]; !found {
					rp := kmsg.NewAlterReplicaLogDirsResponseTopicPartition()
					rp.Partition = index
					rt.Partitions = append(rt.Partitions, rp)
				}
				codes[r] = s.moveReplica(dirs, req.Dirs[i].Dir, topic.Topic, index)
			}
		}
	}
	for i := range resp.Topics {
		for n := range resp.Topics[i].Partitions {
			rp := &resp.Topics[i].Partitions[n]
			rp.ErrorCode = codes[replica{resp.Topics[i].Topic, rp.Partition}]
		}
	}
	return resp, nil
}

func (s *Server) moveReplica(dirs []engine.LogDir, to, topic string, index int32) int16 {
	at := slices.IndexFunc(dirs, func(d engine.LogDir) bool { return d.Path == to })
	switch {
	case at < 0:
		return codeLogDirNotFound
	case dirs[at].Err != nil:
		return codeKafkaStorageError
	}
	p, err := s.partition(s.engine.Image().Topic(topic), index)
	if err == nil && p.LogDir() != to {
		return codeKafkaStorageError // retriable: nothing moves yet
	}
	return errorCode(err)
}
