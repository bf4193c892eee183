// Command franz-go runs the interop scenarios (see the README) with github.com/twmb/franz-go.
package main

import (
	"context"
	"errors"
	"log"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/testdata/interop/kit"
)

func main() {
	kit.Main("franz-go", runMember,
		kit.Scenario{Name: "admin-topics", Run: adminTopics},
		kit.Scenario{Name: "admin-configs", Run: adminConfigs},
		kit.Scenario{Name: "produce-codecs", Run: produceCodecs},
		kit.Scenario{Name: "consume-positions", Run: consumePositions},
		kit.Scenario{Name: "commit-resume", Run: commitResume},
		kit.Scenario{Name: "admin-groups", Run: adminGroups},
		kit.Scenario{Name: "delete-records", Run: deleteRecords},
		kit.Scenario{Name: "refusals", Run: refusals},
		kit.Scenario{Name: "group-rebalance", Run: groupRebalance},
		kit.Scenario{Name: "group-cooperative", Run: groupCooperative},
		kit.Scenario{Name: "group-static", Run: groupStatic},
		kit.Scenario{Name: "read-all", Run: readAll},
		kit.Scenario{Name: "restart-idempotent", Run: restart},
	)
}

func client(opts ...kgo.Opt) *kgo.Client {
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(kit.Brokers()...))...)
	kit.Must(err)
	return cl
}

func admin() *kadm.Client { return kadm.NewClient(client(kgo.MetadataMinAge(50 * time.Millisecond))) }

func create(ctx context.Context, topic string, partitions int32) string {
	adm := admin()
	_, err := adm.CreateTopic(ctx, partitions, -1, nil, topic)
	kit.Must(err)
	kit.Eventually(ctx, topic+" is there", func() bool {
		listed, err := adm.ListTopics(ctx)
		kit.Must(err)
		return listed.Has(topic)
	})
	return topic
}

// fill produces Numbered records 0 to n-1, a second apart from the base on, round robin over the partitions.
func fill(ctx context.Context, topic string, n, partitions int, base int64) {
	cl := client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer cl.Close()
	for i := range n {
		r := &kgo.Record{Topic: topic, Partition: int32(i % partitions), Value: []byte(kit.Numbered(i)), Timestamp: time.UnixMilli(base + int64(i)*1000)}
		kit.Must(cl.ProduceSync(ctx, r).FirstErr())
	}
}

// read polls until n records have come.
func read(ctx context.Context, cl *kgo.Client, n int) (records []*kgo.Record) {
	for len(records) < n {
		fetches := cl.PollRecords(ctx, n-len(records))
		kit.Must(fetches.Err())
		records = append(records, fetches.Records()...)
	}
	return records
}

// readFrom reads n records of partition 0 from a position.
func readFrom(ctx context.Context, topic string, from kgo.Offset, n int) []*kgo.Record {
	cl := client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: from}}))
	defer cl.Close()
	return read(ctx, cl, n)
}

