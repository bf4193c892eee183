package server

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DeleteGroups (v0-2).
//
// v2: flexible
//
// A group with members stays. A group that is named twice is deleted, and answered for, once.
var deleteGroups = api{key: 42, min: 0, max: 2, serve: (*Server).deleteGroups}

func (s *Server) deleteGroups(ctx context.Context, _ *call, req kmsg.Request) (kmsg.Response, error) {
	r := req.(*kmsg.DeleteGroupsRequest)
	named := map[string]bool{}
	var ids []string
	for _, id := range r.Groups {
		if !named[id] {
			named[id] = true
			ids = append(ids, id)
		}
	}
	resp := kmsg.NewPtrDeleteGroupsResponse()
	for i, err := range s.engine.Groups().DeleteGroups(ctx, ids) {
		rg := kmsg.NewDeleteGroupsResponseGroup()
		rg.Group, rg.ErrorCode = ids[i], errorCode(err)
		resp.Groups = append(resp.Groups, rg)
	}
	return resp, nil
}
