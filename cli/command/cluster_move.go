package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/urfave/cli/v2"

	"github.com/millrace/millrace/cli/placement"
)

// moveFlags are those of the commands that have replicas moved.
func moveFlags() []cli.Flag {
	return clientFlags(
		&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "show the plan, and do nothing"},
		&cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do it without asking"},
		&cli.Int64Flag{Name: "throttle", Usage: "`BYTES` a second that each broker may send, and receive, for the copies", DefaultText: "no bound"},
		&cli.IntFlag{Name: "at-once", Value: 20, Usage: "partitions to move at the same time"},
		&cli.DurationFlag{Name: "stall", Value: 15 * time.Minute, Usage: "give up when nothing has moved for so long"},
		outputFlag("table"),
	)
}

const moveDescription = `
The plan is shown, and done when you say yes (or with --yes). Partitions move a few at a time, with
progress; clients go on meanwhile. Ctrl-C, or --stall without progress, takes back the moves that are under
way and leaves those that are done; the same command goes on from there. --throttle sets
leader.replication.throttled.rate and follower.replication.throttled.rate on the brokers and the
throttled replicas on the topics, and removes them at the end. At last the preferred replicas are
elected leaders.

Exit codes: 0 done, or nothing to do; 1 something could not be moved, or the answer was no.`

func clusterRebalance(e *env) *cli.Command {
	return &cli.Command{
		Name:  "rebalance",
		Usage: "spread replicas evenly over racks and brokers: shows a plan and asks",
		Description: `Examples:
  millrace cluster rebalance --dry-run
  millrace cluster rebalance
  millrace cluster rebalance --throttle 50000000 --yes

First the replicas of each partition are spread over racks, then brokers get equally many replicas,
then about as many bytes, then lead equally many partitions. As little as possible moves. Fenced
brokers are given nothing and keep what they have.
` + moveDescription,
		Flags: moveFlags(),
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usagef(commandPath(c), "takes no argument; what is %q?", c.Args().First())
			}
			return e.clusterMove(c, func(_ *clusterView, p placement.Cluster) ([]placement.Change, error) {
				return placement.Rebalance(p), nil
			}, "everything is spread evenly already")
		},
	}
}

func clusterDrain(e *env) *cli.Command {
	return &cli.Command{
		Name:      "drain",
		Usage:     "move everything that a node holds to others: shows a plan and asks",
		ArgsUsage: "NODE",
		Description: `Examples:
  millrace cluster drain 3 --dry-run
  millrace cluster drain 3
  millrace cluster drain 3 --throttle 50000000 --yes

Afterwards the node holds no replica and can be stopped for good. One that is gone for ever can be
drained too: its replicas are made anew from the others. Topics that are created meanwhile may still be
given to a node that runs; run it again before you stop the node.
` + moveDescription,
		Flags: moveFlags(),
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usagef(commandPath(c), "which node? as in '%s 3'", commandPath(c))
			}
			node, err := strconv.ParseInt(c.Args().First(), 10, 32)
			if err != nil || node < 0 {
				return usagef(commandPath(c), "%q is not the number of a node", c.Args().First())
			}
			return e.clusterMove(c, func(v *clusterView, p placement.Cluster) ([]placement.Change, error) {
				known := false
				for _, b := range v.Brokers {
					known = known || b.Node == int32(node)
				}
				if !known {
					return nil, fmt.Errorf("there is no node %d: see 'millrace cluster status'", node)
				}
				changes, err := placement.Drain(p, int32(node))
				if err != nil {
					return nil, fmt.Errorf("node %d cannot be drained:\n%w", node, err)
				}
				return changes, nil
			}, fmt.Sprintf("node %d holds nothing", node))
		},
	}
}

type planner func(*clusterView, placement.Cluster) ([]placement.Change, error)

// moveReport is the outcome as JSON.
type moveReport struct {
	Changes   []changeRow `json:"changes"`
	Copied    int64       `json:"bytes_to_copy"`
	Brokers   []loadRow   `json:"brokers"`
	Done      bool        `json:"done"`
	LedAnew   int         `json:"led_anew"`
	SizesTold bool        `json:"sizes_told"` // whether every broker has told the sizes of what it holds
}

type changeRow struct {
	Topic     string  `json:"topic"`
	Partition int32   `json:"partition"`
	SizeBytes int64   `json:"size_bytes"`
	From      []int32 `json:"from"`
	To        []int32 `json:"to"`
}

