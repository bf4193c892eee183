package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/engine/config"
)

// openTopics is the administration of node 1 with the given properties.
func openTopics(t *testing.T, properties map[string]string) Topics {
	t.Helper()
	broker, _, err := config.ParseBroker(properties)
	if err != nil {
		t.Fatal(err)
	}
	c, err := catalog.Open(catalog.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	now := func() *config.Broker {
		image := c.Image()
		b, err := broker.WithDynamic(image.Config(catalog.ResourceBroker, "1"), image.Config(catalog.ResourceBroker, ""))
		if err != nil {
			t.Error(err)
		}
		return b
	}
	return Topics{catalog: c, config: now, nodeID: 1}
}

func text(s string) *string { return &s }

// refusal writes an error as "kind: message", "" for none.
func refusal(err error) string {
	var admin *AdminError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &admin):
		return strings.TrimPrefix(admin.Kind.Error(), "engine: ") + ": " + admin.Message
	}
	return err.Error()
}

func named(name string) NewTopic {
	return NewTopic{Name: name, Partitions: 1, ReplicationFactor: 1}
}

func assigned(name string, assignments ...Assignment) NewTopic {
	return NewTopic{Name: name, Partitions: -1, ReplicationFactor: -1, Assignments: assignments}
}

// TestCreateTopics holds what Apache Kafka 4.3.1 answers, word for word.
func TestCreateTopics(t *testing.T) {
	topics := openTopics(t, map[string]string{"num.partitions": "3"})
	for _, name := range []string{"here", "a.b_c"} {
		if r := topics.Create(t.Context(), []NewTopic{named(name)}, false); r[0].Err != nil {
			t.Fatal(r[0].Err)
		}
	}
	long := strings.Repeat("a", 250)
	const noSuch = "The target replication factor of 2 cannot be reached because only 1 broker(s) are registered or some brokers have all their log directories cordoned."
	tests := []struct {
		name  string
		topic NewTopic
		want  string
	}{
		{"plain", named("new"), ""},
		{"longest name", named(long[1:]), ""},
		{"no name", named(""), "invalid topic name: Topic name is invalid: the empty string is not allowed"},
		{"dot", named("."), "invalid topic name: Topic name is invalid: '.' is not allowed"},
		{"two dots", named(".."), "invalid topic name: Topic name is invalid: '..' is not allowed"},
		{"three dots", named("..."), ""},
		{"space", named("a b"), "invalid topic name: Topic name is invalid: 'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"},
		{"umlaut", named("ä"), "invalid topic name: Topic name is invalid: 'ä' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"},
		{"too long", named(long), "invalid topic name: Topic name is invalid: the length of '" + long + "' is longer than the max allowed length 249"},
		{"exists", named("here"), "topic exists: Topic 'here' already exists."},
		{"exists, before wrong configs", NewTopic{Name: "here", Configs: []ConfigValue{{"nope", text("1")}}}, "topic exists: Topic 'here' already exists."},
		{"collides", named("a_b.c"), "invalid topic name: Topic 'a_b.c' collides with existing topic: a.b_c"},
		{"exists and has dots", named("a.b_c"), "topic exists: Topic 'a.b_c' already exists."},
		{"metadata topic", named("__cluster_metadata"), "invalid request: Creation of internal topic __cluster_metadata is prohibited."},
		{"offsets topic", named("__consumer_offsets"), ""},
		{"no partitions", NewTopic{Name: "x", Partitions: 0, ReplicationFactor: 1}, "invalid number of partitions: Number of partitions was set to an invalid non-positive value."},
		{"-2 partitions", NewTopic{Name: "x", Partitions: -2, ReplicationFactor: 1}, "invalid number of partitions: Number of partitions was set to an invalid non-positive value."},
		{"no replicas, before no partitions", NewTopic{Name: "x"}, "invalid replication factor: Replication factor must be larger than 0, or -1 to use the default value."},
		{"two replicas", NewTopic{Name: "x", Partitions: 1, ReplicationFactor: 2}, "invalid replication factor: Unable to replicate the partition 2 time(s): " + noSuch},
		{"10,001 partitions", NewTopic{Name: "x", Partitions: 10001, ReplicationFactor: 1}, "too much in one request: Excessively large number of partitions per request."},
		{"10,000 partitions", NewTopic{Name: "x", Partitions: 10000, ReplicationFactor: 1}, "too much in one request: Unable to perform excessively large batch operation."},
		{"9,999 partitions", NewTopic{Name: "x", Partitions: 9999, ReplicationFactor: 1}, ""},
		{"assigned, with factor", NewTopic{Name: "x", Partitions: -1, ReplicationFactor: 1, Assignments: []Assignment{{0, []int32{1}}}}, "invalid request: A manual partition assignment was specified, but replication factor was not set to -1."},
		{"assigned, with count", NewTopic{Name: "x", Partitions: 1, ReplicationFactor: -1, Assignments: []Assignment{{0, []int32{1}}}}, "invalid request: A manual partition assignment was specified, but numPartitions was not set to -1."},
		{"assigned", assigned("x", Assignment{1, []int32{1}}, Assignment{0, []int32{1}}), ""},
		{"assigned twice", assigned("x", Assignment{0, []int32{1}}, Assignment{0, []int32{1}}), "invalid replica assignment: Found multiple manual partition assignments for partition 0"},
		{"assigned with a gap", assigned("x", Assignment{0, []int32{1}}, Assignment{2, []int32{1}}), "invalid replica assignment: partitions should be a consecutive 0-based integer sequence"},
		{"assigned from 1", assigned("x", Assignment{1, []int32{1}}), "invalid replica assignment: partitions should be a consecutive 0-based integer sequence"},
		{"assigned to none", assigned("x", Assignment{0, nil}), "invalid replica assignment: The manual partition assignment includes an empty replica list."},
		{"assigned to a stranger", assigned("x", Assignment{0, []int32{7, 1}}), "invalid replica assignment: The manual partition assignment includes broker 7, but no such broker is registered."},
		{"assigned to one twice", assigned("x", Assignment{0, []int32{1, 1}}), "invalid replica assignment: The manual partition assignment includes the broker 1 more than once."},
		{"unknown config, before no partitions", NewTopic{Name: "x", Configs: []ConfigValue{{"nope", text("1")}}}, "invalid config: Unknown topic config name: nope"},
		{"null config", NewTopic{Name: "x", Partitions: 1, ReplicationFactor: 1, Configs: []ConfigValue{{"retention.ms", nil}, {"segment.ms", nil}}}, "invalid config: Null value not supported for topic configs: retention.ms,segment.ms"},
		{"the last of two values counts", NewTopic{Name: "x", Partitions: 1, ReplicationFactor: 1, Configs: []ConfigValue{{"retention.ms", text("x")}, {"retention.ms", text("2")}}}, ""},
		{"tiered storage", NewTopic{Name: "x", Partitions: 1, ReplicationFactor: 1, Configs: []ConfigValue{{"remote.storage.enable", text("true")}}}, "invalid config: Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := topics.catalog.Image()
			r := topics.Create(t.Context(), []NewTopic{tt.topic}, true)
			if len(r) != 1 || r[0].Name != tt.topic.Name || refusal(r[0].Err) != tt.want {
				t.Errorf("\nhave %q\nwant %q", refusal(r[0].Err), tt.want)
			}
			if r[0].Err == nil && (len(r[0].Configs) < 33 || r[0].ReplicationFactor != 1 || r[0].ID == catalog.TopicID{}) {
				t.Errorf("have %+v", r[0])
			}
			if topics.catalog.Image() != before {
				t.Error("validation changed something")
			}
		})
	}
}

