package config

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"time"
)

// defaultNodeID is the number of a node that was not given one.
const defaultNodeID = int64(1)

// Broker is the configuration of this node: what its properties, the dynamic
// configs and Kafka's defaults come to. It is immutable.
type Broker struct {
	NodeID     int32  // node.id, broker.id
	Rack       string // broker.rack
	Listeners  []Listener
	Advertised []Listener // advertised.listeners; empty: each client is told the address it reached
	LogDirs    []string   // log.dirs, log.dir

	LeaderRebalance      bool          // auto.leader.rebalance.enable
	LeaderImbalanceCheck time.Duration // leader.imbalance.check.interval.seconds

	Cluster         bool     // cluster.enable
	BootstrapExpect int      // cluster.bootstrap.expect
	Join            []string // cluster.join
	PeerListener    string   // peer.listener
	PeerAdvertised  string   // peer.advertised.listener; empty: as PeerListener
	PeerSecretFile  string   // peer.secret.file; empty: none
	PeerCertFile    string   // peer.tls.cert.file; empty: no TLS
	PeerKeyFile     string   // peer.tls.key.file
	PeerCAFile      string   // peer.tls.ca.file

	NumPartitions            int32         // num.partitions
	DefaultReplicationFactor int16         // default.replication.factor
	AutoCreateTopics         bool          // auto.create.topics.enable
	DeleteTopics             bool          // delete.topic.enable
	MinInsyncReplicas        int32         // min.insync.replicas
	ReplicaLagTimeMax        time.Duration // replica.lag.time.max.ms
	RackAwareReads           bool          // replica.selector.class is RackAwareSelector
	MessageMaxBytes          int           // message.max.bytes
	LogTailBytes             int64         // log.tail.bytes
	LogDirStallTimeout       time.Duration // log.dir.stall.timeout.ms
	RetentionCheckInterval   time.Duration // log.retention.check.interval.ms
	InitialTaskDelay         time.Duration // log.initial.task.delay.ms

	SocketRequestMaxBytes       int           // socket.request.max.bytes
	SocketSendBufferBytes       int           // socket.send.buffer.bytes; -1 leaves it to the system
	SocketReceiveBufferBytes    int           // socket.receive.buffer.bytes; -1 leaves it to the system
	MaxConnections              int           // max.connections
	MaxConnectionsPerIP         int           // max.connections.per.ip
	ConnectionsMaxIdle          time.Duration // connections.max.idle.ms; negative: for ever
	QueuedMaxRequestBytes       int64         // queued.max.request.bytes; -1 takes the built-in budget
	FetchMaxBytes               int           // fetch.max.bytes
	FetchSessionSlots           int           // max.incremental.fetch.session.cache.slots
	MaxRequestPartitionSize     int           // max.request.partition.size.limit
	GroupMinSessionTimeout      time.Duration // group.min.session.timeout.ms
	GroupMaxSessionTimeout      time.Duration // group.max.session.timeout.ms
	GroupMaxSize                int           // group.max.size
	GroupInitialRebalanceDelay  time.Duration // group.initial.rebalance.delay.ms
	OffsetMetadataMaxBytes      int           // offset.metadata.max.bytes
	OffsetsCommitTimeout        time.Duration // offsets.commit.timeout.ms
	OffsetsRetention            time.Duration // offsets.retention.minutes
	OffsetsRetentionCheck       time.Duration // offsets.retention.check.interval.ms
	OffsetsTopicPartitions      int32         // offsets.topic.num.partitions
	OffsetsTopicReplication     int16         // offsets.topic.replication.factor
	OffsetsTopicSegmentBytes    int           // offsets.topic.segment.bytes
	ProducerIDExpiration        time.Duration // producer.id.expiration.ms
	TransactionMaxTimeout       time.Duration // transaction.max.timeout.ms
	topicDefaults               map[string]value
	static, perBroker, defaults map[string]string // as given: properties, this broker's and all brokers' dynamic configs
	values                      map[string]value  // effective, every key of brokerKeys that has a value
}

// ParseBroker reads the properties of a broker as Kafka reads server.properties.
// All that is wrong with them is reported at once.
func ParseBroker(props map[string]string) (*Broker, []Warning, error) {
	b := &Broker{static: maps.Clone(props)}
	if b.static == nil {
		b.static = map[string]string{}
	}
	warnings, err := checkProperties(b.static)
	if err == nil {
		err = sameNode(b.static)
	}
	if err == nil {
		err = b.resolve()
	}
	if err != nil {
		return nil, warnings, err
	}
	return b, warnings, nil
}

