package group

import (
	"slices"
	"time"
)

// arm makes sure that a Tick comes by then.
func (g *Group) arm(at time.Time) {
	if g.wake.IsZero() || at.Before(g.wake) {
		g.wake = at
	}
}

// expect ends the member's session at that time, unless something is heard of it.
func (g *Group) expect(m *member, by time.Time) {
	m.deadline = by
	g.arm(by)
}

func (g *Group) expectHeartbeat(now time.Time, m *member) {
	g.expect(m, now.Add(milliseconds(m.sessionTimeoutMs)))
}

func (g *Group) startJoinTimer(now time.Time, t joinTimer) {
	t.at = now.Add(t.delay)
	g.joinTimer = t
	g.arm(t.at)
}

// armExpiry has the offsets looked at one check interval from now, if that was not to come sooner.
func (g *Group) armExpiry(now time.Time) {
	at := now.Add(g.cfg.RetentionCheckInterval)
	if g.expiryCheck.IsZero() || at.Before(g.expiryCheck) {
		g.expiryCheck = at
	}
	g.arm(g.expiryCheck)
}

// due tells whether a timer runs and is up.
func due(at, now time.Time) bool { return !at.IsZero() && !at.After(now) }

// tick does what is due, sessions in the order in which they ended, and finds the next time to wake.
func (g *Group) tick(now time.Time, e *Effects) {
	g.expireSessions(now, e)
	if t := g.joinTimer; due(t.at, now) {
		g.joinTimer = joinTimer{}
		if t.initial {
			g.extendOrComplete(now, t, e)
		} else {
			g.completeJoin(now, e)
		}
	}
	if due(g.syncTimer, now) {
		g.syncTimer = time.Time{}
		g.expireSync(now, e)
	}
	if due(g.expiryCheck, now) {
		g.expiryCheck = time.Time{}
		g.expireOffsets(now, e)
	}
	g.rewind()
}

// rewind sets wake to the earliest of all timers.
func (g *Group) rewind() {
	g.wake = time.Time{}
	for _, m := range g.members {
		g.armIfSet(m.deadline)
	}
	for _, until := range g.pendingJoin {
		g.armIfSet(until)
	}
	g.armIfSet(g.joinTimer.at)
	g.armIfSet(g.syncTimer)
	g.armIfSet(g.expiryCheck)
}

func (g *Group) armIfSet(at time.Time) {
	if !at.IsZero() {
		g.arm(at)
	}
}

// session is a deadline of a member, or of an id that was handed out.
type session struct {
	id string
	at time.Time
}

func (g *Group) expireSessions(now time.Time, e *Effects) {
	var over []session
	for id, m := range g.members {
		if due(m.deadline, now) {
			over = append(over, session{id, m.deadline})
		}
	}
	for id, until := range g.pendingJoin {
		if due(until, now) {
			over = append(over, session{id, until})
		}
	}
	slices.SortFunc(over, func(a, b session) int {
		if c := a.at.Compare(b.at); c != 0 {
			return c
		}
		if a.id < b.id {
			return -1
		}
		return 1
	})
	for _, s := range over {
		g.expireSession(now, s, e)
	}
}

func (g *Group) expireSession(now time.Time, s session, e *Effects) {
	if _, ok := g.pendingJoin[s.id]; ok {
		e.note("member has not come back with its id in time", "group", g.id, "member", s.id)
		g.remove(s.id)
		if g.state == PreparingRebalance && g.allJoined() {
			g.completeJoin(now, e)
		}
		return
	}
	m := g.members[s.id]
	if m == nil || m.deadline != s.at {
		return // an earlier one of this tick has removed it, or begun its session anew
	}
	m.deadline = time.Time{}
	if m.hasSatisfiedHeartbeat() {
		return // it is expected again when its answer goes out
	}
	e.note("member's session has timed out", "group", g.id, "member", m.id)
	g.replyJoin(m, joinError(ErrUnknownMemberID, ""), e)
	g.remove(m.id)
	switch {
	case g.state == Stable, g.state == CompletingRebalance:
		g.prepareRebalance(now, "session of member "+m.id+" has timed out", e)
	case g.state == PreparingRebalance && g.allJoined():
		g.completeJoin(now, e)
	}
}

// expireSync removes the members of the generation that have not asked for their assignment.
func (g *Group) expireSync(now time.Time, e *Effects) {
	if g.state != CompletingRebalance && g.state != Stable || len(g.pendingSync) == 0 {
		return
	}
	var late []string
	for _, m := range g.sorted() {
		if g.pendingSync[m.id] {
			late = append(late, m.id)
			g.remove(m.id)
		}
	}
	e.note("removed members that have not synced in time", "group", g.id, "members", late)
	g.prepareRebalance(now, "members have not synced in time", e)
}

// loaded begins the sessions anew: nobody could be heard while the log was read.
func (g *Group) loaded(now time.Time, e *Effects) {
	for _, m := range g.sorted() {
		g.expectHeartbeat(now, m)
	}
	if len(g.members) > g.cfg.MaxSize {
		g.prepareRebalance(now, "more members than group.max.size", e)
	}
	g.armExpiry(now)
}
