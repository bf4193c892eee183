package command

import (
	"bufio"
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/inspect"
	"github.com/millrace/millrace/segment/vfs"
)

func segmentLs(e *env) *cli.Command {
	return &cli.Command{
		Name:      "ls",
		Usage:     "list topics, partitions and segments",
		ArgsUsage: "[PATH…]",
		Description: `Examples:
  millrace segment ls ./data
  millrace segment ls ./data --segments --topic orders --partition 3
  millrace segment ls /var/lib/kafka/data --topics --sort size --reverse
  millrace segment ls ./data --count --output json | jq '.totals'

Of segments longer than 64 KiB it reads both ends and the indexes: RECORDS is then how many
offsets there are, and BATCHES and CODECS stand as "-" until --count looks at every batch.
START is where reading begins, END the offset that follows the last record. PRODUCERS are
those that are remembered, OPEN the transactions that have no end yet. INDEX is ok, none
(the server has not written them yet), missing or damaged. "segment verify" compares them with the log.`,
		Flags: append(filterFlags(),
			&cli.BoolFlag{Name: "topics", Usage: "a line for each topic"},
			&cli.BoolFlag{Name: "segments", Usage: "a line for each segment"},
			&cli.BoolFlag{Name: "count", Usage: "look at every batch: exact records, batches, codecs, producers and open transactions"},
			&cli.StringFlag{Name: "sort", Value: "name", Usage: "`KEY`: name, size, records, batches, segments, start, end, first, last or producers"},
			&cli.BoolFlag{Name: "reverse", Aliases: []string{"r"}, Usage: "the largest first"},
			&cli.StringFlag{Name: "since", Usage: "only what has records at or after this time, or not older than a duration, as in 2026-03-01, 15m"},
			&cli.StringFlag{Name: "until", Usage: "only what has records at or before this time"},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "table", EnvVars: []string{"MILLRACE_OUTPUT"}, Usage: "table, plain (tabs, without heading and totals) or json"},
		),
		Action: e.segmentLs,
	}
}

// lsRow is a line: of a topic, a partition or a segment.
type lsRow struct {
	Dir            string           `json:"dir"`
	Topic          string           `json:"topic"`
	TopicID        string           `json:"topic_id,omitempty"`
	Partition      *int32           `json:"partition,omitempty"`
	Partitions     int              `json:"partitions,omitempty"`
	State          string           `json:"state"`
	Segment        *int64           `json:"segment,omitempty"`
	Segments       int              `json:"segments,omitempty"`
	Start          int64            `json:"start_offset"`
	End            int64            `json:"end_offset"`
	Records        int64            `json:"records"`
	Control        int64            `json:"control_records"`
	Batches        *int64           `json:"batches"` // null: not counted
	Bytes          int64            `json:"bytes"`
	First          *string          `json:"first_timestamp"`
	Last           *string          `json:"max_timestamp"`
	Codecs         map[string]int64 `json:"codecs"` // batches by codec; null: not counted
	Producers      *int             `json:"producers,omitempty"`
	ProducersAsOf  *int64           `json:"producers_as_of,omitempty"`
	Open           *int             `json:"open_transactions,omitempty"`
	Index          string           `json:"index"`
	Journaled      int64            `json:"journaled_bytes,omitempty"`
	Damaged        int              `json:"damaged_segments,omitempty"`
	Damage         string           `json:"damage,omitempty"`
	firstMs, maxMs int64
}

// lsTotals is the last line.
type lsTotals struct {
	Directories int   `json:"directories"`
	Topics      int   `json:"topics"`
	Partitions  int   `json:"partitions"`
	Segments    int   `json:"segments"`
	Records     int64 `json:"records"`
	Batches     int64 `json:"batches,omitempty"`
	Bytes       int64 `json:"bytes"`
	Journal     int   `json:"journal_files"`
	JournalSize int64 `json:"journal_bytes"`
	Foreign     int   `json:"foreign_files"`
	Damaged     int   `json:"damaged_segments"`
	counted     bool
}

type lsOptions struct {
	filter
	topics, segments, count, reverse, json bool
	plain                                  bool // tabs, for other programs
	sort                                   string
	since, until                           int64 // milliseconds; -1: none
}

