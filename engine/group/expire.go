package group

import "time"

// expireOffsets drops what has outlived its retention, and the group with the last of it if nobody is in it.
//
// The time counts from when the group became empty; from the commit for a consumer that assigns its partitions
// itself, and for topics that a stable group has ceased to read. In any other case nothing expires.
func (g *Group) expireOffsets(now time.Time, e *Effects) {
	if g.inFlight > 0 {
		g.armExpiry(now)
		return
	}
	var records []Record
	var next time.Time
	left := 0
	for tp, o := range g.Offsets {
		at, expires := g.expiry(tp.Topic, o)
		if expires && !at.After(now) {
			records = append(records, g.tombstone(tp))
			continue
		}
		left++
		if expires && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	if !next.IsZero() {
		g.expiryCheck = later(next, now.Add(g.cfg.RetentionCheckInterval))
	}
	if len(records) > 0 {
		e.note("offsets have expired", "group", g.id, "partitions", len(records))
	}
	if left == 0 && g.state == Empty {
		records = append(records, Record{Group: g.id})
	}
	g.writeParts(e, records, unasked{})
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// expiry is when an offset may be dropped; false while the group as it stands keeps it.
func (g *Group) expiry(topic string, o Offset) (time.Time, bool) {
	since := o.CommitTimestampMs
	switch {
	case g.protocolType == nil:
	case g.state == Empty:
		if g.stateTimestampMs != NoTimestamp {
			since = g.stateTimestampMs
		}
	case g.state == Stable && g.usesConsumerProtocol() && g.subscribed != nil:
	default:
		return time.Time{}, false
	}
	if g.subscribes(topic) {
		return time.Time{}, false
	}
	if o.ExpireTimestampMs != NoTimestamp {
		return time.UnixMilli(o.ExpireTimestampMs), true
	}
	return time.UnixMilli(since).Add(g.cfg.OffsetsRetention), true
}
