package command

import (
	"bufio"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/urfave/cli/v2"
)

func consumeCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "consume",
		Usage:     "read records of a topic to standard output",
		ArgsUsage: "TOPIC",
		Description: `Examples:
  millrace consume demo                                  everything there is now, then end
  millrace consume demo --follow --from end              what arrives from now on, until Ctrl-C
  millrace consume demo --from -10                       the last ten records of each partition
  millrace consume demo --partition 0 --from 1200 --max 5
  millrace consume demo --since 15m --timestamps
  millrace consume demo --since 2026-03-01T08:00:00Z --output json
  millrace consume demo --group readers --follow         as a member of a group, committing what is printed

Without --follow it ends at the end that each partition had when it started.`,
		Flags: clientFlags(
			&cli.StringFlag{Name: "from", Value: "start", Usage: "start, end, an `OFFSET`, or -N for the last N of each partition; with --group: where nothing is committed"},
			&cli.StringFlag{Name: "since", Usage: "records from a `TIME` on: 2026-03-01T08:00:00Z, 2026-03-01, or 15m for fifteen minutes ago"},
			&cli.IntSliceFlag{Name: "partition", Aliases: []string{"p"}, Usage: "only this partition; may be repeated"},
			&cli.StringFlag{Name: "group", Aliases: []string{"g"}, Usage: "consume as a member of this group"},
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "wait for more at the end"},
			&cli.Int64Flag{Name: "max", Aliases: []string{"n"}, Usage: "end after `N` records"},
			&cli.BoolFlag{Name: "keys", Usage: "print keys"},
			&cli.BoolFlag{Name: "headers", Usage: "print headers"},
			&cli.BoolFlag{Name: "timestamps", Usage: "print timestamps"},
			&cli.BoolFlag{Name: "offsets", Usage: "print partition and offset"},
			&cli.StringFlag{Name: "separator", Value: "\t", DefaultText: "a tab", Usage: "what stands between the printed parts of a record"},
			&cli.StringFlag{Name: "null-value", Value: "null", Usage: "what is printed for a null key or value"},
			outputFlag("plain"),
		),
		Action: e.consume,
	}
}

// consuming is what the flags of consume ask for.
type consuming struct {
	topic      string
	partitions []int32 // none: all
	from       position
	group      string
	follow     bool
	max        int64 // 0: no limit
	timeout    time.Duration
	print      printer
}

// position is where to begin in a partition.
type position struct {
	kind   byte  // 's'tart, 'e'nd, 'o'ffset, 'l'ast n, 't'ime
	offset int64 // the offset, n, or milliseconds since 1970
}

func parseConsuming(c *cli.Context, now time.Time) (*consuming, error) {
	topic, err := oneTopic(c)
	if err != nil {
		return nil, err
	}
	q := &consuming{topic: topic, group: c.String("group"), follow: c.Bool("follow"), max: c.Int64("max"), timeout: c.Duration("timeout")}
	wrong := func(format string, args ...any) (*consuming, error) {
		return nil, usagef(commandPath(c), format, args...)
	}
	if q.print.json, err = wantsJSON(c); err != nil {
		return nil, err
	}
	q.print.keys, q.print.headers, q.print.timestamps, q.print.offsets = c.Bool("keys"), c.Bool("headers"), c.Bool("timestamps"), c.Bool("offsets")
	q.print.separator, q.print.null = c.String("separator"), c.String("null-value")
	if c.IsSet("since") && c.IsSet("from") {
		return wrong("either --from or --since, not both")
	}
	if c.IsSet("since") {
		at, err := parseTime(c.String("since"), now)
		if err != nil {
			return wrong("--since %v", err)
		}
		q.from = position{'t', at.UnixMilli()}
	} else if q.from, err = parsePosition(c.String("from")); err != nil {
		return wrong("--from %v", err)
	}
	if c.IsSet("max") && q.max < 1 {
		return wrong("--max must be at least 1")
	}
	if c.IsSet("group") && q.group == "" {
		return wrong("--group must not be empty")
	}
	for _, p := range c.IntSlice("partition") {
		if p < 0 || p > 1<<30 {
			return wrong("--partition %d is not a partition", p)
		}
		q.partitions = append(q.partitions, int32(p))
	}
	if q.group != "" && len(q.partitions) > 0 {
		return wrong("--partition cannot be used with --group: the group assigns partitions")
	}
	if q.group != "" && q.from.kind != 's' && q.from.kind != 'e' {
		return wrong("with --group, --from is start or end: elsewhere the group's committed offsets decide")
	}
	return q, nil
}

