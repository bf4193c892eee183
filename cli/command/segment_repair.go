package command

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/millrace/millrace/segment/inspect"
	"github.com/millrace/millrace/segment/vfs"
)

func segmentRepair(e *env) *cli.Command {
	return &cli.Command{
		Name:      "repair",
		Usage:     "mend what verify finds: shows a plan, asks, and keeps what it removes",
		ArgsUsage: "[PATH…]",
		Description: `Examples:
  millrace segment repair ./data --dry-run
  millrace segment repair ./data
  millrace segment repair ./data --salvage
  millrace segment repair ./data --topic orders --partition 3 --yes

A log ends before its first damage when it is mended, as after a crash, and offsets from there on
are given out again. With --salvage only what is damaged goes: intact batches behind it stay where
they are, at their offsets. Indexes, producer snapshots, leader epochs and notes are built
anew from the log. Copies of segments and files that no server makes are set aside.

What is removed is kept in the folder quarantine of the data directory (for Kafka's, and for folders
that lie by themselves, in a folder beside it), with the plan. A server must not run. A repair that
was cut short is begun again, and comes to the same end; one that finds nothing does nothing.

Exit codes: 0 all is well now (with --dry-run: would be), 1 something is left that is not mended, or
the answer was no.`,
		Flags: append(filterFlags(),
			&cli.BoolFlag{Name: "salvage", Usage: "keep intact batches behind damage"},
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "show the plan, and do nothing"},
			&cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do it without asking"},
			&cli.StringFlag{Name: "stamp", Usage: "the `NAME` of the folder in the quarantine for what this repair removes", DefaultText: "the time"},
			formFlag("tabs: a line for each step, and for each finding that is left"),
		),
		Action: e.segmentRepair,
	}
}

// stepRow is a step as JSON.
type stepRow struct {
	Partition string     `json:"partition,omitempty"`
	Do        string     `json:"do"`
	File      string     `json:"file"`
	Position  *int64     `json:"position,omitempty"`
	Bytes     int64      `json:"bytes,omitempty"`
	Lost      []rangeRow `json:"offsets,omitempty"`
	Records   int64      `json:"intact_records,omitempty"`
	Why       string     `json:"why"`
}

type rangeRow struct {
	First int64 `json:"first"`
	Last  int64 `json:"last"`
}

// rangesText writes ranges of offsets.
func rangesText(list []inspect.OffsetRange) string {
	var words []string
	for _, r := range list {
		words = append(words, offsetRange(r.First, r.Last))
	}
	return strings.Join(words, ",")
}

func stepRowOf(s inspect.Step) stepRow {
	r := stepRow{Partition: s.Partition, Do: s.Do, File: s.File, Bytes: s.Bytes, Records: s.Records, Why: s.Why}
	if s.Position >= 0 {
		r.Position = &s.Position
	}
	for _, lost := range s.Offsets {
		r.Lost = append(r.Lost, rangeRow{lost.First, lost.Last})
	}
	return r
}

func (e *env) segmentRepair(c *cli.Context) error {
	path := commandPath(c)
	f, err := parseFilter(c)
	if err != nil {
		return err
	}
	form, err := outputForm(c)
	if err != nil {
		return err
	}
	if form == "json" && !c.Bool("yes") && !c.Bool("dry-run") {
		return usagef(path, "--output json cannot ask: say --yes or --dry-run")
	}
	fsys := vfs.OS()
	places, err := e.places(c, fsys)
	if err != nil {
		return err
	}
	for _, p := range places {
		switch {
		case p.Held:
			return &exitError{ExitFailed, fmt.Errorf("a running server holds %s: it must be stopped first", p.Path)}
		case p.Kind == inspect.OneFile:
			return usagef(path, "%s is one file: a partition's folder is mended as a whole, or a data directory", p.Path)
		}
	}
	known, err := e.knownTopics(fsys, places)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range places {
		o := inspect.RepairOptions{Salvage: c.Bool("salvage"), Stamp: cmp.Or(c.String("stamp"), time.Now().UTC().Format("20060102-150405.000")), IndexInterval: known.indexInterval, Topic: known.topic}
		if f.narrow() {
			o.Only = f.takes
		}
		if err := e.repairPlace(c, fsys, p, o, form); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// repairPlace mends one place.
func (e *env) repairPlace(c *cli.Context, fsys vfs.FS, p *inspect.Place, o inspect.RepairOptions, form string) (err error) {
	if p.Lock != "" && !c.Bool("dry-run") {
		lock, err := fsys.Lock(p.Lock)
		if errors.Is(err, vfs.ErrLocked) {
			return &exitError{ExitFailed, fmt.Errorf("a running server holds %s: it must be stopped first", p.Path)}
		}
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, lock.Close()) }()
		if p, err = inspect.Find(fsys, p.Path); err != nil {
			return err
		}
	}
	if c.String("stamp") != "" && (o.Stamp != filepath.Base(o.Stamp) || o.Stamp == "." || o.Stamp == "..") {
		return usagef(commandPath(c), "--stamp %q is not the name of a folder", o.Stamp)
	}
	o.Progress = new(inspect.Progress)
	done := e.progress(bytesProgress(o.Progress))
	defer done()
	plan, err := inspect.PlanRepair(c.Context, fsys, p, o)
	if done(); err != nil {
		return err
	}
	out := bufio.NewWriter(e.Out)
	mended := false
	if form == "json" {
		defer func() {
			rows, left := []stepRow{}, []findingRow{}
			for _, s := range plan.Steps {
				rows = append(rows, stepRowOf(s))
			}
			for _, f := range plan.Left {
				left = append(left, rowOf(f))
			}
			offsets, records := plan.Lost()
			doc := map[string]any{"path": p.Path, "steps": rows, "left": left, "lost_offsets": offsets, "lost_intact_records": records, "done": mended}
			if len(rows) > 0 {
				doc["quarantine"] = plan.Quarantine
			}
			err = errors.Join(err, writeJSON(e.Out, doc))
		}()
	} else {
		if form == "plain" {
			writePlanTabs(out, plan)
		} else {
			e.writePlan(out, p, plan, o.Salvage)
		}
		if err := out.Flush(); err != nil {
			return err
		}
	}
	if len(plan.Steps) > 0 && !c.Bool("dry-run") {
		if !c.Bool("yes") && !e.asked("Do this? [y/N] ") {
			return &exitError{ExitFailed, errors.New("nothing was done")}
		}
		if _, err := fsys.Stat(plan.Quarantine); err == nil {
			return fmt.Errorf("%s is there already: name another with --stamp", plan.Quarantine)
		}
		if err := plan.Apply(c.Context, nil); err != nil {
			return fmt.Errorf("%w\nWhat was done so far is whole; the same command goes on from there", err)
		}
		mended = true
		if form == "table" {
			fmt.Fprintf(e.Out, "done: %s; what was removed is in %s\n", count(len(plan.Steps), "step"), plan.Quarantine)
		}
	}
	return e.lookAgain(c, fsys, p, o, plan, mended)
}

