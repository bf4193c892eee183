package server

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// SaslAuthenticate (v0-2). No listener has SASL, so every connection counts as
// authenticated from its start.
//
// v1: session lifetime
// v2: flexible
var saslAuthenticate = api{key: 36, min: 0, max: 2, serve: (*Server).saslAuthenticate}

func (s *Server) saslAuthenticate(context.Context, *call, kmsg.Request) (kmsg.Response, error) {
	resp := kmsg.NewPtrSASLAuthenticateResponse()
	resp.ErrorCode = codeIllegalSaslState
	resp.ErrorMessage = nullable("SaslAuthenticate request received after successful authentication")
	resp.SASLAuthBytes = []byte{}
	return resp, nil
}
