package catalog

import "slices"

// AssignDirs says in which log directories brokers keep their replicas, and where to
// they are being moved.
type AssignDirs struct{ Replicas []ReplicaDir }

// ReplicaDir begins, ends or gives up the move of one replica. Dir is where it lies, or,
// to end a move, where it was being moved to: any other is refused with ErrConflict,
// unless nothing was known so far, or it lay in a directory that its broker does not have any more. In that
// case the copy is another one, which is not in sync and not eligible.
type ReplicaDir struct {
	Topic     TopicID
	Partition int32
	Broker    int32
	Dir       DirID
	Future    DirID // where it is being moved to from now on; zero: nowhere
	Expect    DirID // unless zero: where it must be being moved to until now; else ErrConflict
}

func (d *draft) assignDir(c ReplicaDir) error {
	t := d.TopicByID(c.Topic)
	if t == nil || c.Partition < 0 || int(c.Partition) >= len(t.Partitions) {
		return ErrUnknownTopic
	}
	p := &t.Partitions[c.Partition]
	at := slices.Index(p.Replicas, c.Broker)
	if at < 0 || c.Dir == (DirID{}) || c.Dir == c.Future {
		return ErrInvalid
	}
	dir, future := p.Dir(c.Broker), p.Future(c.Broker)
	b := d.broker(c.Broker)
	lost := b != nil && !b.hasDir(dir) && c.Dir != dir && c.Dir != future // a new copy, in place of one that is gone
	switch {
	case c.Expect != (DirID{}) && c.Expect != future, dir != (DirID{}) && c.Dir != dir && c.Dir != future && !lost:
		return ErrConflict
	case c.Dir == dir && c.Future == future:
		return nil
	}
	if lost {
		w := asItIs(p)
		w.isr, w.lost = without(p.ISR, c.Broker), c.Broker
		d.change(d.rulesOf(t), t, c.Partition, w)
		t = d.TopicByID(c.Topic)
	}
	p = &d.edit(t).Partitions[c.Partition]
	p.Dirs, p.Futures = withDir(p.Dirs, len(p.Replicas), at, c.Dir), withDir(p.Futures, len(p.Replicas), at, c.Future)
	p.PartitionEpoch++
	d.note(Event{Kind: DirAssigned, Topic: t.ID, Name: t.Name, Partition: c.Partition})
	return nil
}

// withDir is a copy of dirs, one for each replica, with one of them changed; nil when all are zero.
func withDir(dirs []DirID, replicas, at int, id DirID) []DirID {
	changed := make([]DirID, replicas)
	copy(changed, dirs)
	changed[at] = id
	if !slices.ContainsFunc(changed, func(id DirID) bool { return id != DirID{} }) {
		return nil
	}
	return changed
}
