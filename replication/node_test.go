package replication

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/engine/config"
	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// machine is one node: what stays when it is stopped, and what runs.
type machine struct {
	t      *testing.T
	props  map[string]string
	known  map[int32]string // peer addresses of all, shared
	id     int32
	fs     vfs.FS // nil: the disk
	node   *Node
	engine *engine.Engine
}

// machines are nodes on loopback that begin a cluster together.
func machines(t *testing.T, count int, more ...string) []*machine {
	t.Helper()
	all, known := make([]*machine, count), map[int32]string{}
	for i := range all {
		all[i] = &machine{t: t, id: int32(i + 1), known: known, props: map[string]string{
			"node.id": strconv.Itoa(i + 1), "log.dirs": t.TempDir(), "cluster.enable": "true", "peer.listener": "127.0.0.1:0",
			"cluster.bootstrap.expect": strconv.Itoa(count), "default.replication.factor": strconv.Itoa(count), "auto.leader.rebalance.enable": "false",
		}}
		for n := 0; n < len(more); n += 2 {
			all[i].props[more[n]] = more[n+1]
		}
		t.Cleanup(all[i].stop)
	}
	return all
}

// start starts all, each with the addresses of those that were started before.
func start(t *testing.T, all ...*machine) {
	t.Helper()
	failed := make(chan error, len(all))
	for _, m := range all {
		if err := m.listen(); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range all {
		go func() { failed <- m.open() }()
	}
	for range all {
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
	}
}

// settle waits until all have a vote in the metadata: before that it depends on fewer of them.
func settle(t *testing.T, all []*machine) {
	t.Helper()
	eventually(t, "everybody votes", func() bool {
		voters := 0
		for _, member := range all[0].node.control.Load().Members() {
			if member.Voter {
				voters++
			}
		}
		return voters == len(all)
	})
}

func (m *machine) config() *config.Broker {
	cfg, _, err := config.ParseBroker(m.props)
	if err != nil {
		m.t.Fatal(err)
	}
	return cfg
}

func (m *machine) logger() *slog.Logger {
	if os.Getenv("MILLRACE_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil)).With("node", m.id)
}

func (m *machine) listen() (err error) {
	var others []string
	for id, address := range m.known {
		if id != m.id {
			others = append(others, address)
		}
	}
	m.props["cluster.join"] = strings.Join(others, ",")
	m.node, err = New(Options{
		Config: m.config(), Endpoints: []catalog.Endpoint{{Listener: "PLAINTEXT", Host: "127.0.0.1", Port: 9092 + m.id}}, Now: time.Now, Logger: m.logger(),
	})
	if err == nil {
		m.props["peer.listener"] = m.node.Address() // the next start is at the same address
		m.known[m.id] = m.node.Address()
	}
	return err
}

func (m *machine) open() (err error) {
	ctx, cancel := context.WithTimeout(m.t.Context(), 30*time.Second)
	defer cancel()
	if m.fs == nil {
		m.fs = vfs.OS()
	}
	m.engine, err = engine.Open(ctx, engine.Options{FS: m.fs, Config: m.config(), Now: time.Now, Logger: m.logger(), Cluster: m.node})
	if err != nil {
		return fmt.Errorf("node %d: %w", m.id, err)
	}
	return m.node.Serve(ctx)
}

// stop ends it without a word to the others.
func (m *machine) stop() {
	if m.node == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	m.node.hub.Shutdown(ctx)
	m.node.StopCopying()
	if m.engine != nil {
		if err := m.engine.Close(ctx); err != nil {
			m.t.Log(err)
		}
	}
	m.node.Close(ctx)
	m.node, m.engine = nil, nil
}

func create(t *testing.T, m *machine, topic engine.NewTopic) catalog.TopicID {
	t.Helper()
	created := m.engine.Topics().Create(t.Context(), []engine.NewTopic{topic}, false)
	if created[0].Err != nil {
		t.Fatal(created[0].Err)
	}
	return created[0].ID
}

// eventually waits for something that comes by itself.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// leaderOf finds the machine that leads a partition, once there is one among those that run.
func leaderOf(t *testing.T, all []*machine, id catalog.TopicID, index int32) (leader *machine, p *engine.Partition) {
	t.Helper()
	eventually(t, "a leader", func() bool {
		for _, m := range all {
			if m.engine == nil {
				continue
			}
			if found, err := m.engine.Partition(id, index); err == nil && found.Leads() {
				leader, p = m, found
			}
		}
		return leader != nil
	})
	return leader, p
}

// record is a batch of one.
func record(t *testing.T, value string) []byte {
	t.Helper()
	b := batch.NewBuilder(batch.BuilderOptions{})
	b.Append(1000, nil, []byte(value), nil)
	records, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return records
}

// produce appends a record with acks=all.
func produce(t *testing.T, p *engine.Partition, value string) (int64, error) {
	t.Helper()
	done := make(chan engine.ProduceResult, 1)
	p.Produce(t.Context(), engine.Produce{Records: record(t, value), Acks: -1, RequestVersion: 9}, func(r engine.ProduceResult) { done <- r })
	select {
	case r := <-done:
		return r.BaseOffset, r.Err
	case <-time.After(20 * time.Second):
		t.Fatalf("no answer for %s", value)
		return 0, nil
	}
}

func mustProduce(t *testing.T, p *engine.Partition, value string) int64 {
	t.Helper()
	offset, err := produce(t, p, value)
	if err != nil {
		t.Fatal(err)
	}
	return offset
}

// same waits until all have the same bytes of a partition, all of them committed, and returns them.
func same(t *testing.T, all []*machine, id catalog.TopicID, index int32) []byte {
	t.Helper()
	var logs [][]byte
	eventually(t, "the same on all nodes", func() bool {
		logs = logs[:0]
		for _, m := range all {
			p, err := m.engine.Partition(id, index)
			if err != nil || p.HighWatermark() != p.LogEndOffset() {
				return false
			}
			b, err := p.Read(nil, p.LogStartOffset(), 1<<30, true)
			if err != nil {
				return false
			}
			logs = append(logs, b)
		}
		for _, b := range logs[1:] {
			if !bytes.Equal(b, logs[0]) {
				return false
			}
		}
		return true
	})
	return logs[0]
}

func inSync(t *testing.T, m *machine, id catalog.TopicID, index int32, want int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d replicas in sync", want), func() bool {
		return len(m.engine.Image().TopicByID(id).Partitions[index].ISR) == want
	})
}

