package catalog

import (
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
	kindFenceBroker
	kindUnfenceBroker
	kindStopBroker
	kindUnregisterBroker
	kindChangeISR
	kindElectLeaders
	kindReassign
	kindSetFeatures
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

func (SetCluster) kind() commandKind          { return kindSetCluster }
func (CreateTopics) kind() commandKind        { return kindCreateTopics }
func (DeleteTopics) kind() commandKind        { return kindDeleteTopics }
func (CreatePartitions) kind() commandKind    { return kindCreatePartitions }
func (AlterConfigs) kind() commandKind        { return kindAlterConfigs }
func (AllocateProducerIDs) kind() commandKind { return kindAllocateProducerIDs }
func (RegisterBroker) kind() commandKind      { return kindRegisterBroker }
func (AssignDirs) kind() commandKind          { return kindAssignDirs }
func (FenceBroker) kind() commandKind         { return kindFenceBroker }
func (UnfenceBroker) kind() commandKind       { return kindUnfenceBroker }
func (StopBroker) kind() commandKind          { return kindStopBroker }
func (UnregisterBroker) kind() commandKind    { return kindUnregisterBroker }
func (ChangeISR) kind() commandKind           { return kindChangeISR }
func (ElectLeaders) kind() commandKind        { return kindElectLeaders }
func (Reassign) kind() commandKind            { return kindReassign }
func (SetFeatures) kind() commandKind         { return kindSetFeatures }

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
	Partition int32        // of DirAssigned and PartitionChanged
	Broker    int32        // of BrokerRegistered and BrokerChanged
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
	PartitionChanged // of its leader, epochs, in-sync set, replicas; one event for each partition
	BrokerChanged    // was fenced, unfenced, is stopping, or is gone; the image says which
	FeaturesChanged
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
		res.Errors = each(c.Replicas, d.assignDir)
	case FenceBroker:
		res.Errors = []error{d.fenceBroker(c)}
	case UnfenceBroker:
		res.Errors = []error{d.unfenceBroker(c)}
	case StopBroker:
		res.Errors = []error{d.stopBroker(c)}
	case UnregisterBroker:
		res.Errors = []error{d.unregisterBroker(c)}
	case ChangeISR:
		res.Errors = d.changeISRs(c)
	case ElectLeaders:
		res.Errors = each(c.Partitions, func(p PartitionRef) error { return d.electLeader(c.Kind, p) })
	case Reassign:
		res.Errors = each(c.Partitions, d.reassign)
	case SetFeatures:
		res.Errors = d.setFeatures(c)
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
	partitions := clonePartitions(n.Partitions)
	if err := d.admit(partitions); err != nil {
		return err
	}
	d.put(&Topic{Name: n.Name, ID: n.ID, Partitions: partitions, Configs: maps.Clone(n.Configs), Version: d.version})
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
	added := clonePartitions(m.Partitions)
	if err := d.admit(added); err != nil {
		return err
	}
	grown := *t
	grown.Partitions = slices.Concat(t.Partitions, added)
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
	d.followConfigs(ch)
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

func clonePartitions(ps []Partition) []Partition {
	out := slices.Clone(ps)
	for i := range out {
		out[i].Replicas = slices.Clone(out[i].Replicas)
		out[i].ISR = slices.Clone(out[i].ISR)
		out[i].Dirs = slices.Clone(out[i].Dirs)
		out[i].Futures = slices.Clone(out[i].Futures)
		out[i].Adding = slices.Clone(out[i].Adding)
		out[i].Removing = slices.Clone(out[i].Removing)
		out[i].ELR = slices.Clone(out[i].ELR)
		out[i].LastKnownELR = slices.Clone(out[i].LastKnownELR)
	}
	return out
}
