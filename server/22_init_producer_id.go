package server

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// InitProducerId (v0-5).
//
// v2: flexible
// v3: the producer's present id and epoch, which Kafka looks at for transactional
// producers only: any other gets a new id
// v4: PRODUCER_FENCED
//
// Not offered: transactions. A transactional id is answered with
// UNSUPPORTED_VERSION, which clients take as final; the codes that say "not the
// coordinator" would make them ask again for ever.
var initProducerID = api{key: 22, min: 0, max: 5, serve: (*Server).initProducerID}

// producerIDTime bounds how long a request waits for a block of producer ids.
const producerIDTime = 10 * time.Second

func (s *Server) initProducerID(ctx context.Context, _ *call, request kmsg.Request) (kmsg.Response, error) {
	req := request.(*kmsg.InitProducerIDRequest)
	resp := kmsg.NewPtrInitProducerIDResponse()
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	switch {
	case (req.ProducerID == -1) != (req.ProducerEpoch == -1):
		resp.ErrorCode = codeInvalidRequest
	case req.TransactionalID != nil && *req.TransactionalID == "":
		resp.ErrorCode = codeInvalidRequest
	case req.TransactionalID != nil:
		resp.ErrorCode = codeUnsupportedVersion
	default:
		ctx, cancel := context.WithTimeout(ctx, producerIDTime)
		defer cancel()
		id, err := s.producerIDs.Next(ctx)
		if err != nil {
			resp.ErrorCode = codeCoordinatorLoadInProgress // as Kafka while it waits for a block: ask again
			return resp, nil
		}
		resp.ProducerID, resp.ProducerEpoch = id, 0
	}
	return resp, nil
}
