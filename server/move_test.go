package server

import (
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/segment/vfs"
)

type moveOf struct {
	dir, topic string
	partition  int32
}

func moveRequest(version int16, moves ...moveOf) *kmsg.AlterReplicaLogDirsRequest {
	req := kmsg.NewPtrAlterReplicaLogDirsRequest()
	req.SetVersion(version)
	for _, m := range moves {
		rd, rt := kmsg.NewAlterReplicaLogDirsRequestDir(), kmsg.NewAlterReplicaLogDirsRequestDirTopic()
		rt.Topic, rt.Partitions = m.topic, []int32{m.partition}
		rd.Dir, rd.Topics = m.dir, append(rd.Topics, rt)
		req.Dirs = append(req.Dirs, rd)
	}
	return req
}

func movedCodes(resp kmsg.Response) string {
	var codes []string
	for _, t := range resp.(*kmsg.AlterReplicaLogDirsResponse).Topics {
		for _, p := range t.Partitions {
			codes = append(codes, fmt.Sprintf("%s-%d:%d", t.Topic, p.Partition, p.ErrorCode))
		}
	}
	slices.Sort(codes)
	return fmt.Sprint(codes)
}

// described lists, by the last name of the directory, what is in it.
func described(c *rawClient, topics ...string) string {
	req := kmsg.NewPtrDescribeLogDirsRequest()
	req.SetVersion(4)
	for _, name := range topics {
		rt := kmsg.NewDescribeLogDirsRequestTopic()
		rt.Topic, rt.Partitions = name, []int32{0, 1}
		req.Topics = append(req.Topics, rt)
	}
	var all []string
	for _, d := range c.ask(req).(*kmsg.DescribeLogDirsResponse).Dirs {
		for _, t := range d.Topics {
			for _, p := range t.Partitions {
				text := fmt.Sprintf("%s:%d", filepath.Base(d.Dir), p.Partition)
				if p.IsFuture {
					text += fmt.Sprintf(" future, lag %d", p.OffsetLag)
				} else if p.OffsetLag != 0 || p.Size == 0 {
					text += fmt.Sprintf(" lag %d, size %d", p.OffsetLag, p.Size)
				}
				all = append(all, text)
			}
		}
	}
	slices.Sort(all)
	return fmt.Sprint(all)
}

// TestAlterReplicaLogDirs: codes, and what DescribeLogDirs tells before, during and after a move.
func TestAlterReplicaLogDirs(t *testing.T) {
	fs := vfs.NewFaulty(vfs.OS())
	a, b := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	_, addr := startServerOn(t, fs, nil, "log.dirs", a+","+b)
	c := dialRaw(t, addr)
	bk := &broker{rawClient: c, topic: createTopic(t, c, likeTopic, 2)} // 0 is in a, 1 in b
	if codes := producedCodes(c.ask(produceTo(t, bk, 0, 1))); codes[0] != codeNone || codes[1] != codeNone {
		t.Fatalf("codes %v", codes)
	}
	for version := alterReplicaLogDirs.min; version <= alterReplicaLogDirs.max; version++ {
		resp := c.ask(moveRequest(version, moveOf{"/nowhere", likeTopic, 0}, moveOf{a, likeTopic, 99}, moveOf{a, "none", 0}, moveOf{b, likeTopic, 1}))
		want := fmt.Sprintf("[%s-0:%d %s-1:0 %s-99:%d none-0:%d]", likeTopic, codeLogDirNotFound, likeTopic, likeTopic, codeUnknownTopicOrPartition, codeUnknownTopicOrPartition)
		if have := movedCodes(resp); have != want {
			t.Errorf("v%d: %s, want %s", version, have, want)
		}
	}
	if have := described(c); have != "[a:0 b:1]" {
		t.Errorf("before: %s", have)
	}
	release, reached := make(chan struct{}), make(chan struct{})
	fs.Inject(vfs.Fault{Op: vfs.OpSync, Path: filepath.Join(b, "journal", "*"), Nth: 1, Stall: release, Do: sync.OnceFunc(func() { close(reached) })})
	// The last one counts.
	if have := movedCodes(c.ask(moveRequest(2, moveOf{"/nowhere", likeTopic, 0}, moveOf{b, likeTopic, 0}))); have != fmt.Sprintf("[%s-0:0]", likeTopic) {
		t.Errorf("move: %s", have)
	}
	<-reached
	for _, topics := range [][]string{nil, {likeTopic}} {
		if have := described(c, topics...); have != "[a:0 b:0 future, lag 1 b:1]" {
			t.Errorf("during the move: %s", have)
		}
	}
	close(release)
	for deadline := time.Now().Add(10 * time.Second); described(c) != "[b:0 b:1]"; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after the move: %s", described(c))
		}
	}
	if codes := producedCodes(c.ask(produceTo(t, bk, 0))); codes[0] != codeNone {
		t.Errorf("produce after the move: %v", codes)
	}
	fetched := c.ask(fetchRequest(12, bk, fetchOf{0, 0, -1, -1})).(*kmsg.FetchResponse).Topics[0].Partitions[0]
	if fetched.ErrorCode != codeNone || fetched.HighWatermark != 2 || len(fetched.RecordBatches) == 0 {
		t.Errorf("fetch after the move: %+v", fetched)
	}
}
