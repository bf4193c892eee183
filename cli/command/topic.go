package command

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/urfave/cli/v2"
)

func topicCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "topic",
		Usage: "create, list, describe and delete topics",
		Description: `Examples:
  millrace topic create orders --partitions 6
  millrace topic list
  millrace topic describe orders
  millrace topic delete orders`,
		Subcommands: []*cli.Command{topicCreate(e), topicList(e), topicDescribe(e), topicDelete(e)},
	}
}

// topicNames returns the arguments, of which there must be at least one.
func topicNames(c *cli.Context) ([]string, error) {
	if c.NArg() == 0 {
		return nil, usagef(commandPath(c), "which topic? as in '%s demo'", commandPath(c))
	}
	return c.Args().Slice(), nil
}

func topicCreate(e *env) *cli.Command {
	return &cli.Command{
		Name:      "create",
		Usage:     "create topics",
		ArgsUsage: "TOPIC…",
		Description: `Examples:
  millrace topic create demo
  millrace topic create orders payments --partitions 6 --config max.message.bytes=4194304
  millrace topic create demo --if-not-exists
  millrace topic create demo --validate-only`,
		Flags: clientFlags(
			&cli.IntFlag{Name: "partitions", Aliases: []string{"p"}, Value: -1, DefaultText: "the broker's num.partitions", Usage: "number of partitions"},
			&cli.IntFlag{Name: "replication-factor", Aliases: []string{"r"}, Value: -1, DefaultText: "the broker's default.replication.factor", Usage: "replicas of each partition"},
			&cli.StringSliceFlag{Name: "config", Usage: "a setting of the topic, `KEY=VALUE`; may be repeated"},
			&cli.BoolFlag{Name: "if-not-exists", Usage: "an existing topic is not an error"},
			&cli.BoolFlag{Name: "validate-only", Usage: "ask the broker whether it would be created, without creating it"},
			outputFlag("table"),
		),
		Action: e.topicCreate,
	}
}

type createdTopic struct {
	Topic             string `json:"topic"`
	ID                string `json:"id,omitempty"`
	Partitions        int32  `json:"partitions"`
	ReplicationFactor int16  `json:"replication_factor"`
	Result            string `json:"result"` // created, valid, exists
}

func (e *env) topicCreate(c *cli.Context) error {
	names, err := topicNames(c)
	if err != nil {
		return err
	}
	asJSON, err := wantsJSON(c)
	if err != nil {
		return err
	}
	configs := map[string]*string{}
	pairs, err := keyValues(c, "config")
	if err != nil {
		return err
	}
	for _, kv := range pairs {
		configs[kv[0]] = &kv[1]
	}
	partitions, factor := c.Int("partitions"), c.Int("replication-factor")
	if c.IsSet("partitions") && (partitions < 1 || partitions > 1<<20) {
		return usagef(commandPath(c), "--partitions must be at least 1")
	}
	if c.IsSet("replication-factor") && (factor < 1 || factor > 1<<14) {
		return usagef(commandPath(c), "--replication-factor must be at least 1")
	}
	adm, ctx, done, err := e.admin(c)
	if err != nil {
		return err
	}
	defer done()
	create, result := adm.CreateTopics, "created"
	if c.Bool("validate-only") {
		create, result = adm.ValidateCreateTopics, "valid"
	}
	responses, err := create(ctx, int32(partitions), int16(factor), configs, names...)
	if err != nil {
		return err
	}
	created := []createdTopic{}
	var failures []error
	for _, name := range slices.Sorted(maps.Keys(responses)) {
		r := responses[name]
		row := createdTopic{Topic: name, ID: topicID(r.ID), Partitions: r.NumPartitions, ReplicationFactor: r.ReplicationFactor, Result: result}
		switch {
		case errors.Is(r.Err, kerr.TopicAlreadyExists) && c.Bool("if-not-exists"):
			d, err := topicPartitions(ctx, adm, name)
			if err != nil {
				failures = append(failures, err)
				continue
			}
			row = createdTopic{Topic: name, ID: topicID(d.ID), Partitions: int32(len(d.Partitions)), ReplicationFactor: int16(d.Partitions.NumReplicas()), Result: "exists"}
		case r.Err != nil:
			failures = append(failures, topicError(name, r.Err, r.ErrMessage))
			continue
		}
		created = append(created, row)
	}
	if err := e.writeCreated(created, asJSON); err != nil {
		return err
	}
	return errors.Join(failures...)
}

func (e *env) writeCreated(created []createdTopic, asJSON bool) error {
	if asJSON {
		return writeJSON(e.Out, created)
	}
	for _, t := range created {
		what := map[string]string{"created": "created topic", "valid": "would create topic", "exists": "topic exists already:"}[t.Result]
		shape := ""
		if t.Partitions > 0 { // unknown to brokers before Kafka 2.4
			shape = fmt.Sprintf(" with %s, replication factor %d", count(t.Partitions, "partition"), t.ReplicationFactor)
		}
		if _, err := fmt.Fprintf(e.Out, "%s %s%s\n", what, t.Topic, shape); err != nil {
			return err
		}
	}
	return nil
}

