package catalog

import "slices"

// ChangeISR is what a leader says of the in-sync sets of partitions that it leads
// (Kafka's AlterPartition). When its broker's epoch is stale every item is refused.
type ChangeISR struct {
	Broker      int32
	BrokerEpoch int64
	Changes     []ISRChange
}

// ISRChange gives one partition another in-sync set. It is refused with ErrUnknownTopic; ErrFencedLeaderEpoch
// and ErrNotLeader, when another leads; ErrConflict, when the partition has changed meanwhile; ErrIneligibleReplica,
// when a broker among the set is not active, or its copy in a directory that it does not have any more; ErrInvalid, when the set contradicts itself.
// A reassignment that the new set completes is completed, which may change the leader.
type ISRChange struct {
	Topic          TopicID
	Partition      int32
	LeaderEpoch    int32
	PartitionEpoch int32   // of the partition that the change was planned on
	ISR            []int32 // with the leader
	Epochs         []int64 `json:",omitempty"` // of each of them as the leader knows it, -1 if it does not; nil knows none
	Recovering     bool    `json:",omitempty"` // the leader has not yet recovered from an unclean election
}

func (d *draft) changeISRs(c ChangeISR) []error {
	_, err := d.registered(c.Broker, c.BrokerEpoch)
	return each(c.Changes, func(ch ISRChange) error {
		if err != nil {
			return err
		}
		return d.changeISR(c.Broker, ch)
	})
}

func (d *draft) changeISR(leader int32, ch ISRChange) error {
	t, p := d.lookUp(ch.Topic, ch.Partition)
	if p == nil {
		return ErrUnknownTopic
	}
	if err := d.checkISR(leader, p, ch); err != nil {
		return err
	}
	r, w := d.rulesOf(t), asItIs(p)
	w.isr, w.recovering, w.election = slices.Clone(ch.ISR), ch.Recovering, r.usually
	d.change(r, t, ch.Partition, w)
	return nil
}

func (d *draft) checkISR(leader int32, p *Partition, ch ISRChange) error {
	switch {
	case ch.LeaderEpoch < p.LeaderEpoch:
		return ErrFencedLeaderEpoch
	case ch.LeaderEpoch > p.LeaderEpoch:
		return ErrConflict
	case leader != p.Leader:
		return ErrNotLeader
	case ch.PartitionEpoch != p.PartitionEpoch:
		return ErrConflict
	case !slices.Contains(ch.ISR, leader), len(ch.Epochs) > 0 && len(ch.Epochs) != len(ch.ISR),
		ch.Recovering && (len(ch.ISR) > 1 || !p.Recovering):
		return ErrInvalid
	}
	active := d.activeBrokers()
	for i, id := range ch.ISR {
		if !slices.Contains(p.Replicas, id) || slices.Contains(ch.ISR[:i], id) {
			return ErrInvalid
		}
		b := active[id]
		if b == nil || !b.hasDir(p.Dir(id)) || len(ch.Epochs) > 0 && ch.Epochs[i] >= 0 && ch.Epochs[i] != b.Epoch {
			return ErrIneligibleReplica
		}
	}
	return nil
}
