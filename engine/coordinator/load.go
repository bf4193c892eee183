package coordinator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/millrace/millrace/engine/group"
	"github.com/millrace/millrace/segment/batch"
)

// readBytes is how much of a log is in memory while it is loaded.
const readBytes = 1 << 20

// load reads the groups back from the log. It ends early, without a word, when the leadership does.
func (s *shard) load() {
	defer s.c.loadEnded()
	end := s.log.LogEndOffset()
	err := s.awaitCommitted(end)
	var groups map[string]*hosted
	var bytes int64
	if err == nil {
		select {
		case s.c.loading <- struct{}{}:
			defer func() { <-s.c.loading }()
		case <-s.ctx.Done():
			return
		}
		groups, bytes, err = s.read(end)
	}
	switch {
	case s.ctx.Err() != nil:
	case err != nil:
		s.logger().Error("could not load groups; they are refused until the partition's next election or a restart", "error", err)
		s.fail(fmt.Errorf("%w: loading: %v", ErrNotCoordinator, err))
	default:
		s.activate(groups, bytes, end)
		s.logger().Debug("loaded groups", "groups", len(groups), "bytes", bytes)
	}
}

// awaitCommitted waits for what the leader before has left to be committed: it may have acknowledged any of it. Clients are
// told to wait for a while, and then to ask again, until it is.
func (s *shard) awaitCommitted(end int64) error {
	for away := false; ; away = true {
		ctx, cancel := context.WithTimeout(s.ctx, s.c.opts.LoadTimeout)
		err := s.log.WaitCommitted(ctx, end)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || s.ctx.Err() != nil {
			return err
		}
		if !away {
			s.logger().Warn("cannot load groups yet: the end of the log is not committed",
				"end", end, "high watermark", s.log.HighWatermark(), "waited", s.c.opts.LoadTimeout)
			s.sendAway(fmt.Errorf("%w: the end of the log is not committed", ErrNotAvailable))
		}
	}
}

// sendAway gives those who ask a reason while the shard goes on loading.
func (s *shard) sendAway(reason error) {
	s.mu.Lock()
	defer s.unlock()
	if s.loading {
		s.refusal = reason
	}
}

// read replays the log from its start to an end that is committed.
func (s *shard) read(end int64) (groups map[string]*hosted, size int64, err error) {
	groups = map[string]*hosted{}
	skipped := map[string]int{}
	from := s.log.LogStartOffset()
	for from < end {
		if err := s.ctx.Err(); err != nil {
			return nil, 0, err
		}
		b, err := s.log.Read(from, readBytes)
		if err != nil {
			return nil, 0, fmt.Errorf("reading from offset %d: %w", from, err)
		}
		before := from
		for one, err := range batch.All(b) {
			if errors.Is(err, batch.ErrTruncated) && from > before {
				break // a read may end within a batch
			}
			if err != nil {
				return nil, 0, fmt.Errorf("batch at offset %d: %w", from, err)
			}
			h, err := batch.Check(one)
			if err != nil {
				return nil, 0, fmt.Errorf("batch at offset %d: %w", from, err)
			}
			if err := s.replay(groups, h, one, skipped); err != nil {
				return nil, 0, err
			}
			from = h.NextOffset()
			size += int64(len(one))
		}
		if from == before {
			return nil, 0, fmt.Errorf("reading from offset %d: nothing there, though the log ends at %d", from, end)
		}
	}
	for what, n := range skipped {
		s.logger().Warn("left out records that are not understood here", "kind", what, "records", n)
	}
	return groups, size, nil
}

// replay lets the records of one batch take effect.
func (s *shard) replay(groups map[string]*hosted, h batch.Header, one []byte, skipped map[string]int) error {
	if h.IsControl() {
		return nil
	}
	if h.IsTransactional() {
		skipped["transactional offset commits"] += int(h.RecordCount)
		return nil
	}
	for r, err := range batch.Records(one, 0) {
		if err != nil {
			return fmt.Errorf("records of the batch at offset %d: %w", h.BaseOffset, err)
		}
		rec, err := group.DecodeRecord(r.Key, r.Value)
		if errors.Is(err, group.ErrUnknownRecord) {
			skipped[err.Error()]++
			continue
		}
		if err != nil {
			return fmt.Errorf("record at offset %d: %w", h.Offset(&r), err)
		}
		g := groups[rec.Group]
		if g == nil {
			if rec.IsTombstone() {
				continue
			}
			g = s.host(rec.Group)
			groups[rec.Group] = g
		}
		g.Replay(rec)
		if g.Gone() {
			delete(groups, rec.Group)
		}
	}
	return nil
}

func (s *shard) host(id string) *hosted {
	h := &hosted{Group: group.New(id, &s.c.opts.Groups), shard: s}
	h.timer.index = -1
	return h
}

// activate takes loaded groups into service. Offsets of topics that were deleted meanwhile are dropped, and so are
// those whose topic was made again under the same name: a crash may have come before their tombstones.
func (s *shard) activate(groups map[string]*hosted, size, end int64) {
	s.mu.Lock()
	defer s.unlock()
	if !s.loading {
		return // over meanwhile
	}
	s.refusal, s.loading, s.groups, s.grown, s.end = nil, false, groups, size, end
	for _, id := range sortedIDs(groups) {
		if s.ctx.Err() != nil {
			return // close waits for the lock
		}
		h := groups[id]
		s.step(h, group.Loaded{})
		if gone := slices.Concat(s.deleted, s.replacedTopics(h)); len(gone) > 0 {
			s.step(h, group.TopicsDeleted{Topics: gone})
		}
	}
	s.deleted = nil
	s.maybeRewrite()
	s.wakeWaiting()
}

// replacedTopics lists topics that the group has offsets of and whose name another topic bears now.
func (s *shard) replacedTopics(h *hosted) []group.DeletedTopic {
	var gone []group.DeletedTopic
	for tp, o := range h.Offsets {
		now, ok := s.c.opts.Topics.TopicID(tp.Topic)
		topic := group.DeletedTopic{Name: tp.Topic, ID: o.TopicID}
		if ok && o.TopicID != [16]byte{} && o.TopicID != now && !slices.Contains(gone, topic) {
			gone = append(gone, topic)
		}
	}
	return gone
}

func sortedIDs(groups map[string]*hosted) []string { return slices.Sorted(maps.Keys(groups)) }
