package command

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/cli/serve"
	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/engine/config"
	"github.com/millrace/millrace/engine/source"
	"github.com/millrace/millrace/segment/vfs"
)

func segmentImport(e *env) *cli.Command {
	return &cli.Command{
		Name:      "import",
		Usage:     "take topics over into a data directory: from log directories of Kafka or millrace, or from a file of records",
		ArgsUsage: "PATH…",
		Description: `Examples:
  millrace segment import /var/lib/kafka/data --into ./data
  millrace segment import /kafka-1 /kafka-2 --into ./data --topic 'orders*' --dry-run
  millrace segment import /old/data --into ./data --topic payments
  millrace segment import /copy/orders-0 --into ./data --topic-config orders:retention.ms=-1
  millrace segment import records.jsonl --into ./data
  zcat orders.csv.gz | millrace segment import - --into ./data --format csv --topic orders --partitions 6

Topics come with their ids, settings, records and leader epochs, each record at its
offset, and groups with the offsets that they have committed. Neither the source nor
the data directory may be held by a running server. The source is read twice: all of
it is checked before anything is written. A topic comes into being as a whole or
not at all: an import that was cut short is run again, and goes on with the topics that
are not there yet. What is not taken over, and why, is said.

A topic that has the same id in the data directory is there already and stays as it
is; one of the same name with another id is an error. Records of transactions that
were aborted stay out, since every consumer here would be given them (--aborted keep takes
them); while a transaction has not ended, --open says what becomes of it.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "into", Aliases: []string{"data"}, EnvVars: []string{"MILLRACE_DATA"}, Usage: "the data directory, `DIR[,DIR…]`; made when it is not there"},
			&cli.StringFlag{Name: "config", Usage: "`FILE` with keys of Kafka's server.properties, as for serve"},
			&cli.StringSliceFlag{Name: "set", Usage: "a setting of the broker, `KEY=VALUE`, as for serve; may be repeated"},
			&cli.StringSliceFlag{Name: "topic", Aliases: []string{"t"}, Usage: "only topics of this `NAME`, where * stands for anything; may be repeated; for records: the topic that they go to"},
			&cli.StringSliceFlag{Name: "exclude", Usage: "no topics of this `NAME`; may be repeated"},
			&cli.StringSliceFlag{Name: "topic-config", Usage: "a setting of a topic, `TOPIC:KEY=VALUE`; an empty value takes it away; may be repeated"},
			&cli.StringFlag{Name: "topic-configs", Usage: "`FILE` with such settings, one a line"},
			&cli.StringFlag{Name: "offsets", Usage: "`FILE` with offsets of groups, GROUP,TOPIC,PARTITION,OFFSET a line; they win over those of the source"},
			&cli.BoolFlag{Name: "no-groups", Usage: "leave the offsets of groups that the source has"},
			&cli.StringFlag{Name: "aborted", Value: "drop", Usage: "records of aborted transactions: drop or keep"},
			&cli.StringFlag{Name: "open", Value: "refuse", Usage: "records of transactions that have not ended: refuse, drop or keep"},
			&cli.StringFlag{Name: "missing", Value: "refuse", Usage: "partitions that are in none of the sources: refuse, or empty makes empty ones"},
			&cli.BoolFlag{Name: "skip-damaged", Usage: "take over what lies around damaged records"},
			&cli.BoolFlag{Name: "dry-run", Usage: "check everything and say what would be done"},
			&cli.StringFlag{Name: "format", Value: "auto", Usage: "of a file of records: json (one a line) or csv; auto goes by the file's name"},
			&cli.IntFlag{Name: "partitions", Value: 1, Usage: "for records that do not say their partition"},
			&cli.StringFlag{Name: "encoding", Value: "text", Usage: "of keys, values and headers in csv: text or base64"},
			&cli.StringFlag{Name: "null-value", Value: `\N`, Usage: "what stands for null in csv"},
			&cli.StringFlag{Name: "compression", Aliases: []string{"z"}, Value: "none", Usage: "for records: none, gzip, snappy, lz4 or zstd"},
			formFlag("tabs, without heading and totals"),
		},
		Action: e.segmentImport,
	}
}

// importing is one run of import.
type importing struct {
	e       *env
	c       *cli.Context
	fs      vfs.FS
	form    string
	broker  *config.Broker
	rules   source.Rules
	configs map[string]map[string]string // of --topic-config
	commits []source.Commit              // of --offsets
	plan    []*importedTopic
	notes   []string
	groups  int64 // offsets that were taken over
	spooled bool  // the source is a file of records
}

// importedTopic is what becomes of one topic.
type importedTopic struct {
	*source.Topic
	status string
}

func (e *env) segmentImport(c *cli.Context) error {
	im, err := e.newImport(c)
	if err != nil {
		return err
	}
	paths := c.Args().Slice()
	if of, err := im.ofRecords(paths); err != nil {
		return err
	} else if of {
		folder, err := im.spool(paths)
		defer os.RemoveAll(folder) // which the next import of records would do else
		if err != nil {
			return err
		}
		paths = []string{folder}
	}
	src, err := source.Find(im.fs, paths, readCatalogue)
	if err != nil {
		return err
	}
	if err := im.choose(src); err != nil {
		return err
	}
	if err := im.check(); err != nil {
		return err
	}
	if c.Bool("dry-run") {
		return im.report()
	}
	if err := im.write(src); err != nil {
		return err
	}
	return im.report()
}

func (e *env) newImport(c *cli.Context) (*importing, error) {
	im := &importing{e: e, c: c, fs: vfs.OS()}
	var err error
	if im.form, err = outputForm(c); err != nil {
		return nil, err
	}
	switch {
	case c.NArg() == 0:
		return nil, usagef(commandPath(c), "what is to be imported? as in '%s /var/lib/kafka/data --into ./data'", commandPath(c))
	case c.String("into") == "":
		return nil, usagef(commandPath(c), "into which data directory? as in '%s %s --into ./data'", commandPath(c), c.Args().First())
	}
	for flag, values := range map[string][]string{"aborted": {"drop", "keep"}, "open": {"refuse", "drop", "keep"}, "missing": {"refuse", "empty"}, "format": {"auto", "json", "csv"}, "encoding": {"text", "base64"}} {
		if !slices.Contains(values, c.String(flag)) {
			return nil, usagef(commandPath(c), "--%s %q is not one of %s", flag, c.String(flag), strings.Join(values, ", "))
		}
	}
	im.rules = source.Rules{KeepAborted: c.String("aborted") == "keep", KeepUnfinished: c.String("open") == "keep"}
	props, err := serve.Settings{Data: c.String("into"), ConfigFile: c.String("config"), Set: settings(c.StringSlice("set"))}.Properties()
	if err == nil {
		im.broker, _, err = config.ParseBroker(props)
	}
	if err != nil {
		return nil, usagef(commandPath(c), "%v", err)
	}
	if im.configs, err = topicConfigs(c); err != nil {
		return nil, err
	}
	if im.commits, err = groupOffsets(c.String("offsets")); err != nil {
		return nil, err
	}
	return im, im.checkTarget()
}

// checkTarget refuses at once what the opening of the directory would refuse at the end.
func (im *importing) checkTarget() error {
	for _, dir := range im.broker.LogDirs {
		held, err := vfs.Held(im.fs, filepath.Join(dir, "lock"))
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
		if held {
			return fmt.Errorf("%s: a running server holds it: stop that first", dir)
		}
		for _, from := range im.c.Args().Slice() {
			if abs, err := filepath.Abs(from); err == nil && (abs == dir || strings.HasPrefix(abs, dir+string(filepath.Separator))) {
				return usagef(commandPath(im.c), "%s cannot be imported into itself", dir)
			}
		}
	}
	return nil
}

func (im *importing) note(format string, args ...any) {
	if n := fmt.Sprintf(format, args...); !slices.Contains(im.notes, n) {
		im.notes = append(im.notes, n)
	}
}

// choose takes the topics that were asked for, and settles what they are to be here.
func (im *importing) choose(src *source.Source) error {
	wanted, unwanted := im.c.StringSlice("topic"), im.c.StringSlice("exclude")
	var missing []string
	for _, t := range src.Topics {
		if len(wanted) > 0 && !matches(wanted, t.Name) || matches(unwanted, t.Name) {
			continue
		}
		for i, p := range t.Partitions {
			if p == nil && !t.Lazy && !im.spooled && im.c.String("missing") == "refuse" {
				missing = append(missing, fmt.Sprintf("%s-%d", t.Name, i))
			}
		}
		if im.spooled {
			t.Partitions = append(t.Partitions, make([]*source.Partition, max(0, im.c.Int("partitions")-len(t.Partitions)))...)
		}
		im.plan = append(im.plan, &importedTopic{Topic: t})
	}
	for _, w := range wanted {
		if !slices.ContainsFunc(im.plan, func(t *importedTopic) bool { return matches([]string{w}, t.Name) }) {
			return &exitError{ExitNotFound, fmt.Errorf("no topic %q is in %s", w, strings.Join(im.c.Args().Slice(), ", "))}
		}
	}
	im.notes = append(im.notes, src.Notes...)
	if len(missing) > 0 {
		return fmt.Errorf("%s in none of the sources: %s\nGive the log directories of the other brokers too, or --missing empty for empty ones.",
			areMissing(len(missing)), shortList(missing))
	}
	if len(im.plan) == 0 {
		return errors.New("there is no topic to import")
	}
	return im.settle()
}

func areMissing(n int) string {
	if n == 1 {
		return "a partition is"
	}
	return fmt.Sprintf("%d partitions are", n)
}

// shortList names a few of many.
func shortList(names []string) string {
	const few = 10
	if len(names) > few {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
	}
	return strings.Join(names, ", ")
}

func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, name)
		return ok && err == nil || p == name
	})
}

// settle gives topics the settings that they have here.
func (im *importing) settle() error {
	for topic := range im.configs {
		if !slices.ContainsFunc(im.plan, func(t *importedTopic) bool { return t.Name == topic }) {
			return usagef(commandPath(im.c), "--topic-config: topic %q is not imported", topic)
		}
	}
	for _, t := range im.plan {
		configs := map[string]string{}
		for key, value := range t.Configs {
			var unknown *config.UnknownKeyError
			err := im.broker.ValidateTopic(map[string]string{key: value})
			switch n, _ := strconv.Atoi(value); {
			case errors.As(err, &unknown), strings.HasPrefix(key, "remote.") && err != nil:
				im.note("topic %s: the setting %s=%s is not taken over: it is not known here", t.Name, key, value)
			case key == "min.insync.replicas" && n > 1:
				im.note("topic %s: the setting %s=%s is not taken over: there is one replica here, and nothing could be produced", t.Name, key, value)
			default:
				configs[key] = value
			}
		}
		for key, value := range im.configs[t.Name] {
			if configs[key] = value; value == "" {
				delete(configs, key)
			}
		}
		if len(configs) == 0 {
			configs = nil
		}
		if err := im.broker.ValidateTopic(configs); err != nil {
			return fmt.Errorf("topic %s: %w\nGive it another value with --topic-config %s:KEY=VALUE, or none with %s:KEY=", t.Name, err, t.Name, t.Name)
		}
		if strings.Contains(configs["cleanup.policy"], "compact") {
			im.note("topics with cleanup.policy=compact are not compacted here yet: they keep what they have now, and all that comes")
		}
		t.Configs = configs
	}
	return nil
}

// check reads all that is to be imported, and refuses what should be looked at by somebody first.
func (im *importing) check() error {
	var total, read atomic.Int64
	var all []*source.Partition
	for _, t := range im.plan {
		for _, p := range t.Partitions {
			if p != nil {
				all = append(all, p)
				total.Add(p.Size())
			}
		}
	}
	done := im.e.progress(func() string { return "checking " + portion(read.Load(), total.Load()) })
	defer done()
	group, ctx := errgroup.WithContext(im.c.Context)
	group.SetLimit(2)
	for _, p := range all {
		group.Go(func() error {
			if err := p.Check(ctx, im.rules, func(n int64) { read.Add(n) }); err != nil {
				return fmt.Errorf("%s: %w", p.Path, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	done()
	var damaged, open []string
	for _, p := range all {
		if p.Torn != nil {
			im.note("%s: its end is torn, as a crash leaves it, and is left out as its server would: %v", p.Name(), p.Torn)
		}
		for _, d := range p.Damage {
			im.note("%s is damaged: %v", p.Name(), d)
		}
		if p.Damaged > 0 {
			damaged = append(damaged, p.Name())
		}
		if o := p.Aborted; o.Transactions > 0 {
			verb := "are left out, as every consumer here would be given them"
			if im.rules.KeepAborted {
				verb = "are kept: every consumer will be given them, isolation.level=read_committed too"
			}
			im.note("%s: %s of %s that were aborted (offsets %d to %d) %s", p.Name(), count(o.Records, "record"), count(o.Transactions, "transaction"), o.First, o.Last, verb)
		}
		if o := p.Unfinished; o.Records > 0 {
			said := fmt.Sprintf("%s: %s of %s that did not end (offsets %d to %d)", p.Name(), count(o.Records, "record"), count(o.Transactions, "transaction"), o.First, o.Last)
			switch im.c.String("open") {
			case "refuse":
				open = append(open, said)
			case "drop":
				im.note("%s are left out", said)
			default:
				im.note("%s are kept: every consumer will be given them", said)
			}
		}
	}
	switch {
	case len(damaged) > 0 && !im.c.Bool("skip-damaged"):
		im.say()
		return fmt.Errorf("damaged: %s; nothing was imported\nTake another replica, or give --skip-damaged for what lies around the damage.", shortList(damaged))
	case len(open) > 0:
		return fmt.Errorf("transactions have not ended; nothing was imported\n%s\nStart the server and let them end, or give --open drop or --open keep.", strings.Join(open, "\n"))
	}
	return nil
}

func portion(done, of int64) string {
	if of == 0 {
		return "…"
	}
	return fmt.Sprintf("%s of %s (%d %%)", sizeOf(done), sizeOf(of), 100*done/of)
}

// closePatience bounds the end of the engine, which writes what makes the next start quick.
const closePatience = 5 * time.Minute

// open opens the data directory. Nobody else has it then.
func (im *importing) open() (*engine.Engine, error) {
	mine := map[catalog.TopicID]bool{}
	for _, t := range im.plan {
		mine[t.ID] = true
	}
	quiet := slog.New(slog.NewTextHandler(im.e.Err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	return engine.Open(im.c.Context, engine.Options{
		FS: im.fs, Config: im.broker, Now: time.Now, Logger: quiet, Adopt: func(id catalog.TopicID) bool { return mine[id] },
	})
}

// write takes over what was checked.
func (im *importing) write(src *source.Source) (err error) {
	eng, err := im.open()
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), closePatience)
		defer cancel()
		err = errors.Join(err, eng.Close(ctx))
	}()
	above := src.NextProducerID
	var total, read atomic.Int64
	for _, t := range im.plan {
		if err := im.judge(eng, t); err != nil {
			return err
		}
		for _, p := range t.Partitions {
			if p != nil && t.status == "" {
				total.Add(p.Size())
			}
			if p != nil {
				above = max(above, p.ProducerID+1)
			}
		}
	}
	if err := im.checkRoom(eng, total.Load()); err != nil {
		return err
	}
	done := im.e.progress(func() string { return "importing " + portion(read.Load(), total.Load()) })
	defer done()
	if err := eng.ReserveProducerIDs(im.c.Context, above); err != nil {
		return err
	}
	for _, t := range im.plan {
		if t.status != "" {
			continue
		}
		if err := im.take(eng, t, &read); err != nil {
			return fmt.Errorf("topic %s: %w", t.Name, err)
		}
		t.status = "imported"
	}
	done()
	commits := src.Commits
	if im.c.Bool("no-groups") {
		commits = nil
	}
	return im.takeCommits(eng, commits)
}

// judge finds out whether a topic is there already.
func (im *importing) judge(eng *engine.Engine, t *importedTopic) error {
	there := eng.Image().Topic(t.Name)
	switch {
	case there == nil:
		return nil
	case there.ID != t.ID:
		return fmt.Errorf("topic %s is there already, as another one (id %s, the source has %s)\nDelete it, or leave it out with --exclude %s.", t.Name, there.ID, catalog.TopicID(t.ID), t.Name)
	}
	t.status = "already there"
	for i, p := range t.Partitions {
		at, err := eng.Partition(there.ID, int32(i))
		if err == nil && p != nil && at.LogEndOffset() < p.End {
			im.note("%s ends at offset %d here and at %d in the source: it was imported before that got its last records", p.Name(), at.LogEndOffset(), p.End)
		}
	}
	return nil
}

// checkRoom refuses what does not fit, before anything is written.
func (im *importing) checkRoom(eng *engine.Engine, bytes int64) error {
	free := int64(0)
	for _, d := range eng.LogDirs() {
		if d.FreeBytes < 0 {
			return nil
		}
		free += d.FreeBytes
	}
	if need := bytes + bytes/50; need > free {
		return fmt.Errorf("there is not enough room: %s are needed, %s are free", sizeOf(need), sizeOf(free))
	}
	return nil
}

func (im *importing) take(eng *engine.Engine, t *importedTopic, read *atomic.Int64) error {
	taken := engine.TakenTopic{Name: t.Name, ID: t.ID, Configs: t.Configs, Partitions: make([]engine.TakenPartition, len(t.Partitions))}
	for i, p := range t.Partitions {
		taken.Partitions[i].Epoch = -1
		if p == nil {
			continue
		}
		r := p.Open(func(n int64) { read.Add(n) })
		defer r.Close()
		taken.Partitions[i] = engine.TakenPartition{Start: p.Start, End: p.End, First: p.First, Epoch: p.Epoch, Batches: r}
	}
	return eng.TakeOver(im.c.Context, taken)
}
