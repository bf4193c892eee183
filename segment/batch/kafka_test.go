package batch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestAdmitAgainstKafka puts every case of TestAdmit to a real broker, named by MILLRACE_KAFKA=HOST:PORT,
// and compares the answers and what is then stored.
func TestAdmitAgainstKafka(t *testing.T) {
	addr := os.Getenv("MILLRACE_KAFKA")
	if addr == "" {
		t.Skip("MILLRACE_KAFKA names no broker to compare with")
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	run := time.Now().UnixMilli()
	for i, c := range admitCases() {
		t.Run(c.name, func(t *testing.T) {
			topic := fmt.Sprintf("admit-%d-%d", run, i)
			rules := baseRules()
			if c.rules != nil {
				c.rules(&rules)
			}
			id := createTopic(t, client, topic, c.config)
			answer := produceRaw(t, client, rules.RequestVersion, topic, c.records())
			if c.stricter {
				if answer.ErrorCode != 0 {
					t.Fatalf("Kafka refuses it too, with %d", answer.ErrorCode)
				}
				return
			}
			var stored []byte
			if answer.ErrorCode == 0 {
				stored = fetchRaw(t, client, topic, id)
				h, err := Check(stored)
				if err != nil {
					t.Fatal(err)
				}
				if rules.LogAppendTime {
					rules.NowMs = h.MaxTimestamp
				}
			}
			rules.TopicPartition = topic + "-0"
			got, err := Admit(c.records(), rules)
			if code := kafkaCode(err); code != answer.ErrorCode {
				t.Fatalf("Kafka answers %d, Admit %d (%v)", answer.ErrorCode, code, err)
			}
			compareRefusals(t, err, answer)
			if err == nil {
				compareStored(t, got.Batch, stored, c.config["compression.type"] != "")
			}
		})
	}
}

func kafkaCode(err error) int16 {
	for sentinel, code := range map[error]int16{
		ErrInvalidRecord: 87, ErrCorrupt: 2, ErrTooLarge: 10, ErrLargerThanSegment: 18, ErrUnsupportedCompression: 76, ErrInvalidTimestamp: 32,
		ErrUnknownCodec: -1, ErrDecompression: -1, ErrNotRebuildable: -1,
	} {
		if errors.Is(err, sentinel) {
			return code
		}
	}
	if err == nil {
		return 0
	}
	return math.MinInt16
}

func compareRefusals(t *testing.T, err error, answer kmsg.ProduceResponseTopicPartition) {
	t.Helper()
	var message string
	var records []RecordError
	var refused *RecordErrors
	if errors.As(err, &refused) {
		message, records = refused.Message, refused.Records
	}
	var said string
	if answer.ErrorMessage != nil {
		said = *answer.ErrorMessage
	}
	if errors.Is(err, ErrCorrupt) {
		said = "" // Kafka fails the whole request where it cannot even find the batches, and then says why
	}
	if message != said {
		t.Errorf("Kafka says %q, Admit %q", said, message)
	}
	if len(records) != len(answer.ErrorRecords) {
		t.Fatalf("Kafka names %d records, Admit %d", len(answer.ErrorRecords), len(records))
	}
	for i, theirs := range answer.ErrorRecords {
		said := ""
		if theirs.ErrorMessage != nil {
			said = *theirs.ErrorMessage
		}
		ours := records[i].Message
		if at := strings.Index(said, "should be within"); at > 0 { // the clocks differ
			said, ours = said[:at], ours[:min(at, len(ours))]
		}
		if theirs.RelativeOffset != records[i].Index || said != ours {
			t.Errorf("Kafka says of record %d %q, Admit of %d %q", theirs.RelativeOffset, said, records[i].Index, ours)
		}
	}
}

// compareStored wants the same bytes, but for what a compressor may do otherwise.
func compareStored(t *testing.T, ours, theirs []byte, reencoded bool) {
	t.Helper()
	PutLeaderEpoch(ours, 0)
	if bytes.Equal(ours, theirs) {
		return
	}
	a, _ := ReadHeader(ours)
	b, _ := ReadHeader(theirs)
	if !reencoded || a.Codec() == None {
		t.Fatalf("stored\n%+v %x, Kafka\n%+v %x", a, ours, b, theirs)
	}
	a.CRC, b.CRC, a.Length, b.Length = 0, 0, 0, 0
	if a != b {
		t.Fatalf("stored\n%+v, Kafka\n%+v", a, b)
	}
	sameRecords(t, ours, theirs)
}

func createTopic(t *testing.T, client *kgo.Client, name string, config map[string]string) [16]byte {
	t.Helper()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, 1, 1
	for key, value := range config {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = key, kmsg.StringPtr(value)
		topic.Configs = append(topic.Configs, c)
	}
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = 10_000
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(context.Background(), client)
	if err != nil {
		t.Fatal(err)
	}
	if code := resp.Topics[0].ErrorCode; code != 0 {
		t.Fatalf("creating the topic: %d", code)
	}
	return resp.Topics[0].TopicID
}

// produceRaw asks the broker itself, so that nothing looks at the records before it does.
func produceRaw(t *testing.T, client *kgo.Client, version int16, topic string, records []byte) kmsg.ProduceResponseTopicPartition {
	t.Helper()
	partition := kmsg.NewProduceRequestTopicPartition()
	partition.Records = records
	in := kmsg.NewProduceRequestTopic()
	in.Topic, in.Partitions = topic, append(in.Partitions, partition)
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis, req.Topics = -1, 10_000, append(req.Topics, in)
	capped := fixedVersion{req, version}
	for {
		resp, err := client.Broker(1).Request(context.Background(), capped)
		if err != nil {
			t.Fatal(err)
		}
		answer := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
		if answer.ErrorCode == 3 || answer.ErrorCode == 6 { // the topic is not yet known everywhere
			time.Sleep(10 * time.Millisecond)
			continue
		}
		return answer
	}
}

// fixedVersion keeps a request from being sent in a newer version.
type fixedVersion struct {
	*kmsg.ProduceRequest
	max int16
}

func (f fixedVersion) MaxVersion() int16 { return f.max }

func fetchRaw(t *testing.T, client *kgo.Client, topic string, id [16]byte) []byte {
	t.Helper()
	partition := kmsg.NewFetchRequestTopicPartition()
	partition.PartitionMaxBytes, partition.CurrentLeaderEpoch = 1<<20, -1
	in := kmsg.NewFetchRequestTopic()
	in.Topic, in.TopicID, in.Partitions = topic, id, append(in.Partitions, partition)
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.Topics = 1000, 1, 1<<20, append(req.Topics, in)
	req.SessionEpoch = -1
	resp, err := client.Broker(1).Request(context.Background(), req)
	if err != nil {
		t.Fatal(err)
	}
	fetched := resp.(*kmsg.FetchResponse)
	if fetched.ErrorCode != 0 || len(fetched.Topics) == 0 || fetched.Topics[0].Partitions[0].ErrorCode != 0 {
		t.Fatalf("%+v", fetched)
	}
	return fetched.Topics[0].Partitions[0].RecordBatches
}
