package server

import (
	"context"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ListGroups (v0-5).
//
// v3: flexible
// v4: in some states
// v5: of some types, of which there is one here
var listGroups = api{key: 16, min: 0, max: 5, serve: (*Server).listGroups}

const groupTypeClassic = "classic"

func (s *Server) listGroups(_ context.Context, _ *call, req kmsg.Request) (kmsg.Response, error) {
	r := req.(*kmsg.ListGroupsRequest)
	resp := kmsg.NewPtrListGroupsResponse()
	listed, err := s.engine.Groups().List(r.StatesFilter)
	if err != nil {
		resp.ErrorCode = errorCode(err)
		return resp, nil
	}
	classic := func(name string) bool { return strings.EqualFold(name, groupTypeClassic) }
	if len(r.TypesFilter) > 0 && !slices.ContainsFunc(r.TypesFilter, classic) {
		return resp, nil
	}
	for _, g := range listed {
		rg := kmsg.NewListGroupsResponseGroup()
		rg.Group, rg.ProtocolType, rg.GroupState, rg.GroupType = g.ID, g.ProtocolType, g.State.String(), groupTypeClassic
		resp.Groups = append(resp.Groups, rg)
	}
	return resp, nil
}
