package server

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/catalog"
)

// AlterConfigs (v0-2): gives resources a new set of configs. Keys that are not in
// it lose their value, which is why clients moved on to IncrementalAlterConfigs.
//
// v2: flexible
var alterConfigs = api{key: 33, min: 0, max: 2, serve: (*Server).alterConfigs}

func (s *Server) alterConfigs(ctx context.Context, _ *call, request kmsg.Request) (kmsg.Response, error) {
	req := request.(*kmsg.AlterConfigsRequest)
	resp := kmsg.NewPtrAlterConfigsResponse()
	ctx, cancel := context.WithTimeout(ctx, alterConfigsTime)
	defer cancel()
	alterations := make([]engine.ConfigAlteration, len(req.Resources))
	for i := range req.Resources {
		r, a := &req.Resources[i], &alterations[i]
		a.Type, a.Name, a.Replace = catalog.ResourceType(r.ResourceType), r.ResourceName, true
		for _, c := range r.Configs {
			a.Edits = append(a.Edits, engine.ConfigEdit{Name: c.Name, Value: c.Value})
		}
	}
	for i, err := range s.engine.Topics().AlterConfigs(ctx, alterations, req.ValidateOnly) {
		rr := kmsg.NewAlterConfigsResponseResource()
		rr.ResourceType, rr.ResourceName = req.Resources[i].ResourceType, req.Resources[i].ResourceName
		rr.ErrorCode, rr.ErrorMessage = adminError(err)
		resp.Resources = append(resp.Resources, rr)
	}
	return resp, nil
}
