package coordinator

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/engine/group"
)

// Join asks for a place in a group's next generation. It waits for the generation, until ctx ends.
func (c *Coordinator) Join(ctx context.Context, groupID string, ev group.Join) group.JoinResponse {
	var refused error
	session := time.Duration(ev.SessionTimeoutMs) * time.Millisecond
	switch {
	case groupID == "":
		refused = group.ErrInvalidGroupID
	case session < c.opts.Groups.MinSessionTimeout, session > c.opts.Groups.MaxSessionTimeout:
		refused = group.ErrInvalidSessionTimeout
	}
	if refused != nil {
		resp := group.Failed(ev, refused).(group.JoinResponse)
		resp.MemberID = ev.MemberID
		return resp
	}
	ev.NewID = c.opts.NewID()
	return c.ask(ctx, groupID, func(t group.Token) group.Event { ev.Token = t; return ev }).(group.JoinResponse)
}

// Sync asks for a member's assignment, and brings everybody's when the leader asks. It waits until ctx ends.
func (c *Coordinator) Sync(ctx context.Context, groupID string, ev group.Sync) group.SyncResponse {
	if groupID == "" {
		return group.SyncResponse{Err: group.ErrInvalidGroupID}
	}
	return c.ask(ctx, groupID, func(t group.Token) group.Event { ev.Token = t; return ev }).(group.SyncResponse)
}

// Heartbeat keeps a member's session. While the group is being loaded, it is taken to be well.
func (c *Coordinator) Heartbeat(_ context.Context, groupID string, ev group.Heartbeat) error {
	if groupID == "" {
		return group.ErrInvalidGroupID
	}
	s := c.shardOf(groupID)
	if s == nil {
		return ErrNotCoordinator
	}
	s.mu.Lock()
	defer s.unlock()
	refused := s.refused()
	switch h := s.groups[groupID]; {
	case errors.Is(refused, ErrLoading):
		return nil
	case refused != nil:
		return refused
	case h == nil:
		return group.Absent(ev).(group.HeartbeatResponse).Err
	default:
		// A heartbeat writes nothing and is answered at once, so it needs neither room nor a token.
		e := h.Step(s.c.opts.Now(), ev)
		s.c.timers.set(h, h.Wake())
		return e.Replies[0].Response.(group.HeartbeatResponse).Err
	}
}

// Leave removes members from a group.
func (c *Coordinator) Leave(ctx context.Context, groupID string, ev group.Leave) group.LeaveResponse {
	if groupID == "" {
		return group.LeaveResponse{Err: group.ErrInvalidGroupID}
	}
	return c.askBounded(ctx, groupID, func(t group.Token) group.Event { ev.Token = t; return ev }).(group.LeaveResponse)
}

// Commit stores offsets, and returns when they are durable.
func (c *Coordinator) Commit(ctx context.Context, groupID string, ev group.Commit) group.CommitResponse {
	return c.askBounded(ctx, groupID, func(t group.Token) group.Event { ev.Token = t; return ev }).(group.CommitResponse)
}

// DeleteOffsets forgets offsets of topics that the group does not read.
func (c *Coordinator) DeleteOffsets(ctx context.Context, groupID string, ev group.DeleteOffsets) group.DeleteOffsetsResponse {
	if groupID == "" {
		return group.DeleteOffsetsResponse{Err: group.ErrInvalidGroupID}
	}
	return c.askBounded(ctx, groupID, func(t group.Token) group.Event { ev.Token = t; return ev }).(group.DeleteOffsetsResponse)
}

// DeleteGroups ends groups without members; the errors are in the order of the ids.
func (c *Coordinator) DeleteGroups(ctx context.Context, groupIDs []string) []error {
	ctx, cancel := context.WithTimeout(ctx, c.opts.CommitTimeout)
	defer cancel()
	tickets := make([]*ticket, len(groupIDs))
	for i, id := range groupIDs {
		tickets[i] = c.begin(ctx, id, func(t group.Token) group.Event { return group.Delete{Token: t} })
	}
	errs := make([]error, len(groupIDs))
	for i, t := range tickets {
		errs[i] = t.wait(ctx).(group.DeleteResponse).Err
	}
	return errs
}

// FetchTopic asks for offsets of one topic; a zero TopicID matches any.
type FetchTopic struct {
	Topic      string
	TopicID    [16]byte
	Partitions []int32
}

// FetchedOffset is what a group has committed for a partition. Without a commit the offset is -1.
type FetchedOffset struct {
	Partition   int32
	Offset      int64
	LeaderEpoch int32
	Metadata    string
}

// FetchedTopic is what a group has committed for a topic.
type FetchedTopic struct {
	Topic   string
	TopicID [16]byte
	Offsets []FetchedOffset
}

