package catalog

// A whole image as bytes, to give to another node or to keep in a snapshot:
//
//	"mrimage" version(1)
//	for every stored entry, in the order of the keys: key length, value length (uvarint each), key, value
//	0 0
//	crc32c(4, little endian) of all before it
//
// The entries are those that lie in Badger, see format.go, so there is one encoding of what
// exists, and what a newer version adds is refused here as it is there. Equal images give equal bytes.

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
)

const (
	imageMagic   = "mrimage"
	imageVersion = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// EncodeImage writes a whole image; [DecodeImage] reads it.
func EncodeImage(img *Image) []byte {
	b := append([]byte(imageMagic), imageVersion)
	put := func(key, value []byte) {
		b = binary.AppendUvarint(b, uint64(len(key)))
		b = binary.AppendUvarint(b, uint64(len(value)))
		b = append(append(b, key...), value...)
	}
	for _, broker := range img.brokers {
		put(brokerKey(broker.ID), encodeBroker(broker))
	}
	byName := func(x, y configKey) int {
		return bytes.Compare(configsKey(x.Type, x.Name), configsKey(y.Type, y.Name))
	}
	for _, key := range slices.SortedFunc(maps.Keys(img.configs), byName) {
		put(configsKey(key.Type, key.Name), encodeConfigs(img.configs[key]))
	}
	topics := slices.SortedFunc(img.EachTopic(), func(x, y *Topic) int { return bytes.Compare(x.ID[:], y.ID[:]) })
	for _, t := range topics {
		for n, chunk := range chunksOf(t.Partitions) {
			put(partitionsKey(t.ID, n), encodePartitions(chunk))
		}
	}
	put(keyState, encodeState(img))
	for _, t := range topics {
		put(topicKey(t.ID), encodeTopic(t))
	}
	b = append(b, 0, 0)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// DecodeImage reads what [EncodeImage] wrote: the same image, without events. Anything else is a
// *CorruptError, or ErrFutureFormat. It does not keep b.
func DecodeImage(b []byte) (*Image, error) {
	corrupt := func(err error) error { return &CorruptError{Key: "image", Err: err} }
	body := len(b) - 4
	if body < len(imageMagic)+1 || string(b[:len(imageMagic)]) != imageMagic {
		return nil, corrupt(errors.New("not an image"))
	}
	if v := b[len(imageMagic)]; v > imageVersion {
		return nil, fmt.Errorf("%w: image version %d", ErrFutureFormat, v)
	}
	if crc32.Checksum(b[:body], castagnoli) != binary.LittleEndian.Uint32(b[body:]) {
		return nil, corrupt(errors.New("checksum differs"))
	}
	l := loader{draft: &draft{Image: NewImage()}, partitions: map[TopicID][]Partition{}}
	rest, last := b[len(imageMagic)+1:body], []byte(nil)
	for {
		key, value, after, err := cutEntry(rest)
		if err != nil {
			return nil, corrupt(err)
		}
		rest = after
		if len(key) == 0 {
			break
		}
		if bytes.Compare(key, last) <= 0 {
			return nil, corrupt(fmt.Errorf("key %q after %q", key, last))
		}
		if last = key; len(value) == 0 {
			return nil, corrupt(fmt.Errorf("no value at %q", key))
		}
		if err := l.entry(key, value); err != nil {
			return nil, &CorruptError{Key: fmt.Sprintf("%q", key), Err: err}
		}
	}
	if len(rest) > 0 || len(l.partitions) > 0 {
		return nil, corrupt(fmt.Errorf("%d bytes and partitions of %d unknown topics are left", len(rest), len(l.partitions)))
	}
	return l.Image, nil
}

// cutEntry takes one entry off the front; the last one has no key.
func cutEntry(b []byte) (key, value, rest []byte, err error) {
	keyLen, n := binary.Uvarint(b)
	if n <= 0 {
		return nil, nil, nil, errors.New("it ends within an entry")
	}
	valueLen, m := binary.Uvarint(b[n:])
	if m <= 0 {
		return nil, nil, nil, errors.New("it ends within an entry")
	}
	b = b[n+m:]
	if keyLen > uint64(len(b)) || valueLen > uint64(len(b))-keyLen {
		return nil, nil, nil, fmt.Errorf("an entry of %d and %d bytes where %d are left", keyLen, valueLen, len(b))
	}
	if keyLen == 0 && valueLen != 0 {
		return nil, nil, nil, errors.New("an entry without a key")
	}
	return b[:keyLen], b[keyLen : keyLen+valueLen], b[keyLen+valueLen:], nil
}

// WithEventsSince gives an image that came as a whole (see [DecodeImage]) the events that lead to it
// from another, so that subscribers who follow events miss nothing: what was deleted first, then what
// was created or has changed, in the order of names. The image itself is not changed.
func (img *Image) WithEventsSince(old *Image) *Image {
	d := img.next()
	d.version = img.version
	for _, t := range old.Topics() {
		if img.TopicByID(t.ID) == nil {
			d.note(Event{Kind: TopicDeleted, Topic: t.ID, Name: t.Name})
		}
	}
	if img.clusterID != old.clusterID {
		d.note(Event{Kind: ClusterSet, Name: img.clusterID})
	}
	d.noteBrokers(old)
	if !maps.Equal(old.features, img.features) {
		d.note(Event{Kind: FeaturesChanged})
	}
	d.noteConfigs(old)
	for _, t := range img.Topics() {
		d.noteTopic(old.TopicByID(t.ID), t)
	}
	if img.nextProducerID != old.nextProducerID {
		d.note(Event{Kind: ProducerIDsAllocated})
	}
	return d.Image
}

// noteBrokers notes the brokers that are gone, have registered, or are fenced, unfenced or stopping since.
func (d *draft) noteBrokers(old *Image) {
	for i := range old.brokers {
		if id := old.brokers[i].ID; d.broker(id) == nil {
			d.note(Event{Kind: BrokerChanged, Broker: id})
		}
	}
	for i := range d.brokers {
		b := &d.brokers[i]
		was := old.broker(b.ID)
		if was == nil || !equalRegistrations(*was, *b) {
			d.note(Event{Kind: BrokerRegistered, Broker: b.ID})
		} else if !equalBrokers(*was, *b) {
			d.note(Event{Kind: BrokerChanged, Broker: b.ID})
		}
	}
}

// noteConfigs notes the resources, topics aside, whose configs differ from those in old.
func (d *draft) noteConfigs(old *Image) {
	all := map[configKey]bool{}
	for key := range old.configs {
		all[key] = true
	}
	for key := range d.configs {
		all[key] = true
	}
	inOrder := func(x, y configKey) int {
		return bytes.Compare(configsKey(x.Type, x.Name), configsKey(y.Type, y.Name))
	}
	for _, key := range slices.SortedFunc(maps.Keys(all), inOrder) {
		if !maps.Equal(old.configs[key].values, d.configs[key].values) {
			d.note(Event{Kind: ConfigsChanged, Type: key.Type, Name: key.Name})
		}
	}
}

func (d *draft) noteTopic(old, t *Topic) {
	about := Event{Topic: t.ID, Name: t.Name}
	if old == nil {
		about.Kind = TopicCreated
		d.note(about)
		return
	}
	if old == t {
		return
	}
	if len(t.Partitions) > len(old.Partitions) {
		about.Kind = PartitionsAdded
		d.note(about)
	}
	if !maps.Equal(old.Configs, t.Configs) {
		about.Kind, about.Type = ConfigsChanged, ResourceTopic
		d.note(about)
		about.Type = 0
	}
	for p := range min(len(old.Partitions), len(t.Partitions)) {
		was, is := &old.Partitions[p], &t.Partitions[p]
		about.Partition = int32(p)
		if !equalDirs(was, is) {
			about.Kind = DirAssigned
			d.note(about)
		}
		if !equalLeadership(was, is) {
			about.Kind = PartitionChanged
			d.note(about)
		}
	}
}