func adminTopics(ctx context.Context) {
	adm, topic := admin(), kit.Topic("admin")
	kept := "3600000"
	made, err := adm.CreateTopic(ctx, 3, int16(kit.Nodes), map[string]*string{"retention.ms": &kept}, topic)
	kit.Must(err)
	kit.Check(made.NumPartitions == 3 && made.ReplicationFactor == int16(kit.Nodes) && made.ID != kadm.TopicID{}, "created %+v", made)
	_, err = adm.CreateTopic(ctx, 3, 1, nil, topic)
	kit.Check(errors.Is(err, kerr.TopicAlreadyExists), "created twice: %v", err)
	_, err = adm.CreateTopic(ctx, 1, 1, nil, "not/allowed")
	kit.Check(errors.Is(err, kerr.InvalidTopicException), "bad name: %v", err)
	validated, err := adm.ValidateCreateTopics(ctx, 1, 1, nil, kit.Topic("validated"))
	kit.Must(err)
	kit.Must(validated.Error())

	listed, err := adm.ListTopics(ctx)
	kit.Must(err)
	kit.Check(listed.Has(topic) && !listed.Has(kit.Topic("validated")), "listed %v", listed.Names())
	described := listed[topic]
	kit.Check(len(described.Partitions) == 3 && described.ID == made.ID, "described %+v", described)
	for _, p := range described.Partitions {
		kit.Check(p.Leader >= 0 && len(p.Replicas) == kit.Nodes && len(p.ISR) == kit.Nodes, "partition %+v", p)
	}

	more, err := adm.UpdatePartitions(ctx, 5, topic)
	kit.Must(err)
	kit.Must(more.Error())
	fewer, err := adm.UpdatePartitions(ctx, 2, topic)
	kit.Must(err)
	kit.Check(errors.Is(fewer.Error(), kerr.InvalidPartitions), "fewer partitions: %v", fewer.Error())
	kit.Eventually(ctx, "five partitions", func() bool {
		listed, err := adm.ListTopics(ctx, topic)
		kit.Must(err)
		return len(listed[topic].Partitions) == 5
	})

	_, err = adm.DeleteTopic(ctx, topic)
	kit.Must(err)
	kit.Eventually(ctx, "topic gone", func() bool {
		listed, err := adm.ListTopics(ctx)
		kit.Must(err)
		return !listed.Has(topic)
	})
	_, err = adm.DeleteTopic(ctx, topic)
	kit.Check(errors.Is(err, kerr.UnknownTopicOrPartition), "deleted twice: %v", err)
}

func adminConfigs(ctx context.Context) {
	adm, topic := admin(), create(ctx, kit.Topic("configs"), 1)
	find := func(key string) *kadm.Config {
		all, err := adm.DescribeTopicConfigs(ctx, topic)
		kit.Must(err)
		rc, err := all.On(topic, nil)
		kit.Must(err)
		kit.Must(rc.Err)
		for _, c := range rc.Configs {
			if c.Key == key {
				return &c
			}
		}
		kit.Fail("no config %s among %d", key, len(rc.Configs))
		return nil
	}
	alter := func(op kadm.IncrementalOp, key, value string) error {
		altered, err := adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: op, Name: key, Value: &value}}, topic)
		kit.Must(err)
		_, err = altered.On(topic, func(r *kadm.AlterConfigsResponse) error { return r.Err })
		return err
	}
	before := find("max.message.bytes")
	kit.Check(before.MaybeValue() == "1048588" && before.Source.String() == "DEFAULT_CONFIG", "default %+v", before)
	kit.Must(alter(kadm.SetConfig, "max.message.bytes", "2000000"))
	kit.Eventually(ctx, "altered config described", func() bool {
		c := find("max.message.bytes")
		return c.MaybeValue() == "2000000" && c.Source.String() == "DYNAMIC_TOPIC_CONFIG"
	})
	kit.Must(alter(kadm.AppendConfig, "cleanup.policy", "compact"))
	kit.Eventually(ctx, "appended list", func() bool { return find("cleanup.policy").MaybeValue() == "delete,compact" })
	kit.Must(alter(kadm.DeleteConfig, "max.message.bytes", ""))
	kit.Eventually(ctx, "default again", func() bool { return find("max.message.bytes").MaybeValue() == "1048588" })
	err := alter(kadm.SetConfig, "retention.ms", "soon")
	kit.Check(errors.Is(err, kerr.InvalidConfig), "invalid value: %v", err)
	err = alter(kadm.SetConfig, "no.such.key", "1")
	kit.Check(errors.Is(err, kerr.InvalidConfig), "unknown key: %v", err)

	meta, err := adm.BrokerMetadata(ctx)
	kit.Must(err)
	brokers, err := adm.DescribeBrokerConfigs(ctx, meta.Brokers[0].NodeID)
	kit.Must(err)
	kit.Check(len(brokers) == 1 && len(brokers[0].Configs) > 50, "broker configs: %d", len(brokers[0].Configs))
}

