package server

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/segment/batch"
)

// rawClient speaks the protocol without any help.
type rawClient struct {
	t  *testing.T
	nc net.Conn
	id int32
}

func dialRaw(t *testing.T, addr string) *rawClient {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return &rawClient{t: t, nc: nc}
}

func (c *rawClient) send(req kmsg.Request) {
	c.t.Helper()
	c.id++
	f := kmsg.NewRequestFormatter(kmsg.FormatterClientID("raw"))
	if _, err := c.nc.Write(f.AppendRequest(nil, req, c.id)); err != nil {
		c.t.Fatal(err)
	}
}

// receive reads the next response as the answer to req; io.EOF when the broker
// has closed the connection.
func (c *rawClient) receive(req kmsg.Request) (kmsg.Response, int32, error) {
	c.nc.SetReadDeadline(time.Now().Add(20 * time.Second))
	var size [4]byte
	if _, err := io.ReadFull(c.nc, size[:]); err != nil {
		return nil, 0, err
	}
	body := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(c.nc, body); err != nil {
		return nil, 0, err
	}
	id := int32(binary.BigEndian.Uint32(body))
	body = body[4:]
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	if resp.IsFlexible() && req.Key() != 18 {
		body = body[1:]
	}
	if err := resp.ReadFrom(body); err != nil {
		return nil, id, err
	}
	if again := resp.AppendTo(nil); len(again) != len(body) {
		return nil, id, fmt.Errorf("response has %d bytes, its content %d", len(body), len(again))
	}
	return resp, id, nil
}

func (c *rawClient) ask(req kmsg.Request) kmsg.Response {
	c.t.Helper()
	c.send(req)
	resp, id, err := c.receive(req)
	if err != nil {
		c.t.Fatalf("%s v%d: %v", kmsg.NameForKey(req.Key()), req.GetVersion(), err)
	}
	if id != c.id {
		c.t.Fatalf("%s v%d: response to request %d, expected %d", kmsg.NameForKey(req.Key()), req.GetVersion(), id, c.id)
	}
	return resp
}