func TestCreateTopicsTogether(t *testing.T) {
	topics := openTopics(t, map[string]string{"num.partitions": "3"})
	before := topics.catalog.Image().Version()
	r := topics.Create(t.Context(), []NewTopic{
		named("dup"), {Name: "one", Partitions: -1, ReplicationFactor: -1, Configs: []ConfigValue{{"retention.ms", text(" 5 ")}}}, named("dup"), named("b@d"), named("x.y"), named("x_y"),
	}, false)
	var have []string
	for _, c := range r {
		have = append(have, fmt.Sprintf("%s partitions=%d factor=%d %s", c.Name, c.Partitions, c.ReplicationFactor, refusal(c.Err)))
	}
	want := []string{
		"one partitions=3 factor=1 ",
		"b@d partitions=0 factor=0 invalid topic name: Topic name is invalid: 'b@d' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
		"x.y partitions=1 factor=1 ",
		"x_y partitions=1 factor=1 ",
		"dup partitions=0 factor=0 invalid request: Duplicate topic name.",
	}
	if !slices.Equal(have, want) {
		t.Errorf("\nhave %q\nwant %q", have, want)
	}
	image := topics.catalog.Image()
	if image.Version() != before+1 {
		t.Errorf("%d changes, want 1", image.Version()-before)
	}
	one := image.Topic("one")
	if one.ID != r[0].ID || len(one.Partitions) != 3 || one.Partitions[2].Leader != 1 || one.Configs["retention.ms"] != " 5 " {
		t.Errorf("have %+v", one)
	}
	// Kafka's bound counts topics, configs and partitions together.
	var many []NewTopic
	for i := range 5001 {
		many = append(many, named(fmt.Sprint("many", i)))
	}
	if r := topics.Create(t.Context(), many[:5000], true); r[0].Err != nil {
		t.Error(r[0].Err)
	}
	if r := topics.Create(t.Context(), many, true); !errors.Is(r[5000].Err, ErrTooMuchAtOnce) {
		t.Errorf("have %v", r[5000].Err)
	}
}

