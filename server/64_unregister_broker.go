package server

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// UnregisterBroker (v0): forgets a broker that is not to come back. One that is still there registers itself again.
var unregisterBroker = api{key: 64, min: 0, max: 0, serve: (*Server).unregisterBroker}

// unregisterBrokerTime bounds the change; the request has no time of its own.
const unregisterBrokerTime = 30 * time.Second

func (s *Server) unregisterBroker(ctx context.Context, _ *call, request kmsg.Request) (kmsg.Response, error) {
	req := request.(*kmsg.UnregisterBrokerRequest)
	resp := kmsg.NewPtrUnregisterBrokerResponse()
	ctx, cancel := context.WithTimeout(ctx, unregisterBrokerTime)
	defer cancel()
	resp.ErrorCode, resp.ErrorMessage = adminError(s.engine.Topics().UnregisterBroker(ctx, req.BrokerID))
	if resp.ErrorMessage == nil {
		resp.ErrorMessage = new(string) // Kafka sends an empty one rather than none
	}
	return resp, nil
}