func parseLs(c *cli.Context) (*lsOptions, error) {
	o := &lsOptions{topics: c.Bool("topics"), segments: c.Bool("segments"), count: c.Bool("count"), reverse: c.Bool("reverse"), sort: c.String("sort"), since: -1, until: -1}
	var err error
	if o.filter, err = parseFilter(c); err != nil {
		return nil, err
	}
	if o.json, err = wantsJSON(c); err != nil {
		return nil, err
	}
	o.plain = c.String("output") == "plain"
	if o.topics && o.segments {
		return nil, usagef(commandPath(c), "either --topics or --segments, not both")
	}
	if _, known := lsOrders[o.sort]; !known {
		return nil, usagef(commandPath(c), "--sort %q is not one of name, size, records, batches, segments, start, end, first, last, producers", o.sort)
	}
	if o.since, o.until, err = parseTimes(c); err != nil {
		return nil, err
	}
	return o, nil
}

// parseTimes reads --since and --until as milliseconds; -1 when they are not given.
func parseTimes(c *cli.Context) (since, until int64, err error) {
	since, until = -1, -1
	now := time.Now()
	for name, into := range map[string]*int64{"since": &since, "until": &until} {
		if !c.IsSet(name) {
			continue
		}
		at, err := parseTime(c.String(name), now)
		if err != nil {
			return 0, 0, usagef(commandPath(c), "--%s %v", name, err)
		}
		*into = at.UnixMilli()
	}
	return since, until, nil
}

// lsOrders are the keys of --sort.
var lsOrders = map[string]func(a, b *lsRow) int{
	"name":      func(a, b *lsRow) int { return 0 },
	"size":      func(a, b *lsRow) int { return cmp.Compare(a.Bytes, b.Bytes) },
	"records":   func(a, b *lsRow) int { return cmp.Compare(a.Records, b.Records) },
	"batches":   func(a, b *lsRow) int { return cmp.Compare(valueOf(a.Batches), valueOf(b.Batches)) },
	"segments":  func(a, b *lsRow) int { return cmp.Compare(a.Segments, b.Segments) },
	"start":     func(a, b *lsRow) int { return cmp.Compare(a.Start, b.Start) },
	"end":       func(a, b *lsRow) int { return cmp.Compare(a.End, b.End) },
	"first":     func(a, b *lsRow) int { return cmp.Compare(a.firstMs, b.firstMs) },
	"last":      func(a, b *lsRow) int { return cmp.Compare(a.maxMs, b.maxMs) },
	"producers": func(a, b *lsRow) int { return cmp.Compare(valueOf(a.Producers), valueOf(b.Producers)) },
}

func valueOf[N int | int64](p *N) N {
	if p == nil {
		return -1
	}
	return *p
}

func (e *env) segmentLs(c *cli.Context) error {
	o, err := parseLs(c)
	if err != nil {
		return err
	}
	fsys := vfs.OS()
	places, err := e.places(c, fsys)
	if err != nil {
		return err
	}
	rows := []*lsRow{}
	totals := lsTotals{Directories: len(places), counted: true}
	topics := map[string]bool{}
	for _, p := range places {
		if p.Kind == inspect.OneFile && len(p.Partitions) == 0 {
			return usagef(commandPath(c), "%s is not a segment; 'millrace segment dump %s' shows what it holds", p.Path, p.Path)
		}
		summaries, err := e.summarize(c.Context, fsys, p, o)
		if err != nil {
			return err
		}
		totals.Journal += len(p.Journal)
		for _, f := range p.Journal {
			totals.JournalSize += f.Size
		}
		totals.Foreign += len(p.Foreign) + len(p.Folders)
		for _, s := range summaries {
			totals.add(s)
			topics[s.Topic] = true
			rows = append(rows, o.rows(p, s)...)
		}
	}
	totals.Topics = len(topics)
	if o.topics {
		rows = topicRows(rows)
	}
	slices.SortStableFunc(rows, func(a, b *lsRow) int {
		order := lsOrders[o.sort](a, b)
		if o.reverse {
			order = -order
		}
		return order
	})
	if o.reverse && o.sort == "name" {
		slices.Reverse(rows)
	}
	if o.filter.narrow() && len(rows) == 0 {
		return &exitError{ExitNotFound, errors.New("no partition here is what was asked for")}
	}
	if o.json {
		return writeJSON(e.Out, map[string]any{"rows": rows, "totals": totals})
	}
	return e.writeLs(o, rows, &totals, len(places) > 1)
}

