package server

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine"
)

// DeleteTopics (v1-6). All topics of a request are one change of the catalogue.
//
// v3: TOPIC_DELETION_DISABLED; before, INVALID_REQUEST
// v4: flexible
// v5: the answer has a message; THROTTLING_QUOTA_EXCEEDED
// v6: topics by their ids
var deleteTopics = api{key: 20, min: 1, max: 6, serve: (*Server).deleteTopics}

func (s *Server) deleteTopics(ctx context.Context, c *call, request kmsg.Request) (kmsg.Response, error) {
	req := request.(*kmsg.DeleteTopicsRequest)
	resp := kmsg.NewPtrDeleteTopicsResponse()
	ctx, cancel := within(ctx, req.TimeoutMillis)
	defer cancel()
	refs := topicRefs(c.version, req)
	deleted, err := s.engine.Topics().Delete(ctx, refs)
	if err != nil {
		code := errorCode(err)
		if code == codeTopicDeletionDisabled && c.version < 3 {
			code = codeInvalidRequest
		}
		for _, ref := range refs {
			rt := kmsg.NewDeleteTopicsResponseTopic()
			rt.Topic, rt.TopicID, rt.ErrorCode = ref.Name, ref.ID, code
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil
	}
	for _, d := range deleted {
		rt := kmsg.NewDeleteTopicsResponseTopic()
		rt.Topic, rt.TopicID = d.Name, d.ID
		rt.ErrorCode, rt.ErrorMessage = adminError(d.Err)
		if d.Err == nil && d.Name != nil {
			s.deletions.add(*d.Name)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp, nil
}

func topicRefs(version int16, req *kmsg.DeleteTopicsRequest) []engine.TopicRef {
	var refs []engine.TopicRef
	if version < 6 {
		for i := range req.TopicNames {
			refs = append(refs, engine.TopicRef{Name: &req.TopicNames[i]})
		}
		return refs
	}
	for _, t := range req.Topics {
		refs = append(refs, engine.TopicRef{Name: t.Topic, ID: t.TopicID})
	}
	return refs
}
