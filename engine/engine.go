package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
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
	Config *config.Broker // one of its log directories holds the catalogue, the first when there is none yet
	Now    func() time.Time
	Logger *slog.Logger
	// OpenFiles is how many log files may stay open while nobody uses them; 0 takes the default.
	OpenFiles int
	// Metrics is told what the engine measures; the zero value measures nothing.
	Metrics Metrics
	// Cluster makes this node one of several; nil when it is alone.
	Cluster Cluster
	// Adopt tells of a topic that the catalogue does not know whether [Engine.TakeOver] is about to make it: what an earlier
	// one has left is removed. nil: none is.
	Adopt func(id catalog.TopicID) bool
}

// Engine is everything that this node stores: the catalogue and the partitions.
// All methods may be called concurrently.
type Engine struct {
	options    Options
	log        *slog.Logger
	dirs       logDirs // the first has the catalogue
	catalog    Metadata
	groups     *coordinator.Coordinator
	disk       *MetadataDisk
	following  follower
	replicator Replicator
	onStall    atomic.Pointer[func()]
	stop       func() // ends the subscription to the catalogue
	gauge      *gauge
	mover      *mover
	closing    sync.Once

	config     atomic.Pointer[config.Broker] // static and dynamic settings
	partitions sync.Map                      // catalog.TopicID → []*Partition, never changed once stored
	place      placement                     // of the partitions that were there at the start
}

// Open locks the log directories, opens catalogue and logs side by side, and
// readies every partition. It blocks until all are recovered, or ctx ends.
func Open(ctx context.Context, o Options) (*Engine, error) {
	e := &Engine{options: o, log: o.Logger, gauge: newGauge(&o.Metrics)}
	e.config.Store(o.Config)
	e.mover = newMover(e)
	if err := e.open(ctx); err != nil {
		return nil, errors.Join(err, e.Close(context.WithoutCancel(ctx)))
	}
	return e, nil
}

