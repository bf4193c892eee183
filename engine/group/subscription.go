package group

import "encoding/binary"

// subscribes tells whether a member reads the topic. When that cannot be known, consumers are taken to.
func (g *Group) subscribes(topic string) bool {
	if g.subscribed == nil {
		return g.usesConsumerProtocol()
	}
	return g.subscribed[topic]
}

// subscribedTopics reads the members' metadata under the selected protocol; nil when they cannot tell.
func (g *Group) subscribedTopics(e *Effects) map[string]bool {
	if !g.usesConsumerProtocol() {
		return nil
	}
	topics := map[string]bool{}
	if len(g.members) == 0 {
		return topics
	}
	if g.protocol == nil {
		return nil
	}
	for _, m := range g.members {
		if !readSubscription(m.metadata(*g.protocol), topics) {
			e.warn("cannot read a member's subscription; its topics are not known", "group", g.id, "member", m.id)
			return nil
		}
	}
	return topics
}

// readSubscription adds the topics of a consumer's metadata, by the prefix that all its versions share:
//
//	int16 version | int32 count | count times: int16 length, name | …
func readSubscription(b []byte, into map[string]bool) bool {
	if len(b) < 6 || int16(binary.BigEndian.Uint16(b)) < 0 {
		return false
	}
	count := int32(binary.BigEndian.Uint32(b[2:]))
	b = b[6:]
	if count < 0 || int64(count)*2 > int64(len(b)) {
		return false
	}
	for range count {
		if len(b) < 2 {
			return false
		}
		n := int16(binary.BigEndian.Uint16(b))
		if n < 0 || int(n) > len(b)-2 {
			return false
		}
		into[string(b[2:2+n])] = true
		b = b[2+n:]
	}
	return true
}