// sameNode makes node.id and broker.id one, as Kafka describes them.
func sameNode(props map[string]string) error {
	node, hasNode := props["node.id"]
	broker, hasBroker := props["broker.id"]
	switch {
	case hasNode && hasBroker && strings.TrimSpace(node) != strings.TrimSpace(broker):
		return &ConflictError{"You must set `node.id` to the same value as `broker.id`."}
	case hasNode:
		props["broker.id"] = node
	case hasBroker:
		props["node.id"] = broker
	}
	return nil
}

// WithDynamic makes the configuration that results when dynamic configs are laid
// over the properties: those of this broker over those of all brokers. Values that
// do not parse are an error; names that Kafka does not know are kept and have no effect.
func (b *Broker) WithDynamic(perBroker, defaults map[string]string) (*Broker, error) {
	next := &Broker{static: b.static, perBroker: maps.Clone(perBroker), defaults: maps.Clone(defaults)}
	if err := next.resolve(); err != nil {
		return nil, err
	}
	return next, nil
}

// Get returns the effective value of any key as it is described; found is false
// when there is no such key or it has no value.
func (b *Broker) Get(key string) (text string, found bool) {
	v, found := b.values[key]
	if !found {
		return "", false
	}
	return format(v), true
}

// IsSet reports whether a key was given a value, by a property or dynamically.
func (b *Broker) IsSet(key string) bool {
	for _, layer := range b.layers() {
		if _, found := layer[key]; found {
			return true
		}
	}
	return false
}

// layers are the sources of values, the strongest first.
func (b *Broker) layers() []map[string]string {
	return []map[string]string{b.perBroker, b.defaults, b.static}
}

