package config

import (
	"errors"
	"math"
	"testing"
)

// TestValidateTopic holds what Apache Kafka 4.3.1 answers, word for word.
func TestValidateTopic(t *testing.T) {
	b := mustParse(t, nil)
	tests := []struct {
		name    string
		configs map[string]string
		want    string // "" is accepted
	}{
		{"none", nil, ""},
		{"unknown key", map[string]string{"nope": "1"}, "Unknown topic config name: nope"},
		{"unknown key before wrong value", map[string]string{"nope": "1", "retention.ms": "x"}, "Unknown topic config name: nope"},
		{"removed key", map[string]string{"message.format.version": "2.0"}, "Unknown topic config name: message.format.version"},
		{"not a number", map[string]string{"retention.ms": "abc"}, "Invalid value abc for configuration retention.ms: Not a number of type LONG"},
		{"empty number", map[string]string{"retention.ms": ""}, "Invalid value  for configuration retention.ms: Not a number of type LONG"},
		{"fraction", map[string]string{"segment.bytes": "1.5"}, "Invalid value 1.5 for configuration segment.bytes: Not a number of type INT"},
		{"hexadecimal", map[string]string{"segment.bytes": "0x200000"}, "Invalid value 0x200000 for configuration segment.bytes: Not a number of type INT"},
		{"beyond an int", map[string]string{"segment.bytes": "99999999999"}, "Invalid value 99999999999 for configuration segment.bytes: Not a number of type INT"},
		{"with a plus", map[string]string{"segment.bytes": "+2097152"}, ""},
		{"trimmed number", map[string]string{"retention.ms": " 5 "}, ""},
		{"below the least", map[string]string{"retention.ms": "-2"}, "Invalid value -2 for configuration retention.ms: Value must be at least -1"},
		{"no bound on retention.bytes", map[string]string{"retention.bytes": "-7"}, ""},
		{"small segment", map[string]string{"segment.bytes": "1"}, "Invalid value 1 for configuration segment.bytes: Value must be at least 1048576"},
		{"small segment for tests", map[string]string{"internal.segment.bytes": "100"}, ""},
		{"ratio above one", map[string]string{"min.cleanable.dirty.ratio": "2"}, "Invalid value 2.0 for configuration min.cleanable.dirty.ratio: Value must be no more than 1"},
		{"not a ratio", map[string]string{"min.cleanable.dirty.ratio": "x"}, "Invalid value x for configuration min.cleanable.dirty.ratio: Not a number of type DOUBLE"},
		{"unknown policy", map[string]string{"cleanup.policy": "foo"}, "Invalid value foo for configuration cleanup.policy: String must be one of: compact, delete"},
		{"one unknown policy of two", map[string]string{"cleanup.policy": "compact,foo"}, "Invalid value foo for configuration cleanup.policy: String must be one of: compact, delete"},
		{"no policy", map[string]string{"cleanup.policy": ""}, ""},
		{"the same policy twice", map[string]string{"cleanup.policy": "delete,delete"}, ""},
		{"compaction", map[string]string{"cleanup.policy": "compact"}, ""},
		{"unknown codec", map[string]string{"compression.type": "foo"}, "Invalid value foo for configuration compression.type: String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer"},
		{"gzip level 0", map[string]string{"compression.gzip.level": "0"}, "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1"},
		{"lz4 level 18", map[string]string{"compression.lz4.level": "18"}, "Invalid value 18 for configuration compression.lz4.level: Value must be no more than 17"},
		{"neither true nor false", map[string]string{"preallocate": "yes"}, "Invalid value yes for configuration preallocate: Expected value to be either true or false"},
		{"TRUE", map[string]string{"preallocate": "TRUE"}, ""},
		{"trimmed codec", map[string]string{"compression.type": " gzip"}, ""},
		{"nothing in the list", map[string]string{"cleanup.policy": ","}, "Configuration 'cleanup.policy' values must not be empty."},
		{"nothing at the end of the list", map[string]string{"cleanup.policy": "delete,"}, "Configuration 'cleanup.policy' values must not be empty."},
		{"policy in capitals", map[string]string{"cleanup.policy": "Delete"}, "Invalid value Delete for configuration cleanup.policy: String must be one of: compact, delete"},
		{"ratio as in Java", map[string]string{"min.cleanable.dirty.ratio": "0.5f"}, ""},
		{"large ratio", map[string]string{"min.cleanable.dirty.ratio": "1e9"}, "Invalid value 1.0E9 for configuration min.cleanable.dirty.ratio: Value must be no more than 1"},
		{"all throttled twice", map[string]string{"leader.replication.throttled.replicas": "*,*"}, "Invalid value [*, *] for configuration leader.replication.throttled.replicas: leader.replication.throttled.replicas must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],..."},
		{"throttled with gaps", map[string]string{"leader.replication.throttled.replicas": "0:1,,"}, ""},
		{"throttled by word", map[string]string{"leader.replication.throttled.replicas": "x"}, "Invalid value [x] for configuration leader.replication.throttled.replicas: leader.replication.throttled.replicas must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],..."},
		{"all throttled", map[string]string{"leader.replication.throttled.replicas": "*"}, ""},
		{"throttled pairs", map[string]string{"leader.replication.throttled.replicas": "0:1,1:2"}, ""},
		{"tiered storage", map[string]string{"remote.storage.enable": "true"}, "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage."},
		{"no tiered storage", map[string]string{"remote.storage.enable": "false"}, ""},
		{"compaction lags crossed", map[string]string{"min.compaction.lag.ms": "100", "max.compaction.lag.ms": "10"}, "conflict topic config setting min.compaction.lag.ms (100) > max.compaction.lag.ms (10)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := b.ValidateTopic(tt.configs)
			if have := text(err); have != tt.want {
				t.Errorf("\nhave %s\nwant %s", have, tt.want)
			}
		})
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestValidateGroup holds what Apache Kafka 4.3.1 answers, word for word.
func TestValidateGroup(t *testing.T) {
	b := mustParse(t, nil)
	tests := []struct{ key, value, want string }{
		{"nope", "1", "Unknown group config name: nope"},
		{"consumer.session.timeout.ms", "50000", ""},
		{"consumer.session.timeout.ms", "1", "consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms"},
		{"consumer.session.timeout.ms", "x", "Invalid value x for configuration consumer.session.timeout.ms: Not a number of type INT"},
		{"consumer.heartbeat.interval.ms", "60000", "consumer.heartbeat.interval.ms must be less than or equal to group.consumer.max.heartbeat.interval.ms"},
		{"streams.num.standby.replicas", "7", "streams.num.standby.replicas must be less than or equal to group.streams.max.standby.replicas"},
		{"share.delivery.count.limit", "1", "Invalid value 1 for configuration share.delivery.count.limit: Value must be at least 2"},
		{"share.delivery.count.limit", "50", "share.delivery.count.limit must be less than or equal to group.share.max.delivery.count.limit"},
		{"share.auto.offset.reset", "by_duration:PT1H", ""},
		{"share.auto.offset.reset", "by_duration:PT", "Invalid value by_duration:PT for configuration share.auto.offset.reset: Invalid value `by_duration:PT` for configuration share.auto.offset.reset. The value must be either 'earliest', 'latest' or of the format 'by_duration:<PnDTnHnMn.nS>'."},
		{"share.auto.offset.reset", "x", "Invalid value x for configuration share.auto.offset.reset: Invalid value `x` for configuration share.auto.offset.reset. The value must be either 'earliest', 'latest' or of the format 'by_duration:<PnDTnHnMn.nS>'."},
		{"share.isolation.level", "x", "Invalid value x for configuration share.isolation.level: String must be one of: read_committed, read_uncommitted"},
	}
	for _, tt := range tests {
		t.Run(tt.key+"="+tt.value, func(t *testing.T) {
			if have := text(b.ValidateGroup(map[string]string{tt.key: tt.value})); have != tt.want {
				t.Errorf("\nhave %s\nwant %s", have, tt.want)
			}
		})
	}
}

// TestTopicEffective checks which source wins for each family of keys.
func TestTopicEffective(t *testing.T) {
	const day = 24 * 60 * 60 * 1000
	tests := []struct {
		name      string
		props     map[string]string
		overrides map[string]string
		have      func(Topic) any
		want      any
	}{
		{"retention by default", nil, nil, func(t Topic) any { return t.RetentionMs }, int64(7 * day)},
		{"retention in hours", map[string]string{"log.retention.hours": "2"}, nil, func(t Topic) any { return t.RetentionMs }, int64(7200000)},
		{"minutes over hours", map[string]string{"log.retention.hours": "2", "log.retention.minutes": "3"}, nil, func(t Topic) any { return t.RetentionMs }, int64(180000)},
		{"milliseconds over minutes", map[string]string{"log.retention.ms": "4", "log.retention.minutes": "3"}, nil, func(t Topic) any { return t.RetentionMs }, int64(4)},
		{"retention in hours without end", map[string]string{"log.retention.hours": "-1"}, nil, func(t Topic) any { return t.RetentionMs }, int64(-1)},
		{"override over broker", map[string]string{"log.retention.ms": "4"}, map[string]string{"retention.ms": " 9 "}, func(t Topic) any { return t.RetentionMs }, int64(9)},
		{"roll in hours", map[string]string{"log.roll.hours": "1"}, nil, func(t Topic) any { return t.SegmentMs }, int64(3600000)},
		{"roll in milliseconds", map[string]string{"log.roll.hours": "1", "log.roll.ms": "5"}, nil, func(t Topic) any { return t.SegmentMs }, int64(5)},
		{"flush by default", nil, nil, func(t Topic) any { return t.FlushMs }, int64(math.MaxInt64)},
		{"flush by the scheduler's key", map[string]string{"log.flush.scheduler.interval.ms": "8"}, nil, func(t Topic) any { return t.FlushMs }, int64(8)},
		{"largest message", map[string]string{"message.max.bytes": "77"}, nil, func(t Topic) any { return t.MaxMessageBytes }, 77},
		{"segment for tests", nil, map[string]string{"internal.segment.bytes": "100", "segment.bytes": "2000000"}, func(t Topic) any { return t.SegmentBytes }, 100},
		{"both policies", nil, map[string]string{"cleanup.policy": "compact, delete"}, func(t Topic) any { return [2]bool{t.CleanupCompact, t.CleanupDelete} }, [2]bool{true, true}},
		{"no policy", nil, map[string]string{"cleanup.policy": ""}, func(t Topic) any { return [2]bool{t.CleanupCompact, t.CleanupDelete} }, [2]bool{false, false}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			topic, err := mustParse(t, tt.props).Topic(tt.overrides)
			if err != nil {
				t.Fatal(err)
			}
			if have := tt.have(topic); have != tt.want {
				t.Errorf("have %v, want %v", have, tt.want)
			}
		})
	}
}

func TestTopicOfStoredNonsense(t *testing.T) {
	_, err := mustParse(t, nil).Topic(map[string]string{"retention.ms": "x"})
	var wrong *ValueError
	if !errors.As(err, &wrong) || wrong.Key != "retention.ms" {
		t.Errorf("have %v", err)
	}
}
