package command

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/segment/inspect"
	"github.com/millrace/millrace/segment/vfs"
)

func segmentDiff(e *env) *cli.Command {
	return &cli.Command{
		Name:      "diff",
		Usage:     "compare two replicas or copies",
		ArgsUsage: "PATH_A PATH_B",
		Description: `Examples:
  millrace segment diff /broker-1/data /broker-2/data
  millrace segment diff ./data /backup/data --topic 'orders*'
  millrace segment diff /kafka/orders-0 ./data/topics/orders-0.Xk3…
  millrace segment diff a/00000000000000000000.log b/00000000000000000000.log

Partitions are compared by their names, batch by batch: they are equal when every batch
is the same byte for byte, wherever segments end. What differs is told as ranges of
offsets: only in A, only in B (records that were deleted, or did not get there yet), leader epoch (the
same batch from another leader), other form (the same records in other batches), other
records. Leader epochs that both have written down are compared, too. What lies before a
log start offset is as good as deleted, and left out.

Exit code 0: equal. 1: they differ. 2: cannot tell, since one of them is damaged, or not there.`,
		Flags: append(filterFlags(),
			&cli.BoolFlag{Name: "records", Usage: "records count, not how they are stored: batches, codecs, producers, leader epochs"},
			&cli.IntFlag{Name: "max", Value: 10, Usage: "show so many differences of each partition"},
			formFlag("tabs: a line for each partition, and for each difference"),
		),
		Action: func(c *cli.Context) error { return cannotTell(e.segmentDiff(c)) },
	}
}

// pair is one partition in both places; nil where it is not.
type pair struct {
	name   string
	a, b   *inspect.Partition
	fa, fb vfs.FS
	oa, ob inspect.LogOptions
	empty  bool // one has no records, and the other no folder, which millrace makes with the first record
	result *inspect.Comparison

	lenient bool // the same records are enough
}

// sameRecords tells that both have the same records, however they are stored.
func (p *pair) sameRecords() bool {
	c := p.result
	return c != nil && c.EndA == c.EndB && c.Damaged == 0 && c.More == 0 && !slices.ContainsFunc(c.Differences, func(d inspect.Difference) bool {
		return d.Kind != inspect.OtherForm && d.Kind != inspect.OtherEpoch
	})
}

func (e *env) segmentDiff(c *cli.Context) error {
	if c.NArg() != 2 {
		return usagef(commandPath(c), "what is to be compared with what? as in '%s /replica-1 /replica-2'", commandPath(c))
	}
	form, err := outputForm(c)
	if err != nil {
		return err
	}
	f, err := parseFilter(c)
	if err != nil {
		return err
	}
	fsys := vfs.OS()
	places, err := e.places(c, fsys)
	if err != nil {
		return err
	}
	pairs, err := pairUp(fsys, places[0], places[1], &f)
	if err != nil {
		return err
	}
	if err := e.compare(c.Context, pairs); err != nil {
		return err
	}
	for _, p := range pairs {
		p.lenient = c.Bool("records")
	}
	switch form {
	case "json":
		err = writeJSON(e.Out, diffJSON(c.Args().Slice(), pairs))
	case "plain":
		err = writeTabs(e.Out, diffTabs(pairs))
	default:
		err = e.writeDiff(pairs, c.Int("max"))
	}
	if err != nil {
		return err
	}
	return diffVerdict(pairs)
}

