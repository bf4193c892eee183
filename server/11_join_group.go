package server

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine/group"
)

// JoinGroup (v0-9). The answer waits for the group's next generation.
//
// v1: the rebalance timeout, which before was the session timeout
// v4: a new member has to come back with the id that it is given
// v5: static members
// v6: flexible
// v7: the protocol type in the answer
// v8: the reason
// v9: a static leader that comes back may be told that its assignment stands
var joinGroup = api{key: 11, min: 0, max: 9, serve: (*Server).joinGroup, keepsBytes: true}

func (s *Server) joinGroup(ctx context.Context, c *call, req kmsg.Request) (kmsg.Response, error) {
	r := req.(*kmsg.JoinGroupRequest)
	ev := group.Join{
		MemberID: r.MemberID, InstanceID: r.InstanceID, ClientID: c.clientID, ClientHost: c.clientHost(),
		SessionTimeoutMs: r.SessionTimeoutMillis, RebalanceTimeoutMs: r.RebalanceTimeoutMillis,
		ProtocolType: r.ProtocolType, Reason: text(r.Reason),
		KnownIDRequired: c.version >= 4, CanSkipAssignment: c.version >= 9,
	}
	if c.version == 0 {
		ev.RebalanceTimeoutMs = r.SessionTimeoutMillis
	}
	for _, p := range r.Protocols {
		ev.Protocols = append(ev.Protocols, group.Protocol{Name: p.Name, Metadata: p.Metadata})
	}
	ctx, stop := s.untilDraining(ctx)
	defer stop()
	answer := s.engine.Groups().Join(ctx, r.Group, ev)

	resp := kmsg.NewPtrJoinGroupResponse()
	resp.ErrorCode, resp.MemberID, resp.Generation = errorCode(answer.Err), answer.MemberID, answer.Generation
	resp.ProtocolType, resp.Protocol, resp.LeaderID = answer.ProtocolType, answer.Protocol, answer.Leader
	resp.SkipAssignment = answer.SkipAssignment
	for _, m := range answer.Members {
		resp.Members = append(resp.Members, kmsg.JoinGroupResponseMember{MemberID: m.ID, InstanceID: m.InstanceID, ProtocolMetadata: m.Metadata})
	}
	return resp, nil
}

// untilDraining ends with ctx, or when a shutdown begins: what waits for other members would outlast its patience.
func (s *Server) untilDraining(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.serving, cancel)
	return ctx, func() { stop(); cancel() }
}

// text is a string that may be null; null is empty.
func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
