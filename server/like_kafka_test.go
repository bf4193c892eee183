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

// likeKafkaRequests are the questions that both brokers are asked, one after the
// other on one connection; the function sees the broker's own topic id.
func likeKafkaRequests(t *testing.T) (names []string, requests []func(*broker) kmsg.Request) {
	add := func(name string, f func(*broker) kmsg.Request) {
		names = append(names, name)
		requests = append(requests, f)
	}
	corrupt := newBatch(t, batch.BuilderOptions{}, likeTime, "x")
	corrupt[len(corrupt)-1]++
	for v := produce.min; v <= produce.max; v++ {
		for name, records := range map[string][]byte{
			"good": newBatch(t, batch.BuilderOptions{}, likeTime+1000, "c"), "corrupt": corrupt, "empty": {}, "half": corrupt[:40],
			"two batches": append(newBatch(t, batch.BuilderOptions{}, likeTime+2000, "d"), newBatch(t, batch.BuilderOptions{}, likeTime+2000, "e")...),
		} {
			add(fmt.Sprintf("produce v%d %s", v, name), func(b *broker) kmsg.Request { return produceRequest(v, b, -1, 0, records) })
		}
		add(fmt.Sprintf("produce v%d acks 5", v), func(b *broker) kmsg.Request { return produceRequest(v, b, 5, 0, corrupt) })
		add(fmt.Sprintf("produce v%d unknown partition", v), func(b *broker) kmsg.Request { return produceRequest(v, b, -1, 77, corrupt) })
		add(fmt.Sprintf("produce v%d unknown topic", v), func(b *broker) kmsg.Request {
			req := produceRequest(v, b, -1, 0, corrupt)
			req.Topics[0].Topic, req.Topics[0].TopicID = likeNowhere, [16]byte{1, 2, 3}
			return req
		})
		add(fmt.Sprintf("produce v%d to an internal topic by name", v), func(b *broker) kmsg.Request {
			req := produceRequest(min(v, 12), b, -1, 0, corrupt)
			req.Topics[0].Topic = "__transaction_state"
			return req
		})
	}
	for v := fetch.min; v <= fetch.max; v++ {
		for name, p := range map[string][]fetchOf{
			"from 0": {{0, 0, -1, -1}}, "from 1": {{0, 1, -1, -1}}, "empty partition": {{1, 0, -1, -1}}, "beyond": {{0, 100000, -1, -1}}, "before": {{0, -5, -1, -1}},
			"epoch 0": {{0, 0, 0, -1}}, "epoch 5": {{0, 0, 5, -1}}, "fetched epoch 0": {{0, 1, 0, 0}}, "fetched epoch 3": {{0, 1, 0, 3}}, "twice": {{0, 0, -1, -1}, {0, 1, -1, -1}},
			"three": {{1, 0, -1, -1}, {0, 0, -1, -1}, {2, 0, -1, -1}}, "unknown partition": {{9, 0, -1, -1}}, "good and bad": {{9, 0, -1, -1}, {0, 0, -1, -1}},
		} {
			add(fmt.Sprintf("fetch v%d %s", v, name), func(b *broker) kmsg.Request { return fetchRequest(v, b, p...) })
		}
		add(fmt.Sprintf("fetch v%d read committed", v), func(b *broker) kmsg.Request {
			req := fetchRequest(v, b, fetchOf{0, 0, -1, -1}, fetchOf{1, 0, -1, -1}, fetchOf{8, 0, -1, -1})
			req.IsolationLevel = 1
			return req
		})
		add(fmt.Sprintf("fetch v%d one byte", v), func(b *broker) kmsg.Request {
			req := fetchRequest(v, b, fetchOf{0, 0, -1, -1})
			req.MaxBytes, req.Topics[0].Partitions[0].PartitionMaxBytes = 1, 1
			return req
		})
		add(fmt.Sprintf("fetch v%d zero bytes of a partition", v), func(b *broker) kmsg.Request {
			req := fetchRequest(v, b, fetchOf{0, 0, -1, -1})
			req.Topics[0].Partitions[0].PartitionMaxBytes = 0
			return req
		})
		add(fmt.Sprintf("fetch v%d as a follower", v), func(b *broker) kmsg.Request {
			req := fetchRequest(v, b, fetchOf{0, 0, 0, -1})
			follow(req)
			return req
		})
		add(fmt.Sprintf("fetch v%d as a follower without epoch", v), func(b *broker) kmsg.Request {
			req := fetchRequest(v, b, fetchOf{0, 0, -1, -1})
			follow(req)
			return req
		})
		add(fmt.Sprintf("fetch v%d unknown topic", v), func(b *broker) kmsg.Request {
			req := fetchRequest(v, b, fetchOf{0, 0, -1, -1})
			req.Topics[0].Topic, req.Topics[0].TopicID = likeNowhere, [16]byte{1, 2, 3}
			return req
		})
		add(fmt.Sprintf("fetch v%d nothing", v), func(b *broker) kmsg.Request {
			req := fetchRequest(v, b)
			req.Topics = nil
			return req
		})
		if v >= 7 {
			add(fmt.Sprintf("fetch v%d unknown session", v), func(b *broker) kmsg.Request {
				req := fetchRequest(v, b, fetchOf{0, 0, -1, -1})
				req.SessionID, req.SessionEpoch = 12345, 3
				return req
			})
		}
	}
	for v := listOffsets.min; v <= listOffsets.max; v++ {
		for ts := int64(-8); ts < 0; ts++ {
			add(fmt.Sprintf("list offsets v%d at %d", v, ts), func(*broker) kmsg.Request { return listRequest(v, -1, ts, 0, -1) })
			add(fmt.Sprintf("list offsets v%d at %d of an empty partition", v, ts), func(*broker) kmsg.Request { return listRequest(v, -1, ts, 1, -1) })
		}
		for _, ts := range []int64{0, likeTime + 1, likeTime + 500, likeTime + 99999} {
			add(fmt.Sprintf("list offsets v%d at time %d", v, ts-likeTime), func(*broker) kmsg.Request { return listRequest(v, -1, ts, 0, -1) })
		}
		add(fmt.Sprintf("list offsets v%d unknown partition", v), func(*broker) kmsg.Request { return listRequest(v, -1, -1, 50, -1) })
		add(fmt.Sprintf("list offsets v%d newer epoch", v), func(*broker) kmsg.Request { return listRequest(v, -1, -1, 0, 4) })
		add(fmt.Sprintf("list offsets v%d as a follower", v), func(*broker) kmsg.Request { return listRequest(v, 9, -1, 0, -1) })
		add(fmt.Sprintf("list offsets v%d twice", v), func(*broker) kmsg.Request {
			req := listRequest(v, -1, -1, 0, -1)
			req.Topics[0].Partitions = append(req.Topics[0].Partitions, req.Topics[0].Partitions[0])
			return req
		})
	}
	for v := metadata.min; v <= metadata.max; v++ {
		for _, names := range [][]string{{likeTopic}, {likeNowhere + strings.Repeat("!", max(0, int(4-v)))} /* Kafka would create it */, {"bad name"}, {""}, {"."}, {strings.Repeat("x", 250)}, {likeTopic, likeTopic}, {}} {
			add(fmt.Sprintf("metadata v%d of %.30q", v, names), func(*broker) kmsg.Request {
				req := kmsg.NewPtrMetadataRequest()
				req.SetVersion(v)
				req.Topics = []kmsg.MetadataRequestTopic{}
				for _, n := range names {
					rt := kmsg.NewMetadataRequestTopic()
					rt.Topic = &n
					req.Topics = append(req.Topics, rt)
				}
				req.AllowAutoTopicCreation = v < 4 // cannot be forbidden there
				req.IncludeTopicAuthorizedOperations, req.IncludeClusterAuthorizedOperations = true, true
				return req
			})
		}
		if v >= 10 {
			for _, id := range [][16]byte{{}, {1, 2, 3}} {
				add(fmt.Sprintf("metadata v%d by id %v", v, id), func(b *broker) kmsg.Request {
					req := kmsg.NewPtrMetadataRequest()
					req.SetVersion(v)
					rt := kmsg.NewMetadataRequestTopic()
					rt.TopicID = id
					if id == ([16]byte{}) {
						rt.TopicID = b.topic
					}
					req.Topics = append(req.Topics, rt)
					return req
				})
			}
		}
	}
	for v := deleteRecords.min; v <= deleteRecords.max; v++ {
		for _, at := range []int64{-2, -1, 0, 1, 1 << 40} {
			for _, partition := range []int32{1, 2, 60} {
				add(fmt.Sprintf("delete records v%d before %d of %d", v, at, partition), func(*broker) kmsg.Request {
					req := kmsg.NewPtrDeleteRecordsRequest()
					req.SetVersion(v)
					rt := kmsg.NewDeleteRecordsRequestTopic()
					rt.Topic = likeTopic
					rp := kmsg.NewDeleteRecordsRequestTopicPartition()
					rp.Partition, rp.Offset = partition, at
					rt.Partitions = append(rt.Partitions, rp)
					req.Topics = append(req.Topics, rt)
					req.TimeoutMillis = 5000
					return req
				})
			}
		}
	}
	for v := initProducerID.min; v <= initProducerID.max; v++ {
		for _, of := range []struct {
			id    int64
			epoch int16
			tid   *string
		}{{-1, -1, nil}, {5, -1, nil}, {-1, 5, nil}, {5, 5, nil}, {-1, -1, new(string)}} {
			add(fmt.Sprintf("init producer id v%d %d %d %v", v, of.id, of.epoch, of.tid != nil), func(*broker) kmsg.Request {
				req := kmsg.NewPtrInitProducerIDRequest()
				req.SetVersion(v)
				req.ProducerID, req.ProducerEpoch, req.TransactionalID, req.TransactionTimeoutMillis = of.id, of.epoch, of.tid, 1000
				return req
			})
		}
	}
	for v := offsetForLeaderEpoch.min; v <= offsetForLeaderEpoch.max; v++ {
		for _, of := range []struct{ partition, current, epoch int32 }{{0, -1, 0}, {0, 0, 0}, {0, 0, 5}, {0, 3, 0}, {0, -1, -1}, {1, -1, 0}, {70, -1, 0}} {
			add(fmt.Sprintf("offset for leader epoch v%d %v", v, of), func(*broker) kmsg.Request {
				req := kmsg.NewPtrOffsetForLeaderEpochRequest()
				req.SetVersion(v)
				req.ReplicaID = -1
				rt := kmsg.NewOffsetForLeaderEpochRequestTopic()
				rt.Topic = likeTopic
				rp := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
				rp.Partition, rp.CurrentLeaderEpoch, rp.LeaderEpoch = of.partition, of.current, of.epoch
				rt.Partitions = append(rt.Partitions, rp)
				req.Topics = append(req.Topics, rt)
				return req
			})
		}
	}
	for v := describeLogDirs.min; v <= describeLogDirs.max; v++ {
		for name, partitions := range map[string][]int32{likeTopic: {0, 1}, likeNowhere: {0}} {
			add(fmt.Sprintf("describe log dirs v%d of %s", v, name), func(*broker) kmsg.Request {
				req := kmsg.NewPtrDescribeLogDirsRequest()
				req.SetVersion(v)
				rt := kmsg.NewDescribeLogDirsRequestTopic()
				rt.Topic, rt.Partitions = name, partitions
				req.Topics = append(req.Topics, rt)
				return req
			})
		}
	}
	for v := describeCluster.min; v <= describeCluster.max; v++ {
		for endpoint := int8(0); endpoint < 4; endpoint++ {
			add(fmt.Sprintf("describe cluster v%d of endpoints %d", v, endpoint), func(*broker) kmsg.Request {
				req := kmsg.NewPtrDescribeClusterRequest()
				req.SetVersion(v)
				req.EndpointType, req.IncludeClusterAuthorizedOperations = endpoint, endpoint == 1
				return req
			})
		}
	}
	for _, name := range []string{likeTopic, likeNowhere, "bad name"} {
		add("describe producers of "+name, func(*broker) kmsg.Request {
			req := kmsg.NewPtrDescribeProducersRequest()
			rt := kmsg.NewDescribeProducersRequestTopic()
			rt.Topic, rt.Partitions = name, []int32{1, 88}
			req.Topics = append(req.Topics, rt)
			return req
		})
	}
	for _, page := range []struct {
		topics []string
		limit  int32
		cursor string
		at     int32
	}{
		{[]string{likeTopic}, 100, "", 0}, {[]string{likeTopic}, 2, "", 0}, {[]string{likeTopic}, 2, likeTopic, 2}, {[]string{likeTopic, likeNowhere, "a b"}, 3, "", 0},
		{[]string{likeTopic}, 2, likeNowhere, 0}, {[]string{likeTopic}, 2, likeTopic, -3}, {[]string{likeTopic}, 0, "", 0}, {[]string{likeTopic}, 5, likeTopic, 9}, {nil, 2, likeTopic, 1},
	} {
		add(fmt.Sprintf("describe topic partitions %v", page), func(*broker) kmsg.Request {
			req := kmsg.NewPtrDescribeTopicPartitionsRequest()
			for _, n := range page.topics {
				rt := kmsg.NewDescribeTopicPartitionsRequestTopic()
				rt.Topic = n
				req.Topics = append(req.Topics, rt)
			}
			req.ResponsePartitionLimit = page.limit
			if page.cursor != "" {
				req.Cursor = &kmsg.DescribeTopicPartitionsRequestCursor{Topic: page.cursor, Partition: page.at}
			}
			return req
		})
	}
	return names, requests
}

