package command

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine/group"
)

// marker is what a control record says.
type marker struct {
	kind             string // in Kafka's words
	number           int16
	coordinatorEpoch int32 // of ABORT and COMMIT
	ends             bool  // a transaction
}

// markerKinds are Kafka's control records, by the number in their keys.
var markerKinds = []string{"ABORT", "COMMIT", "LEADER_CHANGE", "SNAPSHOT_HEADER", "SNAPSHOT_FOOTER", "KRAFT_VERSION", "KRAFT_VOTERS"}

// decodeMarker reads a control record: its key is a version and a kind; the value of an end of a transaction a version and the
// coordinator's epoch.
func decodeMarker(key, value []byte) *marker {
	m := &marker{kind: "UNKNOWN", number: -1}
	if len(key) < 4 {
		return m
	}
	m.number = int16(binary.BigEndian.Uint16(key[2:]))
	if m.number >= 0 && int(m.number) < len(markerKinds) {
		m.kind = markerKinds[m.number]
	}
	if m.number >= 0 && m.number <= 1 && len(value) >= 6 {
		m.ends, m.coordinatorEpoch = true, int32(binary.BigEndian.Uint32(value[2:]))
	}
	return m
}

// decodedPair is the key and the value of an internal topic's record as JSON; a nil value is a tombstone.
type decodedPair struct{ key, value []byte }

// decodeInternal decodes a record of an internal topic; nil when it is none, or of a kind that this program does not know.
func decodeInternal(topic string, key, value []byte) *decodedPair {
	var k, v any
	var err error
	switch topic {
	case "__consumer_offsets":
		k, v, err = decodeGroup(key, value)
	case "__transaction_state":
		k, v, err = decodeTransaction(key, value)
	default:
		return nil
	}
	if errors.Is(err, group.ErrUnknownRecord) {
		return nil
	}
	if err != nil {
		k, v = map[string]string{"error": err.Error()}, nil
	}
	p := &decodedPair{key: compactJSON(k)}
	if v != nil {
		p.value = compactJSON(v)
	}
	return p
}

func compactJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Appendf(nil, "%q", err.Error()) // maps and structs of plain fields never fail
	}
	return b
}

type groupKey struct {
	Kind      string `json:"kind"`
	Group     string `json:"group"`
	Topic     string `json:"topic,omitempty"`
	Partition *int32 `json:"partition,omitempty"`
}

type offsetValue struct {
	Offset      int64   `json:"offset"`
	LeaderEpoch int32   `json:"leader_epoch"`
	Metadata    string  `json:"metadata"`
	CommittedAt string  `json:"committed_at"`
	ExpiresAt   *string `json:"expires_at,omitempty"`
}

type groupValue struct {
	ProtocolType string        `json:"protocol_type"`
	Generation   int32         `json:"generation"`
	Protocol     *string       `json:"protocol"`
	Leader       *string       `json:"leader"`
	ChangedAt    string        `json:"changed_at"`
	Members      []groupMember `json:"members"`
}

type groupMember struct {
	ID          string             `json:"id"`
	InstanceID  *string            `json:"instance_id,omitempty"`
	ClientID    string             `json:"client_id"`
	ClientHost  string             `json:"client_host"`
	RebalanceMs int32              `json:"rebalance_timeout_ms"`
	SessionMs   int32              `json:"session_timeout_ms"`
	Topics      []string           `json:"topics,omitempty"`
	Assigned    map[string][]int32 `json:"assigned,omitempty"`
}

