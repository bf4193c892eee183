package server

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DeleteAcls (v1-3): refused, each filter; see DescribeAcls.
var deleteACLs = api{key: 31, min: 1, max: 3, serve: (*Server).deleteACLs}

func (s *Server) deleteACLs(_ context.Context, _ *call, request kmsg.Request) (kmsg.Response, error) {
	resp := kmsg.NewPtrDeleteACLsResponse()
	for range request.(*kmsg.DeleteACLsRequest).Filters {
		r := kmsg.NewDeleteACLsResponseResult()
		r.ErrorCode, r.ErrorMessage = codeSecurityDisabled, nullable(noAuthorizer)
		resp.Results = append(resp.Results, r)
	}
	return resp, nil
}
