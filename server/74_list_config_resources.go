package server

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine/catalog"
)

// ListConfigResources (v0-1): what configs can be asked for. Version 0 lists
// subscriptions of client metrics only, of which there are none.
//
// v1: the kinds that are wanted; none is all
var listConfigResources = api{key: 74, min: 0, max: 1, serve: (*Server).listConfigResources}

func (s *Server) listConfigResources(_ context.Context, c *call, request kmsg.Request) (kmsg.Response, error) {
	req := request.(*kmsg.ListConfigResourcesRequest)
	resp := kmsg.NewPtrListConfigResourcesResponse()
	kinds := []catalog.ResourceType{catalog.ResourceClientMetrics}
	if c.version > 0 {
		kinds = kinds[:0]
		for _, kind := range req.ResourceTypes {
			kinds = append(kinds, catalog.ResourceType(kind))
		}
	}
	resources, known := s.engine.Topics().ListConfigResources(kinds)
	if !known {
		resp.ErrorCode = codeUnsupportedVersion
		return resp, nil
	}
	for _, r := range resources {
		rr := kmsg.NewListConfigResourcesResponseConfigResource()
		rr.Type, rr.Name = int8(r.Type), r.Name
		resp.ConfigResources = append(resp.ConfigResources, rr)
	}
	return resp, nil
}
