// Command sarama runs the interop scenarios (see the README) with github.com/IBM/sarama.
package main

import (
	"context"
	"errors"
	"log"
	"time"

	"github.com/IBM/sarama"

	"github.com/millrace/millrace/testdata/interop/kit"
)

func main() {
	kit.Main("sarama", runMember,
		kit.Scenario{Name: "admin-topics", Run: adminTopics},
		kit.Scenario{Name: "admin-configs", Run: adminConfigs},
		kit.Scenario{Name: "produce-codecs", Run: produceCodecs},
		kit.Scenario{Name: "consume-positions", Run: consumePositions},
		kit.Scenario{Name: "commit-resume", Run: commitResume},
		kit.Scenario{Name: "admin-groups", Run: adminGroups},
		kit.Scenario{Name: "delete-records", Run: deleteRecords},
		kit.Scenario{Name: "group-rebalance", Run: groupRebalance},
		kit.Scenario{Name: "group-cooperative", Run: groupCooperative},
		kit.Scenario{Name: "group-static", Run: groupStatic},
		kit.Scenario{Name: "read-all", Run: readAll},
		kit.Scenario{Name: "restart-idempotent", Run: restart},
	)
}

func config() *sarama.Config {
	c := sarama.NewConfig()
	c.Version = sarama.MaxVersion
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Producer.Return.Successes = true
	c.Producer.MaxMessageBytes = 1 << 20
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.Offsets.AutoCommit.Enable = false
	c.Consumer.Group.Session.Timeout = kit.Session
	c.Consumer.Group.Heartbeat.Interval = 300 * time.Millisecond
	return c
}

func admin() sarama.ClusterAdmin {
	adm, err := sarama.NewClusterAdmin(kit.Brokers(), config())
	kit.Must(err)
	return adm
}

func create(ctx context.Context, topic string, partitions int32) string {
	adm := admin()
	kit.Must(adm.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: -1}, false))
	kit.Eventually(ctx, topic+" is there", func() bool {
		listed, err := adm.ListTopics()
		kit.Must(err)
		_, there := listed[topic]
		return there
	})
	return topic
}

func producer(c *sarama.Config) sarama.SyncProducer {
	p, err := sarama.NewSyncProducer(kit.Brokers(), c)
	kit.Must(err)
	return p
}

// fill produces Numbered records 0 to n-1, a second apart from the base on, round robin over the partitions.
func fill(topic string, n, partitions int, base int64) {
	c := config()
	c.Producer.Partitioner = sarama.NewManualPartitioner
	p := producer(c)
	defer p.Close()
	for i := range n {
		_, _, err := p.SendMessage(&sarama.ProducerMessage{
			Topic: topic, Partition: int32(i % partitions), Value: sarama.StringEncoder(kit.Numbered(i)), Timestamp: time.UnixMilli(base + int64(i)*1000),
		})
		kit.Must(err)
	}
}

// readFrom reads n messages of partition 0 from an offset.
func readFrom(ctx context.Context, topic string, from int64, n int) (messages []*sarama.ConsumerMessage) {
	c := config()
	consumer, err := sarama.NewConsumer(kit.Brokers(), c)
	kit.Must(err)
	defer consumer.Close()
	part, err := consumer.ConsumePartition(topic, 0, from)
	kit.Must(err)
	defer part.Close()
	for len(messages) < n {
		select {
		case m := <-part.Messages():
			messages = append(messages, m)
		case <-ctx.Done():
			kit.Fail("%s: %d messages of %d before the deadline", topic, len(messages), n)
		}
	}
	return messages
}

func adminTopics(ctx context.Context) {
	adm, topic := admin(), kit.Topic("admin")
	kept := "3600000"
	detail := &sarama.TopicDetail{NumPartitions: 3, ReplicationFactor: int16(kit.Nodes), ConfigEntries: map[string]*string{"retention.ms": &kept}}
	kit.Must(adm.CreateTopic(topic, detail, true))
	kit.Must(adm.CreateTopic(topic, detail, false))
	err := adm.CreateTopic(topic, detail, false)
	kit.Check(errors.Is(err, sarama.ErrTopicAlreadyExists), "created twice: %v", err)
	err = adm.CreateTopic("not/allowed", detail, false)
	kit.Check(errors.Is(err, sarama.ErrInvalidTopic), "bad name: %v", err)
	listed, err := adm.ListTopics()
	kit.Must(err)
	kit.Check(listed[topic].NumPartitions == 3 && *listed[topic].ConfigEntries["retention.ms"] == kept, "listed %+v", listed[topic])
	kit.Must(adm.CreatePartitions(topic, 5, nil, false))
	kit.Eventually(ctx, "five partitions", func() bool {
		described, err := adm.DescribeTopics([]string{topic})
		kit.Must(err)
		return len(described[0].Partitions) == 5
	})
	kit.Must(adm.DeleteTopic(topic))
	kit.Eventually(ctx, "topic gone", func() bool {
		listed, err := adm.ListTopics()
		kit.Must(err)
		_, there := listed[topic]
		return !there
	})
	brokers, _, err := adm.DescribeCluster()
	kit.Must(err)
	logDirs, err := adm.DescribeLogDirs([]int32{brokers[0].ID()})
	kit.Must(err)
	kit.Check(len(logDirs) == 1, "log dirs %v", logDirs)
}

