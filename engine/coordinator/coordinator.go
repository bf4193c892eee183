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
	// LoadTimeout is how long clients are told that a partition is being loaded while its high watermark has not reached
	// the end of what the leader before has left; after that they are sent away until it has. Default 30 s.
	LoadTimeout time.Duration
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

	defaultLoadTimeout = 30 * time.Second
)

// Coordinator answers for the groups of this node. Its methods may be called from any goroutine.
type Coordinator struct {
	opts   Options
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	timers *timers
	work   sync.WaitGroup // goroutines of shards: loading, draining, settling, ending
	Stats  Stats

	creating chan struct{}            // holds one token: whoever has it creates the topic
	loading  chan struct{}            // as many tokens as logs may be read at once
	shards   atomic.Pointer[[]*shard] // by partition; the slice is never changed

	mu     sync.Mutex    // who leads: guards changes of shards, and what is below; held for moments, on the catalogue's goroutine too
	exists chan struct{} // closed when it is known that the topic exists
	closed bool
	loads  loads
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
	if opts.LoadTimeout == 0 {
		opts.LoadTimeout = defaultLoadTimeout
	}
	c := &Coordinator{
		opts: opts, creating: make(chan struct{}, 1), loading: make(chan struct{}, runtime.GOMAXPROCS(0)), exists: make(chan struct{}),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.timers = newTimers(opts.Now, &c.Stats.Wakes)
	c.creating <- struct{}{}
	return c
}

// Open begins to keep the groups' time. What is to be loaded is told by TopicCreated and Elected, before or after.
func (c *Coordinator) Open() {
	c.work.Go(func() { c.timers.run(c.ctx) })
}

// EnsureTopic makes sure that __consumer_offsets exists, made here or by another node, and that this node knows
// which of its partitions it leads.
func (c *Coordinator) EnsureTopic(ctx context.Context) error {
	if len(c.all()) > 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.opts.CommitTimeout)
	defer cancel()
	select {
	case <-c.creating:
		defer func() { c.creating <- struct{}{} }()
	case <-ctx.Done():
		return ErrNotAvailable
	case <-c.ctx.Done():
		return ErrNotAvailable
	}
	c.mu.Lock()
	exists := c.exists
	c.mu.Unlock()
	select {
	case <-exists:
		return nil
	default:
	}
	if err := c.opts.Topics.EnsureOffsetsTopic(ctx); err != nil {
		c.opts.Logger.Warn("could not create the topic of the groups' offsets", "error", err)
		return fmt.Errorf("%w: %v", ErrNotAvailable, err)
	}
	select {
	case <-exists:
		return nil
	case <-ctx.Done():
	case <-c.ctx.Done():
	}
	return fmt.Errorf("%w: this node does not know yet that the topic of the groups' offsets exists", ErrNotAvailable)
}

// Close tells everybody who waits to look for another coordinator, and waits for the goroutines until ctx ends.
// Records on their way may or may not get into the log; what becomes of them is not waited for.
func (c *Coordinator) Close(ctx context.Context) error {
	c.mu.Lock()
	c.closed = true // no shards are made or ended any more
	c.mu.Unlock()
	c.cancel()
	for _, s := range c.all() {
		if s.log != nil {
			s.close()
		}
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
