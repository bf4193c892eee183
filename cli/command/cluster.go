package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/urfave/cli/v2"
)

func clusterCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "cluster",
		Usage: "look at the nodes of a cluster, and spread what they hold",
		Description: `Examples:
  millrace cluster status
  millrace cluster voters
  millrace cluster rebalance --dry-run
  millrace cluster rebalance --throttle 50000000
  millrace cluster drain 3

They work with any Kafka cluster.`,
		Subcommands: []*cli.Command{clusterStatus(e), clusterVoters(e), clusterRebalance(e), clusterDrain(e)},
	}
}

// clusterClient asks brokers; each question has --timeout for itself.
type clusterClient struct {
	cl      *kgo.Client
	adm     *kadm.Client
	timeout time.Duration
}

func (e *env) cluster(c *cli.Context) (*clusterClient, func(), error) {
	cl, err := e.connect(c)
	if err != nil {
		return nil, nil, err
	}
	k := &clusterClient{cl, kadm.NewClient(cl), c.Duration("timeout")}
	k.adm.SetTimeoutMillis(int32(min(k.timeout.Milliseconds(), 1<<30)))
	return k, cl.Close, nil
}

// ask bounds one question.
func ask[T any](ctx context.Context, k *clusterClient, question func(context.Context) (T, error)) (T, error) {
	bounded, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	answer, err := question(bounded)
	if err != nil && ctx.Err() != nil {
		err = ctx.Err() // interrupted, however the client puts it
	}
	return answer, err
}

// clusterView is what the brokers tell of the cluster at one moment.
type clusterView struct {
	ID        string
	Metadata  metadataView
	Brokers   []brokerView
	Topics    kadm.TopicDetails // internal ones too
	Reassigns map[string]map[int32]reassignment
}

// metadataView says who leads the metadata.
type metadataView struct {
	Leader int32   `json:"leader"`          // -1: nobody
	Epoch  int32   `json:"epoch"`           // -1: not told
	Voters []int32 `json:"voters"`          // empty: not told
	Source string  `json:"told_by_request"` // DescribeQuorum, or else Metadata, which names a controller only

	Problem string `json:"problem,omitempty"` // why nobody tells, though brokers know of the question
}

type brokerView struct {
	Node      int32  `json:"node"`
	Rack      string `json:"rack,omitempty"`
	Address   string `json:"address,omitempty"`
	State     string `json:"state"` // active; silent: active, and does not answer; fenced; absent: it is to hold replicas, and nobody knows it
	Leads     int    `json:"leads"`
	Replicas  int    `json:"replicas"`
	OutOfSync int    `json:"out_of_sync"`
}

// reassignment is a move under way.
type reassignment struct{ Adding, Removing []int32 }

// look asks for everything that is needed to judge the cluster.
func (k *clusterClient) look(ctx context.Context) (*clusterView, error) {
	meta, err := ask(ctx, k, func(ctx context.Context) (kadm.Metadata, error) { return k.adm.Metadata(ctx) })
	if err != nil {
		return nil, err
	}
	v := &clusterView{ID: meta.Cluster, Topics: meta.Topics}
	if v.Brokers, err = k.brokers(ctx, meta); err != nil {
		return nil, err
	}
	if v.Reassigns, err = k.reassignments(ctx); err != nil {
		return nil, fmt.Errorf("listing reassignments: %w", err)
	}
	if v.Metadata, err = k.quorum(ctx); err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		v.Metadata = metadataView{Leader: meta.Controller, Epoch: -1, Voters: []int32{}, Source: "Metadata"}
		if !unsupported(err) {
			v.Metadata.Leader, v.Metadata.Problem = -1, plainCause(err) // what the brokers believe of each other may be old
		}
	}
	v.countReplicas()
	return v, nil
}

// brokers asks for those that are fenced too, which the metadata leaves out.
func (k *clusterClient) brokers(ctx context.Context, meta kadm.Metadata) ([]brokerView, error) {
	req := kmsg.NewPtrDescribeClusterRequest()
	req.IncludeFencedBrokers = true
	resp, err := ask(ctx, k, func(ctx context.Context) (*kmsg.DescribeClusterResponse, error) { return req.RequestWith(ctx, k.cl) })
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	var all []brokerView
	add := func(node int32, host string, port int32, rack *string, state string) {
		b := brokerView{Node: node, Address: net.JoinHostPort(host, strconv.Itoa(int(port))), State: state}
		if rack != nil {
			b.Rack = *rack
		}
		all = append(all, b)
	}
	if err == nil && kerr.ErrorForCode(resp.ErrorCode) == nil {
		for _, b := range resp.Brokers {
			add(b.NodeID, b.Host, b.Port, b.Rack, map[bool]string{true: "fenced", false: "active"}[b.IsFenced])
		}
	} else { // a broker from before Kafka 2.8
		for _, b := range meta.Brokers {
			add(b.NodeID, b.Host, b.Port, b.Rack, "active")
		}
	}
	slices.SortFunc(all, func(a, b brokerView) int { return cmp.Compare(a.Node, b.Node) })
	k.ping(ctx, all)
	return all, ctx.Err()
}

