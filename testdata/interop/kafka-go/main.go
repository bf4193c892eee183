// Command kafka-go runs the interop scenarios (see the README) with github.com/segmentio/kafka-go, which has no
// static members, no cooperative protocol, no deletion of records and no idempotent producer.
package main

import (
	"context"
	"errors"
	"log"
	"maps"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/millrace/millrace/testdata/interop/kit"
)

func main() {
	kit.EmptyIsNull = true
	kit.Main("kafka-go", runMember,
		kit.Scenario{Name: "admin-topics", Run: adminTopics},
		kit.Scenario{Name: "admin-configs", Run: adminConfigs},
		kit.Scenario{Name: "produce-codecs", Run: produceCodecs},
		kit.Scenario{Name: "consume-positions", Run: consumePositions},
		kit.Scenario{Name: "commit-resume", Run: commitResume},
		kit.Scenario{Name: "admin-groups", Run: adminGroups},
		kit.Scenario{Name: "group-rebalance", Run: groupRebalance},
		kit.Scenario{Name: "read-all", Run: readAll},
		kit.Scenario{Name: "restart-at-least-once", Run: restart},
	)
}

func client() *kafka.Client {
	return &kafka.Client{Addr: kafka.TCP(kit.Brokers()...), Timeout: 10 * time.Second, Transport: &kafka.Transport{MetadataTTL: time.Second}}
}

func create(ctx context.Context, topic string, partitions int) string {
	resp, err := client().CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: partitions, ReplicationFactor: kit.Nodes}}})
	kit.Must(err)
	kit.Must(resp.Errors[topic])
	kit.Eventually(ctx, topic+" has leaders", func() bool { return partitionsOf(ctx, topic) == partitions })
	return topic
}

// partitionsOf counts the partitions of a topic that have a leader; 0 when there is no such topic.
func partitionsOf(ctx context.Context, topic string) (led int) {
	// Without names: the client would otherwise wait for a topic that is gone.
	resp, err := client().Metadata(ctx, &kafka.MetadataRequest{})
	kit.Must(err)
	for _, t := range resp.Topics {
		if t.Name == topic {
			for _, p := range t.Partitions {
				if p.Error == nil && p.Leader.Host != "" {
					led++
				}
			}
		}
	}
	return led
}

func writer(topic string) *kafka.Writer {
	return &kafka.Writer{Addr: kafka.TCP(kit.Brokers()...), Topic: topic, RequiredAcks: kafka.RequireAll, BatchTimeout: 10 * time.Millisecond, BatchBytes: 1 << 20, Balancer: &kafka.RoundRobin{}}
}

// fill produces Numbered records 0 to n-1, a second apart from the base on, round robin over the partitions.
func fill(ctx context.Context, topic string, n int, base int64) {
	w := writer(topic)
	defer w.Close()
	var messages []kafka.Message
	for i := range n {
		messages = append(messages, kafka.Message{Value: []byte(kit.Numbered(i)), Time: time.UnixMilli(base + int64(i)*1000)})
	}
	kit.Must(w.WriteMessages(ctx, messages...))
}

func reader(topic string) *kafka.Reader {
	return kafka.NewReader(kafka.ReaderConfig{Brokers: kit.Brokers(), Topic: topic, MaxWait: 200 * time.Millisecond, MaxBytes: 10 << 20})
}

func read(ctx context.Context, r *kafka.Reader, n int) (messages []kafka.Message) {
	for len(messages) < n {
		m, err := r.FetchMessage(ctx)
		kit.Must(err)
		messages = append(messages, m)
	}
	return messages
}

