package source

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strconv"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/inspect"
	"github.com/millrace/millrace/segment/vfs"
)

// metadata is what Kafka's own log __cluster_metadata says of topics: a snapshot, and what came after it. The value of
// its records is a frame: the version of the frame (1), the kind of the record, its version, as unsigned varints, and the record in the
// protocol's flexible encoding. What is read of them:
//
//	2 Topic            name, id
//	3 Partition        number, topic id, four lists of brokers, leader, leader epoch
//	4 Config           kind of resource, its name, key, value or null
//	5 PartitionChange  number, topic id; tag 1 is a new leader, which begins a leader epoch
//	9 RemoveTopic      id
//	15 ProducerIds     broker, its epoch, the next producer id
type metadata struct {
	known          bool
	topics         map[[16]byte]*knownTopic
	configs        map[string]map[string]string // of topics by name, which may come before the topic does
	nextProducerID int64
	left           map[string]int // what is not taken over, and how many
	dirs           int            // how many log directories a catalogue knows
}

type knownTopic struct {
	name    string
	id      [16]byte
	configs map[string]string
	epochs  []int32 // by partition
	lazy    bool    // a partition has no folder before its first record
}

// errTwice says that two directories know of all topics.
var errTwice = errors.New("another of the directories knows all topics, too (__cluster_metadata or catalog): import them one after the other, or give copies without it")

// read takes up what a directory knows: that of a Kafka broker that holds __cluster_metadata, or of a millrace's that has the catalogue.
func (m *metadata) read(fsys vfs.FS, place *inspect.Place, catalogue Catalogue) error {
	if place.Catalog != "" {
		if m.known {
			return errTwice
		}
		image, err := catalogue(place.Catalog)
		if err != nil {
			return err
		}
		m.take(image)
	}
	for i := range place.Partitions {
		p := &place.Partitions[i]
		if p.Topic != "__cluster_metadata" || p.State != inspect.Live || place.Layout != inspect.Kafka {
			continue
		}
		if m.known {
			return errTwice
		}
		m.known = true
		m.topics, m.configs, m.left = map[[16]byte]*knownTopic{}, map[string]map[string]string{}, map[string]int{}
		from := int64(0)
		if n := len(p.Images); n > 0 {
			name := filepath.Base(p.Images[n-1].Path)
			from, _ = strconv.ParseInt(name[:20], 10, 64) // inspect has seen that it is a number
			if err := m.replay(fsys, p.Images[n-1].Path, 0); err != nil {
				return err
			}
		}
		for _, s := range p.Segments {
			if s.Log.There() {
				if err := m.replay(fsys, s.Log.Path, from); err != nil {
					return err
				}
			}
		}
	}
	for _, t := range m.topics {
		if t.configs == nil {
			t.configs = maps.Clone(m.configs[t.name])
		}
	}
	return nil
}

// take takes up a catalogue.
func (m *metadata) take(image *catalog.Image) {
	m.known, m.topics, m.nextProducerID = true, map[[16]byte]*knownTopic{}, image.NextProducerID()
	dirs := map[catalog.DirID]bool{}
	for t := range image.EachTopic() {
		known := &knownTopic{name: t.Name, id: t.ID, configs: maps.Clone(t.Configs), lazy: true}
		for _, p := range t.Partitions {
			known.epochs = append(known.epochs, p.LeaderEpoch)
			for _, id := range p.Dirs {
				dirs[id] = true
			}
		}
		m.topics[t.ID] = known
	}
	delete(dirs, catalog.DirID{})
	m.dirs = len(dirs)
}

// replay applies the records of a file from an offset on.
func (m *metadata) replay(fsys vfs.FS, name string, from int64) error {
	b, err := inspect.OpenBatches(fsys, name, inspect.Options{Unordered: true})
	if err != nil {
		return err
	}
	defer b.Close()
	for b.Next() {
		h := b.Header()
		if h.IsControl() || h.NextOffset() <= from {
			continue
		}
		whole, err := b.Bytes()
		if err != nil {
			return err
		}
		for r, err := range batch.Records(whole, 0) {
			if err == nil && h.Offset(&r) >= from {
				err = m.apply(r.Value)
			}
			if err != nil {
				return fmt.Errorf("%s: batch at byte %d: %w", name, b.Position(), err)
			}
		}
	}
	var damage *inspect.Damage
	if errors.As(b.Err(), &damage) && damage.Torn {
		return nil
	}
	return b.Err()
}

