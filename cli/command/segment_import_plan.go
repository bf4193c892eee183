package command

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/engine/coordinator"
	"github.com/millrace/millrace/engine/group"
	"github.com/millrace/millrace/engine/source"
)

// topicConfigs reads --topic-config and the file of --topic-configs, of which the flag wins.
func topicConfigs(c *cli.Context) (map[string]map[string]string, error) {
	var lines []string
	if name := c.String("topic-configs"); name != "" {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, usagef(commandPath(c), "--topic-configs: %v", err)
		}
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
				lines = append(lines, line)
			}
		}
	}
	configs := map[string]map[string]string{}
	for _, line := range append(lines, c.StringSlice("topic-config")...) {
		topic, setting, ok := strings.Cut(line, ":")
		key, value, assigned := strings.Cut(setting, "=")
		if !ok || !assigned || topic == "" || strings.TrimSpace(key) == "" {
			return nil, usagef(commandPath(c), "%q is not TOPIC:KEY=VALUE", line)
		}
		if configs[topic] == nil {
			configs[topic] = map[string]string{}
		}
		configs[topic][strings.TrimSpace(key)] = strings.TrimSpace(value)
	}
	return configs, nil
}

// groupOffsets reads the file of --offsets: the lines that kafka-consumer-groups --export writes for several groups.
func groupOffsets(name string) ([]source.Commit, error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("--offsets: %w", err)
	}
	defer f.Close()
	lines := csv.NewReader(bufio.NewReader(f))
	lines.FieldsPerRecord, lines.Comment, lines.TrimLeadingSpace = 4, '#', true
	var commits []source.Commit
	for {
		line, err := lines.Read()
		if errors.Is(err, io.EOF) {
			return commits, nil
		}
		if err != nil {
			return nil, fmt.Errorf("--offsets: %s: %w", name, err)
		}
		partition, err1 := strconv.ParseInt(line[2], 10, 32)
		offset, err2 := strconv.ParseInt(line[3], 10, 64)
		if err := errors.Join(err1, err2); err != nil || partition < 0 || offset < 0 || line[0] == "" {
			return nil, fmt.Errorf("--offsets: %s: %q is not GROUP,TOPIC,PARTITION,OFFSET", name, strings.Join(line, ","))
		}
		commits = append(commits, source.Commit{Group: line[0], Topic: line[1], Partition: int32(partition), Offset: offset, LeaderEpoch: -1})
	}
}

const (
	// commitsAtOnce bounds one commit, whose records are one batch.
	commitsAtOnce = 200
	// loadPatience bounds the wait for the groups that the directory has already.
	loadPatience = time.Minute
)

// takeCommits stores the offsets of groups, as their members would: those of the source where the group has none
// here for a partition, those of --offsets in any case.
func (im *importing) takeCommits(eng *engine.Engine, found []source.Commit) error {
	type place struct {
		group, topic string
		partition    int32
	}
	given := map[place]bool{}
	for _, o := range im.commits {
		given[place{o.Group, o.Topic, o.Partition}] = true
	}
	commits := slices.DeleteFunc(slices.Clone(found), func(o source.Commit) bool { return given[place{o.Group, o.Topic, o.Partition}] })
	byGroup, order := map[string][]source.Commit{}, []string{}
	left := 0
	for i, o := range append(commits, im.commits...) {
		t := im.planned(o.Topic)
		switch {
		case t == nil, o.TopicID != ([16]byte{}) && o.TopicID != t.ID, int(o.Partition) >= len(t.Partitions):
			if i >= len(commits) {
				return fmt.Errorf("--offsets: group %s: %s-%d is not imported", o.Group, o.Topic, o.Partition)
			}
			left++
			continue
		}
		if byGroup[o.Group] == nil {
			order = append(order, o.Group)
		}
		o.TopicID = t.ID
		byGroup[o.Group] = append(byGroup[o.Group], o)
	}
	if left > 0 && len(im.c.StringSlice("topic"))+len(im.c.StringSlice("exclude")) == 0 {
		im.note("offsets of groups that are left out, as their topics are not imported or were made anew: %d", left)
	}
	if len(order) == 0 {
		return nil
	}
	if err := eng.Groups().EnsureTopic(im.c.Context); err != nil {
		return fmt.Errorf("offsets of groups: %w", err)
	}
	for _, name := range order {
		for piece := range slices.Chunk(byGroup[name], commitsAtOnce) {
			if err := im.commit(eng, name, piece, func(o source.Commit) bool { return given[place{name, o.Topic, o.Partition}] }); err != nil {
				return fmt.Errorf("offsets of group %s: %w", name, err)
			}
		}
	}
	return nil
}

func (im *importing) planned(topic string) *importedTopic {
	if i := slices.IndexFunc(im.plan, func(t *importedTopic) bool { return t.Name == topic }); i >= 0 {
		return im.plan[i]
	}
	return nil
}

