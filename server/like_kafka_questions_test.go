package server

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/segment/batch"
)

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
	likeKafkaAdmin(add)
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