func adminTopics(ctx context.Context) {
	cl, topic := client(), create(ctx, kit.Topic("admin"), 3)
	again, err := cl.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: 3, ReplicationFactor: kit.Nodes}, {Topic: "not/allowed", NumPartitions: 1, ReplicationFactor: kit.Nodes}}})
	kit.Must(err)
	kit.Check(errors.Is(again.Errors[topic], kafka.TopicAlreadyExists), "created twice: %v", again.Errors[topic])
	kit.Check(errors.Is(again.Errors["not/allowed"], kafka.InvalidTopic), "bad name: %v", again.Errors["not/allowed"])
	more, err := cl.CreatePartitions(ctx, &kafka.CreatePartitionsRequest{Topics: []kafka.TopicPartitionsConfig{{Name: topic, Count: 5}}})
	kit.Must(err)
	kit.Must(more.Errors[topic])
	kit.Eventually(ctx, "five partitions", func() bool { return partitionsOf(ctx, topic) == 5 })
	deleted, err := cl.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{topic}})
	kit.Must(err)
	kit.Must(deleted.Errors[topic])
	kit.Eventually(ctx, "topic gone", func() bool { return partitionsOf(ctx, topic) == 0 })
}

func adminConfigs(ctx context.Context) {
	cl, topic := client(), create(ctx, kit.Topic("configs"), 1)
	value := func() string {
		resp, err := cl.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{
			{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic, ConfigNames: []string{"max.message.bytes"}}}})
		kit.Must(err)
		kit.Must(resp.Resources[0].Error)
		kit.Check(len(resp.Resources[0].ConfigEntries) == 1, "one key asked for, got %d", len(resp.Resources[0].ConfigEntries))
		return resp.Resources[0].ConfigEntries[0].ConfigValue
	}
	alter := func(op kafka.ConfigOperation, v string) error {
		resp, err := cl.IncrementalAlterConfigs(ctx, &kafka.IncrementalAlterConfigsRequest{Resources: []kafka.IncrementalAlterConfigsRequestResource{
			{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic, Configs: []kafka.IncrementalAlterConfigsRequestConfig{{Name: "max.message.bytes", Value: v, ConfigOperation: op}}}}})
		kit.Must(err)
		return resp.Resources[0].Error
	}
	kit.Check(value() == "1048588", "default %s", value())
	kit.Must(alter(kafka.ConfigOperationSet, "2000000"))
	kit.Eventually(ctx, "altered", func() bool { return value() == "2000000" })
	kit.Check(alter(kafka.ConfigOperationSet, "many") != nil, "an invalid value was taken")
	kit.Must(alter(kafka.ConfigOperationDelete, ""))
	kit.Eventually(ctx, "default again", func() bool { return value() == "1048588" })
}

func produceCodecs(ctx context.Context) {
	m := kit.Manifest{Topic: create(ctx, kit.Topic("codecs"), 1), FirstTimestamp: time.Now().Add(-time.Hour).UnixMilli()}
	for _, codec := range []struct {
		name string
		kafka.Compression
	}{{"none", 0}, {"gzip", kafka.Gzip}, {"snappy", kafka.Snappy}, {"lz4", kafka.Lz4}, {"zstd", kafka.Zstd}} {
		w := writer(m.Topic)
		w.Compression = codec.Compression
		var messages []kafka.Message
		for _, r := range kit.Records(m.FirstTimestamp) {
			out := kafka.Message{Key: r.Key, Value: r.Value, Time: time.UnixMilli(r.Timestamp)}
			for _, h := range r.Headers {
				out.Headers = append(out.Headers, kafka.Header{Key: h.Key, Value: h.Value})
			}
			messages = append(messages, out)
		}
		kit.Must(w.WriteMessages(ctx, messages...))
		kit.Must(w.Close())
		m.Codecs = append(m.Codecs, codec.name)
	}
	kit.WriteManifest(m)
}

func readAll(ctx context.Context) {
	for _, m := range kit.Manifests() {
		want := m.Expected()
		var got []kit.Record
		r := reader(m.Topic)
		for _, r := range read(ctx, r, len(want)) {
			one := kit.Record{Key: r.Key, Value: r.Value, Timestamp: r.Time.UnixMilli()}
			for _, h := range r.Headers {
				one.Headers = append(one.Headers, kit.Header{Key: h.Key, Value: h.Value})
			}
			got = append(got, one)
		}
		kit.Must(r.Close())
		kit.Same(m.Topic, got, want)
		log.Printf("%s: %d records are the same", m.Topic, len(got))
	}
}

