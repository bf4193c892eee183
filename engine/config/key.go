package config

import "slices"

// Type is the type of a key's value, numbered as in DescribeConfigs.
type Type int8

// The types of values.
const (
	Unknown  Type = 0
	Boolean  Type = 1
	String   Type = 2
	Int      Type = 3
	Short    Type = 4
	Long     Type = 5
	Double   Type = 6
	List     Type = 7
	Class    Type = 8
	Password Type = 9
)

// String is the type's name in Kafka's messages.
func (t Type) String() string {
	names := [...]string{"UNKNOWN", "BOOLEAN", "STRING", "INT", "SHORT", "LONG", "DOUBLE", "LIST", "CLASS", "PASSWORD"}
	if t < 0 || int(t) >= len(names) {
		return names[0]
	}
	return names[t]
}

// Flags say how a key behaves here.
type Flags uint16

// The flags of a key.
const (
	Honoured  Flags = 1 << iota // millrace acts on it
	Stored                      // kept and described without an effect; Doc says what is done instead
	Refused                     // anything but the default is an error: ignoring it would be a lie
	Dynamic                     // may be changed while running
	PerBroker                   // may be changed while running, but not for all brokers at once
	Internal                    // accepted, but described only when it is set
	Null                        // has no value unless one is set
	Loose                       // a list whose elements may be empty or come twice
	Required                    // Kafka wants it to be set; here it may be left out
)

// Key is one configuration key.
type Key struct {
	Name    string
	Type    Type
	Default string // as it is described; see Null
	check   check  // nil accepts every value of the type
	Flags   Flags
	Doc     string // only for keys that are honoured or stored
}

// Has reports whether all the given flags are set.
func (k *Key) Has(f Flags) bool { return k.Flags&f == f }

// noDefault reports whether the key has no value unless one is set.
func (k *Key) noDefault() bool { return k.Flags&(Null|Required) != 0 }

// readOnly reports whether the key cannot be changed while the broker runs.
func (k *Key) readOnly() bool { return k.Flags&(Dynamic|PerBroker) == 0 }

// sensitive reports whether values of the key are never shown.
func (k *Key) sensitive() bool { return k.Type == Password }

// keySet is a table of keys with an index by name.
type keySet struct {
	keys   []Key
	byName map[string]*Key
}

func newKeySet(keys []Key) *keySet {
	s := &keySet{keys: keys, byName: make(map[string]*Key, len(keys))}
	for i := range keys {
		s.byName[keys[i].Name] = &keys[i]
	}
	return s
}

// find returns a key, nil when Kafka has none of this name.
func (s *keySet) find(name string) *Key { return s.byName[name] }

var (
	brokerSet = newKeySet(brokerKeys)
	topicSet  = newKeySet(topicKeys)
	groupSet  = newKeySet(groupKeys)
)

// BrokerKeys lists the keys of brokers by name.
func BrokerKeys() []Key { return slices.Clone(brokerKeys) }

// TopicKeys lists the keys of topics by name.
func TopicKeys() []Key { return slices.Clone(topicKeys) }

// DefaultOf is the default of a topic key, or else of a broker key; "" when it has none.
func DefaultOf(topic bool, name string) string {
	set := brokerSet
	if topic {
		set = topicSet
	}
	if k := set.find(name); k != nil {
		return k.Default
	}
	return ""
}

// IsBrokerList reports whether a broker key is a list, the only type that values
// can be appended to and subtracted from.
func IsBrokerList(name string) bool { return brokerSet.isList(name) }

// IsTopicList reports whether a topic key is a list.
func IsTopicList(name string) bool { return topicSet.isList(name) }

// IsGroupList reports whether a group key is a list.
func IsGroupList(name string) bool { return groupSet.isList(name) }

func (s *keySet) isList(name string) bool {
	k := s.find(name)
	return k != nil && k.Type == List
}