// TestCreateTopicsRace: of many that create one topic at the same time, one does.
func TestCreateTopicsRace(t *testing.T) {
	topics := openTopics(t, nil)
	var wg sync.WaitGroup
	results := make([]CreatedTopic, 16)
	for i := range results {
		wg.Go(func() { results[i] = topics.Create(t.Context(), []NewTopic{named("t")}, false)[0] })
	}
	wg.Wait()
	created := 0
	for _, r := range results {
		if r.Err == nil {
			created++
			if topics.catalog.Image().Topic("t").ID != r.ID {
				t.Error("told another id than the topic has")
			}
		} else if refusal(r.Err) != "topic exists: Topic 't' already exists." || r.Partitions != 0 {
			t.Errorf("have %+v", r)
		}
	}
	if created != 1 {
		t.Errorf("created %d times", created)
	}
}

func TestCreateTopicsDeadline(t *testing.T) {
	topics := openTopics(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := topics.Create(ctx, []NewTopic{named("t")}, false)[0].Err; err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("have %v", err)
	}
}

func TestAutoCreate(t *testing.T) {
	topics := openTopics(t, map[string]string{"num.partitions": "4", "offsets.topic.num.partitions": "7"})
	for _, r := range topics.AutoCreate(t.Context(), []string{"plain", OffsetsTopic}) {
		if r.Err != nil {
			t.Error(r.Err)
		}
	}
	image := topics.catalog.Image()
	if plain := image.Topic("plain"); len(plain.Partitions) != 4 || plain.Configs != nil {
		t.Errorf("have %+v", plain)
	}
	offsets := image.Topic(OffsetsTopic)
	if len(offsets.Partitions) != 7 || offsets.Configs["cleanup.policy"] != "compact" || offsets.Configs["compression.type"] != "producer" || offsets.Configs["segment.bytes"] != "104857600" {
		t.Errorf("have %+v", offsets)
	}
}