func consumePositions(ctx context.Context) {
	topic, base := create(ctx, kit.Topic("positions"), 1), time.Now().Add(-time.Hour).UnixMilli()
	fill(ctx, topic, 20, base)
	r := reader(topic)
	defer r.Close()
	kit.Must(r.SetOffset(kafka.FirstOffset))
	var values []string
	for _, m := range read(ctx, r, 20) {
		values = append(values, string(m.Value))
	}
	kit.InOrder(values, 20)
	kit.Must(r.SetOffset(7))
	kit.Check(read(ctx, r, 1)[0].Offset == 7, "from offset 7")
	kit.Must(r.SetOffsetAt(ctx, time.UnixMilli(base+5500)))
	kit.Check(read(ctx, r, 1)[0].Offset == 6, "from a time")
	listed, err := client().ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: {kafka.FirstOffsetOf(0), kafka.LastOffsetOf(0)}}})
	kit.Must(err)
	p := listed.Topics[topic][0]
	kit.Check(p.Error == nil && p.FirstOffset == 0 && p.LastOffset == 20, "listed %+v", p)
}

func commitResume(ctx context.Context) {
	topic, group := create(ctx, kit.Topic("commit"), 1), kit.Topic("commit")
	fill(ctx, topic, 20, time.Now().UnixMilli())
	join := func() *kafka.Reader {
		return kafka.NewReader(kafka.ReaderConfig{Brokers: kit.Brokers(), GroupID: group, Topic: topic, StartOffset: kafka.FirstOffset, MaxWait: 200 * time.Millisecond, HeartbeatInterval: 300 * time.Millisecond})
	}
	committed := func() kafka.OffsetFetchPartition {
		resp, err := client().OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: {0}}})
		kit.Must(err)
		return resp.Topics[topic][0]
	}
	one := join()
	kit.Must(one.CommitMessages(ctx, read(ctx, one, 10)...))
	kit.Must(one.Close())
	kit.Check(committed().CommittedOffset == 10, "committed %+v", committed())
	resp, err := client().OffsetCommit(ctx, &kafka.OffsetCommitRequest{GroupID: group, GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{topic: {{Partition: 0, Offset: 11, Metadata: "half way"}}}})
	kit.Must(err)
	kit.Must(resp.Topics[topic][0].Error)
	kit.Check(committed().CommittedOffset == 11 && committed().Metadata == "half way", "committed %+v", committed())
	two := join()
	kit.Check(read(ctx, two, 9)[0].Offset == 11, "resumed at the commit")
	kit.Must(two.Close())
}

func adminGroups(ctx context.Context) {
	topic, group := create(ctx, kit.Topic("groups"), 2), kit.Topic("groups")
	m := join(topic, group)
	m.waitFor(ctx, "two partitions", 2)
	kit.Eventually(ctx, "stable", func() bool { return describe(ctx, group).GroupState == "Stable" })
	live := describe(ctx, group)
	kit.Check(len(live.Members) == 1 && len(live.Members[0].MemberAssignments.Topics[0].Partitions) == 2, "described %+v", live)
	listed, err := client().ListGroups(ctx, &kafka.ListGroupsRequest{})
	kit.Must(err)
	found := false
	for _, g := range listed.Groups {
		found = found || g.GroupID == group
	}
	kit.Check(found, "not listed")
	remove := func() error {
		resp, err := client().DeleteGroups(ctx, &kafka.DeleteGroupsRequest{GroupIDs: []string{group}})
		kit.Must(err)
		return resp.Errors[group]
	}
	err = remove()
	kit.Check(errors.Is(err, kafka.NonEmptyGroup), "delete of a live group: %v", err)
	m.leave()
	kit.Eventually(ctx, "group empty", func() bool { return describe(ctx, group).GroupState == "Empty" })
	kit.Must(remove())
}

func describe(ctx context.Context, group string) kafka.DescribeGroupsResponseGroup {
	resp, err := client().DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{group}})
	kit.Must(err)
	return resp.Groups[0]
}

