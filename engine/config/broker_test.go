package config

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"
)

func TestParseBrokerDefaults(t *testing.T) {
	b := mustParse(t, nil)
	tests := []struct {
		name       string
		have, want any
	}{
		{"node.id", b.NodeID, int32(1)},
		{"num.partitions", b.NumPartitions, int32(1)},
		{"auto.create.topics.enable", b.AutoCreateTopics, true},
		{"message.max.bytes", b.MessageMaxBytes, 1048588},
		{"socket.request.max.bytes", b.SocketRequestMaxBytes, 104857600},
		{"connections.max.idle.ms", b.ConnectionsMaxIdle, 10 * time.Minute},
		{"group.initial.rebalance.delay.ms", b.GroupInitialRebalanceDelay, 3 * time.Second},
		{"offsets.retention.minutes", b.OffsetsRetention, 7 * 24 * time.Hour},
		{"offsets.topic.num.partitions", b.OffsetsTopicPartitions, int32(50)},
		{"listeners", b.Listeners[0].String(), "PLAINTEXT://:9092"},
		{"advertised.listeners", len(b.Advertised), 0},
	}
	for _, tt := range tests {
		if tt.have != tt.want {
			t.Errorf("%s: have %v, want %v", tt.name, tt.have, tt.want)
		}
	}
	for i := range brokerKeys {
		k := &brokerKeys[i]
		if (k.Has(Honoured) || k.Has(Stored)) != (k.Doc != "") {
			t.Errorf("%s: a key is explained exactly when it is honoured or stored", k.Name)
		}
		if !k.noDefault() {
			if v, err := k.parse(k.Default); err != nil || format(v) != k.Default {
				t.Errorf("%s: default %q reads as %q, %v", k.Name, k.Default, format(v), err)
			}
		}
	}
	for i := range groupKeys { // DescribeGroup reads them without a look at the error
		k := &groupKeys[i]
		if v, err := k.parse(k.Default); err != nil || format(v) != k.Default {
			t.Errorf("group key %s: default %q reads as %q, %v", k.Name, k.Default, format(v), err)
		}
	}
}

func TestParseBrokerRefuses(t *testing.T) {
	tests := []struct{ name, key, value, want string }{
		{"misspelt", "log.retention.hour", "1", "unknown configuration key log.retention.hour; did you mean log.retention.hours?"},
		{"misspelt in the middle", "socket.reqest.max.bytes", "1", "unknown configuration key socket.reqest.max.bytes; did you mean socket.request.max.bytes?"},
		{"nothing like it", "zzzzzzzzz", "1", "unknown configuration key zzzzzzzzz"},
		{"a topic key", "retention.ms", "1", "did you mean log.retention.ms?"},
		{"wrong value", "num.partitions", "0", "Invalid value 0 for configuration num.partitions: Value must be at least 1"},
		{"size with a unit", "log.segment.bytes", "1g", "Invalid value 1g for configuration log.segment.bytes: Not a number of type INT"},
		{"encryption", "ssl.keystore.location", "/keys", "configuration ssl.keystore.location=/keys is refused"},
		{"secret is not shown", "ssl.key.password", "hunter2", "configuration ssl.key.password=[hidden] is refused"},
		{"authentication", "sasl.enabled.mechanisms", "PLAIN", "is refused"},
		{"authorisation", "authorizer.class.name", "x.Y", "is refused"},
		{"super users", "super.users", "User:a", "is refused"},
		{"per listener", "listener.name.plaintext.ssl.keystore.location", "/keys", "is refused"},
		{"tiered storage", "remote.log.storage.system.enable", "true", "is refused"},
		{"quorum of three", "controller.quorum.voters", "1@a:1,2@b:1,3@c:1", "stands alone"},
		{"controller only", "process.roles", "controller", "would serve nothing"},
		{"unknown role", "process.roles", "broker,x", "Invalid value x for configuration process.roles: String must be one of: broker, controller"},
		{"one directory twice", "log.dirs", "/a,/b,/a", "twice"},
		{"encrypted listener", "listeners", "SSL://:9093", "only PLAINTEXT is served"},
		{"listener without protocol", "listeners", "INSIDE://:9093", "No security protocol defined for listener INSIDE"},
		{"listener without port", "listeners", "PLAINTEXT://host", "no port"},
		{"listener with a large port", "listeners", "PLAINTEXT://host:70000", "not a number from 0 to 65535"},
		{"not a listener", "listeners", "localhost:9092", "expected NAME://HOST:PORT"},
		{"unknown protocol", "listener.security.protocol.map", "A:B", "no security protocol is named B"},
		{"advertised to everywhere", "advertised.listeners", "PLAINTEXT://0.0.0.0:9092", "nonroutable"},
		{"advertised but not listened on", "advertised.listeners", "OTHER://h:1", "OTHER"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := ParseBroker(map[string]string{tt.key: tt.value})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("\nhave %v\nwant %s", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Error("the error shows a secret")
			}
		})
	}
}

// TestSecurityDefaults: spelling out a default asks for nothing.
func TestSecurityDefaults(t *testing.T) {
	props := map[string]string{}
	for i := range brokerKeys {
		if k := &brokerKeys[i]; k.Has(Refused) && !k.noDefault() {
			props[k.Name] = k.Default
		}
	}
	if len(props) < 20 {
		t.Fatalf("only %d keys are refused", len(props))
	}
	if _, _, err := ParseBroker(props); err != nil {
		t.Error(err)
	}
}

