package replication

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace/millrace/replication/controller"
	"github.com/millrace/millrace/replication/peer"
)

// methodPropose hands a proposal to the controller's leader.
const methodPropose = "controller.propose"

// Codes of methodPropose.
const (
	codeRefused peer.Code = peer.CodeFree + iota
	codeNotLeader
)

// forward is a controller.Forward over the connections of a hub: a proposal becomes a request to the leader, which must have
// called [acceptProposals]. May be used concurrently.
type forward struct{ hub *peer.Hub }

var _ controller.Forward = forward{}

// Forward sends the proposal and waits for what became of it, as long as the context says. Of the controller's errors, ErrRefused and
// ErrNotLeader survive the way.
func (f forward) Forward(ctx context.Context, leader int32, proposal []byte) error {
	_, err := f.hub.Call(ctx, leader, methodPropose, proposal)
	var e *peer.Error
	if errors.As(err, &e) {
		switch e.Code {
		case codeRefused:
			return fmt.Errorf("%w: node %d: %s", controller.ErrRefused, leader, e.Text)
		case codeNotLeader:
			return fmt.Errorf("%w: node %d", controller.ErrNotLeader, leader)
		}
	}
	return err
}

// acceptProposals has proposals that other nodes send here taken up; accept is [controller.Controller.Accept].
func acceptProposals(hub *peer.Hub, accept func(ctx context.Context, proposal []byte) error) {
	hub.Register(methodPropose, func(ctx context.Context, _ peer.Identity, body []byte) ([]byte, error) {
		err := accept(ctx, body)
		switch {
		case errors.Is(err, controller.ErrRefused):
			return nil, &peer.Error{Code: codeRefused, Text: err.Error()}
		case errors.Is(err, controller.ErrNotLeader):
			return nil, &peer.Error{Code: codeNotLeader, Text: err.Error()}
		}
		return nil, err
	})
}
