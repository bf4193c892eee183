package server

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeUserScramCredentials (v0): no user has any, since none can be set. No
// users, or null, asks for all.
var describeUserScramCredentials = api{key: 50, min: 0, max: 0, serve: (*Server).describeUserScramCredentials}

func (s *Server) describeUserScramCredentials(_ context.Context, _ *call, request kmsg.Request) (kmsg.Response, error) {
	req := request.(*kmsg.DescribeUserSCRAMCredentialsRequest)
	resp := kmsg.NewPtrDescribeUserSCRAMCredentialsResponse()
	resp.ErrorMessage = new(string) // not null, as with Kafka
	times := map[string]int{}
	for i := range req.Users {
		times[req.Users[i].Name]++
	}
	for i := range req.Users {
		r := kmsg.NewDescribeUserSCRAMCredentialsResponseResult()
		r.User = req.Users[i].Name
		switch times[r.User] {
		case 0:
			continue // answered
		case 1:
			r.ErrorCode = codeResourceNotFound
			r.ErrorMessage = nullable("Attempt to describe a user credential that does not exist: " + r.User)
		default:
			r.ErrorCode = codeDuplicateResource
			r.ErrorMessage = nullable("Cannot describe SCRAM credentials for the same user twice in a single request: " + r.User)
		}
		times[r.User] = 0
		resp.Results = append(resp.Results, r)
	}
	return resp, nil
}
