package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/segment"
)

// TakenTopic is a topic that is taken over from elsewhere as it is: under its id, with its records at their offsets.
type TakenTopic struct {
	Name       string
	ID         catalog.TopicID
	Configs    map[string]string
	Partitions []TakenPartition // the index is the partition's number
}

// TakenPartition is one partition of a [TakenTopic].
type TakenPartition struct {
	Start, End int64 // log start offset and log end offset
	First      int64 // base offset of the first batch, End when there is none
	Epoch      int32 // the latest leader epoch that anybody knows, -1 for none: the next one is this node's
	// Batches gives the records in order; nil when there are none. It is called by one goroutine at a time.
	Batches BatchSource
}

// BatchSource gives record batches in the order of their offsets.
type BatchSource interface {
	// NextBatches appends whole batches to buf: as many as fit its capacity, but at least one. io.EOF behind the last.
	NextBatches(buf []byte) ([]byte, error)
}

const (
	// takenBytes is how much is appended at a time.
	takenBytes = 1 << 20
	// takenAhead is how many such pieces of one partition are read while others are being written.
	takenAhead = 3
	// takenAtOnce is how many partitions of a topic are filled side by side.
	takenAtOnce = 4
)

// TakeOver brings a topic into being together with its records. All of them are on the disk before the catalogue hears of the topic,
// so it is there as a whole or not at all; what a failure or a crash leaves is removed by the next Open whose
// [Options.Adopt] knows the topic's id, and set aside by any other. It blocks on the disk, as long as there are records. Errors: those of Create, those of the
// sources, ErrExists and others of the logs.
func (e *Engine) TakeOver(ctx context.Context, topic TakenTopic) error {
	plan, err := e.planTaken(topic)
	if err != nil {
		return err
	}
	logs := make([]*segment.Log, len(topic.Partitions))
	group, filling := errgroup.WithContext(ctx)
	group.SetLimit(takenAtOnce)
	for i := range topic.Partitions {
		group.Go(func() (err error) {
			if logs[i], err = e.fill(ctx, filling, plan, &topic.Partitions[i], int32(i)); err != nil {
				return fmt.Errorf("partition %s-%d: %w", topic.Name, i, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return errors.Join(err, e.discardTaken(ctx, logs))
	}
	result, err := e.catalog.Propose(ctx, catalog.CreateTopics{Topics: []catalog.NewTopic{plan}})
	switch {
	case err == nil:
		err = result.Errors[0]
	case !errors.Is(err, catalog.ErrTooLarge) && !errors.Is(err, catalog.ErrNoSpace):
		return err // it may still come into being
	}
	if err != nil {
		return errors.Join(proposalError(err), e.discardTaken(ctx, logs))
	}
	return nil
}

// planTaken judges a topic and places it.
func (e *Engine) planTaken(topic TakenTopic) (catalog.NewTopic, error) {
	plan := catalog.NewTopic{Name: topic.Name, ID: topic.ID, Configs: topic.Configs}
	image := e.catalog.Image()
	if err := CheckTopicName(topic.Name); err != nil {
		return plan, err
	}
	if image.Topic(topic.Name) != nil {
		return plan, topicExists(topic.Name)
	}
	if other := image.TopicByID(topic.ID); other != nil {
		return plan, refuse(ErrTopicExists, fmt.Sprintf("Topic '%s' has the id %s already.", other.Name, topic.ID))
	}
	if other := collision(image, topic.Name); other != nil {
		return plan, refuse(ErrInvalidTopicName, fmt.Sprintf("Topic '%s' collides with existing topic: %s", topic.Name, other.Name))
	}
	if err := e.Config().ValidateTopic(topic.Configs); err != nil {
		return plan, refuse(ErrInvalidConfig, err.Error())
	}
	for _, p := range topic.Partitions {
		if p.Start < 0 || p.Start > p.End || p.First > p.End {
			return plan, fmt.Errorf("%w: log start offset %d, first batch at %d, log end offset %d", ErrInvalidRequest, p.Start, p.First, p.End)
		}
		placed := partitionOn(image, []int32{e.NodeID()})
		placed.LeaderEpoch = p.Epoch + 1
		plan.Partitions = append(plan.Partitions, placed)
	}
	e.Topics().chooseDirs(plan.Partitions)
	return plan, nil
}

// fill makes the log of a partition and everything in it, unless filling ends. The log comes with an error, too, when it is there.
func (e *Engine) fill(ctx, filling context.Context, plan catalog.NewTopic, p *TakenPartition, index int32) (*segment.Log, error) {
	if p.End == 0 {
		return nil, nil // it has no files before its first append
	}
	d := e.dirs[0]
	if id := plan.Partitions[index].Dir(e.NodeID()); id != (catalog.DirID{}) {
		d = e.usable(id)
	}
	if d == nil {
		return nil, ErrDirOffline
	}
	cfg, err := e.Config().Topic(plan.Configs)
	if err != nil {
		return nil, err
	}
	start, next := p.Start, min(p.Start, p.First)
	if p.Batches == nil || p.First >= p.End {
		start, next = p.End, p.End // without records nothing but this says where the next one belongs
	}
	id := segment.LogID{Topic: plan.Name, TopicID: plan.ID, Partition: index}
	begun := logConfig(plan.Name, &cfg, e.Config())
	begun.DeleteDelay = 0 // nobody reads it before the topic is there
	l, err := d.dir.Begin(ctx, id, begun, start, next)
	if err != nil {
		return nil, err
	}
	if next < p.End {
		if err := pour(filling, d.dir, l, p.Batches); err != nil {
			return l, err
		}
	}
	return l, l.EndAt(filling, p.End)
}

// pour appends all that a source has to a log.
func pour(ctx context.Context, d *segment.Dir, l *segment.Log, source BatchSource) error {
	type poured struct {
		buf []byte
		err error
	}
	back := make(chan poured, takenAhead)
	for range takenAhead {
		back <- poured{make([]byte, 0, takenBytes), nil}
	}
	stalled := d.StallContext()
	wait := func() (poured, error) {
		select {
		case p := <-back:
			return p, p.err
		case <-stalled.Done():
			return poured{}, fmt.Errorf("%w: %w", segment.ErrStalled, context.Cause(stalled))
		case <-ctx.Done():
			return poured{}, context.Cause(ctx)
		}
	}
	for {
		p, err := wait()
		if err != nil {
			return err
		}
		batches, err := source.NextBatches(p.buf[:0])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		err = l.Append(ctx, &segment.Append{Batches: batches, Keep: true, Done: func(r segment.Result) { back <- poured{batches, r.Err} }})
		if err != nil {
			return err
		}
	}
	for range takenAhead - 1 { // the one that was taken last stays out
		if _, err := wait(); err != nil {
			return err
		}
	}
	return nil
}

// discardPatience bounds the removal of what a failed takeover has left.
const discardPatience = 30 * time.Second

// discardTaken removes the logs of a topic that does not come into being, even when ctx has ended.
func (e *Engine) discardTaken(ctx context.Context, logs []*segment.Log) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), discardPatience)
	defer cancel()
	var errs []error
	for _, l := range logs {
		if l == nil {
			continue
		}
		if err := l.Discard(ctx); err != nil {
			errs = append(errs, fmt.Errorf("what there is of %s cannot be removed: %w", l.ID(), err))
		}
	}
	return errors.Join(errs...)
}

// ReserveProducerIDs has this node give out no producer id below one: those are known to logs that
// were taken over, as others' than whoever asks next.
func (e *Engine) ReserveProducerIDs(ctx context.Context, below int64) error {
	missing := below - e.catalog.Image().NextProducerID()
	if missing <= 0 {
		return nil
	}
	result, err := e.catalog.Propose(ctx, catalog.AllocateProducerIDs{BrokerID: e.NodeID(), Count: missing})
	if err != nil {
		return err
	}
	return result.Errors[0]
}

// dropUnfinished removes what a takeover that was cut short has left in folders that
// an open without Adopt has set aside since.
func (e *Engine) dropUnfinished() error {
	if e.options.Adopt == nil {
		return nil
	}
	for _, d := range e.dirs {
		if d.dir == nil {
			continue
		}
		folder := filepath.Join(d.path, segment.TopicsFolder)
		entries, err := e.options.FS.ReadDir(folder)
		if err != nil {
			return err
		}
		for _, entry := range entries {
			name, stray := strings.CutSuffix(entry.Name(), segment.StraySuffix)
			if id, ok := segment.ParseFolder(name); ok && stray && e.adopts(id.TopicID) {
				e.log.Info("removing what an import that was cut short has left", "folder", entry.Name(), "dir", d.path)
				if err := e.options.FS.RemoveAll(filepath.Join(folder, entry.Name())); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// adopts tells whether what there is of a topic without the catalogue knowing it may be removed.
func (e *Engine) adopts(id [16]byte) bool {
	return e.options.Adopt != nil && e.options.Adopt(id) && e.catalog.Image().TopicByID(id) == nil
}