type loadRow struct {
	Node           int32 `json:"node"`
	ReplicasBefore int   `json:"replicas_before"`
	Replicas       int   `json:"replicas"`
	BytesBefore    int64 `json:"bytes_before"`
	Bytes          int64 `json:"bytes"`
	LeadsBefore    int   `json:"preferred_before"`
	Leads          int   `json:"preferred"`
}

// clusterMove plans, shows, asks, and has it done.
func (e *env) clusterMove(c *cli.Context, plan planner, nothing string) error {
	asJSON, err := wantsJSON(c)
	if err != nil {
		return err
	}
	ask := !c.Bool("yes") && !c.Bool("dry-run")
	switch {
	case asJSON && ask:
		return usagef(commandPath(c), "--output json cannot ask: say --yes or --dry-run")
	case c.IsSet("throttle") && c.Int64("throttle") < 1:
		return usagef(commandPath(c), "--throttle must be at least 1")
	case c.Int("at-once") < 1:
		return usagef(commandPath(c), "--at-once must be at least 1")
	case c.Duration("stall") <= 0:
		return usagef(commandPath(c), "--stall must be greater than zero")
	}
	k, done, err := e.cluster(c)
	if err != nil {
		return err
	}
	defer done()
	v, err := k.look(c.Context)
	if err != nil {
		return err
	}
	if n := v.moving(); n > 0 {
		return fmt.Errorf("%s being moved already: wait until 'millrace cluster status' shows none", are(n, "partition"))
	}
	before, told, err := k.placed(c.Context, v)
	if err != nil {
		return err
	}
	changes, err := plan(v, before)
	if err != nil {
		return err
	}
	r := moveReport{Changes: []changeRow{}, Brokers: loadRows(before, changes), SizesTold: told}
	for _, ch := range changes {
		r.Changes = append(r.Changes, changeRow{ch.Topic, ch.Partition, ch.SizeBytes, ch.From, ch.To})
		r.Copied += ch.CopiedBytes()
	}
	if !asJSON {
		if err := e.writeMoves(r, changes, nothing); err != nil {
			return err
		}
	}
	if len(changes) > 0 && !c.Bool("dry-run") {
		if ask && !e.asked("Do this? [y/N] ") {
			return &exitError{ExitFailed, errors.New("nothing was done")}
		}
		m := &mover{env: e, k: k, changes: changes, throttle: c.Int64("throttle"), atOnce: c.Int("at-once"), stall: c.Duration("stall")}
		err = m.run(c.Context)
		r.Done, r.LedAnew = err == nil, m.ledAnew
	}
	if left := v.leaderless(); len(left) > 0 && err == nil {
		err = &exitError{ExitFailed, fmt.Errorf("%s no leader, and stay where they are: %s", have(len(left), "partition"), strings.Join(left[:min(len(left), 10)], ", "))}
	}
	if asJSON {
		return errors.Join(writeJSON(e.Out, r), err)
	}
	if r.Done {
		fmt.Fprintf(e.Out, "done: %s moved, %s elected\n", count(len(changes), "partition"), count(r.LedAnew, "preferred leader"))
	}
	return err
}

// are is "1 partition is", "2 partitions are".
func are(n int, noun string) string {
	return count(n, noun) + map[bool]string{true: " is", false: " are"}[n == 1]
}

// have is "1 partition has", "2 partitions have".
func have(n int, noun string) string {
	return count(n, noun) + map[bool]string{true: " has", false: " have"}[n == 1]
}

// leaderless names the partitions that nobody leads, which cannot be moved.
func (v *clusterView) leaderless() []string {
	var names []string
	for _, t := range v.Topics.Sorted() {
		for _, d := range t.Partitions.Sorted() {
			if d.Leader < 0 {
				names = append(names, fmt.Sprintf("%s-%d", d.Topic, d.Partition))
			}
		}
	}
	return names
}