func TestReplicated(t *testing.T) {
	all := machines(t, 3, "min.insync.replicas", "2")
	start(t, all...)
	id := create(t, all[2], engine.NewTopic{Name: "orders", Partitions: 3, ReplicationFactor: 3})
	for index := range int32(3) {
		_, p := leaderOf(t, all, id, index)
		for i := range 20 {
			if at := mustProduce(t, p, fmt.Sprint("record ", i)); at != int64(i) {
				t.Fatalf("record %d at %d", i, at)
			}
		}
		if b := same(t, all, id, index); !bytes.Contains(b, []byte("record 19")) {
			t.Error("not the records")
		}
	}
	for _, m := range all { // only the leader takes records
		if p, err := m.engine.Partition(id, 0); err != nil {
			t.Error(err)
		} else if _, err := produce(t, p, "again"); p.Leads() != (err == nil) || err != nil && !errors.Is(err, engine.ErrNotHere) {
			t.Errorf("node %d: %v", m.id, err)
		}
	}
}

// A leader that is gone is succeeded soon, with all that was acknowledged; when it is back it gets what it lacks and is in sync again.
func TestLeaderGone(t *testing.T) {
	all := machines(t, 3, "min.insync.replicas", "2")
	start(t, all...)
	settle(t, all)
	id := create(t, all[0], engine.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 3})
	written := 0
	for range 3 {
		leader, p := leaderOf(t, all, id, 0)
		inSync(t, leader, id, 0, 3)
		for range 10 {
			mustProduce(t, p, fmt.Sprint("record ", written))
			written++
		}
		leader.stop()
		begun := time.Now()
		next, p := leaderOf(t, all, id, 0)
		mustProduce(t, p, fmt.Sprint("record ", written))
		written++
		t.Logf("node %d gone, node %d took a record after %s", leader.id, next.id, time.Since(begun))
		start(t, leader)
		inSync(t, next, id, 0, 3)
		log := same(t, all, id, 0)
		for i := range written {
			if !bytes.Contains(log, []byte(fmt.Sprint("record ", i))) {
				t.Fatalf("record %d of %d is lost", i, written)
			}
		}
		if p.HighWatermark() != int64(written) {
			t.Fatalf("%d records, high watermark %d", written, p.HighWatermark())
		}
	}
}

// With fewer replicas in sync than asked for nothing is acknowledged, and nothing that was is lost.
func TestTooFewInSync(t *testing.T) {
	all := machines(t, 3, "min.insync.replicas", "3")
	start(t, all...)
	settle(t, all)
	id := create(t, all[0], engine.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 3})
	leader, p := leaderOf(t, all, id, 0)
	mustProduce(t, p, "first")
	gone := all[leader.id%3]
	gone.stop()
	inSync(t, leader, id, 0, 2)
	_, p = leaderOf(t, all, id, 0)
	if _, err := produce(t, p, "second"); !errors.Is(err, engine.ErrNotEnoughReplicas) {
		t.Fatalf("with two of three: %v", err)
	}
	start(t, gone)
	inSync(t, leader, id, 0, 3)
	_, p = leaderOf(t, all, id, 0)
	mustProduce(t, p, "third")
	if log := same(t, all, id, 0); !bytes.Contains(log, []byte("first")) || !bytes.Contains(log, []byte("third")) {
		t.Error("records are lost")
	}
}

