package engine

import "github.com/millrace/millrace/engine/catalog"

// ReadReplica is the broker from which a consumer that stands in a rack should read a partition at an offset (KIP-392), -1 when that is
// this one: a follower in sync in the consumer's rack that has the offset, of several the one that has most, when
// replica.selector.class asks for it, and the leader stands elsewhere. It does not block, nor allocate.
func (e *Engine) ReadReplica(image *catalog.Image, p *Partition, rack string, offset int64) int32 {
	const here = -1
	ends, known := p.replicator.(FollowerEnds)
	role := p.role.Load()
	if !known || rack == "" || !role.Leads || !e.Config().RackAwareReads {
		return here
	}
	if self, registered := image.Broker(e.NodeID()); !registered || self.Rack == rack {
		return here
	}
	best, most := int32(here), int64(-1)
	for _, id := range role.Placed.ISR {
		b, registered := image.Broker(id)
		if id == e.NodeID() || !registered || b.Fenced || b.Rack != rack || len(b.Endpoints) == 0 {
			continue
		}
		start, end, told := ends.FollowerEnd(p, id)
		if !told || offset < start || offset > end {
			continue
		}
		if end > most || end == most && id > best {
			best, most = id, end
		}
	}
	return best
}
