package command

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/urfave/cli/v2"
)

func clusterStatus(e *env) *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "show the brokers, what they lead and hold, and whether all is well",
		Description: `Examples:
  millrace cluster status
  millrace cluster status --output json | jq .partitions
  until millrace cluster status; do sleep 1; done

STATE is active, silent (active for the others, but it did not answer), fenced (others lead what it
led) or absent (it is to hold replicas, and nobody knows it). OUT OF SYNC counts replicas that lag behind their leader; those
that are being added by a reassignment do not count.

Exit codes: 0 all is well, 1 a broker is silent, fenced or absent, a partition has no leader or lacks
a replica, or nobody leads the metadata.`,
		Flags:  clientFlags(outputFlag("table")),
		Action: e.clusterStatus,
	}
}

type statusReport struct {
	Cluster    string         `json:"cluster"`
	Well       bool           `json:"well"`
	Problems   []string       `json:"problems"`
	Metadata   metadataView   `json:"metadata"`
	Brokers    []brokerView   `json:"brokers"`
	Topics     int            `json:"topics"`
	Partitions partitionSums  `json:"partitions"`
	Unwell     []partitionRow `json:"unwell_partitions"`
}

type partitionSums struct {
	Total           int `json:"total"`
	Offline         int `json:"offline"`
	UnderReplicated int `json:"under_replicated"`
	Moving          int `json:"moving"`
	NotPreferred    int `json:"not_led_by_preferred"`
}

// partitionRow is a partition that is not well.
type partitionRow struct {
	Topic     string  `json:"topic"`
	Partition int32   `json:"partition"`
	Leader    int32   `json:"leader"`
	Replicas  []int32 `json:"replicas"`
	ISR       []int32 `json:"isr"`
	Problem   string  `json:"problem"` // offline, under-replicated
}

// askCluster begins a command that takes no argument and asks the cluster; done ends it.
func (e *env) askCluster(c *cli.Context) (k *clusterClient, asJSON bool, done func(), err error) {
	if c.NArg() > 0 {
		return nil, false, nil, usagef(commandPath(c), "takes no argument; what is %q?", c.Args().First())
	}
	if asJSON, err = wantsJSON(c); err != nil {
		return nil, false, nil, err
	}
	k, done, err = e.cluster(c)
	return k, asJSON, done, err
}

func (e *env) clusterStatus(c *cli.Context) error {
	k, asJSON, done, err := e.askCluster(c)
	if err != nil {
		return err
	}
	defer done()
	v, err := k.look(c.Context)
	if err != nil {
		return err
	}
	r := report(v)
	if asJSON {
		err = writeJSON(e.Out, r)
	} else {
		err = e.writeStatus(r)
	}
	if err == nil && !r.Well {
		err = &exitError{ExitFailed, errors.New("not all is well: " + strings.Join(r.Problems, "; "))}
	}
	return err
}

