package main

import (
	"context"
	"errors"
	"log"
	"maps"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/millrace/millrace/testdata/interop/kit"
)

// member is a group member that remembers what it holds; it is also its own sarama.ConsumerGroupHandler.
type member struct {
	group   sarama.ConsumerGroup
	cancel  context.CancelFunc
	done    chan struct{}
	mu      sync.Mutex
	session sarama.ConsumerGroupSession
	seen    view
	values  map[string]bool
}

// view is what a member has seen so far.
type view struct {
	held     map[int32]bool
	claims   int // how many times a partition was given to it
	sessions int // how many generations it took part in
	values   int // distinct values read
	first    int64
}

func join(topic, group string, c *sarama.Config) *member {
	g, err := sarama.NewConsumerGroup(kit.Brokers(), group, c)
	kit.Must(err)
	ctx, cancel := context.WithCancel(context.Background())
	m := &member{group: g, cancel: cancel, done: make(chan struct{}), values: map[string]bool{}, seen: view{held: map[int32]bool{}, first: -1}}
	go func() {
		defer close(m.done)
		for ctx.Err() == nil {
			if err := g.Consume(ctx, []string{topic}, m); err != nil && !errors.Is(err, sarama.ErrClosedConsumerGroup) {
				log.Printf("consume: %v", err)
			}
		}
	}()
	return m
}

func (m *member) Setup(s sarama.ConsumerGroupSession) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.session = s
	m.seen.sessions++
	log.Printf("generation %d: %v", s.GenerationID(), s.Claims())
	return nil
}

func (m *member) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (m *member) ConsumeClaim(_ sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	m.mu.Lock()
	m.seen.held[claim.Partition()] = true
	m.seen.claims++
	m.mu.Unlock()
	for r := range claim.Messages() {
		m.mu.Lock()
		if m.seen.first < 0 {
			m.seen.first = r.Offset
		}
		m.values[string(r.Value)] = true
		m.mu.Unlock()
	}
	m.mu.Lock()
	delete(m.seen.held, claim.Partition())
	m.mu.Unlock()
	return nil
}

func (m *member) look() view {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := m.seen
	v.held, v.values = maps.Clone(m.seen.held), len(m.values)
	return v
}

func (m *member) waitFor(ctx context.Context, what string, partitions int) {
	kit.Eventually(ctx, what, func() bool { return len(m.look().held) == partitions })
}

// mark commits an offset with metadata.
func (m *member) mark(topic string, partition int32, offset int64, metadata string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.session.MarkOffset(topic, partition, offset, metadata)
	m.session.Commit()
}

func (m *member) leave() {
	m.cancel()
	<-m.done
	kit.Must(m.group.Close())
}

func runMember(ctx context.Context, topic, group string) {
	join(topic, group, config())
	<-ctx.Done()
}

func groupRebalance(ctx context.Context) {
	topic, group := create(ctx, kit.Topic("rebalance"), 4), kit.Topic("rebalance")
	fill(topic, 40, 4, time.Now().UnixMilli())
	m := join(topic, group, config())
	m.waitFor(ctx, "alone with four partitions", 4)
	other := kit.StartMember(topic, group)
	m.waitFor(ctx, "two of four after the second joined", 2)
	kit.Eventually(ctx, "stable with two members", func() bool {
		described, err := admin().DescribeConsumerGroups([]string{group})
		kit.Must(err)
		return described[0].State == "Stable" && len(described[0].Members) == 2
	})
	kit.Kill(other)
	fill(topic, 80, 4, time.Now().UnixMilli())
	m.waitFor(ctx, "four again after the second was killed", 4)
	kit.Eventually(ctx, "every value read", func() bool { return m.look().values == 80 })
	m.leave()
}

func groupCooperative(ctx context.Context) {
	topic, group := create(ctx, kit.Topic("cooperative"), 4), kit.Topic("cooperative")
	c := config()
	c.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategyCooperativeSticky()}
	one := join(topic, group, c)
	one.waitFor(ctx, "alone with four partitions", 4)
	two := join(topic, group, c)
	two.waitFor(ctx, "two for the second", 2)
	one.waitFor(ctx, "two for the first", 2)
	kit.Check(one.look().claims == 4, "the first claimed %d partitions: it kept none while handing over", one.look().claims)
	two.leave()
	one.waitFor(ctx, "four again after the second left", 4)
	one.leave()
}

func groupStatic(ctx context.Context) {
	topic, group := create(ctx, kit.Topic("static"), 4), kit.Topic("static")
	named := func(id string) *member {
		c := config()
		c.Consumer.Group.InstanceId = id
		return join(topic, group, c)
	}
	one, two := named("one"), named("two")
	one.waitFor(ctx, "two for the first", 2)
	two.waitFor(ctx, "two for the second", 2)
	before, sessions := two.look().held, one.look().sessions
	two.leave() // a static member closes without leaving
	two = named("two")
	two.waitFor(ctx, "two for the second, back again", 2)
	kit.Check(maps.Equal(two.look().held, before), "held %v before, %v after", before, two.look().held)
	kit.Check(one.look().sessions == sessions, "the first was rebalanced")
	one.leave()
	two.leave()
}
