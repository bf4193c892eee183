package catalog

import (
	"iter"
	"slices"
)

// Reassign begins, changes or cancels the moves of partitions to other brokers (KIP-455).
type Reassign struct{ Partitions []Reassignment }

// Reassignment gives a partition other replicas: those that are new are added; the others are removed once
// all that stay are in sync. It is refused with ErrUnknownTopic; ErrInvalidAssignment, when the replicas are none, not registered or
// named twice; ErrFactorChanged; and, to cancel, ErrNoReassignment and ErrUncleanCancel.
type Reassignment struct {
	Topic      TopicID
	Partition  int32
	Replicas   []int32 // the first one is preferred as leader; nil cancels what is in progress
	KeepFactor bool    `json:",omitempty"` // refuse another number of replicas (KIP-860)
}

// Reassigning walks the partitions whose reassignment is in progress, topics by name. It looks
// at every partition.
func (img *Image) Reassigning() iter.Seq2[*Topic, int32] {
	return func(yield func(*Topic, int32) bool) {
		for _, t := range img.Topics() {
			for i := range t.Partitions {
				if t.Partitions[i].Reassigning() && !yield(t, int32(i)) {
					return
				}
			}
		}
	}
}

func (d *draft) reassign(c Reassignment) error {
	t, p := d.lookUp(c.Topic, c.Partition)
	if p == nil {
		return ErrUnknownTopic
	}
	r := d.rulesOf(t)
	w, err := asItIs(p), error(nil)
	if c.Replicas == nil {
		err = w.cancel(r)
	} else if err = d.checkTarget(p, c); err == nil {
		w.retarget(c.Replicas)
	}
	if err != nil {
		return err
	}
	d.change(r, t, c.Partition, w)
	return nil
}

func (d *draft) checkTarget(p *Partition, c Reassignment) error {
	if len(c.Replicas) == 0 {
		return ErrInvalidAssignment
	}
	for i, id := range c.Replicas {
		if d.broker(id) == nil || slices.Contains(c.Replicas[:i], id) {
			return ErrInvalidAssignment
		}
	}
	if c.KeepFactor && len(c.Replicas) != len(minus(p.Replicas, p.Removing)) {
		return ErrFactorChanged
	}
	return nil
}

// retarget turns to other replicas, whatever was in progress. As with Kafka, one that an earlier
// reassignment was adding and that stays counts as a replica like the others, unless
// nothing else is added.
func (w *wanted) retarget(replicas []int32) {
	w.removing = slices.Sorted(slices.Values(minus(w.replicas, replicas)))
	if adding := minus(replicas, w.replicas); len(adding) > 0 {
		w.adding = slices.Sorted(slices.Values(adding))
	}
	w.replicas = slices.Concat(replicas, w.removing)
}

// cancel goes back to the replicas before. When none of them is in sync that takes an unclean
// election. (Kafka declares the first one in sync instead, even a dead one.)
func (w *wanted) cancel(r rules) error {
	if len(w.adding) == 0 && len(w.removing) == 0 {
		return ErrNoReassignment
	}
	w.replicas, w.isr = minus(w.replicas, w.adding), minus(w.isr, w.adding)
	w.adding, w.removing, w.election = nil, nil, r.usually
	switch {
	case len(w.replicas) == 0:
		return ErrInvalidAssignment
	case len(w.isr) == 0 && r.usually != unclean:
		return ErrUncleanCancel
	}
	return nil
}

// complete ends a reassignment when all replicas that stay are in sync.
func (w *wanted) complete() {
	if len(w.adding) == 0 && len(w.removing) == 0 {
		return
	}
	replicas, isr := minus(w.replicas, w.removing), minus(w.isr, w.removing)
	if len(replicas) > 0 && len(isr) > 0 && containsAll(isr, replicas) {
		w.replicas, w.isr, w.adding, w.removing = replicas, isr, nil, nil
	}
}

// dirsFor arranges the directories of a partition for other replicas; nil when none is known.
func dirsFor(replicas []int32, dir func(int32) DirID) []DirID {
	dirs := make([]DirID, len(replicas))
	known := false
	for i, id := range replicas {
		dirs[i] = dir(id)
		known = known || dirs[i] != DirID{}
	}
	if !known {
		return nil
	}
	return dirs
}
