package engine

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/engine/config"
)

const (
	onTopic  = catalog.ResourceTopic
	onBroker = catalog.ResourceBroker
	onGroup  = catalog.ResourceGroup
)

func edit(kind catalog.ResourceType, name string, op ConfigOp, pairs ...string) ConfigAlteration {
	a := ConfigAlteration{ConfigResource: ConfigResource{kind, name}}
	for i := 0; i < len(pairs); i += 2 {
		e := ConfigEdit{Name: pairs[i], Op: op}
		if pairs[i+1] != "null" {
			e.Value = text(pairs[i+1])
		}
		a.Edits = append(a.Edits, e)
	}
	return a
}

func replace(kind catalog.ResourceType, name string, pairs ...string) ConfigAlteration {
	a := edit(kind, name, OpSet, pairs...)
	a.Replace = true
	return a
}

// TestAlterConfigs holds what Apache Kafka 4.3.1 answers, word for word, and where
// this broker refuses what it does not do.
func TestAlterConfigs(t *testing.T) {
	topics := openTopics(t, nil)
	topics.Create(t.Context(), []NewTopic{named("t")}, false)
	tests := []struct {
		name       string
		alteration ConfigAlteration
		want       string
	}{
		{"set", edit(onTopic, "t", OpSet, "retention.ms", " 77 "), ""},
		{"delete what is not set", edit(onTopic, "t", OpDelete, "nope", "null"), ""},
		{"append to a number", edit(onTopic, "t", OpAppend, "retention.ms", "5"), "invalid config: Can't APPEND to key retention.ms because its type is not LIST."},
		{"subtract from a number", edit(onTopic, "t", OpSubtract, "retention.ms", "5"), "invalid config: Can't SUBTRACT to key retention.ms because its type is not LIST."},
		{"append to nothing known", edit(onTopic, "t", OpAppend, "nope", "5"), "invalid config: Can't APPEND to key nope because its type is not LIST."},
		{"append what is not allowed", edit(onTopic, "t", OpAppend, "cleanup.policy", "foo"), "invalid config: Invalid value foo for configuration cleanup.policy: String must be one of: compact, delete"},
		{"unknown operation", edit(onTopic, "t", 9, "retention.ms", "5"), "invalid request: Unknown operations type 9"},
		{"set null", edit(onTopic, "t", OpSet, "retention.ms", "null"), "invalid request: Null value not supported for : retention.ms"},
		{"one key twice", edit(onTopic, "t", OpSet, "retention.ms", "1", "retention.ms", "2"), "invalid request: Error due to duplicate config keys"},
		{"no such topic", edit(onTopic, "nonexist", OpSet, "retention.ms", "1"), "unknown topic: The topic 'nonexist' does not exist."},
		{"no such topic, after a wrong value", edit(onTopic, "nonexist", OpSet, "retention.ms", "x"), "invalid config: Invalid value x for configuration retention.ms: Not a number of type LONG"},
		{"topic without name", edit(onTopic, "", OpSet, "retention.ms", "1"), "invalid request: Default topic resources are not allowed."},
		{"wrong name", edit(onTopic, "b@d", OpSet, "retention.ms", "1"), "invalid topic name: Topic name is invalid: 'b@d' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"},
		{"tiered storage", edit(onTopic, "t", OpSet, "remote.storage.enable", "true"), "invalid config: Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage."},
		{"broker, unknown key", edit(onBroker, "1", OpSet, "nope", "1"), ""},
		{"broker, read-only key", edit(onBroker, "1", OpSet, "log.dirs", "/x"), "invalid request: Cannot update these configs dynamically: [log.dirs]"},
		{"another broker", edit(onBroker, "2", OpSet, "log.retention.ms", "1"), "invalid request: Unexpected broker id, expected 1, but received 2"},
		{"broker that is no number", edit(onBroker, "x", OpSet, "log.retention.ms", "1"), "invalid request: Node id must be an integer, but it is: x"},
		{"broker, wrong value", edit(onBroker, "1", OpSet, "log.retention.ms", "abc"), "invalid request: Invalid value abc for configuration log.retention.ms: Not a number of type LONG"},
		{"broker, negative retention", edit(onBroker, "1", OpSet, "log.retention.ms", "-5"), ""},
		{"all brokers", edit(onBroker, "", OpSet, "log.retention.ms", "7"), ""},
		{"all brokers, key of one", edit(onBroker, "", OpSet, "listeners", "PLAINTEXT://:1"), "invalid request: Cannot update these configs at default cluster level, broker id must be specified: [listeners]"},
		{"group", edit(onGroup, "g", OpSet, "consumer.session.timeout.ms", "50000"), ""},
		{"group, unknown key", edit(onGroup, "g", OpSet, "nope", "1"), "invalid config: Unknown group config name: nope"},
		{"group without name", edit(onGroup, "", OpSet, "consumer.session.timeout.ms", "50000"), "invalid request: Default group resources are not allowed."},
		{"group, out of bounds", edit(onGroup, "g", OpSet, "consumer.session.timeout.ms", "1"), "invalid config: consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms"},
		{"client metrics", edit(catalog.ResourceClientMetrics, "s", OpSet, "metrics", "x"), "invalid request: This broker does not collect client metrics."},
		{"logger", edit(8, "1", OpSet, "root", "INFO"), "invalid request: This broker has no loggers whose level can be changed."},
		{"unknown resource", edit(99, "x", OpSet, "a", "b"), "invalid request: Unknown resource type 99"},
		{"replace", replace(onTopic, "t", "segment.ms", "5000"), ""},
		{"replace with nothing", replace(onTopic, "t"), ""},
		{"replace, unknown key", replace(onTopic, "t", "nope", "1"), "invalid config: Unknown topic config name: nope"},
		{"replace, null", replace(onTopic, "t", "segment.ms", "null"), "invalid request: Null value not supported for : segment.ms"},
		{"replace, no such topic", replace(onTopic, "nonexist"), "unknown topic: The topic 'nonexist' does not exist."},
		{"replace, logger", replace(8, "1", "a", "INFO"), "invalid request: Unknown resource type 8"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := topics.catalog.Image()
			for _, validateOnly := range []bool{true, false} {
				errs := topics.AlterConfigs(t.Context(), []ConfigAlteration{tt.alteration}, validateOnly)
				if have := refusal(errs[0]); have != tt.want {
					t.Errorf("\nhave %q\nwant %q", have, tt.want)
				}
				if (validateOnly || tt.want != "") && topics.catalog.Image() != before {
					t.Error("something changed")
				}
			}
		})
	}
	same := edit(onTopic, "t", OpSet)
	for _, err := range topics.AlterConfigs(t.Context(), []ConfigAlteration{same, same}, false) {
		if refusal(err) != "invalid request: Each resource must appear at most once." {
			t.Errorf("have %v", err)
		}
	}
}

