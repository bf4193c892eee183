package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/millrace/millrace/engine/config"
	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/batch"
)

// Produce is what a client wants appended to one partition.
type Produce struct {
	// Records is one record batch. It belongs to the partition until done is called.
	Records []byte
	// Acks is -1 (all in-sync replicas), 1 (this one) or 0 (nobody waits).
	Acks int16
	// RequestVersion is that of the client's produce request; old ones may not use zstd.
	RequestVersion int16
	// Timeout bounds the wait for room in the partition's queue; 0 leaves that to the context.
	Timeout time.Duration
}

// ProduceResult is what has become of a Produce.
type ProduceResult struct {
	BaseOffset     int64
	LogAppendTime  int64 // milliseconds since 1970; -1 unless the topic stamps records
	LogStartOffset int64
	// Err is nil when the records are durable. Otherwise none was appended: an error of
	// this package, of batch.Admit, or of segment.Result.
	Err error
}

// Produce appends a batch from a client. done is called exactly once, perhaps
// before Produce returns and else on the committer's goroutine; it must not
// block. Produce itself blocks only while the partition's queue is full, at
// most for request.Timeout or until ctx ends.
func (p *Partition) Produce(ctx context.Context, request Produce, done func(ProduceResult)) {
	fail := func(err error) {
		done(ProduceResult{BaseOffset: -1, LogAppendTime: -1, LogStartOffset: -1, Err: err})
	}
	cfg := p.config.Load()
	role := p.role.Load()
	if err := p.mayProduce(role, cfg, request.Acks); err != nil {
		fail(err)
		return
	}
	begun := p.gauge.now()
	admitted, err := batch.Admit(request.Records, p.rules(cfg, request.RequestVersion))
	p.gauge.validated(begun)
	if err != nil {
		fail(err)
		return
	}
	if admitted.Header.IsTransactional() {
		fail(ErrTransactional)
		return
	}
	appendTime := int64(-1)
	if admitted.Header.LogAppendTime() {
		appendTime = admitted.Header.MaxTimestamp
	}
	records, bytes := admitted.Header.RecordCount, len(admitted.Batch)
	err = p.append(ctx, role.Placed.LeaderEpoch, admitted.Batch, request.Timeout, func(r segment.Result) {
		if r.Err != nil {
			fail(p.explain(r.Err))
			return
		}
		if r.Duplicate {
			appendTime = r.Timestamp // whatever the topic's timestamp type: Kafka answers so
		} else {
			p.gauge.produced(records, bytes)
		}
		result := ProduceResult{BaseOffset: r.BaseOffset, LogAppendTime: appendTime, LogStartOffset: p.LogStartOffset()}
		if request.Acks != -1 {
			done(result)
			return
		}
		p.whenCommitted(r.LastOffset, func(err error) {
			if err != nil {
				fail(err)
				return
			}
			done(result)
		})
	})
	if err != nil {
		fail(p.explain(err))
	}
}

func (p *Partition) mayProduce(role *Role, cfg *config.Topic, acks int16) error {
	if p.Gone() {
		return ErrUnknownPartition
	}
	if !role.Leads {
		return ErrNotHere
	}
	if p.internal {
		return fmt.Errorf("%w: %s", ErrInternalTopic, p.topic)
	}
	if acks == -1 && role.tooFew(cfg) {
		return fmt.Errorf("%w: %d of at least %d", ErrNotEnoughReplicas, len(role.Placed.ISR), cfg.MinInsyncReplicas)
	}
	return nil
}

// tooFew tells whether fewer replicas are in sync than acks=all asks for. As in Kafka, no more are asked for than there are.
func (r *Role) tooFew(cfg *config.Topic) bool {
	return len(r.Placed.ISR) < min(cfg.MinInsyncReplicas, len(r.Placed.Replicas))
}

// whenCommitted calls done when all replicas in sync have the record at an offset, or this node leads no longer. done must not block.
func (p *Partition) whenCommitted(offset int64, done func(error)) {
	if p.HighWatermark() > offset && p.Leads() { // what another leader has committed there is perhaps another record
		done(p.judgeCommit(nil))
		return
	}
	p.commits.wait(offset+1, p.HighWatermark, func(err error) { done(p.judgeCommit(err)) })
}

// judgeCommit is what to answer for an append with acks=all whose wait for other replicas has ended with err.
func (p *Partition) judgeCommit(err error) error {
	switch role := p.role.Load(); {
	case p.Gone():
		return ErrUnknownPartition
	case err != nil:
		return err
	case role.tooFew(p.config.Load()):
		return ErrNotEnoughReplicasAfterAppend
	}
	return nil
}

func (p *Partition) rules(cfg *config.Topic, requestVersion int16) batch.Rules {
	return batch.Rules{
		TopicPartition:       p.name,
		RequestVersion:       requestVersion,
		Compression:          compression(cfg),
		LogAppendTime:        cfg.MessageTimestampType == "LogAppendTime",
		NowMs:                p.now().UnixMilli(),
		TimestampBeforeMaxMs: cfg.TimestampBeforeMaxMs,
		TimestampAfterMaxMs:  cfg.TimestampAfterMaxMs,
		MaxMessageBytes:      cfg.MaxMessageBytes,
		SegmentBytes:         cfg.SegmentBytes,
		Compacted:            cfg.CleanupCompact,
	}
}

func compression(cfg *config.Topic) batch.Compression {
	c, err := batch.ParseCompression(cfg.CompressionType)
	if err != nil {
		return batch.Compression{Codec: batch.Producer} // the config's validator knows the same names
	}
	switch c.Codec {
	case batch.Gzip:
		c.Level = cfg.CompressionGzipLevel
	case batch.LZ4:
		c.Level = cfg.CompressionLz4Level
	case batch.Zstd:
		c.Level = cfg.CompressionZstdLevel
	}
	return c
}

// append queues a whole batch under the epoch of a leadership; when that is over, it is refused. When it returns nil, done is called exactly once.
func (p *Partition) append(ctx context.Context, epoch int32, b []byte, patience time.Duration, done func(segment.Result)) error {
	a := &segment.Append{Batches: b, LeaderEpoch: epoch, Patience: patience, Done: done}
	at := p.at.Load()
	err := at.log.Append(ctx, a)
	if err != nil && p.movedFrom(at, err) {
		return p.appendMoved(ctx, a)
	}
	return err
}

// appendMoved is append to a partition that is on its way to another log directory.
func (p *Partition) appendMoved(ctx context.Context, a *segment.Append) error {
	if a.Patience > 0 { // what is left of it, from here on
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, a.Patience, segment.ErrQueueFull)
		defer cancel()
		a.Patience = 0
	}
	return p.change(ctx, func(l *segment.Log) error { return l.Append(ctx, a) })
}

// appendCommitted is append by the broker itself, with acks=all: done is told when the records are committed, or have failed.
func (p *Partition) appendCommitted(ctx context.Context, epoch int32, b []byte, done func(segment.Result)) error {
	role := p.role.Load()
	switch {
	case !role.Leads:
		return ErrNotHere
	case role.tooFew(p.config.Load()):
		return ErrNotEnoughReplicas
	}
	return p.append(ctx, epoch, b, 0, func(r segment.Result) {
		if r.Err != nil {
			done(r)
			return
		}
		p.whenCommitted(r.LastOffset, func(err error) {
			r.Err = err
			done(r)
		})
	})
}
