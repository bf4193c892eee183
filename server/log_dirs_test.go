package server

import (
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// produceTo is one request with a batch for each of the partitions.
func produceTo(t *testing.T, b *broker, partitions ...int32) *kmsg.ProduceRequest {
	t.Helper()
	req := produceRequest(9, b, -1, partitions[0], newBatch(t, batch.BuilderOptions{}, likeTime, "x"))
	for _, p := range partitions[1:] {
		part := kmsg.NewProduceRequestTopicPartition()
		part.Partition, part.Records = p, newBatch(t, batch.BuilderOptions{}, likeTime, "x")
		req.Topics[0].Partitions = append(req.Topics[0].Partitions, part)
	}
	return req
}

func producedCodes(resp kmsg.Response) []int16 {
	var codes []int16
	for _, p := range resp.(*kmsg.ProduceResponse).Topics[0].Partitions {
		codes = append(codes, p.ErrorCode)
	}
	return codes
}

// TestAudit1OneOfTwoDisksStalls: of two log directories one does not answer. Its producers hear so at the limit, in one
// request with partitions of the other disk too, for which that was in time; nobody else waits for anything.
func TestAudit1OneOfTwoDisksStalls(t *testing.T) {
	fs := vfs.NewFaulty(vfs.OS())
	good, bad := filepath.Join(t.TempDir(), "good"), filepath.Join(t.TempDir(), "bad")
	s, addr := startServerOn(t, fs, nil, "log.dir.stall.timeout.ms", "1000", "log.dirs", good+","+bad)
	c, other := dialRaw(t, addr), dialRaw(t, addr)
	b := &broker{rawClient: c, topic: createTopic(t, c, likeTopic, 2)} // 0 is in the first, 1 in the second
	if codes := producedCodes(c.ask(produceTo(t, b, 0, 1))); codes[0] != codeNone || codes[1] != codeNone {
		t.Fatalf("codes %v", codes)
	}
	release := make(chan struct{})
	fs.Inject(vfs.Fault{Op: vfs.OpSync, Path: filepath.Join(bad, "journal", "*"), Stall: release})
	both := produceTo(t, b, 0, 1)
	both.TimeoutMillis = 60_000
	begun := time.Now()
	c.send(both)
	for range 5 {
		ob := &broker{rawClient: other, topic: b.topic}
		at := time.Now()
		if codes := producedCodes(other.ask(produceTo(t, ob, 0))); codes[0] != codeNone || time.Since(at) > stallLimit/2 {
			t.Errorf("the other disk: error %v after %v", codes, time.Since(at))
		}
	}
	resp, _, err := c.receive(both)
	if err != nil {
		t.Fatal(err)
	}
	if codes := producedCodes(resp); codes[0] != codeNone || codes[1] != codeKafkaStorageError {
		t.Errorf("codes %v", codes)
	}
	if took := time.Since(begun); took < stallLimit || took > stallLimit+2*time.Second {
		t.Errorf("answered after %v", took)
	}
	if codes := producedCodes(c.ask(produceTo(t, b, 1, 0))); codes[0] != codeKafkaStorageError || codes[1] != codeNone {
		t.Errorf("while one disk is stalled: codes %v", codes)
	}
	fs.Heal()
	close(release)
	recovered(t, s)
	if codes := producedCodes(c.ask(produceTo(t, b, 0, 1))); codes[0] != codeNone || codes[1] != codeNone {
		t.Errorf("after the stall: codes %v", codes)
	}
}

// Partitions in a directory that could not be opened: clients are told that there is no leader and that the disk is
// the reason; the directory is listed with an error; the others are served.
func TestOfflineLogDirIsTold(t *testing.T) {
	good, bad := filepath.Join(t.TempDir(), "good"), filepath.Join(t.TempDir(), "bad")
	t.Run("before", func(t *testing.T) {
		_, addr := startServerOn(t, vfs.OS(), nil, "log.dirs", good+","+bad)
		c := dialRaw(t, addr)
		b := &broker{rawClient: c, topic: createTopic(t, c, likeTopic, 2)}
		c.ask(produceTo(t, b, 0, 1))
		req := kmsg.NewPtrDescribeLogDirsRequest()
		req.SetVersion(4)
		resp := c.ask(req).(*kmsg.DescribeLogDirsResponse)
		for i, dir := range []string{good, bad} {
			d := resp.Dirs[i]
			if d.Dir != dir || d.ErrorCode != codeNone || len(d.Topics) != 1 || len(d.Topics[0].Partitions) != 1 ||
				d.Topics[0].Partitions[0].Partition != int32(i) || d.Topics[0].Partitions[0].Size == 0 {
				t.Errorf("directory %d: %+v", i, d)
			}
		}
	})
	fs := vfs.NewFaulty(vfs.OS())
	fs.Inject(vfs.Fault{Op: vfs.OpReadDir, Path: filepath.Join(bad, "topics"), Err: syscall.EIO})
	_, addr := startServerOn(t, fs, nil, "log.dirs", good+","+bad)
	c := dialRaw(t, addr)
	metadata := kmsg.NewPtrMetadataRequest()
	metadata.SetVersion(12)
	topic := c.ask(metadata).(*kmsg.MetadataResponse).Topics[0]
	b := &broker{rawClient: c, topic: topic.TopicID}
	if p := topic.Partitions[0]; p.ErrorCode != codeNone || p.Leader != 1 || len(p.OfflineReplicas) != 0 {
		t.Errorf("metadata of the good one: %+v", p)
	}
	if p := topic.Partitions[1]; p.ErrorCode != codeLeaderNotAvailable || p.Leader != -1 || len(p.OfflineReplicas) != 1 {
		t.Errorf("metadata of the bad one: %+v", p)
	}
	if codes := producedCodes(c.ask(produceTo(t, b, 0, 1))); codes[0] != codeNone || codes[1] != codeKafkaStorageError {
		t.Errorf("produce: codes %v", codes)
	}
	fetched := c.ask(fetchRequest(12, b, fetchOf{0, 0, -1, -1}, fetchOf{1, 0, -1, -1})).(*kmsg.FetchResponse).Topics[0].Partitions
	for _, p := range fetched {
		if want := []int16{codeNone, codeKafkaStorageError}[p.Partition]; p.ErrorCode != want {
			t.Errorf("fetch of %d: error %d", p.Partition, p.ErrorCode)
		}
	}
	req := kmsg.NewPtrDescribeLogDirsRequest()
	req.SetVersion(4)
	dirs := c.ask(req).(*kmsg.DescribeLogDirsResponse).Dirs
	if len(dirs) != 2 || dirs[0].ErrorCode != codeNone || len(dirs[0].Topics) != 1 || dirs[1].ErrorCode != codeKafkaStorageError || dirs[1].Dir != bad {
		t.Errorf("directories: %+v", dirs)
	}
}
