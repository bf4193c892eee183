package stream

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/segment/vfs"
)

// TestLeadersChange: two brokers with real logs take turns in leading; what only the one that is succeeded has is cut. The logs are
// the same whenever all has been pushed, and after a restart.
func TestLeadersChange(t *testing.T) {
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 3))
		var logs [2]*realLog
		var disks [2]*vfs.Mem
		for i := range logs {
			disks[i] = vfs.NewMem()
			if err := errors.Join(disks[i].MkdirAll("/d", 0o755), disks[i].SyncDir("/")); err != nil {
				t.Fatal(err)
			}
			logs[i] = openLog(t, openDir(t, disks[i], "/d"), 0)
		}
		for epoch := int32(1); epoch < 15; epoch++ {
			leader := r.IntN(2)
			l, f := logs[leader], logs[1-leader]
			write := func(n int) {
				var wg sync.WaitGroup
				for range n {
					wg.Add(1)
					l.produce(t, makeBatch(t, 0, 1+r.IntN(3), r.IntN(20_000), 0), epoch, wg.Done)
				}
				wg.Wait()
			}
			write(r.IntN(30)) // nobody else has it yet
			if r.IntN(3) == 0 {
				continue
			}
			host := &follower{logs: map[Key]Sink{key(0): f}, epoch: map[Key]int32{key(0): epoch}}
			o := newStory()
			u, recv := NewPush(testConfig(1), 2, o), NewReceiver(testConfig(2), host)
			p := u.Lead(key(0), l, epoch)
			l.OnAdvance(func(end int64) { l.SetHighWatermark(end); p.Wake() })
			a, b := wires(t, r.IntN(2) == 0)
			c := connect(t, u, recv, false, a, b)
			write(r.IntN(30))
			if r.IntN(4) == 0 { // not all of it
				c.stop()
			} else {
				await(t, "all of it", func() bool { return p.Acked() == l.LogEndOffset() })
				if !bytes.Equal(l.all(t), f.all(t)) {
					t.Fatalf("seed %d, epoch %d: the logs differ; %v", seed, epoch, o.told())
				}
				if start := l.LogStartOffset() + r.Int64N(l.LogEndOffset()-l.LogStartOffset()+1); r.IntN(3) == 0 {
					if err := l.MoveStart(context.Background(), start); err != nil {
						t.Fatal(err)
					}
					p.Wake()
					await(t, "the log's start", func() bool { return f.LogStartOffset() == start })
				}
				c.stop()
			}
			p.Stop()
			// Whoever leads next begins when nothing is on its way any more.
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			if err := recv.Fence(ctx, key(0), epoch+1); err != nil {
				t.Fatal(err)
			}
			cancel()
		}
		for i, l := range logs {
			before := l.all(t)
			again := openLog(t, openDir(t, disks[i].Crash(seed, 0.5), "/d"), 0)
			if !bytes.Equal(before, again.all(t)) || len(again.Epochs()) != len(l.Epochs()) {
				t.Errorf("seed %d: log %d is another after a crash", seed, i)
			}
		}
	}
}
