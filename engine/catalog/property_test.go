package catalog

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

const brokersDrawn = 6

// clusterCommand draws a command that brokers and their controller would send, mostly one that fits.
func clusterCommand(r *rand.Rand, img *Image) Command {
	pick := func() (Broker, bool) {
		all := img.Brokers()
		if len(all) == 0 {
			return Broker{}, false
		}
		return all[r.IntN(len(all))], true
	}
	replicas := func() []int32 {
		all := make([]int32, 0, brokersDrawn)
		for _, i := range r.Perm(brokersDrawn)[:1+r.IntN(4)] {
			all = append(all, int32(i))
		}
		return all
	}
	partition := func() (*Topic, int32) {
		all := img.Topics()
		if len(all) == 0 {
			return nil, 0
		}
		t := all[r.IntN(len(all))]
		return t, r.Int32N(int32(len(t.Partitions)))
	}
	b, found := pick()
	t, i := partition()
	if !found || t == nil || r.IntN(20) == 0 {
		return drawnTopic(r, img, replicas)
	}
	ref := PartitionRef{t.ID, i}
	switch p := t.Partitions[i]; r.IntN(14) {
	case 0, 1:
		return FenceBroker{b.ID, b.Epoch}
	case 2, 3, 4:
		return UnfenceBroker{b.ID, b.Epoch}
	case 5:
		return StopBroker{b.ID, b.Epoch}
	case 6:
		if len(img.Brokers()) > 2 && r.IntN(4) == 0 {
			return UnregisterBroker{b.ID}
		}
		return ElectLeaders{ElectionKind(r.IntN(2)), []PartitionRef{ref, {t.ID, 0}}}
	case 7, 8:
		return drawnBroker(r, img)
	case 9, 10, 11:
		return drawnISR(r, img, t, i, &p)
	case 12:
		c := Reassignment{Topic: t.ID, Partition: i, KeepFactor: r.IntN(3) == 0}
		if r.IntN(3) > 0 {
			c.Replicas = replicas()
		}
		return Reassign{[]Reassignment{c}}
	}
	switch r.IntN(3) {
	case 0:
		holder := int32(r.IntN(brokersDrawn))
		if h := img.broker(holder); h != nil && len(h.Dirs) > 0 && slices.Contains(t.Partitions[i].Replicas, holder) {
			return AssignDirs{[]ReplicaDir{{Topic: t.ID, Partition: i, Broker: holder, Dir: h.Dirs[r.IntN(len(h.Dirs))]}}}
		}
	case 1:
		return SetFeatures{[]FeatureUpdate{{FeatureELR, int16(r.IntN(2)), r.IntN(2) == 0}}}
	}
	name, kind := t.Name, ResourceTopic
	if r.IntN(4) == 0 {
		name, kind = "", ResourceBroker
	}
	set := map[string]string{"min.insync.replicas": fmt.Sprint(1 + r.IntN(3)), "unclean.leader.election.enable": fmt.Sprint(r.IntN(5) == 0)}
	return AlterConfigs{img.Version(), []ConfigChange{{kind, name, set}}}
}

func drawnTopic(r *rand.Rand, img *Image, replicas func() []int32) Command {
	if r.IntN(2) == 0 || len(img.Brokers()) == 0 {
		return drawnBroker(r, img)
	}
	n := NewTopic{Name: fmt.Sprint("t", r.IntN(5)), ID: id(byte(1 + r.IntN(255)))}
	for range 1 + r.IntN(3) {
		all := replicas()
		n.Partitions = append(n.Partitions, Partition{Leader: all[0], Replicas: all, ISR: all})
	}
	return CreateTopics{[]NewTopic{n}}
}

func drawnBroker(r *rand.Rand, img *Image) Command {
	id := r.Int32N(brokersDrawn)
	b := Broker{ID: id, Incarnation: [16]byte{byte(r.IntN(3))}, Fenced: r.IntN(3) > 0, Peer: fmt.Sprint(r.IntN(2)), Features: []FeatureRange{{FeatureELR, 0, 1}}}
	if have := img.broker(id); have != nil && r.IntN(2) == 0 {
		b.Incarnation = have.Incarnation
	}
	for d := range 3 {
		if r.IntN(4) > 0 {
			b.Dirs = append(b.Dirs, DirID{1, byte(id), byte(d)})
		}
	}
	return RegisterBroker{b, r.IntN(4) == 0}
}

func drawnISR(r *rand.Rand, img *Image, t *Topic, i int32, p *Partition) Command {
	leader := p.Leader
	if r.IntN(10) == 0 {
		leader = r.Int32N(brokersDrawn)
	}
	c := ISRChange{Topic: t.ID, Partition: i, LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch, ISR: []int32{leader}, Recovering: p.Recovering && r.IntN(2) == 0}
	for _, id := range p.Replicas {
		if id != leader && r.IntN(3) > 0 {
			c.ISR = append(c.ISR, id)
		}
	}
	var epoch int64
	if b := img.broker(leader); b != nil {
		epoch = b.Epoch
	}
	return ChangeISR{leader, epoch, []ISRChange{c}}
}

