package group

import (
	"slices"
	"time"
)

// State is where a group stands in its life.
type State int8

// The states of a group, see the package comment.
const (
	Empty State = iota
	PreparingRebalance
	CompletingRebalance
	Stable
	Dead
)

var stateNames = [...]string{"Empty", "PreparingRebalance", "CompletingRebalance", "Stable", "Dead"}

// String is the state's name as the protocol spells it.
func (s State) String() string { return stateNames[s] }

// consumerProtocolType is the protocol type of consumers, whose metadata the broker can read.
const consumerProtocolType = "consumer"

// Config is what the broker's configuration says about groups.
type Config struct {
	MaxSize                int           // group.max.size
	InitialRebalanceDelay  time.Duration // group.initial.rebalance.delay.ms: more time for the first members to arrive
	MinSessionTimeout      time.Duration // group.min.session.timeout.ms
	MaxSessionTimeout      time.Duration // group.max.session.timeout.ms
	NewMemberJoinTimeout   time.Duration // how long a new member may wait in its first join
	OffsetMetadataMaxBytes int           // offset.metadata.max.bytes, counted in UTF-16 units as Kafka does
	OffsetsRetention       time.Duration // offsets.retention.minutes
	RetentionCheckInterval time.Duration // offsets.retention.check.interval.ms: not looked at more often than that
}

// DefaultConfig is Kafka's.
func DefaultConfig() Config {
	return Config{
		MaxSize:                1<<31 - 1,
		InitialRebalanceDelay:  3 * time.Second,
		MinSessionTimeout:      6 * time.Second,
		MaxSessionTimeout:      30 * time.Minute,
		NewMemberJoinTimeout:   5 * time.Minute,
		OffsetMetadataMaxBytes: 4096,
		OffsetsRetention:       7 * 24 * time.Hour,
		RetentionCheckInterval: 10 * time.Minute,
	}
}

// Group is one classic group with its committed offsets. It is not safe for concurrent use.
type Group struct {
	id  string
	cfg *Config

	state, previous  State
	stateTimestampMs int64
	protocolType     *string
	protocol         *string
	generation       int32
	leader           *string
	members          map[string]*member
	static           map[string]string    // member id by instance id
	pendingJoin      map[string]time.Time // ids handed out and not yet used, until when
	pendingSync      map[string]bool      // members of this generation that have not synced
	awaitingJoin     int                  // members whose join waits
	supported        map[string]int       // members by protocol that they offer
	subscribed       map[string]bool      // topics read by the members; nil when not known
	newMemberAdded   bool
	nextSeq          uint64

	joinTimer   joinTimer
	syncTimer   time.Time
	expiryCheck time.Time
	wake        time.Time

	offsets   map[string]map[int32]Offset
	pending   map[TopicPartition]inFlightCommit
	saved     *Metadata // the group's newest durable record
	stored    bool      // some record of the group is durable: others may see it
	fresh     bool      // nothing has happened to it yet
	inFlight  int       // writes whose outcome is not known
	deleting  int       // of those, the ones that end the group
	liveBytes int64
}

// joinTimer ends the phase in which members join.
type joinTimer struct {
	at        time.Time // zero: not running
	initial   bool      // the first rebalance is delayed, and further while members arrive
	delay     time.Duration
	remaining time.Duration
}

// New is a group that nobody knows yet; it exists for others once a record of it is durable.
func New(id string, cfg *Config) *Group {
	return &Group{
		id: id, cfg: cfg,
		state: Empty, previous: Dead, stateTimestampMs: NoTimestamp,
		members: map[string]*member{}, static: map[string]string{},
		pendingJoin: map[string]time.Time{}, pendingSync: map[string]bool{}, supported: map[string]int{},
		offsets: map[string]map[int32]Offset{}, pending: map[TopicPartition]inFlightCommit{},
		fresh: true,
	}
}

// ID is the group's id.
func (g *Group) ID() string { return g.id }

// State is where the group stands.
func (g *Group) State() State { return g.state }

// Wake is by when the group wants a Tick; zero when it wants none.
func (g *Group) Wake() time.Time { return g.wake }

// Exists tells whether others may see the group: a record of it is durable, or it has members already.
func (g *Group) Exists() bool { return g.stored || len(g.members) > 0 }

// Deleting tells that the end of the group is on its way to the log: whoever wants to change the group
// has to wait for the outcome.
func (g *Group) Deleting() bool { return g.deleting > 0 }

// InFlight is the number of writes whose outcome is not known.
func (g *Group) InFlight() int { return g.inFlight }

// Gone tells that there is nothing left to keep the group for.
func (g *Group) Gone() bool {
	return g.inFlight == 0 && (g.state == Dead || !g.stored && len(g.members) == 0 && len(g.pendingJoin) == 0)
}

// LiveBytes estimates what the group takes in a log that holds nothing twice.
func (g *Group) LiveBytes() int64 { return g.liveBytes }

// sorted lists the members in the order of their arrival.
func (g *Group) sorted() []*member {
	all := make([]*member, 0, len(g.members))
	for _, m := range g.members {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *member) int {
		if a.seq < b.seq {
			return -1
		}
		return 1
	})
	return all
}

func (g *Group) isLeader(memberID string) bool { return g.leader != nil && *g.leader == memberID }

func (g *Group) usesConsumerProtocol() bool {
	return g.protocolType != nil && *g.protocolType == consumerProtocolType
}

func (g *Group) allJoined() bool {
	return len(g.members) == g.awaitingJoin && len(g.pendingJoin) == 0
}

