package stream

import (
	"context"
	"errors"
	"io"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/segment"
)

func TestReconnectResumes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newScene(t, 3, nil)
		for range 4 {
			c, _, _ := s.connect(false)
			for i := range 50 {
				s.leaders[i%3].lead(t, 5, 2, 100)
			}
			s.settle(time.Millisecond)
			c.stop()
			for i := range 50 {
				s.leaders[i%3].lead(t, 5, 2, 1000)
			}
		}
		s.connect(false)
		s.settle(time.Second)
		s.same()
		sent := s.push.Counts().AppendBytes.Load()
		all := int64(0)
		for _, l := range s.leaders {
			all += int64(len(l.bytes()))
		}
		if sent > all*5/4 {
			t.Errorf("%d bytes sent for %d", sent, all)
		}
		if s.parts[0].Lag() != 0 || !s.heard("lost") {
			t.Errorf("lag %d, %v", s.parts[0].Lag(), s.story.told())
		}
		for i := range s.parts {
			s.parts[i].Stop()
		}
		s.settle(time.Second)
		s.leaders[0].lead(t, 5, 1, 1)
		s.settle(time.Second)
		if s.followers[0].LogEndOffset() == s.leaders[0].LogEndOffset() {
			t.Error("pushed after Stop")
		}
	})
}

// TestLostBeforeAcked: however soon the next connection comes, of a quiet partition that is back the last word is not that it is lost.
func TestLostBeforeAcked(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newScene(t, 1, nil)
		s.leaders[0].lead(t, 5, 1, 10)
		s.story.slow = 50 * time.Millisecond
		c, _, _ := s.connect(false)
		s.settle(time.Millisecond)
		c.cancel()
		for range 10 { // those that come before the end of the first are turned away
			s.settle(10 * time.Millisecond)
			s.connect(false)
		}
		s.settle(time.Second)
		if s.story.acked[key(0)] != 1 || s.parts[0].Acked() != 1 {
			t.Errorf("the last word is %d", s.story.acked[key(0)])
		}
	})
}

// TestWatermarkFollows: the follower hears of the high watermark with records and without, soon, and of the log's start.
func TestWatermarkFollows(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newScene(t, 1, nil)
		s.connect(false)
		l, f := s.leaders[0], s.followers[0]
		l.lead(t, 5, 10, 10)
		s.settle(time.Millisecond)
		for o := int64(1); o <= 10; o++ {
			l.set(func() { l.watermark = o })
			s.parts[0].Wake()
			s.settle(3 * time.Millisecond)
			if f.HighWatermark() != o {
				t.Fatalf("high watermark %d, the leader's is %d", f.HighWatermark(), o)
			}
		}
		frames := s.push.Counts().FramesOut.Load()
		for o := int64(11); o <= 1010; o++ { // many moves in a millisecond are told together
			l.lead(t, 5, 1, 1)
			synctest.Wait()
			l.set(func() { l.watermark = o })
			s.parts[0].Wake()
		}
		s.settle(3 * time.Millisecond)
		if n := s.push.Counts().FramesOut.Load() - frames; f.HighWatermark() != 1010 || n > 1010 {
			t.Errorf("high watermark %d, %d frames", f.HighWatermark(), n)
		}
		if err := l.MoveStart(context.Background(), 500); err != nil {
			t.Fatal(err)
		}
		s.parts[0].Wake()
		s.settle(3 * time.Millisecond)
		if f.LogStartOffset() != 500 {
			t.Errorf("log start %d", f.LogStartOffset())
		}
		s.same()
	})
}

// TestSlowFollower: a disk that takes nothing holds no more than the window, at the follower and under way.
func TestSlowFollower(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const window = 1 << 20
		s := newScene(t, 3, func(_, f *Config) { f.WindowBytes = window })
		for _, f := range s.followers {
			f.hold = true
		}
		s.connect(false)
		for i := range 3000 {
			s.leaders[i%3].lead(t, 5, 1, 5000)
		}
		s.settle(time.Minute) // heartbeats go on
		held := int64(0)
		for _, f := range s.followers {
			f.mu.Lock()
			held += f.queued
			f.mu.Unlock()
		}
		if held > window || held < window/2 {
			t.Errorf("%d bytes held, of a window of %d", held, window)
		}
		if s.push.Counts().Starved.Load() == 0 || s.heard("lost") {
			t.Errorf("starved %d times, %v", s.push.Counts().Starved.Load(), s.story.told())
		}
		for _, f := range s.followers {
			f.set(func() { f.hold = false })
		}
		s.settle(time.Second)
		s.same()
		if n := s.recv.Counts().AppendFrames.Load(); n > 300 {
			t.Errorf("%d frames for %d bytes", n, s.recv.Counts().AppendBytes.Load())
		}
	})
}

