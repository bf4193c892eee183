package group

import (
	"fmt"
	"time"
)

func joinError(err error, memberID string) JoinResponse {
	return JoinResponse{Err: err, MemberID: memberID, Generation: -1}
}

// joinGroup takes a member into the next generation, or says why not.
func (g *Group) joinGroup(now time.Time, ev Join, e *Effects) {
	isNewGroup := g.fresh
	if isNewGroup {
		g.stateTimestampMs = now.UnixMilli()
	}
	switch {
	case !g.accepts(ev.MemberID):
		g.remove(ev.MemberID)
		e.reply(ev.Token, joinError(ErrGroupMaxSizeReached, ""))
	case !g.supports(ev.ProtocolType, ev.Protocols):
		e.reply(ev.Token, joinError(ErrInconsistentProtocol, ev.MemberID))
	case ev.MemberID == "":
		g.joinNew(now, ev, e)
	default:
		g.joinKnown(now, ev, e)
	}
	if isNewGroup {
		empty := &Metadata{StateTimestampMs: g.stateTimestampMs}
		g.write(e, []Record{{Group: g.id, Metadata: empty}}, creation{token: ev.Token})
		g.armExpiry(now)
	}
}

// accepts tells whether there is room. While members gather, those who have arrived count, which lets
// the last to come back be turned away after the limit was lowered.
func (g *Group) accepts(memberID string) bool {
	switch g.state {
	case PreparingRebalance:
		m := g.members[memberID]
		return m != nil && m.join != 0 || g.awaitingJoin < g.cfg.MaxSize
	case CompletingRebalance, Stable:
		return g.members[memberID] != nil || len(g.members) < g.cfg.MaxSize
	}
	return true
}

// creation is the first, empty record of a group.
type creation struct{ token Token }

func (c creation) written(g *Group, now time.Time, err error, e *Effects) {
	if err == nil {
		return
	}
	e.warn("could not store a new group", "group", g.id, "error", err)
	for _, m := range g.sorted() {
		g.replyJoin(m, joinError(err, ""), e)
		g.replySync(m, SyncResponse{Err: err}, e)
		g.remove(m.id)
	}
	clear(g.pendingJoin)
	g.state, g.previous = Empty, Dead
	g.protocolType, g.protocol = nil, nil
	g.joinTimer, g.syncTimer = joinTimer{}, time.Time{}
}

// maxPendingJoin bounds the ids that are handed out and not yet used: asking for one costs a client nothing.
const maxPendingJoin = 10_000

// joinNew gives a new member its id. A dynamic one has to come back with it, so that a client that is gone
// by then leaves no member behind; a static one takes the place of its predecessor.
func (g *Group) joinNew(now time.Time, ev Join, e *Effects) {
	if ev.InstanceID != nil {
		newID := *ev.InstanceID + "-" + ev.NewID
		if oldID, ok := g.static[*ev.InstanceID]; ok {
			g.joinStaticAgain(now, ev, oldID, newID, e)
			return
		}
		g.joinAdd(now, ev, newID, e)
		return
	}
	newID := ev.ClientID + "-" + ev.NewID
	if !ev.KnownIDRequired {
		g.joinAdd(now, ev, newID, e)
		return
	}
	if len(g.pendingJoin) >= maxPendingJoin {
		e.reply(ev.Token, joinError(ErrGroupMaxSizeReached, ""))
		return
	}
	until := now.Add(milliseconds(ev.SessionTimeoutMs))
	g.pendingJoin[newID] = until
	g.arm(until)
	e.reply(ev.Token, joinError(ErrMemberIDRequired, newID))
}

func (g *Group) joinAdd(now time.Time, ev Join, memberID string, e *Effects) {
	if g.state == PreparingRebalance && g.previous == Empty {
		g.newMemberAdded = true
	}
	if len(g.members) == 0 {
		protocolType := ev.ProtocolType
		g.protocolType = &protocolType
	}
	m := &member{
		id: memberID, instanceID: ev.InstanceID, clientID: ev.ClientID, clientHost: ev.ClientHost,
		rebalanceTimeoutMs: ev.RebalanceTimeoutMs, sessionTimeoutMs: ev.SessionTimeoutMs,
		protocols: ev.Protocols, join: ev.Token, isNew: true,
	}
	g.add(m)
	// It cannot send heartbeats, and a lost connection is not seen while the join waits. If it is still there
	// when this time is up, it will try again.
	g.expect(m, now.Add(g.cfg.NewMemberJoinTimeout))
	g.rebalanceOrComplete(now, fmt.Sprintf("adding new member %s; client reason: %s", memberID, reason(ev.Reason)), e)
}

func reason(given string) string {
	if given == "" {
		return "not provided"
	}
	return given
}

func (g *Group) joinKnown(now time.Time, ev Join, e *Effects) {
	if _, ok := g.pendingJoin[ev.MemberID]; ok && ev.InstanceID == nil {
		g.joinAdd(now, ev, ev.MemberID, e)
		return
	}
	if err := g.validate(ev.MemberID, ev.InstanceID); err != nil {
		e.reply(ev.Token, joinError(err, ev.MemberID))
		return
	}
	m := g.members[ev.MemberID]
	changed := !m.matches(ev.Protocols)
	switch {
	case g.state == PreparingRebalance,
		g.state == CompletingRebalance && changed,
		// The leader may force a rebalance: it sees changes that no member's metadata shows, such as new partitions.
		g.state == Stable && (changed || g.isLeader(m.id)):
		why := fmt.Sprintf("member %s joins again during %s; client reason: %s", m.id, g.state, reason(ev.Reason))
		g.update(m, ev.Protocols, ev.RebalanceTimeoutMs, ev.SessionTimeoutMs, ev.Token)
		g.rebalanceOrComplete(now, why, e)
	case g.state == CompletingRebalance, g.state == Stable:
		// It may have missed the answer to its first join: tell it the generation that it is in.
		e.reply(ev.Token, g.generationFor(m, g.state == CompletingRebalance && g.isLeader(m.id)))
	default:
		e.reply(ev.Token, joinError(ErrUnknownMemberID, ev.MemberID))
	}
}

