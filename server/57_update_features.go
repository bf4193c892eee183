package server

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine"
)

// UpdateFeatures (v0-2): finalises levels of features, all or none. There are those of [engine.SupportedFeatures], and on a
// node that is alone none; metadata.version and others are refused as by a Kafka that does not know them.
//
// v1: the way that the level may go; to be judged only
// v2: no results for single features
var updateFeatures = api{key: 57, min: 0, max: 2, serve: (*Server).updateFeatures}

func (s *Server) updateFeatures(ctx context.Context, c *call, request kmsg.Request) (kmsg.Response, error) {
	req := request.(*kmsg.UpdateFeaturesRequest)
	resp := kmsg.NewPtrUpdateFeaturesResponse()
	ctx, cancel := within(ctx, req.TimeoutMillis)
	defer cancel()
	var updates []engine.FeatureUpdate
	seen := map[string]bool{}
	for _, u := range req.FeatureUpdates {
		if seen[u.Feature] {
			continue
		}
		seen[u.Feature] = true
		kind := engine.UpgradeType(u.UpgradeType)
		if c.version == 0 {
			kind = engine.Upgrade
			if u.AllowDowngrade {
				kind = engine.SafeDowngrade
			}
		}
		updates = append(updates, engine.FeatureUpdate{Name: u.Feature, Level: u.MaxVersionLevel, Type: kind})
	}
	if err := s.engine.Topics().UpdateFeatures(ctx, updates, req.ValidateOnly); err != nil {
		code, message := adminError(err)
		resp.ErrorCode = code
		if message != nil {
			resp.ErrorMessage = nullable("The update failed for all features since the following feature had an error: " + *message)
		}
		return resp, nil
	}
	if c.version < 2 {
		for _, u := range updates {
			rr := kmsg.NewUpdateFeaturesResponseResult()
			rr.Feature, rr.ErrorMessage = u.Name, nullable("NONE") // Kafka's word for it
			resp.Results = append(resp.Results, rr)
		}
	}
	return resp, nil
}