func adminConfigs(ctx context.Context) {
	adm, topic := admin(), create(ctx, kit.Topic("configs"), 1)
	find := func(key string) sarama.ConfigEntry {
		entries, err := adm.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: topic})
		kit.Must(err)
		for _, e := range entries {
			if e.Name == key {
				return e
			}
		}
		return sarama.ConfigEntry{}
	}
	alter := func(op sarama.IncrementalAlterConfigsOperation, value *string) error {
		return adm.IncrementalAlterConfig(sarama.TopicResource, topic, map[string]sarama.IncrementalAlterConfigsEntry{"max.message.bytes": {Operation: op, Value: value}}, false)
	}
	kit.Check(find("max.message.bytes").Value == "1048588", "default %+v", find("max.message.bytes"))
	two, many := "2000000", "many"
	kit.Must(alter(sarama.IncrementalAlterConfigsOperationSet, &two))
	kit.Eventually(ctx, "altered", func() bool {
		e := find("max.message.bytes")
		return e.Value == two && e.Source == sarama.SourceTopic
	})
	err := alter(sarama.IncrementalAlterConfigsOperationSet, &many)
	kit.Check(errors.Is(err, sarama.ErrInvalidConfig), "invalid value: %v", err)
	kit.Must(alter(sarama.IncrementalAlterConfigsOperationDelete, nil))
	kit.Eventually(ctx, "default again", func() bool { return find("max.message.bytes").Source == sarama.SourceDefault })
}

func produceCodecs(ctx context.Context) {
	m := kit.Manifest{Topic: create(ctx, kit.Topic("codecs"), 1), FirstTimestamp: time.Now().Add(-time.Hour).UnixMilli()}
	for _, codec := range []sarama.CompressionCodec{sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4, sarama.CompressionZSTD} {
		c := config()
		c.Producer.Compression = codec
		c.Producer.Flush.Frequency = 100 * time.Millisecond
		var messages []*sarama.ProducerMessage
		for _, r := range kit.Records(m.FirstTimestamp) {
			out := &sarama.ProducerMessage{Topic: m.Topic, Timestamp: time.UnixMilli(r.Timestamp)}
			if r.Key != nil {
				out.Key = sarama.ByteEncoder(r.Key)
			}
			if r.Value != nil {
				out.Value = sarama.ByteEncoder(r.Value)
			}
			for _, h := range r.Headers {
				out.Headers = append(out.Headers, sarama.RecordHeader{Key: []byte(h.Key), Value: h.Value})
			}
			messages = append(messages, out)
		}
		p := producer(c)
		kit.Must(p.SendMessages(messages))
		kit.Must(p.Close())
		m.Codecs = append(m.Codecs, codec.String())
	}
	kit.WriteManifest(m)
}

func readAll(ctx context.Context) {
	for _, m := range kit.Manifests() {
		want := m.Expected()
		var got []kit.Record
		for _, r := range readFrom(ctx, m.Topic, 0, len(want)) {
			one := kit.Record{Key: r.Key, Value: r.Value, Timestamp: r.Timestamp.UnixMilli()}
			for _, h := range r.Headers {
				one.Headers = append(one.Headers, kit.Header{Key: string(h.Key), Value: h.Value})
			}
			got = append(got, one)
		}
		kit.Same(m.Topic, got, want)
		log.Printf("%s: %d records are the same", m.Topic, len(got))
	}
}

func consumePositions(ctx context.Context) {
	topic, base := create(ctx, kit.Topic("positions"), 1), time.Now().Add(-time.Hour).UnixMilli()
	fill(topic, 20, 1, base)
	var values []string
	for _, r := range readFrom(ctx, topic, sarama.OffsetOldest, 20) {
		values = append(values, string(r.Value))
	}
	kit.InOrder(values, 20)
	kit.Check(readFrom(ctx, topic, 7, 1)[0].Offset == 7, "from offset 7")
	cl, err := sarama.NewClient(kit.Brokers(), config())
	kit.Must(err)
	defer cl.Close()
	for _, ask := range []struct{ time, want int64 }{{sarama.OffsetOldest, 0}, {sarama.OffsetNewest, 20}, {base + 5500, 6}, {base + 9000, 9}, {base + 99_000, -1}} {
		got, err := cl.GetOffset(topic, 0, ask.time)
		kit.Must(err)
		kit.Check(got == ask.want, "offset of time %d is %d, want %d", ask.time, got, ask.want)
	}
	kit.Check(readFrom(ctx, topic, 6, 1)[0].Timestamp.UnixMilli() == base+6000, "from a time")
}