func TestPlaceOnSeveralBrokers(t *testing.T) {
	topics := openTopics(t, nil)
	for _, id := range []int32{3, 2, 1} {
		if _, err := topics.catalog.Propose(t.Context(), catalog.RegisterBroker{Broker: catalog.Broker{ID: id}}); err != nil {
			t.Fatal(err)
		}
	}
	r := topics.Create(t.Context(), []NewTopic{{Name: "t", Partitions: 6, ReplicationFactor: 2}}, false)
	if r[0].Err != nil || r[0].ReplicationFactor != 2 {
		t.Fatal(r[0])
	}
	leads := map[int32]int{}
	for _, p := range topics.catalog.Image().Topic("t").Partitions {
		leads[p.Leader]++
		if p.Replicas[0] == p.Replicas[1] || p.Leader != p.Replicas[0] || !slices.Equal(p.ISR, p.Replicas) {
			t.Errorf("have %+v", p)
		}
	}
	if len(leads) != 3 || leads[1] != 2 || leads[2] != 2 || leads[3] != 2 {
		t.Errorf("leaders %v", leads)
	}
	mixed := topics.Create(t.Context(), []NewTopic{assigned("x", Assignment{0, []int32{1}}, Assignment{1, []int32{2, 1}})}, true)
	if want := "invalid replica assignment: The manual partition assignment includes a partition with 2 replica(s), but this is not consistent with previous partitions, which have 1 replica(s)."; refusal(mixed[0].Err) != want {
		t.Errorf("\nhave %s\nwant %s", refusal(mixed[0].Err), want)
	}
}

// TestDeleteTopics holds what Apache Kafka 4.3.1 answers, word for word.
func TestDeleteTopics(t *testing.T) {
	topics := openTopics(t, nil)
	created := topics.Create(t.Context(), []NewTopic{named("a"), named("b"), named("c"), named("d")}, false)
	unknown := catalog.TopicID{1, 2}
	refs := []TopicRef{
		{Name: text("a")}, {ID: created[1].ID}, {Name: text("nope")}, {ID: unknown}, {}, {Name: text("c"), ID: unknown},
		{Name: text("c")}, {Name: text("c")}, {ID: catalog.TopicID{9}}, {ID: catalog.TopicID{9}}, {Name: text("d")}, {ID: created[3].ID},
	}
	deleted, err := topics.Delete(t.Context(), refs)
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]int{}
	for _, d := range deleted {
		name := "null"
		if d.Name != nil {
			name = *d.Name
		}
		if errors.Is(d.Err, ErrInvalidRequest) || d.Err != nil {
			name += " " + fmt.Sprint(d.ID[0])
		}
		have[name+" "+refusal(d.Err)]++
	}
	want := []string{
		"a ", "b ", "d ",
		"nope 0 unknown topic: This server does not host this topic-partition.",
		"null 1 unknown topic id: This server does not host this topic ID.",
		"null 0 invalid request: Neither topic name nor id were specified.",
		"c 1 invalid request: You may not specify both topic name and topic id.",
		"c 0 invalid request: Duplicate topic name.",
		"null 9 invalid request: Duplicate topic id.",
		fmt.Sprintf("null %d invalid request: The provided topic name maps to an ID that was already supplied.", created[3].ID[0]),
	}
	for _, w := range want {
		if have[w] != 1 {
			t.Errorf("%d times %q", have[w], w)
		}
	}
	if len(deleted) != len(want) {
		t.Errorf("%d results: %v", len(deleted), have)
	}
	if image := topics.catalog.Image(); image.TopicCount() != 1 || image.Topic("c") == nil {
		t.Errorf("%d topics are left", image.TopicCount())
	}
}

func TestDeleteTopicsDisabled(t *testing.T) {
	topics := openTopics(t, map[string]string{"delete.topic.enable": "false"})
	if _, err := topics.Delete(t.Context(), []TopicRef{{Name: text("a")}}); !errors.Is(err, ErrDeletionDisabled) {
		t.Errorf("have %v", err)
	}
}