// member is a group member that remembers what it holds.
type member struct {
	group  *kafka.ConsumerGroup
	done   chan struct{}
	mu     sync.Mutex
	held   map[int]bool
	values map[string]bool
}

func join(topic, group string) *member {
	g, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: group, Brokers: kit.Brokers(), Topics: []string{topic}, StartOffset: kafka.FirstOffset,
		SessionTimeout: kit.Session, HeartbeatInterval: 300 * time.Millisecond, JoinGroupBackoff: 300 * time.Millisecond,
	})
	kit.Must(err)
	m := &member{group: g, done: make(chan struct{}), values: map[string]bool{}}
	go func() {
		defer close(m.done)
		for {
			gen, err := g.Next(context.Background())
			if errors.Is(err, kafka.ErrGroupClosed) {
				return
			} else if err != nil {
				log.Printf("next generation: %v", err)
				continue
			}
			m.mu.Lock()
			m.held = map[int]bool{}
			for _, a := range gen.Assignments[topic] {
				m.held[a.ID] = true
				gen.Start(func(ctx context.Context) { m.consume(ctx, topic, a) })
			}
			log.Printf("generation %d: %v", gen.ID, m.held)
			m.mu.Unlock()
		}
	}()
	return m
}

func (m *member) consume(ctx context.Context, topic string, a kafka.PartitionAssignment) {
	r := kafka.NewReader(kafka.ReaderConfig{Brokers: kit.Brokers(), Topic: topic, Partition: a.ID, MaxWait: 200 * time.Millisecond})
	defer r.Close()
	kit.Must(r.SetOffset(a.Offset))
	for {
		record, err := r.ReadMessage(ctx)
		if err != nil {
			return
		}
		m.mu.Lock()
		m.values[string(record.Value)] = true
		m.mu.Unlock()
	}
}

func (m *member) look() (held map[int]bool, values int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.held), len(m.values)
}

func (m *member) waitFor(ctx context.Context, what string, partitions int) {
	kit.Eventually(ctx, what, func() bool { held, _ := m.look(); return len(held) == partitions })
}

func (m *member) leave() {
	kit.Must(m.group.Close())
	<-m.done
}

func runMember(ctx context.Context, topic, group string) {
	join(topic, group)
	<-ctx.Done()
}

func groupRebalance(ctx context.Context) {
	topic, group := create(ctx, kit.Topic("rebalance"), 4), kit.Topic("rebalance")
	fill(ctx, topic, 40, time.Now().UnixMilli())
	m := join(topic, group)
	m.waitFor(ctx, "alone with four partitions", 4)
	other := kit.StartMember(topic, group)
	m.waitFor(ctx, "two of four after the second joined", 2)
	kit.Eventually(ctx, "stable with two members", func() bool {
		g := describe(ctx, group)
		return g.GroupState == "Stable" && len(g.Members) == 2
	})
	kit.Kill(other)
	fill(ctx, topic, 80, time.Now().UnixMilli())
	m.waitFor(ctx, "four again after the second was killed", 4)
	kit.Eventually(ctx, "every value read", func() bool { _, values := m.look(); return values == 80 })
	m.leave()
}

// restart shows what a producer without sequence numbers can promise: everything acknowledged is there, and the
// first copy of each is in order.
func restart(ctx context.Context) {
	const n = 600
	topic := create(ctx, kit.Topic("restart"), 1)
	w := writer(topic)
	w.MaxAttempts, w.BatchTimeout = 1000, time.Millisecond
	restarted := make(chan struct{})
	for i := range n {
		if i == n/3 {
			go func() { defer close(restarted); kit.Restart(ctx) }()
		}
		for w.WriteMessages(ctx, kafka.Message{Value: []byte(kit.Numbered(i))}) != nil {
			kit.Must(ctx.Err())
		}
	}
	<-restarted
	kit.Must(w.Close())
	r := reader(topic)
	defer r.Close()
	var values []string
	for len(values) < n {
		m := read(ctx, r, 1)[0]
		if value := string(m.Value); len(values) == 0 || value > values[len(values)-1] {
			values = append(values, value)
		}
	}
	kit.InOrder(values, n)
}
