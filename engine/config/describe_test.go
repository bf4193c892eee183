package config

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// recorded is one entry of a DescribeConfigs response of Apache Kafka 4.3.1.
type recorded struct {
	Name                string
	Value               *string
	Source, Type        int8
	ReadOnly, Sensitive bool
	Synonyms            []string
}

func (r recorded) String() string {
	value := "null"
	if r.Value != nil {
		value = fmt.Sprintf("%q", *r.Value)
	}
	return fmt.Sprintf("%s=%s source=%d type=%d readOnly=%t sensitive=%t synonyms=%q", r.Name, value, r.Source, r.Type, r.ReadOnly, r.Sensitive, r.Synonyms)
}

func record(e Entry) recorded {
	r := recorded{Name: e.Name, Value: e.Value, Source: int8(e.Source), Type: int8(e.Type), ReadOnly: e.ReadOnly, Sensitive: e.Sensitive, Synonyms: []string{}}
	for _, s := range e.Synonyms {
		value := "<null>"
		if s.Value != nil {
			value = *s.Value
		}
		r.Synonyms = append(r.Synonyms, fmt.Sprintf("%d %s=%s", s.Source, s.Name, value))
	}
	return r
}

func readRecorded(t *testing.T, name string) []recorded {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", "kafka-4.3.1", name+".jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []recorded
	for s := bufio.NewScanner(f); s.Scan(); {
		var r recorded
		if err := json.Unmarshal(s.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// recordedProperties are those of the Kafka that the recordings were made with.
func recordedProperties() map[string]string {
	return map[string]string{
		"process.roles":                                    "broker,controller",
		"node.id":                                          "1",
		"controller.quorum.voters":                         "1@127.0.0.1:9093",
		"controller.listener.names":                        "CONTROLLER",
		"listeners":                                        "PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093",
		"advertised.listeners":                             "PLAINTEXT://127.0.0.1:9092",
		"listener.security.protocol.map":                   "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"log.dirs":                                         "/data",
		"num.partitions":                                   "1",
		"default.replication.factor":                       "1",
		"min.insync.replicas":                              "1",
		"offsets.topic.replication.factor":                 "1",
		"transaction.state.log.replication.factor":         "1",
		"transaction.state.log.min.isr":                    "1",
		"share.coordinator.state.topic.replication.factor": "1",
		"share.coordinator.state.topic.min.isr":            "1",
		"group.initial.rebalance.delay.ms":                 "0",
		"auto.create.topics.enable":                        "true",
		"delete.topic.enable":                              "true",
	}
}

// TestDescribeAsKafka compares every entry with what Kafka answered.
func TestDescribeAsKafka(t *testing.T) {
	b := mustParse(t, recordedProperties())
	b, err := b.WithDynamic(nil, map[string]string{"min.insync.replicas": "1"}) // Kafka sets this one itself
	if err != nil {
		t.Fatal(err)
	}
	topic, err := b.DescribeTopic(map[string]string{"retention.ms": "1000", "cleanup.policy": " compact , delete "})
	if err != nil {
		t.Fatal(err)
	}
	group, err := b.DescribeGroup(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, entries := range map[string][]Entry{"topic": topic, "broker": b.DescribeBroker(), "group": group} {
		t.Run(name, func(t *testing.T) {
			have := map[string]string{}
			for _, e := range entries {
				have[e.Name] = record(e).String()
			}
			want := readRecorded(t, name)
			for _, w := range want {
				if have[w.Name] != w.String() {
					t.Errorf("\nhave %s\nwant %s", have[w.Name], w)
				}
			}
			if len(have) != len(want) {
				t.Errorf("%d entries, Kafka has %d", len(have), len(want))
			}
			if !slices.IsSortedFunc(entries, func(a, b Entry) int { return compare(a.Name, b.Name) }) {
				t.Error("entries are not in the order of their names")
			}
		})
	}
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// TestDescribeLayers follows log.retention.ms through its sources, as seen at Kafka.
func TestDescribeLayers(t *testing.T) {
	static := mustParse(t, map[string]string{"log.retention.hours": "2"})
	tests := []struct {
		name                string
		perBroker, defaults map[string]string
		topic               map[string]string
		value               string
		source              Source
		synonyms            []string
	}{
		{"only hours, not shown under the name in milliseconds", nil, nil, nil, "7200000", SourceDefault, []string{}},
		{"all brokers", nil, map[string]string{"log.retention.ms": "70"}, nil, "70", SourceBrokerDefaults, []string{"3 log.retention.ms=70", "4 log.retention.hours=2", "5 log.retention.hours=168"}},
		{"this broker over all brokers", map[string]string{"log.retention.ms": "60"}, map[string]string{"log.retention.ms": "70"}, nil, "60", SourceBroker,
			[]string{"2 log.retention.ms=60", "3 log.retention.ms=70", "4 log.retention.hours=2", "5 log.retention.hours=168"}},
		{"topic over all", map[string]string{"log.retention.ms": "60"}, nil, map[string]string{"retention.ms": " 50 "}, "50", SourceTopic,
			[]string{"1 retention.ms=50", "2 log.retention.ms=60", "4 log.retention.hours=2", "5 log.retention.hours=168"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := static.WithDynamic(tt.perBroker, tt.defaults)
			if err != nil {
				t.Fatal(err)
			}
			entries, err := b.DescribeTopic(tt.topic)
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(entries, func(e Entry) bool { return e.Name == "retention.ms" })
			e := record(entries[i])
			if *e.Value != tt.value || Source(e.Source) != tt.source || !slices.Equal(e.Synonyms, tt.synonyms) {
				t.Errorf("have %v\nwant %s %d %q", e, tt.value, tt.source, tt.synonyms)
			}
		})
	}
}

func TestDescribeHidesSecrets(t *testing.T) {
	for _, e := range mustParse(t, nil).DescribeBroker() {
		if e.Type == Password && (!e.Sensitive || e.Value != nil) {
			t.Errorf("%s shows its value", e.Name)
		}
	}
}

func mustParse(t *testing.T, props map[string]string) *Broker {
	t.Helper()
	b, _, err := ParseBroker(props)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
