package server

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine/catalog"
)

// DescribeLogDirs (v1-5). A null list of topics is all of them. A partition that is being
// moved is listed where it lies, and as a future one where it is going to.
//
// v2: flexible
// v3: an error code for the whole response
// v4: total and usable bytes of the volume; -1 is not known
// v5: whether the directory takes new partitions, which it always does here
var describeLogDirs = api{key: 35, min: 1, max: 5, serve: (*Server).describeLogDirs}

func (s *Server) describeLogDirs(_ context.Context, _ *call, request kmsg.Request) (kmsg.Response, error) {
	req := request.(*kmsg.DescribeLogDirsRequest)
	resp := kmsg.NewPtrDescribeLogDirsResponse()
	img := s.engine.Image()
	for _, dir := range s.engine.LogDirs() {
		rd := kmsg.NewDescribeLogDirsResponseDir()
		rd.Dir, rd.TotalBytes, rd.UsableBytes = dir.Path, -1, -1
		if dir.Err != nil {
			rd.ErrorCode = codeKafkaStorageError
			resp.Dirs = append(resp.Dirs, rd)
			continue
		}
		rd.TotalBytes, rd.UsableBytes = dir.TotalBytes, dir.FreeBytes
		if req.Topics == nil {
			for _, t := range img.Topics() {
				s.addLogDirTopic(&rd, t, nil)
			}
		} else {
			wanted := map[string][]int32{}
			var order []string
			for i := range req.Topics {
				name := req.Topics[i].Topic
				if _, seen := wanted[name]; !seen {
					order = append(order, name)
				}
				wanted[name] = append(wanted[name], req.Topics[i].Partitions...)
			}
			for _, name := range order {
				if t := img.Topic(name); t != nil {
					s.addLogDirTopic(&rd, t, wanted[name])
				}
			}
		}
		resp.Dirs = append(resp.Dirs, rd)
	}
	return resp, nil
}

// addLogDirTopic adds the partitions of a topic that were asked for, nil for all.
func (s *Server) addLogDirTopic(rd *kmsg.DescribeLogDirsResponseDir, t *catalog.Topic, only []int32) {
	rt := kmsg.NewDescribeLogDirsResponseDirTopic()
	rt.Topic = t.Name
	for i := range t.Partitions {
		if only != nil && !containsInt32(only, int32(i)) {
			continue
		}
		if m, moving := s.engine.Moving(t, int32(i)); moving && m.Dir == rd.Dir {
			rp := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
			rp.Partition, rp.Size, rp.OffsetLag, rp.IsFuture = int32(i), m.SizeBytes, m.OffsetLag, true
			rt.Partitions = append(rt.Partitions, rp)
		}
		p, err := s.engine.Partition(t.ID, int32(i))
		if err != nil || p.LogDir() != rd.Dir {
			continue
		}
		rp := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
		rp.Partition, rp.Size = int32(i), p.SizeBytes()
		rp.OffsetLag = max(p.HighWatermark()-p.LogEndOffset(), 0)
		rt.Partitions = append(rt.Partitions, rp)
	}
	if len(rt.Partitions) > 0 {
		rd.Topics = append(rd.Topics, rt)
	}
}
