package coordinator

import (
	"github.com/millrace/millrace/engine/group"
	"github.com/millrace/millrace/segment/batch"
)

// maxBatch is where a batch of many writes ends; a larger write has a batch of its own.
const maxBatch = 256 << 10

// push queues a write and sees to it that somebody hands it to the log. The lock is held.
func (s *shard) push(o *outgoing) {
	if s.pushed == s.settled {
		s.heard = s.c.opts.Now()
		s.watchOutcomes(s.c.opts.CommitTimeout)
	}
	s.queue = append(s.queue, o)
	s.pending += o.bytes
	s.pushed++
	if s.isLate {
		s.wakeWaiting() // who waits for it has to know that it waits for what is overdue
	}
	s.c.Stats.PendingBytes.Add(o.bytes)
	if !s.draining {
		s.draining = true
		s.c.work.Go(s.drain)
	}
}

// drain hands the queue to the log, batch by batch, until it is empty. It alone appends, so the log's order
// is the queue's. It ends when the queue is empty.
func (s *shard) drain() {
	for {
		items := s.take()
		if len(items) == 0 {
			return
		}
		if r := items[0].rewrite; r != nil {
			s.appendRewrite(items[0], r)
			continue
		}
		b := batch.NewBuilder(batch.BuilderOptions{})
		now := s.c.opts.Now().UnixMilli()
		for _, o := range items {
			for _, r := range o.write.Records {
				b.Append(now, r.Key(), r.Value(), nil)
			}
		}
		s.append(b, items)
	}
}

// take removes from the queue what fits into one batch, at least one write. A rewrite comes alone.
func (s *shard) take() []*outgoing {
	s.mu.Lock()
	defer s.unlock()
	var bytes int64
	n := 0
	for n < len(s.queue) {
		o := s.queue[n]
		if n > 0 && (o.rewrite != nil || bytes+o.bytes > maxBatch) {
			break
		}
		bytes += o.bytes
		n++
		if o.rewrite != nil {
			break
		}
	}
	items := s.queue[:n:n]
	s.queue = s.queue[n:]
	if n == 0 {
		s.queue = nil
		s.draining = false
	}
	return items
}

func (s *shard) append(b *batch.Builder, items []*outgoing) {
	records := b.Len()
	bytes, err := b.Build()
	size := int64(len(bytes))
	turn := s.takeTurn()
	if err != nil {
		s.appended(turn, outcome{items: items, bytes: size, err: err})
		return
	}
	s.c.Stats.Appends.Add(1)
	s.c.Stats.Records.Add(int64(records))
	err = s.log.Append(s.ctx, bytes, func(base, last int64, err error) {
		s.appended(turn, outcome{items: items, bytes: size, base: base, last: last, err: err})
	})
	if err != nil {
		s.appended(turn, outcome{items: items, bytes: size, err: err})
	}
}

// turn is the place of a batch in the order of the appends.
type turn struct {
	known bool
	outcome
}

// takeTurn gives the next batch its place. Only drain calls it.
func (s *shard) takeTurn() *turn {
	t := new(turn)
	s.settleMu.Lock()
	defer s.settleMu.Unlock()
	s.turns = append(s.turns, t)
	return t
}

// appended notes an outcome and leaves the rest to settle: the log's committer, which calls it, must not wait.
// A log whose disk stalls refuses what is queued while it still holds what came before, so an outcome may come too
// early: groups hear of it after those before it.
func (s *shard) appended(t *turn, o outcome) {
	s.settleMu.Lock()
	defer s.settleMu.Unlock()
	if s.deaf {
		return
	}
	t.known, t.outcome = true, o
	for len(s.turns) > 0 && s.turns[0].known {
		s.done = append(s.done, s.turns[0].outcome)
		s.turns = s.turns[1:]
	}
	if !s.settling && len(s.done) > 0 {
		s.settling = true
		s.c.work.Go(s.settle) // under the lock: whoever has made the shard deaf waits for no goroutine that begins later
	}
}

// settle reports outcomes to their groups in the order of the log. It ends when there are none.
func (s *shard) settle() {
	for {
		s.settleMu.Lock()
		done := s.done
		s.done = nil
		s.settling = len(done) > 0
		s.settleMu.Unlock()
		if len(done) == 0 {
			return
		}
		s.mu.Lock()
		if s.over {
			s.unlock()
			return
		}
		for _, o := range done {
			s.settleOne(o)
		}
		s.heardOutcome()
		s.maybeRewrite()
		s.wakeWaiting()
		s.unlock()
	}
}

