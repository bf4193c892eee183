package coordinator

import (
	"fmt"
	"slices"
	"time"
)

// A shard is one leadership of one partition: an election makes another, and what still comes for the former finds
// it over. So nothing of a former leadership can be mixed up with a later one, on this node or another.

// TopicCreated tells that __consumer_offsets has n partitions: it was made, by whatever node, or was given more. All of
// them are led elsewhere until Elected says otherwise. It is called on the catalogue's goroutine, does not block, and
// may be called again with what is known.
//
// A change of the number moves most groups to other partitions, where nothing is known of them, as in Kafka.
func (c *Coordinator) TopicCreated(n int32) {
	c.mu.Lock()
	known := c.all()
	if int(n) <= len(known) || c.closed {
		c.mu.Unlock()
		return
	}
	all := append(known[:len(known):len(known)], make([]*shard, int(n)-len(known))...)
	for p := len(known); p < len(all); p++ {
		all[p] = elsewhere(c, int32(p), -1)
	}
	c.shards.Store(&all)
	if len(known) == 0 {
		close(c.exists)
	}
	c.mu.Unlock()
	if len(known) > 0 {
		c.opts.Logger.Warn("the topic of the groups' offsets was given more partitions: most groups begin anew in another one",
			"before", len(known), "partitions", n)
	}
}

// OffsetsTopicDeleted tells that __consumer_offsets is gone, and with it all groups. It is called on the catalogue's
// goroutine and does not block.
func (c *Coordinator) OffsetsTopicDeleted() {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.all()
	if len(all) == 0 || c.closed {
		return
	}
	c.shards.Store(nil)
	c.exists = make(chan struct{})
	for _, s := range all {
		c.retire(s)
	}
}

// Elected tells that this node leads a partition of __consumer_offsets from epoch on. The partition's groups are read
// from its log, beginning at once, and answered for when that is done. It is called on the catalogue's goroutine, after
// TopicCreated; it does not block and touches no disk. An epoch that is not newer than what was told before is
// ignored; a newer one begins anew, whatever this node was.
func (c *Coordinator) Elected(partition, epoch int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.current(partition)
	if old == nil || epoch <= old.epoch {
		return
	}
	log := c.opts.Topics.OffsetsLog(partition, epoch)
	if log == nil {
		c.replace(old, elsewhere(c, partition, epoch))
		return
	}
	s := newShard(c, partition, epoch, log)
	empty := log.LogStartOffset() == log.LogEndOffset()
	if empty {
		s.activate(map[string]*hosted{}, 0, log.LogEndOffset())
	}
	c.replace(old, s)
	if !empty {
		c.loads.begin(c.opts.Now())
		c.work.Go(s.load)
	}
}

// Resigned tells that this node does not lead a partition of __consumer_offsets, or no longer, as of epoch: the one
// in which another leads or nobody does, or the one in which this node did. Everybody who waits for something of the
// partition is answered ErrNotCoordinator at once, and its groups are forgotten. Records on their way may or may not
// get into the log. It is called on the catalogue's goroutine and does not block; an epoch older than what was told
// before is ignored.
func (c *Coordinator) Resigned(partition, epoch int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.current(partition); old != nil && epoch >= old.epoch {
		c.replace(old, elsewhere(c, partition, epoch))
	}
}

// PartitionFor is the partition of __consumer_offsets whose leader coordinates a group; false while the topic does not
// exist as far as this node knows. It does not block.
func (c *Coordinator) PartitionFor(groupID string) (partition int32, exists bool) {
	n := len(c.all())
	if n == 0 {
		return -1, false
	}
	return PartitionFor(groupID, int32(n)), true
}

// current is what is known of a partition; nil when nothing is to be changed any more. c.mu is held.
func (c *Coordinator) current(partition int32) *shard {
	all := c.all()
	if c.closed || partition < 0 || int(partition) >= len(all) {
		return nil
	}
	return all[partition]
}

// replace puts another shard in the place of one, which is over. c.mu is held.
func (c *Coordinator) replace(old, s *shard) {
	all := slices.Clone(c.all())
	all[s.partition] = s
	c.shards.Store(&all)
	c.retire(old)
}

// retire ends a shard: it refuses from here on, and tells those who wait as soon as it gets its lock, which the
// catalogue's goroutine does not wait for. c.mu is held.
func (c *Coordinator) retire(s *shard) {
	if s.log != nil {
		s.cancel()
		c.work.Go(s.close)
	}
}

// elsewhere is a partition that is not led here.
func elsewhere(c *Coordinator, partition, epoch int32) *shard {
	return &shard{
		c: c, partition: partition, epoch: epoch, ctx: c.ctx,
		refusal: fmt.Errorf("%w: partition %d is not led here", ErrNotCoordinator, partition),
	}
}

// loads counts partitions that are being loaded, so that one line in the log tells of all that came together.
type loads struct {
	on, ended int
	since     time.Time
}

func (l *loads) begin(now time.Time) {
	if l.on == 0 {
		l.ended, l.since = 0, now
	}
	l.on++
}

// loadEnded counts a load that is over, and tells of all when it was the last.
func (c *Coordinator) loadEnded() {
	c.mu.Lock()
	c.loads.on--
	c.loads.ended++
	l := c.loads
	c.mu.Unlock()
	if l.on == 0 && c.ctx.Err() == nil {
		c.opts.Logger.Info("loaded consumer groups", "partitions", l.ended, "took", c.opts.Now().Sub(l.since))
	}
}
