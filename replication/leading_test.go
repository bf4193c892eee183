package replication

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/replication/isr"
	"github.com/millrace/millrace/replication/stream"
	"github.com/millrace/millrace/segment/vfs"
)

// A node that is elected while its log is being cut for the leader before counts nothing of what is about to go; nor does it tell another
// leader that it has that.
func TestElectedWhileTruncating(t *testing.T) {
	m := machines(t, 1)[0]
	disk := vfs.NewFaulty(vfs.OS())
	m.fs = disk
	start(t, m)
	id := create(t, m, engine.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 1})
	_, p := leaderOf(t, []*machine{m}, id, 0)
	mustProduce(t, p, "first")
	r, key := m.node.copies, stream.Key{TopicID: id}
	led := p.Role()
	followed, again := *led.Placed, *led.Placed
	followed.Leader, followed.LeaderEpoch, again.LeaderEpoch = 2, 1, 2
	r.Changed(p, engine.Role{Placed: &followed, Replica: true})
	appended := make(chan engine.ProduceResult, 1)
	p.Produce(t.Context(), engine.Produce{Records: record(t, "nobody else has it"), Acks: 1, RequestVersion: 9}, func(r engine.ProduceResult) { appended <- r })
	if r := <-appended; r.Err != nil || p.HighWatermark() != 1 || p.LogEndOffset() != 2 {
		t.Fatalf("%+v, high watermark %d", r, p.HighWatermark())
	}
	goOn, stuck := make(chan struct{}), make(chan struct{})
	disk.Inject(vfs.Fault{Op: vfs.OpRename, Path: "truncation*", Stall: goOn, Nth: 1, Do: func() { close(stuck) }})
	impatient, cancel := context.WithCancel(t.Context())
	cut := make(chan error, 1)
	go func() { cut <- follower{p, 0}.Truncate(impatient, 1) }()
	<-stuck
	cancel()
	if err := <-cut; !errors.Is(err, context.Canceled) {
		t.Fatalf("%v", err)
	}
	if _, err := r.Follow(impatient, key, 1, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("it can be followed: %v", err)
	}
	r.Changed(p, engine.Role{Leads: true, Placed: &again, Replica: true})
	if p.HighWatermark() != 1 {
		t.Errorf("high watermark %d while what lies behind 1 is being cut", p.HighWatermark())
	}
	close(goOn)
	eventually(t, "it leads", func() bool {
		have, leads := r.led.Load(p)
		l := have.(*leading)
		l.mu.Lock()
		defer l.mu.Unlock()
		return leads && l.state != nil
	})
	if p.HighWatermark() != 1 || p.LogEndOffset() != 1 {
		t.Errorf("high watermark %d of %d", p.HighWatermark(), p.LogEndOffset())
	}
	if at := mustProduce(t, p, "second"); at != 1 || p.HighWatermark() != 2 {
		t.Errorf("at %d, high watermark %d", at, p.HighWatermark())
	}
}

// When a follower of very many partitions is lost at once, it leaves the in-sync sets of all of them.
func TestTimePassesForAll(t *testing.T) {
	const many = 5000
	begun := time.UnixMilli(1000)
	now := begun
	r := &replicator{clock: clock{wake: make(chan struct{}, 1)}, now: func() time.Time { return now }}
	r.ctx, r.cancel = context.WithCancel(t.Context())
	r.proposer = newProposer(r)
	for range many {
		s := isr.State{Replicas: []int32{1, 2}, InSync: []int32{1, 2}}
		l := &leading{r: r, p: new(engine.Partition), state: isr.NewLeader(isr.DefaultConfig(), 1, 1, s, 0, 0, now)}
		l.step(func(now time.Time) { l.state.Lost(2, now) })
	}
	now = begun.Add(3 * time.Second)
	r.busy.Go(r.keepTime)
	wanted := 0
	eventually(t, "it leaves all", func() bool {
		wanted += len(r.proposer.take())
		return wanted == many
	})
	r.cancel()
	r.busy.Wait()
}

// What a stream of an earlier leadership tells counts for nothing.
func TestAckedUnderAnEarlierEpoch(t *testing.T) {
	r := &replicator{clock: clock{wake: make(chan struct{}, 1)}, now: time.Now, pushes: map[int32]*push{}}
	r.ctx, r.cancel = context.WithCancel(t.Context())
	r.cancel() // no goroutines
	r.proposer = newProposer(r)
	u := stream.NewPush(stream.Config{}, 2, observer{r, 2})
	key := stream.Key{Partition: 7}
	old, current := u.Lead(key, nil, 1), u.Lead(key, nil, 2)
	s := isr.State{LeaderEpoch: 2, Replicas: []int32{1, 2}, InSync: []int32{1, 2}}
	l := &leading{
		r: r, p: new(engine.Partition), key: key, copies: map[int32]*stream.Partition{2: current},
		state: isr.NewLeader(isr.DefaultConfig(), 1, 1, s, 10, 0, time.Now()),
	}
	r.byKey.Store(key, l)
	observer{r, 2}.Acked(old, 1, 10)
	if l.p.HighWatermark() != 0 {
		t.Error("it was believed")
	}
	observer{r, 2}.Acked(current, 1, 10)
	if l.p.HighWatermark() != 10 {
		t.Errorf("high watermark %d", l.p.HighWatermark())
	}
	l.end()
	observer{r, 2}.Acked(current, 1, 20)
	if l.p.HighWatermark() != 10 {
		t.Errorf("high watermark %d after the end", l.p.HighWatermark())
	}
}

// With min.insync.replicas lowered to what there is, producers go on.
func TestMinInSyncLowered(t *testing.T) {
	all := machines(t, 3, "min.insync.replicas", "3")
	start(t, all...)
	settle(t, all)
	id := create(t, all[0], engine.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 3})
	leader, p := leaderOf(t, all, id, 0)
	mustProduce(t, p, "first")
	all[leader.id%3].stop()
	inSync(t, leader, id, 0, 2)
	leader, p = leaderOf(t, all, id, 0)
	result, err := leader.engine.Catalog().Propose(t.Context(), catalog.AlterConfigs{
		Base: leader.engine.Image().Version(), Changes: []catalog.ConfigChange{{Type: catalog.ResourceTopic, Name: "orders", Configs: map[string]string{"min.insync.replicas": "2"}}},
	})
	if err != nil || result.Errors[0] != nil {
		t.Fatal(err, result.Errors)
	}
	mustProduce(t, p, "second")
}

// With StopCopying a node takes nothing from leaders any more, on connections that are there either.
func TestStopCopying(t *testing.T) {
	all := machines(t, 3)
	start(t, all...)
	settle(t, all)
	id := create(t, all[0], engine.NewTopic{Name: "orders", Partitions: 1, ReplicationFactor: 3})
	leader, p := leaderOf(t, all, id, 0)
	mustProduce(t, p, "first")
	inSync(t, leader, id, 0, 3)
	all[leader.id%3].node.StopCopying()
	inSync(t, leader, id, 0, 2)
	mustProduce(t, p, "second")
}
