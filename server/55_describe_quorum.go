package server

import (
	"context"
	"net"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/catalog"
)

// DescribeQuorum (v0-2): who carries the catalogue of a cluster, under the name of Kafka's log of metadata. It is served where
// the engine can tell.
//
// v1: when a member was heard last
// v2: messages, directories of members, which are none here, and where they listen
var describeQuorum = api{key: 55, min: 0, max: 2, serve: (*Server).describeQuorum}

// describeQuorumTime bounds the question to the leader; the request has no time of its own.
const describeQuorumTime = 10 * time.Second

func (s *Server) describeQuorum(ctx context.Context, _ *call, request kmsg.Request) (kmsg.Response, error) {
	req := request.(*kmsg.DescribeQuorumRequest)
	resp := kmsg.NewPtrDescribeQuorumResponse()
	resp.ErrorMessage = new(string)
	ctx, cancel := context.WithTimeout(ctx, describeQuorumTime)
	defer cancel()
	var quorum engine.Quorum
	asked := false
	for i := range req.Topics {
		rt := kmsg.NewDescribeQuorumResponseTopic()
		rt.Topic = req.Topics[i].Topic
		for _, p := range req.Topics[i].Partitions {
			rp := kmsg.NewDescribeQuorumResponseTopicPartition()
			rp.Partition = p.Partition
			rp.ErrorMessage = new(string) // Kafka sends an empty one rather than none
			if rt.Topic != engine.MetadataTopic || p.Partition != 0 {
				rp.ErrorCode, rp.ErrorMessage = codeUnknownTopicOrPartition, nullable("This server does not host this topic-partition.")
				rt.Partitions = append(rt.Partitions, rp)
				continue
			}
			if !asked {
				var err error
				if quorum, err = s.engine.Quorum().Quorum(ctx); err != nil {
					resp.ErrorCode = errorCode(err)
					resp.Topics = nil
					return resp, nil
				}
				asked = true
			}
			s.describeMembers(&rp, quorum)
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	img := s.engine.Image()
	for _, m := range quorum.Members {
		if rn, known := quorumNode(img, m.ID); known {
			resp.Nodes = append(resp.Nodes, rn)
		}
	}
	return resp, nil
}

// quorumNode says where a member listens to others.
func quorumNode(img *catalog.Image, id int32) (rn kmsg.DescribeQuorumResponseNode, known bool) {
	b, registered := img.Broker(id)
	host, text, err := net.SplitHostPort(b.Peer)
	if !registered || err != nil {
		return rn, false
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return rn, false
	}
	rl := kmsg.NewDescribeQuorumResponseNodeListener()
	rl.Name, rl.Host, rl.Port = "PEER", host, uint16(port)
	rn = kmsg.NewDescribeQuorumResponseNode()
	rn.NodeID, rn.Listeners = id, append(rn.Listeners, rl)
	return rn, true
}

func (s *Server) describeMembers(rp *kmsg.DescribeQuorumResponseTopicPartition, quorum engine.Quorum) {
	rp.LeaderID, rp.LeaderEpoch, rp.HighWatermark = quorum.Leader, int32(quorum.Term), quorum.HighWatermark
	for _, m := range quorum.Members {
		rs := kmsg.NewDescribeQuorumResponseTopicPartitionReplicaState()
		rs.ReplicaID, rs.LogEndOffset = m.ID, m.LogEnd
		rs.LastFetchTimestamp, rs.LastCaughtUpTimestamp = millisOf(m.Heard), millisOf(m.CaughtUp)
		if m.ID == quorum.Leader { // it has what it has, always
			rs.LastFetchTimestamp = s.opts.Now().UnixMilli()
			rs.LastCaughtUpTimestamp = rs.LastFetchTimestamp
		}
		if m.Voter {
			rp.CurrentVoters = append(rp.CurrentVoters, rs)
		} else {
			rp.Observers = append(rp.Observers, rs)
		}
	}
}

func millisOf(t time.Time) int64 {
	if t.IsZero() {
		return -1
	}
	return t.UnixMilli()
}
