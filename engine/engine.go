package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/engine/config"
	"github.com/millrace/millrace/engine/coordinator"
	"github.com/millrace/millrace/engine/group"
	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/vfs"
)

// Options says how to open an engine.
type Options struct {
	FS     vfs.FS
	Config *config.Broker // its first log directory is the data directory
	Now    func() time.Time
	Logger *slog.Logger
	// OpenFiles is how many log files may stay open while nobody uses them; 0 takes the default.
	OpenFiles int
	// Metrics is told what the engine measures; the zero value measures nothing.
	Metrics Metrics
}

// Engine is everything that this node stores: the catalogue and the partitions.
// All methods may be called concurrently.
type Engine struct {
	options Options
	log     *slog.Logger
	meta    meta
	lock    io.Closer
	catalog *catalog.Catalog
	dir     *segment.Dir
	groups  *coordinator.Coordinator
	disk    *catalogDisk
	onStall atomic.Pointer[func()]
	stop    func() // ends the subscription to the catalogue
	gauge   *gauge
	closing sync.Once

	config     atomic.Pointer[config.Broker] // static and dynamic settings
	partitions sync.Map                      // catalog.TopicID → []*Partition, never changed once stored
}

// Open locks the data directory, opens catalogue and logs side by side, and
// readies every partition. It blocks until all are recovered, or ctx ends.
func Open(ctx context.Context, o Options) (*Engine, error) {
	e := &Engine{options: o, log: o.Logger, gauge: newGauge(&o.Metrics)}
	e.config.Store(o.Config)
	if err := e.open(ctx); err != nil {
		return nil, errors.Join(err, e.Close(context.WithoutCancel(ctx)))
	}
	return e, nil
}

func (e *Engine) open(ctx context.Context) error {
	fs, data := e.options.FS, e.dataDir()
	if err := vfs.MkdirAllDurable(fs, data, 0o755); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	var err error
	if e.lock, err = fs.Lock(filepath.Join(data, lockFile)); err != nil {
		if errors.Is(err, vfs.ErrLocked) {
			return fmt.Errorf("%w: %s", ErrDirectoryInUse, data)
		}
		return fmt.Errorf("lock data directory: %w", err)
	}
	if e.meta, err = loadMeta(fs, data, e.options.Config.NodeID); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	limit := e.options.Config.LogDirStallTimeout
	e.disk = newCatalogDisk(fs, e.options.Now, limit, e.log)
	var group errgroup.Group
	group.Go(func() (err error) {
		e.catalog, err = catalog.Open(catalog.Options{
			Dir: filepath.Join(data, "catalog"), ClusterID: e.meta.ClusterID, Disk: e.disk, Logger: e.log,
			Metrics: e.options.Metrics.Catalog,
		})
		return err
	})
	group.Go(func() (err error) {
		e.dir, err = segment.OpenDir(ctx, segment.DirOptions{
			TailBytes: e.options.Config.LogTailBytes, StallTimeout: limit, Stalled: e.tellStall,
			FS: fs, Path: data, Now: e.options.Now, Logger: e.log, OpenFiles: e.options.OpenFiles, Jitter: rand.Int64N,
			RetentionInterval: e.options.Config.RetentionCheckInterval, RetentionDelay: e.options.Config.InitialTaskDelay,
			Metrics: &e.options.Metrics.Log,
		})
		return err
	})
	if err := group.Wait(); err != nil {
		return err
	}
	return e.reconcile()
}

// reconcile makes the partitions of the catalogue, and sets aside the folders of
// logs that it does not know.
func (e *Engine) reconcile() error {
	image := e.catalog.Image()
	if err := e.applyBrokerConfig(image); err != nil {
		return err
	}
	for _, id := range e.dir.Found() {
		topic := image.TopicByID(id.TopicID)
		if topic != nil && int(id.Partition) < len(topic.Partitions) {
			continue
		}
		l, err := e.dir.Log(id, segment.DefaultLogConfig())
		if err != nil {
			return err
		}
		e.log.Warn("a partition's folder belongs to no topic that the catalogue knows: it is set aside, not removed",
			"partition", id.String(), "topicID", catalog.TopicID(id.TopicID).String())
		if err := l.Quarantine(); err != nil {
			e.log.Error("the folder cannot be set aside: it stays as it is, and nothing uses it", "partition", id.String(), "error", err)
		}
	}
	for _, topic := range image.Topics() {
		if err := e.addPartitions(topic); err != nil {
			return err
		}
	}
	e.openGroups()
	e.stop = e.catalog.Subscribe(e.follow)
	return nil
}