// apply takes up one record.
func (m *metadata) apply(value []byte) error {
	f := fields{b: value}
	if v := f.uvarint(); v != 1 {
		return fmt.Errorf("metadata record of frame version %d, known is 1", v)
	}
	kind, _ := f.uvarint(), f.uvarint()
	switch kind {
	case 2:
		t := &knownTopic{name: f.text()}
		t.id = f.uuid()
		m.topics[t.id] = t
	case 3:
		number, id := f.int32(), f.uuid()
		for range 4 {
			f.skip(4 * f.array(4))
		}
		_, epoch := f.int32(), f.int32()
		if t := m.topics[id]; t != nil && number >= 0 && number < maxPartitions {
			for len(t.epochs) <= int(number) {
				t.epochs = append(t.epochs, -1)
			}
			t.epochs[number] = epoch
		}
	case 4:
		m.config(&f)
	case 5:
		number, id := f.int32(), f.uuid()
		for range f.uvarint() {
			tag, size := f.uvarint(), f.uvarint()
			if t := m.topics[id]; tag == 1 && t != nil && int(number) < len(t.epochs) && number >= 0 {
				t.epochs[number]++
			}
			f.skip(int(size))
		}
	case 9:
		id := f.uuid()
		if t := m.topics[id]; t != nil {
			delete(m.configs, t.name)
			delete(m.topics, id)
		}
	case 15:
		f.skip(4 + 8)
		m.nextProducerID = f.int64()
	case 6:
		m.left["access control entries"]++
	case 11:
		m.left["SCRAM credentials"]++
	case 14:
		m.left["client quotas"]++
	case 10:
		m.left["delegation tokens"]++
	}
	if f.bad {
		return fmt.Errorf("metadata record of kind %d ends early", kind)
	}
	return nil
}

func (m *metadata) config(f *fields) {
	const ofTopic = 2
	kind, name, key := f.int8(), f.text(), f.text()
	value, set := f.nullable()
	switch {
	case kind != ofTopic:
		m.left["settings of brokers, groups and clients"]++
	case !set:
		delete(m.configs[name], key)
	default:
		if m.configs[name] == nil {
			m.configs[name] = map[string]string{}
		}
		m.configs[name][key] = value
	}
}

func (m *metadata) byName(name string) *knownTopic {
	for _, t := range m.topics {
		if t.name == name {
			return t
		}
	}
	return nil
}

// has tells whether a folder belongs to a topic that is there.
func (m *metadata) has(name string, id [16]byte) bool {
	t := m.byName(name)
	return t != nil && (id == [16]byte{} || id == t.id)
}

func (m *metadata) why(name string) string {
	if m.byName(name) != nil {
		return "the topic of this name has another id now, so it was deleted and made again"
	}
	return "there is no such topic any more, so it was deleted"
}

func (m *metadata) notes() (notes []string) {
	for _, what := range []string{"access control entries", "SCRAM credentials", "client quotas", "delegation tokens", "settings of brokers, groups and clients"} {
		if n := m.left[what]; n > 0 {
			notes = append(notes, fmt.Sprintf("%s are not taken over; records of them in __cluster_metadata: %d", what, n))
		}
	}
	return notes
}

// fields reads the protocol's flexible encoding off the front of b; after what does not fit, bad is set and stays.
type fields struct {
	b   []byte
	bad bool
}

func (f *fields) take(n int) []byte {
	if n < 0 || n > len(f.b) {
		f.b, f.bad = nil, true
		return make([]byte, 16) // as much as any fixed field
	}
	v := f.b[:n]
	f.b = f.b[n:]
	return v
}

func (f *fields) skip(n int) {
	if n < 0 || n > len(f.b) {
		f.b, f.bad = nil, true
		return
	}
	f.b = f.b[n:]
}

func (f *fields) int8() int8   { return int8(f.take(1)[0]) }
func (f *fields) int32() int32 { return int32(binary.BigEndian.Uint32(f.take(4))) }
func (f *fields) int64() int64 { return int64(binary.BigEndian.Uint64(f.take(8))) }

func (f *fields) uuid() (id [16]byte) {
	copy(id[:], f.take(16))
	return id
}

// uvarint reads a number that is no larger than what is left can make sense of.
func (f *fields) uvarint() uint64 {
	v, n := binary.Uvarint(f.b)
	if n <= 0 || v > 1<<31 {
		f.b, f.bad = nil, true
		return 0
	}
	f.b = f.b[n:]
	return v
}

// array reads the length of a list whose elements take size bytes each.
func (f *fields) array(size int) int {
	n := int(f.uvarint()) - 1
	if n > len(f.b)/size {
		f.b, f.bad = nil, true
		return 0
	}
	return max(n, 0)
}

func (f *fields) text() string {
	s, _ := f.nullable()
	return s
}

func (f *fields) nullable() (string, bool) {
	n := int(f.uvarint())
	if n == 0 || n-1 > len(f.b) {
		f.bad = f.bad || n > 0
		return "", false
	}
	return string(f.take(n - 1)), true
}
