package server

import (
	"context"
	"regexp/syntax"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ListTransactions (v0-2): there are none, since there are no transactions here;
// filters by states that do not exist are named in the answer.
//
// v1: only those that are open for longer
// v2: only those whose id matches a pattern
var listTransactions = api{key: 66, min: 0, max: 2, serve: (*Server).listTransactions}

var transactionStates = []string{
	"Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "Dead", "PrepareEpochFence",
}

// maxPattern is the length of the longest transactional id.
const maxPattern = 1<<15 - 1

func (s *Server) listTransactions(_ context.Context, _ *call, request kmsg.Request) (kmsg.Response, error) {
	req := request.(*kmsg.ListTransactionsRequest)
	resp := kmsg.NewPtrListTransactionsResponse()
	if pattern := req.TransactionalIDPattern; pattern != nil {
		if _, err := syntax.Parse((*pattern)[:min(len(*pattern), maxPattern)], syntax.Perl); err != nil || len(*pattern) > maxPattern {
			resp.ErrorCode = codeInvalidRegularExpression
			return resp, nil
		}
	}
	for _, state := range req.StateFilters {
		if !slices.Contains(transactionStates, state) && !slices.Contains(resp.UnknownStateFilters, state) {
			resp.UnknownStateFilters = append(resp.UnknownStateFilters, state)
		}
	}
	return resp, nil
}
