package isr

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestProperties runs a leader against a controller that decides when it likes, and may have decided without the leader knowing.
// Whatever set the controller has, its members hold everything before the high watermark: so any of them may be elected.
func TestProperties(t *testing.T) {
	for seed := range uint64(2000) {
		if msg := drive(seed); msg != "" {
			t.Fatalf("seed %d: %s", seed, msg)
		}
	}
}

func drive(seed uint64) string {
	r := rand.New(rand.NewPCG(seed, 1))
	cfg := DefaultConfig()
	cfg.MinInSync = 1 + r.IntN(3)
	now := start
	// What the controller has, and the durable end that each follower has told last: it never loses any.
	truth := State{LeaderEpoch: 1, PartitionEpoch: 1, Replicas: []int32{1, 2, 3, 4}, InSync: []int32{1, 2, 3}}
	told := map[int32]int64{2: 0, 3: 0, 4: 0}
	lost := map[int32]bool{}
	end := int64(0)
	l := NewLeader(cfg, 1, 1, truth, 0, 0, now)
	var pending *Change
	before := int64(0)
	for step := range 300 {
		what := ""
		switch k := r.IntN(10); k {
		case 0, 1:
			end += int64(r.IntN(5))
			l.Appended(end, now)
			what = fmt.Sprint("append ", end)
		case 2, 3, 4:
			id := int32(2 + r.IntN(3))
			told[id] = min(end, told[id]+int64(r.IntN(8)))
			lost[id] = false
			l.Acked(id, 1, told[id], now)
			what = fmt.Sprint("ack ", id, " ", told[id])
		case 5:
			now = now.Add(time.Duration(r.Int64N(int64(5 * time.Second))))
			if r.IntN(20) == 0 {
				now = now.Add(40 * time.Second)
			}
			l.Tick(now)
		case 6:
			id := int32(2 + r.IntN(3))
			lost[id] = true
			l.Lost(id, now)
			what = fmt.Sprint("lost ", id)
		case 7:
			if c, ok := l.Wanted(now); ok {
				if pending != nil {
					return "a second change"
				}
				for _, m := range c.InSync {
					if m.Broker != 1 && !l.inSync(m.Broker) && (told[m.Broker] < l.HighWatermark() || lost[m.Broker]) {
						return fmt.Sprintf("step %d: %d is to join with %d of %d", step, m.Broker, told[m.Broker], l.HighWatermark())
					}
				}
				pending = &c
				l.Proposed(c, now)
			}
		case 8: // the controller gets to it: the leader hears later
			if pending != nil && pending.PartitionEpoch == truth.PartitionEpoch && r.IntN(2) == 0 {
				truth.PartitionEpoch++
				truth.InSync = nil
				for _, m := range pending.InSync {
					truth.InSync = append(truth.InSync, m.Broker)
				}
			} else if r.IntN(8) == 0 && len(truth.InSync) > 1 { // a broker is fenced
				truth.PartitionEpoch++
				truth.InSync = slices.Clone(truth.InSync[:len(truth.InSync)-1])
			}
		case 9:
			switch {
			case pending != nil && pending.PartitionEpoch != truth.PartitionEpoch && r.IntN(2) == 0:
				pending = nil
				l.Changed(truth, now)
			case pending != nil && pending.PartitionEpoch == truth.PartitionEpoch && r.IntN(4) == 0:
				pending = nil
				l.Refused(now)
			case pending == nil:
				l.Changed(truth, now)
			}
		}
		hw := l.HighWatermark()
		if hw < before || hw > end {
			return fmt.Sprintf("step %d %s: high watermark from %d to %d, log ends at %d", step, what, before, hw, end)
		}
		before = hw
		for _, id := range truth.InSync {
			if id != 1 && told[id] < hw {
				return fmt.Sprintf("step %d %s: member %d has %d, high watermark is %d", step, what, id, told[id], hw)
			}
		}
		if at := l.Deadline(now); !at.IsZero() && !at.After(now) {
			return "a deadline in the past"
		}
	}
	// In peace everything ends well: all connected, nothing new, time enough.
	for range 10 {
		for id := range told {
			told[id] = end
			l.Acked(id, 1, end, now)
		}
		if pending == nil {
			if c, ok := l.Wanted(now); ok {
				pending = &c
				l.Proposed(c, now)
			}
		}
		if pending != nil && pending.PartitionEpoch == truth.PartitionEpoch {
			truth.PartitionEpoch++
			truth.InSync = nil
			for _, m := range pending.InSync {
				truth.InSync = append(truth.InSync, m.Broker)
			}
		}
		pending = nil
		l.Changed(truth, now)
		now = now.Add(time.Second)
	}
	if len(truth.InSync) != 4 || l.HighWatermark() != end {
		return fmt.Sprintf("at the end %v, high watermark %d of %d", truth.InSync, l.HighWatermark(), end)
	}
	return ""
}

// TestShrinksByDeadline: who only calls when the deadline says so misses nothing.
func TestShrinksByDeadline(t *testing.T) {
	s := lead(t, 1, 1, 2, 3)
	s.ack(2, 50)
	s.ack(3, 50)
	s.append(51)
	s.ack(2, 51)
	calls := 0
	for ; calls < 10; calls++ {
		if _, ok := s.l.Wanted(s.now); ok {
			break
		}
		at := s.l.Deadline(s.now)
		if at.IsZero() {
			t.Fatal("no deadline")
		}
		s.now = at
		s.l.Tick(at)
	}
	s.wants(1, 2)
	if calls != 1 {
		t.Errorf("%d calls", calls)
	}
}

func BenchmarkAcked(b *testing.B) {
	cfg := DefaultConfig()
	l := NewLeader(cfg, 1, 1, State{Replicas: []int32{1, 2, 3}, InSync: []int32{1, 2, 3}}, 0, 0, start)
	b.ReportAllocs()
	for i := range int64(b.N) {
		l.Appended(i, start)
		l.Acked(2, 1, i, start)
		l.Acked(3, 1, i, start)
	}
}
