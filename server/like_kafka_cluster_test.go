package server

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

var recordCluster = flag.Bool("record-cluster", false,
	"write the answers of the first of three brokers of a new Kafka, at MILLRACE_KAFKA, to testdata; the third has to be killed when that is asked for")

const recordedCluster = "testdata/cluster-kafka-4.3.1.txt"

// TestClusterAnswersAreKafkas compares what one of three brokers answers, before and after another has died, with what one of Kafka's did.
func TestClusterAnswersAreKafkas(t *testing.T) {
	if *recordCluster {
		b := &clusterBroker{broker: &broker{rawClient: dialRaw(t, os.Getenv("MILLRACE_KAFKA"))}, pause: time.Second}
		b.fence = func() {
			fmt.Fprintln(os.Stderr, "kill broker 3 now")
			eventuallyIn(t, time.Minute, "broker 3 is fenced", func() bool {
				req := kmsg.NewPtrDescribeClusterRequest()
				req.IncludeFencedBrokers = true
				req.SetVersion(2)
				for _, have := range b.ask(req).(*kmsg.DescribeClusterResponse).Brokers {
					if have.NodeID == 3 && have.IsFenced {
						return true
					}
				}
				return false
			})
		}
		b.run(os.Getenv("MILLRACE_KAFKA"))
		if err := os.WriteFile(recordedCluster, []byte(strings.Join(b.told, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	recorded, err := os.ReadFile(recordedCluster)
	if err != nil {
		t.Fatal(err)
	}
	f := newFakeCluster(map[int32]string{1: "", 2: "", 3: ""})
	_, addr := startServerIn(t, f, nil, "auto.create.topics.enable", "false", "min.insync.replicas", "2")
	b := &clusterBroker{broker: &broker{rawClient: dialRaw(t, addr)}, fence: func() { f.fence(t, 3) }}
	b.run(addr)
	theirs := strings.Split(strings.TrimSpace(string(recorded)), "\n")
	if len(b.told) != len(theirs) {
		t.Fatalf("%d answers, %d are recorded", len(b.told), len(theirs))
	}
	for i := range theirs {
		if b.told[i] != theirs[i] {
			t.Errorf("\nKafka %s\nhere  %s", theirs[i], b.told[i])
		}
	}
}

func eventuallyIn(t *testing.T, long time.Duration, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if is() {
			return
		}
	}
	t.Fatal("never: " + what)
}

// clusterBroker is the broker that is asked.
type clusterBroker struct {
	*broker
	addr  string
	pause time.Duration // until what was changed is known to the broker
	fence func()        // has broker 3 die
	told  []string
}

// put asks one question.
func (b *clusterBroker) put(name string, v int16, req kmsg.Request) {
	req.SetVersion(v)
	b.send(req)
	resp, _, err := b.receive(req)
	if err != nil {
		b.rawClient = dialRaw(b.t, b.addr)
		b.told = append(b.told, fmt.Sprintf("%s v%d\t%v", name, v, err))
		return
	}
	switch r := resp.(type) { // what is not the same twice
	case *kmsg.MetadataResponse:
		r.ControllerID = 0
		for i := range r.Topics {
			r.Topics[i].TopicID = [16]byte{}
		}
	case *kmsg.DescribeClusterResponse:
		r.ControllerID = 0
	case *kmsg.DescribeTopicPartitionsResponse:
		for i := range r.Topics {
			r.Topics[i].TopicID = [16]byte{}
		}
	case *kmsg.ElectLeadersResponse: // of all topics, in no order
		slices.SortStableFunc(r.Topics, func(a, b kmsg.ElectLeadersResponseTopic) int { return strings.Compare(a.Topic, b.Topic) })
	case *kmsg.UpdateFeaturesResponse: // who judges is another one each time
		if r.ErrorMessage != nil {
			*r.ErrorMessage = strings.Replace(*r.ErrorMessage, "Local controller 2 ", "Local controller 1 ", 1)
		}
	case *kmsg.CreateTopicsResponse:
		for i := range r.Topics {
			r.Topics[i].TopicID, r.Topics[i].Configs = [16]byte{}, nil
		}
	}
	b.told = append(b.told, fmt.Sprintf("%s v%d\t%s", name, v, b.broker.told(resp)))
}

// settle waits until the broker knows of changes.
func (b *clusterBroker) settle() { time.Sleep(b.pause) }

func (b *clusterBroker) run(addr string) {
	b.addr = addr
	b.create("several", [][]int32{{1, 2, 3}, {2, 3, 1}, {3, 1, 2}})
	b.create("single", [][]int32{{3}})
	b.settle()
	b.whileAllAreThere()
	b.settle()
	b.fence()
	b.settle()
	b.withoutTheThird()
}

func (b *clusterBroker) create(name string, replicas [][]int32) {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = 10000
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = name, -1, -1
	for i, ids := range replicas {
		ra := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
		ra.Partition, ra.Replicas = int32(i), ids
		rt.ReplicaAssignment = append(rt.ReplicaAssignment, ra)
	}
	req.Topics = append(req.Topics, rt)
	b.put("create "+name, 7, req)
}

func (b *clusterBroker) elect(v int16, kind int8, topics map[string][]int32, order ...string) {
	req := kmsg.NewPtrElectLeadersRequest()
	req.ElectionType, req.TimeoutMillis = kind, 5000
	for _, name := range order {
		rt := kmsg.NewElectLeadersRequestTopic()
		rt.Topic, rt.Partitions = name, topics[name]
		req.Topics = append(req.Topics, rt)
	}
	b.put(fmt.Sprintf("elect leaders of kind %d %v", kind, order), v, req)
}

// reassign asks for replicas of one partition.
func (b *clusterBroker) reassign(v int16, topic string, partition int32, replicas []int32, factorMayChange bool) {
	req := kmsg.NewPtrAlterPartitionAssignmentsRequest()
	req.TimeoutMillis, req.AllowReplicationFactorChange = 5000, factorMayChange
	rt := kmsg.NewAlterPartitionAssignmentsRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
	rp.Partition, rp.Replicas = partition, replicas
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	b.put(fmt.Sprintf("reassign %s-%d to %v, null %v, factor may change %v", topic, partition, replicas, replicas == nil, factorMayChange), v, req)
}

func (b *clusterBroker) reassignments(names ...string) {
	req := kmsg.NewPtrListPartitionReassignmentsRequest()
	req.TimeoutMillis = 5000
	for _, name := range names {
		rt := kmsg.NewListPartitionReassignmentsRequestTopic()
		rt.Topic, rt.Partitions = name, []int32{0, 1, 2, 9, -1}
		req.Topics = append(req.Topics, rt)
	}
	b.put(fmt.Sprintf("list reassignments of %v", names), 0, req)
}

func (b *clusterBroker) describeBrokers() {
	for v := int16(0); v <= 2; v++ {
		for _, fenced := range []bool{false, true} {
			req := kmsg.NewPtrDescribeClusterRequest()
			req.IncludeFencedBrokers = fenced
			b.put(fmt.Sprintf("describe cluster, fenced ones %v", fenced), v, req)
		}
	}
}

func (b *clusterBroker) describe() {
	b.describeBrokers()
	meta := kmsg.NewPtrMetadataRequest()
	pages := kmsg.NewPtrDescribeTopicPartitionsRequest()
	pages.ResponsePartitionLimit = 100
	for _, name := range []string{"several", "single"} {
		mt, pt := kmsg.NewMetadataRequestTopic(), kmsg.NewDescribeTopicPartitionsRequestTopic()
		mt.Topic, pt.Topic = kmsg.StringPtr(name), name
		meta.Topics, pages.Topics = append(meta.Topics, mt), append(pages.Topics, pt)
	}
	b.put("metadata", 13, meta)
	b.put("describe topic partitions", 0, pages)
}

func (b *clusterBroker) whileAllAreThere() {
	every := map[string][]int32{"several": {0, 1, 2, 9, -1}, "single": {0}, "nowhere": {0}}
	for kind := int8(0); kind < 2; kind++ {
		b.elect(2, kind, every, "several", "single", "nowhere")
		b.elect(2, kind, every)
	}
	b.describe()
	for v := int16(0); v <= 1; v++ {
		for _, replicas := range [][]int32{{1, 2, 3}, {}, nil, {1, 2, 9}, {1, 1, 2}, {-1}, {4}} {
			b.reassign(v, "several", 0, replicas, true)
			b.reassign(v, "several", 0, replicas, false)
		}
		b.reassign(v, "several", 9, []int32{1, 2, 3}, true)
		b.reassign(v, "nowhere", 0, []int32{1, 2, 3}, true)
	}
	b.reassign(1, "several", 0, []int32{1, 2}, false)
	b.reassign(1, "single", 0, []int32{1, 2}, false)
	b.reassign(1, "several", 0, []int32{2, 1, 3}, false) // another order: done at once
	b.reassignments()
	b.reassignments("several", "nowhere", "single")
	b.elect(1, 1, map[string][]int32{"several": {0}}, "several")
	b.elect(1, 0, map[string][]int32{"several": {0}}, "several")
	b.settle()
	b.describe()
	b.configs()
	b.features()
	b.unregister(9)
	b.unregister(-1)
	b.reads()
}

// configs are those of brokers, of which each answers for itself.
func (b *clusterBroker) configs() {
	for _, name := range []string{"2", "99", "x", "-1"} {
		d := kmsg.NewPtrDescribeConfigsRequest()
		dr := kmsg.NewDescribeConfigsRequestResource()
		dr.ResourceType, dr.ResourceName, dr.ConfigNames = kmsg.ConfigResourceTypeBroker, name, []string{"log.retention.ms"}
		d.Resources = append(d.Resources, dr)
		b.put("describe configs of broker "+name, 4, d)
		i := kmsg.NewPtrIncrementalAlterConfigsRequest()
		ir := kmsg.NewIncrementalAlterConfigsRequestResource()
		ir.ResourceType, ir.ResourceName = kmsg.ConfigResourceTypeBroker, name
		ic := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		ic.Name, ic.Value = "log.retention.ms", kmsg.StringPtr("1000000")
		ir.Configs = append(ir.Configs, ic)
		i.Resources = append(i.Resources, ir)
		b.put("incremental alter configs of broker "+name, 1, i)
		a := kmsg.NewPtrAlterConfigsRequest()
		ar := kmsg.NewAlterConfigsRequestResource()
		ar.ResourceType, ar.ResourceName = kmsg.ConfigResourceTypeBroker, name
		ac := kmsg.NewAlterConfigsRequestResourceConfig()
		ac.Name, ac.Value = "log.retention.ms", kmsg.StringPtr("1000000")
		ar.Configs = append(ar.Configs, ac)
		a.Resources = append(a.Resources, ar)
		b.put("alter configs of broker "+name, 2, a)
	}
}

// features are judged only, but for the last, which changes nothing.
func (b *clusterBroker) features() {
	update := func(v int16, name string, level int16, kind int8, validateOnly bool) {
		req := kmsg.NewPtrUpdateFeaturesRequest()
		req.TimeoutMillis, req.ValidateOnly = 5000, validateOnly
		u := kmsg.NewUpdateFeaturesRequestFeatureUpdate()
		u.Feature, u.MaxVersionLevel, u.UpgradeType, u.AllowDowngrade = name, level, kind, kind > 1
		req.FeatureUpdates = append(req.FeatureUpdates, u)
		b.put(fmt.Sprintf("update feature %q to %d by %d, validate only %v", name, level, kind, validateOnly), v, req)
	}
	const elr = "eligible.leader.replicas.version"
	for v := int16(1); v <= 2; v++ {
		for _, level := range []int16{-1, 0, 1, 2} {
			for kind := int8(0); kind <= 4; kind++ {
				update(v, elr, level, kind, true)
			}
		}
		for _, level := range []int16{0, 1, 200} {
			update(v, "no.such.feature", level, 1, true)
			update(v, "no.such.feature", level, 2, true)
		}
		update(v, "", 1, 1, true)
		b.put("update no feature", v, kmsg.NewPtrUpdateFeaturesRequest())
	}
	update(0, elr, 2, 1, false)
	update(0, "no.such.feature", 1, 2, false)
	update(2, elr, 1, 1, false)
}

func (b *clusterBroker) unregister(id int32) {
	req := kmsg.NewPtrUnregisterBrokerRequest()
	req.BrokerID = id
	b.put(fmt.Sprintf("unregister broker %d", id), 0, req)
}

// reads are asked of a broker that follows: several-1 and several-2 are led by others, and empty.
func (b *clusterBroker) reads() {
	for _, v := range []int16{4, 10, 11, 12} {
		for _, epoch := range []int32{-1, 0, 1} {
			for _, offset := range []int64{0, 1} {
				req := fetchRequest(v, b.broker, fetchOf{1, offset, epoch, -1})
				req.Topics[0].Topic = "several"
				req.Rack = "r"
				b.put(fmt.Sprintf("fetch at %d in epoch %d", offset, epoch), v, req)
			}
		}
	}
	for _, v := range []int16{1, 10} {
		req := kmsg.NewPtrListOffsetsRequest()
		req.ReplicaID = -1
		rt := kmsg.NewListOffsetsRequestTopic()
		rt.Topic = "several"
		for _, index := range []int32{1, 2} {
			rp := kmsg.NewListOffsetsRequestTopicPartition()
			rp.Partition, rp.Timestamp, rp.CurrentLeaderEpoch = index, -1, -1
			rt.Partitions = append(rt.Partitions, rp)
		}
		req.Topics = append(req.Topics, rt)
		b.put("list offsets", v, req)
	}
	req := kmsg.NewPtrOffsetForLeaderEpochRequest()
	req.ReplicaID = -1
	rt := kmsg.NewOffsetForLeaderEpochRequestTopic()
	rt.Topic = "several"
	rp := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
	rp.Partition, rp.CurrentLeaderEpoch, rp.LeaderEpoch = 1, -1, 0
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	b.put("offset for leader epoch", 4, req)
}

func (b *clusterBroker) withoutTheThird() {
	every := map[string][]int32{"several": {0, 1, 2}, "single": {0}}
	b.describe()
	for kind := int8(0); kind < 2; kind++ {
		b.elect(2, kind, every, "several", "single")
		b.elect(2, kind, every)
	}
	b.reassign(1, "several", 0, []int32{2, 3}, false)
	b.reassign(1, "several", 0, []int32{2, 3}, true) // waits for 3 to be in sync
	b.reassignments()
	b.reassign(1, "several", 0, []int32{1}, false)
	b.reassign(1, "several", 0, []int32{3, 2}, false)
	b.reassign(1, "single", 0, []int32{1}, true)
	b.reassignments()
	b.reassignments("single", "several")
	b.settle()
	b.describe()
	b.reassign(1, "several", 0, nil, true)
	b.reassign(1, "several", 0, nil, true)
	b.reassign(1, "single", 0, nil, true)
	b.reassignments()
	b.create("fenced", [][]int32{{3}})
	b.create("more", [][]int32{{3, 1}})
	b.unregister(3)
	b.settle()
	b.describeBrokers()
}
