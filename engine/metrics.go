package engine

import (
	"context"
	"math"
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
	spaceAsked                     atomic.Bool // a question for the room on the disk has not been answered yet
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

// Fault is what has fenced a log directory, nil while all accept appends. It asks no disk.
func (e *Engine) Fault() error { return e.dir.Err() }

// Stats is what an engine tells when it is asked.
type Stats struct {
	ProducedRecords, ProducedBytes int64 // by clients, durable, since the start
	Topics, Partitions             int   // that the catalogue has
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
	d := DirStats{Path: e.dir.Path(), Err: e.dir.Err(), Stats: e.dir.Stats(), FreeBytes: -1, TotalBytes: -1}
	d.FreeBytes, d.TotalBytes = e.space(ctx)
	s.Dirs = append(s.Dirs, d)
	return s
}

func (e *Engine) space(ctx context.Context) (free, total int64) {
	type answer struct{ free, total int64 }
	if !e.gauge.spaceAsked.CompareAndSwap(false, true) {
		return -1, -1
	}
	answered := make(chan answer, 1)
	go func() { // ends with the system call
		defer e.gauge.spaceAsked.Store(false)
		free, total, err := e.dir.Space()
		if err != nil {
			answered <- answer{-1, -1}
			return
		}
		answered <- answer{int64(min(free, math.MaxInt64)), int64(min(total, math.MaxInt64))}
	}()
	select {
	case a := <-answered:
		return a.free, a.total
	case <-ctx.Done():
		return -1, -1
	}
}
