package catalog

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"hash/maphash"
	"iter"
	"maps"
	"slices"
	"sync"
)

// TopicID is the identity of a topic for as long as it exists; a topic that is
// deleted and made again under the same name has another one.
type TopicID [16]byte

// String writes the id as Kafka does: URL-safe base64 without padding.
func (id TopicID) String() string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// ParseTopicID reads what [TopicID.String] writes.
func ParseTopicID(s string) (TopicID, error) {
	var id TopicID
	raw, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(raw) != len(id) {
		return id, fmt.Errorf("catalog: %q is not a topic id", s)
	}
	copy(id[:], raw)
	return id, nil
}

// Topic is one topic. It is immutable once it is in an image.
type Topic struct {
	Name       string
	ID         TopicID
	Partitions []Partition       // the index is the partition number
	Configs    map[string]string // overrides only; nil when there are none
	Version    uint64            // version of the image that last changed this topic
}

// Partition is the placement and leadership of one partition.
type Partition struct {
	Leader         int32 // broker id, -1 when there is none
	LeaderEpoch    int32
	PartitionEpoch int32
	Replicas       []int32
	ISR            []int32 // those in sync, the leader among them; empty when there are eligible replicas only, or none
	Dirs           []DirID `json:",omitempty"` // of each replica (KIP-858); nil when none was chosen
	Futures        []DirID `json:",omitempty"` // where each replica is being moved to; nil when none is

	Adding       []int32 `json:",omitempty"` // those of Replicas that a reassignment (KIP-455) adds
	Removing     []int32 `json:",omitempty"` // those of Replicas that it removes once the others are in sync
	ELR          []int32 `json:",omitempty"` // eligible leader replicas (KIP-966): not in sync, but they have all that is committed; by id
	LastKnownELR []int32 `json:",omitempty"` // the last leader of a partition that has no in-sync replica
	Recovering   bool    `json:",omitempty"` // the leader was elected although it may lack committed records, and has not yet said that it has recovered
}

// Reassigning reports whether a reassignment is in progress.
func (p *Partition) Reassigning() bool { return len(p.Adding) > 0 || len(p.Removing) > 0 }

// Dir is the log directory in which a broker keeps its replica, the zero value when
// none was chosen.
func (p *Partition) Dir(broker int32) DirID { return p.dirOf(p.Dirs, broker) }

// Future is the log directory that a broker's replica is being moved to, the zero value
// when it stays where it is.
func (p *Partition) Future(broker int32) DirID { return p.dirOf(p.Futures, broker) }

func (p *Partition) dirOf(dirs []DirID, broker int32) DirID {
	for i, id := range p.Replicas {
		if id == broker && i < len(dirs) {
			return dirs[i]
		}
	}
	return DirID{}
}

// DirID is the identity of a log directory, whatever its path.
type DirID [16]byte