// TestLargerThanTheWindow: a batch that is larger than everything goes alone.
func TestLargerThanTheWindow(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newScene(t, 2, func(_, f *Config) { f.WindowBytes = 64 << 10 })
		for i := range 10 {
			s.leaders[0].lead(t, 5, 1, 300<<10)
			s.leaders[1].lead(t, 5, 1, i*20<<10)
		}
		s.leaders[0].lead(t, 5, 1, 2<<20)
		s.connect(false)
		s.settle(time.Second)
		s.same()
	})
}

// TestFairness: a partition with little to say does not wait for one with much.
func TestFairness(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newScene(t, 2, func(l, f *Config) { l.FarBytes, f.WindowBytes = 1<<30, 1<<20 })
		for _, f := range s.followers {
			f.delay = func() time.Duration { return 5 * time.Millisecond }
		}
		for range 1600 {
			s.leaders[0].lead(t, 5, 1, 64<<10)
		}
		s.connect(false)
		s.settle(5 * time.Millisecond)
		for range 20 {
			s.leaders[1].lead(t, 5, 1, 10)
			s.settle(16 * time.Millisecond)
			if s.parts[1].Lag() != 0 {
				t.Fatalf("the small one lags by %d", s.parts[1].Lag())
			}
			if s.parts[0].Lag() == 0 {
				t.Fatal("the large one is done: nothing is shown")
			}
		}
		if c := s.push.Counts(); c.AppendBytes.Load() > 256<<10*c.AppendFrames.Load() {
			t.Errorf("%d bytes in %d turns", c.AppendBytes.Load(), c.AppendFrames.Load())
		}
	})
}

func TestZombieLeader(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newScene(t, 2, nil)
		s.connect(false)
		s.leaders[0].lead(t, 5, 1, 10)
		s.leaders[1].lead(t, 5, 1, 10)
		s.settle(time.Millisecond)
		// The follower's broker hears of a new leader while records are on their way to the disk.
		f := s.followers[0]
		f.set(func() { f.hold = true })
		s.leaders[0].lead(t, 5, 1, 10)
		synctest.Wait()
		s.host.set(func() { s.host.epoch[key(0)] = 6 })
		fenced := make(chan error, 1)
		go func() { fenced <- s.recv.Fence(context.Background(), key(0), 6) }()
		synctest.Wait()
		select {
		case <-fenced:
			t.Fatal("fenced while an append is under way")
		default:
		}
		f.set(func() { f.hold = false })
		synctest.Wait()
		if err := <-fenced; err != nil || f.end != 2 {
			t.Fatalf("%v, log ends at %d", err, f.end)
		}
		s.leaders[0].lead(t, 5, 1, 10) // the zombie goes on
		s.leaders[1].lead(t, 5, 1, 10)
		s.settle(time.Minute)
		if f.end != 2 || s.followers[1].end != 2 || !s.heard("0 fenced by 6") || s.parts[0].Acked() != -1 {
			t.Errorf("logs end at %d and %d, %v", f.end, s.followers[1].end, s.story.told())
		}
		// A leader that only opens now is refused as well; with a newer epoch it is taken.
		s.push.Lead(key(0), s.leaders[0], 4)
		s.settle(time.Second)
		s.host.set(func() { s.host.epoch[key(0)] = 7 })
		s.push.Lead(key(0), s.leaders[0], 7)
		s.settle(time.Second)
		s.same()
		if s.push.Counts().Refused.Load() != 2 {
			t.Errorf("refused %d times", s.push.Counts().Refused.Load())
		}
		if err := s.recv.Fence(context.Background(), key(0), math.MaxInt32); err != nil {
			t.Error(err)
		}
	})
}