// summarize looks at the partitions that the options take, several side by side.
func (e *env) summarize(ctx context.Context, fsys vfs.FS, p *inspect.Place, o *lsOptions) ([]*inspect.Summary, error) {
	starts, err := inspect.KafkaStarts(fsys, p)
	if err != nil {
		return nil, err
	}
	overlay, err := inspect.NewOverlay(fsys, p)
	if err != nil {
		return nil, err
	}
	fsys = overlay.FS(fsys)
	parts := slices.DeleteFunc(p.Partitions, func(part inspect.Partition) bool { return !o.takes(&part) })
	out := make([]*inspect.Summary, len(parts))
	var next, done atomic.Int64
	defer e.progress(func() string { return fmt.Sprintf("%d of %d partitions", done.Load(), len(parts)) })()
	failures := make([]error, 2*runtime.GOMAXPROCS(0))
	var workers sync.WaitGroup
	for w := range failures {
		workers.Go(func() { // ends when all partitions are taken
			v := &inspect.Surveyor{FS: fsys, Count: o.count, Live: p.Held, Starts: starts, Overlay: overlay}
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(parts) {
					return
				}
				s, err := v.Partition(&parts[i])
				if errors.Is(err, fs.ErrNotExist) {
					continue // a running server has removed a file meanwhile
				}
				if err != nil {
					failures[w] = err
					return
				}
				out[i] = s
				done.Add(1)
			}
		})
	}
	workers.Wait()
	if err := errors.Join(append(failures, ctx.Err())...); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(out, func(s *inspect.Summary) bool { return s == nil || !o.inTime(&s.Contents) }), nil
}

// inTime tells whether there may be records of the time that was asked for.
func (o *lsOptions) inTime(c *inspect.Contents) bool {
	return (o.since < 0 || c.MaxTimestamp >= o.since) && (o.until < 0 || c.FirstTimestamp >= 0 && c.FirstTimestamp <= o.until)
}

func (t *lsTotals) add(s *inspect.Summary) {
	t.Partitions++
	t.Segments += len(s.Segments)
	t.Records += s.Records
	t.Batches += s.Batches
	t.Bytes += s.Contents.Bytes
	t.Foreign += len(s.Foreign) + len(s.Folders)
	t.Damaged += s.Damage
	t.counted = t.counted && s.Counted
}

// rows are the partition's line, or those of its segments.
func (o *lsOptions) rows(p *inspect.Place, s *inspect.Summary) []*lsRow {
	if o.segments {
		var rows []*lsRow
		for i := range s.Segments {
			one := &s.Segments[i]
			if !o.inTime(&one.Contents) {
				continue
			}
			r := lsRowOf(p, s, &one.Contents)
			r.Segment, r.Start, r.Index = &one.Base, one.Base, string(one.Index)
			if one.Damage != nil {
				r.Damaged, r.Damage = 1, fmt.Sprintf("at byte %d (offset %d): %s", one.Damage.Position, one.Damage.Offset, one.Damage.What)
			}
			rows = append(rows, r)
		}
		return rows
	}
	r := lsRowOf(p, s, &s.Contents)
	r.Segments, r.Start, r.Index, r.Journaled, r.Damaged = len(s.Segments), s.LogStart, string(s.Index), s.Journaled, s.Damage
	if len(s.Segments) == 0 {
		r.Index = "none"
	}
	producers, open := len(s.Producers), s.Open()
	r.Producers, r.Open = &producers, &open
	if s.ProducersAsOf != s.Next {
		r.ProducersAsOf = &s.ProducersAsOf
	}
	return []*lsRow{r}
}

func lsRowOf(p *inspect.Place, s *inspect.Summary, c *inspect.Contents) *lsRow {
	r := &lsRow{Dir: p.Path, Topic: s.Topic, State: s.State.String(), End: c.Next, Records: c.Records, Control: c.Control, Bytes: c.Bytes, firstMs: c.FirstTimestamp, maxMs: c.MaxTimestamp}
	if s.TopicID != ([16]byte{}) {
		r.TopicID = base64.RawURLEncoding.EncodeToString(s.TopicID[:])
	}
	if s.Number >= 0 {
		r.Partition = &s.Number
	}
	if c.Counted {
		r.Batches, r.Codecs = &c.Batches, map[string]int64{}
		for codec, n := range c.Codecs {
			if n > 0 {
				r.Codecs[batch.Codec(codec).String()] = n
			}
		}
	}
	r.moments()
	return r
}

func (r *lsRow) moments() {
	r.First, r.Last = nil, nil
	if r.firstMs >= 0 {
		s := moment(r.firstMs)
		r.First = &s
	}
	if r.maxMs >= 0 {
		s := moment(r.maxMs)
		r.Last = &s
	}
}

