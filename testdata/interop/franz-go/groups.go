package main

import (
	"context"
	"log"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/testdata/interop/kit"
)

// member is a group member that remembers what it holds.
type member struct {
	*kgo.Client
	mu       sync.Mutex
	held     map[int32]bool
	assigned int // how many times partitions were given
	revoked  int // how many partitions were taken away
	values   map[string]bool
	done     chan struct{}
}

func join(topic, group string, opts ...kgo.Opt) *member {
	m := &member{held: map[int32]bool{}, values: map[string]bool{}, done: make(chan struct{})}
	lose := func(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, p := range lost[topic] {
			delete(m.held, p)
			m.revoked++
		}
		log.Printf("lost %v", lost[topic])
	}
	m.Client = client(append([]kgo.Opt{
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.SessionTimeout(kit.Session), kgo.HeartbeatInterval(300 * time.Millisecond), kgo.Balancers(kgo.RangeBalancer()),
		kgo.OnPartitionsRevoked(lose), kgo.OnPartitionsLost(lose),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, given map[string][]int32) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.assigned++
			for _, p := range given[topic] {
				m.held[p] = true
			}
			log.Printf("assigned %v", given[topic])
		}),
	}, opts...)...)
	go func() {
		defer close(m.done)
		for {
			fetches := m.PollFetches(context.Background())
			if fetches.IsClientClosed() {
				return
			}
			m.mu.Lock()
			fetches.EachRecord(func(r *kgo.Record) { m.values[string(r.Value)] = true })
			m.mu.Unlock()
		}
	}()
	return m
}

func (m *member) leave() {
	m.Close()
	<-m.done
}

// look returns the partitions held, the assignments so far, the partitions lost so far and the distinct values read.
func (m *member) look() (held map[int32]bool, assigned, revoked, values int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	held = map[int32]bool{}
	for p := range m.held {
		held[p] = true
	}
	return held, m.assigned, m.revoked, len(m.values)
}

func (m *member) waitFor(ctx context.Context, what string, partitions int) {
	kit.Eventually(ctx, what, func() bool { held, _, _, _ := m.look(); return len(held) == partitions })
}

func runMember(ctx context.Context, topic, group string) {
	join(topic, group)
	<-ctx.Done()
}

func groupRebalance(ctx context.Context) {
	topic, group := create(ctx, kit.Topic("rebalance"), 4), kit.Topic("rebalance")
	fill(ctx, topic, 40, 4, time.Now().UnixMilli())
	m := join(topic, group)
	m.waitFor(ctx, "alone with four partitions", 4)
	other := kit.StartMember(topic, group)
	m.waitFor(ctx, "two of four after the second joined", 2)
	kit.Eventually(ctx, "stable with two members", func() bool {
		described, err := admin().DescribeGroups(ctx, group)
		kit.Must(err)
		return described[group].State == "Stable" && len(described[group].Members) == 2
	})
	kit.Kill(other)
	fill(ctx, topic, 80, 4, time.Now().UnixMilli())
	m.waitFor(ctx, "four again after the second was killed", 4)
	kit.Eventually(ctx, "every value read", func() bool { _, _, _, values := m.look(); return values == 80 })
	m.leave()
}

func groupCooperative(ctx context.Context) {
	topic, group := create(ctx, kit.Topic("cooperative"), 4), kit.Topic("cooperative")
	one := join(topic, group, kgo.Balancers(kgo.CooperativeStickyBalancer()))
	one.waitFor(ctx, "alone with four partitions", 4)
	two := join(topic, group, kgo.Balancers(kgo.CooperativeStickyBalancer()))
	two.waitFor(ctx, "two for the second", 2)
	one.waitFor(ctx, "two for the first", 2)
	_, _, revoked, _ := one.look()
	kit.Check(revoked == 2, "the first gave up %d partitions to hand over 2", revoked)
	two.leave()
	one.waitFor(ctx, "four again after the second left", 4)
	one.leave()
}

func groupStatic(ctx context.Context) {
	topic, group := create(ctx, kit.Topic("static"), 4), kit.Topic("static")
	one := join(topic, group, kgo.InstanceID("one"))
	two := join(topic, group, kgo.InstanceID("two"))
	one.waitFor(ctx, "two for the first", 2)
	two.waitFor(ctx, "two for the second", 2)
	before, _, _, _ := two.look()
	_, assigned, _, _ := one.look()
	two.leave() // a static member closes without leaving
	two = join(topic, group, kgo.InstanceID("two"))
	two.waitFor(ctx, "two for the second, back again", 2)
	after, _, _, _ := two.look()
	for p := range before {
		kit.Check(after[p], "held %v before, %v after", before, after)
	}
	_, again, _, _ := one.look()
	kit.Check(again == assigned, "the first was rebalanced")
	one.leave()
	two.leave()
}