// placed is the cluster as the planner wants it, without what nobody leads. Brokers that do not tell sizes are said on standard error, and count as empty.
func (k *clusterClient) placed(ctx context.Context, v *clusterView) (p placement.Cluster, told bool, err error) {
	sizes, told, err := k.sizes(ctx, nil)
	if err != nil {
		return p, false, err
	}
	for _, b := range v.Brokers {
		if b.State != "absent" {
			p.Brokers = append(p.Brokers, placement.Broker{ID: b.Node, Rack: b.Rack, Active: b.State == "active"})
		}
	}
	for _, t := range v.Topics.Sorted() {
		for _, d := range t.Partitions.Sorted() {
			if d.Leader < 0 {
				continue // there is nobody to copy it from
			}
			one := placement.Partition{Topic: d.Topic, Partition: d.Partition, Replicas: d.Replicas}
			for _, size := range sizes[d.Topic][d.Partition] {
				one.SizeBytes = max(one.SizeBytes, size)
			}
			p.Partitions = append(p.Partitions, one)
		}
	}
	return p, told, nil
}

// replicaSizes are bytes by topic, partition and broker.
type replicaSizes map[string]map[int32]map[int32]int64

// sizes asks all brokers for the sizes of what they hold; told is false if one of them did not answer. Nil topics are all.
func (k *clusterClient) sizes(ctx context.Context, topics kadm.TopicsSet) (sizes replicaSizes, told bool, err error) {
	all, err := ask(ctx, k, func(ctx context.Context) (kadm.DescribedAllLogDirs, error) {
		return k.adm.DescribeAllLogDirs(ctx, topics)
	})
	if ctx.Err() != nil {
		return nil, false, ctx.Err()
	}
	told = err == nil
	sizes = replicaSizes{}
	all.Each(func(d kadm.DescribedLogDir) {
		told = told && d.Err == nil
		d.Topics.Each(func(p kadm.DescribedLogDirPartition) {
			if p.IsFuture {
				return
			}
			if sizes[p.Topic] == nil {
				sizes[p.Topic] = map[int32]map[int32]int64{}
			}
			if sizes[p.Topic][p.Partition] == nil {
				sizes[p.Topic][p.Partition] = map[int32]int64{}
			}
			sizes[p.Topic][p.Partition][p.Broker] = p.Size
		})
	})
	return sizes, told, nil
}

func loadRows(c placement.Cluster, changes []placement.Change) []loadRow {
	before, after := placement.Loads(c, nil), placement.Loads(c, changes)
	rows := []loadRow{}
	for i, b := range before {
		a := after[i]
		rows = append(rows, loadRow{b.Broker, b.Replicas, a.Replicas, b.Bytes, a.Bytes, b.Leads, a.Leads})
	}
	return rows
}

func (e *env) writeMoves(r moveReport, changes []placement.Change, nothing string) error {
	if !r.SizesTold {
		fmt.Fprintln(e.Err, "not every broker tells how large what it holds is: sizes are incomplete")
	}
	if len(changes) == 0 {
		_, err := fmt.Fprintln(e.Out, nothing)
		return err
	}
	var rows [][]string
	copies, anew := 0, 0
	for _, ch := range changes {
		what := ""
		if n := len(ch.Adding()); n > 0 {
			what = fmt.Sprintf("copy to %s", numbers(ch.Adding()))
			copies += n
		}
		if ch.From[0] != ch.To[0] {
			anew++
			what = cmp.Or(what, "no copy")
			what += fmt.Sprintf(", led by %d", ch.To[0])
		}
		rows = append(rows, []string{fmt.Sprintf("%s-%d", ch.Topic, ch.Partition), sizeOf(ch.SizeBytes), numbers(ch.From), numbers(ch.To), what})
	}
	if err := writeTable(e.Out, []string{"PARTITION", "SIZE", "FROM", "TO", "WHAT"}, rows); err != nil {
		return err
	}
	fmt.Fprintln(e.Out)
	rows = nil
	change := func(before, after string) string {
		if before == after {
			return after
		}
		return before + " → " + after
	}
	for _, l := range r.Brokers {
		rows = append(rows, []string{
			fmt.Sprint(l.Node), change(fmt.Sprint(l.ReplicasBefore), fmt.Sprint(l.Replicas)), change(sizeOf(l.BytesBefore), sizeOf(l.Bytes)), change(fmt.Sprint(l.LeadsBefore), fmt.Sprint(l.Leads)),
		})
	}
	if err := writeTable(e.Out, []string{"NODE", "REPLICAS", "BYTES", "PREFERRED"}, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(e.Out, "%s to copy, %s; %s to lead anew\n", count(copies, "replica"), sizeOf(r.Copied), count(anew, "partition"))
	return err
}
