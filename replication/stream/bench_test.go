package stream

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/vfs"
)

// BenchmarkStream pushes batches of real logs over loopback to a follower's real log, which syncs them: what has gathered
// (behind), and what is produced meanwhile by many who each wait for the follower's acknowledgement (live).
func BenchmarkStream(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10} {
		for _, where := range []string{"disk", "nowhere"} {
			for _, partitions := range []int{1, 8} {
				b.Run(fmt.Sprintf("behind/batch=%d/%s/partitions=%d", size, where, partitions), func(b *testing.B) { behind(b, size, where, partitions) })
			}
		}
		b.Run(fmt.Sprintf("live/batch=%d/disk/partitions=8", size), func(b *testing.B) { live(b, size, 8) })
	}
}

type benchPair struct {
	leaders, followers []*realLog
	push               *Push
	recv               *Receiver
	story              *story
	parts              []*Partition
}

func newBenchPair(b *testing.B, where string, partitions int) *benchPair {
	var from, to *segment.Dir
	from, to = openDir(b, vfs.OS(), b.TempDir()), openDir(b, vfs.OS(), b.TempDir())
	host := &follower{logs: map[Key]Sink{}, epoch: map[Key]int32{}}
	p := &benchPair{recv: NewReceiver(testConfig(2), host), story: newStory()}
	cfg := testConfig(1)
	cfg.FarBytes = 1 << 50
	p.push = NewPush(cfg, 2, p.story)
	for i := range partitions {
		l, f := openLog(b, from, i), openLog(b, to, i)
		p.leaders, p.followers = append(p.leaders, l), append(p.followers, f)
		host.logs[key(i)], host.epoch[key(i)] = f, 1
		if where == "nowhere" {
			host.logs[key(i)] = new(nullLog)
		}
		part := p.push.Lead(key(i), l, 1)
		l.OnAdvance(func(int64) { part.Wake() })
		p.parts = append(p.parts, part)
	}
	return p
}

// nullLog is a disk that takes everything at once and keeps nothing: what is left is what streams cost.
type nullLog struct{ end atomic.Int64 }

func (l *nullLog) Append(_ context.Context, a *segment.Append) error {
	last := lastOffset(a.Batches)
	l.end.Store(last + 1)
	a.Done(segment.Result{LastOffset: last})
	return nil
}
func (l *nullLog) LogStartOffset() int64                  { return 0 }
func (l *nullLog) LogEndOffset() int64                    { return l.end.Load() }
func (l *nullLog) Epochs() []segment.EpochEntry           { return nil }
func (l *nullLog) Truncate(context.Context, int64) error  { return nil }
func (l *nullLog) Reset(context.Context, int64) error     { return nil }
func (l *nullLog) MoveStart(context.Context, int64) error { return nil }
func (l *nullLog) SetHighWatermark(int64)                 {}

func behind(b *testing.B, size int, where string, partitions int) {
	p := newBenchPair(b, where, partitions)
	one := makeBatch(b, 0, 1, size, 0)
	row := bytes.Repeat(one, max(1, (256<<10)/len(one)))
	var wg sync.WaitGroup
	for i := 0; i < b.N; {
		for _, l := range p.leaders {
			n := min(len(row)/len(one), b.N-i)
			if i += n; n > 0 {
				wg.Add(1)
				l.produce(b, bytes.Clone(row[:n*len(one)]), 1, wg.Done)
			}
		}
	}
	wg.Wait()
	b.SetBytes(int64(len(one)))
	b.ReportAllocs()
	b.ResetTimer()
	x, y := wires(b, true)
	c := connect(b, p.push, p.recv, false, x, y)
	for i, part := range p.parts {
		for part.Acked() < p.leaders[i].LogEndOffset() {
			time.Sleep(100 * time.Microsecond)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(p.push.Counts().AppendBytes.Load())/float64(max(1, p.push.Counts().AppendFrames.Load())), "bytes/frame")
	c.stop()
}

func live(b *testing.B, size, partitions int) {
	const producers = 64
	p := newBenchPair(b, "disk", partitions)
	one := makeBatch(b, 0, 1, size, 0)
	// Who waits for what of which partition.
	type waiter struct {
		offset int64
		done   chan struct{}
	}
	var mu sync.Mutex
	waiting := map[*Partition][]waiter{}
	p.story.hear = func(part *Partition, end int64) {
		mu.Lock()
		defer mu.Unlock()
		row := waiting[part]
		n := 0
		for n < len(row) && row[n].offset < end {
			close(row[n].done)
			n++
		}
		waiting[part] = row[n:]
	}
	x, y := wires(b, true)
	c := connect(b, p.push, p.recv, false, x, y)
	b.SetBytes(int64(len(one)))
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for w := range producers {
		wg.Go(func() {
			part, l := p.parts[w%partitions], p.leaders[w%partitions]
			mine := bytes.Clone(one)
			for i := w; i < b.N; i += producers {
				done := make(chan struct{})
				_ = l.produceThen(b, mine, func(offset int64) {
					mu.Lock()
					defer mu.Unlock()
					if part.Acked() > offset {
						close(done)
						return
					}
					waiting[part] = append(waiting[part], waiter{offset, done})
				})
				<-done
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	acks := p.recv.Counts().AckFrames.Load()
	b.ReportMetric(float64(b.N)/float64(max(1, acks)), "batches/ACK")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "batches/s")
	c.stop()
}
