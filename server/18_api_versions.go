package server

import (
	"context"
	"regexp"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/catalog"
)

// ApiVersions (v0-4). The response header has version 0 always, since a client
// that asks does not know yet what the broker understands.
//
// v3: flexible; the client's software name and version; features, of a cluster alone
// v4: supported features may have a minimum of 0
//
// A version beyond is answered in the form of version 0, with UNSUPPORTED_VERSION
// and the range of this API alone: see (*conn).serveFrame.
var apiVersions = api{key: 18, min: 0, max: 4, serve: (*Server).apiVersions}

// softwareName is what Kafka accepts as name and version of a client.
var softwareName = regexp.MustCompile(`^[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?$`)

func (s *Server) apiVersions(_ context.Context, c *call, req kmsg.Request) (kmsg.Response, error) {
	r := req.(*kmsg.ApiVersionsRequest)
	resp := kmsg.NewPtrApiVersionsResponse()
	if c.version >= 3 && (!softwareName.MatchString(r.ClientSoftwareName) || !softwareName.MatchString(r.ClientSoftwareVersion)) {
		resp.ErrorCode = codeInvalidRequest
		return resp, nil
	}
	for _, a := range s.registry.list {
		k := kmsg.NewApiVersionsResponseApiKey()
		k.ApiKey, k.MinVersion, k.MaxVersion = a.key, a.min, a.max
		if a.key == produce.key {
			// Clients built on librdkafka do not compress unless the range begins at 0.
			k.MinVersion = 0
		}
		resp.ApiKeys = append(resp.ApiKeys, k)
	}
	if s.engine != nil && s.engine.Clustered() { // tests of the door alone have none
		tellFeatures(resp, c.version, s.engine.Image())
	}
	return resp, nil
}

// tellFeatures adds which levels of features this version supports, and which the cluster has finalised: those that are millrace's
// as well as Kafka's. metadata.version is not among them, as it stands for the records of Kafka's own log of metadata.
func tellFeatures(resp *kmsg.ApiVersionsResponse, version int16, img *catalog.Image) {
	resp.FinalizedFeaturesEpoch = int64(img.Version())
	for _, f := range engine.SupportedFeatures() {
		if f.Min > 0 || version >= 4 { // clients before that cannot read a minimum of 0
			k := kmsg.NewApiVersionsResponseSupportedFeature()
			k.Name, k.MinVersion, k.MaxVersion = f.Name, f.Min, f.Max
			resp.SupportedFeatures = append(resp.SupportedFeatures, k)
		}
		if level := img.Feature(f.Name); level > 0 {
			k := kmsg.NewApiVersionsResponseFinalizedFeature()
			k.Name, k.MinVersionLevel, k.MaxVersionLevel = f.Name, level, level
			resp.FinalizedFeatures = append(resp.FinalizedFeatures, k)
		}
	}
}

// unsupportedAPIVersions is the answer to an ApiVersions request of a version
// that is not known here.
func unsupportedAPIVersions() kmsg.Response {
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.ErrorCode = codeUnsupportedVersion
	k := kmsg.NewApiVersionsResponseApiKey()
	k.ApiKey, k.MinVersion, k.MaxVersion = apiVersions.key, apiVersions.min, apiVersions.max
	resp.ApiKeys = append(resp.ApiKeys, k)
	return resp
}