// Who takes leave hands over first.
func TestLeave(t *testing.T) {
	all := machines(t, 3, "min.insync.replicas", "2")
	start(t, all...)
	settle(t, all)
	id := create(t, all[0], engine.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 3})
	leader, p := leaderOf(t, all, id, 0)
	mustProduce(t, p, "first")
	if err := leader.node.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p.Leads() {
		t.Error("it still leads")
	}
	_, p = leaderOf(t, all, id, 0)
	mustProduce(t, p, "second")
	leader.stop()
	mustProduce(t, p, "third")
}

// What a node had while it was alone is what the cluster begins with, in place.
func TestFromOneToMany(t *testing.T) {
	all := machines(t, 3)
	first := all[0]
	first.props["cluster.bootstrap.expect"] = "0"
	alone, err := engine.Open(t.Context(), engine.Options{FS: vfs.OS(), Config: first.config(), Now: time.Now, Logger: first.logger()})
	if err != nil {
		t.Fatal(err)
	}
	cluster := alone.ClusterID()
	one := &machine{t: t, engine: alone}
	id := create(t, one, engine.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 1})
	p, err := alone.Partition(id, 0)
	if err != nil {
		t.Fatal(err)
	}
	mustProduce(t, p, "alone")
	if err := alone.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(first.props["log.dirs"], engine.ClusterFolder), 0o755); err != nil { // as when it was stopped before the cluster began
		t.Fatal(err)
	}
	start(t, first)
	start(t, all[1:]...)
	for _, m := range all {
		if m.engine.ClusterID() != cluster {
			t.Errorf("node %d is of cluster %s, not %s", m.id, m.engine.ClusterID(), cluster)
		}
	}
	_, p = leaderOf(t, all, id, 0)
	mustProduce(t, p, "first of many")
	reassigned, err := all[1].engine.Catalog().Propose(t.Context(), catalog.Reassign{Partitions: []catalog.Reassignment{{Topic: id, Replicas: []int32{2, 3, 1}}}})
	if err != nil || reassigned.Errors[0] != nil {
		t.Fatal(err, reassigned.Errors)
	}
	inSync(t, first, id, 0, 3)
	if log := same(t, all, id, 0); !strings.Contains(string(log), "alone") || !strings.Contains(string(log), "first of many") {
		t.Error("not the records")
	}
	// And back to one, another one.
	reassigned, err = all[1].engine.Catalog().Propose(t.Context(), catalog.Reassign{Partitions: []catalog.Reassignment{{Topic: id, Replicas: []int32{3}}}})
	if err != nil || reassigned.Errors[0] != nil {
		t.Fatal(err, reassigned.Errors)
	}
	eventually(t, "it lies on node 3 alone", func() bool {
		_, err := first.engine.Partition(id, 0)
		return errors.Is(err, engine.ErrNotHere)
	})
	leader, p := leaderOf(t, all, id, 0)
	if mustProduce(t, p, "last"); leader.id != 3 || p.HighWatermark() != 3 {
		t.Errorf("node %d leads, high watermark %d", leader.id, p.HighWatermark())
	}
	// Without --cluster it does not open any more: what it would see is not what there is.
	first.stop()
	if _, err := engine.Open(t.Context(), engine.Options{FS: vfs.OS(), Config: first.config(), Now: time.Now, Logger: first.logger()}); !errors.Is(err, engine.ErrIdentity) {
		t.Errorf("alone again: %v", err)
	}
}

// Leaders go back to where they belong.
func TestBalance(t *testing.T) {
	all := machines(t, 3, "auto.leader.rebalance.enable", "true", "leader.imbalance.check.interval.seconds", "1")
	start(t, all...)
	settle(t, all)
	id := create(t, all[0], engine.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 3})
	preferred, _ := leaderOf(t, all, id, 0)
	preferred.stop()
	next, _ := leaderOf(t, all, id, 0)
	if next == preferred {
		t.Fatal("nobody else leads")
	}
	start(t, preferred)
	eventually(t, "the preferred leader leads again", func() bool {
		p, err := preferred.engine.Partition(id, 0)
		return err == nil && p.Leads()
	})
}

