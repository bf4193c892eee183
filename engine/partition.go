package engine

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/engine/config"
	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/producer"
)

// Partition is one partition of which this node holds a replica. All methods may be called
// concurrently.
type Partition struct {
	topicID    catalog.TopicID
	topic      string
	index      int32
	name       string // TOPIC-INDEX
	internal   bool   // clients may not write
	now        func() time.Time
	gauge      *gauge
	offline    error // why its directory cannot be used; then it lies nowhere: at is nil
	replicator Replicator

	at            atomic.Pointer[place]         // where it lies; changed by the catalogue's goroutine alone
	future        atomic.Pointer[place]         // the copy that is to take its place, nil when there is none
	held          atomic.Pointer[chan struct{}] // closed when the log that is held for a move takes appends again, or another does
	config        atomic.Pointer[config.Topic]
	role          atomic.Pointer[Role] // changed by the catalogue's goroutine alone
	commits       commits
	highWatermark atomic.Int64
	gone          atomic.Bool
	watchers      watchers
}

// place is a log and the directory in which it lies. It is never changed.
type place struct {
	dir *logDir
	log *segment.Log
}

// Topic is the topic's name.
func (p *Partition) Topic() string { return p.topic }

// TopicID is the topic's id.
func (p *Partition) TopicID() catalog.TopicID { return p.topicID }

// Index is the partition's number within its topic.
func (p *Partition) Index() int32 { return p.index }

// Config is the topic's configuration in force.
func (p *Partition) Config() *config.Topic { return p.config.Load() }

// LogStartOffset is the first offset that can be read.
func (p *Partition) LogStartOffset() int64 { return p.at.Load().log.LogStartOffset() }

// LogEndOffset is the offset that follows the last durable record.
func (p *Partition) LogEndOffset() int64 { return p.at.Load().log.LogEndOffset() }

// HighWatermark is the end of what consumers may read.
func (p *Partition) HighWatermark() int64 { return p.highWatermark.Load() }

// LastStableOffset is the end of what a read-committed consumer may read: the
// high watermark, as there are no transactions.
func (p *Partition) LastStableOffset() int64 { return p.HighWatermark() }

// Name is TOPIC-INDEX.
func (p *Partition) Name() string { return p.name }

// Log is the partition's log: for those who copy it. It is another one when the partition has moved to another log directory.
func (p *Partition) Log() *segment.Log { return p.at.Load().log }

// SizeBytes is the length of the partition's log.
func (p *Partition) SizeBytes() int64 { return p.at.Load().log.SizeBytes() }

// LogDir is the path of the log directory in which the partition lies.
func (p *Partition) LogDir() string { return p.at.Load().dir.path }

// Stalled tells whether appends to the partition are refused since its disk does not answer.
func (p *Partition) Stalled() bool { return p.at.Load().dir.dir.Stalled() }

// SlowDisk is nil, or names the disk operation that keeps appends waiting for a second or
// longer: what to answer to a request whose time is up.
func (p *Partition) SlowDisk() error { return p.at.Load().dir.dir.Slow() }

// Gone tells whether the partition has been deleted; it wakes its watchers when
// that happens.
func (p *Partition) Gone() bool { return p.gone.Load() }

// AdvanceHighWatermark moves the high watermark up and tells who waits for that.
func (p *Partition) AdvanceHighWatermark(offset int64) {
	if p.RaiseHighWatermark(offset) {
		p.TellHighWatermark()
	}
}

// RaiseHighWatermark moves the high watermark up, and tells whether it was lower. Then TellHighWatermark is to follow. It calls nobody.
func (p *Partition) RaiseHighWatermark(offset int64) bool {
	for {
		old := p.highWatermark.Load()
		if offset <= old {
			return false
		}
		if p.highWatermark.CompareAndSwap(old, offset) {
			return true
		}
	}
}

// TellHighWatermark tells those who wait for the high watermark where it is.
func (p *Partition) TellHighWatermark() {
	p.commits.reached(p.HighWatermark())
	p.watchers.wake()
}

