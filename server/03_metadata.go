package server

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/catalog"
)

// Metadata (v0-13).
//
// v1: an empty list of topics is none, null is all; rack, controller id, internal flag
// v2: cluster id
// v4: the client may forbid topics to be created
// v5: offline replicas
// v7: leader epoch
// v8: authorized operations
// v9: flexible
// v10: topic ids
// v12: topics by id
// v13: an error code for the whole response
//
// A topic that is created because somebody asked for it is in the same answer, unless
// one of its name was deleted a moment ago; see deletions. Kafka always answers
// UNKNOWN_TOPIC_OR_PARTITION first and has the client ask again, since its brokers
// learn of the new topic a little later, which takes some clients five seconds.
var metadata = api{key: 3, min: 0, max: 13, serve: (*Server).metadata}

// Without authorization everybody may do everything. The bits are numbered as
// Kafka's AclOperation.
const (
	noOperations      = -1 << 31 // not asked for
	topicOperations   = 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<10 | 1<<11
	clusterOperations = 1<<5 | 1<<7 | 1<<8 | 1<<9 | 1<<10 | 1<<11 | 1<<12
)

func (s *Server) metadata(ctx context.Context, c *call, request kmsg.Request) (kmsg.Response, error) {
	req := request.(*kmsg.MetadataRequest)
	resp := kmsg.NewPtrMetadataResponse()
	if rejectTopics(c, req, resp) {
		return resp, nil
	}
	img := s.engine.Image()
	var missing []string
	switch {
	case req.Topics == nil || c.version == 0 && len(req.Topics) == 0:
		for _, t := range img.Topics() {
			resp.Topics = append(resp.Topics, s.describeTopic(img, t))
		}
	default:
		missing = s.namedTopics(img, req, resp)
	}
	if len(missing) > 0 && req.AllowAutoTopicCreation && s.engine.Config().AutoCreateTopics {
		s.autoCreate(ctx, missing, resp)
	} else {
		for _, name := range missing {
			code := codeUnknownTopicOrPartition
			if engine.CheckTopicName(name) != nil {
				code = codeInvalidTopicException
			}
			resp.Topics = append(resp.Topics, missingTopic(code, name))
		}
	}
	if c.version >= 8 && req.IncludeTopicAuthorizedOperations {
		for i := range resp.Topics {
			if resp.Topics[i].Topic != nil {
				resp.Topics[i].AuthorizedOperations = topicOperations
			}
		}
	}
	if req.IncludeClusterAuthorizedOperations {
		resp.AuthorizedOperations = clusterOperations
	}
	clusterID := s.engine.ClusterID()
	resp.ClusterID = &clusterID
	resp.ControllerID = s.engine.Controller(img)
	for _, id := range s.brokerIDs(img) {
		host, port, rack, found := s.brokerEndpoint(c, id)
		if !found {
			continue
		}
		b := kmsg.NewMetadataResponseBroker()
		b.NodeID, b.Host, b.Port, b.Rack = id, host, port, nullable(rack)
		resp.Brokers = append(resp.Brokers, b)
	}
	return resp, nil
}

// rejectTopics refuses what versions 10 and 11 can say but must not.
func rejectTopics(c *call, req *kmsg.MetadataRequest, resp *kmsg.MetadataResponse) bool {
	if c.version >= 12 {
		return false
	}
	bad := false
	for i := range req.Topics {
		bad = bad || req.Topics[i].Topic == nil || req.Topics[i].TopicID != [16]byte{}
	}
	if !bad {
		return false
	}
	for i := range req.Topics {
		name := ""
		if req.Topics[i].Topic != nil {
			name = *req.Topics[i].Topic
		}
		rt := missingTopic(codeInvalidRequest, name)
		rt.TopicID = req.Topics[i].TopicID
		resp.Topics = append(resp.Topics, rt)
	}
	return true
}

// namedTopics describes the topics that were asked for, and returns the names of
// those that do not exist. When any is asked for by id, names are not looked at.
func (s *Server) namedTopics(img *catalog.Image, req *kmsg.MetadataRequest, resp *kmsg.MetadataResponse) (missing []string) {
	byID := false
	for i := range req.Topics {
		byID = byID || req.Topics[i].TopicID != [16]byte{}
	}
	seenID, seenName := map[catalog.TopicID]bool{}, map[string]bool{}
	for i := range req.Topics {
		t := &req.Topics[i]
		switch {
		case byID && t.TopicID != [16]byte{} && !seenID[t.TopicID]:
			seenID[t.TopicID] = true
			if topic := img.TopicByID(t.TopicID); topic != nil {
				resp.Topics = append(resp.Topics, s.describeTopic(img, topic))
			} else {
				rt := kmsg.NewMetadataResponseTopic()
				rt.ErrorCode, rt.TopicID, rt.AuthorizedOperations = codeUnknownTopicID, t.TopicID, noOperations
				resp.Topics = append(resp.Topics, rt)
			}
		case !byID && t.Topic != nil && !seenName[*t.Topic]:
			seenName[*t.Topic] = true
			if topic := img.Topic(*t.Topic); topic != nil {
				resp.Topics = append(resp.Topics, s.describeTopic(img, topic))
			} else {
				missing = append(missing, *t.Topic)
			}
		}
	}
	return missing
}

func missingTopic(code int16, name string) kmsg.MetadataResponseTopic {
	rt := kmsg.NewMetadataResponseTopic()
	rt.ErrorCode, rt.Topic, rt.IsInternal = code, &name, engine.IsInternal(name)
	return rt
}

func (s *Server) describeTopic(img *catalog.Image, t *catalog.Topic) kmsg.MetadataResponseTopic {
	rt := kmsg.NewMetadataResponseTopic()
	rt.Topic, rt.TopicID, rt.IsInternal = &t.Name, t.ID, engine.IsInternal(t.Name)
	rt.Partitions = make([]kmsg.MetadataResponseTopicPartition, len(t.Partitions))
	for i := range t.Partitions {
		p, rp := &t.Partitions[i], &rt.Partitions[i]
		rp.Default()
		rp.Partition, rp.LeaderEpoch = int32(i), p.LeaderEpoch
		rp.Replicas, rp.ISR = p.Replicas, p.ISR
		rp.Leader, rp.OfflineReplicas = s.available(img, t, i)
		if rp.Leader < 0 {
			rp.ErrorCode = codeLeaderNotAvailable
		}
	}
	return rt
}

func nullable(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