// follow makes what has changed in the catalogue true here. It runs on the
// catalogue's goroutine and touches no disk.
func (e *Engine) follow(_, image *catalog.Image) {
	for _, event := range image.Events() {
		var err error
		switch event.Kind {
		case catalog.TopicCreated, catalog.PartitionsAdded:
			err = e.addPartitions(image.TopicByID(event.Topic))
		case catalog.TopicDeleted:
			e.removePartitions(event.Topic)
			e.groups.TopicsDeleted([]group.DeletedTopic{{Name: event.Name, ID: event.Topic}})
		case catalog.ConfigsChanged:
			switch event.Type {
			case catalog.ResourceTopic:
				err = e.applyTopicConfig(image.Topic(event.Name))
			case catalog.ResourceBroker:
				err = e.applyBrokerConfig(image)
			}
		}
		if err != nil {
			e.log.Error("a change of the catalogue cannot be followed", "topic", event.Name, "error", err)
		}
	}
}

// addPartitions makes those partitions of a topic that are not here yet.
func (e *Engine) addPartitions(topic *catalog.Topic) error {
	if topic == nil {
		return nil // created and deleted by one command
	}
	cfg, err := e.Config().Topic(topic.Configs)
	if err != nil {
		return fmt.Errorf("topic %s: %w", topic.Name, err)
	}
	known := e.partitionsOf(topic.ID)
	all := append(known[:len(known):len(known)], make([]*Partition, len(topic.Partitions)-len(known))...)
	for i := len(known); i < len(all); i++ {
		if all[i], err = e.newPartition(topic, int32(i), &cfg); err != nil {
			return err
		}
	}
	e.partitions.Store(topic.ID, all)
	return nil
}

func (e *Engine) newPartition(topic *catalog.Topic, index int32, cfg *config.Topic) (*Partition, error) {
	id := segment.LogID{Topic: topic.Name, TopicID: topic.ID, Partition: index}
	l, err := e.dir.Log(id, logConfig(topic.Name, cfg, e.Config()))
	if err != nil {
		return nil, fmt.Errorf("partition %s: %w", id, err)
	}
	placed := topic.Partitions[index]
	p := &Partition{
		topicID: topic.ID, topic: topic.Name, index: index, name: id.String(),
		internal: IsInternal(topic.Name), now: e.options.Now, gauge: e.gauge, log: l, replicator: Solo{},
	}
	p.config.Store(cfg)
	p.epoch.Store(placed.LeaderEpoch)
	p.inSync.Store(int32(len(placed.ISR)))
	p.highWatermark.Store(l.LogEndOffset()) // recovery has synced it, and there is no other replica
	l.KeepFrom(p.HighWatermark)
	l.OnAdvance(func(end int64) { p.replicator.Appended(p, end) })
	return p, nil
}

func (e *Engine) removePartitions(id catalog.TopicID) {
	all := e.partitionsOf(id)
	e.partitions.Delete(id)
	for _, p := range all {
		p.gone.Store(true)
		p.log.Delete()
		p.watchers.wake()
	}
}

func (e *Engine) applyTopicConfig(topic *catalog.Topic) error {
	if topic == nil {
		return nil
	}
	cfg, err := e.Config().Topic(topic.Configs)
	if err != nil {
		return fmt.Errorf("topic %s: %w", topic.Name, err)
	}
	for _, p := range e.partitionsOf(topic.ID) {
		p.config.Store(&cfg)
		p.log.SetConfig(logConfig(topic.Name, &cfg, e.Config()))
	}
	return nil
}

// applyBrokerConfig lays the dynamic settings over the static ones; every topic
// may inherit from them.
func (e *Engine) applyBrokerConfig(image *catalog.Image) error {
	own := strconv.Itoa(int(e.options.Config.NodeID))
	cfg, err := e.options.Config.WithDynamic(image.Config(catalog.ResourceBroker, own), image.Config(catalog.ResourceBroker, ""))
	if err != nil {
		return fmt.Errorf("dynamic broker configuration: %w", err)
	}
	e.config.Store(cfg)
	for _, topic := range image.Topics() {
		err = errors.Join(err, e.applyTopicConfig(topic))
	}
	return err
}

