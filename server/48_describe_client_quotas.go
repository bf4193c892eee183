package server

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeClientQuotas (v0-1): there are none, since none can be set; a filter that
// makes no sense is refused first.
//
// v1: flexible
var describeClientQuotas = api{key: 48, min: 0, max: 1, serve: (*Server).describeClientQuotas}

func (s *Server) describeClientQuotas(_ context.Context, _ *call, request kmsg.Request) (kmsg.Response, error) {
	resp := kmsg.NewPtrDescribeClientQuotasResponse()
	resp.ErrorMessage = new(string)                           // not null, as with Kafka
	resp.Entries = []kmsg.DescribeClientQuotasResponseEntry{} // null says that there was an error
	code, message := checkQuotaFilter(request.(*kmsg.DescribeClientQuotasRequest).Components)
	if code != codeNone {
		resp.ErrorCode, resp.ErrorMessage, resp.Entries = code, &message, nil
	}
	return resp, nil
}

func checkQuotaFilter(components []kmsg.DescribeClientQuotasRequestComponent) (code int16, message string) {
	const exact, byDefault, specified = 0, 1, 2
	seen := map[string]bool{}
	for i := range components {
		c := &components[i]
		switch {
		case c.EntityType == "":
			return codeInvalidRequest, "Invalid empty entity type."
		case seen[c.EntityType]:
			return codeInvalidRequest, fmt.Sprintf("Entity type %s cannot appear more than once in the filter.", c.EntityType)
		case c.EntityType != "ip" && c.EntityType != "user" && c.EntityType != "client-id":
			return codeUnsupportedVersion, "Unsupported entity type " + c.EntityType
		case c.MatchType == exact && c.Match == nil:
			return codeInvalidRequest, "Request specified MATCH_TYPE_EXACT, but set match string to null."
		case c.MatchType == byDefault && c.Match != nil:
			return codeInvalidRequest, "Request specified MATCH_TYPE_DEFAULT, but also specified a match string."
		case c.MatchType == specified && c.Match != nil:
			return codeInvalidRequest, "Request specified MATCH_TYPE_SPECIFIED, but also specified a match string."
		case c.MatchType < exact || c.MatchType > specified:
			return codeInvalidRequest, fmt.Sprintf("Unknown match type %d", c.MatchType)
		}
		seen[c.EntityType] = true
	}
	if seen["ip"] && (seen["user"] || seen["client-id"]) {
		return codeInvalidRequest, "Invalid entity filter component combination. IP filter component should not be used with user or clientId filter component."
	}
	return codeNone, ""
}
