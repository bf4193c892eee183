package group

import "time"

// Step applies one event at one instant. It never blocks, sleeps, draws or reads the clock.
func (g *Group) Step(now time.Time, ev Event) Effects {
	var e Effects
	switch ev := ev.(type) {
	case Join:
		g.joinGroup(now, ev, &e)
	case Sync:
		g.syncGroup(now, ev, &e)
	case Heartbeat:
		e.reply(ev.Token, HeartbeatResponse{Err: g.heartbeat(now, ev)})
	case Leave:
		g.leave(now, ev, &e)
	case Commit:
		g.commit(now, ev, &e)
	case DeleteOffsets:
		g.deleteOffsets(ev, &e)
	case Delete:
		g.delete(ev, &e)
	case TopicsDeleted:
		g.topicsDeleted(ev, &e)
	case Tick:
		g.tick(now, &e)
	case Loaded:
		g.loaded(now, &e)
	case Unload:
		g.unload(ev.Err, &e)
	case Written:
		g.written(now, ev, &e)
	}
	g.fresh = false
	return e
}

// Creates tells whether the event may bring a group into being; any other is answered by Absent.
func Creates(ev Event) bool {
	switch ev := ev.(type) {
	case Join:
		return ev.MemberID == ""
	case Commit:
		return ev.Generation < 0
	}
	return false
}

// Absent answers an event about a group that does not exist.
func Absent(ev Event) any {
	switch ev := ev.(type) {
	case Join:
		return joinError(ErrUnknownMemberID, ev.MemberID)
	case Sync:
		return SyncResponse{Err: ErrUnknownMemberID}
	case Heartbeat:
		return HeartbeatResponse{Err: ErrUnknownMemberID}
	case Leave:
		resp := LeaveResponse{}
		for _, m := range ev.Members {
			resp.Members = append(resp.Members, LeaveResult{ID: m.ID, InstanceID: m.InstanceID, Err: ErrUnknownMemberID})
		}
		return resp
	case Commit:
		if ev.UnknownGroupError {
			return CommitResponse{Err: ErrGroupIDNotFound}
		}
		return CommitResponse{Err: ErrIllegalGeneration}
	case DeleteOffsets:
		return DeleteOffsetsResponse{Err: ErrGroupIDNotFound}
	case Delete:
		return DeleteResponse{Err: ErrGroupIDNotFound}
	}
	return nil
}

// Failed is the answer to an event that did not get as far as the group.
func Failed(ev Event, err error) any {
	switch ev.(type) {
	case Join:
		return joinError(err, "")
	case Sync:
		return SyncResponse{Err: err}
	case Heartbeat:
		return HeartbeatResponse{Err: err}
	case Leave:
		return LeaveResponse{Err: err}
	case Commit:
		return CommitResponse{Err: err}
	case DeleteOffsets:
		return DeleteOffsetsResponse{Err: err}
	case Delete:
		return DeleteResponse{Err: err}
	}
	return nil
}

// written counts the write off, lets durable records take effect, and goes on with what waited for them.
func (g *Group) written(now time.Time, ev Written, e *Effects) {
	g.inFlight--
	for _, r := range ev.Write.Records {
		if r.Offset != nil {
			tp := TopicPartition{r.Topic, r.Partition}
			if c := g.pending[tp]; c.n > 1 {
				g.pending[tp] = inFlightCommit{n: c.n - 1, topicID: c.topicID}
			} else {
				delete(g.pending, tp)
			}
		}
		if !r.IsOffset() && r.IsTombstone() {
			g.deleting--
		}
		if ev.Err == nil {
			g.apply(now, r)
		}
	}
	if ev.Write.then != nil {
		ev.Write.then.written(g, now, ev.Err, e)
	}
}

// apply lets a durable record of a live group take effect. What a generation is made of already holds in memory.
func (g *Group) apply(now time.Time, r Record) {
	switch {
	case r.Offset != nil:
		g.stored = true
		if g.setOffset(TopicPartition{r.Topic, r.Partition}, *r.Offset) && g.expiryCheck.IsZero() {
			g.armExpiry(now)
		}
	case r.IsOffset():
		g.removeOffset(TopicPartition{r.Topic, r.Partition})
	case r.Metadata != nil:
		g.save(r.Metadata)
	default:
		g.bury()
	}
}

// save remembers the newest durable record of the group.
func (g *Group) save(m *Metadata) {
	g.liveBytes -= g.savedBytes()
	g.saved = m
	g.liveBytes += g.savedBytes()
	g.stored = m != nil
}

func (g *Group) savedBytes() int64 {
	if g.saved == nil {
		return 0
	}
	return Record{Group: g.id, Metadata: g.saved}.Size()
}

// bury ends the group: its tombstone is durable. Offsets without one of their own stay, as a group that only
// stores offsets.
func (g *Group) bury() {
	g.previous, g.state = g.state, Dead
	if len(g.offsets) > 0 {
		g.previous, g.state = Dead, Empty
	}
	g.members, g.static = map[string]*member{}, map[string]string{}
	g.pendingJoin, g.pendingSync, g.supported = map[string]time.Time{}, map[string]bool{}, map[string]int{}
	g.awaitingJoin, g.generation = 0, 0
	g.leader, g.protocolType, g.protocol, g.subscribed = nil, nil, nil, nil
	g.save(nil)
	g.stored = len(g.offsets) > 0
	g.joinTimer, g.syncTimer, g.expiryCheck, g.wake = joinTimer{}, time.Time{}, time.Time{}, time.Time{}
}

// unload tells everybody who waits that the group is coordinated elsewhere.
func (g *Group) unload(err error, e *Effects) {
	for _, m := range g.sorted() {
		g.replyJoin(m, joinError(err, m.id), e)
		g.replySync(m, SyncResponse{Err: err}, e)
	}
	g.offsets = map[string]map[int32]Offset{}
	g.bury()
}