// commit stores some offsets of one group.
func (im *importing) commit(eng *engine.Engine, name string, commits []source.Commit, given func(source.Commit) bool) error {
	ctx, cancel := context.WithTimeout(im.c.Context, loadPatience)
	defer cancel()
	var ask []coordinator.FetchTopic
	for _, o := range commits {
		ask = append(ask, coordinator.FetchTopic{Topic: o.Topic, TopicID: o.TopicID, Partitions: []int32{o.Partition}})
	}
	var there []coordinator.FetchedTopic
	err := untilLoaded(ctx, func() (err error) {
		there, err = eng.Groups().FetchOffsets(ctx, name, ask, false, false)
		return err
	})
	if err != nil {
		return err
	}
	ev := group.Commit{Generation: -1, RetentionMs: -1}
	for i, o := range commits {
		if there[i].Offsets[0].Offset >= 0 && !given(o) {
			continue // it has been here since, and may be farther on
		}
		if n := len(ev.Topics); n == 0 || ev.Topics[n-1].Topic != o.Topic {
			ev.Topics = append(ev.Topics, group.CommitTopic{Topic: o.Topic, TopicID: o.TopicID})
		}
		last := &ev.Topics[len(ev.Topics)-1]
		last.Partitions = append(last.Partitions, group.CommitPartition{Partition: o.Partition, Offset: o.Offset, LeaderEpoch: o.LeaderEpoch, Metadata: o.Metadata})
	}
	if len(ev.Topics) == 0 {
		return nil
	}
	resp := eng.Groups().Commit(ctx, name, ev)
	if resp.Err != nil {
		return resp.Err
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if p.Err != nil {
				return fmt.Errorf("%s-%d: %w", t.Topic, p.Partition, p.Err)
			}
			im.groups++
		}
	}
	return nil
}

// untilLoaded asks again while the groups are being read back from the log.
func untilLoaded(ctx context.Context, ask func() error) error {
	for {
		err := ask()
		if !errors.Is(err, coordinator.ErrLoading) {
			return err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// readCatalogue reads the catalogue of a data directory from a copy of its files, which are few and small.
func readCatalogue(folder string) (image *catalog.Image, err error) {
	temp, err := os.MkdirTemp("", "millrace-catalog-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if entry.Type().IsRegular() && entry.Name() != "LOCK" {
			if err := copyFile(filepath.Join(folder, entry.Name()), filepath.Join(temp, entry.Name())); err != nil {
				return nil, err
			}
		}
	}
	c, err := catalog.Open(catalog.Options{Dir: temp})
	if err != nil {
		return nil, err
	}
	return c.Image(), c.Close()
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}

// say writes what there is to know beside the result.
func (im *importing) say() {
	for _, n := range im.notes {
		fmt.Fprintf(im.e.Err, "note: %s\n", n)
	}
}

// importedJSON is the result of import for programs.
type importedJSON struct {
	DryRun  bool                `json:"dry_run"`
	Topics  []importedTopicJSON `json:"topics"`
	Offsets int64               `json:"group_offsets"`
	Notes   []string            `json:"notes"`
}

type importedTopicJSON struct {
	Topic      string                  `json:"topic"`
	ID         string                  `json:"id"`
	Status     string                  `json:"status"`
	Configs    map[string]string       `json:"configs"`
	Partitions []importedPartitionJSON `json:"partitions"`
}

type importedPartitionJSON struct {
	Partition int    `json:"partition"`
	From      string `json:"from"`
	Start     int64  `json:"log_start_offset"`
	End       int64  `json:"log_end_offset"`
	Records   int64  `json:"records"`
	Bytes     int64  `json:"bytes"`
}

// report says what was done, or with --dry-run would be.
func (im *importing) report() error {
	out := importedJSON{DryRun: im.c.Bool("dry-run"), Topics: []importedTopicJSON{}, Offsets: im.groups, Notes: im.notes}
	if out.Notes == nil {
		out.Notes = []string{}
	}
	var rows [][]string
	records, bytes := int64(0), int64(0)
	for _, t := range im.plan {
		if t.status == "" {
			t.status = "to be imported"
		}
		topic := importedTopicJSON{Topic: t.Name, ID: catalog.TopicID(t.ID).String(), Status: t.status, Configs: t.Configs}
		for i, p := range t.Partitions {
			if p == nil {
				p = &source.Partition{}
			}
			topic.Partitions = append(topic.Partitions, importedPartitionJSON{i, p.Path, p.Start, p.End, p.Records, p.Bytes})
			rows = append(rows, []string{fmt.Sprintf("%s-%d", t.Name, i), strconv.FormatInt(p.Start, 10), strconv.FormatInt(p.End, 10), strconv.FormatInt(p.Records, 10), strconv.FormatInt(p.Bytes, 10), t.status})
			if t.status == "imported" || out.DryRun {
				records, bytes = records+p.Records, bytes+p.Bytes
			}
		}
		out.Topics = append(out.Topics, topic)
	}
	switch im.form {
	case "json":
		return writeJSON(im.e.Out, out)
	case "plain":
		im.say()
		return writeTabs(im.e.Out, rows)
	}
	if err := writeTable(im.e.Out, []string{"PARTITION", "START", "END", "RECORDS", "BYTES", "STATUS"}, rows); err != nil {
		return err
	}
	im.say()
	done := "imported"
	if out.DryRun {
		done = "to be imported; nothing was written"
	}
	groups := ""
	if im.groups > 0 {
		groups = ", " + count(im.groups, "group offset")
	}
	_, err := fmt.Fprintf(im.e.Out, "%s, %s%s %s\n", count(records, "record"), sizeOf(bytes), groups, done)
	return err
}
