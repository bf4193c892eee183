package stream

import (
	"testing"
	"time"
)

// TestBulk: a partition that is far behind goes to the bulk stream, throttled, while the others go on, and comes back.
func TestBulk(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		wanted, throttled := 0, 0
		s := newScene(t, 2, func(l, _ *Config) {
			l.FarBytes = 1 << 20
			l.NeedBulk = func() { wanted++ }
			l.Throttle = func(n int) time.Duration { throttled += n; return time.Duration(n) * time.Second / (4 << 20) }
		})
		for range 400 {
			s.leaders[0].lead(t, 5, 1, 64<<10)
		}
		s.connect(false)
		f := s.followers[0]
		f.set(func() { f.delay = func() time.Duration { return 20 * time.Millisecond } })
		s.settle(30 * time.Millisecond)
		if wanted != 1 || s.parts[0].Bulk() {
			t.Fatalf("a bulk stream was wanted %d times", wanted)
		}
		bulk, _, _ := s.connect(true)
		s.settle(100 * time.Millisecond)
		if !s.parts[0].Bulk() || s.parts[1].Bulk() || s.parts[0].Lag() == 0 {
			t.Fatalf("bulk %v %v, lag %d", s.parts[0].Bulk(), s.parts[1].Bulk(), s.parts[0].Lag())
		}
		for range 10 { // the other one is not slower for it
			s.leaders[1].lead(t, 5, 1, 10)
			s.settle(2 * time.Millisecond)
			if s.parts[1].Lag() != 0 {
				t.Fatal("the small one lags")
			}
		}
		at := time.Now()
		for range 100 {
			s.settle(200 * time.Millisecond)
			if s.parts[0].Lag() == 0 && !s.parts[0].Bulk() {
				break
			}
		}
		s.same()
		if d := time.Since(at); d < 2*time.Second || d > 8*time.Second || throttled < 8<<20 { // how much goes out before it is far behind depends on who runs first
			t.Errorf("%d bytes in %v", throttled, d)
		}
		if s.push.Counts().Moves.Load() != 2 || s.heard("lost") {
			t.Errorf("%d moves, %v", s.push.Counts().Moves.Load(), s.story.told())
		}
		bulk.wait() // nobody needs it
		if bulk.leadErr != nil {
			t.Error(bulk.leadErr)
		}
		s.leaders[0].lead(t, 5, 1, 10)
		s.settle(100 * time.Millisecond)
		s.same()
	})
}

// TestBulkBreaks: what was on a bulk stream that breaks goes on with the other.
func TestBulkBreaks(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newScene(t, 1, func(l, _ *Config) {
			l.FarBytes = 1 << 20
			l.Throttle = func(int) time.Duration { return time.Second }
		})
		for range 100 {
			s.leaders[0].lead(t, 5, 1, 64<<10)
		}
		bulk, _, _ := s.connect(true)
		s.settle(time.Millisecond)
		s.connect(false)
		s.settle(3 * time.Second)
		if !s.parts[0].Bulk() {
			t.Fatal("not on the bulk stream")
		}
		bulk.stop()
		s.settle(time.Second)
		if s.parts[0].Bulk() {
			t.Error("still on it")
		}
		s.same()
	})
}
