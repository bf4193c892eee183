package replication

import (
	"context"
	"slices"

	"github.com/millrace/millrace/engine/catalog"
)

// mostElections is how many leaders are elected by one command.
const mostElections = 1000

// balance has partitions led by their preferred replicas again, now and then, while this node leads the metadata: after restarts
// leaders crowd on those who were up. It ends with ctx.
func (n *Node) balance(ctx context.Context) {
	for sleep(ctx, n.opts.Config.LeaderImbalanceCheck) {
		c := n.control.Load()
		if !c.Leads() {
			continue
		}
		for all := misled(c.Image()); len(all) > 0; all = all[min(mostElections, len(all)):] {
			some := all[:min(mostElections, len(all))]
			attempt, cancel := context.WithTimeout(ctx, proposal)
			_, err := c.Propose(attempt, catalog.ElectLeaders{Kind: catalog.PreferredElection, Partitions: some})
			cancel()
			if err != nil {
				n.log.Warn("partitions could not be given back to the leaders that they prefer; it is tried again", "partitions", len(all), "error", err)
				break
			}
			n.log.Info("partitions are led by the replica that they prefer again", "partitions", len(some))
		}
	}
}

// misled lists the partitions that another leads than the first of their replicas, which could.
func misled(image *catalog.Image) []catalog.PartitionRef {
	var all []catalog.PartitionRef
	for _, topic := range image.Topics() {
		for i := range topic.Partitions {
			p := &topic.Partitions[i]
			first := p.Replicas[0]
			if b, found := image.Broker(first); p.Leader != first && slices.Contains(p.ISR, first) && found && b.Active() {
				all = append(all, catalog.PartitionRef{Topic: topic.ID, Partition: int32(i)})
			}
		}
	}
	return all
}