// FetchOffsets reads what a group has durably committed: of the given topics, or of all when all is set. With
// requireStable it waits for commits that are on their way.
func (c *Coordinator) FetchOffsets(ctx context.Context, groupID string, topics []FetchTopic, all, requireStable bool) ([]FetchedTopic, error) {
	s := c.shardOf(groupID)
	if s == nil {
		return nil, ErrNotCoordinator
	}
	if requireStable {
		ctx, cancel := context.WithTimeout(ctx, c.opts.CommitTimeout)
		defer cancel()
		if err := s.settledSoFar(ctx); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.unlock()
	if err := s.refused(); err != nil {
		return nil, err
	}
	h := s.groups[groupID]
	if all {
		return allOffsets(h), nil
	}
	fetched := make([]FetchedTopic, 0, len(topics))
	for _, t := range topics {
		ft := FetchedTopic{Topic: t.Topic, TopicID: t.TopicID, Offsets: make([]FetchedOffset, 0, len(t.Partitions))}
		for _, p := range t.Partitions {
			ft.Offsets = append(ft.Offsets, offsetOf(h, t, p))
		}
		fetched = append(fetched, ft)
	}
	return fetched, nil
}

func offsetOf(h *hosted, t FetchTopic, partition int32) FetchedOffset {
	f := FetchedOffset{Partition: partition, Offset: -1, LeaderEpoch: -1}
	if h == nil {
		return f
	}
	o, ok := h.Offset(t.Topic, partition)
	none := [16]byte{}
	if !ok || o.TopicID != none && t.TopicID != none && o.TopicID != t.TopicID {
		return f
	}
	f.Offset, f.LeaderEpoch, f.Metadata = o.Offset, o.LeaderEpoch, o.Metadata
	return f
}

func allOffsets(h *hosted) []FetchedTopic {
	if h == nil {
		return nil
	}
	var fetched []FetchedTopic
	for tp, o := range h.Offsets {
		if n := len(fetched); n == 0 || fetched[n-1].Topic != tp.Topic {
			fetched = append(fetched, FetchedTopic{Topic: tp.Topic})
		}
		last := &fetched[len(fetched)-1]
		last.Offsets = append(last.Offsets, FetchedOffset{
			Partition: tp.Partition, Offset: o.Offset, LeaderEpoch: o.LeaderEpoch, Metadata: o.Metadata,
		})
	}
	return fetched
}

// Describe shows a group.
func (c *Coordinator) Describe(groupID string) (group.Description, error) {
	s := c.shardOf(groupID)
	if s == nil {
		return group.Description{}, ErrNotCoordinator
	}
	s.mu.Lock()
	defer s.unlock()
	if err := s.refused(); err != nil {
		return group.Description{}, err
	}
	h := s.groups[groupID]
	if h == nil || !h.Exists() {
		return group.Description{}, group.ErrGroupIDNotFound
	}
	return h.Describe(), nil
}

// Listed is a line of ListGroups.
type Listed struct {
	ID           string
	ProtocolType string
	State        group.State
}

// List shows the groups of this node in some of the states, whose names are compared without regard to case;
// all when there are none. Partitions whose groups are not served here are left out.
func (c *Coordinator) List(states []string) ([]Listed, error) {
	wanted := map[string]bool{}
	for _, name := range states {
		wanted[strings.ToLower(strings.TrimSpace(name))] = true
	}
	var listed []Listed
	for _, s := range c.all() {
		var err error
		if listed, err = s.list(wanted, listed); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(listed, func(a, b Listed) int { return strings.Compare(a.ID, b.ID) })
	return listed, nil
}

func (s *shard) list(wanted map[string]bool, listed []Listed) ([]Listed, error) {
	s.mu.Lock()
	defer s.unlock()
	switch refused := s.refused(); {
	case refused != nil && s.loading && s.ctx.Err() == nil:
		return nil, refused
	case refused != nil:
		return listed, nil
	}
	for id, h := range s.groups {
		if h.Exists() && (len(wanted) == 0 || wanted[strings.ToLower(h.State().String())]) {
			listed = append(listed, Listed{ID: id, ProtocolType: h.ProtocolType(), State: h.State()})
		}
	}
	return listed, nil
}

// TopicsDeleted drops the offsets of topics that are gone. It does not wait for the log.
func (c *Coordinator) TopicsDeleted(topics []group.DeletedTopic) {
	for _, s := range c.all() {
		s.topicsDeleted(topics)
	}
}

func (s *shard) topicsDeleted(topics []group.DeletedTopic) {
	s.mu.Lock()
	defer s.unlock()
	if s.loading {
		s.deleted = append(s.deleted, topics...)
		return
	}
	if s.refused() != nil {
		return
	}
	for _, id := range sortedIDs(s.groups) {
		if h := s.groups[id]; !h.Deleting() {
			s.step(h, group.TopicsDeleted{Topics: topics})
		}
	}
}
