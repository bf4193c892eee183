package controller

import (
	"errors"
	"testing"
	"time"

	"github.com/millrace/millrace/engine/catalog"
)

// TestStanding: the leader knows how far everybody is, also one that is gone.
func TestStanding(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cl := found(t, 11, 3, quick)
		leader := cl.leader()
		gone := cl.nodes[0]
		if gone == leader {
			gone = cl.nodes[1]
		}
		leader.create(t, "then")
		cl.same("then")
		if _, err := gone.Standing(); !errors.Is(err, ErrNotLeader) {
			t.Errorf("a follower: %v", err)
		}
		cl.kill(gone)
		leader = cl.leader()
		leader.create(t, "after")
		time.Sleep(time.Second)
		s, err := leader.Standing()
		if err != nil || s.Leader != leader.id || s.Term == 0 || len(s.Members) != 3 {
			t.Fatalf("%+v, %v", s, err)
		}
		for _, m := range s.Members {
			switch quiet := time.Since(m.Heard); {
			case !m.Voter:
				t.Errorf("without a vote: %+v", m)
			case m.ID == leader.id:
				if m.Last < s.Commit || !m.Heard.IsZero() {
					t.Errorf("the leader: %+v, committed is %d", m, s.Commit)
				}
			case m.ID == gone.id:
				if m.Last >= s.Commit || quiet < time.Second {
					t.Errorf("the one that is gone: %+v, heard %v ago, committed is %d", m, quiet, s.Commit)
				}
			case m.Last != s.Commit || quiet > time.Second:
				t.Errorf("%+v, heard %v ago, committed is %d", m, quiet, s.Commit)
			}
		}
		cl.close()
	})
}

// TestErrorsAreTheCatalogues: who proposes knows the catalogue's errors alone.
func TestErrorsAreTheCatalogues(t *testing.T) {
	for err, want := range map[error]error{
		ErrNotLeader: catalog.ErrNoLeader, ErrNoLeader: catalog.ErrNoLeader,
		ErrUnknownOutcome: catalog.ErrUnknownOutcome, ErrForgotten: catalog.ErrUnknownOutcome, ErrRefused: catalog.ErrUnknownCommand,
	} {
		if !errors.Is(err, want) {
			t.Errorf("%v is not %v", err, want)
		}
	}
	if errors.Is(ErrNotLeader, ErrNoLeader) || errors.Is(ErrNoLeader, ErrNotLeader) {
		t.Error("that this node does not lead is not that nobody does")
	}
}
