package catalog

import (
	"errors"
	"testing"
)

// TestChangeISRRefuses: each of Kafka's checks of an AlterPartition, alone.
func TestChangeISRRefuses(t *testing.T) {
	img := cluster(t, 4, nil, []int32{1, 2, 3}, []int32{2, 1})
	img = then(t, img, fence(3), stop(2)) // now 1 leads both, alone
	p := img.Topic("t").Partitions[0]
	fit := ISRChange{Topic: id(1), LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch, ISR: []int32{1}}
	tests := []struct {
		name   string
		change func(*ISRChange)
		broker int32 // 0: the leader
		epoch  int64 // added to the broker's
		want   error
	}{
		{"it fits", func(*ISRChange) {}, 0, 0, nil},
		{"no such topic", func(c *ISRChange) { c.Topic = id(9) }, 0, 0, ErrUnknownTopic},
		{"no such partition", func(c *ISRChange) { c.Partition = 2 }, 0, 0, ErrUnknownTopic},
		{"negative partition", func(c *ISRChange) { c.Partition = -1 }, 0, 0, ErrUnknownTopic},
		{"stale broker epoch", func(*ISRChange) {}, 0, -1, ErrStaleBrokerEpoch},
		{"unknown broker", func(*ISRChange) {}, 7, 0, ErrUnknownBroker},
		{"older leader epoch", func(c *ISRChange) { c.LeaderEpoch-- }, 0, 0, ErrFencedLeaderEpoch},
		{"leader epoch to come", func(c *ISRChange) { c.LeaderEpoch++ }, 0, 0, ErrConflict},
		{"not the leader", func(*ISRChange) {}, 4, 0, ErrNotLeader},
		{"older partition epoch", func(c *ISRChange) { c.PartitionEpoch-- }, 0, 0, ErrConflict},
		{"partition epoch to come", func(c *ISRChange) { c.PartitionEpoch++ }, 0, 0, ErrConflict},
		{"without the leader", func(c *ISRChange) { c.ISR = []int32{2} }, 0, 0, ErrInvalid},
		{"empty", func(c *ISRChange) { c.ISR = nil }, 0, 0, ErrInvalid},
		{"no replica", func(c *ISRChange) { c.ISR = []int32{1, 4} }, 0, 0, ErrInvalid},
		{"twice", func(c *ISRChange) { c.ISR = []int32{1, 1} }, 0, 0, ErrInvalid},
		{"fenced", func(c *ISRChange) { c.ISR = []int32{1, 3} }, 0, 0, ErrIneligibleReplica},
		{"stopping", func(c *ISRChange) { c.ISR = []int32{1, 2} }, 0, 0, ErrIneligibleReplica},
		{"another incarnation", func(c *ISRChange) { c.Epochs = []int64{99} }, 0, 0, ErrIneligibleReplica},
		{"an epoch that is not known", func(c *ISRChange) { c.Epochs = []int64{-1} }, 0, 0, nil},
		{"epochs of others", func(c *ISRChange) { c.Epochs = []int64{1, 2} }, 0, 0, ErrInvalid},
		{"recovering again", func(c *ISRChange) { c.Recovering = true }, 0, 0, ErrInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ch, broker, epoch := fit, tt.broker, int64(0)
			tt.change(&ch)
			if broker == 0 {
				broker = 1
			}
			if b := img.broker(broker); b != nil {
				epoch = b.Epoch
			}
			res, err := Apply(img, ChangeISR{broker, epoch + tt.epoch, []ISRChange{ch}})
			if err != nil || len(res.Errors) != 1 || !errors.Is(res.Errors[0], tt.want) || res.Image != img {
				t.Errorf("have %v %v, want %v", res.Errors, err, tt.want)
			}
		})
	}
}

// TestChangeISRMovesOn: what is in sync grows and shrinks; only the partition's epoch rises.
func TestChangeISRMovesOn(t *testing.T) {
	img := cluster(t, 3, map[string]string{"min.insync.replicas": "2"}, []int32{1, 2, 3})
	for i, step := range []struct {
		isr  []int32
		want string
	}{
		{[]int32{1, 3}, "1 e0.1 of 1 2 3 in 1 3"},
		{[]int32{1}, "1 e0.2 of 1 2 3 in 1 elr 3"},
		{[]int32{1}, "1 e0.2 of 1 2 3 in 1 elr 3"},
		{[]int32{1, 2}, "1 e0.3 of 1 2 3 in 1 2"},
		{[]int32{2, 1, 3}, "1 e0.4 of 1 2 3 in 2 1 3"},
	} {
		p := img.Topic("t").Partitions[0]
		img = with(t, img, ChangeISR{1, epochOf(img, 1), []ISRChange{{Topic: id(1), PartitionEpoch: p.PartitionEpoch, ISR: step.isr}}})
		if have := state(img.Topic("t").Partitions[0]); have != step.want {
			t.Fatalf("step %d:\nhave %s\nwant %s", i+1, have, step.want)
		}
	}
}

// TestChangeISRAfterUncleanElection: the set cannot grow before the leader says that it has recovered.
func TestChangeISRAfterUncleanElection(t *testing.T) {
	img := cluster(t, 2, nil, []int32{1, 2})
	img = then(t, img, fence(2), fence(1), unfence(2), elect(UncleanElection), unfence(1))
	propose := func(isr []int32, recovering bool) error {
		p := img.Topic("t").Partitions[0]
		res, err := Apply(img, ChangeISR{2, epochOf(img, 2), []ISRChange{{Topic: id(1), LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch, ISR: isr, Recovering: recovering}}})
		if err != nil {
			t.Fatal(err)
		}
		img = res.Image
		return res.Errors[0]
	}
	if err := propose([]int32{2, 1}, true); !errors.Is(err, ErrInvalid) {
		t.Errorf("it grew: %v", err)
	}
	if err := propose([]int32{2}, false); err != nil || state(img.Topic("t").Partitions[0]) != "2 e2.4 of 1 2 in 2" {
		t.Errorf("%v %s", err, state(img.Topic("t").Partitions[0]))
	}
	if err := propose([]int32{2, 1}, false); err != nil {
		t.Error(err)
	}
}

// TestChangeISRJudgesItems: items of one command are judged one by one, two of one partition one after the other.
func TestChangeISRJudgesItems(t *testing.T) {
	img := cluster(t, 3, nil, []int32{1, 2}, []int32{2, 1}, []int32{1, 3})
	change := func(partition int32) ISRChange { return ISRChange{Topic: id(1), Partition: partition, ISR: []int32{1}} }
	res, err := Apply(img, ChangeISR{1, epochOf(img, 1), []ISRChange{change(0), change(1), change(2), change(0)}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []error{nil, ErrNotLeader, nil, ErrConflict} {
		if !errors.Is(res.Errors[i], want) {
			t.Errorf("item %d: have %v, want %v", i, res.Errors[i], want)
		}
	}
	if events := res.Image.Events(); len(events) != 2 || events[0] != (Event{Kind: PartitionChanged, Topic: id(1), Name: "t"}) || events[1].Partition != 2 {
		t.Errorf("events %+v", events)
	}
	if have := state(img.Topic("t").Partitions[0]); have != "1 e0.0 of 1 2 in 1 2" {
		t.Errorf("the old image changed: %s", have)
	}
}