func commitResume(ctx context.Context) {
	topic, group := create(ctx, kit.Topic("commit"), 1), kit.Topic("commit")
	fill(topic, 20, 1, time.Now().UnixMilli())
	one := join(topic, group, config())
	kit.Eventually(ctx, "the first ten", func() bool { return one.look().values >= 10 })
	one.mark(topic, 0, 10, "half way")
	one.leave()
	fetched, err := admin().ListConsumerGroupOffsets(group, map[string][]int32{topic: {0}})
	kit.Must(err)
	got := fetched.GetBlock(topic, 0)
	kit.Check(got.Offset == 10 && got.Metadata == "half way", "committed %+v", got)
	two := join(topic, group, config())
	kit.Eventually(ctx, "the other ten", func() bool { return two.look().values >= 10 })
	kit.Check(two.look().first == 10, "resumed at %d", two.look().first)
	two.leave()
}

func adminGroups(ctx context.Context) {
	adm, topic, group := admin(), create(ctx, kit.Topic("groups"), 2), kit.Topic("groups")
	c := config()
	c.ClientID = "the-member"
	m := join(topic, group, c)
	m.waitFor(ctx, "two partitions", 2)
	describe := func() *sarama.GroupDescription {
		described, err := adm.DescribeConsumerGroups([]string{group})
		kit.Must(err)
		return described[0]
	}
	kit.Eventually(ctx, "stable", func() bool { return describe().State == "Stable" })
	live := describe()
	kit.Check(len(live.Members) == 1 && live.Protocol == "range", "described %+v", live)
	for _, described := range live.Members {
		assigned, err := described.GetMemberAssignment()
		kit.Must(err)
		kit.Check(described.ClientId == "the-member" && len(assigned.Topics[topic]) == 2, "member %+v assigned %v", described, assigned)
	}
	listed, err := adm.ListConsumerGroups()
	kit.Must(err)
	kit.Check(listed[group] == "consumer", "listed %v", listed)
	err = adm.DeleteConsumerGroup(group)
	kit.Check(errors.Is(err, sarama.ErrNonEmptyGroup), "delete of a live group: %v", err)
	m.leave()
	kit.Eventually(ctx, "group empty", func() bool { return describe().State == "Empty" })
	kit.Must(adm.DeleteConsumerGroup(group))
	listed, err = adm.ListConsumerGroups()
	kit.Must(err)
	kit.Check(listed[group] == "", "still listed")
}

func deleteRecords(ctx context.Context) {
	topic := create(ctx, kit.Topic("delete-records"), 1)
	fill(topic, 20, 1, time.Now().UnixMilli())
	kit.Must(admin().DeleteRecords(topic, map[int32]int64{0: 12}))
	kit.Check(readFrom(ctx, topic, sarama.OffsetOldest, 8)[0].Offset == 12, "first readable record")
	consumer, err := sarama.NewConsumer(kit.Brokers(), config())
	kit.Must(err)
	defer consumer.Close()
	_, err = consumer.ConsumePartition(topic, 0, 3)
	kit.Check(errors.Is(err, sarama.ErrOffsetOutOfRange), "from a deleted offset: %v", err)
}

func restart(ctx context.Context) {
	const n = 3000
	topic := create(ctx, kit.Topic("restart"), 1)
	c := config()
	c.Producer.Idempotent = true
	c.Net.MaxOpenRequests = 1
	c.Producer.Retry.Max = 1000
	c.Producer.Retry.Backoff = 50 * time.Millisecond
	c.Metadata.Retry.Max = 1000
	p, err := sarama.NewAsyncProducer(kit.Brokers(), c)
	kit.Must(err)
	restarted, acked := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(acked)
		for i := range n {
			select {
			case m := <-p.Successes():
				kit.Check(m.Offset == int64(i), "acknowledgement %d is for offset %d", i, m.Offset)
			case e := <-p.Errors():
				kit.Must(e)
			case <-ctx.Done():
				kit.Fail("%d acknowledgements of %d before the deadline", i, n)
			}
		}
	}()
	for i := range n {
		if i == n/3 {
			go func() { defer close(restarted); kit.Restart(ctx) }()
		}
		p.Input() <- &sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder(kit.Numbered(i))}
		time.Sleep(500 * time.Microsecond)
	}
	<-restarted
	<-acked
	var values []string
	for _, r := range readFrom(ctx, topic, 0, n) {
		values = append(values, string(r.Value))
	}
	kit.InOrder(values, n)
}
