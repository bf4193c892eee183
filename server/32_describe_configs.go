package server

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/engine/config"
)

// DescribeConfigs (v1-4) of topics, this broker, all brokers and groups.
//
// v3: types, and documentation when it is asked for
// v4: flexible
//
// Not offered: the levels of loggers. Documentation is there only for keys that
// are honoured here.
var describeConfigs = api{key: 32, min: 1, max: 4, serve: (*Server).describeConfigs}

func (s *Server) describeConfigs(_ context.Context, _ *call, request kmsg.Request) (kmsg.Response, error) {
	req := request.(*kmsg.DescribeConfigsRequest)
	resp := kmsg.NewPtrDescribeConfigsResponse()
	topics := s.engine.Topics()
	for i := range req.Resources {
		r := &req.Resources[i]
		rr := kmsg.NewDescribeConfigsResponseResource()
		rr.ResourceType, rr.ResourceName = r.ResourceType, r.ResourceName
		entries, err := topics.DescribeConfigs(engine.ConfigResource{Type: catalog.ResourceType(r.ResourceType), Name: r.ResourceName}, r.ConfigNames)
		if rr.ErrorCode, rr.ErrorMessage = adminError(err); rr.ErrorMessage == nil {
			rr.ErrorMessage = new(string) // Kafka sends an empty one rather than none
		}
		for _, e := range entries {
			rr.Configs = append(rr.Configs, describedConfig(e, req.IncludeSynonyms, req.IncludeDocumentation))
		}
		resp.Resources = append(resp.Resources, rr)
	}
	return resp, nil
}

func describedConfig(e config.Entry, synonyms, documentation bool) kmsg.DescribeConfigsResponseResourceConfig {
	rc := kmsg.NewDescribeConfigsResponseResourceConfig()
	rc.Name, rc.Value, rc.ReadOnly, rc.IsSensitive = e.Name, e.Value, e.ReadOnly, e.Sensitive
	rc.Source, rc.ConfigType = kmsg.ConfigSource(e.Source), kmsg.ConfigType(e.Type)
	rc.IsDefault = e.Source == config.SourceDefault
	if documentation && e.Doc != "" {
		rc.Documentation = &e.Doc
	}
	if synonyms {
		for _, s := range e.Synonyms {
			rs := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
			rs.Name, rs.Value, rs.Source = s.Name, s.Value, kmsg.ConfigSource(s.Source)
			rc.ConfigSynonyms = append(rc.ConfigSynonyms, rs)
		}
	}
	return rc
}
