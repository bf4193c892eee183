package server

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

var recordGroups = flag.Bool("record-groups", false, "write the answers of the Kafka at MILLRACE_KAFKA, which must be empty, to testdata")

const recordedGroups = "testdata/groups-kafka-4.3.1.txt"

// TestGroupsLikeKafka asks this broker, in all versions, what Apache Kafka 4.3.1 was asked about groups, and compares
// the answers field by field. Only the order of groups in one answer may differ: Kafka's is that of a hash table.
func TestGroupsLikeKafka(t *testing.T) {
	if *recordGroups {
		told := askAboutGroups(t, os.Getenv("MILLRACE_KAFKA"))
		if err := os.WriteFile(recordedGroups, []byte(strings.Join(told, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	recorded, err := os.ReadFile(recordedGroups)
	if err != nil {
		t.Fatal(err)
	}
	theirs := strings.Split(strings.TrimSpace(string(recorded)), "\n")
	_, addr := startServer(t, nil, "auto.create.topics.enable", "false")
	ours := askAboutGroups(t, addr)
	if len(ours) != len(theirs) {
		t.Errorf("%d answers, Kafka gave %d", len(ours), len(theirs))
	}
	for i := range min(len(ours), len(theirs)) {
		if ours[i] != theirs[i] {
			t.Errorf("Kafka %s\nhere  %s", theirs[i], ours[i])
		}
	}
}

// groupAsker asks one broker, and tells the answers without what no two brokers have in common.
type groupAsker struct {
	*rawClient
	topic [16]byte
	port  string
	ids   map[string]string // members' ids are drawn at random: the n-th is called uuid n
	told  []string
}

var (
	uuids    = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	topicIDs = regexp.MustCompile(`"TopicID":\[[0-9,]*[1-9][0-9,]*\]`)
	noTopic  = regexp.MustCompile(`"TopicID":\[[0,]*\]`)
	noise    = regexp.MustCompile(`,?"(Version|ThrottleMillis)":\d+|,?"UnknownTags":\{\}`)
)

func askAboutGroups(t *testing.T, addr string) []string {
	a := &groupAsker{rawClient: dialRaw(t, addr), port: addr[strings.LastIndex(addr, ":")+1:], ids: map[string]string{}}
	a.prepare()
	a.coordinators()
	a.absentGroups()
	a.refusedJoins()
	a.simpleCommits()
	a.listings()
	for v := int16(0); v <= 9; v++ {
		a.life(v)
	}
	for v := int16(5); v <= 9; v++ {
		a.staticMember(v)
	}
	return a.told
}

// do asks in one version and keeps the answer under a name.
func (a *groupAsker) do(name string, req kmsg.Request, version int16) kmsg.Response {
	a.t.Helper()
	req.SetVersion(version)
	resp := a.ask(req)
	switch r := resp.(type) {
	case *kmsg.DescribeGroupsResponse:
		slices.SortFunc(r.Groups, func(x, y kmsg.DescribeGroupsResponseGroup) int { return strings.Compare(x.Group, y.Group) })
	case *kmsg.DeleteGroupsResponse:
		slices.SortFunc(r.Groups, func(x, y kmsg.DeleteGroupsResponseGroup) int { return strings.Compare(x.Group, y.Group) })
	}
	a.tell(fmt.Sprintf("%s v%d", name, version), resp)
	return resp
}

func (a *groupAsker) tell(name string, answer any) {
	b, err := json.Marshal(answer)
	if err != nil {
		a.t.Fatal(err)
	}
	text := uuids.ReplaceAllStringFunc(string(b), func(id string) string {
		if a.ids[id] == "" {
			a.ids[id] = fmt.Sprint("uuid", len(a.ids))
		}
		return a.ids[id]
	})
	text = noTopic.ReplaceAllString(topicIDs.ReplaceAllString(text, `"TopicID":"id"`), `"TopicID":""`)
	text = strings.ReplaceAll(noise.ReplaceAllString(text, ""), ":"+a.port, ":0")
	a.told = append(a.told, name+" "+strings.ReplaceAll(text, "{,", "{"))
}

func (a *groupAsker) prepare() {
	create := kmsg.NewPtrCreateTopicsRequest()
	create.SetVersion(7)
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = "pt", 2, 1
	create.Topics, create.TimeoutMillis = append(create.Topics, topic), 5000
	a.topic = a.ask(create).(*kmsg.CreateTopicsResponse).Topics[0].TopicID
	for range 100 { // Kafka makes its topic in the background, and loads its partitions one by one
		if a.hasCoordinators() && a.knowsTopic() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	a.t.Fatal("no coordinator")
}

func (a *groupAsker) hasCoordinators() bool {
	if a.ask(kmsg.NewPtrFindCoordinatorRequest()).(*kmsg.FindCoordinatorResponse).ErrorCode != 0 {
		return false
	}
	for i := range 400 { // enough names to meet each of the 50 partitions
		req := kmsg.NewPtrOffsetFetchRequest()
		req.SetVersion(5)
		req.Group = fmt.Sprint("group ", i)
		if a.ask(req).(*kmsg.OffsetFetchResponse).ErrorCode != 0 {
			return false
		}
	}
	return true
}

func (a *groupAsker) knowsTopic() bool {
	req := kmsg.NewPtrMetadataRequest()
	req.SetVersion(12)
	topic := kmsg.NewMetadataRequestTopic()
	topic.Topic = kmsg.StringPtr("pt")
	req.Topics = append(req.Topics, topic)
	return a.ask(req).(*kmsg.MetadataResponse).Topics[0].ErrorCode == 0
}

func (a *groupAsker) coordinators() {
	for v := int16(0); v <= 6; v++ {
		req := kmsg.NewPtrFindCoordinatorRequest()
		req.CoordinatorKey, req.CoordinatorKeys = "g", []string{"g", ""}
		a.do("find", req, v)
	}
}

func (a *groupAsker) absentGroups() {
	for v := int16(1); v <= 10; v++ {
		req := kmsg.NewPtrOffsetFetchRequest()
		req.Group = "absent"
		req.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: "pt", Partitions: []int32{0, 7}}, {Topic: "nope", Partitions: []int32{0}}}
		one, all := kmsg.NewOffsetFetchRequestGroup(), kmsg.NewOffsetFetchRequestGroup()
		one.Group, all.Group = "absent", "absent too"
		one.Topics = []kmsg.OffsetFetchRequestGroupTopic{
			{Topic: "pt", TopicID: a.topic, Partitions: []int32{0, 7}}, {Topic: "nope", TopicID: [16]byte{1}, Partitions: []int32{0}}}
		req.Groups = []kmsg.OffsetFetchRequestGroup{one, all}
		a.do("fetch", req, v)
		if v >= 2 {
			req.Topics = nil
			a.do("fetch all", req, v)
		}
		req.RequireStable = true
		a.do("fetch stable", req, v)
	}
	for v := int16(0); v <= 6; v++ {
		req := kmsg.NewPtrDescribeGroupsRequest()
		req.Groups = []string{"absent", ""}
		a.do("describe", req, v)
		req.IncludeAuthorizedOperations = true
		a.do("describe operations", req, v)
	}
	for _, group := range []string{"absent", ""} {
		for v := int16(0); v <= 4; v++ {
			req := kmsg.NewPtrHeartbeatRequest()
			req.Group, req.MemberID = group, "m"
			a.do("heartbeat", req, v)
		}
		for v := int16(0); v <= 5; v++ {
			leave := kmsg.NewPtrLeaveGroupRequest()
			leave.Group, leave.MemberID = group, "m"
			leave.Members = []kmsg.LeaveGroupRequestMember{{MemberID: "m"}, {MemberID: "n", InstanceID: kmsg.StringPtr("i")}}
			a.do("leave", leave, v)
			sync := kmsg.NewPtrSyncGroupRequest()
			sync.Group, sync.MemberID = group, "m"
			a.do("sync without protocol", sync, v)
			sync.ProtocolType, sync.Protocol = kmsg.StringPtr("consumer"), kmsg.StringPtr("range")
			a.do("sync", sync, v)
		}
		a.do("delete offsets", deleteOffsetsOf(group), 0)
	}
	for v := int16(0); v <= 2; v++ {
		req := kmsg.NewPtrDeleteGroupsRequest()
		req.Groups = []string{"absent", "absent", ""}
		a.do("delete", req, v)
	}
}

func deleteOffsetsOf(group string) *kmsg.OffsetDeleteRequest {
	req := kmsg.NewPtrOffsetDeleteRequest()
	req.Group = group
	req.Topics = []kmsg.OffsetDeleteRequestTopic{
		{Topic: "pt", Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: 0}, {Partition: 7}}},
		{Topic: "nope", Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: 0}}},
	}
	return req
}