// String writes the id as Kafka writes its directory.id.
func (id DirID) String() string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// MarshalText is String.
func (id DirID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (id *DirID) UnmarshalText(text []byte) error {
	raw, err := base64.RawURLEncoding.DecodeString(string(text))
	if err != nil || len(raw) != len(id) {
		return fmt.Errorf("catalog: %q is not the id of a directory", text)
	}
	copy(id[:], raw)
	return nil
}

// ResourceType says what a set of dynamic configs belongs to. The numbers are
// those of Kafka's protocol.
type ResourceType int8

// The resources that carry dynamic configs. Those of a topic live in [Topic].
const (
	ResourceTopic         ResourceType = 2
	ResourceBroker        ResourceType = 4 // name "" is the default of all brokers
	ResourceClientMetrics ResourceType = 16
	ResourceGroup         ResourceType = 32
)

// configKey names one resource with dynamic configs.
type configKey struct {
	Type ResourceType
	Name string
}

// configSet is the dynamic configs of one resource.
type configSet struct {
	values  map[string]string
	version uint64
}

// shardCount bounds what one change copies: the array of shards and the shards
// touched, instead of a map of every topic.
const shardCount = 256

var shardSeed = maphash.MakeSeed()

func shardOf(name string) int { return int(maphash.String(shardSeed, name) % shardCount) }

// Image is the state after one command: immutable, safe for any number of readers.
type Image struct {
	version        uint64
	clusterID      string
	nextProducerID int64
	byName         *[shardCount]map[string]*Topic
	byID           *[shardCount]map[TopicID]*Topic
	topicCount     int
	partitionCount int
	brokers        []Broker // sorted by id
	features       map[string]int16
	configs        map[configKey]configSet
	configsRemoved uint64 // version of the image that last removed a whole set
	events         []Event

	sortOnce sync.Once
	sorted   []*Topic
}

// NewImage is the image before the first command.
func NewImage() *Image {
	return &Image{
		byName: new([shardCount]map[string]*Topic),
		byID:   new([shardCount]map[TopicID]*Topic),
	}
}

// Version counts the commands applied; it grows by one with each.
func (img *Image) Version() uint64 { return img.version }

// ClusterID is the identity of the cluster, "" before it was given one.
func (img *Image) ClusterID() string { return img.clusterID }

// NextProducerID is the first producer id that no block handed out contains.
func (img *Image) NextProducerID() int64 { return img.nextProducerID }

// Topic finds a topic by name, nil when there is none.
func (img *Image) Topic(name string) *Topic { return img.byName[shardOf(name)][name] }

// TopicByID finds a topic by id, nil when there is none.
func (img *Image) TopicByID(id TopicID) *Topic { return img.byID[id[0]][id] }

// Topics lists all topics by name. The slice is shared and must not be changed.
func (img *Image) Topics() []*Topic {
	img.sortOnce.Do(func() {
		all := make([]*Topic, 0, img.topicCount)
		for _, shard := range img.byName {
			for _, t := range shard {
				all = append(all, t)
			}
		}
		slices.SortFunc(all, func(a, b *Topic) int { return cmp.Compare(a.Name, b.Name) })
		img.sorted = all
	})
	return img.sorted
}

// EachTopic walks all topics in no order, which costs less than sorting them.
func (img *Image) EachTopic() iter.Seq[*Topic] {
	return func(yield func(*Topic) bool) {
		for _, shard := range img.byName {
			for _, t := range shard {
				if !yield(t) {
					return
				}
			}
		}
	}
}

// TopicCount is the number of topics.
func (img *Image) TopicCount() int { return img.topicCount }

// PartitionCount is the number of partitions of all topics.
func (img *Image) PartitionCount() int { return img.partitionCount }

// Config returns the dynamic configs of a resource, nil when it has none. For
// a broker the name is its decimal id, or "" for the default of all brokers.
// The map must not be changed.
func (img *Image) Config(kind ResourceType, name string) map[string]string {
	if kind == ResourceTopic {
		if t := img.Topic(name); t != nil {
			return t.Configs
		}
		return nil
	}
	return img.configs[configKey{kind, name}].values
}

// ConfigNames lists, sorted, the resources of a type that have dynamic configs.
func (img *Image) ConfigNames(kind ResourceType) []string {
	var names []string
	if kind == ResourceTopic {
		for _, t := range img.Topics() {
			if len(t.Configs) > 0 {
				names = append(names, t.Name)
			}
		}
		return names
	}
	for key := range img.configs {
		if key.Type == kind {
			names = append(names, key.Name)
		}
	}
	slices.Sort(names)
	return names
}

// Events says what the command that made this image changed, in its order.
// An image that was loaded from the disk has none.
func (img *Image) Events() []Event { return img.events }

// configVersion is the version of the image that last changed a resource's configs.
func (img *Image) configVersion(kind ResourceType, name string) uint64 {
	if kind == ResourceTopic {
		if t := img.Topic(name); t != nil {
			return t.Version
		}
		return 0
	}
	set, found := img.configs[configKey{kind, name}]
	if !found {
		return img.configsRemoved // it may have been this one
	}
	return set.version
}

// draft is an image being built. It copies a shard the first time it touches it.
type draft struct {
	*Image
	ownName, ownID [shardCount]bool
	ownConfigs     bool
	active         map[int32]*Broker // see activeBrokers
	edited         map[TopicID]bool  // whose partitions are this draft's own, see edit
}

// next starts the image that follows img.
func (img *Image) next() *draft {
	byName, byID := *img.byName, *img.byID
	return &draft{Image: &Image{
		version:        img.version + 1,
		clusterID:      img.clusterID,
		nextProducerID: img.nextProducerID,
		byName:         &byName,
		byID:           &byID,
		topicCount:     img.topicCount,
		partitionCount: img.partitionCount,
		brokers:        img.brokers,
		features:       img.features,
		configs:        img.configs,
		configsRemoved: img.configsRemoved,
	}}
}

// own makes the shards of a topic private to the draft.
func (d *draft) own(name string, id TopicID) (int, int) {
	n, i := shardOf(name), int(id[0])
	if !d.ownName[n] {
		d.byName[n], d.ownName[n] = copyMap(d.byName[n]), true
	}
	if !d.ownID[i] {
		d.byID[i], d.ownID[i] = copyMap(d.byID[i]), true
	}
	return n, i
}

func copyMap[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return map[K]V{}
	}
	return maps.Clone(m)
}

// put adds a topic or replaces the one with its id.
func (d *draft) put(t *Topic) {
	if old := d.TopicByID(t.ID); old != nil {
		d.remove(old)
	}
	n, i := d.own(t.Name, t.ID)
	d.byName[n][t.Name] = t
	d.byID[i][t.ID] = t
	d.topicCount++
	d.partitionCount += len(t.Partitions)
}

// replace puts a topic in the place of the one that has its name and id.
func (d *draft) replace(t *Topic) {
	n, i := d.own(t.Name, t.ID)
	d.byName[n][t.Name], d.byID[i][t.ID] = t, t
}

// edit gives the version of a topic whose partitions may be changed: a copy, made by the first
// change of a command and in the image already.
func (d *draft) edit(t *Topic) *Topic {
	if d.edited[t.ID] {
		return d.TopicByID(t.ID)
	}
	changed := *t
	changed.Partitions, changed.Version = slices.Clone(t.Partitions), d.version
	d.replace(&changed)
	if d.edited == nil {
		d.edited = map[TopicID]bool{}
	}
	d.edited[t.ID] = true
	return &changed
}

// expect makes room for many edits and their events.
func (d *draft) expect(topics, events int) {
	d.events = slices.Grow(d.events, events)
	if d.edited == nil {
		d.edited = make(map[TopicID]bool, topics)
	}
}

// remove takes a topic out.
func (d *draft) remove(t *Topic) {
	n, i := d.own(t.Name, t.ID)
	delete(d.byName[n], t.Name)
	delete(d.byID[i], t.ID)
	d.topicCount--
	d.partitionCount -= len(t.Partitions)
}

// putConfigs replaces the configs of a resource that is not a topic; none removes it.
func (d *draft) putConfigs(key configKey, set configSet) {
	if !d.ownConfigs {
		d.configs, d.ownConfigs = copyMap(d.configs), true
	}
	if len(set.values) == 0 {
		delete(d.configs, key)
		d.configsRemoved = set.version
		return
	}
	d.configs[key] = set
}
