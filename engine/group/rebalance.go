package group

import (
	"fmt"
	"time"
)

// rebalanceOrComplete begins a rebalance, or ends the one that is on when this was the last to wait for.
func (g *Group) rebalanceOrComplete(now time.Time, why string, e *Effects) {
	switch g.state {
	case Empty, CompletingRebalance, Stable:
		g.prepareRebalance(now, why, e)
	default:
		g.maybeCompleteJoin(now, e)
	}
}

func (g *Group) prepareRebalance(now time.Time, why string, e *Effects) {
	if g.state == CompletingRebalance {
		g.propagateError(now, ErrRebalanceInProgress, e)
	}
	clear(g.pendingSync)
	g.syncTimer = time.Time{}

	initial := g.state == Empty
	if initial {
		delay := g.cfg.InitialRebalanceDelay
		g.startJoinTimer(now, joinTimer{initial: true, delay: delay, remaining: max(g.rebalanceTimeout()-delay, 0)})
	}
	g.transition(now, PreparingRebalance)
	e.note("preparing to rebalance", "group", g.id, "generation", g.generation, "reason", why)
	if initial {
		return
	}
	if g.allJoined() {
		g.completeJoin(now, e)
		return
	}
	g.startJoinTimer(now, joinTimer{delay: g.rebalanceTimeout()})
}

// maybeCompleteJoin ends the joining when all are there, but not the first one, which waits for its time.
func (g *Group) maybeCompleteJoin(now time.Time, e *Effects) {
	if g.state == PreparingRebalance && g.previous != Empty && g.allJoined() {
		g.completeJoin(now, e)
	}
}

// extendOrComplete ends the first joining, or gives more time when members have arrived since.
func (g *Group) extendOrComplete(now time.Time, t joinTimer, e *Effects) {
	if !g.newMemberAdded || t.remaining == 0 {
		g.completeJoin(now, e)
		return
	}
	g.newMemberAdded = false
	g.startJoinTimer(now, joinTimer{
		initial: true, delay: min(g.cfg.InitialRebalanceDelay, t.remaining), remaining: max(t.remaining-t.delay, 0),
	})
}

// leastJoinRetry keeps a group whose members ask for no time at all from spinning while nobody joins.
const leastJoinRetry = time.Second

// completeJoin begins the next generation with those who have joined.
func (g *Group) completeJoin(now time.Time, e *Effects) {
	g.joinTimer = joinTimer{}
	if g.state != PreparingRebalance {
		return
	}
	var late []string
	for _, m := range g.sorted() {
		if m.join == 0 && !m.isStatic() {
			late = append(late, m.id)
			g.remove(m.id)
		}
	}
	if len(late) > 0 {
		e.note("removed members that have not joined again in time", "group", g.id, "members", late)
	}
	if len(g.members) > 0 && !g.electJoinedLeader(e) {
		e.warn("no member has joined again; waiting for them or for the end of their sessions", "group", g.id)
		g.startJoinTimer(now, joinTimer{delay: max(g.rebalanceTimeout(), leastJoinRetry)})
		return
	}

	g.generation++
	clear(g.pendingSync)
	if len(g.members) == 0 {
		g.protocol = nil
		g.subscribed = g.subscribedTopics(e)
		g.transition(now, Empty)
		e.note("group is now empty", "group", g.id, "generation", g.generation)
		g.write(e, []Record{{Group: g.id, Metadata: g.metadata(nil)}}, emptied{})
		return
	}
	protocol := g.selectProtocol()
	g.protocol = &protocol
	g.subscribed = g.subscribedTopics(e)
	g.transition(now, CompletingRebalance)
	e.note("stabilized", "group", g.id, "generation", g.generation, "members", len(g.members), "protocol", protocol)
	for _, m := range g.sorted() {
		g.replyJoin(m, g.generationFor(m, g.isLeader(m.id)), e)
		g.expectHeartbeat(now, m)
		m.isNew = false
		g.pendingSync[m.id] = true
	}
	g.syncTimer = now.Add(g.rebalanceTimeout())
	g.arm(g.syncTimer)
}

// emptied is the record of a generation without members. Were it lost, the one before would come back at
// a restart, and its members would time out: safe enough to go on.
type emptied struct{}

func (emptied) written(g *Group, _ time.Time, err error, e *Effects) {
	if err != nil {
		e.warn("could not store that a group is empty", "group", g.id, "error", err)
	}
}

// electJoinedLeader keeps the leader if it has joined again, or else takes the first that has.
func (g *Group) electJoinedLeader(e *Effects) bool {
	if leader := g.members[deref(g.leader)]; leader != nil && leader.join != 0 {
		return true
	}
	joined := g.first(func(m *member) bool { return m.join != 0 })
	if joined == nil {
		return false
	}
	e.note("the leader has not joined again in time; another was elected", "group", g.id, "old", deref(g.leader), "new", joined.id)
	g.leader = &joined.id
	return true
}

// syncGroup hands out assignments once the leader's are durable.
func (g *Group) syncGroup(now time.Time, ev Sync, e *Effects) {
	if err := g.validateSync(ev); err != nil {
		e.reply(ev.Token, SyncResponse{Err: err})
		return
	}
	m := g.members[ev.MemberID]
	switch g.state {
	case CompletingRebalance:
		m.sync = ev.Token
		g.hasSynced(m)
		if g.isLeader(m.id) {
			g.storeAssignment(ev, e)
		}
	case Stable:
		g.hasSynced(m)
		e.reply(ev.Token, g.assignmentFor(m))
	}
}