// TestCreatePartitions holds what Apache Kafka 4.3.1 answers, word for word.
func TestCreatePartitions(t *testing.T) {
	topics := openTopics(t, nil)
	topics.Create(t.Context(), []NewTopic{named("t")}, false)
	tests := []struct {
		name string
		more MorePartitions
		want string
	}{
		{"more", MorePartitions{"t", 3, nil}, ""},
		{"unknown", MorePartitions{"nope", 3, nil}, "unknown topic: "},
		{"as many", MorePartitions{"t", 1, nil}, "invalid number of partitions: Topic already has 1 partition(s)."},
		{"none", MorePartitions{"t", 0, nil}, "invalid number of partitions: The topic t currently has 1 partition(s); 0 would not be an increase."},
		{"negative", MorePartitions{"t", -1, nil}, "invalid number of partitions: The topic t currently has 1 partition(s); -1 would not be an increase."},
		{"assigned", MorePartitions{"t", 2, [][]int32{{1}}}, ""},
		{"too few assigned", MorePartitions{"t", 3, [][]int32{{1}}}, "invalid replica assignment: Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified."},
		{"assigned nothing", MorePartitions{"t", 2, [][]int32{}}, "invalid replica assignment: Attempted to add 1 additional partition(s), but only 0 assignment(s) were specified."},
		{"assigned to a stranger", MorePartitions{"t", 2, [][]int32{{7}}}, "invalid replica assignment: The manual partition assignment includes broker 7, but no such broker is registered."},
		{"assigned to none", MorePartitions{"t", 2, [][]int32{{}}}, "invalid replica assignment: The manual partition assignment includes an empty replica list."},
		{"assigned to one twice", MorePartitions{"t", 2, [][]int32{{1, 1}}}, "invalid replica assignment: The manual partition assignment includes the broker 1 more than once."},
		{"too many", MorePartitions{"t", 10002, nil}, "too much in one request: Unable to perform excessively large batch operation."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := topics.CreatePartitions(t.Context(), []MorePartitions{tt.more}, true)
			if len(r) != 1 || refusal(r[0].Err) != tt.want {
				t.Errorf("\nhave %q\nwant %q", refusal(r[0].Err), tt.want)
			}
		})
	}
	r := topics.CreatePartitions(t.Context(), []MorePartitions{{"t", 4, nil}, {"x", 2, nil}, {"x", 3, nil}}, false)
	if len(r) != 2 || refusal(r[0].Err) != "invalid request: Duplicate topic name." || r[1].Err != nil {
		t.Errorf("have %+v", r)
	}
	if n := len(topics.catalog.Image().Topic("t").Partitions); n != 4 {
		t.Errorf("%d partitions", n)
	}
}

// TestCreatePartitionsRace: many that grow a topic step by step never lose a partition.
func TestCreatePartitionsRace(t *testing.T) {
	topics := openTopics(t, nil)
	topics.Create(t.Context(), []NewTopic{named("t")}, false)
	var wg sync.WaitGroup
	var mu sync.Mutex
	grown := 0
	for i := range 20 {
		wg.Go(func() {
			if r := topics.CreatePartitions(t.Context(), []MorePartitions{{"t", int32(i + 2), nil}}, false); r[0].Err == nil {
				mu.Lock()
				grown++
				mu.Unlock()
			} else if !errors.Is(r[0].Err, ErrInvalidPartitions) {
				t.Error(r[0].Err)
			}
		})
	}
	wg.Wait()
	if n := len(topics.catalog.Image().Topic("t").Partitions); n != 21 || grown == 0 {
		t.Errorf("%d partitions after %d successes", n, grown)
	}
}

func TestProducerIDs(t *testing.T) {
	topics := openTopics(t, nil)
	seen := map[int64]bool{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 3 { // three starts of a node
		ids := NewProducerIDs(topics.catalog, 1)
		for range 4 {
			wg.Go(func() {
				for range producerIDBlock / 3 {
					id, err := ids.Next(t.Context())
					mu.Lock()
					if err != nil || seen[id] {
						t.Errorf("id %d, %v", id, err)
					}
					seen[id] = true
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	if next := topics.catalog.Image().NextProducerID(); next != 6*producerIDBlock {
		t.Errorf("%d ids were reserved", next)
	}
	topics.catalog.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := NewProducerIDs(topics.catalog, 1).Next(ctx); err == nil {
		t.Error("an id from a closed catalogue")
	}
}
