package server

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/catalog"
)

// TestChangesThatFail asks for changes while proposals fail, and compares the codes with what clients make of them: NOT_CONTROLLER is asked
// again by itself, REQUEST_TIMED_OUT is told to the user.
func TestChangesThatFail(t *testing.T) {
	f := newFakeCluster(map[int32]string{1: "", 2: ""})
	_, addr := startServerIn(t, f, nil)
	f.place(t, "there", []int32{2, 1})
	f.do(t, catalog.Reassign{Partitions: []catalog.Reassignment{{Topic: f.Image().Topic("there").ID, Replicas: []int32{1, 2}}}})
	c := dialRaw(t, addr)
	requests := map[string]func() int16{
		"create topics": func() int16 {
			req := kmsg.NewPtrCreateTopicsRequest()
			rt := kmsg.NewCreateTopicsRequestTopic()
			rt.Topic, rt.NumPartitions, rt.ReplicationFactor = "new", 1, 1
			req.Topics, req.Version = append(req.Topics, rt), 7
			return c.ask(req).(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode
		},
		"create partitions": func() int16 {
			req := kmsg.NewPtrCreatePartitionsRequest()
			rt := kmsg.NewCreatePartitionsRequestTopic()
			rt.Topic, rt.Count = "there", 2
			req.Topics, req.Version, req.TimeoutMillis = append(req.Topics, rt), 3, 5000
			return c.ask(req).(*kmsg.CreatePartitionsResponse).Topics[0].ErrorCode
		},
		"delete topics": func() int16 {
			req := kmsg.NewPtrDeleteTopicsRequest()
			req.TopicNames, req.Version, req.TimeoutMillis = []string{"there"}, 4, 5000
			return c.ask(req).(*kmsg.DeleteTopicsResponse).Topics[0].ErrorCode
		},
		"alter configs": func() int16 {
			req := kmsg.NewPtrIncrementalAlterConfigsRequest()
			rr := kmsg.NewIncrementalAlterConfigsRequestResource()
			rr.ResourceType, rr.ResourceName = kmsg.ConfigResourceTypeTopic, "there"
			rc := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
			rc.Name, rc.Value = "retention.ms", kmsg.StringPtr("5")
			rr.Configs, req.Version = append(rr.Configs, rc), 1
			req.Resources = append(req.Resources, rr)
			return c.ask(req).(*kmsg.IncrementalAlterConfigsResponse).Resources[0].ErrorCode
		},
		"elect leaders": func() int16 {
			req := kmsg.NewPtrElectLeadersRequest()
			rt := kmsg.NewElectLeadersRequestTopic()
			rt.Topic, rt.Partitions = "there", []int32{0}
			req.Topics, req.Version, req.TimeoutMillis = append(req.Topics, rt), 2, 5000
			return c.ask(req).(*kmsg.ElectLeadersResponse).Topics[0].Partitions[0].ErrorCode
		},
		"reassign": func() int16 {
			req := kmsg.NewPtrAlterPartitionAssignmentsRequest()
			rt := kmsg.NewAlterPartitionAssignmentsRequestTopic()
			rp := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
			rp.Replicas = []int32{2, 1}
			rt.Topic, rt.Partitions = "there", append(rt.Partitions, rp)
			req.Topics, req.TimeoutMillis = append(req.Topics, rt), 5000
			return c.ask(req).(*kmsg.AlterPartitionAssignmentsResponse).Topics[0].Partitions[0].ErrorCode
		},
		"update features": func() int16 {
			req := kmsg.NewPtrUpdateFeaturesRequest()
			u := kmsg.NewUpdateFeaturesRequestFeatureUpdate()
			u.Feature, u.MaxVersionLevel, u.UpgradeType = catalog.FeatureELR, 1, 1
			req.FeatureUpdates, req.Version, req.TimeoutMillis = append(req.FeatureUpdates, u), 2, 5000
			return c.ask(req).(*kmsg.UpdateFeaturesResponse).ErrorCode
		},
		"unregister": func() int16 {
			req := kmsg.NewPtrUnregisterBrokerRequest()
			req.BrokerID = 9
			return c.ask(req).(*kmsg.UnregisterBrokerResponse).ErrorCode
		},
		"metadata that creates": func() int16 {
			req := kmsg.NewPtrMetadataRequest()
			rt := kmsg.NewMetadataRequestTopic()
			rt.Topic = kmsg.StringPtr("new")
			req.Topics, req.AllowAutoTopicCreation, req.Version = append(req.Topics, rt), true, 12
			return c.ask(req).(*kmsg.MetadataResponse).Topics[0].ErrorCode
		},
		"producer id": func() int16 {
			req := kmsg.NewPtrInitProducerIDRequest()
			req.ProducerID, req.ProducerEpoch, req.Version = -1, -1, 4
			return c.ask(req).(*kmsg.InitProducerIDResponse).ErrorCode
		},
		"find coordinator": func() int16 {
			req := kmsg.NewPtrFindCoordinatorRequest()
			req.CoordinatorKeys, req.Version = []string{"g"}, 4
			return c.ask(req).(*kmsg.FindCoordinatorResponse).Coordinators[0].ErrorCode
		},
	}
	late := fmt.Errorf("%w: %w", catalog.ErrUnknownOutcome, errors.Join(context.DeadlineExceeded, catalog.ErrNoLeader))
	for _, test := range []struct {
		err  error
		want int16
		but  map[string]int16
	}{
		{catalog.ErrNoLeader, codeNotController, map[string]int16{
			"metadata that creates": codeLeaderNotAvailable, "producer id": codeCoordinatorLoadInProgress}},
		{errors.Join(context.DeadlineExceeded, catalog.ErrNoLeader), codeNotController, map[string]int16{
			"metadata that creates": codeLeaderNotAvailable, "producer id": codeCoordinatorLoadInProgress}},
		{late, codeRequestTimedOut, map[string]int16{
			"metadata that creates": codeLeaderNotAvailable, "producer id": codeCoordinatorLoadInProgress}},
		{context.DeadlineExceeded, codeRequestTimedOut, map[string]int16{
			"metadata that creates": codeLeaderNotAvailable, "producer id": codeCoordinatorLoadInProgress}},
		{catalog.ErrUnknownCommand, codeUnsupportedVersion, map[string]int16{"producer id": codeCoordinatorLoadInProgress}},
	} {
		f.failing.Store(&test.err)
		for name, ask := range requests {
			want, special := test.but[name]
			switch {
			case name == "find coordinator":
				want = codeCoordinatorNotAvailable
			case !special:
				want = test.want
			}
			if have := ask(); have != want {
				t.Errorf("%s, %v: code %d, want %d", name, test.err, have, want)
			}
		}
	}
}

// TestAnImageThatIsBehind asks one broker for what another has made true a moment ago: what its own image denies is looked up again.
func TestAnImageThatIsBehind(t *testing.T) {
	f := newFakeCluster(map[int32]string{1: "", 2: ""})
	s, _ := startServerIn(t, f, nil)
	topics := s.engine.Topics()
	behind := func(change catalog.Command) {
		old := f.Catalog.Image()
		f.do(t, change)
		f.stale.Store(old)
	}
	one := catalog.NewTopic{Name: "one", ID: catalog.TopicID{1}, Partitions: []catalog.Partition{{Leader: 1, Replicas: []int32{1}, ISR: []int32{1}}}}
	for _, test := range []struct {
		name string
		is   func() error
	}{
		{"more partitions", func() error {
			return topics.CreatePartitions(t.Context(), []engine.MorePartitions{{Topic: "one", Count: 2}}, false)[0].Err
		}},
		{"configs", func() error {
			return topics.AlterConfigs(t.Context(), []engine.ConfigAlteration{{ConfigResource: engine.ConfigResource{Type: catalog.ResourceTopic, Name: "one"}}}, false)[0]
		}},
		{"reassignment", func() error {
			return topics.Reassign(t.Context(), []engine.Reassignment{{PartitionName: engine.PartitionName{Topic: "one"}, Replicas: []int32{1}}}, true)[0]
		}},
		{"election", func() error {
			err := topics.ElectLeaders(t.Context(), catalog.PreferredElection, []engine.PartitionName{{Topic: "one"}})[0]
			if errors.Is(err, catalog.ErrElectionNotNeeded) {
				return nil
			}
			return fmt.Errorf("elected: %w", err)
		}},
		{"deletion", func() error {
			deleted, err := topics.Delete(t.Context(), []engine.TopicRef{{Name: &one.Name}})
			return errors.Join(err, deleted[0].Err)
		}},
	} {
		behind(catalog.CreateTopics{Topics: []catalog.NewTopic{one}})
		if err := test.is(); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if topic := f.Catalog.Image().Topic("one"); topic != nil {
			behind(catalog.DeleteTopics{IDs: []catalog.TopicID{topic.ID}})
			if created := topics.Create(t.Context(), []engine.NewTopic{{Name: "one", Partitions: 1, ReplicationFactor: 1}}, false); created[0].Err != nil {
				t.Errorf("creation: %v", created[0].Err)
			}
			f.do(t, catalog.DeleteTopics{IDs: []catalog.TopicID{f.Catalog.Image().Topic("one").ID}})
		}
	}
	before := f.synced.Load()
	topics.Create(t.Context(), []engine.NewTopic{{Name: "two", Partitions: 1, ReplicationFactor: 1}}, false)
	if f.synced.Load() != before {
		t.Error("nothing was in doubt, and the other nodes were asked")
	}
}

// TestFeaturesThatAreTold asks a node that is alone and one of several.
func TestFeaturesThatAreTold(t *testing.T) {
	ask := func(addr string, v int16) *kmsg.ApiVersionsResponse {
		req := kmsg.NewPtrApiVersionsRequest()
		req.ClientSoftwareName, req.ClientSoftwareVersion, req.Version = "test", "1", v
		return dialRaw(t, addr).ask(req).(*kmsg.ApiVersionsResponse)
	}
	_, alone := startServer(t, nil)
	if r := ask(alone, 4); len(r.SupportedFeatures) > 0 || len(r.FinalizedFeatures) > 0 || r.FinalizedFeaturesEpoch != -1 {
		t.Errorf("alone: %+v", r)
	}
	f := newFakeCluster(map[int32]string{1: "", 2: ""})
	s, addr := startServerIn(t, f, nil)
	version := int64(f.Image().Version())
	r := ask(addr, 4)
	if len(r.SupportedFeatures) != 1 || r.SupportedFeatures[0].Name != catalog.FeatureELR || r.SupportedFeatures[0].MinVersion != 0 || r.SupportedFeatures[0].MaxVersion != 1 {
		t.Errorf("supported: %+v", r.SupportedFeatures)
	}
	if len(r.FinalizedFeatures) != 1 || r.FinalizedFeatures[0].MaxVersionLevel != 1 || r.FinalizedFeatures[0].MinVersionLevel != 1 || r.FinalizedFeaturesEpoch != version {
		t.Errorf("finalised: %+v at %d", r.FinalizedFeatures, r.FinalizedFeaturesEpoch)
	}
	if r := ask(addr, 3); len(r.SupportedFeatures) != 0 || len(r.FinalizedFeatures) != 1 {
		t.Errorf("to an older client: %+v", r)
	}
	update := []engine.FeatureUpdate{{Name: catalog.FeatureELR, Level: 0, Type: engine.SafeDowngrade}}
	if err := s.engine.Topics().UpdateFeatures(t.Context(), update, false); err != nil {
		t.Fatal(err)
	}
	if r := ask(addr, 4); len(r.FinalizedFeatures) != 0 || r.FinalizedFeaturesEpoch != version+1 {
		t.Errorf("after the downgrade: %+v at %d", r.FinalizedFeatures, r.FinalizedFeaturesEpoch)
	}
	// A broker that does not know the feature holds it back.
	f.do(t, catalog.RegisterBroker{Broker: catalog.Broker{ID: 3, Incarnation: [16]byte{3}}})
	err := s.engine.Topics().UpdateFeatures(t.Context(), []engine.FeatureUpdate{{Name: catalog.FeatureELR, Level: 1, Type: engine.Upgrade}}, false)
	want := "Invalid update version 1 for feature eligible.leader.replicas.version. Broker 3 does not support this feature."
	if err == nil || err.Error() != want {
		t.Errorf("have %v, want %s", err, want)
	}
}

func TestDescribeQuorum(t *testing.T) {
	advertised := func(addr string) bool {
		for _, k := range dialRaw(t, addr).ask(kmsg.NewPtrApiVersionsRequest()).(*kmsg.ApiVersionsResponse).ApiKeys {
			if k.ApiKey == describeQuorum.key {
				return true
			}
		}
		return false
	}
	_, alone := startServer(t, nil)
	if advertised(alone) {
		t.Error("a node that is alone offers it")
	}
	heard := time.UnixMilli(5000)
	f := newFakeCluster(map[int32]string{1: "", 2: ""})
	f.quorum = &engine.Quorum{Leader: 2, Term: 7, HighWatermark: 90, Members: []engine.QuorumMember{
		{ID: 2, Voter: true, LogEnd: 91}, {ID: 1, Voter: true, LogEnd: 90, Heard: heard, CaughtUp: heard.Add(-time.Second)}, {ID: 3, LogEnd: -1},
	}}
	_, addr := startServerIn(t, f, nil)
	if !advertised(addr) {
		t.Error("one of several does not offer it")
	}
	me, _ := f.Image().Broker(1)
	me.Peer = "[::1]:9192"
	f.do(t, catalog.RegisterBroker{Broker: me})
	ask := func() *kmsg.DescribeQuorumResponse {
		req := kmsg.NewPtrDescribeQuorumRequest()
		req.Version = 2
		for _, name := range []string{engine.MetadataTopic, "other"} {
			rt := kmsg.NewDescribeQuorumRequestTopic()
			rt.Topic, rt.Partitions = name, []kmsg.DescribeQuorumRequestTopicPartition{{Partition: 0}}
			req.Topics = append(req.Topics, rt)
		}
		return dialRaw(t, addr).ask(req).(*kmsg.DescribeQuorumResponse)
	}
	r := ask()
	p := r.Topics[0].Partitions[0]
	if p.ErrorCode != 0 || p.LeaderID != 2 || p.LeaderEpoch != 7 || p.HighWatermark != 90 || len(p.CurrentVoters) != 2 || len(p.Observers) != 1 {
		t.Fatalf("%+v", p)
	}
	if v := p.CurrentVoters[0]; v.ReplicaID != 2 || v.LogEndOffset != 91 || v.LastFetchTimestamp < likeTime || v.LastCaughtUpTimestamp < likeTime {
		t.Errorf("the leader: %+v", v)
	}
	if v := p.CurrentVoters[1]; v.ReplicaID != 1 || v.LogEndOffset != 90 || v.LastFetchTimestamp != 5000 || v.LastCaughtUpTimestamp != 4000 {
		t.Errorf("the other: %+v", v)
	}
	if v := p.Observers[0]; v.ReplicaID != 3 || v.LogEndOffset != -1 || v.LastFetchTimestamp != -1 {
		t.Errorf("the one without a vote: %+v", v)
	}
	if p := r.Topics[1].Partitions[0]; p.ErrorCode != codeUnknownTopicOrPartition {
		t.Errorf("another topic: %+v", p)
	}
	if len(r.Nodes) != 1 || r.Nodes[0].NodeID != 1 || r.Nodes[0].Listeners[0].Host != "::1" || r.Nodes[0].Listeners[0].Port != 9192 {
		t.Errorf("nodes: %+v", r.Nodes)
	}
	f.failing.Store(&catalog.ErrNoLeader)
	if r := ask(); r.ErrorCode != codeNotController {
		t.Errorf("without a leader: %+v", r)
	}
}

// TestTheControllerIsNamed: clients send changes to the node that decides about them, while it can be reached.
func TestTheControllerIsNamed(t *testing.T) {
	f := newFakeCluster(map[int32]string{1: "", 2: ""})
	_, addr := startServerIn(t, f, nil)
	named := func() [2]int32 {
		c := dialRaw(t, addr)
		meta, cluster := kmsg.NewPtrMetadataRequest(), kmsg.NewPtrDescribeClusterRequest()
		meta.Version = 1
		return [2]int32{c.ask(meta).(*kmsg.MetadataResponse).ControllerID, c.ask(cluster).(*kmsg.DescribeClusterResponse).ControllerID}
	}
	if have := named(); have != [2]int32{2, 2} {
		t.Errorf("named: %v", have)
	}
	f.fence(t, 2)
	if have := named(); have != [2]int32{1, 1} {
		t.Errorf("named when it is fenced: %v", have)
	}
}