func logConfig(topic string, cfg *config.Topic, broker *config.Broker) segment.LogConfig {
	c := segment.DefaultLogConfig()
	c.SegmentBytes = int64(cfg.SegmentBytes)
	c.SegmentAge = config.Millis(cfg.SegmentMs)
	c.SegmentJitter = config.Millis(cfg.SegmentJitterMs)
	c.IndexIntervalBytes = cfg.IndexIntervalBytes
	c.IndexBytes = cfg.SegmentIndexBytes
	c.FlushMessages, c.FlushAfter = cfg.FlushMessages, config.Millis(cfg.FlushMs)
	c.ProducerExpiration = broker.ProducerIDExpiration
	c.DeleteDelay = config.Millis(cfg.FileDeleteDelayMs)
	if cfg.CleanupDelete {
		c.Retention, c.RetentionBytes = config.Millis(cfg.RetentionMs), cfg.RetentionBytes
	}
	if IsInternal(topic) {
		// Their writers are few and known, and cannot be held up by clients' data; but never without a bound.
		c.QueueBytes *= 10
	}
	return c
}

func (e *Engine) dataDir() string { return e.options.Config.LogDirs[0] }

// Partition finds a partition that lives here, nil when there is none.
func (e *Engine) Partition(id catalog.TopicID, index int32) *Partition {
	if all := e.partitionsOf(id); index >= 0 && int(index) < len(all) {
		return all[index]
	}
	return nil
}

func (e *Engine) partitionsOf(id catalog.TopicID) []*Partition {
	if all, ok := e.partitions.Load(id); ok {
		return all.([]*Partition)
	}
	return nil
}

// Image is the catalogue's state now. Hold one for the length of a request.
func (e *Engine) Image() *catalog.Image { return e.catalog.Image() }

// Catalog is where changes are proposed.
func (e *Engine) Catalog() *catalog.Catalog { return e.catalog }

// Config is the broker's configuration in force, dynamic settings included.
func (e *Engine) Config() *config.Broker { return e.config.Load() }

// ClusterID is the identity of the cluster that the data directory belongs to.
func (e *Engine) ClusterID() string { return e.meta.ClusterID }

// NodeID is the identity of this node.
func (e *Engine) NodeID() int32 { return e.meta.NodeID }

// LogDir describes a log directory for DescribeLogDirs.
type LogDir struct {
	Path       string
	TotalBytes int64 // -1: unknown
	FreeBytes  int64 // -1: unknown
	Err        error // what has fenced it, nil while it accepts appends
}

// LogDirs describes the log directories. It asks the file system.
func (e *Engine) LogDirs() []LogDir {
	d := LogDir{Path: e.dir.Path(), TotalBytes: -1, FreeBytes: -1, Err: e.dir.Err()}
	if d.Err != nil {
		return []LogDir{d} // its disk may not answer
	}
	if free, total, err := e.dir.Space(); err == nil {
		d.FreeBytes, d.TotalBytes = int64(min(free, math.MaxInt64)), int64(min(total, math.MaxInt64))
	}
	return []LogDir{d}
}

// Close closes logs and catalogue; appends that are queued are committed first. When
// ctx ends before that, the next Open recovers as after a crash. Closing again
// does nothing.
func (e *Engine) Close(ctx context.Context) error {
	var err error
	e.closing.Do(func() { err = e.closeAll(ctx) })
	return err
}

// closeCatalog does not wait longer than ctx for a disk that hangs.
func (e *Engine) closeCatalog(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- errors.Join(e.catalog.Close(), e.disk.close()) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("close the catalogue: %w", ctx.Err())
	}
}

func (e *Engine) closeAll(ctx context.Context) error {
	var errs []error
	if e.groups != nil {
		errs = append(errs, e.groups.Close(ctx))
	}
	if e.stop != nil {
		e.stop()
	}
	if e.dir != nil {
		errs = append(errs, e.dir.Close(ctx))
	}
	if e.catalog != nil {
		errs = append(errs, e.closeCatalog(ctx))
	}
	err := errors.Join(errs...)
	if e.lock != nil && (err == nil || ctx.Err() == nil) {
		// Otherwise something may still be writing, and the lock stays until the process ends.
		err = errors.Join(err, e.lock.Close())
	}
	return err
}
