package server

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine/group"
)

// Heartbeat (v0-4).
//
// v3: static members
// v4: flexible
var heartbeat = api{key: 12, min: 0, max: 4, serve: (*Server).heartbeat}

func (s *Server) heartbeat(ctx context.Context, _ *call, req kmsg.Request) (kmsg.Response, error) {
	r := req.(*kmsg.HeartbeatRequest)
	resp := kmsg.NewPtrHeartbeatResponse()
	resp.ErrorCode = errorCode(s.engine.Groups().Heartbeat(ctx, r.Group, group.Heartbeat{
		MemberID: r.MemberID, InstanceID: r.InstanceID, Generation: r.Generation,
	}))
	return resp, nil
}
