package server

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine/group"
)

// LeaveGroup (v0-5).
//
// v3: many members at once, static ones by their instance id
// v4: flexible
// v5: the reason
var leaveGroup = api{key: 13, min: 0, max: 5, serve: (*Server).leaveGroup}

func (s *Server) leaveGroup(ctx context.Context, c *call, req kmsg.Request) (kmsg.Response, error) {
	r := req.(*kmsg.LeaveGroupRequest)
	var ev group.Leave
	if c.version < 3 {
		ev.Members = []group.LeavingMember{{ID: r.MemberID}}
	}
	for _, m := range r.Members {
		ev.Members = append(ev.Members, group.LeavingMember{ID: m.MemberID, InstanceID: m.InstanceID, Reason: text(m.Reason)})
	}
	answer := s.engine.Groups().Leave(ctx, r.Group, ev)

	resp := kmsg.NewPtrLeaveGroupResponse()
	resp.ErrorCode = errorCode(answer.Err)
	for _, m := range answer.Members {
		rm := kmsg.NewLeaveGroupResponseMember()
		rm.MemberID, rm.InstanceID, rm.ErrorCode = m.ID, m.InstanceID, errorCode(m.Err)
		resp.Members = append(resp.Members, rm)
		if c.version < 3 && answer.Err == nil {
			resp.ErrorCode = rm.ErrorCode
		}
	}
	return resp, nil
}