// generationFor is the answer that lets a member into the current generation.
func (g *Group) generationFor(m *member, withMembers bool) JoinResponse {
	resp := JoinResponse{
		MemberID: m.id, Generation: g.generation, ProtocolType: g.protocolType, Protocol: g.protocol, Leader: deref(g.leader),
	}
	if withMembers {
		for _, other := range g.sorted() {
			resp.Members = append(resp.Members, JoinMember{
				ID: other.id, InstanceID: other.instanceID, Metadata: other.metadata(deref(g.protocol)),
			})
		}
	}
	return resp
}

func (g *Group) replyJoin(m *member, resp JoinResponse, e *Effects) {
	if m.join == 0 {
		return
	}
	e.reply(m.join, resp)
	m.join = 0
	g.awaitingJoin--
}

func (g *Group) replySync(m *member, resp SyncResponse, e *Effects) bool {
	if m.sync == 0 {
		return false
	}
	e.reply(m.sync, resp)
	m.sync = 0
	return true
}

// replaceStatic gives a static member's place to a new member id. Whoever waits under the old one is fenced.
func (g *Group) replaceStatic(oldID, newID string, e *Effects) *member {
	old := g.members[oldID]
	g.replyJoin(old, joinError(ErrFencedInstanceID, oldID), e)
	g.replySync(old, SyncResponse{Err: ErrFencedInstanceID}, e)

	m := &member{
		id: newID, seq: old.seq, instanceID: old.instanceID, clientID: old.clientID, clientHost: old.clientHost,
		rebalanceTimeoutMs: old.rebalanceTimeoutMs, sessionTimeoutMs: old.sessionTimeoutMs,
		protocols: old.protocols, assignment: old.assignment,
	}
	delete(g.members, oldID)
	g.members[newID] = m
	if g.isLeader(oldID) {
		g.leader = &m.id
	}
	g.static[*m.instanceID] = newID
	return m
}

// joinStaticAgain lets a restarted static member take over its old place: without a rebalance when the group
// is stable and would choose the same protocol (KIP-345, KIP-814).
func (g *Group) joinStaticAgain(now time.Time, ev Join, oldID, newID string, e *Effects) {
	oldLeader := deref(g.leader)
	old := *g.members[oldID]
	m := g.replaceStatic(oldID, newID, e)
	g.update(m, ev.Protocols, ev.RebalanceTimeoutMs, ev.SessionTimeoutMs, ev.Token)
	g.expectHeartbeat(now, m)
	e.note("static member joins again under a new id", "group", g.id, "instance", *ev.InstanceID, "old", oldID, "new", newID)

	switch g.state {
	case Stable:
		if deref(g.protocol) != g.selectProtocol() {
			g.rebalanceOrComplete(now, "static member "+newID+" changes the protocol that the group selects", e)
			return
		}
		record := Record{Group: g.id, Metadata: g.metadata(func(m *member) []byte { return m.assignment })}
		g.write(e, []Record{record}, replacement{
			oldID: oldID, newID: newID, oldLeader: oldLeader, token: ev.Token, canSkip: ev.CanSkipAssignment,
			protocols: old.protocols, rebalanceTimeoutMs: old.rebalanceTimeoutMs, sessionTimeoutMs: old.sessionTimeoutMs,
		})
	case CompletingRebalance:
		// The leader may have been told the old id, so its assignment would miss the new one.
		g.prepareRebalance(now, "updating static member "+newID+"; client reason: "+reason(ev.Reason), e)
	default:
		g.maybeCompleteJoin(now, e)
	}
}

// replacement is the record of a stable group in which a static member has a new id.
type replacement struct {
	oldID, newID, oldLeader              string
	token                                Token
	canSkip                              bool
	protocols                            []Protocol
	rebalanceTimeoutMs, sessionTimeoutMs int32
}

func (r replacement) written(g *Group, now time.Time, err error, e *Effects) {
	m := g.members[r.newID]
	if m == nil || m.join != r.token {
		return // it has left, was replaced, or has asked again since
	}
	if err != nil {
		e.warn("could not store a static member's new id", "group", g.id, "instance", deref(m.instanceID), "error", err)
		resp := g.generationFor(m, false)
		resp.Err, resp.MemberID, resp.Leader = err, "", r.oldLeader
		g.replyJoin(m, resp, e)
		g.update(m, r.protocols, r.rebalanceTimeoutMs, r.sessionTimeoutMs, 0)
		g.expectHeartbeat(now, g.replaceStatic(r.newID, r.oldID, e))
		return
	}
	if g.state != Stable {
		return // a rebalance has begun meanwhile: its end will answer
	}
	leads := g.isLeader(m.id)
	resp := g.generationFor(m, leads && r.canSkip)
	if r.canSkip {
		resp.SkipAssignment = leads
	} else {
		// Before v9 a leader that is not told to skip would compute assignments that nobody asked for.
		resp.Leader = r.oldLeader
	}
	g.replyJoin(m, resp, e)
}