// broken says what is wrong with a partition, "" when nothing is; always says that eligible replicas were kept from the start.
func broken(img *Image, p *Partition, always bool) string {
	leads := func(id int32) bool {
		b := img.broker(id)
		return b != nil && b.Active() && b.hasDir(p.Dir(id))
	}
	distinct := func(ids []int32) bool { return len(slices.Compact(slices.Sorted(slices.Values(ids)))) == len(ids) }
	keeps := img.Feature(FeatureELR) > 0
	switch {
	case p.Leader != nobody && (!leads(p.Leader) || !slices.Contains(p.ISR, p.Leader)):
		return "the leader may not lead"
	case p.Leader == nobody && (slices.ContainsFunc(p.ISR, leads) || len(p.ISR) == 0 && slices.ContainsFunc(p.ELR, leads)):
		return "somebody could lead"
	case len(p.Replicas) == 0, !distinct(p.Replicas), !distinct(p.ISR), !distinct(p.ELR):
		return "a set is none"
	case !containsAll(p.Replicas, slices.Concat(p.ISR, p.ELR, p.Removing)), !containsAll(p.Replicas, p.Adding):
		return "not a replica"
	case slices.ContainsFunc(p.ELR, func(id int32) bool { return slices.Contains(p.ISR, id) }):
		return "in sync and eligible"
	case !keeps && len(p.ELR) > 0:
		return "eligible replicas are not kept"
	case always && slices.ContainsFunc(p.ISR, func(id int32) bool { return !leads(id) }):
		return "in sync, but dead"
	case len(p.ISR) == 0 && len(p.LastKnownELR) != 1, len(p.LastKnownELR) > 1, p.Leader != nobody && len(p.LastKnownELR) > 0:
		return "the last leader of one that has a leader"
	case len(p.Dirs) > 0 && len(p.Dirs) != len(p.Replicas), len(p.Futures) > 0 && len(p.Futures) != len(p.Replicas):
		return "directories of other replicas"
	}
	return ""
}

// checkStep compares a partition before and after one command.
func checkStep(was, is *Partition) string {
	switch {
	case is.LeaderEpoch < was.LeaderEpoch || is.PartitionEpoch < was.PartitionEpoch:
		return "an epoch fell"
	case !equalPartitions(*was, *is) && is.PartitionEpoch == was.PartitionEpoch:
		return "changed within one partition epoch"
	case is.Leader != was.Leader && is.LeaderEpoch == was.LeaderEpoch:
		return "two leaders of one epoch"
	}
	return ""
}

// eventsOf are the partitions that events name.
func eventsOf(img *Image) map[PartitionRef]bool {
	named := map[PartitionRef]bool{}
	for _, e := range img.Events() {
		if e.Kind == PartitionChanged || e.Kind == DirAssigned {
			named[PartitionRef{e.Topic, e.Partition}] = true
		}
	}
	return named
}

// TestClusterProperties: whatever is commanded, leaders may lead, epochs rise, events name what
// changed, and the same commands give the same image, also through the encodings.
func TestClusterProperties(t *testing.T) {
	led, leaderless := 0, 0
	for seed := range uint64(24) {
		r := rand.New(rand.NewPCG(seed, 5))
		img, twin, always := NewImage(), NewImage(), seed%2 == 0
		for n := range 300 {
			cmd := clusterCommand(r, img)
			if _, is := cmd.(SetFeatures); is && always {
				continue
			}
			fail := func(what string) {
				t.Fatalf("seed %d, command %d, %s after %T%+v\nbefore %s\nafter %s", seed, n, what, cmd, cmd, dump(twin), dump(img))
			}
			encoded, err := EncodeCommand(cmd)
			if err != nil {
				t.Fatal(err)
			}
			decoded, err := DecodeCommand(encoded)
			if err != nil || !reflect.DeepEqual(decoded, cmd) {
				t.Fatalf("have %+v %v\nwant %+v", decoded, err, cmd)
			}
			res, err := Apply(img, cmd)
			if err != nil {
				t.Fatal(err)
			}
			old := img
			img = res.Image
			if d, _ := Apply(twin, decoded); !bytes.Equal(EncodeImage(d.Image), EncodeImage(img)) || img != old && !slices.Equal(d.Image.Events(), img.Events()) {
				fail("not deterministic")
			} else if twin, err = DecodeImage(EncodeImage(d.Image)); err != nil || dump(twin) != dump(img) {
				fail("another image when it is read")
			}
			changed := map[PartitionRef]bool{}
			for _, topic := range img.Topics() {
				before := old.TopicByID(topic.ID)
				for i := range topic.Partitions {
					p := &topic.Partitions[i]
					if what := broken(img, p, always); what != "" {
						fail(fmt.Sprintf("%s-%d: %s", topic.Name, i, what))
					}
					if p.Leader == nobody {
						leaderless++
					} else {
						led++
					}
					if before == nil {
						continue
					}
					if what := checkStep(&before.Partitions[i], p); what != "" {
						fail(fmt.Sprintf("%s-%d: %s", topic.Name, i, what))
					}
					if !equalPartitions(before.Partitions[i], *p) {
						changed[PartitionRef{topic.ID, int32(i)}] = true
					}
				}
			}
			if img != old && !reflect.DeepEqual(eventsOf(img), changed) || !reflect.DeepEqual(eventsOf(img.WithEventsSince(old)), changed) {
				fail(fmt.Sprintf("events %+v, since %+v, changed %v", img.Events(), img.WithEventsSince(old).Events(), changed))
			}
		}
	}
	t.Logf("%d partitions had a leader, %d had none", led, leaderless)
	if led < 1000 || leaderless < 1000 {
		t.Error("the commands are too tame, or too wild")
	}
}

// TestClusterIsKept: what a cluster's commands made is there after a restart.
func TestClusterIsKept(t *testing.T) {
	dir, r := t.TempDir(), rand.New(rand.NewPCG(7, 7))
	for range 3 {
		c := open(t, dir)
		for range 60 {
			propose(t, c, clusterCommand(r, c.Image()))
		}
		before := dump(c.Image())
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		again := open(t, dir)
		if have := dump(again.Image()); have != before {
			t.Fatalf("have\n%s\nwant\n%s", have, before)
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