// LowerHighWatermark moves the high watermark of a follower down, if its log is to be made shorter than that.
func (p *Partition) LowerHighWatermark(offset int64) {
	for old := p.highWatermark.Load(); old > offset && !p.highWatermark.CompareAndSwap(old, offset); {
		old = p.highWatermark.Load()
	}
}

// Watch has w woken whenever the high watermark moves or the partition goes.
func (p *Partition) Watch(w *Waiter) { p.watchers.add(w) }

// Unwatch ends Watch.
func (p *Partition) Unwatch(w *Waiter) { p.watchers.remove(w) }

// CheckLeader compares the epoch that a client believes to be current with
// the one that is; -1 means that the client does not know. ErrNotHere when they agree and another node leads.
func (p *Partition) CheckLeader(epoch int32) error {
	role := p.role.Load()
	err := role.checkEpoch(epoch)
	if err == nil && !role.Leads {
		err = ErrNotHere
	}
	return err
}

// CheckReplica is CheckLeader for what a follower may answer, too.
func (p *Partition) CheckReplica(epoch int32) error { return p.role.Load().checkEpoch(epoch) }

func (r *Role) checkEpoch(epoch int32) error {
	switch current := r.Placed.LeaderEpoch; {
	case epoch < 0 || epoch == current:
		return nil
	case epoch < current:
		return fmt.Errorf("%w: %d, current is %d", ErrFencedLeaderEpoch, epoch, current)
	default:
		return fmt.Errorf("%w: %d, current is %d", ErrUnknownLeaderEpoch, epoch, current)
	}
}

// Read appends to dst the whole batches from the one that holds offset from, up
// to the high watermark and as long as they fit in maxBytes; with oneAtLeast
// the first one comes whatever its size. At the high watermark nothing is
// appended. ErrOffsetOutOfRange below the log start offset or above the high
// watermark; a *segment.CorruptError for damaged records. Blocks on the disk.
func (p *Partition) Read(dst []byte, from int64, maxBytes int, oneAtLeast bool) ([]byte, error) {
	var v segment.View
	defer v.Release()
	_, err := p.View(&v, from, maxBytes, oneAtLeast)
	return v.AppendTo(dst), err
}

// View is Read without a copy: the batches are added to v, see [segment.View], and it
// tells how many bytes they are.
func (p *Partition) View(v *segment.View, from int64, maxBytes int, oneAtLeast bool) (int, error) {
	end := p.HighWatermark()
	if from > end {
		return 0, fmt.Errorf("%w: %d, high watermark is %d", ErrOffsetOutOfRange, from, end)
	}
	for {
		at := p.at.Load()
		n, err := at.log.View(v, from, end, maxBytes, oneAtLeast)
		if p.at.Load() == at || err == nil && n > 0 {
			return n, p.explain(err)
		}
	}
}

// AtMostBytes is at least what Read could give from offset on, up to most. It does not block.
func (p *Partition) AtMostBytes(offset, most int64) int64 {
	return min(p.at.Load().log.BytesFromAtMost(offset, most), most)
}

// explain puts an error of the log into the engine's words.
func (p *Partition) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case p.Gone():
		return fmt.Errorf("%w: %w", ErrUnknownPartition, err)
	case errors.Is(err, segment.ErrOffsetOutOfRange):
		return fmt.Errorf("%w: %w", ErrOffsetOutOfRange, err)
	}
	return err
}

// AvailableBytes is how much Read could give from offset on, without a limit. It
// may read a few headers.
func (p *Partition) AvailableBytes(offset int64) (int64, error) {
	return ask(p, func(l *segment.Log) (int64, error) { return l.BytesFrom(offset, p.HighWatermark()) })
}

// OffsetForTimestamp finds the first record whose timestamp is at least
// timestamp (milliseconds since 1970). Blocks on the disk.
func (p *Partition) OffsetForTimestamp(timestamp int64) (segment.TimedOffset, bool, error) {
	found := false
	at, err := ask(p, func(l *segment.Log) (at segment.TimedOffset, err error) {
		at, found, err = l.OffsetForTimestamp(timestamp, p.HighWatermark())
		return at, err
	})
	return at, found, err
}