// rebalanceTimeout is the longest of the members'.
func (g *Group) rebalanceTimeout() time.Duration {
	var longest int32
	for _, m := range g.members {
		longest = max(longest, m.rebalanceTimeoutMs)
	}
	return milliseconds(longest)
}

func milliseconds(ms int32) time.Duration { return time.Duration(ms) * time.Millisecond }

func (g *Group) add(m *member) {
	m.seq = g.nextSeq
	g.nextSeq++
	g.insert(m)
}

func (g *Group) insert(m *member) {
	if m.instanceID != nil {
		g.static[*m.instanceID] = m.id
	}
	if g.leader == nil {
		g.leader = &m.id
	}
	g.members[m.id] = m
	g.count(m, +1)
	if m.join != 0 {
		g.awaitingJoin++
	}
	delete(g.pendingJoin, m.id)
}

func (g *Group) remove(memberID string) {
	if m := g.members[memberID]; m != nil {
		delete(g.members, memberID)
		g.count(m, -1)
		if m.join != 0 {
			g.awaitingJoin--
		}
		if m.instanceID != nil {
			delete(g.static, *m.instanceID)
		}
	}
	if g.isLeader(memberID) {
		g.leader = nil
		if first := g.first(func(*member) bool { return true }); first != nil {
			g.leader = &first.id
		}
	}
	delete(g.pendingJoin, memberID)
	delete(g.pendingSync, memberID)
}

// first is the longest standing member that fits.
func (g *Group) first(fits func(*member) bool) *member {
	var found *member
	for _, m := range g.members {
		if fits(m) && (found == nil || m.seq < found.seq) {
			found = m
		}
	}
	return found
}

// count keeps the number of members by protocol.
func (g *Group) count(m *member, by int) {
	for _, p := range m.protocols {
		g.supported[p.Name] += by
		if g.supported[p.Name] == 0 {
			delete(g.supported, p.Name)
		}
	}
}

// update takes over what a member says when it joins again; join is 0 when nobody waits for the answer.
func (g *Group) update(m *member, protocols []Protocol, rebalanceTimeoutMs, sessionTimeoutMs int32, join Token) {
	g.count(m, -1)
	m.protocols = protocols
	g.count(m, +1)
	m.rebalanceTimeoutMs, m.sessionTimeoutMs = rebalanceTimeoutMs, sessionTimeoutMs
	if join != 0 && m.join == 0 {
		g.awaitingJoin++
	} else if join == 0 && m.join != 0 {
		g.awaitingJoin--
	}
	m.join = join
}

// supports tells whether a member that offers these protocols could join.
func (g *Group) supports(protocolType string, protocols []Protocol) bool {
	if g.state == Empty {
		return protocolType != "" && len(protocols) > 0
	}
	if g.protocolType == nil || *g.protocolType != protocolType {
		return false
	}
	return slices.ContainsFunc(protocols, func(p Protocol) bool { return g.supported[p.Name] == len(g.members) })
}

// selectProtocol lets each member vote for one of the protocols that all support.
// On a tie the one wins that was voted for first, in the order in which members arrived.
func (g *Group) selectProtocol() string {
	candidates := map[string]bool{}
	for name, n := range g.supported {
		if n == len(g.members) {
			candidates[name] = true
		}
	}
	votes := map[string]int{}
	chosen := ""
	for _, m := range g.sorted() {
		name := m.vote(candidates)
		votes[name]++
		if chosen == "" {
			chosen = name
		}
	}
	for _, m := range g.sorted() {
		if name := m.vote(candidates); votes[name] > votes[chosen] {
			chosen = name
		}
	}
	return chosen
}

// validate checks that the member is one, and that its instance id is still its own.
func (g *Group) validate(memberID string, instanceID *string) error {
	if instanceID != nil {
		owner, ok := g.static[*instanceID]
		if !ok {
			return ErrUnknownMemberID
		}
		if owner != memberID {
			return ErrFencedInstanceID
		}
	}
	if g.members[memberID] == nil {
		return ErrUnknownMemberID
	}
	return nil
}

func (g *Group) transition(now time.Time, to State) {
	g.previous, g.state = g.state, to
	g.stateTimestampMs = now.UnixMilli()
	if to == Empty || to == Stable {
		g.armExpiry(now)
	}
}

// metadata is the record of the group as it stands, with these assignments.
func (g *Group) metadata(assignment func(*member) []byte) *Metadata {
	v := &Metadata{
		ProtocolType:     deref(g.protocolType),
		Generation:       g.generation,
		Protocol:         g.protocol,
		Leader:           g.leader,
		StateTimestampMs: g.stateTimestampMs,
	}
	for _, m := range g.sorted() {
		v.Members = append(v.Members, MemberMetadata{
			ID: m.id, InstanceID: m.instanceID, ClientID: m.clientID, ClientHost: m.clientHost,
			RebalanceTimeoutMs: m.rebalanceTimeoutMs, SessionTimeoutMs: m.sessionTimeoutMs,
			Subscription: m.metadata(deref(g.protocol)), Assignment: assignment(m),
		})
	}
	return v
}

// write hands records to the log; then goes on when the outcome is known.
func (g *Group) write(e *Effects, records []Record, then continuation) {
	g.inFlight++
	for _, r := range records {
		if r.Offset != nil {
			tp := TopicPartition{r.Topic, r.Partition}
			g.pending[tp] = inFlightCommit{n: g.pending[tp].n + 1, topicID: r.Offset.TopicID}
		}
		if !r.IsOffset() && r.IsTombstone() {
			g.deleting++
		}
	}
	e.Writes = append(e.Writes, Write{Records: records, then: then})
}