// TestAlterConfigsSequence follows one list through a series of changes, as seen at Kafka.
func TestAlterConfigsSequence(t *testing.T) {
	topics := openTopics(t, nil)
	topics.Create(t.Context(), []NewTopic{named("t")}, false)
	steps := []struct {
		alteration ConfigAlteration
		key, value string
		source     config.Source
	}{
		{edit(onTopic, "t", OpSet, "cleanup.policy", ""), "cleanup.policy", "", config.SourceTopic},
		{edit(onTopic, "t", OpSet, "cleanup.policy", "delete,delete"), "cleanup.policy", "delete", config.SourceTopic},
		{edit(onTopic, "t", OpAppend, "cleanup.policy", "compact"), "cleanup.policy", "delete,delete,compact", config.SourceTopic},
		{edit(onTopic, "t", OpDelete, "cleanup.policy", "null"), "cleanup.policy", "delete", config.SourceDefault},
		{edit(onTopic, "t", OpAppend, "cleanup.policy", "compact"), "cleanup.policy", "delete,compact", config.SourceTopic},
		{edit(onTopic, "t", OpSubtract, "cleanup.policy", "delete"), "cleanup.policy", "compact", config.SourceTopic},
		{edit(onTopic, "t", OpSubtract, "cleanup.policy", "compact"), "cleanup.policy", "", config.SourceTopic},
		{edit(onTopic, "t", OpSet, "retention.ms", " 77 "), "retention.ms", "77", config.SourceTopic},
		{replace(onTopic, "t", "preallocate", "TRUE"), "retention.ms", "604800000", config.SourceDefault},
		{replace(onTopic, "t", "preallocate", "TRUE"), "preallocate", "true", config.SourceTopic},
		{edit(onBroker, "", OpSet, "log.retention.ms", "7200000"), "retention.ms", "7200000", config.SourceBrokerDefaults},
		{edit(onBroker, "1", OpSet, "log.retention.ms", "3600000"), "retention.ms", "3600000", config.SourceBroker},
		{edit(onBroker, "1", OpDelete, "log.retention.ms", "null"), "retention.ms", "7200000", config.SourceBrokerDefaults},
		{edit(onBroker, "", OpDelete, "log.retention.ms", "null"), "retention.ms", "604800000", config.SourceDefault},
	}
	for i, s := range steps {
		if s.value == "delete,delete,compact" {
			s.value = "delete,compact" // a list is described without repetition
		}
		if errs := topics.AlterConfigs(t.Context(), []ConfigAlteration{s.alteration}, false); errs[0] != nil {
			t.Fatal(i, errs[0])
		}
		entries, err := topics.DescribeConfigs(ConfigResource{onTopic, "t"}, []string{s.key})
		if err != nil || len(entries) != 1 || *entries[0].Value != s.value || entries[0].Source != s.source {
			t.Errorf("step %d: have %+v %v, want %q from %d", i, entries, err, s.value, s.source)
		}
	}
}