func (s *shard) settleOne(o outcome) {
	if o.err != nil {
		s.notes = append(s.notes, group.Note{Warn: true, Message: "could not store records of groups", Args: []any{"error", o.err}})
	} else if o.bytes > 0 {
		s.grown += o.bytes
		s.end = o.last + 1
	}
	for _, item := range o.items {
		if item.rewrite != nil {
			s.rewritten(item, o)
			continue
		}
		s.count(item)
		var err error
		if o.err != nil {
			err = storeError(o.err)
		}
		s.step(item.h, group.Written{Write: item.write, Err: err})
	}
}

// count takes a write off what is on its way.
func (s *shard) count(o *outgoing) {
	s.settled++
	s.pending -= o.bytes
	s.c.Stats.PendingBytes.Add(-o.bytes)
}

// rewrite is the live state of a shard, to be written at the end of its log.
type rewrite struct {
	records []group.Record
	left    int   // batches whose outcome is not known, and 1 while more may come
	base    int64 // offset of the first batch: where the log may begin; -1 before that is known
	before  int64 // what the log had grown by when it began
	err     error
}

// maybeRewrite begins a rewrite when the log has grown well beyond what is live. Requests that write wait until
// the queue has run empty: the state is taken only when nothing is on its way, since what is written last counts.
// The lock is held.
func (s *shard) maybeRewrite() {
	if s.refused() != nil {
		return
	}
	if !s.gated {
		s.gated = s.grown > max(s.c.opts.MinRewrite, 4*s.live, s.retryAt)
	}
	if !s.gated || s.pushed != s.settled {
		return
	}
	r := &rewrite{base: -1, left: 1, before: s.grown}
	s.grown = 0
	for _, id := range sortedIDs(s.groups) {
		r.records = append(r.records, s.groups[id].Snapshot()...)
	}
	if len(r.records) == 0 {
		r.base = s.end
	}
	s.push(&outgoing{rewrite: r})
	s.gated = false
}

// appendRewrite hands the live state to the log.
func (s *shard) appendRewrite(item *outgoing, r *rewrite) {
	now := s.c.opts.Now().UnixMilli()
	b := batch.NewBuilder(batch.BuilderOptions{})
	flush := func() {
		if b.Len() > 0 {
			s.mu.Lock()
			r.left++
			s.unlock()
			s.append(b, []*outgoing{item})
			b.Reset()
		}
	}
	for _, rec := range r.records {
		if s.ctx.Err() != nil {
			return // nobody will hear of it, and a part does no harm
		}
		b.Append(now, rec.Key(), rec.Value(), nil)
		if b.Size() >= maxBatch {
			flush()
		}
	}
	flush()
	s.appended(s.takeTurn(), outcome{items: []*outgoing{item}}) // no batch of its own: all have been handed over
}

// rewritten counts a batch of a rewrite; with the last one the log may begin at the first.
func (s *shard) rewritten(item *outgoing, o outcome) {
	r := item.rewrite
	r.left--
	if o.err != nil {
		r.err = o.err
	} else if o.bytes > 0 && r.base < 0 {
		r.base = o.base
	}
	if r.left > 0 {
		return
	}
	s.count(item)
	if r.err != nil {
		// The log has the old state and perhaps a part of the same again: that reads as one.
		s.grown += r.before
		s.retryAt = s.grown + s.c.opts.MinRewrite
		return
	}
	s.retryAt = 0
	s.c.work.Go(func() { s.forgetBefore(r.base) })
}

// forgetBefore moves the log's start to a rewrite that is durable.
func (s *shard) forgetBefore(offset int64) {
	if s.ctx.Err() != nil {
		return // the next leader will see that its log is large
	}
	if err := s.log.DeleteRecordsBefore(offset); err != nil {
		s.logger().Warn("could not move the start of the log to the live state", "offset", offset, "error", err)
		return
	}
	s.c.Stats.Rewrites.Add(1)
	s.logger().Debug("wrote the live state again and forgot what came before", "offset", offset)
}
