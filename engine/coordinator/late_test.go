package coordinator

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/engine/group"
)

// TestOverdueOutcome: a record that does not get onto the replicas keeps nobody waiting for ever, and sends nobody away who
// does not wait for it.
func TestOverdueOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1).open()
		defer b.close()
		long := joining("")
		long.SessionTimeoutMs, long.RebalanceTimeoutMs = 1_000_000, 1_000_000
		first := b.c.Join(background, "waiting", long)
		j := b.c.Join(background, "g", long)
		var a answers
		a.ask("join", func() error { return b.c.Join(background, "waiting", long).Err })
		b.log.hold()
		sync := func() error {
			return b.c.Sync(background, "g", group.Sync{MemberID: j.MemberID, Generation: j.Generation,
				Assignments: map[string][]byte{j.MemberID: []byte("x")}}).Err
		}
		for range 2 { // the second comes when it is known that outcomes are overdue
			at := time.Now()
			if err := sync(); !errors.Is(err, ErrNotAvailable) || time.Since(at) > 2*b.opts.CommitTimeout+time.Second {
				t.Errorf("have %v after %s", err, time.Since(at))
			}
		}
		time.Sleep(time.Minute)
		if len(a.got["join"]) != 0 {
			t.Errorf("who waits for a member was sent away: %v", <-a.got["join"])
		}
		b.log.release()
		time.Sleep(time.Second)
		long.MemberID = first.MemberID
		a.ask("again", func() error { return b.c.Join(background, "waiting", long).Err })
		for _, name := range a.names {
			if err := <-a.got[name]; err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := sync(); err != nil {
			t.Errorf("sync: %v", err)
		}
		if b.c.all()[0].isLate {
			t.Error("outcomes are still overdue")
		}
	})
}