func joinOf(group, member string) *kmsg.JoinGroupRequest {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Group, req.MemberID, req.ProtocolType = group, member, "consumer"
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = 10000, 10000
	req.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: []byte{0, 0, 0, 0, 0, 1, 0, 2, 'p', 't', 255, 255, 255, 255}}}
	return req
}

func (a *groupAsker) refusedJoins() {
	for v := int16(0); v <= 9; v++ {
		a.do("join with an unknown id", joinOf("absent", "nobody"), v)
		a.do("join no group", joinOf("", "m"), v)
		req := joinOf("absent", "m")
		req.SessionTimeoutMillis = 5
		a.do("join with a short session", req, v)
		req = joinOf(fmt.Sprint("no protocols ", v), "")
		req.Protocols = nil
		a.do("join without protocols", req, v)
		req = joinOf(fmt.Sprint("no type ", v), "")
		req.ProtocolType = ""
		a.do("join without a type", req, v)
		if v >= 4 {
			a.do("join without an id", joinOf(fmt.Sprint("no id ", v), ""), v)
		}
	}
}

// commitOf commits what exists, what does not, and what is too large.
func (a *groupAsker) commitOf(group, member string, generation int32) *kmsg.OffsetCommitRequest {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.MemberID, req.Generation = group, member, generation
	partition := func(n int32, metadata *string) kmsg.OffsetCommitRequestTopicPartition {
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset, p.Metadata = n, 5, metadata
		return p
	}
	long := strings.Repeat("x", 4097)
	req.Topics = []kmsg.OffsetCommitRequestTopic{
		{Topic: "pt", TopicID: a.topic, Partitions: []kmsg.OffsetCommitRequestTopicPartition{
			partition(0, kmsg.StringPtr("meta")), partition(7, nil), partition(1, &long)}},
		{Topic: "nope", TopicID: [16]byte{1}, Partitions: []kmsg.OffsetCommitRequestTopicPartition{partition(0, nil)}},
	}
	return req
}

