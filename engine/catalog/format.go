package catalog

// What lies in Badger. Every value is one version byte and then JSON; a version
// that is higher than formatVersion is refused with ErrFutureFormat.
//
//	key                                  value
//	"s"                                  {"v":version,"c":cluster id,"p":next producer id,"r":version};
//	                                     since version 3 perhaps "f":{feature:level}
//	"b" broker(4)                        {"e":epoch,"r":rack,"l":[{"n":listener,"h":host,"p":port}…]};
//	                                     since version 3 perhaps "i":incarnation,"f":fenced,"s":stopping,"p":peer,
//	                                     "d":[log directories],"v":[{"n":feature,"l":lowest,"h":highest level}…]
//	"t" topic id(16)                     {"n":name,"p":number of partitions,"c":{configs},"v":version}
//	"p" topic id(16) chunk(4)            [[leader,leader epoch,partition epoch,[replicas],[isr]]…];
//	                                     since version 2 perhaps a sixth field: [log directory of each replica]
//	                                     and a seventh: [the one that each is being moved to, or zero];
//	                                     since version 3 an eighth: {"a":[adding],"r":[removing],
//	                                     "e":[eligible],"l":[last known eligible],"u":recovering}
//	"c" resource type(1) resource name   {"c":{configs},"v":version}
//
// Numbers in keys are big endian. A chunk holds up to chunkPartitions partitions
// in order, so that a change to one partition of a large topic writes little.

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
)

// formatVersion is the version byte of every value written here. To change a
// value: raise it, keep reading the older ones, add a golden directory to the tests.
const formatVersion = 3

const chunkPartitions = 500

var keyState = []byte("s")

func brokerKey(id int32) []byte { return binary.BigEndian.AppendUint32([]byte("b"), uint32(id)) }

func topicKey(id TopicID) []byte { return append([]byte("t"), id[:]...) }

func partitionsKey(id TopicID, chunk int) []byte {
	return binary.BigEndian.AppendUint32(append([]byte("p"), id[:]...), uint32(chunk))
}

func configsKey(kind ResourceType, name string) []byte {
	return append([]byte{'c', byte(kind)}, name...)
}

type stateValue struct {
	Version        uint64 `json:"v"`
	ClusterID      string `json:"c"`
	NextProducerID int64  `json:"p"`
	ConfigsRemoved uint64 `json:"r,omitempty"`

	Features map[string]int16 `json:"f,omitempty"`
}

type brokerValue struct {
	Epoch     int64           `json:"e"`
	Rack      string          `json:"r,omitempty"`
	Endpoints []endpointValue `json:"l"`

	Incarnation DirID          `json:"i,omitzero"` // encoded as the id of a directory is
	Fenced      bool           `json:"f,omitempty"`
	Stopping    bool           `json:"s,omitempty"`
	Peer        string         `json:"p,omitempty"`
	Dirs        []DirID        `json:"d,omitempty"`
	Features    []featureValue `json:"v,omitempty"`
}

type featureValue struct {
	Name string `json:"n"`
	Min  int16  `json:"l"`
	Max  int16  `json:"h"`
}

type endpointValue struct {
	Listener string `json:"n"`
	Host     string `json:"h"`
	Port     int32  `json:"p"`
}

type topicValue struct {
	Name       string            `json:"n"`
	Partitions int               `json:"p"`
	Configs    map[string]string `json:"c,omitempty"`
	Version    uint64            `json:"v"`
}

type configsValue struct {
	Configs map[string]string `json:"c"`
	Version uint64            `json:"v"`
}

// partitionValue is a [Partition] as a JSON array, which is a third of the size.
type partitionValue struct{ Partition }

// replicationValue is what few partitions have.
type replicationValue struct {
	Adding       []int32 `json:"a,omitempty"`
	Removing     []int32 `json:"r,omitempty"`
	ELR          []int32 `json:"e,omitempty"`
	LastKnownELR []int32 `json:"l,omitempty"`
	Recovering   bool    `json:"u,omitempty"`
}

func (v *replicationValue) empty() bool {
	return len(v.Adding) == 0 && len(v.Removing) == 0 && len(v.ELR) == 0 && len(v.LastKnownELR) == 0 && !v.Recovering
}

