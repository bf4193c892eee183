package config

import (
	"slices"
	"testing"
)

// TestValidateDynamic holds what Apache Kafka 4.3.1 answers, and where this broker
// refuses what Kafka would do.
func TestValidateDynamic(t *testing.T) {
	b := mustParse(t, nil)
	tests := []struct {
		name, key, value string
		perBroker        bool
		want             string
	}{
		{"one broker", "log.retention.ms", "3600000", true, ""},
		{"all brokers", "log.retention.ms", "3600000", false, ""},
		{"negative retention", "log.retention.ms", "-5", true, ""},
		{"unknown key", "nope", "1", true, ""},
		{"read-only key", "log.dirs", "/x", true, "Cannot update these configs dynamically: [log.dirs]"},
		{"wrong value", "log.retention.ms", "abc", true, "Invalid value abc for configuration log.retention.ms: Not a number of type LONG"},
		{"wrong policy", "log.cleanup.policy", "foo", true, "Invalid value foo for configuration log.cleanup.policy: String must be one of: compact, delete"},
		{"below the least", "message.max.bytes", "-1", false, "Invalid value -1 for configuration message.max.bytes: Value must be at least 0"},
		{"keystore without listener", "ssl.keystore.location", "/x", true, "These security configs can be dynamically updated only per-listener using the listener prefix: [ssl.keystore.location]"},
		{"per broker for all", "listeners", "PLAINTEXT://:1", false, "Cannot update these configs at default cluster level, broker id must be specified: [listeners]"},
		{"listeners are fixed here", "listeners", "PLAINTEXT://:1", true, "Cannot update these configs dynamically: [listeners]"},
		{"connections in all", "max.connections", "5", false, ""},
		{"connections of an address", "max.connections.per.ip", "5", true, ""},
		{"no connections at all", "max.connections", "0", true, "Invalid max.connections 0"},
		{"no connections of any address", "max.connections.per.ip", "0", false, "requirement failed: max.connections.per.ip can be set to zero only if max.connections.per.ip.overrides property is set."},
		{"a limit that nothing keeps to", "max.connection.creation.rate", "5", false, "Cannot update these configs dynamically: [max.connection.creation.rate]"},
		{"listener key", "listener.name.plaintext.max.connections", "5", true, "configuration listener.name.plaintext.max.connections=… is refused: listeners have no settings of their own here"},
		{"tunes what nobody asked for", "sasl.kerberos.min.time.before.relogin", "58000", true, ""},
		{"authentication", "sasl.enabled.mechanisms", "PLAIN", true, "configuration sasl.enabled.mechanisms=… is refused: " + notBuilt},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if have := text(b.ValidateDynamic(map[string]string{tt.key: tt.value}, tt.perBroker)); have != tt.want {
				t.Errorf("\nhave %s\nwant %s", have, tt.want)
			}
		})
	}
}

// TestDescribeNewTopic: the answer to CreateTopics names the true source of every
// value, unlike DescribeConfigs.
func TestDescribeNewTopic(t *testing.T) {
	b := mustParse(t, map[string]string{"log.retention.hours": "2"})
	entries := b.DescribeNewTopic(map[string]string{"cleanup.policy": " compact , delete "})
	tests := []struct {
		name, value string
		source      Source
	}{
		{"cleanup.policy", " compact , delete ", SourceTopic},
		{"retention.ms", "7200000", SourceStatic},
		{"segment.ms", "604800000", SourceDefault},
	}
	for _, tt := range tests {
		i := slices.IndexFunc(entries, func(e Entry) bool { return e.Name == tt.name })
		if e := entries[i]; *e.Value != tt.value || e.Source != tt.source {
			t.Errorf("%s: have %q from %d, want %q from %d", tt.name, *e.Value, e.Source, tt.value, tt.source)
		}
	}
	if len(entries) != len(readRecorded(t, "topic")) {
		t.Errorf("%d entries", len(entries))
	}
}