// MaxTimestamp finds the record with the largest timestamp. Blocks on the disk.
func (p *Partition) MaxTimestamp() (segment.TimedOffset, bool, error) {
	found := false
	at, err := ask(p, func(l *segment.Log) (at segment.TimedOffset, err error) {
		at, found, err = l.MaxTimestamp()
		return at, err
	})
	return at, found, err
}

// ask asks the partition's log, and the next one when it was moved meanwhile: the files of
// the one that was asked may have gone.
func ask[T any](p *Partition, question func(*segment.Log) (T, error)) (T, error) {
	for {
		at := p.at.Load()
		answer, err := question(at.log)
		if p.at.Load() == at {
			return answer, p.explain(err)
		}
	}
}

// EndOffsetForEpoch answers OffsetForLeaderEpoch: the largest epoch at or below
// the one asked for, and where it ended; (-1, -1) when there is none.
func (p *Partition) EndOffsetForEpoch(epoch int32) (foundEpoch int32, endOffset int64) {
	if epoch == p.LeaderEpoch() {
		return epoch, p.LogEndOffset()
	}
	return p.at.Load().log.EndOffsetForEpoch(epoch)
}

// CheckLatest is ErrOffsetNotAvailable while the high watermark of a partition that this node has come to lead lags behind what the leader before may have
// told consumers: an offset from the end would go back.
func (p *Partition) CheckLatest() error {
	watermark, end, epoch := p.HighWatermark(), p.LogEndOffset(), p.LeaderEpoch()
	if watermark >= end || epoch == 0 {
		return nil
	}
	_, start := p.at.Load().log.EndOffsetForEpoch(epoch - 1)
	if start < 0 {
		start = end // nothing has been appended under this epoch
	}
	if watermark < start {
		return fmt.Errorf("%w: the high watermark is %d, and the leader epoch began at %d", ErrOffsetNotAvailable, watermark, start)
	}
	return nil
}

// EpochAt is the leader epoch under which the record at offset was appended;
// behind the end it is the current one.
func (p *Partition) EpochAt(offset int64) int32 {
	if epoch := p.at.Load().log.EpochAt(offset); epoch >= 0 {
		return epoch
	}
	return p.LeaderEpoch()
}

// DeleteRecordsBefore moves the log start offset up to offset, -1 meaning the
// high watermark, and returns the new one when it is durable. ErrOffsetOutOfRange
// above the high watermark, ErrPolicyViolation on a topic whose cleanup.policy
// does not delete, ErrInternalTopic on an internal one.
func (p *Partition) DeleteRecordsBefore(ctx context.Context, offset int64) (int64, error) {
	if !p.Leads() {
		return 0, ErrNotHere
	}
	if p.internal {
		return 0, fmt.Errorf("%w: %s", ErrInternalTopic, p.topic)
	}
	if cfg := p.config.Load(); !cfg.CleanupDelete {
		return 0, fmt.Errorf("%w: %s", ErrPolicyViolation, p.name)
	}
	return p.deleteRecordsBefore(ctx, offset)
}

func (p *Partition) deleteRecordsBefore(ctx context.Context, offset int64) (int64, error) {
	if offset == -1 {
		offset = p.HighWatermark()
	}
	if offset < 0 || offset > p.HighWatermark() {
		return 0, fmt.Errorf("%w: %d, high watermark is %d", ErrOffsetOutOfRange, offset, p.HighWatermark())
	}
	err := p.change(ctx, func(l *segment.Log) error { return l.DeleteRecordsBefore(ctx, offset) })
	if err != nil {
		return 0, p.explain(err)
	}
	return p.LogStartOffset(), nil
}

// Producers lists the idempotent producers that the partition remembers.
func (p *Partition) Producers(ctx context.Context) ([]producer.Info, error) {
	return ask(p, func(l *segment.Log) ([]producer.Info, error) { return l.Producers(ctx) })
}
