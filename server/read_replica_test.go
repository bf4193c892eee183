package server

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/engine/config"
	"github.com/millrace/millrace/segment/batch"
)

// fetchFrom reads a topic's partition 0 in a rack.
func fetchFrom(version int16, topic *catalog.Topic, rack string, offset int64, wait int32) *kmsg.FetchRequest {
	req := fetchRequest(version, &broker{}, fetchOf{0, offset, -1, -1})
	req.Rack, req.MaxWaitMillis = rack, wait
	req.Topics[0].Topic, req.Topics[0].TopicID = topic.Name, topic.ID
	return req
}

func (c *rawClient) fetched(req *kmsg.FetchRequest) kmsg.FetchResponseTopicPartition {
	c.t.Helper()
	return c.ask(req).(*kmsg.FetchResponse).Topics[0].Partitions[0]
}

func (c *rawClient) produced(topic *catalog.Topic, values ...string) int16 {
	c.t.Helper()
	req := produceRequest(9, &broker{}, -1, 0, newBatch(c.t, batch.BuilderOptions{}, likeTime, values...))
	req.Topics[0].Topic = topic.Name
	return c.ask(req).(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode
}

// TestPreferredReadReplica asks a leader in rack a.
func TestPreferredReadReplica(t *testing.T) {
	for _, selector := range []string{"", config.RackAwareSelector} {
		f := newFakeCluster(map[int32]string{1: "a", 2: "b", 3: "b", 4: "c", 5: "b"})
		_, addr := startServerIn(t, f, nil, "replica.selector.class", selector, "broker.rack", "a")
		topic := f.place(t, "orders", []int32{1, 2, 3, 4})
		c := dialRaw(t, addr)
		if code := c.produced(topic, "a", "b", "c"); code != 0 {
			t.Fatal("produce:", code)
		}
		for id, end := range map[int32]int64{2: 2, 3: 3, 5: 3} { // 5 is no replica, 4 has not spoken
			f.has(id, end)
		}
		for _, test := range []struct {
			name    string
			version int16
			rack    string
			offset  int64
			want    int32
		}{
			{"the one that has most", 11, "b", 0, 3},
			{"the only one that has the offset", 18, "b", 3, 3},
			{"both have it", 12, "b", 2, 3},
			{"beyond what they have", 11, "b", 4, -1},
			{"the leader's own rack", 11, "a", 0, -1},
			{"no rack", 11, "", 0, -1},
			{"a rack where nobody stands", 11, "d", 0, -1},
			{"one that has not told", 11, "c", 0, -1},
			{"a client too old to be told", 10, "b", 0, -1},
		} {
			want := test.want
			if selector == "" {
				want = -1
			}
			p := c.fetched(fetchFrom(test.version, topic, test.rack, test.offset, 0))
			have := p.PreferredReadReplica
			if test.version < 11 {
				have = -1
			}
			if have != want {
				t.Errorf("%s, selector %q: %d, want %d", test.name, selector, have, want)
			}
			if records := len(p.RecordBatches) > 0; test.offset == 0 && records != (want < 0) {
				t.Errorf("%s, selector %q: records %v", test.name, selector, records)
			}
			if p.ErrorCode == 0 && p.HighWatermark != 3 {
				t.Errorf("%s: high watermark %d", test.name, p.HighWatermark)
			}
		}
		if selector == "" {
			continue
		}
		f.has(2, 3)
		me, _ := f.Image().Broker(1)
		f.do(t, catalog.ChangeISR{Broker: 1, BrokerEpoch: me.Epoch, Changes: []catalog.ISRChange{{Topic: topic.ID, ISR: []int32{1, 2}}}})
		if p := c.fetched(fetchFrom(11, topic, "b", 0, 0)); p.PreferredReadReplica != 2 {
			t.Errorf("without 3: %d", p.PreferredReadReplica)
		}
		if p := c.fetched(fetchFrom(11, topic, "b", 3, 60000)); p.PreferredReadReplica != 2 {
			t.Errorf("one that would wait: %d", p.PreferredReadReplica)
		}
		req := fetchFrom(11, topic, "b", 0, 0)
		req.Topics[0].Partitions[0].CurrentLeaderEpoch = 9
		if p := c.fetched(req); p.ErrorCode != codeUnknownLeaderEpoch || p.PreferredReadReplica != -1 {
			t.Errorf("in an epoch to come: %+v", p)
		}
	}
}

// TestPreferredReadReplicaInASession: the client is told with every answer, although nothing else has changed.
func TestPreferredReadReplicaInASession(t *testing.T) {
	f := newFakeCluster(map[int32]string{1: "a", 2: "b"})
	_, addr := startServerIn(t, f, nil, "replica.selector.class", config.RackAwareSelector)
	topic := f.place(t, "orders", []int32{1, 2})
	f.has(2, 0)
	c := dialRaw(t, addr)
	req := fetchFrom(12, topic, "b", 0, 0)
	req.SessionEpoch = 0
	r := c.ask(req).(*kmsg.FetchResponse)
	for epoch := int32(1); epoch < 3; epoch++ {
		req.SessionID, req.SessionEpoch, req.Topics = r.SessionID, epoch, nil
		r := c.ask(req).(*kmsg.FetchResponse)
		if len(r.Topics) != 1 || r.Topics[0].Partitions[0].PreferredReadReplica != 2 {
			t.Fatalf("epoch %d: %+v", epoch, r.Topics)
		}
	}
}

// TestFetchFromAFollower reads from a partition that has come to be led elsewhere.
func TestFetchFromAFollower(t *testing.T) {
	f := newFakeCluster(map[int32]string{1: "a", 2: "b"})
	s, addr := startServerIn(t, f, nil, "replica.selector.class", config.RackAwareSelector)
	topic := f.place(t, "orders", []int32{1, 2})
	c := dialRaw(t, addr)
	for _, values := range [][]string{{"a", "b"}, {"c"}} {
		if code := c.produced(topic, values...); code != 0 {
			t.Fatal("produce:", code)
		}
	}
	f.do(t, catalog.Reassign{Partitions: []catalog.Reassignment{{Topic: topic.ID, Replicas: []int32{2, 1}}}})
	f.do(t, catalog.ElectLeaders{Partitions: []catalog.PartitionRef{{Topic: topic.ID}}})
	p, err := s.engine.Partition(topic.ID, 0)
	if err != nil || p.Leads() {
		t.Fatal(err, p.Role())
	}
	p.LowerHighWatermark(2)
	for _, test := range []struct {
		name    string
		version int16
		offset  int64
		epoch   int32
		code    int16
		records bool
	}{
		{"what is committed", 11, 0, -1, 0, true},
		{"by id", 18, 1, 1, 0, true},
		{"at the high watermark", 12, 2, -1, 0, false},
		{"between it and the log's end", 12, 3, -1, 0, false},
		{"behind the log's end", 12, 4, -1, codeOffsetOutOfRange, false},
		{"an older epoch", 12, 0, 0, codeFencedLeaderEpoch, false},
		{"a newer epoch", 12, 0, 2, codeUnknownLeaderEpoch, false},
		{"an old client", 10, 0, -1, codeNotLeaderOrFollower, false},
	} {
		req := fetchFrom(test.version, topic, "a", test.offset, 0)
		req.Topics[0].Partitions[0].CurrentLeaderEpoch = test.epoch
		have := c.fetched(req)
		if have.ErrorCode != test.code || (len(have.RecordBatches) > 0) != test.records {
			t.Errorf("%s: code %d, %d bytes", test.name, have.ErrorCode, len(have.RecordBatches))
		}
		if test.version >= 11 && have.PreferredReadReplica != -1 {
			t.Errorf("%s: preferred %d", test.name, have.PreferredReadReplica)
		}
	}
	// What follows a follower's log is not a divergence: the follower lags.
	req := fetchFrom(12, topic, "a", 7, 0)
	req.Topics[0].Partitions[0].LastFetchedEpoch = 1
	if have := c.fetched(req); have.ErrorCode != codeOffsetOutOfRange || have.DivergingEpoch.EndOffset >= 0 {
		t.Errorf("ahead of the follower: %+v", have)
	}
	// A fetch that waits is woken by the high watermark.
	waiting := fetchFrom(12, topic, "a", 2, 30000)
	c.send(waiting)
	time.Sleep(20 * time.Millisecond)
	p.AdvanceHighWatermark(3)
	began := time.Now()
	if r, _, err := c.receive(waiting); err != nil || r.(*kmsg.FetchResponse).Topics[0].Partitions[0].HighWatermark != 3 || time.Since(began) > 10*time.Second {
		t.Errorf("the one that waited: %+v, %v", r, err)
	}
	if code := c.produced(topic, "d"); code != codeNotLeaderOrFollower {
		t.Errorf("produce: %d", code)
	}
}

// TestOffsetsOfANewLeader: one that does not know yet how much is committed does not name the end.
func TestOffsetsOfANewLeader(t *testing.T) {
	f := newFakeCluster(map[int32]string{1: "", 2: ""})
	s, addr := startServerIn(t, f, nil)
	topic := f.place(t, "orders", []int32{1, 2})
	c := dialRaw(t, addr)
	if code := c.produced(topic, "a", "b", "c"); code != 0 {
		t.Fatal("produce:", code)
	}
	lead := func(ids ...int32) {
		f.do(t, catalog.Reassign{Partitions: []catalog.Reassignment{{Topic: topic.ID, Replicas: ids}}})
		f.do(t, catalog.ElectLeaders{Partitions: []catalog.PartitionRef{{Topic: topic.ID}}})
	}
	lead(2, 1)
	p, err := s.engine.Partition(topic.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	p.LowerHighWatermark(2)
	lead(1, 2)
	ask := func(version int16, timestamp int64) kmsg.ListOffsetsResponseTopicPartition {
		req := kmsg.NewPtrListOffsetsRequest()
		req.ReplicaID, req.Version = -1, version
		rt := kmsg.NewListOffsetsRequestTopic()
		rp := kmsg.NewListOffsetsRequestTopicPartition()
		rp.Timestamp, rp.CurrentLeaderEpoch = timestamp, -1
		rt.Topic, rt.Partitions = topic.Name, append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		return c.ask(req).(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0]
	}
	for _, test := range []struct {
		name      string
		version   int16
		timestamp int64
		code      int16
		offset    int64
	}{
		{"latest", 7, latestTimestamp, codeOffsetNotAvailable, -1},
		{"latest, to an old client", 4, latestTimestamp, codeLeaderNotAvailable, -1},
		{"earliest", 7, earliestTimestamp, 0, 0},
		{"a time that is committed", 7, likeTime, 0, 0},
		{"a time that is not", 7, likeTime + 2, codeOffsetNotAvailable, -1},
		{"a time to come", 7, likeTime + 1000000, codeOffsetNotAvailable, -1},
	} {
		if have := ask(test.version, test.timestamp); have.ErrorCode != test.code || have.Offset != test.offset {
			t.Errorf("%s: %+v", test.name, have)
		}
	}
	p.AdvanceHighWatermark(3)
	if have := ask(7, latestTimestamp); have.ErrorCode != 0 || have.Offset != 3 {
		t.Errorf("afterwards: %+v", have)
	}
	if have := ask(7, likeTime+1000000); have.ErrorCode != 0 || have.Offset != -1 {
		t.Errorf("a time to come, afterwards: %+v", have)
	}
}
