package group

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// The versions written are those of Kafka 4.3; every version that Kafka has ever written is read.
//
//	key    int16 version | fields
//	       0, 1  offset commit:  group, topic, partition
//	       2     group metadata: group
//	value  int16 version | fields, or null: a tombstone, the key is gone
//	       offset commit   1 with an expiry of its own (the retention of OffsetCommit v2-v4), else 4 with the topic id
//	       group metadata  3
const (
	offsetKeyVersion           = 1
	groupKeyVersion            = 2
	offsetValueVersion         = 4
	offsetValueExpiringVersion = 1
	groupValueVersion          = 3

	newestOffsetValue = 4
	newestGroupValue  = 4
)

// NoTimestamp stands for a time that is not set.
const NoTimestamp int64 = -1

// TopicPartition names a partition.
type TopicPartition struct {
	Topic     string
	Partition int32
}

// Offset is a position that a group has committed for one partition.
type Offset struct {
	Offset            int64
	LeaderEpoch       int32 // -1 when the client gave none
	Metadata          string
	CommitTimestampMs int64
	ExpireTimestampMs int64    // NoTimestamp: by the broker's retention
	TopicID           [16]byte // zero in records written before Kafka knew it
}

// Metadata is what is kept of a group between generations.
type Metadata struct {
	ProtocolType     string
	Generation       int32
	Protocol         *string
	Leader           *string
	StateTimestampMs int64
	Members          []MemberMetadata
}

// MemberMetadata is what is kept of one member.
type MemberMetadata struct {
	ID                 string
	InstanceID         *string
	ClientID           string
	ClientHost         string
	RebalanceTimeoutMs int32
	SessionTimeoutMs   int32
	Subscription       []byte
	Assignment         []byte
}

// Record is one record of __consumer_offsets: an offset or its tombstone when Topic is set, else a group's
// metadata or its tombstone.
type Record struct {
	Group     string
	Topic     string
	Partition int32
	Offset    *Offset
	Metadata  *Metadata
}

func offsetRecord(group string, tp TopicPartition, offset *Offset) Record {
	return Record{Group: group, Topic: tp.Topic, Partition: tp.Partition, Offset: offset}
}

// IsOffset tells an offset (or its tombstone) from group metadata (or its tombstone).
func (r Record) IsOffset() bool { return r.Topic != "" }

// IsTombstone tells whether the record takes its key away.
func (r Record) IsTombstone() bool { return r.Offset == nil && r.Metadata == nil }

// Key is the record's key as it is stored.
func (r Record) Key() []byte {
	if r.IsOffset() {
		k := kmsg.OffsetCommitKey{Version: offsetKeyVersion, Group: r.Group, Topic: r.Topic, Partition: r.Partition}
		return k.AppendTo(nil)
	}
	k := kmsg.GroupMetadataKey{Version: groupKeyVersion, Group: r.Group}
	return k.AppendTo(nil)
}

// Value is the record's value as it is stored; nil for a tombstone.
func (r Record) Value() []byte {
	switch {
	case r.Offset != nil:
		return encodeOffset(r.Offset)
	case r.Metadata != nil:
		return encodeMetadata(r.Metadata)
	}
	return nil
}

// longestString is what the length of a string that is not compact can say.
const longestString = 1<<15 - 1

