package server

import "github.com/millrace/millrace/engine/catalog"

// alive tells whether a broker is named to clients. A node that is alone has not registered.
func (s *Server) alive(img *catalog.Image, id int32) bool {
	if b, registered := img.Broker(id); registered {
		return !b.Fenced
	}
	return id == s.opts.NodeID && !s.engine.Clustered()
}

// brokerIDs lists, by id, the brokers that are named to clients.
func (s *Server) brokerIDs(img *catalog.Image) []int32 {
	if !s.engine.Clustered() {
		return []int32{s.opts.NodeID}
	}
	var ids []int32
	for _, b := range img.Brokers() {
		if !b.Fenced {
			ids = append(ids, b.ID)
		}
	}
	return ids
}

// available is the leader of a partition, -1 when it has none that can be reached, and those of its replicas that cannot.
func (s *Server) available(img *catalog.Image, t *catalog.Topic, index int) (leader int32, offline []int32) {
	p := &t.Partitions[index]
	for _, id := range p.Replicas {
		if !s.alive(img, id) || id == s.opts.NodeID && s.engine.Offline(t.ID, int32(index)) {
			offline = append(offline, id)
		}
	}
	if p.Leader < 0 || containsInt32(offline, p.Leader) || !s.alive(img, p.Leader) {
		return -1, offline
	}
	return p.Leader, offline
}
