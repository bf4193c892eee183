package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// codecs are those of Kafka, by name.
var codecs = []struct {
	name  string
	codec kgo.CompressionCodec
}{{"none", kgo.NoCompression()}, {"gzip", kgo.GzipCompression()}, {"snappy", kgo.SnappyCompression()}, {"lz4", kgo.Lz4Compression()}, {"zstd", kgo.ZstdCompression()}}

// firstTimestamp of the records, so that two runs write the same.
var firstTimestamp = time.UnixMilli(1_700_000_000_000)

// fill writes what a log can hold: every codec, with and without idempotence, records of all shapes, several segments,
// both kinds of timestamps, deleted records, committed offsets, and, where the broker has them, transactions: transacted tells that. Of the
// topics with many records it writes one in so many as share says.
func fill(ctx context.Context, address string, share int) (transacted bool, err error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.AllowAutoTopicCreation())
	if err != nil {
		return false, err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	text := func(s string) *string { return &s }
	for topic, configs := range map[string]map[string]*string{
		"codecs":   {"segment.bytes": text("1048576")},
		"append":   {"message.timestamp.type": text("LogAppendTime")},
		"plain":    nil,
		"deleted":  {"segment.bytes": text("1048576")},
		"txn":      nil,
		"small":    nil,
		"compact.": {"cleanup.policy": text("compact")},
	} {
		partitions := int32(1)
		if topic == "small" && share == 1 {
			partitions = 20
		}
		if _, err := adm.CreateTopic(ctx, partitions, 1, configs, topic); err != nil {
			return false, fmt.Errorf("create %s: %w", topic, err)
		}
	}
	for _, c := range codecs {
		if err := produce(ctx, address, "codecs", 20000/share, kgo.ProducerBatchCompression(c.codec), kgo.DefaultProduceTopic("codecs")); err != nil {
			return false, fmt.Errorf("%s: %w", c.name, err)
		}
		if err := produce(ctx, address, "append", 50, kgo.ProducerBatchCompression(c.codec)); err != nil {
			return false, fmt.Errorf("%s: %w", c.name, err)
		}
		if err := produce(ctx, address, "plain", 50, kgo.ProducerBatchCompression(c.codec), kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.LeaderAck())); err != nil {
			return false, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	for topic, n := range map[string]int{"deleted": 20000 / share, "small": 400, "compact.": 100} {
		if err := produce(ctx, address, topic, n); err != nil {
			return false, err
		}
	}
	if _, err := adm.DeleteRecords(ctx, kadm.Offsets{"deleted": {0: {Topic: "deleted", At: 12345 / int64(share)}}}); err != nil {
		return false, err
	}
	if err := consume(ctx, address); err != nil {
		return false, err
	}
	err = transact(ctx, address)
	if errors.Is(err, kerr.UnsupportedVersion) || errors.Is(err, kerr.InvalidRequest) {
		return false, nil
	}
	return err == nil, err
}

// shapes are keys, values and headers of all kinds.
func shape(i int) *kgo.Record {
	r := &kgo.Record{Timestamp: firstTimestamp.Add(time.Duration(i) * time.Millisecond), Key: fmt.Appendf(nil, "key-%d", i%17), Value: fmt.Appendf(nil, "value %d %s", i, strings.Repeat("abcdefg ", i%50))}
	switch i % 11 {
	case 1:
		r.Key = nil
	case 2:
		r.Value = nil
	case 3:
		r.Key, r.Value = []byte{}, []byte{}
	case 4:
		r.Headers = []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "a"}, {Key: "ü", Value: []byte{}}}
	case 5:
		r.Value = []byte("Grüße, 世界 \U0001F30D")
	}
	return r
}

func produce(ctx context.Context, address, topic string, n int, opts ...kgo.Opt) error {
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(address), kgo.ProducerLinger(2*time.Millisecond), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))...)
	if err != nil {
		return err
	}
	defer cl.Close()
	for from, size := 0, 1; from < n; from, size = from+size, size%61+7 { // batches of many sizes
		var records []*kgo.Record
		for i := from; i < min(n, from+size); i++ {
			r := shape(i)
			r.Topic = topic
			if topic == "compact." && r.Key == nil {
				continue
			}
			records = append(records, r)
		}
		if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
			return fmt.Errorf("produce to %s: %w", topic, err)
		}
	}
	return nil
}

// consume reads in a group and commits.
func consume(ctx context.Context, address string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.ConsumerGroup("readers"), kgo.ConsumeTopics("plain", "append"), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer cl.Close()
	for n := 0; n < 100; {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return err
		}
		n += fetches.NumRecords()
		if err := cl.CommitUncommittedOffsets(ctx); err != nil {
			return err
		}
	}
	return cl.LeaveGroupContext(ctx)
}

// transact commits and aborts transactions with every codec, and leaves one open.
func transact(ctx context.Context, address string) error {
	for _, c := range codecs {
		cl, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.TransactionalID("t-"+c.name), kgo.ProducerBatchCompression(c.codec), kgo.DefaultProduceTopic("txn"))
		if err != nil {
			return err
		}
		defer cl.Close()
		for i := range 6 {
			if err := cl.BeginTransaction(); err != nil {
				return err
			}
			var records []*kgo.Record
			for j := range 1 + i {
				records = append(records, shape(i*10+j))
			}
			if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
				return err
			}
			if c.name == "zstd" && i == 5 {
				break // stays open
			}
			err := cl.EndTransaction(ctx, kgo.TransactionEndTry(i%2 == 0))
			if err != nil && !errors.Is(err, kerr.OperationNotAttempted) {
				return err
			}
		}
	}
	return nil
}
