package controller

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/replication/raftlog"
	"github.com/millrace/millrace/segment/vfs"
)

// onDisk is a node as it is in earnest: Badger, files, raft's own transport in memory, with its pipelines.
type onDisk struct {
	*Controller
	t     testing.TB
	dir   string
	log   *raftlog.Log
	trans *raft.InmemTransport
	opts  Options
}

func (n *onDisk) prepare() {
	n.t.Helper()
	var err error
	if n.log, err = raftlog.Open(raftlog.Options{Dir: filepath.Join(n.dir, "log")}); err != nil {
		n.t.Fatal(err)
	}
	if n.opts.Snapshots, err = raftlog.OpenSnapshots(vfs.OS(), filepath.Join(n.dir, "snapshots"), nil); err != nil {
		n.t.Fatal(err)
	}
	n.opts.Log = n.log
}

func (n *onDisk) open() {
	n.t.Helper()
	var err error
	if n.Controller, err = Open(n.opts); err != nil {
		n.t.Fatal(err)
	}
}

func (n *onDisk) close() {
	n.t.Helper()
	if err := errors.Join(n.Close(), n.log.Close()); err != nil {
		n.t.Error(err)
	}
}

type direct []*onDisk

func (d direct) Forward(ctx context.Context, leader int32, b []byte) error {
	return d[leader-1].Accept(ctx, b)
}

func foundOnDisk(t testing.TB, count int, log *slog.Logger) []*onDisk {
	nodes := make([]*onDisk, count)
	for i := range nodes {
		_, trans := raft.NewInmemTransportWithTimeout(raft.ServerAddress(fmt.Sprint("node-", i+1)), 200*time.Millisecond)
		nodes[i] = &onDisk{t: t, dir: t.TempDir(), trans: trans}
		nodes[i].opts = Options{NodeID: int32(i + 1), Transport: trans, Now: time.Now, Forward: direct(nodes), Logger: log}
		nodes[i].prepare()
	}
	for i, n := range nodes {
		for j, other := range nodes {
			if i != j {
				n.trans.Connect(other.trans.LocalAddr(), other.trans)
			}
		}
	}
	if err := Bootstrap(nodes[0].opts, catalog.NewImage()); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		n.open()
	}
	until(t, "leader", nodes[0].Leads)
	for i, n := range nodes[1:] {
		if err := nodes[0].Join(context.Background(), int32(i+2), string(n.trans.LocalAddr())); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "voters", func() bool { return nodes[0].current.Load().voters() == count-1+count%2 })
	return nodes
}

func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for begun := time.Now(); !is(); time.Sleep(time.Millisecond) {
		if time.Since(begun) > 20*time.Second {
			t.Fatal("no", what)
		}
	}
}

// TestOnDisk: concurrent proposals on all nodes share raft's writes, a large topic is one entry, an idle cluster says nothing, and
// what was acknowledged is there after all nodes have been stopped.
func TestOnDisk(t *testing.T) {
	var said lockedBuffer
	nodes := foundOnDisk(t, 3, slog.New(slog.NewTextHandler(&said, nil)))
	lead := nodes[0].current.Load().raft
	before := lead.LastIndex()
	large := topics("large")
	for range 999 {
		large.Topics[0].Partitions = append(large.Topics[0].Partitions, catalog.Partition{Leader: 1, Replicas: []int32{1, 2, 3}, ISR: []int32{1, 2, 3}})
	}
	begun := time.Now()
	if _, err := nodes[2].Propose(t.Context(), large); err != nil {
		t.Fatal(err)
	}
	t.Logf("a topic with 1,000 partitions, from a follower: %v", time.Since(begun))
	if grown := lead.LastIndex() - before; grown != 1 {
		t.Errorf("it takes %d entries", grown)
	}
	const clients, each = 64, 5
	begun = time.Now()
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			for j := range each {
				name := fmt.Sprintf("t-%d-%d", i, j)
				if res, err := nodes[i%3].Propose(t.Context(), topics(name)); err != nil || res.Image.Topic(name) == nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d proposals of %d clients: %v", clients*each, clients, time.Since(begun))
	length := said.len()
	time.Sleep(3 * time.Second)
	if now := said.len(); now != length {
		t.Errorf("an idle cluster says: %s", said.from(length))
	}
	if n := strings.Count(said.from(0), "\n"); n > 20 {
		t.Errorf("%d lines for a start:\n%s", n, said.from(0))
	}
	for _, n := range nodes {
		n.close()
	}
	for _, n := range nodes {
		n.prepare()
		n.open()
	}
	begun = time.Now()
	for _, n := range nodes {
		if err := n.Sync(t.Context()); err != nil {
			t.Error(err)
		}
		if have := n.Image().TopicCount(); have != clients*each+1 {
			t.Errorf("%d topics", have)
		}
	}
	t.Logf("after a restart of all: %v", time.Since(begun))
	if a, b := catalog.EncodeImage(nodes[0].Image()), catalog.EncodeImage(nodes[2].Image()); !bytes.Equal(a, b) {
		t.Error("images differ")
	}
	if err := Bootstrap(nodes[0].opts, catalog.NewImage()); !errors.Is(err, ErrBootstrapped) {
		t.Error(err)
	}
	for _, n := range nodes {
		n.close()
	}
}

// TestDamagedSnapshot: the older one and the log after it do when the newest is damaged; when both are, the node does not start.
func TestDamagedSnapshot(t *testing.T) {
	nodes := foundOnDisk(t, 1, nil)
	n := nodes[0]
	for i := range 3 {
		if _, err := n.Propose(t.Context(), topics(fmt.Sprint("t", i))); err != nil {
			t.Fatal(err)
		}
		if err := n.current.Load().raft.Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
	}
	n.close()
	files, err := filepath.Glob(filepath.Join(n.dir, "snapshots", "*.snap"))
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	damage := func(name string) {
		b, err := vfs.ReadFile(vfs.OS(), name)
		if err == nil {
			b[len(b)/2] ^= 1
			err = vfs.WriteFileAtomic(vfs.OS(), name, b)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	damage(files[1])
	n.prepare()
	n.open()
	if err := n.Sync(t.Context()); err != nil || n.Image().TopicCount() != 3 {
		t.Error(err, n.Image().TopicCount())
	}
	n.close()
	damage(files[0])
	n.prepare()
	if c, err := Open(n.opts); err == nil {
		t.Error("it starts without what it has to know")
		c.Close()
	} else {
		t.Log(err)
	}
	n.log.Close()
}

// lockedBuffer is what several write into.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) len() int { l.mu.Lock(); defer l.mu.Unlock(); return l.b.Len() }

func (l *lockedBuffer) from(at int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()[at:]
}

// BenchmarkPropose is one change after the other on a leader of three, each on three disks.
func BenchmarkPropose(b *testing.B) {
	nodes := foundOnDisk(b, 3, nil)
	for b.Loop() {
		if _, err := nodes[0].Propose(context.Background(), catalog.AllocateProducerIDs{BrokerID: 1, Count: 1}); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	for _, n := range nodes {
		n.close()
	}
}
