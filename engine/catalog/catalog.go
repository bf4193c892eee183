package catalog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
)

// Options say where a catalog lives.
type Options struct {
	Dir       string // directory of its own; made when missing
	ClusterID string // given to an empty catalog; must match one that is not; "" takes what is there
	Disk      Disk   // nil does without
	Logger    *slog.Logger
	Metrics   Metrics
}

// Disk is what the catalogue needs of the file system beside what Badger does itself.
type Disk interface {
	// SyncDir makes the creation of files in a directory durable.
	SyncDir(dir string) error
	// Reserve gives every file of a directory whose name ends in suffix at least size
	// bytes of blocks. Badger writes its log through a memory map, where a full disk
	// cannot be reported: it would end the process.
	Reserve(dir, suffix string, size int64) error
	// FreeBytes is the room left on a directory's file system.
	FreeBytes(dir string) (uint64, error)
	// Probe writes something to a directory and syncs it. Badger writes through memory
	// maps, where a disk that does not answer stops not only the writer but, with the next
	// garbage collection, the whole process: so it has to be met here, in a system call.
	Probe(dir string) error
	// Begin notes that Badger begins something that is to be watched like a file operation,
	// and end that it has ended.
	Begin(what, dir string) (end func())
	// Stall is a context that ends, with the reason as its cause, when the disk has not
	// answered for longer than it may; when it answers again, the next call gives a new one.
	Stall() context.Context
}

// Catalog drives the state machine on one node and keeps its state in Badger.
type Catalog struct {
	log     *slog.Logger
	metrics Metrics
	store   storage
	disk    Disk
	image   atomic.Pointer[Image]

	proposals chan proposal // to the writer; unbuffered, so a proposer waits with its own deadline
	stop      chan struct{} // closed by Close
	done      chan struct{} // closed when the writer has ended
	stopOnce  sync.Once
	failure   atomic.Pointer[error] // set by the writer

	subscribersMu sync.Mutex // guards subscribers; never held across a call
	subscribers   []*subscriber
}

// storage keeps images on the disk. Only the writer calls it, one call at a time.
type storage interface {
	save(old, img *Image) error // durable before it returns; ErrTooLarge and ErrNoSpace mean that nothing was written
	tidy()                      // housekeeping after a change, mostly nothing
	close() error
}

type subscriber struct{ fn func(old, new *Image) }

type proposal struct {
	cmd    Command
	answer chan answer // capacity one: the writer never waits for a proposer that has gone
}

type answer struct {
	res Result
	err error
}

// Open opens the catalog in a directory, making an empty one when there is none,
// and starts its writer. It returns when the whole state is in memory.
func Open(opts Options) (*Catalog, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	st, img, err := openStore(opts)
	if err != nil {
		return nil, err
	}
	c := newCatalog(st, img, opts.Logger)
	c.metrics = opts.Metrics
	c.disk = opts.Disk
	if opts.ClusterID != "" && img.ClusterID() == "" {
		if _, err := c.execute(SetCluster{ClusterID: opts.ClusterID}); err != nil {
			return nil, errors.Join(err, st.close())
		}
	}
	if have := c.Image().ClusterID(); opts.ClusterID != "" && have != opts.ClusterID {
		return nil, errors.Join(fmt.Errorf("%w: it has %s, expected %s", ErrClusterMismatch, have, opts.ClusterID), st.close())
	}
	go c.write()
	return c, nil
}

func newCatalog(st storage, img *Image, log *slog.Logger) *Catalog {
	c := &Catalog{
		log:       log,
		store:     st,
		proposals: make(chan proposal),
		stop:      make(chan struct{}),
		done:      make(chan struct{}),
	}
	c.image.Store(img)
	return c
}

// Image returns the current state. Hold one image for the length of a request.
func (c *Catalog) Image() *Image { return c.image.Load() }

