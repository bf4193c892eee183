package coordinator

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/engine/group"
)

// TestAudit1StalledLog: a disk that stalls with a commit and an assignment in its hands keeps nobody waiting; what
// comes meanwhile is answered at once; and what the disk holds takes effect when it answers, in the order of the
// appends although what was queued behind it was refused first.
func TestAudit1StalledLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1)
		stall, begin := context.WithCancelCause(background)
		b.opts.Stall = func(int32) context.Context { return stall }
		b.open()
		defer b.close()
		member, generation := b.stable("steady")
		j := b.c.Join(background, "g", joining(""))
		b.log.hold()
		synced, committed, joined := make(chan error, 1), make(chan error, 1), make(chan group.JoinResponse, 1)
		go func() {
			synced <- b.c.Sync(background, "g", group.Sync{MemberID: j.MemberID, Generation: j.Generation,
				Assignments: map[string][]byte{j.MemberID: []byte("x")}}).Err
		}()
		synctest.Wait()
		go func() { committed <- b.commit("other", "t", 0, 5) }()
		go func() { joined <- b.c.Join(background, "steady", joining("")) }() // waits for the other member
		time.Sleep(2 * time.Second)
		synctest.Wait()

		at := time.Now()
		diskStalled := errors.New("stalled")
		b.log.set(func() { b.log.refuse = diskStalled })
		begin(diskStalled)
		for what, c := range map[string]chan error{"sync": synced, "commit": committed} {
			if err := <-c; !errors.Is(err, ErrNotAvailable) {
				t.Errorf("%s under way: %v", what, err)
			}
		}
		if r := <-joined; !errors.Is(r.Err, ErrNotAvailable) {
			t.Errorf("join under way: %v", r.Err)
		}
		if err := b.commit("other", "t", 0, 6); !errors.Is(err, ErrNotAvailable) {
			t.Errorf("commit during the stall: %v", err)
		}
		if err := b.commit("third", "t", 0, 7); !errors.Is(err, ErrNotAvailable) {
			t.Errorf("first commit during the stall: %v", err)
		}
		if err := b.c.Heartbeat(background, "steady", group.Heartbeat{MemberID: member, Generation: generation}); err != nil && !errors.Is(err, group.ErrRebalanceInProgress) {
			t.Errorf("heartbeat: %v", err)
		}
		b.wantOffset("other", "t", 0, -1)
		if waited := time.Since(at); waited != 0 {
			t.Errorf("something waited for %s", waited)
		}

		synctest.Wait()
		stall = background
		b.log.set(func() { b.log.refuse = nil })
		b.log.release()
		time.Sleep(time.Second)
		b.wantOffset("other", "t", 0, 5)
		b.wantOffset("third", "t", 0, -1)
		if err := b.commit("other", "t", 0, 8); err != nil {
			t.Errorf("commit after the stall: %v", err)
		}
		b.wantOffset("other", "t", 0, 8)
		r := b.c.Sync(background, "g", group.Sync{MemberID: j.MemberID, Generation: j.Generation})
		if r.Err != nil || string(r.Assignment) != "x" {
			t.Errorf("sync after the stall: %q %v", r.Assignment, r.Err)
		}
	})
}

// TestStallWithNothingOnItsWay: a member that waits for others is not sent away by a disk that it does not need;
// a write is refused with what Kafka answers to a storage error.
func TestStallWithNothingOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1)
		stall, begin := context.WithCancel(background)
		b.opts.Stall = func(int32) context.Context { return stall }
		b.open()
		defer b.close()
		member, generation := b.stable("g")
		joined := make(chan group.JoinResponse, 1)
		go func() { joined <- b.c.Join(background, "g", joining("")) }()
		synctest.Wait()
		b.log.set(func() { b.log.refuse = errors.New("stalled") })
		begin()
		synctest.Wait()
		if len(joined) != 0 {
			t.Fatalf("join was answered: %v", (<-joined).Err)
		}
		if err := b.commit("other", "t", 0, 1); !errors.Is(err, ErrNotCoordinator) && !errors.Is(err, ErrNotAvailable) {
			t.Errorf("commit: %v", err)
		}
		rejoin := joining(member)
		if r := b.c.Join(background, "g", rejoin); r.Err != nil || r.Generation != generation+1 {
			t.Errorf("the other member: %+v", r)
		}
		if r := <-joined; r.Err != nil || r.Generation != generation+1 {
			t.Errorf("the one that waited: %+v", r)
		}
	})
}

// TestOutcomesInOrder: a log that stalls refuses what is queued before it knows what becomes of what it holds.
func TestOutcomesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1).open()
		defer b.close()
		s := b.c.all()[0]
		end := func() int64 {
			synctest.Wait()
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.end
		}
		first, second, third := s.takeTurn(), s.takeTurn(), s.takeTurn()
		s.appended(third, outcome{bytes: 1, last: 9})
		s.appended(second, outcome{err: errors.New("refused")})
		if end() != 0 {
			t.Errorf("heard of the third before the first: the log ends at %d", end())
		}
		s.appended(first, outcome{bytes: 1, last: 4})
		if end() != 10 {
			t.Errorf("the log ends at %d, want 10", end())
		}
	})
}