// likeKafkaSessions are the questions of fetch sessions, to be asked in this order.
func likeKafkaSessions(t *testing.T) (names []string, requests []func(*broker) kmsg.Request) {
	for v := int16(7); v <= fetch.max; v++ {
		session := func(name string, epoch int32, parts []fetchOf, forget ...int32) {
			names = append(names, fmt.Sprintf("session v%d: %s", v, name))
			requests = append(requests, func(b *broker) kmsg.Request {
				req := fetchRequest(v, b, parts...)
				req.SessionEpoch = epoch
				if epoch != 0 {
					req.SessionID = b.session
				}
				if len(parts) == 0 {
					req.Topics = nil
				}
				if len(forget) > 0 {
					ft := kmsg.NewFetchRequestForgottenTopic()
					ft.Topic, ft.TopicID, ft.Partitions = likeTopic, b.topic, forget
					req.ForgottenTopics = append(req.ForgottenTopics, ft)
				}
				return req
			})
		}
		write := func(partition int32) {
			names = append(names, fmt.Sprintf("session v%d: a record comes to %d", v, partition))
			requests = append(requests, func(b *broker) kmsg.Request {
				return produceRequest(9, b, -1, partition, newBatch(t, batch.BuilderOptions{}, likeTime, "s"))
			})
		}
		end := int64(2 * (v - 7)) // of partitions 1 and 2, which this writes to
		both := []fetchOf{{1, end, -1, -1}, {2, end, -1, -1}}
		session("begins", 0, both)
		session("nothing new", 1, nil)
		write(1)
		session("one has a record", 2, nil)
		session("and still has it", 3, nil)
		session("it moves on", 4, []fetchOf{{1, end + 1, -1, -1}})
		session("an old epoch", 4, nil)
		session("a future epoch", 9, nil)
		session("an unknown partition joins", 5, []fetchOf{{30, 0, -1, -1}})
		session("its error stays", 6, nil)
		session("it is forgotten", 7, nil, 30)
		write(2)
		write(2)
		write(1)
		session("both have records", 8, nil)
		session("in turns", 9, nil)
		session("one is beyond the end", 10, []fetchOf{{1, 100000, -1, -1}, {2, end + 2, -1, -1}})
		session("and comes back", 11, []fetchOf{{1, end + 2, -1, -1}})
		session("all are forgotten", 12, nil, 1, 2)
		session("so it has ended", 13, nil)
		session("another begins", 0, both)
		session("it is closed by a final fetch", -1, both)
		session("and is not known", 1, nil)
		session("a third begins", 0, both)
		names = append(names, fmt.Sprintf("session v%d: with the other kind of topics", v))
		requests = append(requests, func(b *broker) kmsg.Request {
			other := int16(13)
			if v >= 13 {
				other = 12
			}
			req := fetchRequest(other, b)
			req.SessionID, req.SessionEpoch, req.Topics = b.session, 1, nil
			return req
		})
		session("unless it is asked for whole", 0, both)
	}
	return names, requests
}

// follow makes a fetch come from a broker that nobody knows.
func follow(req *kmsg.FetchRequest) {
	req.ReplicaID = 17
	if req.Version >= 15 {
		req.ReplicaState.ID, req.ReplicaState.Epoch = 17, 1
	}
}

func listRequest(version int16, replica int32, timestamp int64, partition, epoch int32) *kmsg.ListOffsetsRequest {
	req := kmsg.NewPtrListOffsetsRequest()
	req.SetVersion(version)
	req.ReplicaID = replica
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic = likeTopic
	rp := kmsg.NewListOffsetsRequestTopicPartition()
	rp.Partition, rp.Timestamp, rp.CurrentLeaderEpoch = partition, timestamp, epoch
	rt.Partitions = append(rt.Partitions, rp)
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
