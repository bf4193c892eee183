package isr

import (
	"slices"
	"testing"
	"time"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// script is a partition led by broker 1, at an instant.
type script struct {
	t   *testing.T
	l   *Leader
	now time.Time
	s   State
}

func lead(t *testing.T, minimum int, inSync ...int32) *script {
	cfg := DefaultConfig()
	cfg.MinInSync = minimum
	s := State{LeaderEpoch: 5, PartitionEpoch: 10, Replicas: []int32{1, 2, 3}, InSync: inSync}
	return &script{t: t, now: start, s: s, l: NewLeader(cfg, 1, 100, s, 50, 40, start)}
}

func (s *script) after(d time.Duration) { s.now = s.now.Add(d); s.l.Tick(s.now) }
func (s *script) append(end int64)      { s.l.Appended(end, s.now) }
func (s *script) ack(id int32, end int64) {
	s.l.Acked(id, int64(id)*100, end, s.now)
}

// commit makes the controller accept a change, or decide something by itself.
func (s *script) commit(inSync ...int32) {
	s.s.PartitionEpoch++
	s.s.InSync = inSync
	s.l.Changed(s.s, s.now)
}

func (s *script) watermark(want int64) {
	s.t.Helper()
	if got := s.l.HighWatermark(); got != want {
		s.t.Errorf("high watermark %d, want %d", got, want)
	}
}

// wants checks the wanted set; none means that there is nothing to change.
func (s *script) wants(want ...int32) (c Change) {
	s.t.Helper()
	c, ok := s.l.Wanted(s.now)
	var got []int32
	for _, m := range c.InSync {
		got = append(got, m.Broker)
		if m.Epoch != int64(m.Broker)*100 && m.Epoch != -1 {
			s.t.Errorf("member %+v", m)
		}
	}
	if ok != (len(want) > 0) || !slices.Equal(got, want) {
		s.t.Errorf("wants %v (%v), not %v", got, ok, want)
	}
	return c
}

func (s *script) deadline(want time.Duration) {
	s.t.Helper()
	got := s.l.Deadline(s.now)
	if want == 0 && !got.IsZero() || want != 0 && !got.Equal(s.now.Add(want+time.Nanosecond)) && !got.Equal(s.now.Add(want)) {
		s.t.Errorf("deadline %v, want %v", got.Sub(s.now), want)
	}
}

func TestLeader(t *testing.T) {
	tests := []struct {
		name string
		min  int
		isr  []int32
		run  func(s *script)
	}{
		{"the watermark waits for all members, from where it was", 1, []int32{1, 2, 3}, func(s *script) {
			s.watermark(40)
			s.ack(2, 50)
			s.watermark(40)
			s.ack(3, 47)
			s.watermark(47)
			s.ack(3, 50)
			s.watermark(50)
			s.append(60)
			s.watermark(50)
			s.ack(2, 60)
			s.ack(3, 55)
			s.watermark(55)
			s.wants()
		}},
		{"alone, the leader's end is the watermark", 1, []int32{1}, func(s *script) {
			s.watermark(50)
			s.append(70)
			s.watermark(70)
		}},
		{"below the minimum it stands still", 2, []int32{1}, func(s *script) {
			s.watermark(40)
			s.append(70)
			s.watermark(40)
			s.ack(2, 70)
			s.watermark(40)
			c := s.wants(1, 2)
			s.l.Proposed(c, s.now)
			s.watermark(40) // what is pending is not committed
			s.commit(1, 2)
			s.watermark(70)
		}},
		{"a minimum larger than the replicas counts as their number", 9, []int32{1, 2, 3}, func(s *script) {
			s.ack(2, 50)
			s.ack(3, 50)
			s.watermark(50)
			if s.l.BelowMinimum() {
				s.t.Error("below the minimum")
			}
		}},
		{"a pending expansion counts, a pending shrink does not", 1, []int32{1, 2}, func(s *script) {
			s.ack(2, 50)
			s.ack(3, 50)
			s.l.Proposed(s.wants(1, 2, 3), s.now)
			s.append(60)
			s.ack(2, 60)
			s.watermark(50)
			s.wants() // one at a time
			s.l.Refused(s.now)
			s.l.Lost(3, s.now)
			s.watermark(60)
			s.l.Lost(2, s.now)
			s.after(3 * time.Second)
			s.l.Proposed(s.wants(1), s.now)
			s.append(70)
			s.watermark(60)
			s.commit(1)
			s.watermark(70)
		}},
		{"a quiet follower does not lag", 1, []int32{1, 2}, func(s *script) {
			s.ack(2, 50)
			s.deadline(0)
			s.after(time.Hour)
			s.wants()
			s.append(51)
			s.wants()
			s.deadline(30 * time.Second)
			s.after(30 * time.Second)
			s.wants()
			s.after(time.Nanosecond)
			s.wants(1)
		}},
		{"caught up is having what the leader had when one spoke before", 1, []int32{1, 2}, func(s *script) {
			s.ack(2, 50)
			for i := int64(1); i <= 100; i++ { // always behind, never by more than a second
				s.append(50 + 10*i)
				s.after(time.Second)
				s.ack(2, 50+10*i-5)
				s.wants()
			}
			s.append(3000)
			for range 30 { // progress, but never what the leader had
				s.after(time.Second)
				s.ack(2, s.l.End(2)+1)
			}
			s.after(2 * time.Second)
			s.wants(1)
		}},
		{"one that never speaks has as long as one that lags", 1, []int32{1, 2}, func(s *script) {
			s.deadline(30 * time.Second)
			s.after(30 * time.Second)
			s.wants()
			s.after(time.Second)
			s.wants(1)
		}},
		{"lost for longer than a lease", 1, []int32{1, 2, 3}, func(s *script) {
			s.ack(2, 50)
			s.ack(3, 50)
			s.l.Lost(2, s.now)
			s.deadline(2 * time.Second)
			s.after(time.Second)
			s.l.Lost(2, s.now) // no news
			s.after(time.Second)
			s.wants()
			s.after(time.Nanosecond)
			c := s.wants(1, 3)
			if c.LeaderEpoch != 5 || c.PartitionEpoch != 10 || c.Has(2) || !c.Has(3) {
				s.t.Errorf("%+v", c)
			}
			s.ack(2, 50) // back again
			s.wants()
		}},
		{"joining takes everything from before the epoch, and everything committed", 1, []int32{1, 2}, func(s *script) {
			s.ack(2, 45)
			s.watermark(45)
			s.ack(3, 46) // behind the watermark, but before the epoch's start
			s.wants()
			s.ack(3, 50)
			s.wants(1, 2, 3)
		}},
		{"joining under load: the watermark waits for one that keeps up", 1, []int32{1}, func(s *script) {
			s.append(100)
			s.watermark(100)
			s.ack(3, 60)
			s.wants()
			s.append(200)
			s.watermark(200)
			s.ack(3, 100) // had at the last word: keeps up
			s.append(300)
			s.watermark(200)
			s.wants()
			s.ack(3, 200)
			s.wants(1, 3)
			s.l.Lost(3, s.now) // and is no longer waited for once it is gone
			s.watermark(300)
			s.wants()
		}},
		{"a joining one that stops holds the watermark for MaxLag at most", 1, []int32{1}, func(s *script) {
			s.ack(3, 50)
			s.append(60)
			s.watermark(50)
			s.l.Proposed(s.wants(1, 3), s.now)
			s.l.Refused(s.now)
			s.deadline(500 * time.Millisecond)
			s.after(time.Second)
			s.deadline(29 * time.Second)
			s.after(30 * time.Second)
			s.watermark(60)
			s.wants()
		}},
		{"barred brokers do not join", 1, []int32{1, 2}, func(s *script) {
			s.ack(2, 50)
			s.s.Barred = []int32{3}
			s.l.Changed(s.s, s.now) // the partition itself has not changed
			s.ack(3, 50)
			s.wants()
			s.append(60)
			s.ack(2, 60)
			s.watermark(60)
			s.s.Barred = nil
			s.l.Changed(s.s, s.now)
			s.ack(3, 60)
			s.wants(1, 2, 3)
		}},
		{"refused, and again after a pause", 1, []int32{1, 2}, func(s *script) {
			s.ack(2, 50)
			s.ack(3, 50)
			s.l.Proposed(s.wants(1, 2, 3), s.now)
			s.l.Refused(s.now)
			s.wants()
			s.deadline(500 * time.Millisecond)
			s.after(500 * time.Millisecond)
			s.wants(1, 2, 3)
		}},
		{"another decision ends the pending change", 1, []int32{1, 2}, func(s *script) {
			s.ack(2, 50)
			s.ack(3, 50)
			s.l.Proposed(s.wants(1, 2, 3), s.now)
			s.commit(1)
			if _, pending := s.l.Pending(); pending {
				s.t.Error("still pending")
			}
			s.append(60)
			s.ack(3, 60)
			s.ack(2, 60)
			s.watermark(60)
			s.wants(1, 2, 3)
		}},
		{"old decisions are passed over", 1, []int32{1, 2}, func(s *script) {
			s.ack(2, 50)
			s.commit(1, 2, 3)
			stale := s.s
			stale.PartitionEpoch, stale.InSync = 10, []int32{1}
			s.l.Changed(stale, s.now)
			s.append(60)
			s.ack(2, 60)
			s.watermark(50)
		}},
		{"one who has less than it had acknowledged leaves at once", 1, []int32{1, 2, 3}, func(s *script) {
			s.ack(2, 50)
			s.ack(3, 50)
			s.watermark(50)
			s.ack(2, 20)
			s.watermark(50)
			s.wants(1, 3)
		}},
		{"the word of an earlier registration is not taken", 1, []int32{1, 2}, func(s *script) {
			s.l.Acked(2, 201, 45, s.now)
			s.l.Acked(2, 200, 50, s.now)
			s.watermark(45)
			if s.l.End(2) != 45 {
				s.t.Errorf("end %d", s.l.End(2))
			}
		}},
		{"more than the leader has is no more than it has", 1, []int32{1, 2}, func(s *script) {
			s.ack(2, 99)
			s.watermark(50)
			s.append(60)
			s.watermark(50)
		}},
		{"a new leader epoch: all speak anew", 1, []int32{1, 2}, func(s *script) {
			s.ack(2, 50)
			s.append(60)
			s.s.LeaderEpoch++
			s.commit(1, 2)
			s.append(70)
			s.watermark(50)
			s.ack(3, 55) // behind the watermark, before the epoch's start
			s.wants()
			s.ack(2, 70)
			s.watermark(70)
		}},
		{"replicas come and go", 1, []int32{1, 2}, func(s *script) {
			s.ack(2, 50)
			s.s.Replicas = []int32{1, 4}
			s.commit(1)
			s.append(60)
			s.watermark(60)
			s.ack(2, 60)
			s.wants()
			s.ack(4, 60)
			s.wants(1, 4)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := lead(t, tt.min, tt.isr...)
			tt.run(s)
		})
	}
}