// lookAgain verifies what was mended.
func (e *env) lookAgain(c *cli.Context, fsys vfs.FS, p *inspect.Place, o inspect.RepairOptions, plan *inspect.Plan, mended bool) error {
	left := len(plan.Left)
	if mended {
		again, err := inspect.Find(fsys, p.Path)
		if err != nil {
			return err
		}
		next, err := inspect.PlanRepair(c.Context, fsys, again, o)
		if err != nil {
			return err
		}
		if len(next.Steps) > 0 {
			return &exitError{ExitFailed, fmt.Errorf("after the repair %s would be done: run it again", count(len(next.Steps), "step"))}
		}
		left = len(next.Left)
	} else if len(plan.Steps) > 0 {
		return nil // a dry run
	}
	if left > 0 {
		return &exitError{ExitFailed, fmt.Errorf("%s left, which a repair does not mend", count(left, "finding"))}
	}
	return nil
}

// writePlan shows what is to be done, what it costs, and what it leaves.
func (e *env) writePlan(w io.Writer, p *inspect.Place, plan *inspect.Plan, salvage bool) {
	if len(plan.Steps) == 0 && len(plan.Left) == 0 {
		fmt.Fprintf(w, "%s: nothing to mend\n", p.Path)
		return
	}
	if len(plan.Steps) > 0 {
		fmt.Fprintf(w, "%s: %s\n", p.Path, count(len(plan.Steps), "step"))
	}
	for i, s := range plan.Steps {
		fmt.Fprintf(w, "%3d. %s %s", i+1, s.Do, short(p, s.File))
		if s.Position >= 0 {
			fmt.Fprintf(w, " at byte %d", s.Position)
		}
		var cost []string
		if s.Bytes > 0 {
			cost = append(cost, count(s.Bytes, "byte"))
		}
		if s.Lost() > 0 {
			const few = 6
			list := s.Offsets[:min(len(s.Offsets), few)]
			cost = append(cost, plural("offset", s.Lost() > 1)+" "+rangesText(list))
			if more := len(s.Offsets) - len(list); more > 0 {
				cost = append(cost, count(more, "further range"))
			}
		}
		if s.Records > 0 {
			cost = append(cost, count(s.Records, "intact record"))
		}
		if len(cost) > 0 {
			fmt.Fprintf(w, " (%s)", strings.Join(cost, ", "))
		}
		fmt.Fprintf(w, "\n     %s\n", s.Why)
	}
	for _, f := range plan.Left {
		fmt.Fprintln(w, "not mended:")
		writeFinding(w, "table", f)
	}
	if len(plan.Steps) == 0 {
		return
	}
	offsets, records := plan.Lost()
	fmt.Fprintf(w, "lost with it: %s, %s among them\n", count(offsets, "offset"), count(records, "intact record"))
	if records > 0 && !salvage {
		fmt.Fprintln(w, "--salvage keeps the intact records")
	}
	fmt.Fprintf(w, "what is removed goes to %s\n", plan.Quarantine)
}

// writePlanTabs shows the plan to other programs.
func writePlanTabs(w io.Writer, plan *inspect.Plan) {
	for _, s := range plan.Steps {
		position := ""
		if s.Position >= 0 {
			position = strconv.FormatInt(s.Position, 10)
		}
		fmt.Fprintln(w, strings.Join([]string{"step", s.Partition, s.Do, s.File, position, strconv.FormatInt(s.Bytes, 10), rangesText(s.Offsets), strconv.FormatInt(s.Records, 10), s.Why}, "\t"))
	}
	for _, f := range plan.Left {
		writeFinding(w, "plain", f)
	}
}

// asked asks a question, and tells whether the answer was yes.
func (e *env) asked(question string) bool {
	fmt.Fprint(e.Err, question)
	line, _ := bufio.NewReader(e.In).ReadString('\n') // an end is a no
	answer := strings.ToLower(strings.TrimSpace(line))
	if !isTerminal(e.In) {
		fmt.Fprintln(e.Err, cmp.Or(answer, "no answer"))
	}
	return answer == "y" || answer == "yes"
}