func (a *groupAsker) simpleCommits() {
	for v := int16(2); v <= 10; v++ {
		group := fmt.Sprint("simple ", v)
		a.do("commit", a.commitOf(group, "", -1), v)
		a.do("commit of a generation that is not", a.commitOf("absent", "m", 3), v)
		req := a.commitOf("absent", "m", 3)
		req.Topics = req.Topics[1:]
		a.do("commit of nothing that exists", req, v)
		req.Topics = nil
		a.do("commit of nothing", req, v)
		a.do("commit by a member that is not", a.commitOf(group, "m", -1), v)
		a.do("commit of generation 0", a.commitOf(group, "", 0), v)
		fetch := kmsg.NewPtrOffsetFetchRequest()
		fetch.Group = group
		all, one := kmsg.NewOffsetFetchRequestGroup(), kmsg.NewOffsetFetchRequestGroup()
		all.Group, one.Group = group, group
		one.Topics = []kmsg.OffsetFetchRequestGroupTopic{{Topic: "pt", TopicID: a.topic, Partitions: []int32{1, 0}}}
		fetch.Groups = []kmsg.OffsetFetchRequestGroup{all, one}
		a.do("fetch of what was committed", fetch, v)
	}
	a.do("delete offsets", deleteOffsetsOf("simple 2"), 0)
	a.do("delete offsets again", deleteOffsetsOf("simple 2"), 0)
}

func (a *groupAsker) listings() {
	list := func(v int16, states, types []string) {
		req := kmsg.NewPtrListGroupsRequest()
		req.SetVersion(v)
		req.StatesFilter, req.TypesFilter = states, types
		resp := a.ask(req).(*kmsg.ListGroupsResponse)
		groups := map[string]string{}
		for _, g := range resp.Groups {
			groups[g.Group] = fmt.Sprintf("%s/%s/%s", g.ProtocolType, g.GroupState, g.GroupType)
		}
		var lines []string
		for _, id := range slices.Sorted(maps.Keys(groups)) {
			lines = append(lines, id+" "+groups[id])
		}
		a.tell(fmt.Sprintf("list v%d %q %q %d", v, states, types, resp.ErrorCode), lines)
	}
	for v := int16(0); v <= 5; v++ {
		list(v, nil, nil)
	}
	for _, state := range []string{"eMPty", "Stable", "bogus"} {
		list(5, []string{state}, nil)
	}
	for _, kind := range []string{"Consumer", "cLASSic", "bogus"} {
		list(5, nil, []string{kind})
	}
	for v := int16(0); v <= 2; v++ {
		req := kmsg.NewPtrDeleteGroupsRequest()
		req.Groups = []string{fmt.Sprint("simple ", v+2), fmt.Sprint("no type ", v)}
		a.do("delete", req, v)
	}
}

