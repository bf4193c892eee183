package group

// Description is what DescribeGroups shows.
type Description struct {
	State        State
	ProtocolType string
	Protocol     string // only while Stable
	Members      []MemberDescription
}

// MemberDescription is what DescribeGroups shows of a member.
type MemberDescription struct {
	ID         string
	InstanceID *string
	ClientID   string
	ClientHost string
	Metadata   []byte // only while Stable
	Assignment []byte
}

// ProtocolType is what the members speak, or spoke; empty for a group that only stores offsets.
func (g *Group) ProtocolType() string { return deref(g.protocolType) }

// Describe shows the group.
func (g *Group) Describe() Description {
	d := Description{State: g.state, ProtocolType: g.ProtocolType()}
	if g.state == Stable {
		d.Protocol = deref(g.protocol)
	}
	for _, m := range g.sorted() {
		md := MemberDescription{
			ID: m.id, InstanceID: m.instanceID, ClientID: m.clientID, ClientHost: m.clientHost, Assignment: m.assignment,
		}
		if g.state == Stable {
			md.Metadata = m.metadata(d.Protocol)
		}
		d.Members = append(d.Members, md)
	}
	return d
}

// Replay lets a record that was read from the log take effect. The group must not be in use.
func (g *Group) Replay(r Record) {
	switch {
	case r.Offset != nil:
		g.fresh, g.stored = false, true
		tp := TopicPartition{r.Topic, r.Partition}
		g.setOffset(tp, *r.Offset)
	case r.IsOffset():
		g.removeOffset(TopicPartition{r.Topic, r.Partition})
	case r.Metadata != nil:
		g.fresh = false
		g.restore(r.Metadata)
	default:
		g.bury()
	}
}

// restore puts the group where its record says it was.
func (g *Group) restore(v *Metadata) {
	offsets := g.offsets
	*g = *New(g.id, g.cfg)
	g.fresh, g.offsets = false, offsets
	for tp, o := range g.Offsets {
		g.liveBytes += offsetRecord(g.id, tp, &o).Size()
	}
	g.generation, g.protocol, g.leader, g.stateTimestampMs = v.Generation, v.Protocol, v.Leader, v.StateTimestampMs
	if v.ProtocolType != "" {
		protocolType := v.ProtocolType
		g.protocolType = &protocolType
	}
	for _, mm := range v.Members {
		g.add(&member{
			id: mm.ID, instanceID: mm.InstanceID, clientID: mm.ClientID, clientHost: mm.ClientHost,
			rebalanceTimeoutMs: mm.RebalanceTimeoutMs, sessionTimeoutMs: mm.SessionTimeoutMs,
			protocols:  []Protocol{{Name: deref(v.Protocol), Metadata: mm.Subscription}},
			assignment: mm.Assignment,
		})
	}
	if len(g.members) > 0 {
		g.state = Stable
	}
	g.subscribed = g.subscribedTopics(&Effects{})
	g.save(v)
}

// Snapshot lists the records that would bring the group back as it durably stands, in a fixed order.
// It leaves out what is on its way to the log: take it only while nothing is.
func (g *Group) Snapshot() []Record {
	var records []Record
	if g.saved != nil {
		records = append(records, Record{Group: g.id, Metadata: g.saved})
	}
	for tp, o := range g.Offsets {
		records = append(records, offsetRecord(g.id, tp, &o))
	}
	return records
}
