package coordinator

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/engine/group"
)

// Options are what a Coordinator is made of. All are required but those with a default.
type Options struct {
	Topics        Topics
	Groups        group.Config
	CommitTimeout time.Duration // offsets.commit.timeout.ms: how long a request waits for its records to be durable
	MaxPending    int64         // bytes of records on their way to the log, per partition; default 4 MiB
	MinRewrite    int64         // a log of fewer bytes than this is left alone; default 1 MiB
	// Stall gives a context that ends while the disk of a partition's log does not answer: nobody waits
	// for a record then that is in the disk's hands. Default: never.
	Stall  func(partition int32) context.Context
	Now    func() time.Time
	NewID  func() string // a fresh UUID
	Logger *slog.Logger
}

const (
	defaultMaxPending = 4 << 20
	defaultMinRewrite = 1 << 20
)

// Coordinator answers for the groups of this node. Its methods may be called from any goroutine.
type Coordinator struct {
	opts   Options
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	timers *timers
	work   sync.WaitGroup // goroutines of shards: loading, draining, settling
	Stats  Stats

	opening chan struct{} // holds one token: whoever has it creates the shards
	shards  atomic.Pointer[[]*shard]
}

// Stats counts what the coordinator does.
type Stats struct {
	Appends      atomic.Int64 // batches handed to logs
	Records      atomic.Int64 // records in them
	PendingBytes atomic.Int64 // bytes of records on their way
	Rewrites     atomic.Int64 // logs made small
	Wakes        atomic.Int64 // times that the timer goroutine has woken
}

// New makes a coordinator; Open starts it.
func New(opts Options) *Coordinator {
	if opts.MaxPending == 0 {
		opts.MaxPending = defaultMaxPending
	}
	if opts.MinRewrite == 0 {
		opts.MinRewrite = defaultMinRewrite
	}
	if opts.Stall == nil {
		opts.Stall = func(int32) context.Context { return context.Background() }
	}
	c := &Coordinator{opts: opts, opening: make(chan struct{}, 1)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.timers = newTimers(opts.Now, &c.Stats.Wakes)
	c.opening <- struct{}{}
	return c
}

// Open begins to load the groups, if there are any, and returns at once.
func (c *Coordinator) Open() {
	c.work.Go(func() { c.timers.run(c.ctx) })
	if n := c.opts.Topics.OffsetsPartitions(); n > 0 {
		<-c.opening
		c.openShards(n)
		c.opening <- struct{}{}
	}
}

// EnsureTopic makes sure that __consumer_offsets exists and that its groups are being loaded.
func (c *Coordinator) EnsureTopic(ctx context.Context) error {
	if c.shards.Load() != nil {
		return nil
	}
	select {
	case <-c.opening:
		defer func() { c.opening <- struct{}{} }()
	case <-ctx.Done():
		return ErrNotAvailable
	case <-c.ctx.Done():
		return ErrNotAvailable
	}
	if c.shards.Load() != nil {
		return nil
	}
	if err := c.opts.Topics.EnsureOffsetsTopic(ctx); err != nil {
		c.opts.Logger.Warn("could not create the topic of the groups' offsets", "error", err)
		return fmt.Errorf("%w: %v", ErrNotAvailable, err)
	}
	n := c.opts.Topics.OffsetsPartitions()
	if n <= 0 {
		return fmt.Errorf("%w: the topic of the groups' offsets has no partitions", ErrNotAvailable)
	}
	c.openShards(n)
	return nil
}

// openShards makes a shard for each partition and loads them, a few at a time.
func (c *Coordinator) openShards(n int32) {
	shards := make([]*shard, n)
	var toLoad []*shard
	for p := range shards {
		s := newShard(c, int32(p), c.opts.Topics.OffsetsLog(int32(p)))
		shards[p] = s
		switch {
		case s.log == nil:
			s.fail(fmt.Errorf("%w: partition %d is not led here", ErrNotCoordinator, p))
		case s.log.LogStartOffset() == s.log.HighWatermark():
			s.activate(map[string]*hosted{}, 0)
		default:
			toLoad = append(toLoad, s)
		}
	}
	c.shards.Store(&shards)
	if len(toLoad) == 0 {
		return
	}
	queue := make(chan *shard, len(toLoad))
	for _, s := range toLoad {
		queue <- s
	}
	close(queue)
	began := c.opts.Now()
	var left atomic.Int64
	left.Store(int64(len(toLoad)))
	for range min(runtime.GOMAXPROCS(0), len(toLoad)) {
		c.work.Go(func() {
			for s := range queue {
				s.load()
				if left.Add(-1) == 0 {
					c.opts.Logger.Info("loaded consumer groups", "partitions", len(toLoad), "took", c.opts.Now().Sub(began))
				}
			}
		})
	}
}

// Close tells everybody who waits to look for another coordinator, and waits for the goroutines until ctx ends.
// Records that are queued may or may not reach the log.
func (c *Coordinator) Close(ctx context.Context) error {
	c.cancel()
	select {
	case <-c.opening: // for good: no shards are made any more
	case <-ctx.Done():
		return fmt.Errorf("coordinator: closing: %w", ctx.Err())
	}
	for _, s := range c.all() {
		s.close()
	}
	done := make(chan struct{})
	go func() { // ends with the goroutines that it waits for
		c.work.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("coordinator: closing: %w", ctx.Err())
	}
}

func (c *Coordinator) all() []*shard {
	if shards := c.shards.Load(); shards != nil {
		return *shards
	}
	return nil
}

// shardOf is where a group lives; nil while __consumer_offsets does not exist.
func (c *Coordinator) shardOf(groupID string) *shard {
	shards := c.all()
	if len(shards) == 0 {
		return nil
	}
	return shards[PartitionFor(groupID, int32(len(shards)))]
}

// PartitionFor is the partition of __consumer_offsets, of n, that holds a group: as Kafka places it.
func PartitionFor(groupID string, n int32) int32 {
	h := javaHash(groupID)
	if h == -1<<31 {
		h = 0
	} else if h < 0 {
		h = -h
	}
	return h % n
}

// javaHash is String.hashCode of Java: over UTF-16 units, wrapping.
func javaHash(s string) int32 {
	var h int32
	for _, r := range s {
		if r > 0xffff {
			r -= 0x10000
			h = 31*h + (0xd800 + r>>10)
			h = 31*h + (0xdc00 + r&0x3ff)
			continue
		}
		h = 31*h + r
	}
	return h
}
