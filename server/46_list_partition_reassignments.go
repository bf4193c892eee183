package server

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ListPartitionReassignments (v0): on one node none is ever under way.
var listPartitionReassignments = api{key: 46, min: 0, max: 0, serve: (*Server).listPartitionReassignments}

func (s *Server) listPartitionReassignments(context.Context, *call, kmsg.Request) (kmsg.Response, error) {
	return kmsg.NewPtrListPartitionReassignmentsResponse(), nil
}
