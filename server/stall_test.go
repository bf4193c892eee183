package server

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

const stallLimit = time.Second

// TestAudit1StalledLogDirectory: the log's disk does not answer. Producers whose records are in its
// hands hear so at the deadline, long before their own; new ones at once, group commits too;
// metadata, changes of topics and consumers go on; and when it answers, all is as before.
func TestAudit1StalledLogDirectory(t *testing.T) {
	fs := vfs.NewFaulty(vfs.OS())
	s, addr := startServerOn(t, fs, nil, "log.dir.stall.timeout.ms", "1000")
	c, other := dialRaw(t, addr), dialRaw(t, addr)
	b := &broker{rawClient: c, topic: createTopic(t, c, likeTopic, 2)}
	good := func() []byte { return newBatch(t, batch.BuilderOptions{}, likeTime, "x") }
	produced := func(resp kmsg.Response) int16 {
		return resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode
	}
	commit := func(offset int64) int16 {
		req := kmsg.NewPtrOffsetCommitRequest()
		req.SetVersion(7)
		req.Group, req.Generation = "g", -1
		topic, part := kmsg.NewOffsetCommitRequestTopic(), kmsg.NewOffsetCommitRequestTopicPartition()
		part.Offset = offset
		topic.Topic, topic.Partitions = likeTopic, append(topic.Partitions, part)
		req.Topics = append(req.Topics, topic)
		return other.ask(req).(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode
	}
	find := kmsg.NewPtrFindCoordinatorRequest()
	find.SetVersion(2)
	find.CoordinatorKey = "g"
	other.ask(find)
	if code := commit(1); code != codeNone {
		t.Fatalf("commit: error %d", code)
	}
	c.ask(produceRequest(9, b, -1, 0, good()))

	release := make(chan struct{})
	fs.Inject(vfs.Fault{Op: vfs.OpSync, Path: "*.journal", Stall: release}, vfs.Fault{Op: vfs.OpSpace, Stall: release})
	begun := time.Now()
	requests := []*kmsg.ProduceRequest{produceRequest(9, b, -1, 0, good()), produceRequest(9, b, 1, 1, good())}
	for _, req := range requests {
		req.TimeoutMillis = 60_000
		c.send(req)
	}
	for i, req := range requests {
		resp, _, err := c.receive(req)
		if err != nil {
			t.Fatal(err)
		}
		if code := produced(resp); code != codeKafkaStorageError {
			t.Errorf("request %d in the disk's hands: error %d", i, code)
		}
	}
	if took := time.Since(begun); took < stallLimit || took > stallLimit+2*time.Second {
		t.Errorf("answered after %v", took)
	}
	if err := s.engine.Health(); err == nil {
		t.Error("health does not know")
	}
	at := time.Now()
	if code := produced(c.ask(produceRequest(9, b, -1, 1, good()))); code != codeKafkaStorageError {
		t.Errorf("a new one: error %d", code)
	}
	if code := commit(2); code != codeNotCoordinator && code != codeCoordinatorNotAvailable {
		t.Errorf("a commit: error %d", code)
	}
	metadata := kmsg.NewPtrMetadataRequest()
	metadata.SetVersion(9)
	if n := len(other.ask(metadata).(*kmsg.MetadataResponse).Topics); n != 2 {
		t.Errorf("metadata: %d topics", n)
	}
	if hw := c.ask(fetchRequest(12, b, fetchOf{0, 0, -1, -1})).(*kmsg.FetchResponse).Topics[0].Partitions[0].HighWatermark; hw != 1 {
		t.Errorf("high watermark %d", hw)
	}
	logDirs := kmsg.NewPtrDescribeLogDirsRequest()
	logDirs.SetVersion(4)
	if code := other.ask(logDirs).(*kmsg.DescribeLogDirsResponse).Dirs[0].ErrorCode; code != codeKafkaStorageError {
		t.Errorf("describe log dirs: error %d", code)
	}
	createTopic(t, other, "made-meanwhile", 1) // the catalogue's disk answers
	if took := time.Since(at); took > time.Second {
		t.Errorf("all this took %v", took)
	}

	fs.Heal()
	close(release)
	recovered(t, s)
	if code := produced(c.ask(produceRequest(9, b, -1, 0, good()))); code != codeNone {
		t.Errorf("after the stall: error %d", code)
	}
	if code := commit(3); code != codeNone {
		t.Errorf("a commit after the stall: error %d", code)
	}
	if hw := c.ask(fetchRequest(12, b, fetchOf{0, 0, -1, -1})).(*kmsg.FetchResponse).Topics[0].Partitions[0].HighWatermark; hw != 3 {
		t.Errorf("high watermark %d: what the disk held is written, and its producer was told to try again", hw)
	}
}

func recovered(t *testing.T, s *Server) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); s.engine.Health() != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still %v", s.engine.Health())
		}
	}
}

