package isr

import (
	"cmp"
	"slices"
	"time"
)

// Wanted is the in-sync set that should replace the present one, if it should be replaced. There is none while a change is
// pending, nor for Config.Retry after one was refused. It leaves out who lags, has been lost for too long or has less than
// it had acknowledged, and takes in who has everything that is committed, and all from before this leader epoch.
func (l *Leader) Wanted(now time.Time) (c Change, ok bool) {
	if l.pending != nil || now.Before(l.retryAt) {
		return Change{}, false
	}
	changed := false
	set := []Member{{l.self, l.selfEpoch}}
	for i := range l.followers {
		f := &l.followers[i]
		member := l.inSync(f.id)
		stays := member && !l.out(f, now) || !member && l.mayJoin(f, now)
		if stays {
			set = append(set, Member{f.id, f.epoch})
		}
		changed = changed || stays != member
	}
	if !changed {
		return Change{}, false
	}
	slices.SortFunc(set, func(a, b Member) int { return cmp.Compare(a.Broker, b.Broker) })
	return Change{LeaderEpoch: l.state.LeaderEpoch, PartitionEpoch: l.state.PartitionEpoch, InSync: set}, true
}

// out tells whether a member has to leave.
func (l *Leader) out(f *follower, now time.Time) bool {
	return f.regress ||
		f.end < l.end && now.Sub(f.caughtUp) > l.cfg.MaxLag ||
		!f.lostAt.IsZero() && now.Sub(f.lostAt) > l.cfg.MaxLost
}

// mayJoin tells whether a follower belongs into the in-sync set.
func (l *Leader) mayJoin(f *follower, now time.Time) bool {
	return f.end != unknown && f.end >= l.watermark && f.end >= l.epochStart && f.lostAt.IsZero() && l.eligible(f.id) &&
		(f.end >= l.end || now.Sub(f.caughtUp) <= l.cfg.MaxLag) // or it would have to leave again at once
}

// Deadline is when Tick and Wanted are to be called next although nothing has happened; zero: never. What is due already
// (see Wanted) has no deadline.
func (l *Leader) Deadline(now time.Time) (at time.Time) {
	note := func(t time.Time) {
		if t.After(now) && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	const justPast = time.Nanosecond // the bounds themselves are allowed
	for i := range l.followers {
		f := &l.followers[i]
		if member := l.inSync(f.id); member || l.joining(f, now) {
			if f.end < l.end {
				note(f.caughtUp.Add(l.cfg.MaxLag + justPast))
			}
			if member && !f.lostAt.IsZero() {
				note(f.lostAt.Add(l.cfg.MaxLost + justPast))
			}
		}
	}
	note(l.retryAt)
	return at
}