// life is that of a group of one member, with all that can be asked about it on the way.
func (a *groupAsker) life(v int16) {
	group := fmt.Sprint("life ", v)
	member := ""
	if v >= 4 {
		member = a.do("join", joinOf(group, ""), v).(*kmsg.JoinGroupResponse).MemberID
	}
	joined := a.do("join", joinOf(group, member), v).(*kmsg.JoinGroupResponse)
	member = joined.MemberID
	describe, remove := kmsg.NewPtrDescribeGroupsRequest(), kmsg.NewPtrDeleteGroupsRequest()
	describe.Groups, remove.Groups = []string{group}, []string{group}
	a.do("describe", describe, min(v, 6))
	a.do("commit before the assignment", a.commitOf(group, member, joined.Generation), max(v, 2))

	sync := kmsg.NewPtrSyncGroupRequest()
	sync.Group, sync.MemberID, sync.Generation = group, member, joined.Generation+7
	sync.ProtocolType, sync.Protocol = kmsg.StringPtr("consumer"), kmsg.StringPtr("sticky")
	a.do("sync of another generation", sync, min(v, 5))
	sync.Generation = joined.Generation
	if v >= 5 {
		a.do("sync of another protocol", sync, min(v, 5))
	}
	sync.Protocol = kmsg.StringPtr("range")
	sync.GroupAssignment = []kmsg.SyncGroupRequestGroupAssignment{{MemberID: member, MemberAssignment: []byte("mine")}}
	a.do("sync", sync, min(v, 5))
	a.do("describe", describe, min(v, 6))

	beat := kmsg.NewPtrHeartbeatRequest()
	beat.Group, beat.MemberID, beat.Generation = group, member, joined.Generation
	a.do("heartbeat", beat, min(v, 4))
	beat.Generation++
	a.do("heartbeat of another generation", beat, min(v, 4))
	beat.InstanceID = kmsg.StringPtr("i")
	a.do("heartbeat of an instance", beat, min(v, 4))
	a.do("commit", a.commitOf(group, member, joined.Generation), max(v, 2))
	a.do("commit of another generation", a.commitOf(group, member, joined.Generation+1), max(v, 2))
	a.do("commit of another member", a.commitOf(group, "x", joined.Generation), max(v, 2))
	a.do("commit of nobody", a.commitOf(group, "", -1), max(v, 2))
	a.do("delete offsets", deleteOffsetsOf(group), 0)
	a.do("delete", remove, min(v, 2))

	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Group, leave.MemberID = group, member
	leave.Members = []kmsg.LeaveGroupRequestMember{{MemberID: "x"}, {MemberID: member}, {InstanceID: kmsg.StringPtr("no")}}
	a.do("leave", leave, min(v, 5))
	a.do("describe", describe, min(v, 6))
	a.do("delete offsets", deleteOffsetsOf(group), 0)
	a.do("delete", remove, min(v, 2))
}

// staticMember is replaced by another with its instance id.
func (a *groupAsker) staticMember(v int16) {
	group, instance := fmt.Sprint("static ", v), kmsg.StringPtr("i")
	join := joinOf(group, "")
	join.InstanceID = instance
	first := a.do("join", join, v).(*kmsg.JoinGroupResponse)
	sync := kmsg.NewPtrSyncGroupRequest()
	sync.Group, sync.MemberID, sync.InstanceID, sync.Generation = group, first.MemberID, instance, first.Generation
	sync.ProtocolType, sync.Protocol = kmsg.StringPtr("consumer"), kmsg.StringPtr("range")
	sync.GroupAssignment = []kmsg.SyncGroupRequestGroupAssignment{{MemberID: first.MemberID, MemberAssignment: []byte("mine")}}
	a.do("sync", sync, 5)
	second := a.do("join again", join, v).(*kmsg.JoinGroupResponse)
	a.do("sync of the old", sync, 5)
	sync.MemberID, sync.GroupAssignment = second.MemberID, nil
	a.do("sync of the new", sync, 5)

	beat := kmsg.NewPtrHeartbeatRequest()
	beat.Group, beat.MemberID, beat.InstanceID, beat.Generation = group, first.MemberID, instance, first.Generation
	a.do("heartbeat of the old", beat, 4)
	commit := a.commitOf(group, first.MemberID, first.Generation)
	commit.InstanceID = instance
	a.do("commit of the old", commit, max(v, 7))
	join.MemberID = first.MemberID
	a.do("join of the old", join, v)
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Group = group
	leave.Members = []kmsg.LeaveGroupRequestMember{{MemberID: first.MemberID, InstanceID: instance}, {InstanceID: instance}}
	a.do("leave", leave, 5)
}