// Check finds what the record's formats cannot hold. Requests can: their newer versions have longer strings.
func (r Record) Check() error {
	fields := []string{r.Group, r.Topic}
	if r.Offset != nil {
		fields = append(fields, r.Offset.Metadata)
	}
	if m := r.Metadata; m != nil {
		fields = append(fields, m.ProtocolType, deref(m.Protocol), deref(m.Leader))
		for _, member := range m.Members {
			fields = append(fields, member.ID, deref(member.InstanceID), member.ClientID, member.ClientHost)
		}
	}
	for _, field := range fields {
		if len(field) > longestString {
			return fmt.Errorf("%w: %d bytes where a string of a record holds %d", ErrRecordTooLarge, len(field), longestString)
		}
	}
	return nil
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func encodeOffset(o *Offset) []byte {
	v := kmsg.OffsetCommitValue{
		Version:         offsetValueVersion,
		Offset:          o.Offset,
		LeaderEpoch:     o.LeaderEpoch,
		Metadata:        o.Metadata,
		CommitTimestamp: o.CommitTimestampMs,
		ExpireTimestamp: o.ExpireTimestampMs,
		TopicID:         o.TopicID,
	}
	if o.ExpireTimestampMs != NoTimestamp {
		v.Version = offsetValueExpiringVersion
	}
	return v.AppendTo(nil)
}

func encodeMetadata(m *Metadata) []byte {
	v := kmsg.GroupMetadataValue{
		Version:               groupValueVersion,
		ProtocolType:          m.ProtocolType,
		Generation:            m.Generation,
		Protocol:              m.Protocol,
		Leader:                m.Leader,
		CurrentStateTimestamp: m.StateTimestampMs,
	}
	for _, member := range m.Members {
		v.Members = append(v.Members, kmsg.GroupMetadataValueMember{
			MemberID:               member.ID,
			InstanceID:             member.InstanceID,
			ClientID:               member.ClientID,
			ClientHost:             member.ClientHost,
			RebalanceTimeoutMillis: member.RebalanceTimeoutMs,
			SessionTimeoutMillis:   member.SessionTimeoutMs,
			Subscription:           member.Subscription,
			Assignment:             member.Assignment,
		})
	}
	return v.AppendTo(nil)
}

// DecodeRecord reads a record back. What it returns does not point into key or value.
// ErrUnknownRecord is for kinds that other protocols keep in the same topic, and for values newer than this code.
func DecodeRecord(key, value []byte) (Record, error) {
	version, err := leadingVersion(key)
	if err != nil {
		return Record{}, fmt.Errorf("key: %w", err)
	}
	switch version {
	case 0, offsetKeyVersion:
		return decodeOffset(key, value)
	case groupKeyVersion:
		return decodeMetadata(key, value)
	}
	return Record{}, fmt.Errorf("%w: key version %d", ErrUnknownRecord, version)
}

func leadingVersion(b []byte) (int16, error) {
	if len(b) < 2 {
		return 0, fmt.Errorf("%w: %d bytes hold no version", ErrCorruptRecord, len(b))
	}
	return int16(binary.BigEndian.Uint16(b)), nil
}

func decodeOffset(key, value []byte) (Record, error) {
	var k kmsg.OffsetCommitKey
	if err := k.ReadFrom(key); err != nil {
		return Record{}, fmt.Errorf("%w: offset key: %w", ErrCorruptRecord, err)
	}
	if k.Topic == "" {
		return Record{}, fmt.Errorf("%w: offset key without a topic", ErrCorruptRecord)
	}
	r := Record{Group: k.Group, Topic: k.Topic, Partition: k.Partition}
	if value == nil {
		return r, nil
	}
	version, err := leadingVersion(value)
	if err != nil {
		return Record{}, fmt.Errorf("offset value: %w", err)
	}
	if version < 0 || version > newestOffsetValue {
		return Record{}, fmt.Errorf("%w: offset value version %d", ErrUnknownRecord, version)
	}
	var v kmsg.OffsetCommitValue
	if err := v.ReadFrom(value); err != nil {
		return Record{}, fmt.Errorf("%w: offset value: %w", ErrCorruptRecord, err)
	}
	r.Offset = &Offset{
		Offset:            v.Offset,
		LeaderEpoch:       -1,
		Metadata:          v.Metadata,
		CommitTimestampMs: v.CommitTimestamp,
		ExpireTimestampMs: NoTimestamp,
		TopicID:           v.TopicID,
	}
	if version >= 3 {
		r.Offset.LeaderEpoch = v.LeaderEpoch
	}
	if version == offsetValueExpiringVersion {
		r.Offset.ExpireTimestampMs = v.ExpireTimestamp
	}
	return r, nil
}

func decodeMetadata(key, value []byte) (Record, error) {
	var k kmsg.GroupMetadataKey
	if err := k.ReadFrom(key); err != nil {
		return Record{}, fmt.Errorf("%w: group key: %w", ErrCorruptRecord, err)
	}
	r := Record{Group: k.Group}
	if value == nil {
		return r, nil
	}
	version, err := leadingVersion(value)
	if err != nil {
		return Record{}, fmt.Errorf("group value: %w", err)
	}
	if version < 0 || version > newestGroupValue {
		return Record{}, fmt.Errorf("%w: group value version %d", ErrUnknownRecord, version)
	}
	var v kmsg.GroupMetadataValue
	if err := v.ReadFrom(value); err != nil {
		return Record{}, fmt.Errorf("%w: group value: %w", ErrCorruptRecord, err)
	}
	r.Metadata = &Metadata{
		ProtocolType:     v.ProtocolType,
		Generation:       v.Generation,
		Protocol:         v.Protocol,
		Leader:           v.Leader,
		StateTimestampMs: v.CurrentStateTimestamp,
	}
	for _, member := range v.Members {
		m := MemberMetadata{
			ID:                 member.MemberID,
			InstanceID:         member.InstanceID,
			ClientID:           member.ClientID,
			ClientHost:         member.ClientHost,
			RebalanceTimeoutMs: member.RebalanceTimeoutMillis,
			SessionTimeoutMs:   member.SessionTimeoutMillis,
			Subscription:       bytes.Clone(member.Subscription),
			Assignment:         bytes.Clone(member.Assignment),
		}
		if m.RebalanceTimeoutMs == -1 {
			m.RebalanceTimeoutMs = m.SessionTimeoutMs
		}
		r.Metadata.Members = append(r.Metadata.Members, m)
	}
	return r, nil
}

// Size estimates what the record takes in the log, so that the live state can be weighed.
func (r Record) Size() int64 {
	const perRecord = 64 // batch header shared, varints, fixed fields
	n := perRecord + len(r.Group) + len(r.Topic)
	if r.Offset != nil {
		n += len(r.Offset.Metadata)
	}
	if r.Metadata != nil {
		for _, m := range r.Metadata.Members {
			n += perRecord + 2*len(m.ID) + len(m.ClientID) + len(m.ClientHost) + len(m.Subscription) + len(m.Assignment)
		}
	}
	return int64(n)
}