// TestFenceHasADeadline: what the disk does not answer is not waited for longer than the caller likes.
func TestFenceHasADeadline(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newScene(t, 1, nil)
		s.followers[0].hold = true
		s.connect(false)
		s.leaders[0].lead(t, 5, 1, 10)
		s.settle(time.Millisecond)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := s.recv.Fence(ctx, key(0), 6); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

// TestFollowerThatDoesNotKnowYet: the leader may hear of its role first.
func TestFollowerThatDoesNotKnowYet(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newScene(t, 1, nil)
		s.host.epoch[key(0)] = 4
		s.leaders[0].lead(t, 5, 1, 10)
		s.connect(false)
		s.settle(50 * time.Millisecond)
		if !s.heard(ErrNotFollower.Error()) {
			t.Error(s.story.told())
		}
		s.host.set(func() { s.host.epoch[key(0)] = 5 })
		s.settle(100 * time.Millisecond)
		s.same()
		if s.host.asked > 6 {
			t.Errorf("asked %d times", s.host.asked)
		}
	})
}

// TestStorageError: one log that fails is one partition that is refused, and comes back.
func TestStorageError(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newScene(t, 2, nil)
		s.connect(false)
		s.settle(time.Millisecond)
		f := s.followers[0]
		f.set(func() { f.refuse = segment.ErrNoSpace })
		for range 20 {
			s.leaders[0].lead(t, 5, 1, 10)
			s.leaders[1].lead(t, 5, 1, 10)
		}
		s.settle(10 * time.Second)
		if s.followers[0].end != 0 || s.followers[1].end != 20 || !s.heard("no space left") {
			t.Fatalf("logs end at %d and %d, %v", s.followers[0].end, s.followers[1].end, s.story.told())
		}
		if n := len(s.story.told()); n > 40 {
			t.Errorf("tried %d times", n)
		}
		f.set(func() { f.refuse = nil })
		s.settle(2 * time.Second)
		s.same()
	})
}

// TestFailedAppendLeavesNoGap: what was sent behind an append that failed is not stored.
func TestFailedAppendLeavesNoGap(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newScene(t, 1, func(l, _ *Config) { l.TurnBytes = 1 })
		s.connect(false)
		s.settle(time.Millisecond)
		f := s.followers[0]
		f.set(func() { f.hold = true })
		for range 10 {
			s.leaders[0].lead(t, 5, 1, 10)
		}
		synctest.Wait()
		f.set(func() { // the first of them fails
			if len(f.queue) != 10 {
				t.Errorf("%d appends", len(f.queue))
			}
			first := f.queue[0]
			f.queue = f.queue[1:]
			go first.Done(segment.Result{Err: segment.ErrNoSpace})
			f.hold = false
		})
		s.settle(time.Second)
		s.same()
	})
}

// TestSilence: both sides notice a connection that has died without saying so, and one that lives is left alone.
func TestSilence(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newScene(t, 1, nil)
		c, a, b := s.connect(false)
		s.settle(time.Hour)
		if s.heard("lost") {
			t.Fatal(s.story.told())
		}
		if n := s.push.Counts().FramesOut.Load(); n > 2*3600+100 {
			t.Errorf("%d frames in an idle hour", n)
		}
		for _, w := range []*weak{a, b} {
			w.set(func() { w.silent = true })
		}
		at := time.Now()
		c.wait()
		if d := time.Since(at); d > 2500*time.Millisecond || !errors.Is(c.leadErr, ErrSilent) && !errors.Is(c.followErr, ErrSilent) {
			t.Errorf("after %v: %v; %v", d, c.leadErr, c.followErr)
		}
		if !s.heard("lost") || s.parts[0].Acked() != -1 || s.parts[0].Lag() != -1 {
			t.Errorf("%v, acked %d", s.story.told(), s.parts[0].Acked())
		}
	})
}

// TestOneWaySilence: it is enough that one direction is dead.
func TestOneWaySilence(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newScene(t, 1, nil)
		c, _, b := s.connect(false)
		s.settle(time.Second)
		b.set(func() { b.silent = true })
		at := time.Now()
		c.wait()
		if d := time.Since(at); d > 2500*time.Millisecond || !errors.Is(c.leadErr, ErrSilent) {
			t.Errorf("after %v: %v; %v", d, c.leadErr, c.followErr)
		}
	})
}

