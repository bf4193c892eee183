package server

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeAcls (v1-3). There is no authorizer, and clients are told so, as by a Kafka without one.
//
// v2: flexible
// v3: users as resources
var describeACLs = api{key: 29, min: 1, max: 3, serve: (*Server).describeACLs}

func (s *Server) describeACLs(context.Context, *call, kmsg.Request) (kmsg.Response, error) {
	resp := kmsg.NewPtrDescribeACLsResponse()
	resp.ErrorCode, resp.ErrorMessage = codeSecurityDisabled, nullable("No Authorizer is configured on the broker")
	return resp, nil
}