// pairUp finds the partitions of both by their names; two single ones are a pair whatever their names are.
func pairUp(fsys vfs.FS, a, b *inspect.Place, f *filter) ([]*pair, error) {
	single := a.Kind != inspect.WholeDirectory && b.Kind != inspect.WholeDirectory
	for _, p := range []*inspect.Place{a, b} {
		if p.Kind == inspect.OneFile && (len(p.Partitions) == 0 || filepath.Ext(p.Path) != ".log") {
			return nil, fmt.Errorf("%s is no .log file", p.Path)
		}
	}
	var pairs []*pair
	for i, p := range []*inspect.Place{a, b} {
		overlay, err := inspect.NewOverlay(fsys, p)
		if err != nil {
			return nil, err
		}
		starts, err := inspect.KafkaStarts(fsys, p)
		if err != nil {
			return nil, err
		}
		for n := range p.Partitions {
			part := &p.Partitions[n]
			if p.Kind == inspect.WholeDirectory && (!f.takes(part) || part.State != inspect.Live && len(f.states) == 0) {
				continue
			}
			at := slices.IndexFunc(pairs, func(other *pair) bool {
				return single || other.name == part.Name() && (i == 0 && other.a == nil || i == 1 && other.b == nil)
			})
			if at < 0 {
				pairs = append(pairs, &pair{name: part.Name()})
				at = len(pairs) - 1
			}
			start, err := part.StartOffset(fsys, starts)
			if err != nil {
				return nil, err
			}
			o := inspect.LogOptions{Start: start, From: start}
			if i == 0 {
				pairs[at].a, pairs[at].fa, pairs[at].oa = part, overlay.FS(fsys), o
			} else {
				pairs[at].b, pairs[at].fb, pairs[at].ob = part, overlay.FS(fsys), o
			}
		}
	}
	for _, p := range pairs {
		p.empty = p.a == nil && a.Layout == inspect.Millrace && p.b.Bytes() == 0 ||
			p.b == nil && b.Layout == inspect.Millrace && p.a.Bytes() == 0
	}
	if len(pairs) == 0 {
		return nil, &exitError{ExitNotFound, errors.New("there is no such partition in either")}
	}
	return pairs, nil
}