// TestAudit6StalledCatalogue: the catalogue's disk does not answer. The change that meets it and those
// behind it hear so at the deadline, new ones at once, producer ids too; producing and consuming on
// what exists go on, and afterwards changes are taken again.
func TestAudit6StalledCatalogue(t *testing.T) {
	for _, where := range []vfs.Fault{
		{Op: vfs.OpWrite, Path: "probe"},
		{Op: vfs.OpSync, Path: "probe"},
		{Op: vfs.OpSyncDir, Path: "catalog"},
	} {
		t.Run(where.Op.String()+" "+where.Path, func(t *testing.T) {
			fs := vfs.NewFaulty(vfs.OS())
			s, addr := startServerOn(t, fs, nil, "log.dir.stall.timeout.ms", "1000")
			c := dialRaw(t, addr)
			b := &broker{rawClient: c, topic: createTopic(t, c, likeTopic, 2)}
			release := make(chan struct{})
			where.Stall = release
			fs.Inject(where)
			begun := time.Now()
			create := func(name string) int16 {
				req := kmsg.NewPtrCreateTopicsRequest()
				req.SetVersion(7)
				topic := kmsg.NewCreateTopicsRequestTopic()
				topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, 1, 1
				req.Topics, req.TimeoutMillis = append(req.Topics, topic), 60_000
				return dialRaw(t, addr).ask(req).(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode
			}
			codes := make(chan int16, 2)
			for _, name := range []string{"meets-it", "behind-it"} {
				go func() { codes <- create(name) }()
			}
			for range 2 {
				if code := <-codes; code != codeKafkaStorageError {
					t.Errorf("create: error %d", code)
				}
			}
			if took := time.Since(begun); took < stallLimit || took > stallLimit+2*time.Second {
				t.Errorf("answered after %v", took)
			}
			at := time.Now()
			if code := create("later"); code != codeKafkaStorageError {
				t.Errorf("create during the stall: error %d", code)
			}
			id := kmsg.NewPtrInitProducerIDRequest()
			id.ProducerID, id.ProducerEpoch = -1, -1
			id.SetVersion(4)
			if code := c.ask(id).(*kmsg.InitProducerIDResponse).ErrorCode; code != codeCoordinatorLoadInProgress {
				t.Errorf("producer id: error %d", code)
			}
			produce := produceRequest(9, b, -1, 0, newBatch(t, batch.BuilderOptions{}, likeTime, "x"))
			if code := c.ask(produce).(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode; code != codeNone {
				t.Errorf("produce: error %d", code)
			}
			if hw := c.ask(fetchRequest(12, b, fetchOf{0, 0, -1, -1})).(*kmsg.FetchResponse).Topics[0].Partitions[0].HighWatermark; hw != 1 {
				t.Errorf("high watermark %d", hw)
			}
			if err := s.engine.Health(); err == nil || s.engine.Stalled() {
				t.Errorf("health: %v, log stalled: %v", err, s.engine.Stalled())
			}
			if took := time.Since(at); took > time.Second {
				t.Errorf("all this took %v", took)
			}
			fs.Heal()
			close(release)
			recovered(t, s)
			if code := create("afterwards"); code != codeNone {
				t.Errorf("create afterwards: error %d", code)
			}
			if code := c.ask(id).(*kmsg.InitProducerIDResponse).ErrorCode; code != codeNone {
				t.Errorf("producer id afterwards: error %d", code)
			}
		})
	}
}

// TestReadThatFails: a consumer whose records cannot be read is told that it is the disk, as with Kafka.
func TestReadThatFails(t *testing.T) {
	fs := vfs.NewFaulty(vfs.OS())
	_, addr := startServerOn(t, fs, nil, "log.tail.bytes", "1") // nothing is read from memory
	c := dialRaw(t, addr)
	b := &broker{rawClient: c, topic: createTopic(t, c, likeTopic, 1)}
	c.ask(produceRequest(9, b, -1, 0, newBatch(t, batch.BuilderOptions{}, likeTime, strings.Repeat("x", 200<<10)))) // straight into its segment
	c.ask(produceRequest(9, b, -1, 0, newBatch(t, batch.BuilderOptions{}, likeTime, "y")))                          // behind the round that wrote it
	fs.Inject(vfs.Fault{Op: vfs.OpRead, Path: "*.log", Nth: 1, Err: syscall.EIO})
	for _, want := range []int16{codeKafkaStorageError, codeNone} {
		if code := c.ask(fetchRequest(12, b, fetchOf{0, 0, -1, -1})).(*kmsg.FetchResponse).Topics[0].Partitions[0].ErrorCode; code != want {
			t.Errorf("fetch: error %d, want %d", code, want)
		}
	}
}