// MarshalJSON writes the array, without those of the last fields that hold nothing.
func (p partitionValue) MarshalJSON() ([]byte, error) {
	more := replicationValue{p.Adding, p.Removing, p.ELR, p.LastKnownELR, p.Recovering}
	fields := []any{p.Leader, p.LeaderEpoch, p.PartitionEpoch, p.Replicas, p.ISR, p.Dirs, p.Futures, &more}
	if more.empty() {
		fields = fields[:7]
		if len(p.Futures) == 0 {
			fields = fields[:6]
			if len(p.Dirs) == 0 {
				fields = fields[:5]
			}
		}
	}
	return json.Marshal(fields)
}

// UnmarshalJSON reads the array.
func (p *partitionValue) UnmarshalJSON(b []byte) error {
	var more replicationValue
	fields := []any{&p.Leader, &p.LeaderEpoch, &p.PartitionEpoch, &p.Replicas, &p.ISR, &p.Dirs, &p.Futures, &more}
	var raw []json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	if len(raw) < 5 || len(raw) > len(fields) {
		return fmt.Errorf("a partition of %d fields, expected 5 to %d", len(raw), len(fields))
	}
	for i, field := range fields[:len(raw)] {
		if err := json.Unmarshal(raw[i], field); err != nil {
			return err
		}
	}
	p.Adding, p.Removing, p.ELR, p.LastKnownELR, p.Recovering = more.Adding, more.Removing, more.ELR, more.LastKnownELR, more.Recovering
	return nil
}

// encodeValue cannot fail: the types above hold strings and integers only.
func encodeValue(v any) []byte {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return append([]byte{formatVersion}, body...)
}

func decodeValue(b []byte, v any) error {
	if len(b) == 0 {
		return errors.New("empty value")
	}
	if b[0] > formatVersion {
		return fmt.Errorf("%w: version %d", ErrFutureFormat, b[0])
	}
	if b[0] == 0 {
		return errors.New("version 0")
	}
	return json.Unmarshal(b[1:], v)
}

func encodeState(img *Image) []byte {
	return encodeValue(stateValue{img.version, img.clusterID, img.nextProducerID, img.configsRemoved, img.features})
}

func encodeBroker(b Broker) []byte {
	v := brokerValue{Epoch: b.Epoch, Rack: b.Rack, Incarnation: b.Incarnation, Fenced: b.Fenced, Stopping: b.Stopping, Peer: b.Peer, Dirs: b.Dirs}
	for _, e := range b.Endpoints {
		v.Endpoints = append(v.Endpoints, endpointValue(e))
	}
	for _, f := range b.Features {
		v.Features = append(v.Features, featureValue(f))
	}
	return encodeValue(v)
}

func encodeTopic(t *Topic) []byte {
	return encodeValue(topicValue{t.Name, len(t.Partitions), t.Configs, t.Version})
}

func encodePartitions(ps []Partition) []byte {
	values := make([]partitionValue, len(ps))
	for i, p := range ps {
		values[i] = partitionValue{p}
	}
	return encodeValue(values)
}

func encodeConfigs(set configSet) []byte { return encodeValue(configsValue{set.values, set.version}) }

// loader builds an image from stored entries, which come in the order of their
// keys: the partitions of a topic before the topic.
type loader struct {
	*draft
	partitions map[TopicID][]Partition // read so far, of topics that are yet to come
}

// entry takes in one stored entry.
func (l *loader) entry(key, value []byte) error {
	if len(key) == 0 {
		return errors.New("empty key")
	}
	switch rest := key[1:]; key[0] {
	case 's':
		return l.state(value)
	case 'b':
		return l.broker(rest, value)
	case 't':
		return l.topic(rest, value)
	case 'p':
		return l.chunk(rest, value)
	case 'c':
		return l.configSet(rest, value)
	}
	return fmt.Errorf("%w: unknown kind of key", ErrFutureFormat)
}

func (l *loader) state(value []byte) error {
	var v stateValue
	if err := decodeValue(value, &v); err != nil {
		return err
	}
	l.version, l.clusterID, l.nextProducerID = v.Version, v.ClusterID, v.NextProducerID
	l.configsRemoved, l.features = v.ConfigsRemoved, v.Features
	return nil
}