// resolve parses every effective value and fills the typed fields.
func (b *Broker) resolve() error {
	b.values = make(map[string]value, len(brokerKeys))
	var errs []error
	for i := range brokerKeys {
		k := &brokerKeys[i]
		text, found := b.text(k)
		if !found {
			continue
		}
		v, err := k.parse(text)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		b.values[k.Name] = v
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if err := b.fill(); err != nil {
		return err
	}
	b.fillTopicDefaults()
	return nil
}

// Given is what this node's properties say for a key, false when they say nothing.
func (b *Broker) Given(key string) (string, bool) {
	value, given := b.static[key]
	return value, given
}

// text finds the strongest text for a key.
func (b *Broker) text(k *Key) (string, bool) {
	for n, layer := range b.layers() {
		if n < 2 && k.readOnly() {
			continue
		}
		if text, found := layer[k.Name]; found {
			return text, true
		}
	}
	return k.Default, !k.noDefault()
}

func (b *Broker) int(key string) int       { n, _ := b.values[key].(int64); return int(n) }
func (b *Broker) bool(key string) bool     { v, _ := b.values[key].(bool); return v }
func (b *Broker) list(key string) []string { v, _ := b.values[key].([]string); return v }

func (b *Broker) millis(key string) time.Duration {
	n, _ := b.values[key].(int64)
	return Millis(n)
}

// Millis turns Kafka's milliseconds into a duration; what does not fit becomes
// the longest duration there is.
func Millis(n int64) time.Duration {
	const most = int64(1<<63-1) / int64(time.Millisecond)
	if n > most {
		return 1<<63 - 1
	}
	return time.Duration(max(n, -most)) * time.Millisecond
}

// fill sets the typed fields from the values.
func (b *Broker) fill() error {
	if _, found := b.values["node.id"]; !found {
		b.values["node.id"], b.values["broker.id"] = defaultNodeID, defaultNodeID
	}
	b.NodeID = int32(b.int("node.id"))
	b.Rack, _ = b.values["broker.rack"].(string)
	b.LogDirs = trimAll(b.list("log.dirs"))
	if len(b.LogDirs) == 0 {
		b.LogDirs = trimAll(b.list("log.dir"))
	}

	b.LeaderRebalance = b.bool("auto.leader.rebalance.enable")
	b.LeaderImbalanceCheck = Millis(int64(b.int("leader.imbalance.check.interval.seconds")) * 1000)
	b.Cluster = b.bool("cluster.enable")
	b.BootstrapExpect = b.int("cluster.bootstrap.expect")
	b.Join = trimAll(b.list("cluster.join"))
	b.PeerListener, _ = b.values["peer.listener"].(string)
	b.PeerAdvertised, _ = b.values["peer.advertised.listener"].(string)
	b.PeerSecretFile, _ = b.values["peer.secret.file"].(string)
	b.PeerCertFile, _ = b.values["peer.tls.cert.file"].(string)
	b.PeerKeyFile, _ = b.values["peer.tls.key.file"].(string)
	b.PeerCAFile, _ = b.values["peer.tls.ca.file"].(string)

	b.NumPartitions = int32(b.int("num.partitions"))
	b.DefaultReplicationFactor = int16(b.int("default.replication.factor"))
	b.AutoCreateTopics = b.bool("auto.create.topics.enable")
	b.DeleteTopics = b.bool("delete.topic.enable")
	b.MinInsyncReplicas = int32(b.int("min.insync.replicas"))
	b.ReplicaLagTimeMax = b.millis("replica.lag.time.max.ms")
	selector, _ := b.values["replica.selector.class"].(string)
	b.RackAwareReads = selector == RackAwareSelector
	b.MessageMaxBytes = b.int("message.max.bytes")
	b.LogTailBytes = int64(b.int("log.tail.bytes"))
	b.LogDirStallTimeout = b.millis("log.dir.stall.timeout.ms")
	b.RetentionCheckInterval = b.millis("log.retention.check.interval.ms")
	b.InitialTaskDelay = b.millis("log.initial.task.delay.ms")

	b.SocketRequestMaxBytes = b.int("socket.request.max.bytes")
	b.SocketSendBufferBytes = b.int("socket.send.buffer.bytes")
	b.SocketReceiveBufferBytes = b.int("socket.receive.buffer.bytes")
	b.MaxConnections = b.int("max.connections")
	b.MaxConnectionsPerIP = b.int("max.connections.per.ip")
	b.ConnectionsMaxIdle = b.millis("connections.max.idle.ms")
	b.QueuedMaxRequestBytes = int64(b.int("queued.max.request.bytes"))
	b.FetchMaxBytes = b.int("fetch.max.bytes")
	b.FetchSessionSlots = b.int("max.incremental.fetch.session.cache.slots")
	b.MaxRequestPartitionSize = b.int("max.request.partition.size.limit")

	b.GroupMinSessionTimeout = b.millis("group.min.session.timeout.ms")
	b.GroupMaxSessionTimeout = b.millis("group.max.session.timeout.ms")
	b.GroupMaxSize = b.int("group.max.size")
	b.GroupInitialRebalanceDelay = b.millis("group.initial.rebalance.delay.ms")
	b.OffsetMetadataMaxBytes = b.int("offset.metadata.max.bytes")
	b.OffsetsCommitTimeout = b.millis("offsets.commit.timeout.ms")
	b.OffsetsRetention = time.Duration(b.int("offsets.retention.minutes")) * time.Minute
	b.OffsetsRetentionCheck = b.millis("offsets.retention.check.interval.ms")
	b.OffsetsTopicPartitions = int32(b.int("offsets.topic.num.partitions"))
	b.OffsetsTopicReplication = int16(b.int("offsets.topic.replication.factor"))
	b.OffsetsTopicSegmentBytes = b.int("offsets.topic.segment.bytes")
	b.ProducerIDExpiration = b.millis("producer.id.expiration.ms")
	b.TransactionMaxTimeout = b.millis("transaction.max.timeout.ms")
	return b.fillListeners()
}

// fillTopicDefaults works out what each topic key is when a topic does not override it.
func (b *Broker) fillTopicDefaults() {
	b.topicDefaults = make(map[string]value, len(topicKeys))
	for i := range topicKeys {
		k := &topicKeys[i]
		if v, found := b.topicDefault(k); found {
			b.topicDefaults[k.Name] = v
		}
	}
}

// topicDefault follows a topic key to the broker keys that stand for it.
func (b *Broker) topicDefault(k *Key) (value, bool) {
	for _, s := range brokerKeysOf[k.Name] {
		v, found := b.values[s.name]
		if !found {
			continue
		}
		if n, isInt := v.(int64); isInt && s.times != 1 {
			v = n * s.times
		}
		if n, isInt := v.(int64); isInt && k.Name == "retention.ms" {
			v = max(n, -1) // any negative time means without end
		}
		return v, true
	}
	if k.noDefault() {
		return nil, false
	}
	v, err := k.parse(k.Default)
	return v, err == nil
}

func trimAll(list []string) []string {
	out := make([]string, 0, len(list))
	for _, s := range list {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return slices.Clip(out)
}