// A node whose directory was replaced says so when it registers, also when it was stopped before it could the first time, or the second.
func TestReplacedDirectory(t *testing.T) {
	all := machines(t, 3, "min.insync.replicas", "3")
	start(t, all...)
	settle(t, all)
	for _, m := range all {
		if m.node.fresh != (m.node.founds == false) {
			t.Errorf("node %d: fresh %v, founds %v", m.id, m.node.fresh, m.node.founds)
		}
	}
	id := create(t, all[0], engine.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 3})
	_, p := leaderOf(t, all, id, 0)
	mustProduce(t, p, "first")
	replaced := all[2]
	replaced.stop()
	inSync(t, all[0], id, 0, 2)
	replaced.props["log.dirs"] = t.TempDir()
	if err := replaced.listen(); err != nil {
		t.Fatal(err)
	}
	disk := vfs.NewFaulty(vfs.OS(), vfs.Fault{Op: vfs.OpMkdir, Path: "snapshots"}) // when it knows its cluster already
	replaced.fs = disk
	if err := replaced.open(); !errors.Is(err, vfs.ErrInjected) {
		t.Fatal(err)
	}
	replaced.stop()
	disk.Heal()
	start(t, replaced)
	if !replaced.node.fresh {
		t.Error("it does not say that it has nothing")
	}
	inSync(t, all[0], id, 0, 3)
	note := filepath.Join(replaced.props["log.dirs"], engine.ClusterFolder, freshFile)
	if _, err := os.Stat(note); !os.IsNotExist(err) {
		t.Errorf("noted still: %v", err)
	}
	for _, fresh := range []bool{false, true} {
		replaced.stop()
		if fresh { // as when it is stopped between becoming a member and registering
			if err := os.WriteFile(note, nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		start(t, replaced)
		if replaced.node.fresh != fresh {
			t.Errorf("fresh %v, noted %v", replaced.node.fresh, fresh)
		}
	}
	inSync(t, all[0], id, 0, 3)
}

// A node that has lost what it knew of the metadata has no vote, though one with its id had: with that it could help one to lead that lacks what
// the majority has acknowledged.
func TestReplacedVoter(t *testing.T) {
	all := machines(t, 3)
	start(t, all...)
	settle(t, all)
	leads := slices.IndexFunc(all, func(m *machine) bool { return m.node.control.Load().Leads() })
	one, other, replaced := all[leads], all[(leads+1)%3], all[(leads+2)%3]
	replaced.stop()
	replaced.props["log.dirs"] = t.TempDir()
	if err := replaced.listen(); err != nil {
		t.Fatal(err)
	}
	if err := other.node.hub.Shutdown(t.Context()); err != nil { // the other one believes to lead for another moment
		t.Fatal(err)
	}
	soon, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	options := engine.Options{FS: vfs.OS(), Config: replaced.config(), Now: time.Now, Logger: replaced.logger(), Cluster: replaced.node}
	if e, err := engine.Open(soon, options); err == nil {
		e.Close(t.Context())
		t.Fatal("it has joined with the consent of one of two")
	}
	if one.node.control.Load().Leads() {
		t.Error("one of three leads")
	}
	replaced.stop()
	other.stop()
	start(t, other, replaced)
	settle(t, all)
}

// A node waits for a majority for as long as it takes, and goes on when there is one.
func TestWaitsForAMajority(t *testing.T) {
	all := machines(t, 3)
	start(t, all...)
	settle(t, all)
	id := create(t, all[0], engine.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 3})
	_, p := leaderOf(t, all, id, 0)
	mustProduce(t, p, "first")
	for _, m := range all {
		m.stop()
	}
	first := all[0]
	if err := first.listen(); err != nil {
		t.Fatal(err)
	}
	opened := make(chan error, 1)
	go func() { opened <- first.open() }()
	select {
	case err := <-opened:
		t.Fatalf("alone: %v", err)
	case <-time.After(proposal + time.Second): // longer than one attempt
	}
	start(t, all[1])
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	start(t, all[2])
	if log := same(t, all, id, 0); !bytes.Contains(log, []byte("first")) {
		t.Error("the record is lost")
	}
}

// Who was to begin a cluster, and ended when the others had heard of that, begins it with the next start.
func TestFounderCutShort(t *testing.T) {
	all := machines(t, 3)
	for _, m := range all {
		if err := m.listen(); err != nil {
			t.Fatal(err)
		}
	}
	disk := vfs.NewFaulty(vfs.OS(), vfs.Fault{Op: vfs.OpMkdir, Path: "snapshots"}) // when it has announced the cluster
	founder := all[0]
	founder.fs = disk
	opened := make(chan error, 2)
	for _, m := range all[1:] {
		go func() { opened <- m.open() }()
	}
	if err := founder.open(); !errors.Is(err, vfs.ErrInjected) {
		t.Fatal(err)
	}
	eventually(t, "the others have heard of it", func() bool {
		return all[1].node.hub.Self().ClusterID != "" && all[2].node.hub.Self().ClusterID != ""
	})
	founder.stop()
	disk.Heal()
	start(t, founder)
	for range all[1:] {
		if err := <-opened; err != nil {
			t.Fatal(err)
		}
	}
	settle(t, all)
}
