package server

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine/group"
)

// SyncGroup (v0-5). The answer waits until the leader's assignment is durable.
//
// v3: static members
// v4: flexible
// v5: protocol type and name, which then must be there and be the group's
var syncGroup = api{key: 14, min: 0, max: 5, serve: (*Server).syncGroup, keepsBytes: true}

func (s *Server) syncGroup(ctx context.Context, c *call, req kmsg.Request) (kmsg.Response, error) {
	r := req.(*kmsg.SyncGroupRequest)
	resp := kmsg.NewPtrSyncGroupResponse()
	if c.version >= 5 && (r.ProtocolType == nil || r.Protocol == nil) {
		resp.ErrorCode = codeInconsistentGroupProtocol
		return resp, nil
	}
	ev := group.Sync{
		MemberID: r.MemberID, InstanceID: r.InstanceID, Generation: r.Generation,
		ProtocolType: r.ProtocolType, Protocol: r.Protocol, Assignments: make(map[string][]byte, len(r.GroupAssignment)),
	}
	for _, a := range r.GroupAssignment {
		ev.Assignments[a.MemberID] = a.MemberAssignment
	}
	ctx, stop := s.untilDraining(ctx)
	defer stop()
	answer := s.engine.Groups().Sync(ctx, r.Group, ev)
	resp.ErrorCode = errorCode(answer.Err)
	resp.ProtocolType, resp.Protocol, resp.MemberAssignment = answer.ProtocolType, answer.Protocol, answer.Assignment
	return resp, nil
}