// TestAlterConfigsRace: changes of different keys of one topic at the same time all take effect.
func TestAlterConfigsRace(t *testing.T) {
	topics := openTopics(t, nil)
	topics.Create(t.Context(), []NewTopic{named("t")}, false)
	keys := []string{"retention.ms", "segment.ms", "retention.bytes", "max.message.bytes", "flush.ms", "delete.retention.ms"}
	var wg sync.WaitGroup
	for _, key := range keys {
		wg.Go(func() {
			for n := range 10 {
				if errs := topics.AlterConfigs(t.Context(), []ConfigAlteration{edit(onTopic, "t", OpSet, key, fmt.Sprint(n+1))}, false); errs[0] != nil {
					t.Error(errs[0])
				}
			}
		})
	}
	wg.Wait()
	for _, key := range keys {
		if v := topics.catalog.Image().Topic("t").Configs[key]; v != "10" {
			t.Errorf("%s=%s", key, v)
		}
	}
}

// TestDescribeConfigsRefuses holds what Apache Kafka 4.3.1 answers, word for word.
func TestDescribeConfigsRefuses(t *testing.T) {
	topics := openTopics(t, nil)
	tests := []struct {
		resource ConfigResource
		want     string
	}{
		{ConfigResource{onTopic, "nope"}, "unknown topic: "},
		{ConfigResource{onTopic, ""}, "invalid topic name: Topic name is invalid: the empty string is not allowed"},
		{ConfigResource{onBroker, "2"}, "invalid request: Unexpected broker id, expected 1 or empty string, but received 2"},
		{ConfigResource{onBroker, "x"}, "invalid request: Broker id must be an integer, but it is: x"},
		{ConfigResource{onBroker, ""}, ""},
		{ConfigResource{onGroup, ""}, "invalid request: Group name must not be empty"},
		{ConfigResource{onGroup, "any"}, ""},
		{ConfigResource{catalog.ResourceClientMetrics, ""}, "invalid request: Client metrics subscription name must not be empty"},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.resource), func(t *testing.T) {
			if _, err := topics.DescribeConfigs(tt.resource, nil); refusal(err) != tt.want {
				t.Errorf("\nhave %q\nwant %q", refusal(err), tt.want)
			}
		})
	}
}

func TestListConfigResources(t *testing.T) {
	topics := openTopics(t, nil)
	topics.Create(t.Context(), []NewTopic{named("t")}, false)
	topics.AlterConfigs(t.Context(), []ConfigAlteration{edit(onGroup, "g", OpSet, "consumer.session.timeout.ms", "50000")}, false)
	all, known := topics.ListConfigResources(nil)
	if want := []ConfigResource{{onGroup, "g"}, {onBroker, "1"}, {onTopic, "t"}}; !known || !slices.Equal(all, want) {
		t.Errorf("have %v", all)
	}
	if some, known := topics.ListConfigResources([]catalog.ResourceType{onTopic}); !known || len(some) != 1 {
		t.Errorf("have %v", some)
	}
	if _, known := topics.ListConfigResources([]catalog.ResourceType{onTopic, 99}); known {
		t.Error("an unknown kind was listed")
	}
}

func TestAdminErrorIs(t *testing.T) {
	err := fmt.Errorf("wrapped: %w", refuse(ErrTopicExists, "words"))
	if !errors.Is(err, ErrTopicExists) || refuse(ErrTopicExists, "").Error() != ErrTopicExists.Error() {
		t.Error(err)
	}
}