func TestParseBrokerWarns(t *testing.T) {
	props := map[string]string{
		"num.io.threads": "4", "zookeeper.connect": "z:1", "rsm.config.x": "y", "socket.send.buffer.bytes": "5", // no effect here
		"num.partitions": "4", "node.id": "7", // honoured
	}
	b, warnings, err := ParseBroker(props)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]int{}
	for _, w := range warnings {
		keys[w.Key]++
	}
	if want := map[string]int{"num.io.threads": 1, "zookeeper.connect": 1, "rsm.config.x": 1, "socket.send.buffer.bytes": 1}; !maps.Equal(keys, want) {
		t.Errorf("have %v, want %v", keys, want)
	}
	if b.NumPartitions != 4 || b.NodeID != 7 {
		t.Errorf("have %d partitions on node %d", b.NumPartitions, b.NodeID)
	}
	if v, _ := b.Get("broker.id"); v != "7" {
		t.Errorf("broker.id is %s", v)
	}
}

func TestNodeAndBrokerID(t *testing.T) {
	if b := mustParse(t, map[string]string{"broker.id": "5"}); b.NodeID != 5 {
		t.Errorf("have node %d", b.NodeID)
	}
	_, _, err := ParseBroker(map[string]string{"broker.id": "5", "node.id": "6"})
	if err == nil {
		t.Error("two different ids were accepted")
	}
}

func TestLogDirs(t *testing.T) {
	tests := []struct {
		name  string
		props map[string]string
		want  string
	}{
		{"log.dir", map[string]string{"log.dir": "/a"}, "/a"},
		{"log.dirs over log.dir", map[string]string{"log.dir": "/a", "log.dirs": " /b "}, "/b"},
		{"empty log.dirs", map[string]string{"log.dir": "/a", "log.dirs": ""}, "/a"},
	}
	for _, tt := range tests {
		if have := mustParse(t, tt.props).LogDirs; len(have) != 1 || have[0] != tt.want {
			t.Errorf("%s: have %q, want %s", tt.name, have, tt.want)
		}
	}
}

func TestListeners(t *testing.T) {
	b := mustParse(t, map[string]string{
		"listeners":                      "inside://[::1]:1, PLAINTEXT://h.example:0,CONTROLLER://:3",
		"advertised.listeners":           "PLAINTEXT://pub:9",
		"listener.security.protocol.map": "INSIDE:plaintext,PLAINTEXT:PLAINTEXT,CONTROLLER:SASL_SSL",
		"controller.listener.names":      "CONTROLLER",
	})
	if len(b.Listeners) != 2 || b.Listeners[0] != (Listener{"INSIDE", "::1", 1}) || b.Listeners[1] != (Listener{"PLAINTEXT", "h.example", 0}) {
		t.Errorf("have %v", b.Listeners)
	}
	if b.Listeners[0].String() != "INSIDE://[::1]:1" || len(b.Advertised) != 1 {
		t.Errorf("have %v %v", b.Listeners[0], b.Advertised)
	}
}

// TestDynamic: dynamic values reach the typed fields, and only those of keys
// that may change while running.
func TestDynamic(t *testing.T) {
	static := mustParse(t, map[string]string{"message.max.bytes": "10", "num.partitions": "3"})
	b, err := static.WithDynamic(map[string]string{"message.max.bytes": "30", "num.partitions": "9", "a.plugin": "x"}, map[string]string{"message.max.bytes": "20"})
	if err != nil {
		t.Fatal(err)
	}
	if b.MessageMaxBytes != 30 || b.NumPartitions != 3 || static.MessageMaxBytes != 10 {
		t.Errorf("have %d, %d; before %d", b.MessageMaxBytes, b.NumPartitions, static.MessageMaxBytes)
	}
	if b, err = b.WithDynamic(nil, map[string]string{"message.max.bytes": "20"}); err != nil || b.MessageMaxBytes != 20 {
		t.Errorf("have %d, %v", b.MessageMaxBytes, err)
	}
	var wrong *ValueError
	if _, err = static.WithDynamic(map[string]string{"message.max.bytes": "x"}, nil); !errors.As(err, &wrong) {
		t.Errorf("have %v", err)
	}
}

func TestFormatDouble(t *testing.T) {
	for f, want := range map[float64]string{0: "0.0", 2: "2.0", 0.25: "0.25", 0.9: "0.9", 1.7976931348623157e308: "1.7976931348623157E308", 1e7: "1.0E7", 9999999: "9999999.0", 0.0005: "5.0E-4"} {
		if have := formatDouble(f); have != want {
			t.Errorf("%g: have %s, want %s", f, have, want)
		}
	}
}

// FuzzParseBroker: no value of any key makes a panic, and what is accepted is described.
func FuzzParseBroker(f *testing.F) {
	f.Add("listeners", "PLAINTEXT://[::1]:1,,")
	f.Add("log.cleaner.min.cleanable.ratio", "inf")
	f.Add("log.retention.hours", "-1")
	f.Add("log.cleaner.io.buffer.load.factor", "1e3f")
	f.Add("listener.security.protocol.map", "A:B,:")
	f.Fuzz(func(t *testing.T, key, text string) {
		b, _, err := ParseBroker(map[string]string{key: text})
		if err != nil {
			return
		}
		b.DescribeBroker()
		if _, err := b.Topic(nil); err != nil {
			t.Errorf("%s=%q: %v", key, text, err)
		}
	})
}

// FuzzValidateTopic: what is accepted can be used and described.
func FuzzValidateTopic(f *testing.F) {
	f.Add("cleanup.policy", " compact ,, delete")
	f.Add("leader.replication.throttled.replicas", "1:1,*")
	f.Add("min.cleanable.dirty.ratio", "NaN")
	b, _, err := ParseBroker(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, key, text string) {
		overrides := map[string]string{key: text}
		if b.ValidateTopic(overrides) != nil {
			return
		}
		if _, err := b.Topic(overrides); err != nil {
			t.Error(err)
		}
		if _, err := b.DescribeTopic(overrides); err != nil {
			t.Error(err)
		}
	})
}
