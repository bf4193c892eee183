package group

import (
	"bytes"
	"time"
)

// member is one member of a group.
type member struct {
	id                 string
	seq                uint64 // order of arrival: lists and choices follow it, so that they do not depend on map order
	instanceID         *string
	clientID           string
	clientHost         string
	rebalanceTimeoutMs int32
	sessionTimeoutMs   int32
	protocols          []Protocol
	assignment         []byte
	join               Token     // the JoinGroup that waits for the generation, or 0
	sync               Token     // the SyncGroup that waits for the assignment, or 0
	isNew              bool      // in its first join: it has no id to send heartbeats with
	deadline           time.Time // when the session ends; zero while nothing is expected of it
}

func (m *member) isStatic() bool { return m.instanceID != nil }

// metadata is what the member said for a protocol.
func (m *member) metadata(protocol string) []byte {
	for _, p := range m.protocols {
		if p.Name == protocol {
			return p.Metadata
		}
	}
	return nil
}

// vote is the first protocol of the member's own that all support.
func (m *member) vote(candidates map[string]bool) string {
	for _, p := range m.protocols {
		if candidates[p.Name] {
			return p.Name
		}
	}
	return ""
}

// matches tells whether the member already offers just these protocols, in this order.
func (m *member) matches(protocols []Protocol) bool {
	if len(m.protocols) != len(protocols) {
		return false
	}
	for i, p := range m.protocols {
		if p.Name != protocols[i].Name || !bytes.Equal(p.Metadata, protocols[i].Metadata) {
			return false
		}
	}
	return true
}

// hasSatisfiedHeartbeat tells whether a session may be overdue: the member is waiting for us.
// A new member may not: its client could have gone away and joined again under another id.
func (m *member) hasSatisfiedHeartbeat() bool {
	return !m.isNew && (m.join != 0 || m.sync != 0)
}