func produceCodecs(ctx context.Context) {
	codecs := []struct {
		name  string
		codec kgo.CompressionCodec
	}{{"none", kgo.NoCompression()}, {"gzip", kgo.GzipCompression()}, {"snappy", kgo.SnappyCompression()}, {"lz4", kgo.Lz4Compression()}, {"zstd", kgo.ZstdCompression()}}
	m := kit.Manifest{Topic: create(ctx, kit.Topic("codecs"), 1), FirstTimestamp: time.Now().Add(-time.Hour).UnixMilli()}
	for _, c := range codecs {
		cl := client(kgo.ProducerBatchCompression(c.codec), kgo.DefaultProduceTopic(m.Topic), kgo.ProducerLinger(100*time.Millisecond))
		var records []*kgo.Record
		for _, r := range kit.Records(m.FirstTimestamp) {
			out := &kgo.Record{Key: r.Key, Value: r.Value, Timestamp: time.UnixMilli(r.Timestamp)}
			for _, h := range r.Headers {
				out.Headers = append(out.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
			}
			records = append(records, out)
		}
		results := cl.ProduceSync(ctx, records...)
		kit.Must(results.FirstErr())
		for i, r := range results {
			kit.Check(r.Record.Offset == int64(len(m.Codecs)*len(records)+i), "%s record %d got offset %d", c.name, i, r.Record.Offset)
		}
		cl.Close()
		m.Codecs = append(m.Codecs, c.name)
	}
	kit.WriteManifest(m)
}

func readAll(ctx context.Context) {
	for _, m := range kit.Manifests() {
		want := m.Expected()
		var got []kit.Record
		for i, r := range readFrom(ctx, m.Topic, kgo.NewOffset().AtStart(), len(want)) {
			kit.Check(r.Offset == int64(i), "%s: offset %d at %d", m.Topic, r.Offset, i)
			one := kit.Record{Key: r.Key, Value: r.Value, Timestamp: r.Timestamp.UnixMilli()}
			for _, h := range r.Headers {
				one.Headers = append(one.Headers, kit.Header{Key: h.Key, Value: h.Value})
			}
			got = append(got, one)
		}
		kit.Same(m.Topic, got, want)
		log.Printf("%s: %d records are the same", m.Topic, len(got))
	}
}

func consumePositions(ctx context.Context) {
	topic, base := create(ctx, kit.Topic("positions"), 1), time.Now().Add(-time.Hour).UnixMilli()
	fill(ctx, topic, 20, 1, base)
	first := func(from kgo.Offset) int64 { return readFrom(ctx, topic, from, 1)[0].Offset }
	var values []string
	for _, r := range readFrom(ctx, topic, kgo.NewOffset().AtStart(), 20) {
		values = append(values, string(r.Value))
	}
	kit.InOrder(values, 20)
	kit.Check(first(kgo.NewOffset().At(7)) == 7, "from offset 7")
	kit.Check(first(kgo.NewOffset().AfterMilli(base+5500)) == 6, "from a time")
	kit.Check(first(kgo.NewOffset().AtEnd().Relative(-3)) == 17, "three before the end")

	adm := admin()
	for _, ask := range []struct {
		what string
		list func() (kadm.ListedOffsets, error)
		want int64
	}{
		{"start", func() (kadm.ListedOffsets, error) { return adm.ListStartOffsets(ctx, topic) }, 0},
		{"end", func() (kadm.ListedOffsets, error) { return adm.ListEndOffsets(ctx, topic) }, 20},
		{"time", func() (kadm.ListedOffsets, error) { return adm.ListOffsetsAfterMilli(ctx, base+9000, topic) }, 9},
		{"time past the end", func() (kadm.ListedOffsets, error) { return adm.ListOffsetsAfterMilli(ctx, base+99_000, topic) }, 20},
		{"highest timestamp", func() (kadm.ListedOffsets, error) { return adm.ListMaxTimestampOffsets(ctx, topic) }, 19},
	} {
		listed, err := ask.list()
		kit.Must(err)
		got, _ := listed.Lookup(topic, 0)
		kit.Must(got.Err)
		kit.Check(got.Offset == ask.want, "%s: offset %d, want %d", ask.what, got.Offset, ask.want)
	}
}

func commitResume(ctx context.Context) {
	topic, group := create(ctx, kit.Topic("commit"), 1), kit.Topic("commit")
	fill(ctx, topic, 20, 1, time.Now().UnixMilli())
	join := func() *kgo.Client {
		return client(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	}
	one := join()
	kit.Check(read(ctx, one, 10)[9].Offset == 9, "the first ten")
	var offsets kadm.Offsets
	offsets.Add(kadm.Offset{Topic: topic, Partition: 0, At: 10, LeaderEpoch: -1, Metadata: "half way"})
	member, generation := one.GroupMetadata()
	log.Printf("member %s of generation %d", member, generation)
	one.Close()
	kit.Must(admin().CommitAllOffsets(ctx, group, offsets))
	fetched, err := admin().FetchOffsets(ctx, group)
	kit.Must(err)
	got, _ := fetched.Lookup(topic, 0)
	kit.Check(got.At == 10 && got.Metadata == "half way", "committed %+v", got)
	two := join()
	defer two.Close()
	kit.Check(read(ctx, two, 10)[0].Offset == 10, "resumed at the commit")
	kit.Must(two.CommitUncommittedOffsets(ctx))
	kit.Check(two.CommittedOffsets()[topic][0].Offset == 20, "committed by the member")
}

func adminGroups(ctx context.Context) {
	adm, topic, group := admin(), create(ctx, kit.Topic("groups"), 2), kit.Topic("groups")
	fill(ctx, topic, 2, 2, time.Now().UnixMilli())
	cl := client(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.ClientID("the member"))
	read(ctx, cl, 2)
	kit.Must(cl.CommitUncommittedOffsets(ctx))
	state := func() string {
		described, err := adm.DescribeGroups(ctx, group)
		kit.Must(err)
		if g := described[group]; g.State == "Stable" {
			kit.Check(len(g.Members) == 1 && g.Members[0].ClientID == "the member" && g.Protocol == "cooperative-sticky", "member %+v", g)
			kit.Check(len(g.AssignedPartitions()[topic]) == 2, "assigned %v", g.AssignedPartitions())
		}
		return described[group].State
	}
	kit.Check(state() == "Stable", "state %s", state())
	listed, err := adm.ListGroups(ctx, "Stable")
	kit.Must(err)
	kit.Check(listed[group].State == "Stable" && listed[group].ProtocolType == "consumer", "listed %+v", listed[group])
	_, err = adm.DeleteGroup(ctx, group)
	kit.Check(errors.Is(err, kerr.NonEmptyGroup), "delete of a live group: %v", err)
	cl.Close()
	kit.Eventually(ctx, "group empty", func() bool { return state() == "Empty" })
	lags, err := adm.Lag(ctx, group)
	kit.Must(err)
	kit.Check(lags[group].Lag.Total() == 0, "lag %d", lags[group].Lag.Total())
	deleted, err := adm.DeleteOffsets(ctx, group, kadm.TopicsSet{topic: {1: {}}})
	kit.Must(err)
	kit.Must(deleted.Error())
	left, err := adm.FetchOffsets(ctx, group)
	kit.Must(err)
	kit.Check(len(left.Offsets()[topic]) == 1, "offsets left %v", left.Offsets())
	_, err = adm.DeleteGroup(ctx, group)
	kit.Must(err)
	listed, err = adm.ListGroups(ctx)
	kit.Must(err)
	kit.Check(listed[group].Group == "", "still listed")
	_, err = adm.DeleteGroup(ctx, group)
	kit.Check(errors.Is(err, kerr.GroupIDNotFound), "deleted twice: %v", err)
}

func deleteRecords(ctx context.Context) {
	adm, topic := admin(), create(ctx, kit.Topic("delete-records"), 1)
	fill(ctx, topic, 20, 1, time.Now().UnixMilli())
	var before kadm.Offsets
	before.Add(kadm.Offset{Topic: topic, Partition: 0, At: 12})
	deleted, err := adm.DeleteRecords(ctx, before)
	kit.Must(err)
	kit.Must(deleted.Error())
	got, _ := deleted.Lookup(topic, 0)
	kit.Check(got.LowWatermark == 12, "low watermark %d", got.LowWatermark)
	starts, err := adm.ListStartOffsets(ctx, topic)
	kit.Must(err)
	start, _ := starts.Lookup(topic, 0)
	kit.Check(start.Offset == 12, "start offset %d", start.Offset)
	kit.Check(readFrom(ctx, topic, kgo.NewOffset().AtStart(), 8)[0].Offset == 12, "first readable record")
	kit.Check(readFrom(ctx, topic, kgo.NewOffset().At(3), 1)[0].Offset == 12, "an offset out of range resets to the start")
}

func refusals(ctx context.Context) {
	topic := create(ctx, kit.Topic("refusals"), 1)
	cl := client(kgo.DefaultProduceTopic(topic), kgo.ProducerBatchMaxBytes(3<<20), kgo.ProducerBatchCompression(kgo.NoCompression()))
	defer cl.Close()
	err := cl.ProduceSync(ctx, &kgo.Record{Value: make([]byte, 2<<20)}).FirstErr()
	kit.Check(errors.Is(err, kerr.MessageTooLarge), "two megabytes: %v", err)
	err = cl.ProduceSync(ctx, &kgo.Record{Value: []byte("late"), Timestamp: time.Now().Add(48 * time.Hour)}).FirstErr()
	kit.Check(errors.Is(err, kerr.InvalidTimestamp), "a time two days ahead: %v", err)
	kit.Must(cl.ProduceSync(ctx, &kgo.Record{Value: []byte("good")}).FirstErr())
	err = cl.ProduceSync(ctx, &kgo.Record{Topic: "not/allowed", Value: []byte("v")}).FirstErr()
	kit.Check(errors.Is(err, kerr.InvalidTopicException) || errors.Is(err, kerr.UnknownTopicOrPartition), "bad topic: %v", err)
}

func restart(ctx context.Context) {
	const n = 3000
	topic, group := create(ctx, kit.Topic("restart"), 1), kit.Topic("restart")
	var committed kadm.Offsets
	committed.Add(kadm.Offset{Topic: topic, Partition: 0, At: 7, LeaderEpoch: -1, Metadata: "before the restart"})
	kit.Must(admin().CommitAllOffsets(ctx, group, committed))
	cl := client(kgo.DefaultProduceTopic(topic), kgo.ProducerLinger(0), kgo.RecordRetries(1000))
	var restarted sync.WaitGroup
	for i := range n {
		if i == n/3 {
			restarted.Go(func() { kit.Restart(ctx) })
		}
		cl.Produce(ctx, kgo.StringRecord(kit.Numbered(i)), func(r *kgo.Record, err error) {
			kit.Must(err)
			kit.Check(r.Offset == int64(i), "record %d acknowledged at offset %d", i, r.Offset)
		})
		time.Sleep(500 * time.Microsecond)
	}
	restarted.Wait()
	kit.Must(cl.Flush(ctx))
	var values []string
	for _, r := range readFrom(ctx, topic, kgo.NewOffset().AtStart(), n) {
		values = append(values, string(r.Value))
	}
	kit.InOrder(values, n)
	ends, err := admin().ListEndOffsets(ctx, topic)
	kit.Must(err)
	end, _ := ends.Lookup(topic, 0)
	kit.Check(end.Offset == n, "%d records, but the log ends at %d", n, end.Offset)
	fetched, err := admin().FetchOffsets(ctx, group)
	kit.Must(err)
	kept, _ := fetched.Lookup(topic, 0)
	kit.Check(kept.At == 7 && kept.Metadata == "before the restart", "commit after the restart: %+v", kept)
}