// Propose applies a command and returns when it is on the disk, its image
// published and every subscriber told. An error of the context, and ErrStalled, mean
// that the outcome is not known: the command may still take effect, unless the context
// had ended, or the disk was stalled, before. Errors of single items are in the result.
func (c *Catalog) Propose(ctx context.Context, cmd Command) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	stall := c.stall()
	if stall.Err() != nil {
		return Result{}, stalled(stall)
	}
	defer c.metrics.proposed(c.metrics.now())
	p := proposal{cmd: cmd, answer: make(chan answer, 1)}
	select {
	case c.proposals <- p:
	case <-c.done:
		return Result{}, ErrClosed
	case <-stall.Done():
		return Result{}, stalled(stall)
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
	select {
	case a := <-p.answer:
		return a.res, a.err
	case <-stall.Done():
		return Result{}, stalled(stall)
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
}

// stall is the disk's, or a context that never ends.
func (c *Catalog) stall() context.Context {
	if c.disk == nil {
		return context.Background()
	}
	return c.disk.Stall()
}

func stalled(stall context.Context) error {
	return fmt.Errorf("%w: %w", ErrStalled, context.Cause(stall))
}

// Err is nil while changes are taken. Otherwise it is an ErrStalled, which goes when the
// disk answers, or an ErrFailed, which stays. It does not touch the disk.
func (c *Catalog) Err() error {
	if failed := c.failure.Load(); failed != nil {
		return fmt.Errorf("%w: %w", ErrFailed, *failed)
	}
	if stall := c.stall(); stall.Err() != nil {
		return stalled(stall)
	}
	return nil
}

// Subscribe has fn called after every change, in the order of the changes and
// never concurrently; new.Events() says what changed. fn runs on the writer's
// goroutine: the next change waits for it, and it must not call Propose or Close.
// A call that is under way when stop is called is not waited for.
func (c *Catalog) Subscribe(fn func(old, new *Image)) (stop func()) {
	s := &subscriber{fn: fn}
	c.subscribersMu.Lock()
	defer c.subscribersMu.Unlock()
	c.subscribers = append(c.subscribers[:len(c.subscribers):len(c.subscribers)], s)
	return func() {
		c.subscribersMu.Lock()
		defer c.subscribersMu.Unlock()
		kept := make([]*subscriber, 0, len(c.subscribers))
		for _, have := range c.subscribers {
			if have != s {
				kept = append(kept, have)
			}
		}
		c.subscribers = kept
	}
}

// Close lets the change that is under way finish, then closes the store.
// Images stay readable.
func (c *Catalog) Close() error {
	var err error
	c.stopOnce.Do(func() {
		close(c.stop)
		<-c.done
		err = c.store.close()
	})
	return err
}

// write is the one writer. It ends when Close is called.
func (c *Catalog) write() {
	defer close(c.done)
	for {
		select {
		case <-c.stop: // before any proposal that also waits
			return
		default:
		}
		select {
		case <-c.stop:
			return
		case p := <-c.proposals:
			res, err := c.execute(p.cmd)
			p.answer <- answer{res, err}
			c.store.tidy()
		}
	}
}

// execute applies one command, stores what it changed, publishes the image and
// tells the subscribers.
func (c *Catalog) execute(cmd Command) (Result, error) {
	if failed := c.failure.Load(); failed != nil {
		return Result{}, fmt.Errorf("%w: %w", ErrFailed, *failed)
	}
	old := c.Image()
	res, err := Apply(old, cmd)
	if err != nil || res.Image == old {
		return res, err
	}
	if err := c.store.save(old, res.Image); err != nil {
		if errors.Is(err, ErrTooLarge) || errors.Is(err, ErrNoSpace) {
			return Result{}, err
		}
		c.failure.Store(&err)
		c.log.Error("catalog refuses changes from now on", "error", err)
		return Result{}, fmt.Errorf("%w: %w", ErrFailed, err)
	}
	c.image.Store(res.Image)
	c.subscribersMu.Lock()
	subscribers := c.subscribers
	c.subscribersMu.Unlock()
	for _, s := range subscribers {
		s.fn(old, res.Image)
	}
	return res, nil
}
