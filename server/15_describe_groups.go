package server

import (
	"context"
	"errors"
	"math"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine/group"
)

// DescribeGroups (v0-6).
//
// v3: what the client is authorized to do, if it asks
// v4: static members
// v5: flexible
// v6: GROUP_ID_NOT_FOUND with a message for a group that does not exist, which before was Dead
var describeGroups = api{key: 15, min: 0, max: 6, serve: (*Server).describeGroups}

// groupOperations is what everybody may do with a group as long as nobody is refused anything:
// read 3, delete 6, describe 8, describe configs 10 and alter configs 11, each a bit.
const groupOperations = 1<<3 | 1<<6 | 1<<8 | 1<<10 | 1<<11

func (s *Server) describeGroups(_ context.Context, c *call, req kmsg.Request) (kmsg.Response, error) {
	r := req.(*kmsg.DescribeGroupsRequest)
	resp := kmsg.NewPtrDescribeGroupsResponse()
	for _, id := range r.Groups {
		g := s.describeGroup(c.version, id)
		if r.IncludeAuthorizedOperations && g.ErrorCode == codeNone {
			g.AuthorizedOperations = groupOperations
		}
		resp.Groups = append(resp.Groups, g)
	}
	return resp, nil
}

func (s *Server) describeGroup(version int16, id string) kmsg.DescribeGroupsResponseGroup {
	resp := kmsg.NewDescribeGroupsResponseGroup()
	resp.Group, resp.AuthorizedOperations = id, math.MinInt32
	d, err := s.engine.Groups().Describe(id)
	switch {
	case errors.Is(err, group.ErrGroupIDNotFound):
		resp.State = group.Dead.String()
		if version >= 6 {
			message := "Group " + id + " not found."
			resp.ErrorCode, resp.ErrorMessage = codeGroupIDNotFound, &message
		}
		return resp
	case err != nil:
		resp.ErrorCode = errorCode(err)
		return resp
	}
	resp.State, resp.ProtocolType, resp.Protocol = d.State.String(), d.ProtocolType, d.Protocol
	for _, m := range d.Members {
		resp.Members = append(resp.Members, kmsg.DescribeGroupsResponseGroupMember{
			MemberID: m.ID, InstanceID: m.InstanceID, ClientID: m.ClientID, ClientHost: m.ClientHost,
			ProtocolMetadata: m.Metadata, MemberAssignment: m.Assignment,
		})
	}
	return resp
}