// topicRows adds up partitions, which come by topic.
func topicRows(rows []*lsRow) []*lsRow {
	var out []*lsRow
	for _, r := range rows {
		n := len(out)
		if n == 0 || out[n-1].Topic != r.Topic || out[n-1].State != r.State || out[n-1].Dir != r.Dir {
			one := *r
			one.Partition, one.Partitions, one.ProducersAsOf = nil, 1, nil
			out = append(out, &one)
			continue
		}
		t := out[n-1]
		t.Partitions++
		t.Segments += r.Segments
		t.Start, t.End = min(t.Start, r.Start), max(t.End, r.End)
		t.Records, t.Control, t.Bytes, t.Journaled, t.Damaged = t.Records+r.Records, t.Control+r.Control, t.Bytes+r.Bytes, t.Journaled+r.Journaled, t.Damaged+r.Damaged
		producers, open := *t.Producers+*r.Producers, *t.Open+*r.Open
		t.Producers, t.Open = &producers, &open
		if t.Batches != nil && r.Batches != nil {
			batches := *t.Batches + *r.Batches
			t.Batches = &batches
			for codec, n := range r.Codecs {
				t.Codecs[codec] += n
			}
		} else {
			t.Batches, t.Codecs = nil, nil
		}
		if t.firstMs < 0 || r.firstMs >= 0 && r.firstMs < t.firstMs {
			t.firstMs = r.firstMs
		}
		t.maxMs = max(t.maxMs, r.maxMs)
		t.moments()
		for _, worst := range []string{"none", "missing", "damaged"} {
			if r.Index == worst && r.Segments > 0 {
				t.Index = worst
			}
		}
	}
	return out
}

func (e *env) writeLs(o *lsOptions, rows []*lsRow, totals *lsTotals, dirs bool) error {
	heading := []string{"PARTITION", "STATE", "SEGMENTS", "START", "END", "RECORDS", "BATCHES", "SIZE", "FIRST", "LAST", "CODECS", "PRODUCERS", "OPEN", "INDEX"}
	switch {
	case o.topics:
		heading[0] = "TOPIC"
		heading = slices.Insert(heading, 2, "PARTITIONS")
	case o.segments:
		heading = []string{"PARTITION", "STATE", "SEGMENT", "END", "RECORDS", "BATCHES", "SIZE", "FIRST", "LAST", "CODECS", "INDEX"}
	}
	if dirs {
		heading = slices.Insert(heading, 0, "DIR")
	}
	var lines [][]string
	for _, r := range rows {
		line := r.cells(o)
		if dirs {
			line = slices.Insert(line, 0, r.Dir)
		}
		lines = append(lines, line)
	}
	if o.plain {
		out := bufio.NewWriter(e.Out)
		for _, line := range lines {
			fmt.Fprintln(out, strings.Join(line, "\t"))
		}
		return out.Flush()
	}
	if err := writeTable(e.Out, heading, lines); err != nil {
		return err
	}
	_, err := fmt.Fprintln(e.Out, totals.String())
	return err
}

func (r *lsRow) cells(o *lsOptions) []string {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	name := r.Topic
	if r.Partition != nil {
		name += "-" + number(int64(*r.Partition))
	}
	batches, codecs := "-", "-"
	if r.Batches != nil {
		batches, codecs = number(*r.Batches), ""
		var names []string
		for codec := batch.None; codec.Known(); codec++ {
			if r.Codecs[codec.String()] > 0 {
				names = append(names, codec.String())
			}
		}
		codecs = cmp.Or(strings.Join(names, ","), "-")
	}
	index := r.Index
	if r.Damaged > 0 {
		index += ", log damaged"
	}
	first, last := moment(r.firstMs), moment(r.maxMs)
	if o.segments {
		return []string{name, r.State, fmt.Sprintf("%020d", *r.Segment), number(r.End), number(r.Records), batches, sizeOf(r.Bytes), first, last, codecs, index}
	}
	cells := []string{name, r.State, strconv.Itoa(r.Segments), number(r.Start), number(r.End), number(r.Records), batches, sizeOf(r.Bytes), first, last, codecs,
		strconv.Itoa(*r.Producers), strconv.Itoa(*r.Open), index}
	if o.topics {
		cells = slices.Insert(cells, 2, strconv.Itoa(r.Partitions))
	}
	return cells
}

// String is the line under the table.
func (t *lsTotals) String() string {
	parts := []string{count(t.Topics, "topic"), count(t.Partitions, "partition"), count(t.Segments, "segment"), count(t.Records, "record")}
	if t.counted {
		parts = append(parts, strings.Replace(count(t.Batches, "batch"), "batchs", "batches", 1))
	}
	parts = append(parts, sizeOf(t.Bytes)+" bytes")
	if t.Journal > 0 {
		parts = append(parts, fmt.Sprintf("journal of %s, %s bytes", count(t.Journal, "file"), sizeOf(t.JournalSize)))
	}
	if t.Foreign > 0 {
		parts = append(parts, count(t.Foreign, "foreign file"))
	}
	if t.Damaged > 0 {
		parts = append(parts, count(t.Damaged, "damaged segment"))
	}
	return strings.Join(parts, ", ")
}