func topicID(id kadm.TopicID) string {
	if id == (kadm.TopicID{}) {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(id[:]) // as Kafka's own tools write it
}

func topicList(e *env) *cli.Command {
	return &cli.Command{
		Name:  "list",
		Usage: "list topics",
		Description: `Examples:
  millrace topic list
  millrace topic list --internal
  millrace topic list --output json | jq -r '.[].topic'`,
		Flags: clientFlags(
			&cli.BoolFlag{Name: "internal", Usage: "show the broker's own topics too, such as __consumer_offsets"},
			outputFlag("table"),
		),
		Action: e.topicList,
	}
}

type listedTopic struct {
	Topic             string `json:"topic"`
	ID                string `json:"id,omitempty"`
	Partitions        int    `json:"partitions"`
	ReplicationFactor int    `json:"replication_factor"`
	Internal          bool   `json:"internal"`
}

func (e *env) topicList(c *cli.Context) error {
	if c.NArg() > 0 {
		return usagef(commandPath(c), "takes no argument; for one topic run 'millrace topic describe %s'", c.Args().First())
	}
	asJSON, err := wantsJSON(c)
	if err != nil {
		return err
	}
	adm, ctx, done, err := e.admin(c)
	if err != nil {
		return err
	}
	defer done()
	topics, err := adm.ListTopicsWithInternal(ctx)
	if err != nil {
		return err
	}
	listed := []listedTopic{}
	for _, t := range topics.Sorted() {
		if t.IsInternal && !c.Bool("internal") {
			continue
		}
		listed = append(listed, listedTopic{t.Topic, topicID(t.ID), len(t.Partitions), t.Partitions.NumReplicas(), t.IsInternal})
	}
	if asJSON {
		return writeJSON(e.Out, listed)
	}
	if len(listed) == 0 {
		fmt.Fprintln(e.Err, "no topics yet; create one with 'millrace topic create demo'")
		return nil
	}
	var rows [][]string
	for _, t := range listed {
		rows = append(rows, []string{t.Topic, strconv.Itoa(t.Partitions), strconv.Itoa(t.ReplicationFactor)})
	}
	return writeTable(e.Out, []string{"TOPIC", "PARTITIONS", "REPLICAS"}, rows)
}

func topicDescribe(e *env) *cli.Command {
	return &cli.Command{
		Name:      "describe",
		Usage:     "show a topic's partitions, offsets and settings",
		ArgsUsage: "TOPIC…",
		Description: `Examples:
  millrace topic describe demo
  millrace topic describe demo --all-configs
  millrace topic describe demo --output json`,
		Flags: clientFlags(
			&cli.BoolFlag{Name: "all-configs", Usage: "show settings that are at their default too"},
			outputFlag("table"),
		),
		Action: e.topicDescribe,
	}
}

type describedTopic struct {
	Topic      string               `json:"topic"`
	ID         string               `json:"id,omitempty"`
	Internal   bool                 `json:"internal"`
	Partitions []describedPartition `json:"partitions"`
	Configs    []describedConfig    `json:"configs"`
}

type describedPartition struct {
	Partition   int32   `json:"partition"`
	Leader      int32   `json:"leader"`
	LeaderEpoch int32   `json:"leader_epoch"`
	Replicas    []int32 `json:"replicas"`
	ISR         []int32 `json:"isr"`
	StartOffset int64   `json:"start_offset"`
	EndOffset   int64   `json:"end_offset"`
	Error       string  `json:"error,omitempty"`
}

type describedConfig struct {
	Key    string  `json:"key"`
	Value  *string `json:"value"` // null for a secret
	Source string  `json:"source"`
}

func (e *env) topicDescribe(c *cli.Context) error {
	names, err := topicNames(c)
	if err != nil {
		return err
	}
	asJSON, err := wantsJSON(c)
	if err != nil {
		return err
	}
	adm, ctx, done, err := e.admin(c)
	if err != nil {
		return err
	}
	defer done()
	described := []describedTopic{}
	for _, name := range names {
		t, err := describeTopic(ctx, adm, name, c.Bool("all-configs"))
		if err != nil {
			return err
		}
		described = append(described, t)
	}
	if asJSON {
		return writeJSON(e.Out, described)
	}
	for i, t := range described {
		if i > 0 {
			fmt.Fprintln(e.Out)
		}
		if err := e.writeDescribed(t); err != nil {
			return err
		}
	}
	return nil
}

func describeTopic(ctx context.Context, adm *kadm.Client, name string, allConfigs bool) (describedTopic, error) {
	d, err := topicPartitions(ctx, adm, name)
	if err != nil {
		return describedTopic{}, err
	}
	starts, err := adm.ListStartOffsets(ctx, name)
	if err != nil {
		return describedTopic{}, err
	}
	ends, err := adm.ListEndOffsets(ctx, name)
	if err != nil {
		return describedTopic{}, err
	}
	t := describedTopic{Topic: name, ID: topicID(d.ID), Internal: d.IsInternal, Configs: []describedConfig{}}
	for _, p := range d.Partitions.Sorted() {
		start, _ := starts.Lookup(name, p.Partition)
		end, _ := ends.Lookup(name, p.Partition)
		row := describedPartition{p.Partition, p.Leader, p.LeaderEpoch, p.Replicas, p.ISR, start.Offset, end.Offset, ""}
		if err := firstError(p.Err, start.Err, end.Err); err != nil {
			row.Error = plainCause(err)
		}
		t.Partitions = append(t.Partitions, row)
	}
	resources, err := adm.DescribeTopicConfigs(ctx, name)
	if err != nil {
		return t, err
	}
	r, err := resources.On(name, nil)
	if err = firstError(err, r.Err); err != nil {
		return t, topicError(name, err, "")
	}
	slices.SortFunc(r.Configs, func(a, b kadm.Config) int { return strings.Compare(a.Key, b.Key) })
	for _, cfg := range r.Configs {
		if allConfigs || cfg.Source == kmsg.ConfigSourceDynamicTopicConfig {
			t.Configs = append(t.Configs, describedConfig{cfg.Key, cfg.Value, strings.ToLower(cfg.Source.String())})
		}
	}
	return t, nil
}

// firstError returns the first error that is one.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *env) writeDescribed(t describedTopic) error {
	id := ""
	if t.ID != "" {
		id = "  id " + t.ID
	}
	fmt.Fprintf(e.Out, "topic %s%s\n", t.Topic, id)
	var rows [][]string
	for _, p := range t.Partitions {
		row := []string{
			fmt.Sprint(p.Partition), fmt.Sprint(p.Leader), fmt.Sprint(p.LeaderEpoch), numbers(p.Replicas), numbers(p.ISR), fmt.Sprint(p.StartOffset), fmt.Sprint(p.EndOffset),
		}
		if p.Error != "" {
			row = append(row, p.Error)
		}
		rows = append(rows, row)
	}
	if err := writeTable(e.Out, []string{"PARTITION", "LEADER", "EPOCH", "REPLICAS", "ISR", "START", "END"}, rows); err != nil {
		return err
	}
	rows = nil
	for _, cfg := range t.Configs {
		value := "(secret)"
		if cfg.Value != nil {
			value = *cfg.Value
		}
		rows = append(rows, []string{cfg.Key, value, cfg.Source})
	}
	if len(rows) == 0 {
		return nil
	}
	return writeTable(e.Out, []string{"CONFIG", "VALUE", "SOURCE"}, rows)
}

