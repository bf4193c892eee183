package engine

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/engine/coordinator"
	"github.com/millrace/millrace/segment"
)

// Observer takes one measurement. It must not block.
type Observer = segment.Observer

// Metrics is what an engine and the rooms below it measure while they work. What is
// nil is not told; the zero value measures nothing and costs nothing. What can be
// read at any moment is in Engine.Stats.
type Metrics struct {
	Clock           func() time.Duration // monotonic; nil: no seconds are measured
	ValidateSeconds Observer             // of each batch that a client produces: checking it
	Log             segment.Metrics
	Catalog         catalog.Metrics
}

// gauge is the engine's own part of the metrics, shared by its partitions.
type gauge struct {
	clock           func() time.Duration
	validateSeconds Observer

	producedRecords, producedBytes atomic.Int64
}

func newGauge(m *Metrics) *gauge {
	return &gauge{clock: m.Clock, validateSeconds: m.ValidateSeconds}
}

func (g *gauge) now() time.Duration {
	if g.clock == nil {
		return 0
	}
	return g.clock()
}

func (g *gauge) validated(begun time.Duration) {
	if g.validateSeconds != nil && g.clock != nil {
		g.validateSeconds.Observe((g.clock() - begun).Seconds())
	}
}

// produced counts a batch that has become durable, duplicates left out.
func (g *gauge) produced(records int32, bytes int) {
	g.producedRecords.Add(int64(records))
	g.producedBytes.Add(int64(bytes))
}

// Stats is what an engine tells when it is asked.
type Stats struct {
	ProducedRecords, ProducedBytes int64 // by clients, durable, since the start
	Topics, Partitions             int   // that the catalogue has
	Led                            int   // partitions that this node leads
	UnderReplicated                int   // of those, with a replica that is not in sync
	BelowMinimum                   int   // of those, with fewer in sync than min.insync.replicas: acks=all is refused
	Leaderless                     int   // partitions, of all that there are, that nobody leads
	Brokers, Fenced                int   // registered brokers, and those of them that count as dead; 0 on a node that is alone
	Groups                         coordinator.Census
	GroupPendingBytes              int64 // records of groups on their way to the log
	Dirs                           []DirStats
}

// DirStats is what one log directory tells.
type DirStats struct {
	Path string
	Err  error // what has fenced it, nil while it accepts appends
	segment.Stats
	FreeBytes, TotalBytes int64 // -1: unknown, or the file system did not answer in time
}

// Stats asks the file system for its free space alone, and waits for that until ctx
// ends; everything else is in memory. A question that is not answered is not asked
// again, so that a stalled disk holds one goroutine and no more.
func (e *Engine) Stats(ctx context.Context) Stats {
	img := e.Image()
	s := Stats{
		ProducedRecords: e.gauge.producedRecords.Load(), ProducedBytes: e.gauge.producedBytes.Load(),
		Topics: img.TopicCount(), Partitions: img.PartitionCount(),
		Groups: e.groups.Census(), GroupPendingBytes: e.groups.Stats.PendingBytes.Load(),
	}
	for _, b := range img.Brokers() {
		if s.Brokers++; b.Fenced {
			s.Fenced++
		}
	}
	for topic := range img.EachTopic() {
		e.countRoles(&s, topic)
	}
	for _, d := range e.dirs {
		s.Dirs = append(s.Dirs, d.stats(ctx))
	}
	return s
}

// countRoles adds what this node is to the partitions of a topic, and how they are.
func (e *Engine) countRoles(s *Stats, topic *catalog.Topic) {
	all := e.partitionsOf(topic.ID)
	for i := range topic.Partitions {
		p := &topic.Partitions[i]
		switch {
		case p.Leader < 0:
			s.Leaderless++
		case p.Leader == e.NodeID():
			s.Led++
			if len(p.ISR) < len(p.Replicas) {
				s.UnderReplicated++
			}
			if i < len(all) && all[i] != nil && all[i].offline == nil && all[i].role.Load().tooFew(all[i].Config()) {
				s.BelowMinimum++
			}
		}
	}
}
