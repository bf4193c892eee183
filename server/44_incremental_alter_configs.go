package server

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/catalog"
)

// IncrementalAlterConfigs (v0-1): sets and deletes keys, appends to lists and
// subtracts from them. All resources of a request are one change of the catalogue.
//
// v1: flexible
//
// Not offered: the levels of loggers, client metrics.
var incrementalAlterConfigs = api{key: 44, min: 0, max: 1, serve: (*Server).incrementalAlterConfigs}

// alterConfigsTime bounds a change of configs; the request has no time of its own.
const alterConfigsTime = 10 * time.Second

func (s *Server) incrementalAlterConfigs(ctx context.Context, _ *call, request kmsg.Request) (kmsg.Response, error) {
	req := request.(*kmsg.IncrementalAlterConfigsRequest)
	resp := kmsg.NewPtrIncrementalAlterConfigsResponse()
	ctx, cancel := context.WithTimeout(ctx, alterConfigsTime)
	defer cancel()
	alterations := make([]engine.ConfigAlteration, len(req.Resources))
	for i := range req.Resources {
		r, a := &req.Resources[i], &alterations[i]
		a.Type, a.Name = catalog.ResourceType(r.ResourceType), r.ResourceName
		for _, c := range r.Configs {
			a.Edits = append(a.Edits, engine.ConfigEdit{Name: c.Name, Op: engine.ConfigOp(c.Op), Value: c.Value})
		}
	}
	for i, err := range s.engine.Topics().AlterConfigs(ctx, alterations, req.ValidateOnly) {
		rr := kmsg.NewIncrementalAlterConfigsResponseResource()
		rr.ResourceType, rr.ResourceName = req.Resources[i].ResourceType, req.Resources[i].ResourceName
		rr.ErrorCode, rr.ErrorMessage = adminError(err)
		resp.Resources = append(resp.Resources, rr)
	}
	return resp, nil
}
