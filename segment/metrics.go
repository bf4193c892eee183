package segment

import (
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/segment/vfs"
)

// Observer takes one measurement. It must not block.
type Observer = vfs.Observer

// Metrics is what a log directory measures while it works. An Observer that is nil
// is not told, and without a Clock no time is taken. What can be read at any
// moment is not here but in Dir.Stats, so that it costs nothing until somebody asks.
type Metrics struct {
	Clock func() time.Duration // monotonic; nil: no seconds are measured

	QueueSeconds   Observer // of each append: from the call of Append until the committer takes it
	WriteSeconds   Observer // of each round: from its first append taken until it is stamped, and written to the journal
	SyncSeconds    Observer // of each round: until all of it is durable; the writing of large parts is in it
	PublishSeconds Observer // of each round: until all of it is visible and answered

	RoundAppends Observer // appends in each round
	RoundBytes   Observer // bytes that each round writes
	RoundFiles   Observer // segments that each round writes and syncs
}

func (m *Metrics) now() time.Duration {
	if m.Clock == nil {
		return 0
	}
	return m.Clock()
}

// elapsed tells o how long it took from one reading of the clock to another.
func (m *Metrics) elapsed(o Observer, from, to time.Duration) {
	if o != nil && m.Clock != nil {
		o.Observe(max(to-from, 0).Seconds())
	}
}

func observe(o Observer, n int64) {
	if o != nil {
		o.Observe(float64(n))
	}
}

// meter follows the committer through its rounds. It is the committer's alone.
type meter struct {
	*Metrics
	begun, written time.Duration
	appends, files int
	bytes          int64
}

// take notes the appends of one log that join the round.
func (r *meter) take(appends []*Append) {
	now := r.now()
	if r.appends == 0 {
		r.begun = now
	}
	r.appends += len(appends)
	for _, a := range appends {
		r.elapsed(r.QueueSeconds, a.queued, now)
	}
}

// wrote notes a part that has been written.
func (r *meter) wrote(p *part) {
	if p.bytes > 0 && p.failure == nil {
		r.bytes += p.bytes
		r.files++
	}
}

// sync says that everything is written.
func (r *meter) sync() { r.written = r.now() }

// synced says that everything is durable; what follows is publishing.
func (r *meter) synced() {
	now := r.now()
	if r.files > 0 {
		r.elapsed(r.WriteSeconds, r.begun, r.written)
		r.elapsed(r.SyncSeconds, r.written, now)
		observe(r.RoundBytes, r.bytes)
		observe(r.RoundFiles, int64(r.files))
	}
	if r.appends > 0 {
		observe(r.RoundAppends, int64(r.appends))
	}
	r.written = now
}

// done ends the round, or the turn of a round that is larger than the open files.
func (r *meter) done() {
	if r.files > 0 {
		r.elapsed(r.PublishSeconds, r.written, r.now())
	}
	*r = meter{Metrics: r.Metrics}
}

// Stats is what a log directory tells when it is asked.
type Stats struct {
	QueueBytes, QueueBound int64 // appends that wait for the committer or are in its round, and their bound
	OpenFiles, IdleBound   int   // log files that are open, and how many may stay open unused
	Logs                   int   // partitions, empty ones included
	Direct                 bool  // whether the log is written past the page cache

	TailBytes, TailBound       int64 // newest records in memory, and their bound but for what is on its way to the disk
	JournalBytes, JournalBound int64 // of the journal that is needed, and when appends wait for a flush
	Stalled                    bool  // appends are refused since the disk does not answer
	Stalls                     int64 // how often that has begun
	DirectBytes                int64 // of records that went straight into their segments
	JournaledBytes             int64 // of records that went through the journal
	Flushes                    int64 // of the journal into the segments
}

// counts is what the committer counts for Stats.
type counts struct{ journal, direct, journaled, flushes atomic.Int64 }

// Stats asks no disk, and waits for nobody who does.
func (d *Dir) Stats() Stats {
	s := Stats{QueueBytes: d.queue.Used(), QueueBound: d.opts.QueueBytes, IdleBound: d.files.limit, Direct: d.direct,
		TailBytes: d.memory.used.Load(), TailBound: d.opts.TailBytes, JournalBytes: d.counts.journal.Load(), JournalBound: d.opts.JournalBytes,
		Stalled: d.Stalled(), Stalls: d.Stalls(),
		DirectBytes: d.counts.direct.Load(), JournaledBytes: d.counts.journaled.Load(), Flushes: d.counts.flushes.Load(),
	}
	d.mu.Lock()
	s.Logs = len(d.logs)
	d.mu.Unlock()
	d.files.mu.Lock()
	s.OpenFiles = d.files.open
	d.files.mu.Unlock()
	return s
}
