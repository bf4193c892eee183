package group

import "time"

// Token names a request that waits for an answer. The runtime draws it; it is never 0.
type Token uint64

// Event is something that happens to a group: a request, the outcome of a write, or time.
type Event interface{ event() }

// Protocol is one assignment strategy that a member offers, with what it tells the leader.
type Protocol struct {
	Name     string
	Metadata []byte
}

// Join asks for a place in the next generation.
type Join struct {
	Token              Token
	MemberID           string // empty for one that is new
	NewID              string // a fresh UUID, from which a new member's id is made
	InstanceID         *string
	ClientID           string
	ClientHost         string
	SessionTimeoutMs   int32
	RebalanceTimeoutMs int32
	ProtocolType       string
	Protocols          []Protocol
	Reason             string
	KnownIDRequired    bool // since v4 a new dynamic member must come back with the id it is given
	CanSkipAssignment  bool // since v9 a returning static leader may be told that nothing changes
}

// JoinResponse answers Join.
type JoinResponse struct {
	Err            error
	MemberID       string
	Generation     int32
	ProtocolType   *string
	Protocol       *string
	Leader         string
	SkipAssignment bool
	Members        []JoinMember // only for the leader
}

// JoinMember is what the leader learns of a member.
type JoinMember struct {
	ID         string
	InstanceID *string
	Metadata   []byte
}

// Sync asks for the member's assignment; from the leader it brings everybody's.
type Sync struct {
	Token        Token
	MemberID     string
	InstanceID   *string
	Generation   int32
	ProtocolType *string
	Protocol     *string
	Assignments  map[string][]byte // by member id
}

// SyncResponse answers Sync.
type SyncResponse struct {
	Err          error
	ProtocolType *string
	Protocol     *string
	Assignment   []byte
}

// Heartbeat keeps a member's session.
type Heartbeat struct {
	Token      Token
	MemberID   string
	InstanceID *string
	Generation int32
}

// HeartbeatResponse answers Heartbeat.
type HeartbeatResponse struct{ Err error }

// Leave removes members; an admin names static ones by instance id alone.
type Leave struct {
	Token   Token
	Members []LeavingMember
}

// LeavingMember is one member to remove.
type LeavingMember struct {
	ID         string
	InstanceID *string
	Reason     string
}

// LeaveResponse answers Leave, one result per member asked for.
type LeaveResponse struct {
	Err     error
	Members []LeaveResult
}

// LeaveResult is the outcome for one leaving member.
type LeaveResult struct {
	ID         string
	InstanceID *string
	Err        error
}

// Commit stores offsets.
type Commit struct {
	Token             Token
	MemberID          string
	InstanceID        *string
	Generation        int32
	RetentionMs       int64 // -1: the broker's
	UnknownGroupError bool  // since v9 an unknown group is told apart from a stale generation
	Topics            []CommitTopic
}

// CommitTopic is the part of a Commit about one topic.
type CommitTopic struct {
	Topic      string
	TopicID    [16]byte
	Partitions []CommitPartition
}

// CommitPartition is one offset to store.
type CommitPartition struct {
	Partition   int32
	Offset      int64
	LeaderEpoch int32
	Metadata    string
}

// CommitResponse answers Commit: an error for all, or one per partition in the order of the request.
type CommitResponse struct {
	Err    error
	Topics []CommitTopicResult
}

// CommitTopicResult is the outcome for one topic of a Commit.
type CommitTopicResult struct {
	Topic      string
	TopicID    [16]byte
	Partitions []PartitionResult
}

// PartitionResult is the outcome for one partition.
type PartitionResult struct {
	Partition int32
	Err       error
}

// DeleteOffsets forgets offsets of topics that the group does not read.
type DeleteOffsets struct {
	Token  Token
	Topics []DeleteTopic
}

// DeleteTopic is the part of a DeleteOffsets about one topic.
type DeleteTopic struct {
	Topic      string
	Partitions []int32
}

// DeleteOffsetsResponse answers DeleteOffsets.
type DeleteOffsetsResponse struct {
	Err    error
	Topics []DeleteTopicResult
}

// DeleteTopicResult is the outcome for one topic of a DeleteOffsets.
type DeleteTopicResult struct {
	Topic      string
	Partitions []PartitionResult
}

// Delete removes an empty group with its offsets.
type Delete struct{ Token Token }

// DeleteResponse answers Delete.
type DeleteResponse struct{ Err error }

// TopicsDeleted drops the offsets of topics that are gone.
type TopicsDeleted struct{ Topics []DeletedTopic }

// DeletedTopic is a topic that is gone; a new one may bear its name, not its id.
type DeletedTopic struct {
	Name string
	ID   [16]byte
}

// Tick says that time has passed.
type Tick struct{}

// Loaded says that the group has been read from the log: sessions begin anew.
type Loaded struct{}

// Unload says that this node no longer coordinates the group: everybody who waits is told Err.
type Unload struct{ Err error }

// Written reports the outcome of a Write.
type Written struct {
	Write Write
	Err   error // nil: durable
}

func (Join) event()          {}
func (Sync) event()          {}
func (Heartbeat) event()     {}
func (Leave) event()         {}
func (Commit) event()        {}
func (DeleteOffsets) event() {}
func (Delete) event()        {}
func (TopicsDeleted) event() {}
func (Tick) event()          {}
func (Loaded) event()        {}
func (Unload) event()        {}
func (Written) event()       {}

// Effects is what a Step wants done, in the order of the slices.
type Effects struct {
	Replies []Reply
	Writes  []Write
	Notes   []Note
}

// Reply is an answer that may be sent at once; Response is the …Response of the event that bore the token.
type Reply struct {
	Token    Token
	Response any
}

// Write is a set of records to append as one batch. Its outcome comes back to the group as Written.
type Write struct {
	Records []Record
	then    continuation
}

// continuation is the rest of a request whose records are on their way.
type continuation interface {
	written(g *Group, now time.Time, err error, e *Effects)
}

// Note is a line for the operator's log: a message and slog's key-value pairs.
type Note struct {
	Warn    bool
	Message string
	Args    []any
}

func (e *Effects) reply(t Token, response any) {
	e.Replies = append(e.Replies, Reply{Token: t, Response: response})
}

func (e *Effects) note(message string, args ...any) {
	e.Notes = append(e.Notes, Note{Message: message, Args: args})
}

func (e *Effects) warn(message string, args ...any) {
	e.Notes = append(e.Notes, Note{Warn: true, Message: message, Args: args})
}
