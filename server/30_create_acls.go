package server

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// CreateAcls (v1-3): refused, each of them; see DescribeAcls.
var createACLs = api{key: 30, min: 1, max: 3, serve: (*Server).createACLs}

const noAuthorizer = "No Authorizer is configured."

func (s *Server) createACLs(_ context.Context, _ *call, request kmsg.Request) (kmsg.Response, error) {
	resp := kmsg.NewPtrCreateACLsResponse()
	for range request.(*kmsg.CreateACLsRequest).Creations {
		r := kmsg.NewCreateACLsResponseResult()
		r.ErrorCode, r.ErrorMessage = codeSecurityDisabled, nullable(noAuthorizer)
		resp.Results = append(resp.Results, r)
	}
	return resp, nil
}
