package replication

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/replication/controller"
	"github.com/millrace/millrace/replication/peer"
)

// methodQuorum asks the controller's leader how far its members are. The answer is a controller.Standing as JSON.
const methodQuorum = "controller.standing"

// answerQuorum has the question answered that other nodes ask here.
func (n *Node) answerQuorum(c *controller.Controller) {
	n.hub.Register(methodQuorum, func(context.Context, peer.Identity, []byte) ([]byte, error) {
		s, err := c.Standing()
		if errors.Is(err, controller.ErrNotLeader) {
			return nil, &peer.Error{Code: codeNotLeader, Text: err.Error()}
		}
		if err != nil {
			return nil, err
		}
		return json.Marshal(s)
	})
}

// Quorum asks the leader, which may be this node. It makes metadata an [engine.QuorumTeller].
func (m metadata) Quorum(ctx context.Context) (engine.Quorum, error) {
	s, err := m.Standing()
	if errors.Is(err, controller.ErrNotLeader) {
		s, err = m.askStanding(ctx)
	}
	if err != nil {
		return engine.Quorum{}, err
	}
	q := engine.Quorum{Leader: s.Leader, Term: int64(s.Term), HighWatermark: int64(s.Commit) + 1}
	for _, have := range s.Members {
		member := engine.QuorumMember{ID: have.ID, Voter: have.Voter, LogEnd: -1, Heard: have.Heard}
		if have.Last > 0 {
			member.LogEnd = int64(have.Last) + 1
		}
		if have.Last >= s.Commit {
			member.CaughtUp = have.Heard
		}
		q.Members = append(q.Members, member)
	}
	return q, nil
}

// askStanding fails with catalog.ErrNoLeader, so that the question is asked again, when nobody leads, or the leader is not reached.
func (m metadata) askStanding(ctx context.Context) (s controller.Standing, err error) {
	leader, known := m.Leader()
	if !known {
		return s, controller.ErrNoLeader
	}
	body, err := m.hub.Call(ctx, leader, methodQuorum, nil)
	if err != nil {
		return s, fmt.Errorf("%w: node %d: %w", catalog.ErrNoLeader, leader, err)
	}
	return s, json.Unmarshal(body, &s)
}

var _ interface {
	engine.QuorumTeller
	engine.LeaderTeller
} = metadata{}