func parsePosition(s string) (position, error) {
	switch s {
	case "start":
		return position{kind: 's'}, nil
	case "end":
		return position{kind: 'e'}, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return position{}, fmt.Errorf("%q is not start, end, an offset or -N", s)
	}
	if n < 0 {
		return position{'l', -n}, nil
	}
	return position{'o', n}, nil
}

// parseTime understands a moment, a day (local time), or how long ago.
func parseTime(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a time such as 2026-03-01T08:00:00Z, 2026-03-01, or 15m", s)
}

// in returns the offset of the position in a partition that holds [start, end); since is the answer to a look-up by time.
func (p position) in(start, end, since int64) (int64, error) {
	switch p.kind {
	case 'e':
		return end, nil
	case 'l':
		return max(start, end-p.offset), nil
	case 't':
		if since < 0 {
			return end, nil
		}
		return since, nil
	case 'o':
		if p.offset < start || p.offset > end {
			return 0, fmt.Errorf("offset %d is outside of what it holds, %d to %d", p.offset, start, end)
		}
		return p.offset, nil
	}
	return start, nil
}

// span is what is to be read of a partition: from begin, and to end unless following.
type span struct{ begin, end int64 }

// plan looks the topic up and returns the span of each wanted partition as it is now.
func (q *consuming) plan(ctx context.Context, adm *kadm.Client) (map[int32]span, error) {
	d, err := topicPartitions(ctx, adm, q.topic)
	if err != nil {
		return nil, err
	}
	wanted := q.partitions
	if len(wanted) == 0 {
		wanted = d.Partitions.Numbers()
	}
	starts, err := adm.ListStartOffsets(ctx, q.topic)
	if err != nil {
		return nil, err
	}
	ends, err := adm.ListEndOffsets(ctx, q.topic)
	if err != nil {
		return nil, err
	}
	var since kadm.ListedOffsets
	if q.from.kind == 't' {
		if since, err = adm.ListOffsetsAfterMilli(ctx, q.from.offset, q.topic); err != nil {
			return nil, err
		}
	}
	spans := map[int32]span{}
	for _, p := range wanted {
		if _, ok := d.Partitions[p]; !ok {
			return nil, &notFoundError{Topic: q.topic, Partition: p}
		}
		start, _ := starts.Lookup(q.topic, p)
		end, _ := ends.Lookup(q.topic, p)
		at, _ := since.Lookup(q.topic, p)
		if err := firstError(start.Err, end.Err, at.Err); err != nil {
			return nil, topicError(q.topic, err, "")
		}
		begin, err := q.from.in(start.Offset, end.Offset, at.Offset)
		if err != nil {
			return nil, fmt.Errorf("partition %d of topic %q: %w", p, q.topic, err)
		}
		spans[p] = span{begin, end.Offset}
	}
	return spans, nil
}

func (e *env) consume(c *cli.Context) error {
	q, err := parseConsuming(c, time.Now())
	if err != nil {
		return err
	}
	adm, ctx, done, err := e.admin(c)
	if err != nil {
		return err
	}
	defer done()
	spans, err := q.plan(ctx, adm)
	if err != nil {
		return err
	}
	r := &reader{e: e, adm: adm, q: q, spans: spans, next: map[int32]int64{}, joined: make(chan struct{}), out: bufio.NewWriterSize(e.Out, 64<<10)}
	r.cl, err = e.connect(c, r.options()...)
	if err != nil {
		return err
	}
	defer r.cl.CloseAllowingRebalance()
	err = r.run(c.Context)
	return firstError(err, r.out.Flush())
}
