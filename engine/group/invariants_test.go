package group

import "testing"

// checkGroup holds what must be true of any group at any time.
func checkGroup(t *testing.T, g *Group) {
	t.Helper()
	awaiting, static := 0, 0
	supported := map[string]int{}
	for id, m := range g.members {
		if m.id != id {
			t.Errorf("member %q is kept under %q", m.id, id)
		}
		if m.join != 0 {
			awaiting++
		}
		if m.instanceID != nil {
			static++
			if g.static[*m.instanceID] != id {
				t.Errorf("instance %q belongs to %q, not to %q", *m.instanceID, g.static[*m.instanceID], id)
			}
		}
		for _, p := range m.protocols {
			supported[p.Name]++
		}
		if m.sync != 0 && g.state != CompletingRebalance {
			t.Errorf("a sync of %q waits in %s", id, g.state)
		}
		if !m.deadline.IsZero() && (g.wake.IsZero() || g.wake.After(m.deadline)) {
			t.Errorf("the session of %q ends at %v, but the group wakes at %v", id, m.deadline, g.wake)
		}
	}
	if awaiting != g.awaitingJoin {
		t.Errorf("%d joins wait, %d are counted", awaiting, g.awaitingJoin)
	}
	if static != len(g.static) {
		t.Errorf("%d static members, %d instance ids", static, len(g.static))
	}
	for name, n := range supported {
		if g.supported[name] != n {
			t.Errorf("protocol %q has %d members, %d are counted", name, n, g.supported[name])
		}
	}
	if len(g.supported) != len(supported) {
		t.Errorf("%d protocols, %d are counted", len(supported), len(g.supported))
	}
	if g.leader != nil && g.members[*g.leader] == nil {
		t.Errorf("the leader %q is no member", *g.leader)
	}
	if (g.state == Stable || g.state == CompletingRebalance) && len(g.members) == 0 && len(g.pendingSync) > 0 {
		t.Errorf("%d members that do not exist are to sync", len(g.pendingSync))
	}
	for id := range g.pendingSync {
		if g.members[id] == nil {
			t.Errorf("%q is to sync, but is no member", id)
		}
	}
	if g.state == Empty && len(g.members) > 0 {
		t.Errorf("empty, with %d members", len(g.members))
	}
	var live int64
	for _, r := range g.Snapshot() {
		live += r.Size()
	}
	if live != g.LiveBytes() {
		t.Errorf("live records take %d bytes, %d are counted", live, g.LiveBytes())
	}
	if g.inFlight < 0 || g.deleting < 0 || g.deleting > g.inFlight {
		t.Errorf("%d writes in flight, %d of them deletions", g.inFlight, g.deleting)
	}
}