// report judges what was seen.
func report(v *clusterView) statusReport {
	r := statusReport{Cluster: v.ID, Problems: []string{}, Metadata: v.Metadata, Brokers: v.Brokers, Topics: len(v.Topics), Unwell: []partitionRow{}}
	r.Partitions.Moving = v.moving()
	for _, t := range v.Topics.Sorted() {
		for _, p := range t.Partitions.Sorted() {
			r.Partitions.Total++
			row := partitionRow{p.Topic, p.Partition, p.Leader, p.Replicas, p.ISR, ""}
			lacking := slices.ContainsFunc(p.Replicas, func(id int32) bool {
				return !slices.Contains(p.ISR, id) && !slices.Contains(v.Reassigns[p.Topic][p.Partition].Adding, id)
			})
			switch {
			case p.Leader < 0:
				r.Partitions.Offline++
				row.Problem = "offline"
			case lacking:
				r.Partitions.UnderReplicated++
				row.Problem = "under-replicated"
			}
			if row.Problem != "" {
				r.Unwell = append(r.Unwell, row)
			}
			if len(p.Replicas) > 0 && p.Leader >= 0 && p.Leader != p.Replicas[0] {
				r.Partitions.NotPreferred++
			}
		}
	}
	for _, b := range v.Brokers {
		if b.State != "active" {
			r.Problems = append(r.Problems, fmt.Sprintf("node %d is %s", b.Node, b.State))
		}
	}
	if n := r.Partitions.Offline; n > 0 {
		r.Problems = append(r.Problems, fmt.Sprintf("%s without a leader", count(n, "partition")))
	}
	if n := r.Partitions.UnderReplicated; n > 0 {
		r.Problems = append(r.Problems, fmt.Sprintf("%s under-replicated", count(n, "partition")))
	}
	switch {
	case v.Metadata.Problem != "":
		r.Problems = append(r.Problems, "nobody tells who leads the metadata, so the rest may be out of date: "+v.Metadata.Problem)
	case v.Metadata.Leader < 0:
		r.Problems = append(r.Problems, "nobody leads the metadata")
	}
	r.Well = len(r.Problems) == 0
	return r
}

// unwellShown bounds the partitions that the table lists; JSON has all.
const unwellShown = 20

func (e *env) writeStatus(r statusReport) error {
	by := fmt.Sprintf("node %d", r.Metadata.Leader)
	if r.Metadata.Leader < 0 {
		by = "nobody that is known"
	}
	if r.Metadata.Source == "DescribeQuorum" {
		by += fmt.Sprintf(", epoch %d, voters %s", r.Metadata.Epoch, numbers(r.Metadata.Voters))
	}
	fmt.Fprintf(e.Out, "cluster %s; metadata led by %s\n", cmp.Or(r.Cluster, "(no id)"), by)
	var rows [][]string
	for _, b := range r.Brokers {
		rows = append(rows, []string{
			fmt.Sprint(b.Node), cmp.Or(b.Rack, "-"), cmp.Or(b.Address, "-"), b.State, fmt.Sprint(b.Leads), fmt.Sprint(b.Replicas), fmt.Sprint(b.OutOfSync),
		})
	}
	if err := writeTable(e.Out, []string{"NODE", "RACK", "ADDRESS", "STATE", "LEADS", "REPLICAS", "OUT OF SYNC"}, rows); err != nil {
		return err
	}
	p := r.Partitions
	sums := []string{}
	for _, s := range []struct {
		n    int
		what string
	}{{p.Offline, "without a leader"}, {p.UnderReplicated, "under-replicated"}, {p.Moving, "moving"}, {p.NotPreferred, "not led by the preferred replica"}} {
		if s.n > 0 {
			sums = append(sums, fmt.Sprintf("%d %s", s.n, s.what))
		}
	}
	fmt.Fprintf(e.Out, "%s of %s: %s\n", count(p.Total, "partition"), count(r.Topics, "topic"), cmp.Or(strings.Join(sums, ", "), "all in sync"))
	if len(r.Unwell) == 0 {
		return nil
	}
	rows = nil
	for _, u := range r.Unwell[:min(len(r.Unwell), unwellShown)] {
		leader := fmt.Sprint(u.Leader)
		if u.Leader < 0 {
			leader = "none"
		}
		rows = append(rows, []string{fmt.Sprintf("%s-%d", u.Topic, u.Partition), leader, numbers(u.Replicas), cmp.Or(numbers(u.ISR), "-"), u.Problem})
	}
	if err := writeTable(e.Out, []string{"PARTITION", "LEADER", "REPLICAS", "ISR", "PROBLEM"}, rows); err != nil {
		return err
	}
	if more := len(r.Unwell) - unwellShown; more > 0 {
		fmt.Fprintf(e.Out, "… and %d more\n", more)
	}
	return nil
}

