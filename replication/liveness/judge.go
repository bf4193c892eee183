package liveness

import (
	"slices"
	"time"
)

// Judge knows which brokers have been heard when. It is not safe for concurrent use. Time is an argument.
type Judge struct {
	lease  time.Duration
	leases map[int32]lease
}

// lease is of one registration of a broker.
type lease struct {
	epoch int64
	ends  time.Time
}

// NewJudge makes a judge who gives every broker so much time between two heartbeats.
func NewJudge(d time.Duration) *Judge { return &Judge{lease: d, leases: map[int32]lease{}} }

// Standing is a broker that may serve clients, as the metadata has it.
type Standing struct {
	ID    int32
	Epoch int64
}

// Know tells who may serve now. Whoever is new, or has registered again, has a lease from now on: so does everybody when
// this node begins to lead.
func (j *Judge) Know(all []Standing, now time.Time) {
	known := make(map[int32]lease, len(all))
	for _, b := range all {
		l, found := j.leases[b.ID]
		if !found || l.epoch != b.Epoch {
			l = lease{epoch: b.Epoch, ends: now.Add(j.lease)}
		}
		known[b.ID] = l
	}
	j.leases = known
}

// Heard tells of a heartbeat. One of another registration than the current one counts for nothing.
func (j *Judge) Heard(b Standing, now time.Time) {
	if l, found := j.leases[b.ID]; found && l.epoch == b.Epoch {
		l.ends = now.Add(j.lease)
		j.leases[b.ID] = l
	}
}

// Gone tells that a broker's process has ended: its lease ends with it.
func (j *Judge) Gone(b Standing, now time.Time) {
	if l, found := j.leases[b.ID]; found && l.epoch == b.Epoch {
		l.ends = now
		j.leases[b.ID] = l
	}
}

// Overdue lists, by id, those whose lease has ended.
func (j *Judge) Overdue(now time.Time) []Standing {
	var overdue []Standing
	for id, l := range j.leases {
		if !now.Before(l.ends) {
			overdue = append(overdue, Standing{id, l.epoch})
		}
	}
	slices.SortFunc(overdue, func(a, b Standing) int { return int(a.ID) - int(b.ID) })
	return overdue
}

// Next is when the next lease ends if nothing is heard; false when there is none.
func (j *Judge) Next() (at time.Time, any bool) {
	for _, l := range j.leases {
		if !any || l.ends.Before(at) {
			at, any = l.ends, true
		}
	}
	return at, any
}
