package gossip

import (
	"fmt"
	"log/slog"

	"github.com/hashicorp/memberlist"
)

// delegate is what memberlist asks and tells. It calls from its own goroutines, most of it with its lock held: nothing here may block or
// call memberlist.
type delegate struct{ g *Gossip }

// NodeMeta is what this node says of itself. That it fits was checked by whoever changed it.
func (d *delegate) NodeMeta(limit int) []byte {
	b, err := d.g.self().encode()
	if err != nil || len(b) > limit {
		return nil
	}
	return b
}

// NotifyMsg gets nothing: no messages are sent.
func (d *delegate) NotifyMsg([]byte) {}

// GetBroadcasts has none.
func (d *delegate) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState is empty: everything is in the meta.
func (d *delegate) LocalState(bool) []byte { return nil }

// MergeRemoteState gets nothing.
func (d *delegate) MergeRemoteState([]byte, bool) {}

// NotifyAlive refuses to hear of nodes of another cluster, wherever the news comes from.
func (d *delegate) NotifyAlive(n *memberlist.Node) error {
	m, err := decode(n.Name, n.Meta)
	if err != nil {
		return err
	}
	if self := d.g.self(); !sameCluster(m.ClusterID, self.ClusterID) {
		err := fmt.Errorf("%w: node %d at %s is of cluster %q, this node of %q", ErrOtherCluster, m.NodeID, m.Address, m.ClusterID, self.ClusterID)
		d.g.sayings.say(slog.LevelWarn, "another cluster", "a node of another cluster is about, and is refused", "node", m.NodeID, "address", m.Address, "cluster", m.ClusterID, "ours", self.ClusterID)
		return err
	}
	return nil
}

// NotifyMerge refuses to exchange members with a node that knows some of another cluster: as a whole, and before any is taken in. A node without a cluster refuses to bring two together.
func (d *delegate) NotifyMerge(nodes []*memberlist.Node) error {
	self := d.g.self()
	cluster, of := self.ClusterID, self
	known := d.g.Members()
	for _, n := range nodes {
		if n.State == memberlist.StateAlive || n.State == memberlist.StateSuspect {
			if m, err := decode(n.Name, n.Meta); err == nil { // else NotifyAlive refuses it
				known = append(known, m)
			}
		}
	}
	for _, m := range known {
		if cluster == "" {
			cluster, of = m.ClusterID, m
		}
		if !sameCluster(m.ClusterID, cluster) {
			return fmt.Errorf("%w: node %d at %s is of cluster %q, node %d at %s of cluster %q", ErrOtherCluster, m.NodeID, m.Address, m.ClusterID, of.NodeID, of.Address, cluster)
		}
	}
	return nil
}

// NotifyConflict tells of two nodes with one id. The one that was there stays.
func (d *delegate) NotifyConflict(existing, other *memberlist.Node) {
	d.g.sayings.say(slog.LevelWarn, "conflict"+existing.Name, "two nodes have the same id; the newcomer is ignored until the other has been gone for a while",
		"node", existing.Name, "address", existing.Address(), "newcomer", other.Address())
}

// NotifyJoin adds a member.
func (d *delegate) NotifyJoin(n *memberlist.Node) { d.note(n) }

// NotifyUpdate is a member that says something else of itself.
func (d *delegate) NotifyUpdate(n *memberlist.Node) { d.note(n) }

func (d *delegate) note(n *memberlist.Node) {
	m, err := decode(n.Name, n.Meta)
	if err != nil {
		return
	}
	d.g.mu.Lock()
	d.g.members[n.Name] = m
	d.g.mu.Unlock()
	d.changed()
}

// NotifyLeave strikes a member that has left or does not answer.
func (d *delegate) NotifyLeave(n *memberlist.Node) {
	d.g.mu.Lock()
	delete(d.g.members, n.Name)
	d.g.mu.Unlock()
	d.changed()
}

func (d *delegate) changed() {
	d.g.wake()
	if f := d.g.opts.Changed; f != nil {
		f()
	}
}
