package server

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeCluster (v0-2).
//
// v1: endpoint type: brokers are described, controllers are not reached here
// v2: fenced brokers when they are asked for
var describeCluster = api{key: 60, min: 0, max: 2, serve: (*Server).describeCluster}

func (s *Server) describeCluster(_ context.Context, c *call, request kmsg.Request) (kmsg.Response, error) {
	const brokers, controllers = 1, 2
	req := request.(*kmsg.DescribeClusterRequest)
	resp := kmsg.NewPtrDescribeClusterResponse()
	if c.version >= 1 && req.EndpointType != brokers {
		message := fmt.Sprintf("Unsupported endpoint type %d", req.EndpointType)
		resp.ErrorCode = codeUnsupportedEndpointType
		if req.EndpointType == controllers {
			message = "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER"
			resp.ErrorCode = codeMismatchedEndpointType
		}
		resp.ErrorMessage = &message
		resp.ControllerID = -1
		return resp, nil
	}
	resp.ClusterID = s.engine.ClusterID()
	img := s.engine.Image()
	resp.ControllerID = s.engine.Controller(img)
	resp.ClusterAuthorizedOperations = noOperations
	if req.IncludeClusterAuthorizedOperations {
		resp.ClusterAuthorizedOperations = clusterOperations
	}
	ids := s.brokerIDs(img)
	if c.version >= 2 && req.IncludeFencedBrokers && s.engine.Clustered() {
		ids = ids[:0]
		for _, b := range img.Brokers() {
			ids = append(ids, b.ID)
		}
	}
	for _, id := range ids {
		host, port, rack, found := s.brokerEndpoint(c, id)
		if !found {
			continue
		}
		b := kmsg.NewDescribeClusterResponseBroker()
		b.NodeID, b.Host, b.Port, b.Rack = id, host, port, nullable(rack)
		b.IsFenced = !s.alive(img, id)
		resp.Brokers = append(resp.Brokers, b)
	}
	return resp, nil
}