func (l *loader) broker(key, value []byte) error {
	var v brokerValue
	if err := decodeValue(value, &v); err != nil {
		return err
	}
	if len(key) != 4 {
		return errors.New("not a broker id")
	}
	b := Broker{
		ID: int32(binary.BigEndian.Uint32(key)), Epoch: v.Epoch, Rack: v.Rack,
		Incarnation: v.Incarnation, Fenced: v.Fenced, Stopping: v.Stopping, Peer: v.Peer, Dirs: v.Dirs,
	}
	for _, e := range v.Endpoints {
		b.Endpoints = append(b.Endpoints, Endpoint(e))
	}
	for _, f := range v.Features {
		b.Features = append(b.Features, FeatureRange(f))
	}
	l.putBroker(b)
	return nil
}

func (l *loader) topic(key, value []byte) error {
	var v topicValue
	if err := decodeValue(value, &v); err != nil {
		return err
	}
	if len(key) != len(TopicID{}) || v.Name == "" {
		return errors.New("not a topic")
	}
	t := &Topic{Name: v.Name, ID: TopicID(key), Configs: v.Configs, Version: v.Version}
	t.Partitions = l.partitions[t.ID]
	delete(l.partitions, t.ID)
	if len(t.Partitions) != v.Partitions || v.Partitions == 0 {
		return fmt.Errorf("topic %s has %d partitions of %d", t.Name, len(t.Partitions), v.Partitions)
	}
	if l.Topic(t.Name) != nil {
		return fmt.Errorf("a second topic named %s", t.Name)
	}
	l.put(t)
	return nil
}

func (l *loader) chunk(key, value []byte) error {
	var values []partitionValue
	if err := decodeValue(value, &values); err != nil {
		return err
	}
	if len(key) != len(TopicID{})+4 {
		return errors.New("not a chunk of partitions")
	}
	id, n := TopicID(key[:16]), binary.BigEndian.Uint32(key[16:])
	if have := len(l.partitions[id]); uint64(n)*chunkPartitions != uint64(have) {
		return fmt.Errorf("chunk %d follows %d partitions", n, have)
	}
	for _, v := range values {
		l.partitions[id] = append(l.partitions[id], v.Partition)
	}
	return nil
}

func (l *loader) configSet(key, value []byte) error {
	var v configsValue
	if err := decodeValue(value, &v); err != nil {
		return err
	}
	if len(key) == 0 {
		return errors.New("no resource type")
	}
	l.putConfigs(configKey{ResourceType(key[0]), string(key[1:])}, configSet{v.Configs, v.Version})
	return nil
}

// chunksOf cuts the partitions of a topic into what is stored under one key each.
func chunksOf(ps []Partition) iter.Seq2[int, []Partition] {
	return func(yield func(int, []Partition) bool) {
		for n := 0; n*chunkPartitions < len(ps); n++ {
			if !yield(n, chunkOf(ps, n)) {
				return
			}
		}
	}
}

// chunkOf is one of the chunks, empty when the topic has fewer.
func chunkOf(ps []Partition, n int) []Partition {
	from := min(n*chunkPartitions, len(ps))
	return ps[from:min(from+chunkPartitions, len(ps))]
}

func equalPartitions(a, b Partition) bool { return equalLeadership(&a, &b) && equalDirs(&a, &b) }

// equalLeadership compares all but the log directories.
func equalLeadership(a, b *Partition) bool {
	return a.Leader == b.Leader && a.LeaderEpoch == b.LeaderEpoch && a.PartitionEpoch == b.PartitionEpoch && a.Recovering == b.Recovering &&
		slices.Equal(a.Replicas, b.Replicas) && slices.Equal(a.ISR, b.ISR) && slices.Equal(a.Adding, b.Adding) &&
		slices.Equal(a.Removing, b.Removing) && slices.Equal(a.ELR, b.ELR) && slices.Equal(a.LastKnownELR, b.LastKnownELR)
}

func equalDirs(a, b *Partition) bool {
	return slices.Equal(a.Dirs, b.Dirs) && slices.Equal(a.Futures, b.Futures)
}
