package catalog

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// Command is one change, all or nothing on the disk. Its items are judged one by
// one when it is applied: an item that does not fit the image is left out and
// gets an error in the [Result], the others take effect together.
type Command interface{ kind() commandKind }

type commandKind byte

const (
	kindSetCluster commandKind = 1 + iota
	kindCreateTopics
	kindDeleteTopics
	kindCreatePartitions
	kindAlterConfigs
	kindAllocateProducerIDs
	kindRegisterBroker
	kindAssignDirs
)

// SetCluster gives a new cluster its identity.
type SetCluster struct{ ClusterID string }

// CreateTopics creates topics with all their assignments, whatever their number.
type CreateTopics struct{ Topics []NewTopic }

// NewTopic is a topic to be created. The proposer has drawn the id.
type NewTopic struct {
	Name       string
	ID         TopicID
	Partitions []Partition
	Configs    map[string]string
}

// DeleteTopics removes topics.
type DeleteTopics struct{ IDs []TopicID }

// CreatePartitions adds partitions to topics.
type CreatePartitions struct{ Topics []MorePartitions }

// MorePartitions are partitions to be added to one topic.
type MorePartitions struct {
	ID         TopicID
	From       int // number of partitions the topic must have; else ErrConflict
	Partitions []Partition
}

// AlterConfigs replaces the dynamic configs of resources.
type AlterConfigs struct {
	Base    uint64 // version of the image it was planned on
	Changes []ConfigChange
}

// ConfigChange gives one resource a new set of configs; an empty one removes
// them. It is refused with ErrConflict when the resource changed after Base.
type ConfigChange struct {
	Type    ResourceType
	Name    string
	Configs map[string]string
}

// AllocateProducerIDs reserves a block of producer ids for one broker.
type AllocateProducerIDs struct {
	BrokerID int32
	Count    int64
}

// RegisterBroker makes a broker and its listeners known.
type RegisterBroker struct{ Broker Broker }

// AssignDirs says in which log directories brokers keep their replicas, and where to
// they are being moved.
type AssignDirs struct{ Replicas []ReplicaDir }

// ReplicaDir begins, ends or gives up the move of one replica. Dir is where it lies, or,
// to end a move, where it was being moved to: any other is refused with ErrConflict,
// unless nothing was known so far.
type ReplicaDir struct {
	Topic     TopicID
	Partition int32
	Broker    int32
	Dir       DirID
	Future    DirID // where it is being moved to from now on; zero: nowhere
	Expect    DirID // unless zero: where it must be being moved to until now; else ErrConflict
}

func (SetCluster) kind() commandKind          { return kindSetCluster }
func (CreateTopics) kind() commandKind        { return kindCreateTopics }
func (DeleteTopics) kind() commandKind        { return kindDeleteTopics }
func (CreatePartitions) kind() commandKind    { return kindCreatePartitions }
func (AlterConfigs) kind() commandKind        { return kindAlterConfigs }
func (AllocateProducerIDs) kind() commandKind { return kindAllocateProducerIDs }
func (RegisterBroker) kind() commandKind      { return kindRegisterBroker }
func (AssignDirs) kind() commandKind          { return kindAssignDirs }

// Result is what became of a command.
type Result struct {
	Image           *Image  // the image it led to
	Errors          []error // per item, in the command's order; nil entries took effect
	FirstProducerID int64   // of the block that AllocateProducerIDs reserved
}

// Event is one thing that a command changed.
type Event struct {
	Kind      EventKind
	Topic     TopicID      // of the topic events
	Type      ResourceType // of ConfigsChanged, and with it
	Name      string       // the resource's name; for the topic events the topic's name
	Partition int32        // of DirAssigned
}

// EventKind says what was changed.
type EventKind int8

// The kinds of events.
const (
	TopicCreated EventKind = 1 + iota
	TopicDeleted
	PartitionsAdded
	ConfigsChanged
	BrokerRegistered
	ProducerIDsAllocated
	ClusterSet
	DirAssigned
	PartitionChanged
)