func clusterVoters(e *env) *cli.Command {
	return &cli.Command{
		Name:  "voters",
		Usage: "show who keeps the metadata, and how far each is",
		Description: `Examples:
  millrace cluster voters
  millrace cluster voters --output json

One voter leads; a change of the metadata needs a majority of them. Observers follow without a
vote. LAG counts entries behind the leader.`,
		Flags:  clientFlags(outputFlag("table")),
		Action: e.clusterVoters,
	}
}

type voterRow struct {
	Node         int32  `json:"node"`
	Role         string `json:"role"` // leader, voter, observer
	Address      string `json:"address,omitempty"`
	LogEndOffset int64  `json:"log_end_offset"`
	Lag          int64  `json:"lag"`
	CaughtUp     string `json:"last_caught_up,omitempty"`
}

type votersReport struct {
	Leader        int32      `json:"leader"`
	Epoch         int32      `json:"epoch"`
	HighWatermark int64      `json:"high_watermark"`
	Replicas      []voterRow `json:"replicas"`
}

func (e *env) clusterVoters(c *cli.Context) error {
	k, asJSON, done, err := e.askCluster(c)
	if err != nil {
		return err
	}
	defer done()
	resp, p, err := k.describeQuorum(c.Context)
	if err != nil && unsupported(err) {
		return errors.New("this broker does not tell who votes (it answers no DescribeQuorum): it may be a single node, or one from before Kafka 3.3")
	}
	if err != nil {
		return err
	}
	r := votersOf(resp, p)
	if asJSON {
		return writeJSON(e.Out, r)
	}
	fmt.Fprintf(e.Out, "epoch %d, high watermark %d\n", r.Epoch, r.HighWatermark)
	var rows [][]string
	for _, v := range r.Replicas {
		rows = append(rows, []string{fmt.Sprint(v.Node), v.Role, cmp.Or(v.Address, "-"), fmt.Sprint(v.LogEndOffset), fmt.Sprint(v.Lag), cmp.Or(v.CaughtUp, "-")})
	}
	return writeTable(e.Out, []string{"NODE", "ROLE", "ADDRESS", "LOG END", "LAG", "CAUGHT UP"}, rows)
}

func votersOf(resp *kmsg.DescribeQuorumResponse, p *kmsg.DescribeQuorumResponseTopicPartition) votersReport {
	r := votersReport{Leader: p.LeaderID, Epoch: p.LeaderEpoch, HighWatermark: p.HighWatermark, Replicas: []voterRow{}}
	end := p.HighWatermark
	for _, s := range p.CurrentVoters {
		if s.ReplicaID == p.LeaderID {
			end = s.LogEndOffset
		}
	}
	address := map[int32]string{}
	for _, n := range resp.Nodes {
		if len(n.Listeners) > 0 {
			address[n.NodeID] = fmt.Sprintf("%s:%d", n.Listeners[0].Host, n.Listeners[0].Port)
		}
	}
	add := func(states []kmsg.DescribeQuorumResponseTopicPartitionReplicaState, role string) {
		for _, s := range states {
			row := voterRow{Node: s.ReplicaID, Role: role, Address: address[s.ReplicaID], LogEndOffset: s.LogEndOffset, Lag: max(0, end-s.LogEndOffset)}
			if s.ReplicaID == p.LeaderID {
				row.Role = "leader"
			}
			if s.LastCaughtUpTimestamp > 0 {
				row.CaughtUp = time.UnixMilli(s.LastCaughtUpTimestamp).UTC().Format(timestampLayout)
			}
			r.Replicas = append(r.Replicas, row)
		}
	}
	add(p.CurrentVoters, "voter")
	add(p.Observers, "observer")
	slices.SortStableFunc(r.Replicas, func(a, b voterRow) int {
		return cmp.Or(cmp.Compare(roleOrder(a.Role), roleOrder(b.Role)), cmp.Compare(a.Node, b.Node))
	})
	return r
}

func roleOrder(role string) int { return slices.Index([]string{"leader", "voter", "observer"}, role) }