func (g *Group) validateSync(ev Sync) error {
	if g.state == Empty {
		return ErrUnknownMemberID
	}
	if err := g.validate(ev.MemberID, ev.InstanceID); err != nil {
		return err
	}
	switch {
	case ev.Generation != g.generation:
		return ErrIllegalGeneration
	case differ(ev.ProtocolType, g.protocolType), differ(ev.Protocol, g.protocol):
		return ErrInconsistentProtocol
	case g.state == PreparingRebalance:
		return ErrRebalanceInProgress
	}
	return nil
}

func differ(a, b *string) bool { return a != nil && b != nil && *a != *b }

func (g *Group) hasSynced(m *member) {
	delete(g.pendingSync, m.id)
	if len(g.pendingSync) == 0 {
		g.syncTimer = time.Time{}
	}
}

func (g *Group) assignmentFor(m *member) SyncResponse {
	return SyncResponse{ProtocolType: g.protocolType, Protocol: g.protocol, Assignment: m.assignment}
}

func (g *Group) storeAssignment(ev Sync, e *Effects) {
	var missing []string
	for _, m := range g.sorted() {
		if _, ok := ev.Assignments[m.id]; !ok {
			missing = append(missing, m.id)
		}
	}
	if len(missing) > 0 {
		e.warn("the leader has assigned nothing to some members", "group", g.id, "generation", g.generation, "members", missing)
	}
	record := Record{Group: g.id, Metadata: g.metadata(func(m *member) []byte { return ev.Assignments[m.id] })}
	g.write(e, []Record{record}, assignment{generation: g.generation, byMember: ev.Assignments})
}

// assignment is the record of a generation with what each member was assigned.
type assignment struct {
	generation int32
	byMember   map[string][]byte
}

func (a assignment) written(g *Group, now time.Time, err error, e *Effects) {
	if g.state != CompletingRebalance || g.generation != a.generation {
		return // another rebalance has begun, and has told everybody
	}
	if err != nil {
		g.propagateError(now, err, e)
		g.rebalanceOrComplete(now, fmt.Sprintf("could not store the assignment: %v", err), e)
		return
	}
	for _, m := range g.sorted() {
		m.assignment = a.byMember[m.id]
		if g.replySync(m, g.assignmentFor(m), e) {
			// A session that ended while its sync waited was let pass; it is expected again from here.
			g.expectHeartbeat(now, m)
		}
	}
	g.transition(now, Stable)
}

// propagateError forgets the assignments and answers whoever waits for one.
func (g *Group) propagateError(now time.Time, err error, e *Effects) {
	for _, m := range g.sorted() {
		m.assignment = nil
		if g.replySync(m, SyncResponse{Err: err}, e) {
			g.expectHeartbeat(now, m)
		}
	}
}

func (g *Group) heartbeat(now time.Time, ev Heartbeat) error {
	if err := g.validate(ev.MemberID, ev.InstanceID); err != nil {
		return err
	}
	if ev.Generation != g.generation {
		return ErrIllegalGeneration
	}
	g.expectHeartbeat(now, g.members[ev.MemberID])
	if g.state == PreparingRebalance {
		return ErrRebalanceInProgress
	}
	return nil
}

// leave removes members; the answer waits when that empties the group, which is stored.
func (g *Group) leave(now time.Time, ev Leave, e *Effects) {
	var resp LeaveResponse
	var left []string
	for _, l := range ev.Members {
		err := g.leaveOne(l, e)
		resp.Members = append(resp.Members, LeaveResult{ID: l.ID, InstanceID: l.InstanceID, Err: err})
		if err == nil {
			left = append(left, l.ID+deref(l.InstanceID))
		}
	}
	if len(left) > 0 {
		switch g.state {
		case CompletingRebalance, Stable:
			g.prepareRebalance(now, fmt.Sprintf("members %q have left", left), e)
		case PreparingRebalance:
			g.maybeCompleteJoin(now, e)
		}
	}
	if n := len(e.Writes); n > 0 {
		e.Writes[n-1].then = leaving{token: ev.Token, resp: resp}
		return
	}
	e.reply(ev.Token, resp)
}

func (g *Group) leaveOne(l LeavingMember, e *Effects) error {
	id := l.ID
	if id == "" {
		if l.InstanceID == nil {
			return ErrUnknownMemberID
		}
		var ok bool
		if id, ok = g.static[*l.InstanceID]; !ok {
			return ErrUnknownMemberID
		}
	} else if _, ok := g.pendingJoin[id]; !ok {
		if err := g.validate(id, l.InstanceID); err != nil {
			return err
		}
	}
	e.note("member has left", "group", g.id, "member", id, "reason", reason(l.Reason))
	if m := g.members[id]; m != nil {
		g.replyJoin(m, joinError(ErrUnknownMemberID, ""), e)
		g.replySync(m, SyncResponse{Err: ErrUnknownMemberID}, e)
	}
	g.remove(id)
	return nil
}

// leaving is the record of the empty generation that the last leaving member has brought about.
type leaving struct {
	token Token
	resp  LeaveResponse
}

func (l leaving) written(g *Group, now time.Time, err error, e *Effects) {
	emptied{}.written(g, now, err, e)
	if err != nil {
		l.resp = LeaveResponse{Err: err}
	}
	e.reply(l.token, l.resp)
}