// newBatch builds a record batch with one record per value.
func newBatch(t testing.TB, opts batch.BuilderOptions, timestamp int64, values ...string) []byte {
	t.Helper()
	b := batch.NewBuilder(opts)
	for i, v := range values {
		b.Append(timestamp+int64(i), nil, []byte(v), nil)
	}
	out, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// broker is one of the two that are compared.
type broker struct {
	*rawClient
	topics map[[16]byte]string // ids are drawn at random, so answers are compared with the names
	topic  [16]byte

	session int32 // the fetch session that it gave last
}

const (
	likeTopic   = "like-kafka"
	likeNowhere = "like-nowhere"
)

// likeTime is the timestamp of the first record: not one that retention finds old.
var likeTime = time.Now().UnixMilli() - 10000

// prepare makes the topic of the comparison and puts two batches into it.
func (b *broker) prepare(t *testing.T) {
	create := kmsg.NewPtrCreateTopicsRequest()
	create.SetVersion(7)
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = likeTopic, 3, 1
	create.Topics, create.TimeoutMillis = append(create.Topics, topic), 10000
	resp := b.ask(create).(*kmsg.CreateTopicsResponse)
	if resp.Topics[0].ErrorCode != 0 {
		t.Fatalf("create topic: error %d", resp.Topics[0].ErrorCode)
	}
	b.topic = resp.Topics[0].TopicID
	b.topics = map[[16]byte]string{b.topic: likeTopic}
	for range 50 { // Kafka's brokers learn of the topic a little later
		if b.ask(produceRequest(9, b, 1, 0, newBatch(t, batch.BuilderOptions{}, likeTime, "a", "b"))).(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode == 0 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func produceRequest(version int16, b *broker, acks int16, partition int32, records []byte) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = acks, 5000
	req.SetVersion(version)
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic, rt.TopicID = likeTopic, b.topic
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Partition, rp.Records = partition, records
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

type fetchOf struct {
	partition    int32
	offset       int64
	epoch        int32
	fetchedEpoch int32
}

func fetchRequest(version int16, b *broker, parts ...fetchOf) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.SetVersion(version)
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 0, 1, 1<<20
	req.ReplicaID, req.ReplicaState.ID, req.ReplicaState.Epoch = -1, -1, -1
	req.SessionEpoch = -1
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic, rt.TopicID = likeTopic, b.topic
	for _, p := range parts {
		rp := kmsg.NewFetchRequestTopicPartition()
		rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes, rp.CurrentLeaderEpoch, rp.LastFetchedEpoch = p.partition, p.offset, 1<<20, p.epoch, p.fetchedEpoch
		rt.Partitions = append(rt.Partitions, rp)
	}
	req.Topics = append(req.Topics, rt)
	return req
}

// told is a broker's answer as text, without what no two brokers have in common.
func (b *broker) told(resp kmsg.Response) string {
	switch r := resp.(type) {
	case *kmsg.MetadataResponse:
		for i := range r.Brokers {
			r.Brokers[i].Host, r.Brokers[i].Port = "host", 0
		}
		r.ClusterID = nil
		for i := range r.Topics {
			b.rename(&r.Topics[i].TopicID)
		}
	case *kmsg.FetchResponse:
		for i := range r.Topics {
			b.rename(&r.Topics[i].TopicID)
		}
		for i := range r.Brokers {
			r.Brokers[i].Host, r.Brokers[i].Port = "host", 0
		}
		if r.SessionID != 0 {
			b.session, r.SessionID = r.SessionID, 1
		}
	case *kmsg.ProduceResponse:
		for i := range r.Topics {
			b.rename(&r.Topics[i].TopicID)
		}
	case *kmsg.DescribeTopicPartitionsResponse:
		for i := range r.Topics {
			b.rename(&r.Topics[i].TopicID)
		}
	case *kmsg.InitProducerIDResponse:
		r.ProducerID = min(r.ProducerID, 0)
	case *kmsg.DescribeClusterResponse:
		if r.ClusterID != "" {
			r.ClusterID = "cluster"
		}
		for i := range r.Brokers {
			r.Brokers[i].Host, r.Brokers[i].Port = "host", 0
		}
	case *kmsg.DescribeLogDirsResponse:
		for i := range r.Dirs {
			r.Dirs[i].Dir, r.Dirs[i].TotalBytes, r.Dirs[i].UsableBytes = "dir", 0, 0
		}
	}
	text, err := json.Marshal(resp)
	if err != nil {
		b.t.Fatal(err)
	}
	return string(text)
}

func (b *broker) rename(id *[16]byte) {
	if *id == b.topic {
		*id = [16]byte{'t', 'o', 'p', 'i', 'c'}
	}
}

// TestLikeKafka asks a real Kafka and this broker the same questions and compares
// the answers. MILLRACE_KAFKA is the address of a Kafka 4.3.1 that is empty.
func TestLikeKafka(t *testing.T) {
	addr := os.Getenv("MILLRACE_KAFKA")
	if addr == "" {
		t.Skip("MILLRACE_KAFKA is not set to the address of a Kafka broker")
	}
	_, own := startServer(t, nil, "auto.create.topics.enable", "false", "num.partitions", "1")
	kafka, here := &broker{rawClient: dialRaw(t, addr)}, &broker{rawClient: dialRaw(t, own)}
	kafka.prepare(t)
	defer func() {
		del := kmsg.NewPtrDeleteTopicsRequest()
		del.SetVersion(6)
		topic := kmsg.NewDeleteTopicsRequestTopic()
		topic.Topic = kmsg.StringPtr(likeTopic)
		del.Topics, del.TimeoutMillis = append(del.Topics, topic), 5000
		last := dialRaw(t, addr)
		last.ask(del)
	}()
	here.prepare(t)
	names, requests := likeKafkaRequests(t)
	sessionNames, sessionRequests := likeKafkaSessions(t)
	order := make([]int, len(names))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return strings.Compare(firstWords(names[b]), firstWords(names[a])) })
	names, requests = append(names, sessionNames...), append(requests, sessionRequests...)
	for i := range sessionNames {
		order = append(order, len(names)-len(sessionNames)+i)
	}
	for _, i := range order {
		theirs, ours := kafka.answer(addr, requests[i]), here.answer(own, requests[i])
		if theirs != ours {
			t.Errorf("%s\n%s", names[i], strings.Join(differences("", parsed(theirs), parsed(ours)), "\n"))
		}
	}
}

func parsed(text string) any {
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return text
	}
	return v
}

// differences lists where two answers differ.
func differences(path string, theirs, ours any) (lines []string) {
	switch a := theirs.(type) {
	case map[string]any:
		if b, ok := ours.(map[string]any); ok {
			for key := range a {
				lines = append(lines, differences(path+"."+key, a[key], b[key])...)
			}
			return lines
		}
	case []any:
		if b, ok := ours.([]any); ok && len(a) == len(b) {
			for i := range a {
				lines = append(lines, differences(fmt.Sprintf("%s[%d]", path, i), a[i], b[i])...)
			}
			return lines
		}
	}
	if !reflect.DeepEqual(theirs, ours) {
		lines = append(lines, fmt.Sprintf("  %s: Kafka %.600v, here %.600v", path, theirs, ours))
	}
	return lines
}

// firstWords sorts produce before fetch, and both before what only describes.
func firstWords(name string) string {
	word, _, _ := strings.Cut(name, " ")
	return map[string]string{"produce": "z", "fetch": "y"}[word] + word[:0]
}

func (b *broker) answer(addr string, request func(*broker) kmsg.Request) string {
	req := request(b)
	b.send(req)
	resp, _, err := b.receive(req)
	if err != nil {
		b.rawClient = dialRaw(b.t, addr)
		if errors.Is(err, io.EOF) || bytes.Contains([]byte(err.Error()), []byte("reset")) {
			return "closed"
		}
		return err.Error()
	}
	return b.told(resp)
}