func (e *Engine) open(ctx context.Context) error {
	if err := e.lockDirs(ctx); err != nil {
		return err
	}
	var group errgroup.Group
	group.Go(func() (err error) {
		e.catalog, err = e.openMetadata(ctx)
		return err
	})
	for _, d := range e.dirs {
		if d.fault == nil {
			group.Go(func() error { return e.openDir(ctx, d) })
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	e.sayOffline()
	return e.reconcile()
}

// reconcile makes the partitions of the catalogue, and sets aside the folders of
// logs that it does not know.
func (e *Engine) reconcile() error {
	image := e.catalog.Image()
	e.following.seen = image
	if err := e.applyBrokerConfig(image); err != nil {
		return err
	}
	e.replicator = Solo{}
	if e.options.Cluster != nil {
		e.replicator = e.options.Cluster.Start(e)
	}
	var err error
	if e.place, err = e.look(image); err != nil {
		return err
	}
	if err := e.dropUnfinished(); err != nil {
		return err
	}
	for _, topic := range image.Topics() {
		if err := e.addPartitions(topic); err != nil {
			return err
		}
	}
	e.openGroups(image)
	e.mover.resume(image)
	e.stop = e.catalog.Subscribe(func(old, image *catalog.Image) { e.following.since(old, image, e.follow) })
	e.following.since(nil, e.catalog.Image(), e.follow)
	return nil
}

// follow makes what has changed in the catalogue true here. It runs on the
// catalogue's goroutine and touches no disk.
func (e *Engine) follow(image *catalog.Image) {
	groups := false // what changes where groups are kept
	for _, event := range image.Events() {
		var err error
		switch event.Kind {
		case catalog.TopicCreated, catalog.PartitionsAdded:
			err = e.addPartitions(image.TopicByID(event.Topic))
			groups = groups || event.Name == OffsetsTopic
		case catalog.PartitionChanged:
			err = e.changePartition(image.TopicByID(event.Topic), event.Partition)
			groups = groups || event.Name == OffsetsTopic
		case catalog.TopicDeleted:
			e.removePartitions(event.Topic)
			if event.Name == OffsetsTopic {
				e.groups.OffsetsTopicDeleted()
			}
			e.groups.TopicsDeleted([]group.DeletedTopic{{Name: event.Name, ID: event.Topic}})
		case catalog.DirAssigned:
			e.followMove(image.TopicByID(event.Topic), event.Partition)
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
	if groups { // not before all partitions have their roles: who is to load one would find that another leads
		e.leadGroups(image.Topic(OffsetsTopic))
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
		if !roleOf(&topic.Partitions[i], e.NodeID()).Replica {
			continue
		}
		if all[i], err = e.newPartition(topic, int32(i), &cfg); err != nil {
			return err
		}
	}
	e.partitions.Store(topic.ID, all)
	return nil
}

// changePartition makes true here what the catalogue says about who leads and holds a partition.
func (e *Engine) changePartition(topic *catalog.Topic, index int32) error {
	if topic == nil {
		return nil // deleted by the same command
	}
	all := e.partitionsOf(topic.ID)
	if int(index) >= len(all) {
		return e.addPartitions(topic) // could not be followed before, and is as it should be then
	}
	p, role := all[index], roleOf(&topic.Partitions[index], e.NodeID())
	switch {
	case p == nil && !role.Replica:
		return nil
	case p != nil && role.Replica:
		if p.offline == nil {
			p.assume(role)
		}
		return nil
	}
	changed := slices.Clone(all)
	changed[index] = nil
	if role.Replica {
		cfg, err := e.Config().Topic(topic.Configs)
		if err != nil {
			return fmt.Errorf("topic %s: %w", topic.Name, err)
		}
		if changed[index], err = e.newPartition(topic, index, &cfg); err != nil {
			return err
		}
	}
	e.partitions.Store(topic.ID, changed)
	if p != nil {
		e.removePartition(p)
	}
	return nil
}

func (e *Engine) newPartition(topic *catalog.Topic, index int32, cfg *config.Topic) (*Partition, error) {
	id := segment.LogID{Topic: topic.Name, TopicID: topic.ID, Partition: index}
	placed := &topic.Partitions[index]
	p := &Partition{
		topicID: topic.ID, topic: topic.Name, index: index, name: id.String(),
		internal: IsInternal(topic.Name), now: e.options.Now, gauge: e.gauge, replicator: e.replicator,
	}
	var d *logDir
	if d, p.offline = e.place.of(topic, index, e.NodeID()); p.offline != nil {
		return p, nil
	}
	d.placed.Add(1)
	l, err := d.dir.Log(id, logConfig(topic.Name, cfg, e.Config()))
	if err != nil {
		return nil, fmt.Errorf("partition %s: %w", id, err)
	}
	p.at.Store(&place{d, l})
	p.config.Store(cfg)
	if len(placed.Replicas) == 1 {
		p.highWatermark.Store(l.LogEndOffset()) // recovery has synced it, and there is no other replica
	} else {
		p.highWatermark.Store(l.LogStartOffset()) // until the others say how far they are
	}
	p.growIn(l)
	p.assume(roleOf(placed, e.NodeID()))
	return p, nil
}

// growIn makes l the log that the partition grows in.
func (p *Partition) growIn(l *segment.Log) {
	l.KeepFrom(p.HighWatermark)
	l.OnAdvance(func(end int64) { p.replicator.Appended(p, end) })
}

func (e *Engine) removePartitions(id catalog.TopicID) {
	all := e.partitionsOf(id)
	e.partitions.Delete(id)
	for _, p := range all {
		if p != nil {
			e.removePartition(p)
		}
	}
}

func (e *Engine) removePartition(p *Partition) {
	p.gone.Store(true)
	if p.offline != nil {
		return // its folder belongs to no topic when the directory comes back
	}
	e.replicator.Removed(p)
	p.commits.lead(false)
	at := p.at.Load()
	at.dir.placed.Add(-1)
	at.log.Delete()
	p.watchers.wake()
	e.mover.want(p, catalog.DirID{})
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
		if p == nil || p.offline != nil {
			continue
		}
		p.config.Store(&cfg)
		p.at.Load().log.SetConfig(logConfig(topic.Name, &cfg, e.Config()))
		p.replicator.Changed(p, p.Role()) // min.insync.replicas counts for what is committed
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

// dataDir is the directory with the catalogue.
func (e *Engine) dataDir() string { return e.dirs[0].path }

// Partition finds a partition of which a replica lives here. ErrNotHere when there is none,
// ErrDirOffline when its log directory cannot be used.
func (e *Engine) Partition(id catalog.TopicID, index int32) (*Partition, error) {
	all := e.partitionsOf(id)
	if index < 0 || int(index) >= len(all) || all[index] == nil {
		return nil, ErrNotHere
	}
	if p := all[index]; p.offline == nil {
		return p, nil
	}
	return nil, all[index].offline
}

// Offline tells whether a partition cannot be served since its log directory cannot be used.
func (e *Engine) Offline(id catalog.TopicID, index int32) bool {
	_, err := e.Partition(id, index)
	return errors.Is(err, ErrDirOffline)
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
func (e *Engine) Catalog() Metadata { return e.catalog }

// Config is the broker's configuration in force, dynamic settings included.
func (e *Engine) Config() *config.Broker { return e.config.Load() }

// ClusterID is the identity of the cluster that the data directory belongs to.
func (e *Engine) ClusterID() string { return e.dirs[0].meta.ClusterID }

// NodeID is the identity of this node.
func (e *Engine) NodeID() int32 { return e.options.Config.NodeID }

// Clustered tells whether this node is one of several.
func (e *Engine) Clustered() bool { return e.options.Cluster != nil }

// Controller is the node to which clients best send changes: the one that decides about them, when it is known and can be
// reached, else this one. Any node takes them. It does not block.
func (e *Engine) Controller(image *catalog.Image) int32 {
	if l, tells := e.catalog.(LeaderTeller); tells {
		if id, known := l.Leader(); known {
			if b, registered := image.Broker(id); registered && !b.Fenced {
				return id
			}
		}
	}
	return e.NodeID()
}

// Quorum tells who carries the metadata; nil when this node is alone or cannot tell.
func (e *Engine) Quorum() QuorumTeller {
	q, _ := e.catalog.(QuorumTeller)
	return q
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
	go func() {
		err := e.catalog.Close()
		if e.disk != nil {
			err = errors.Join(err, e.disk.Close())
		}
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("close the catalogue: %w", ctx.Err())
	}
}

func (e *Engine) closeAll(ctx context.Context) error {
	errs := []error{e.mover.close(ctx)}
	if e.groups != nil {
		errs = append(errs, e.groups.Close(ctx))
	}
	if e.stop != nil {
		e.stop()
	}
	errs = append(errs, e.closeDirs(ctx))
	if e.catalog != nil {
		errs = append(errs, e.closeCatalog(ctx))
	}
	err := errors.Join(errs...)
	if err == nil || ctx.Err() == nil {
		// Otherwise something may still be writing, and the locks stay until the process ends.
		err = errors.Join(err, e.unlockDirs())
	}
	return err
}