func numbers(ns []int32) string {
	s := make([]string, len(ns))
	for i, n := range ns {
		s[i] = fmt.Sprint(n)
	}
	return strings.Join(s, ",")
}

func topicDelete(e *env) *cli.Command {
	return &cli.Command{
		Name:      "delete",
		Usage:     "delete topics and everything in them",
		ArgsUsage: "TOPIC…",
		Description: `Examples:
  millrace topic delete demo
  millrace topic delete orders payments --if-exists`,
		Flags: clientFlags(
			&cli.BoolFlag{Name: "if-exists", Usage: "a topic that does not exist is not an error"},
			outputFlag("table"),
		),
		Action: e.topicDelete,
	}
}

func (e *env) topicDelete(c *cli.Context) error {
	names, err := topicNames(c)
	if err != nil {
		return err
	}
	asJSON, err := wantsJSON(c)
	if err != nil {
		return err
	}
	adm, ctx, done, err := e.admin(c)
	if err != nil {
		return err
	}
	defer done()
	responses, err := adm.DeleteTopics(ctx, names...)
	if err != nil {
		return err
	}
	deleted := []string{}
	var failures []error
	for _, name := range slices.Sorted(maps.Keys(responses)) {
		r := responses[name]
		switch {
		case errors.Is(r.Err, kerr.UnknownTopicOrPartition) && c.Bool("if-exists"):
		case r.Err != nil:
			failures = append(failures, topicError(name, r.Err, r.ErrMessage))
		default:
			deleted = append(deleted, name)
		}
	}
	if asJSON {
		err = writeJSON(e.Out, map[string][]string{"deleted": deleted})
	} else if len(deleted) > 0 {
		_, err = fmt.Fprintf(e.Out, "deleted topic %s\n", strings.Join(deleted, ", "))
	}
	return errors.Join(append(failures, err)...)
}