// Apply is the state machine: it applies one command to an image and returns the
// image that follows. It is pure and deterministic. When the command changes
// nothing the result holds the image that was given.
func Apply(img *Image, cmd Command) (Result, error) {
	d := img.next()
	var res Result
	switch c := cmd.(type) {
	case SetCluster:
		res.Errors = []error{d.setCluster(c)}
	case CreateTopics:
		res.Errors = each(c.Topics, d.createTopic)
	case DeleteTopics:
		res.Errors = each(c.IDs, d.deleteTopic)
	case CreatePartitions:
		res.Errors = each(c.Topics, d.createPartitions)
	case AlterConfigs:
		res.Errors = each(c.Changes, func(ch ConfigChange) error { return d.alterConfigs(img, c.Base, ch) })
	case AllocateProducerIDs:
		res.FirstProducerID = d.nextProducerID
		res.Errors = []error{d.allocateProducerIDs(c)}
	case RegisterBroker:
		res.Errors = []error{d.registerBroker(c)}
	case AssignDirs:
		owned := map[TopicID]*Topic{}
		res.Errors = each(c.Replicas, func(r ReplicaDir) error { return d.assignDir(owned, r) })
	default:
		return Result{Image: img}, fmt.Errorf("%w: %T", ErrUnknownCommand, cmd)
	}
	res.Image = d.Image
	if len(d.events) == 0 {
		res.Image = img
	}
	return res, nil
}

// each judges items one by one.
func each[T any](items []T, apply func(T) error) []error {
	errs := make([]error, len(items))
	for i, item := range items {
		errs[i] = apply(item)
	}
	return errs
}

func (d *draft) note(e Event) { d.events = append(d.events, e) }

func (d *draft) setCluster(c SetCluster) error {
	if d.clusterID != "" && d.clusterID != c.ClusterID {
		return ErrClusterMismatch
	}
	if d.clusterID == c.ClusterID {
		return nil
	}
	d.clusterID = c.ClusterID
	d.note(Event{Kind: ClusterSet, Name: c.ClusterID})
	return nil
}

func (d *draft) createTopic(n NewTopic) error {
	switch {
	case n.Name == "" || n.ID == (TopicID{}) || len(n.Partitions) == 0:
		return ErrInvalid
	case d.Topic(n.Name) != nil:
		return ErrTopicExists
	case d.TopicByID(n.ID) != nil:
		return ErrInvalid
	}
	d.put(&Topic{Name: n.Name, ID: n.ID, Partitions: clonePartitions(n.Partitions), Configs: maps.Clone(n.Configs), Version: d.version})
	d.note(Event{Kind: TopicCreated, Topic: n.ID, Name: n.Name})
	return nil
}

func (d *draft) deleteTopic(id TopicID) error {
	t := d.TopicByID(id)
	if t == nil {
		return ErrUnknownTopic
	}
	d.remove(t)
	d.note(Event{Kind: TopicDeleted, Topic: id, Name: t.Name})
	return nil
}

func (d *draft) createPartitions(m MorePartitions) error {
	t := d.TopicByID(m.ID)
	switch {
	case t == nil:
		return ErrUnknownTopic
	case len(t.Partitions) != m.From:
		return ErrConflict
	case len(m.Partitions) == 0:
		return ErrInvalid
	}
	grown := *t
	grown.Partitions = slices.Concat(t.Partitions, clonePartitions(m.Partitions))
	grown.Version = d.version
	d.put(&grown)
	d.note(Event{Kind: PartitionsAdded, Topic: t.ID, Name: t.Name})
	return nil
}

func (d *draft) alterConfigs(before *Image, base uint64, ch ConfigChange) error {
	if ch.Type == ResourceTopic && d.Topic(ch.Name) == nil {
		return ErrUnknownTopic
	}
	if before.configVersion(ch.Type, ch.Name) > base {
		return ErrConflict
	}
	if maps.Equal(d.Config(ch.Type, ch.Name), ch.Configs) {
		return nil
	}
	e := Event{Kind: ConfigsChanged, Type: ch.Type, Name: ch.Name}
	if ch.Type == ResourceTopic {
		changed := *d.Topic(ch.Name)
		changed.Configs, changed.Version = maps.Clone(ch.Configs), d.version
		d.put(&changed)
		e.Topic = changed.ID
	} else {
		d.putConfigs(configKey{ch.Type, ch.Name}, configSet{maps.Clone(ch.Configs), d.version})
	}
	d.note(e)
	return nil
}

func (d *draft) allocateProducerIDs(c AllocateProducerIDs) error {
	if c.Count <= 0 || d.nextProducerID+c.Count < 0 {
		return ErrInvalid
	}
	d.nextProducerID += c.Count
	d.note(Event{Kind: ProducerIDsAllocated})
	return nil
}

