package server

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

var recordAdmin = flag.Bool("record-admin", false, "write the answers of the Kafka at MILLRACE_KAFKA, which must be empty, to testdata")

const recordedAdmin = "testdata/admin-kafka-4.3.1.txt"

// TestAdminAnswersAreKafkas compares the answers to likeKafkaAdmin with those that a Kafka gave.
func TestAdminAnswersAreKafkas(t *testing.T) {
	if *recordAdmin {
		told := askAdmin(t, os.Getenv("MILLRACE_KAFKA"))
		if err := os.WriteFile(recordedAdmin, []byte(strings.Join(told, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	recorded, err := os.ReadFile(recordedAdmin)
	if err != nil {
		t.Fatal(err)
	}
	theirs := strings.Split(strings.TrimSpace(string(recorded)), "\n")
	_, addr := startServer(t, nil, "auto.create.topics.enable", "false", "num.partitions", "1")
	ours := askAdmin(t, addr)
	if len(ours) != len(theirs) {
		t.Fatalf("%d answers, %d are recorded", len(ours), len(theirs))
	}
	for i := range ours {
		if ours[i] != theirs[i] {
			t.Errorf("\nKafka %s\nhere  %s", theirs[i], ours[i])
		}
	}
}

// askAdmin returns one line per question: its name, a tab and the answer.
func askAdmin(t *testing.T, addr string) (told []string) {
	b := &broker{rawClient: dialRaw(t, addr)}
	b.prepare(t)
	likeKafkaAdmin(func(name string, f func(*broker) kmsg.Request) {
		told = append(told, name+"\t"+b.answer(addr, f))
	})
	return told
}

// likeKafkaAdmin are the questions that consoles and admin clients ask of a node
// that has no security, no quotas, no transactions and nothing to reassign.
func likeKafkaAdmin(add func(name string, f func(*broker) kmsg.Request)) {
	in := func(v int16, req kmsg.Request) kmsg.Request {
		req.SetVersion(v)
		return req
	}
	for v := saslHandshake.min; v <= saslHandshake.max; v++ {
		add(fmt.Sprintf("sasl handshake v%d", v), func(*broker) kmsg.Request {
			req := kmsg.NewPtrSASLHandshakeRequest()
			req.Mechanism = "PLAIN"
			return in(v, req)
		})
	}
	for v := saslAuthenticate.min; v <= saslAuthenticate.max; v++ {
		add(fmt.Sprintf("sasl authenticate v%d", v), func(*broker) kmsg.Request {
			req := kmsg.NewPtrSASLAuthenticateRequest()
			req.SASLAuthBytes = []byte("\x00me\x00secret")
			return in(v, req)
		})
	}
	for v := describeACLs.min; v <= describeACLs.max; v++ {
		add(fmt.Sprintf("describe acls v%d", v), func(*broker) kmsg.Request {
			req := kmsg.NewPtrDescribeACLsRequest()
			req.ResourceType, req.ResourcePatternType, req.Operation, req.PermissionType = 1, 1, 1, 1
			return in(v, req)
		})
		add(fmt.Sprintf("create acls v%d", v), func(*broker) kmsg.Request {
			req := kmsg.NewPtrCreateACLsRequest()
			for range 2 {
				c := kmsg.NewCreateACLsRequestCreation()
				c.ResourceType, c.ResourceName, c.ResourcePatternType, c.Principal, c.Host, c.Operation, c.PermissionType = 2, likeTopic, 3, "User:me", "*", 3, 3
				req.Creations = append(req.Creations, c)
			}
			return in(v, req)
		})
		add(fmt.Sprintf("delete acls v%d", v), func(*broker) kmsg.Request {
			req := kmsg.NewPtrDeleteACLsRequest()
			f := kmsg.NewDeleteACLsRequestFilter()
			f.ResourceType, f.ResourcePatternType, f.Operation, f.PermissionType = 1, 1, 1, 1
			req.Filters = append(req.Filters, f)
			return in(v, req)
		})
	}
	likeKafkaLeaders(add, in)
	likeKafkaUsers(add, in)
}

func likeKafkaLeaders(add func(string, func(*broker) kmsg.Request), in func(int16, kmsg.Request) kmsg.Request) {
	for v := electLeaders.min; v <= electLeaders.max; v++ {
		for kind := int8(0); kind < 3; kind++ {
			add(fmt.Sprintf("elect leaders v%d of kind %d", v, kind), func(*broker) kmsg.Request {
				req := kmsg.NewPtrElectLeadersRequest()
				req.ElectionType, req.TimeoutMillis = kind, 5000
				for _, name := range []string{likeTopic, likeNowhere} {
					rt := kmsg.NewElectLeadersRequestTopic()
					rt.Topic, rt.Partitions = name, []int32{0, 2, 99, -1}
					req.Topics = append(req.Topics, rt)
				}
				return in(v, req)
			})
		}
		add(fmt.Sprintf("elect leaders v%d of nothing", v), func(*broker) kmsg.Request {
			req := kmsg.NewPtrElectLeadersRequest()
			req.Topics, req.TimeoutMillis = []kmsg.ElectLeadersRequestTopic{}, 5000
			return in(v, req)
		})
		add(fmt.Sprintf("elect leaders v%d of all", v), func(*broker) kmsg.Request {
			req := kmsg.NewPtrElectLeadersRequest()
			req.TimeoutMillis = 5000
			return in(v, req)
		})
	}
	for v := alterPartitionReassignments.min; v <= alterPartitionReassignments.max; v++ {
		for _, replicas := range [][]int32{{1}, {}, nil, {2}, {1, 2}, {1, 1}, {-1}} {
			for _, change := range []bool{true, false} {
				add(fmt.Sprintf("alter partition reassignments v%d to %v, factor may change: %v", v, replicas, change), func(*broker) kmsg.Request {
					req := kmsg.NewPtrAlterPartitionAssignmentsRequest()
					req.TimeoutMillis, req.AllowReplicationFactorChange = 5000, change
					for _, name := range []string{likeTopic, likeNowhere} {
						rt := kmsg.NewAlterPartitionAssignmentsRequestTopic()
						rt.Topic = name
						for _, index := range []int32{0, 99, -1} {
							rp := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
							rp.Partition, rp.Replicas = index, replicas
							rt.Partitions = append(rt.Partitions, rp)
						}
						req.Topics = append(req.Topics, rt)
					}
					return in(v, req)
				})
			}
		}
	}
	for v := alterReplicaLogDirs.min; v <= alterReplicaLogDirs.max; v++ {
		for _, dir := range []string{"", "/nowhere", "relative"} { // "" stands for the directory that there is
			for _, of := range []struct {
				topic     string
				partition int32
			}{{likeTopic, 1}, {likeTopic, 99}, {likeNowhere, 0}, {"bad name", 0}} {
				add(fmt.Sprintf("alter replica log dirs v%d, %s %d to %q", v, of.topic, of.partition, dir), func(b *broker) kmsg.Request {
					rd := kmsg.NewAlterReplicaLogDirsRequestDir()
					if rd.Dir = dir; dir == "" {
						rd.Dir = b.ask(in(1, kmsg.NewPtrDescribeLogDirsRequest())).(*kmsg.DescribeLogDirsResponse).Dirs[0].Dir
					}
					rt := kmsg.NewAlterReplicaLogDirsRequestDirTopic()
					rt.Topic, rt.Partitions = of.topic, []int32{of.partition}
					rd.Topics = append(rd.Topics, rt)
					req := kmsg.NewPtrAlterReplicaLogDirsRequest()
					req.Dirs = append(req.Dirs, rd)
					return in(v, req)
				})
			}
		}
	}
	for _, names := range [][]string{nil, {likeTopic}, {likeNowhere, likeTopic}} {
		add(fmt.Sprintf("list partition reassignments of %v", names), func(*broker) kmsg.Request {
			req := kmsg.NewPtrListPartitionReassignmentsRequest()
			req.TimeoutMillis = 5000
			for _, name := range names {
				rt := kmsg.NewListPartitionReassignmentsRequestTopic()
				rt.Topic, rt.Partitions = name, []int32{0, 99}
				req.Topics = append(req.Topics, rt)
			}
			return req
		})
	}
}

func likeKafkaUsers(add func(string, func(*broker) kmsg.Request), in func(int16, kmsg.Request) kmsg.Request) {
	type component struct {
		entity string
		how    kmsg.QuotasMatchType
		match  *string
	}
	me := kmsg.StringPtr("me")
	for v := describeClientQuotas.min; v <= describeClientQuotas.max; v++ {
		for i, filter := range [][]component{
			{}, {{"user", 2, nil}}, {{"user", 0, me}, {"client-id", 1, nil}}, {{"ip", 2, nil}, {"user", 2, nil}}, {{"user", 2, nil}, {"user", 2, nil}},
			{{"", 2, nil}}, {{"planet", 2, nil}}, {{"user", 0, nil}}, {{"user", 1, me}}, {{"user", 2, me}}, {{"user", 3, nil}}, {{"user", -1, nil}}, {{"ip", 1, nil}},
		} {
			add(fmt.Sprintf("describe client quotas v%d, filter %d", v, i), func(*broker) kmsg.Request {
				req := kmsg.NewPtrDescribeClientQuotasRequest()
				req.Strict = i%2 == 0
				for _, c := range filter {
					rc := kmsg.NewDescribeClientQuotasRequestComponent()
					rc.EntityType, rc.MatchType, rc.Match = c.entity, c.how, c.match
					req.Components = append(req.Components, rc)
				}
				return in(v, req)
			})
		}
	}
	for _, users := range [][]string{nil, {}, {"me"}, {"me", "me"}, {""}} {
		add(fmt.Sprintf("describe user scram credentials of %q, null: %v", users, users == nil), func(*broker) kmsg.Request {
			req := kmsg.NewPtrDescribeUserSCRAMCredentialsRequest()
			if users != nil {
				req.Users = []kmsg.DescribeUserSCRAMCredentialsRequestUser{}
			}
			for _, name := range users {
				ru := kmsg.NewDescribeUserSCRAMCredentialsRequestUser()
				ru.Name = name
				req.Users = append(req.Users, ru)
			}
			return req
		})
	}
	for v := listTransactions.min; v <= listTransactions.max; v++ {
		for _, states := range [][]string{nil, {"Ongoing"}, {"Ongoing", "Sleeping", "Sleeping"}, {"Dead", "PrepareEpochFence", "ongoing"}} {
			add(fmt.Sprintf("list transactions v%d in %v", v, states), func(*broker) kmsg.Request {
				req := kmsg.NewPtrListTransactionsRequest()
				req.StateFilters, req.ProducerIDFilters = states, []int64{7}
				return in(v, req)
			})
		}
		for _, pattern := range []string{"", "a.*", "(", "a(?=b)"} {
			add(fmt.Sprintf("list transactions v%d like %q", v, pattern), func(*broker) kmsg.Request {
				req := kmsg.NewPtrListTransactionsRequest()
				req.TransactionalIDPattern = &pattern
				return in(v, req)
			})
		}
	}
}
