package engine

import (
	"context"

	"github.com/millrace/millrace/engine/catalog"
)

// producerIDBlock is how many producer ids are reserved with one change.
const producerIDBlock = 1000

// ProducerIDs hands out producer ids that were never handed out before, on any
// node. It reserves them in blocks; what is left of a block at a stop is never used.
type ProducerIDs struct {
	catalog Metadata
	nodeID  int32
	turn    chan struct{} // holds one token, which guards the fields below; waiting for it ends with the waiter's context
	next    int64
	end     int64
}

// NewProducerIDs makes a source of producer ids. It reserves nothing before the
// first is asked for.
func NewProducerIDs(c Metadata, nodeID int32) *ProducerIDs {
	p := &ProducerIDs{catalog: c, nodeID: nodeID, turn: make(chan struct{}, 1)}
	p.turn <- struct{}{}
	return p
}

// Next returns a new producer id. It may have to wait for the catalogue's disk, until ctx ends.
func (p *ProducerIDs) Next(ctx context.Context) (int64, error) {
	select {
	case <-p.turn:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	defer func() { p.turn <- struct{}{} }()
	if p.next == p.end {
		result, err := p.catalog.Propose(ctx, catalog.AllocateProducerIDs{BrokerID: p.nodeID, Count: producerIDBlock})
		if err == nil {
			err = result.Errors[0]
		}
		if err != nil {
			return 0, err
		}
		p.next, p.end = result.FirstProducerID, result.FirstProducerID+producerIDBlock
	}
	id := p.next
	p.next++
	return id, nil
}