func decodeGroup(key, value []byte) (k, v any, err error) {
	r, err := group.DecodeRecord(key, value)
	if err != nil {
		return nil, nil, err
	}
	if r.IsOffset() {
		k = groupKey{Kind: "offset", Group: r.Group, Topic: r.Topic, Partition: &r.Partition}
		if o := r.Offset; o != nil {
			x := offsetValue{Offset: o.Offset, LeaderEpoch: o.LeaderEpoch, Metadata: o.Metadata, CommittedAt: moment(o.CommitTimestampMs)}
			if o.ExpireTimestampMs != group.NoTimestamp {
				at := moment(o.ExpireTimestampMs)
				x.ExpiresAt = &at
			}
			v = x
		}
		return k, v, nil
	}
	k = groupKey{Kind: "group", Group: r.Group}
	if m := r.Metadata; m != nil {
		x := groupValue{ProtocolType: m.ProtocolType, Generation: m.Generation, Protocol: m.Protocol, Leader: m.Leader, ChangedAt: moment(m.StateTimestampMs), Members: []groupMember{}}
		for _, member := range m.Members {
			one := groupMember{ID: member.ID, InstanceID: member.InstanceID, ClientID: member.ClientID, ClientHost: member.ClientHost,
				RebalanceMs: member.RebalanceTimeoutMs, SessionMs: member.SessionTimeoutMs}
			if m.ProtocolType == "consumer" {
				one.Topics, one.Assigned = consumerMember(member.Subscription, member.Assignment)
			}
			x.Members = append(x.Members, one)
		}
		v = x
	}
	return k, v, nil
}

// consumerMember decodes what consumers put into a group's metadata; what is not theirs stays out.
func consumerMember(subscription, assignment []byte) (topics []string, assigned map[string][]int32) {
	var s kmsg.ConsumerMemberMetadata
	if s.ReadFrom(subscription) == nil {
		topics = s.Topics
	}
	var a kmsg.ConsumerMemberAssignment
	if a.ReadFrom(assignment) == nil {
		for _, t := range a.Topics {
			if assigned == nil {
				assigned = map[string][]int32{}
			}
			assigned[t.Topic] = t.Partitions
		}
	}
	return topics, assigned
}

type transactionKey struct {
	Kind            string `json:"kind"`
	TransactionalID string `json:"transactional_id"`
}

type transactionValue struct {
	ProducerID         int64              `json:"producer_id"`
	ProducerEpoch      int16              `json:"producer_epoch"`
	PreviousProducerID int64              `json:"previous_producer_id"`
	NextProducerID     int64              `json:"next_producer_id"`
	TimeoutMs          int32              `json:"timeout_ms"`
	State              string             `json:"state"`
	Partitions         map[string][]int32 `json:"partitions"`
	UpdatedAt          string             `json:"updated_at"`
	StartedAt          *string            `json:"started_at"`
}

func decodeTransaction(key, value []byte) (k, v any, err error) {
	if len(key) < 2 || binary.BigEndian.Uint16(key) != 0 {
		return nil, nil, group.ErrUnknownRecord
	}
	var tk kmsg.TxnMetadataKey
	if err := tk.ReadFrom(key); err != nil {
		return nil, nil, fmt.Errorf("transaction key: %w", err)
	}
	k = transactionKey{"transaction", tk.TransactionalID}
	if value == nil {
		return k, nil, nil
	}
	if len(value) < 2 || binary.BigEndian.Uint16(value) > 1 {
		return nil, nil, group.ErrUnknownRecord
	}
	tv := kmsg.NewTxnMetadataValue()
	if err := tv.ReadFrom(value); err != nil {
		return nil, nil, fmt.Errorf("transaction value: %w", err)
	}
	x := transactionValue{ProducerID: tv.ProducerID, ProducerEpoch: tv.ProducerEpoch, PreviousProducerID: tv.PreviousProducerID, NextProducerID: tv.NextProducerID,
		TimeoutMs: tv.TimeoutMillis, State: tv.State.String(), Partitions: map[string][]int32{}, UpdatedAt: moment(tv.LastUpdateTimestamp)}
	if tv.StartTimestamp >= 0 {
		at := moment(tv.StartTimestamp)
		x.StartedAt = &at
	}
	for _, t := range tv.Topics {
		x.Partitions[t.Topic] = t.Partitions
	}
	return k, x, nil
}