func (d *draft) registerBroker(c RegisterBroker) error {
	if c.Broker.ID < 0 {
		return ErrInvalid
	}
	b := c.Broker
	b.Epoch = int64(d.version)
	b.Endpoints = slices.Clone(b.Endpoints)
	d.putBroker(b)
	d.note(Event{Kind: BrokerRegistered})
	return nil
}

// assignDir keeps in owned the topics that this command has copied already.
func (d *draft) assignDir(owned map[TopicID]*Topic, c ReplicaDir) error {
	t := d.TopicByID(c.Topic)
	if t == nil || c.Partition < 0 || int(c.Partition) >= len(t.Partitions) {
		return ErrUnknownTopic
	}
	p := &t.Partitions[c.Partition]
	at := slices.Index(p.Replicas, c.Broker)
	if at < 0 || c.Dir == (DirID{}) || c.Dir == c.Future {
		return ErrInvalid
	}
	dir, future := p.Dir(c.Broker), p.Future(c.Broker)
	switch {
	case c.Expect != (DirID{}) && c.Expect != future, dir != (DirID{}) && c.Dir != dir && c.Dir != future:
		return ErrConflict
	case c.Dir == dir && c.Future == future:
		return nil
	}
	if owned[c.Topic] == nil {
		changed := *t
		changed.Partitions, changed.Version = slices.Clone(t.Partitions), d.version
		owned[c.Topic] = &changed
		d.put(&changed)
		p = &changed.Partitions[c.Partition]
	}
	p.Dirs, p.Futures = withDir(p.Dirs, len(p.Replicas), at, c.Dir), withDir(p.Futures, len(p.Replicas), at, c.Future)
	p.PartitionEpoch++
	d.note(Event{Kind: DirAssigned, Topic: t.ID, Name: t.Name, Partition: c.Partition})
	return nil
}

// withDir is a copy of dirs, one for each replica, with one of them changed; nil when all are zero.
func withDir(dirs []DirID, replicas, at int, id DirID) []DirID {
	changed := make([]DirID, replicas)
	copy(changed, dirs)
	changed[at] = id
	if !slices.ContainsFunc(changed, func(id DirID) bool { return id != DirID{} }) {
		return nil
	}
	return changed
}

func clonePartitions(ps []Partition) []Partition {
	out := slices.Clone(ps)
	for i := range out {
		out[i].Replicas = slices.Clone(out[i].Replicas)
		out[i].ISR = slices.Clone(out[i].ISR)
		out[i].Dirs = slices.Clone(out[i].Dirs)
		out[i].Futures = slices.Clone(out[i].Futures)
	}
	return out
}

// commandVersion is the version of the encoded form: [version, kind, JSON…].
const commandVersion = 1

// EncodeCommand writes a command for a log.
func EncodeCommand(cmd Command) ([]byte, error) {
	body, err := json.Marshal(cmd)
	if err != nil {
		return nil, fmt.Errorf("catalog: encode command: %w", err)
	}
	return append([]byte{commandVersion, byte(cmd.kind())}, body...), nil
}

// DecodeCommand reads what [EncodeCommand] wrote.
func DecodeCommand(b []byte) (Command, error) {
	if len(b) < 2 {
		return nil, fmt.Errorf("%w: %d bytes", ErrUnknownCommand, len(b))
	}
	if b[0] != commandVersion {
		return nil, fmt.Errorf("%w: version %d", ErrUnknownCommand, b[0])
	}
	switch commandKind(b[1]) {
	case kindSetCluster:
		return decodeAs[SetCluster](b[2:])
	case kindCreateTopics:
		return decodeAs[CreateTopics](b[2:])
	case kindDeleteTopics:
		return decodeAs[DeleteTopics](b[2:])
	case kindCreatePartitions:
		return decodeAs[CreatePartitions](b[2:])
	case kindAlterConfigs:
		return decodeAs[AlterConfigs](b[2:])
	case kindAllocateProducerIDs:
		return decodeAs[AllocateProducerIDs](b[2:])
	case kindRegisterBroker:
		return decodeAs[RegisterBroker](b[2:])
	case kindAssignDirs:
		return decodeAs[AssignDirs](b[2:])
	}
	return nil, fmt.Errorf("%w: kind %d", ErrUnknownCommand, b[1])
}

func decodeAs[C Command](body []byte) (Command, error) {
	var c C
	if err := json.Unmarshal(body, &c); err != nil {
		return nil, fmt.Errorf("catalog: decode command: %w", err)
	}
	return c, nil
}
