package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/engine/coordinator"
	"github.com/millrace/millrace/engine/group"
	"github.com/millrace/millrace/segment"
)

// OffsetsTopic is the internal topic in which consumer groups are kept.
const OffsetsTopic = "__consumer_offsets"

// IsInternal tells whether a topic is the broker's own.
func IsInternal(topic string) bool { return topic == OffsetsTopic || topic == "__transaction_state" }

// Groups is the coordinator of the consumer groups that are kept on this node.
func (e *Engine) Groups() *coordinator.Coordinator { return e.groups }

// openGroups begins with the roles of image.
func (e *Engine) openGroups(image *catalog.Image) {
	cfg := e.Config()
	groups := group.DefaultConfig()
	groups.MaxSize = cfg.GroupMaxSize
	groups.InitialRebalanceDelay = cfg.GroupInitialRebalanceDelay
	groups.MinSessionTimeout = cfg.GroupMinSessionTimeout
	groups.MaxSessionTimeout = cfg.GroupMaxSessionTimeout
	groups.OffsetMetadataMaxBytes = cfg.OffsetMetadataMaxBytes
	groups.OffsetsRetention = cfg.OffsetsRetention
	groups.RetentionCheckInterval = cfg.OffsetsRetentionCheck
	e.groups = coordinator.New(coordinator.Options{
		Topics: offsetsTopics{e}, Groups: groups, CommitTimeout: cfg.OffsetsCommitTimeout,
		Stall: e.offsetsStall, Now: e.options.Now, NewID: uuid.NewString, Logger: e.log,
	})
	e.groups.Open()
	e.leadGroups(image.Topic(OffsetsTopic))
}

// leadGroups tells the coordinator which partitions of __consumer_offsets there are and which of them this node leads. It
// may be told again; it runs on the catalogue's goroutine and touches no disk.
func (e *Engine) leadGroups(topic *catalog.Topic) {
	if topic == nil {
		return
	}
	e.groups.TopicCreated(int32(len(topic.Partitions)))
	for i, p := range topic.Partitions {
		if p.Leader == e.NodeID() {
			e.groups.Elected(int32(i), p.LeaderEpoch)
		} else {
			e.groups.Resigned(int32(i), p.LeaderEpoch)
		}
	}
}

// offsetsStall ends while the disk of a partition of __consumer_offsets does not answer.
func (e *Engine) offsetsStall(partition int32) context.Context {
	if topic := e.Image().Topic(OffsetsTopic); topic != nil {
		if p, err := e.Partition(topic.ID, partition); err == nil {
			return p.at.Load().dir.dir.StallContext()
		}
	}
	return context.Background()
}

// offsetsTopics is the coordinator's door to the catalogue.
type offsetsTopics struct{ e *Engine }

func (o offsetsTopics) EnsureOffsetsTopic(ctx context.Context) error {
	if o.e.Image().Topic(OffsetsTopic) != nil {
		return nil
	}
	created := o.e.Topics().AutoCreate(ctx, []string{OffsetsTopic})
	if err := created[0].Err; err != nil && !errors.Is(err, ErrTopicExists) {
		return fmt.Errorf("create %s: %w", OffsetsTopic, err)
	}
	return nil
}

func (o offsetsTopics) OffsetsLog(partition, epoch int32) coordinator.Log {
	topic := o.e.Image().Topic(OffsetsTopic)
	if topic == nil {
		return nil
	}
	p, err := o.e.Partition(topic.ID, partition)
	if err != nil {
		return nil
	}
	return offsetsLog{p, epoch}
}

func (o offsetsTopics) TopicID(name string) ([16]byte, bool) {
	if topic := o.e.Image().Topic(name); topic != nil {
		return topic.ID, true
	}
	return [16]byte{}, false
}

// offsetsLog is one leadership of a partition of __consumer_offsets as the coordinator sees it.
type offsetsLog struct {
	*Partition
	epoch int32
}

func (l offsetsLog) Append(ctx context.Context, b []byte, done func(base, last int64, err error)) error {
	if limit := min(l.Config().MaxMessageBytes, l.Config().SegmentBytes); len(b) > limit {
		return fmt.Errorf("%w: %d of at most %d bytes", coordinator.ErrTooLarge, len(b), limit)
	}
	if err := l.leads(); err != nil {
		return err
	}
	return appendError(l.appendCommitted(ctx, l.epoch, b, func(r segment.Result) { done(r.BaseOffset, r.LastOffset, appendError(r.Err)) }))
}

// leads is nil while the leadership lasts.
func (l offsetsLog) leads() error {
	if now := l.LeaderEpoch(); now != l.epoch {
		return fmt.Errorf("%w: epoch %d is over, it is %d", coordinator.ErrNotLeader, l.epoch, now)
	}
	return nil
}

// appendErrors are the words of the coordinator for what an append says; a failure of the disk needs none.
var appendErrors = []struct{ is, told error }{
	{ErrNotHere, coordinator.ErrNotLeader},
	{ErrUnknownPartition, coordinator.ErrNoPartition},
	{ErrNotEnoughReplicas, coordinator.ErrNotEnoughReplicas},
	{ErrNotEnoughReplicasAfterAppend, coordinator.ErrNotEnoughReplicas},
	{segment.ErrStaleEpoch, coordinator.ErrNotLeader},
	{segment.ErrClosed, coordinator.ErrNotLeader},
	{segment.ErrDeleted, coordinator.ErrNoPartition},
	{segment.ErrQueueFull, coordinator.ErrTimedOut},
	{segment.ErrTooLarge, coordinator.ErrTooLarge},
}

func appendError(err error) error {
	if err == nil {
		return nil
	}
	for _, e := range appendErrors {
		if errors.Is(err, e.is) {
			return fmt.Errorf("%w: %w", e.told, err)
		}
	}
	return err
}

func (l offsetsLog) WaitCommitted(ctx context.Context, offset int64) error {
	w := NewWaiter()
	l.Watch(w)
	defer l.Unwatch(w)
	for l.HighWatermark() < offset {
		switch {
		case l.Gone():
			return coordinator.ErrNoPartition
		case l.leads() != nil:
			return l.leads()
		}
		select {
		case <-w.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (l offsetsLog) Read(from int64, maxBytes int) ([]byte, error) {
	return l.Partition.Read(nil, from, maxBytes, true)
}

// deleteTimeout bounds how long the coordinator waits for a log start offset to move.
const deleteTimeout = 30 * time.Second

func (l offsetsLog) DeleteRecordsBefore(offset int64) error {
	if err := l.leads(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), deleteTimeout)
	defer cancel()
	_, err := l.deleteRecordsBefore(ctx, offset)
	return err
}