// TestDamagedFrame: any bit that changes on the way ends the connection, and nothing wrong is appended.
func TestDamagedFrame(t *testing.T) {
	for bit := 0; bit < 8*320; bit += 7 { // TestEveryFlippedBit has them all
		inBubble(t, func(t *testing.T) {
			s := newScene(t, 1, nil)
			c, a, _ := s.connect(false)
			s.leaders[0].lead(t, 5, 1, 100)
			s.settle(time.Millisecond)
			done := false
			a.set(func() {
				a.spoil = func(b []byte) []byte {
					if !done && len(b) > bit/8 {
						done = true
						b[bit/8] ^= 1 << (bit % 8)
					}
					return b
				}
			})
			s.leaders[0].lead(t, 5, 2, 100)
			s.settle(time.Millisecond)
			if !done {
				c.stop()
				return
			}
			if c.wait(); !errors.Is(c.followErr, ErrProtocol) {
				t.Fatalf("bit %d: %v", bit, c.followErr)
			}
			if f := s.followers[0]; f.end != 1 || s.parts[0].Acked() != -1 {
				t.Fatalf("bit %d: the log ends at %d", bit, f.end)
			}
			s.connect(false)
			s.settle(time.Millisecond)
			s.same()
		})
	}
}

func TestStrangers(t *testing.T) {
	for name, change := range map[string]func(l, f *Config){
		"another cluster": func(l, _ *Config) { l.Self.Cluster = "d" },
		"another broker":  func(_, f *Config) { f.Self.Broker = 3 },
		"itself":          func(l, _ *Config) { l.Self.Broker = 2 },
	} {
		inBubble(t, func(t *testing.T) {
			s := newScene(t, 1, change)
			c, _, _ := s.connect(false)
			c.wait()
			if !errors.Is(c.leadErr, ErrStranger) && !errors.Is(c.followErr, ErrStranger) {
				t.Errorf("%s: %v; %v", name, c.leadErr, c.followErr)
			}
		})
	}
}

func TestBudget(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newScene(t, 1, func(_, f *Config) { f.WindowBytes, f.BudgetBytes = 16<<20, 17<<20 })
		one, _, _ := s.connect(false)
		two, _, _ := s.connect(true)
		s.settle(time.Millisecond)
		other := NewPush(testConfig(3), 2, newStory())
		a, b := net2(t)
		three := connect(t, other, s.recv, false, a, b)
		three.wait()
		if !errors.Is(three.followErr, ErrNoRoom) {
			t.Error(three.followErr)
		}
		one.stop()
		two.stop()
		a, b = net2(t)
		four := connect(t, other, s.recv, false, a, b)
		s.settle(time.Second)
		four.stop()
		if errors.Is(four.followErr, ErrNoRoom) || s.recv.given != 0 {
			t.Errorf("%v, %d bytes given", four.followErr, s.recv.given)
		}
	})
}

// TestRetentionOvertakes: what the follower was to get next is deleted at the leader.
func TestRetentionOvertakes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newScene(t, 1, nil)
		l := s.leaders[0]
		l.lead(t, 5, 5, 10)
		c, _, _ := s.connect(false)
		s.settle(time.Millisecond)
		c.stop()
		for range 10 {
			l.lead(t, 5, 5, 10)
		}
		if err := l.MoveStart(context.Background(), 30); err != nil {
			t.Fatal(err)
		}
		s.connect(false)
		s.settle(time.Second)
		s.same()
		if f := s.followers[0]; f.start != 30 || len(f.reset) != 1 {
			t.Errorf("starts at %d, reset %v", f.start, f.reset)
		}
	})
}

// TestDamageAtTheLeader: a log that cannot be read is said, and keeps nobody else.
func TestDamageAtTheLeader(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newScene(t, 2, nil)
		s.push.Lead(key(0), damaged{s.leaders[0]}, 5)
		s.leaders[0].lead(t, 5, 1, 1)
		s.leaders[1].lead(t, 5, 1, 1)
		s.connect(false)
		s.settle(10 * time.Second)
		if !s.heard("corrupt") || s.followers[1].end != 1 {
			t.Errorf("%v", s.story.told())
		}
	})
}

type damaged struct{ *memLog }

func (damaged) View(*segment.View, int64, int64, int, bool) (int, error) {
	return 0, &segment.CorruptError{File: "x", Cause: io.ErrUnexpectedEOF}
}
