package stream

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
)

// TestEverythingArrives: several partitions of real logs, written to while they are pushed, byte for byte.
func TestEverythingArrives(t *testing.T) {
	for _, tcp := range []bool{false, true} {
		t.Run(fmt.Sprint("tcp=", tcp), func(t *testing.T) {
			from, to := memDir(t), memDir(t)
			host := &follower{logs: map[Key]Sink{}, epoch: map[Key]int32{}}
			r := NewReceiver(testConfig(2), host)
			u := NewPush(testConfig(1), 2, newStory())
			const partitions, batches = 5, 60
			var leaders, followers []*realLog
			var wg sync.WaitGroup
			for i := range partitions {
				l, f := openLog(t, from, i), openLog(t, to, i)
				leaders, followers = append(leaders, l), append(followers, f)
				host.logs[key(i)], host.epoch[key(i)] = f, 3
				p := u.Lead(key(i), l, 3)
				l.OnAdvance(func(end int64) { l.SetHighWatermark(end); p.Wake() })
				for n := range batches / 2 { // what was there before
					wg.Add(1)
					l.produce(t, makeBatch(t, 0, 1+n%3, 10+n*137%5000, 0), int32(1+n%2), wg.Done)
				}
				wg.Wait()
			}
			a, b := wires(t, tcp)
			connect(t, u, r, false, a, b)
			for i, l := range leaders {
				for n := range batches / 2 {
					wg.Add(1)
					l.produce(t, makeBatch(t, 0, 1+n%3, 10+(n+i)*1237%70000, 0), 3, wg.Done)
				}
				wg.Add(1)
				l.produce(t, makeBatch(t, 0, 1, 3<<20, 0), 3, wg.Done) // larger than a frame
			}
			wg.Wait()
			for i, l := range leaders {
				f := followers[i]
				await(t, "the follower's log", func() bool { return f.LogEndOffset() == l.LogEndOffset() && f.HighWatermark() == l.LogEndOffset() })
				if !bytes.Equal(l.all(t), f.all(t)) {
					t.Errorf("partition %d differs", i)
				}
				p := u.parts[key(i)]
				await(t, "the acknowledgement", func() bool { return p.Acked() == l.LogEndOffset() && p.Lag() == 0 })
			}
			if c := r.Counts(); c.AckFrames.Load() == 0 || c.Discarded.Load() > 0 || u.Counts().AppendBytes.Load() != c.AppendBytes.Load() {
				t.Errorf("counts of the receiver: %d ACKs, %d discarded", c.AckFrames.Load(), c.Discarded.Load())
			}
		})
	}
}
