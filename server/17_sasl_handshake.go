package server

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// SaslHandshake (v0-1). Kafka serves it on listeners without SASL too, where it
// tells clients that want to log in that this is not the place.
//
// v1: the login goes on with SaslAuthenticate
var saslHandshake = api{key: 17, min: 0, max: 1, serve: (*Server).saslHandshake}

func (s *Server) saslHandshake(context.Context, *call, kmsg.Request) (kmsg.Response, error) {
	resp := kmsg.NewPtrSASLHandshakeResponse()
	resp.ErrorCode = codeIllegalSaslState
	return resp, nil
}