// compare compares all pairs, two at a time.
func (e *env) compare(ctx context.Context, pairs []*pair) error {
	var read, total atomic.Int64
	for _, p := range pairs {
		if p.a != nil && p.b != nil {
			total.Add(p.a.Bytes() + p.b.Bytes())
		}
	}
	done := e.progress(func() string { return "comparing " + portion(read.Load(), total.Load()) })
	defer done()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(2)
	for _, p := range pairs {
		if p.a == nil || p.b == nil {
			continue
		}
		group.Go(func() (err error) {
			count := func(n int64) { read.Add(n) }
			p.oa.Read, p.ob.Read = count, count
			a := inspect.OpenLog(p.fa, p.a, p.oa)
			defer a.Close()
			b := inspect.OpenLog(p.fb, p.b, p.ob)
			defer b.Close()
			if p.result, err = inspect.Compare(ctx, a, b); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// result says in a few words what was found.
func (p *pair) verdict() string {
	c := p.result
	switch {
	case p.empty:
		return "empty"
	case p.a == nil:
		return "only in B"
	case p.b == nil:
		return "only in A"
	case c.Same() && c.TornA == nil && c.TornB == nil:
		return "equal"
	case c.Same():
		return "equal up to a torn end"
	case c.Hidden():
		return "damaged"
	case len(c.Differences) == 0 && c.EpochsDiffer:
		return "other leader epochs"
	case p.sameRecords():
		return "same records"
	}
	only := func(kind inspect.DifferenceKind, from func(inspect.Difference) bool) bool {
		return !slices.ContainsFunc(c.Differences, func(d inspect.Difference) bool { return d.Kind != kind || !from(d) })
	}
	behind := func(d inspect.Difference) bool { return d.First >= c.EqualTo }
	before := func(d inspect.Difference) bool { return d.Last < max(c.StartA, c.StartB) }
	switch {
	case c.More > 0 || c.Damaged > 0 || c.EpochsDiffer:
	case len(c.Differences) == 0:
		return "the end differs"
	case c.EqualTo == min(c.EndA, c.EndB) && only(inspect.OnlyInA, behind):
		return "B ends sooner"
	case c.EqualTo == min(c.EndA, c.EndB) && only(inspect.OnlyInB, behind):
		return "A ends sooner"
	case only(inspect.OnlyInA, before):
		return "B begins later"
	case only(inspect.OnlyInB, before):
		return "A begins later"
	}
	return "differ"
}

// diffVerdict is nil when all are equal.
func diffVerdict(pairs []*pair) error {
	differ, damaged := 0, 0
	for _, p := range pairs {
		switch {
		case p.empty, p.result != nil && p.result.Same(), p.lenient && p.sameRecords():
		case p.result != nil && p.result.Hidden():
			damaged++
		default:
			differ++
		}
	}
	switch {
	case differ > 0:
		return &exitError{ExitFailed, fmt.Errorf("%d of %s", differ, differing(len(pairs)))}
	case damaged > 0:
		return &exitError{exitCannotTell, fmt.Errorf("%d of %s: it cannot be told whether they differ, since one of the two is damaged", damaged, count(len(pairs), "partition"))}
	}
	return nil
}

func differing(n int) string {
	if n == 1 {
		return "1 partition differs"
	}
	return fmt.Sprintf("%d partitions differ", n)
}

// cells is the line of a table about the pair.
func (p *pair) cells() []string {
	row := []string{p.name, "-", "-", "-", "-", p.verdict()}
	if c := p.result; c != nil {
		row[1], row[2] = offsetSpan(c.StartA, c.EndA), offsetSpan(c.StartB, c.EndB)
		row[3], row[4] = offsetSpan(max(c.StartA, c.StartB), c.EqualTo), strconv.FormatInt(c.Equal, 10)
	}
	return row
}

// diffTabs is what was found, for other programs: the first field says what a line is about.
func diffTabs(pairs []*pair) (rows [][]string) {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	for _, p := range pairs {
		rows = append(rows, append([]string{"partition"}, p.cells()...))
		if p.result == nil {
			continue
		}
		for _, d := range p.result.Differences {
			rows = append(rows, []string{"difference", p.name, string(d.Kind), number(d.First), number(d.Last), number(d.Batches), d.What,
				d.FileA, number(d.PositionA), d.FileB, number(d.PositionB)})
		}
		for i, list := range [][]*inspect.Damage{p.result.DamageA, p.result.DamageB} {
			for _, d := range list {
				rows = append(rows, []string{"damage", p.name, "AB"[i : i+1], d.Error()})
			}
		}
	}
	return rows
}

func (e *env) writeDiff(pairs []*pair, most int) error {
	var rows [][]string
	for _, p := range pairs {
		rows = append(rows, p.cells())
	}
	if err := writeTable(e.Out, []string{"PARTITION", "A", "B", "SAME", "BATCHES", "RESULT"}, rows); err != nil {
		return err
	}
	for _, p := range pairs {
		if p.result == nil {
			continue
		}
		for _, line := range p.lines(most) {
			fmt.Fprintf(e.Out, "%s: %s\n", p.name, line)
		}
	}
	return nil
}

// offsetSpan is a range of offsets of which the end does not belong to it.
func offsetSpan(from, to int64) string {
	if from >= to {
		return fmt.Sprintf("none, at %d", to)
	}
	return fmt.Sprintf("%d..%d", from, to-1)
}

// lines tell what differs.
func (p *pair) lines(most int) (lines []string) {
	c := p.result
	for i, d := range c.Differences {
		if i == most {
			lines = append(lines, fmt.Sprintf("and %d more differences", len(c.Differences)+c.More-most))
			break
		}
		what := string(d.Kind)
		if d.What != "" {
			what += ": " + d.What
		}
		var at []string
		if d.FileA != "" {
			at = append(at, fmt.Sprintf("A %s at byte %d", filepath.Base(d.FileA), d.PositionA))
		}
		if d.FileB != "" {
			at = append(at, fmt.Sprintf("B %s at byte %d", filepath.Base(d.FileB), d.PositionB))
		}
		lines = append(lines, fmt.Sprintf("offsets %d to %d: %s (%s; %s)", d.First, d.Last, what, batchCount(d.Batches), strings.Join(at, ", ")))
	}
	if c.EpochsDiffer {
		lines = append(lines, fmt.Sprintf("leader epochs: %v in A, %v in B", epochsText(c, true), epochsText(c, false)))
	}
	for i, side := range [][]*inspect.Damage{c.DamageA, c.DamageB} {
		for _, d := range side {
			lines = append(lines, fmt.Sprintf("%c is damaged: %v", 'A'+i, d))
		}
	}
	for i, d := range []*inspect.Damage{c.TornA, c.TornB} {
		if d != nil {
			lines = append(lines, fmt.Sprintf("%c has a torn end, which is left out: %v", 'A'+i, d))
		}
	}
	if c.EndA != c.EndB && len(c.Differences) == 0 {
		lines = append(lines, fmt.Sprintf("the next record gets offset %d in A, %d in B", c.EndA, c.EndB))
	}
	return lines
}

func batchCount(n int64) string {
	if n == 1 {
		return "1 batch"
	}
	return fmt.Sprintf("%d batches", n)
}

func epochsText(c *inspect.Comparison, a bool) string {
	list := c.EpochsB
	if a {
		list = c.EpochsA
	}
	var words []string
	for _, e := range list {
		words = append(words, fmt.Sprintf("%d from %d", e.Epoch, e.Start))
	}
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ", ")
}

type diffPartition struct {
	Partition   string           `json:"partition"`
	Result      string           `json:"result"`
	A           *diffSide        `json:"a"`
	B           *diffSide        `json:"b"`
	SameTo      *int64           `json:"same_to,omitempty"`
	Same        int64            `json:"same_batches"`
	SameBytes   int64            `json:"same_bytes"`
	Differences []diffDifference `json:"differences"`
	More        int              `json:"more_differences,omitempty"`
	Epochs      bool             `json:"leader_epochs_differ"`
}

type diffSide struct {
	Path   string   `json:"path"`
	Start  *int64   `json:"start_offset,omitempty"`
	End    *int64   `json:"end_offset,omitempty"`
	Damage []string `json:"damage,omitempty"`
	Torn   string   `json:"torn,omitempty"`
}

type diffDifference struct {
	Kind      string `json:"kind"`
	First     int64  `json:"first_offset"`
	Last      int64  `json:"last_offset"`
	Batches   int64  `json:"batches"`
	What      string `json:"what,omitempty"`
	FileA     string `json:"file_a,omitempty"`
	PositionA *int64 `json:"position_a,omitempty"`
	FileB     string `json:"file_b,omitempty"`
	PositionB *int64 `json:"position_b,omitempty"`
}

func diffJSON(paths []string, pairs []*pair) any {
	list := []diffPartition{}
	for _, p := range pairs {
		one := diffPartition{Partition: p.name, Result: p.verdict(), Differences: []diffDifference{}}
		if p.a != nil {
			one.A = &diffSide{Path: p.a.Path}
		}
		if p.b != nil {
			one.B = &diffSide{Path: p.b.Path}
		}
		if c := p.result; c != nil {
			one.A.fill(c.StartA, c.EndA, c.DamageA, c.TornA)
			one.B.fill(c.StartB, c.EndB, c.DamageB, c.TornB)
			one.SameTo, one.Same, one.SameBytes, one.More, one.Epochs = &c.EqualTo, c.Equal, c.EqualBytes, c.More, c.EpochsDiffer
			for _, d := range c.Differences {
				x := diffDifference{Kind: string(d.Kind), First: d.First, Last: d.Last, Batches: d.Batches, What: d.What, FileA: d.FileA, FileB: d.FileB}
				if d.FileA != "" {
					x.PositionA = &d.PositionA
				}
				if d.FileB != "" {
					x.PositionB = &d.PositionB
				}
				one.Differences = append(one.Differences, x)
			}
		}
		list = append(list, one)
	}
	return struct {
		A          string          `json:"a"`
		B          string          `json:"b"`
		Partitions []diffPartition `json:"partitions"`
	}{paths[0], paths[1], list}
}

func (s *diffSide) fill(start, end int64, damage []*inspect.Damage, torn *inspect.Damage) {
	s.Start, s.End = &start, &end
	for _, d := range damage {
		s.Damage = append(s.Damage, d.Error())
	}
	if torn != nil {
		s.Torn = torn.Error()
	}
}