// ping asks each broker that is said to be active whether it is there: without a majority for the metadata nobody can say that it is not.
func (k *clusterClient) ping(ctx context.Context, all []brokerView) {
	var wg sync.WaitGroup
	for i := range all {
		if all[i].State != "active" {
			continue
		}
		wg.Go(func() { // ends within --timeout
			_, err := ask(ctx, k, func(ctx context.Context) (kmsg.Response, error) {
				return k.cl.Broker(int(all[i].Node)).Request(ctx, kmsg.NewPtrApiVersionsRequest())
			})
			if err != nil {
				all[i].State = "silent"
			}
		})
	}
	wg.Wait()
}

// unsupported tells whether a broker does not know a request. The client's own errors for that have no names.
func unsupported(err error) bool {
	text := err.Error()
	return errors.Is(err, kerr.UnsupportedVersion) || errors.Is(err, kerr.UnknownTopicOrPartition) || strings.Contains(text, "too old") || strings.Contains(text, "request key is unknown")
}

func (k *clusterClient) reassignments(ctx context.Context) (map[string]map[int32]reassignment, error) {
	req := kmsg.NewPtrListPartitionReassignmentsRequest()
	req.TimeoutMillis = int32(min(k.timeout.Milliseconds(), 1<<30))
	resp, err := ask(ctx, k, func(ctx context.Context) (*kmsg.ListPartitionReassignmentsResponse, error) {
		return req.RequestWith(ctx, k.cl)
	})
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return nil, err
	}
	all := map[string]map[int32]reassignment{}
	for _, t := range resp.Topics {
		all[t.Topic] = map[int32]reassignment{}
		for _, p := range t.Partitions {
			all[t.Topic][p.Partition] = reassignment{p.AddingReplicas, p.RemovingReplicas}
		}
	}
	return all, nil
}

// describeQuorum asks for the voters of the metadata, and how far each of them is.
func (k *clusterClient) describeQuorum(ctx context.Context) (*kmsg.DescribeQuorumResponse, *kmsg.DescribeQuorumResponseTopicPartition, error) {
	req := kmsg.NewPtrDescribeQuorumRequest()
	topic := kmsg.NewDescribeQuorumRequestTopic()
	topic.Topic = "__cluster_metadata"
	topic.Partitions = append(topic.Partitions, kmsg.NewDescribeQuorumRequestTopicPartition())
	req.Topics = append(req.Topics, topic)
	resp, err := ask(ctx, k, func(ctx context.Context) (*kmsg.DescribeQuorumResponse, error) { return req.RequestWith(ctx, k.cl) })
	if err != nil {
		return nil, nil, err
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, nil, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return nil, nil, errors.New("the answer about the quorum is empty")
	}
	p := &resp.Topics[0].Partitions[0]
	return resp, p, kerr.ErrorForCode(p.ErrorCode)
}

func (k *clusterClient) quorum(ctx context.Context) (metadataView, error) {
	_, p, err := k.describeQuorum(ctx)
	if err != nil {
		return metadataView{}, err
	}
	m := metadataView{Leader: p.LeaderID, Epoch: p.LeaderEpoch, Voters: []int32{}, Source: "DescribeQuorum"}
	for _, v := range p.CurrentVoters {
		m.Voters = append(m.Voters, v.ReplicaID)
	}
	slices.Sort(m.Voters)
	return m, nil
}

// countReplicas counts what each broker leads and holds, and adds brokers that nobody knows but for replicas that they should hold.
func (v *clusterView) countReplicas() {
	at := map[int32]*brokerView{}
	for i := range v.Brokers {
		at[v.Brokers[i].Node] = &v.Brokers[i]
	}
	absent := map[int32]*brokerView{}
	of := func(node int32) *brokerView {
		if b := at[node]; b != nil {
			return b
		}
		if absent[node] == nil {
			absent[node] = &brokerView{Node: node, State: "absent"}
		}
		return absent[node]
	}
	for _, t := range v.Topics {
		for _, p := range t.Partitions {
			if p.Leader >= 0 {
				of(p.Leader).Leads++
			}
			for _, id := range p.Replicas {
				b := of(id)
				b.Replicas++
				if !slices.Contains(p.ISR, id) && !slices.Contains(v.Reassigns[t.Topic][p.Partition].Adding, id) {
					b.OutOfSync++
				}
			}
		}
	}
	for _, b := range absent {
		v.Brokers = append(v.Brokers, *b)
	}
	slices.SortFunc(v.Brokers, func(a, b brokerView) int { return cmp.Compare(a.Node, b.Node) })
}

// moving counts partitions that are being reassigned.
func (v *clusterView) moving() int {
	n := 0
	for _, partitions := range v.Reassigns {
		n += len(partitions)
	}
	return n
}
