package command

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/inspect"
	"github.com/millrace/millrace/segment/vfs"
)

func segmentVerify(e *env) *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "compare everything on the disk with everything else, and say what is damaged or missing",
		ArgsUsage: "[PATH…]",
		Description: `Examples:
  millrace segment verify ./data
  millrace segment verify ./data --fast
  millrace segment verify ./data --topic 'orders-*' --output json
  millrace segment verify /var/lib/kafka/data

Looked at are the CRCs of batches, offsets, leader epochs and sequence numbers in their order,
indexes, producer snapshots and notes against the log, the journal against the segments,
the catalogue against the folders, and what lies there that no server makes. Each
finding names file, byte and offset, what was met, and how many records of the
partition are intact behind it. A server that opens the directory says the same in its log,
in the same words.

A directory that was not closed well is judged as the next start will leave it: with the
journal in the segments. Several data directories of one broker are given together.

Exit codes: 0 all is well, 1 damage, 2 it cannot be told: something is not there, could not be read
or is of a later version, and the rest is well (or the command line is wrong).`,
		Flags: append(filterFlags(),
			&cli.BoolFlag{Name: "fast", Usage: "structure alone: leave out the CRCs of batches"},
			&cli.BoolFlag{Name: "records", Usage: "decompress every batch and read every record, too"},
			&cli.BoolFlag{Name: "notes", Usage: "show too what is worth knowing and no damage; JSON always has it"},
			&cli.IntFlag{Name: "parallel", Usage: "look at so many partitions side by side", DefaultText: "twice the processors"},
			formFlag("tabs, without totals"),
		),
		Action: func(c *cli.Context) error { return cannotTell(e.segmentVerify(c)) },
	}
}

// findingRow is a finding as JSON.
type findingRow struct {
	Severity  string `json:"severity"`
	Partition string `json:"partition,omitempty"`
	File      string `json:"file"`
	Position  *int64 `json:"position,omitempty"`
	Bytes     int64  `json:"bytes,omitempty"`
	First     *int64 `json:"first_offset,omitempty"`
	Last      *int64 `json:"last_offset,omitempty"`
	What      string `json:"what"`
	Found     string `json:"found,omitempty"`
	After     int64  `json:"intact_records_after"`
}

func rowOf(f inspect.Finding) findingRow {
	r := findingRow{Severity: f.Severity.String(), Partition: f.Partition, File: f.File, Bytes: f.Bytes, What: f.What, Found: f.Found, After: f.After}
	if f.Position >= 0 {
		r.Position = &f.Position
	}
	if f.FirstOffset >= 0 {
		if r.First = &f.FirstOffset; f.LastOffset >= f.FirstOffset {
			r.Last = &f.LastOffset
		}
	}
	return r
}

// verifyTotals is what was seen, as JSON.
type verifyTotals struct {
	Partitions int64  `json:"partitions"`
	Segments   int64  `json:"segments"`
	Batches    int64  `json:"batches"`
	Records    int64  `json:"records"`
	Bytes      int64  `json:"bytes"`
	Damage     int64  `json:"damage"`
	Unknown    int64  `json:"unknown"`
	Notes      int64  `json:"notes"`
	Lost       int64  `json:"lost_offsets"`
	Result     string `json:"result"` // clean, damaged, unknown
}

func (t *verifyTotals) add(c inspect.Counts) {
	t.Partitions += c.Partitions
	t.Segments += c.Segments
	t.Batches += c.Batches
	t.Records += c.Records
	t.Bytes += c.Bytes
	t.Damage += c.Damage
	t.Unknown += c.Untold
	t.Notes += c.Notes
	t.Lost += c.Lost
	switch {
	case t.Damage > 0:
		t.Result = "damaged"
	case t.Unknown > 0:
		t.Result = "unknown"
	default:
		t.Result = "clean"
	}
}

// String is the line under the findings.
func (t *verifyTotals) String() string {
	s := fmt.Sprintf("%s, %s, %s, %s, %s bytes: ", count(t.Partitions, "partition"), count(t.Segments, "segment"), batches(t.Batches), count(t.Records, "record"), sizeOf(t.Bytes))
	switch {
	case t.Damage == 0 && t.Unknown == 0:
		s += "clean"
	case t.Damage == 0:
		s += "cannot tell, " + count(t.Unknown, "thing") + " could not be read"
	default:
		s += count(t.Damage, "finding") + " of damage"
		if t.Lost > 0 {
			s += ", " + count(t.Lost, "offset") + " missing or not readable"
		}
		if t.Unknown > 0 {
			s += ", " + count(t.Unknown, "thing") + " could not be read"
		}
	}
	if t.Notes > 0 {
		s += ", " + count(t.Notes, "note")
	}
	return s
}

func batches(n int64) string {
	if n == 1 {
		return "1 batch"
	}
	return strconv.FormatInt(n, 10) + " batches"
}

func (e *env) segmentVerify(c *cli.Context) error {
	path := commandPath(c)
	f, err := parseFilter(c)
	if err != nil {
		return err
	}
	form, err := outputForm(c)
	if err != nil {
		return err
	}
	if c.Int("parallel") < 0 || c.Bool("fast") && c.Bool("records") {
		return usagef(path, "--parallel is a number of partitions, and --fast goes without --records")
	}
	fsys := vfs.OS()
	places, err := e.places(c, fsys)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(e.Out)
	rows := []findingRow{}
	tell := func(f inspect.Finding) {
		if form == "json" {
			rows = append(rows, rowOf(f))
			return
		}
		if f.Severity == inspect.Note && !c.Bool("notes") {
			return
		}
		writeFinding(out, form, f)
	}
	known, err := e.knownTopics(fsys, places)
	if err != nil {
		return err
	}
	totals := verifyTotals{}
	if known.fault != nil {
		tell(*known.fault)
		totals.add(inspect.Counts{Untold: 1})
	}
	took := false
	var progress inspect.Progress
	done := e.progress(bytesProgress(&progress))
	defer done()
	for _, p := range places {
		if p.Kind == inspect.OneFile && len(p.Partitions) == 0 && segment.JournalNumber(filepath.Base(p.Path)) == 0 {
			return usagef(path, "%s is no file that can be compared with anything", p.Path)
		}
		if f := wrongMeta(fsys, p); f != nil {
			tell(*f)
			totals.add(inspect.Counts{Damage: 1})
		}
		o := inspect.VerifyOptions{Fast: c.Bool("fast"), Records: c.Bool("records"), Held: p.Held, Workers: c.Int("parallel"), Found: tell, Progress: &progress, Topic: known.topic}
		if f.narrow() {
			o.Only = func(p *inspect.Partition) bool {
				takes := f.takes(p)
				took = took || takes
				return takes
			}
		}
		counts, err := inspect.Verify(c.Context, fsys, p, o)
		if err != nil {
			return errors.Join(err, out.Flush())
		}
		totals.add(counts)
	}
	done()
	if f.narrow() && !took {
		return &exitError{ExitNotFound, errors.New("no partition here is what was asked for")}
	}
	if form == "json" {
		if err := writeJSON(out, map[string]any{"findings": rows, "totals": totals}); err != nil {
			return err
		}
	} else if form == "table" {
		fmt.Fprintln(out, totals.String())
	}
	if err := out.Flush(); err != nil {
		return err
	}
	switch {
	case totals.Damage > 0:
		return &exitError{ExitFailed, errors.New("there is damage; 'millrace segment repair' says what can be done about it")}
	case totals.Unknown > 0:
		return &exitError{exitCannotTell, errors.New("not everything could be read")}
	}
	return nil
}

// bytesProgress makes the line that says how far something has come.
func bytesProgress(p *inspect.Progress) func() string {
	begun := time.Now()
	return func() string {
		n, seconds := p.Done.Load(), time.Since(begun).Seconds()
		return fmt.Sprintf("%s of %s bytes, %s a second", sizeOf(n), sizeOf(p.Total.Load()), sizeOf(int64(float64(n)/seconds)))
	}
}

// writeFinding writes one: for people on a few lines, plain as fields with tabs between them.
func writeFinding(w io.Writer, form string, f inspect.Finding) {
	offsets := ""
	if f.FirstOffset >= 0 {
		offsets = offsetRange(f.FirstOffset, f.LastOffset)
	}
	if form == "plain" {
		position := ""
		if f.Position >= 0 {
			position = strconv.FormatInt(f.Position, 10)
		}
		fmt.Fprintln(w, strings.Join([]string{f.Severity.String(), f.Partition, f.File, position, offsets, strconv.FormatInt(f.After, 10), f.What, f.Found}, "\t"))
		return
	}
	line := f.Severity.String() + "  " + f.File
	if f.Position >= 0 {
		line += fmt.Sprintf(", at byte %d", f.Position)
	}
	fmt.Fprintln(w, line)
	fmt.Fprintln(w, "  "+f.What)
	if f.Found != "" {
		fmt.Fprintln(w, "  found: "+f.Found)
	}
	var more []string
	if offsets != "" {
		more = append(more, plural("offset", f.FirstOffset != f.LastOffset)+" "+offsets)
	}
	if f.After > 0 {
		more = append(more, count(f.After, "intact record")+" of "+f.Partition+" behind it")
	}
	if len(more) > 0 {
		fmt.Fprintln(w, "  "+strings.Join(more, ", "))
	}
}

// offsetRange writes offsets as --offsets of dump takes them; without a last one it is open.
func offsetRange(first, last int64) string {
	switch {
	case last < first:
		return fmt.Sprintf("%d..", first)
	case last == first:
		return strconv.FormatInt(first, 10)
	}
	return fmt.Sprintf("%d..%d", first, last)
}

func plural(noun string, many bool) string {
	if many {
		return noun + "s"
	}
	return noun
}

// known is what the catalogue of the places knows.
type known struct {
	image *catalog.Image
	topic func(id [16]byte) (partitions int, known bool) // nil when there is no catalogue
	fault *inspect.Finding
}

// knownTopics reads the catalogue that lies in one of the places, from a copy.
func (e *env) knownTopics(fsys vfs.FS, places []*inspect.Place) (k known, err error) {
	for _, p := range places {
		if p.Catalog == "" || p.Kind != inspect.WholeDirectory {
			continue
		}
		temp, err := os.MkdirTemp("", "millrace-catalog-")
		if err != nil {
			return k, fmt.Errorf("the catalogue is read from a copy: %w", err)
		}
		img, err := (&dumper{fsys: fsys, held: p.Held}).readCatalog(p.Catalog, temp)
		if gone := os.RemoveAll(temp); err == nil && gone != nil {
			return k, gone
		}
		if err != nil {
			k.fault = &inspect.Finding{Severity: inspect.Untold, File: p.Catalog, Position: -1, FirstOffset: -1, LastOffset: -1, What: inspect.SaidUnreadable, Found: err.Error()}
			return k, nil
		}
		k.image = img
		k.topic = func(id [16]byte) (int, bool) {
			t := img.TopicByID(catalog.TopicID(id))
			if t == nil {
				return 0, false
			}
			return len(t.Partitions), true
		}
		return k, nil
	}
	return k, nil
}

// wrongMeta looks at the file that says whose data directory this is.
func wrongMeta(fsys vfs.FS, p *inspect.Place) *inspect.Finding {
	if p.Layout != inspect.Millrace || !p.Meta.There() {
		return nil
	}
	text, err := vfs.ReadFile(fsys, p.Meta.Path)
	if err == nil {
		err = engine.CheckMeta(text)
	}
	if err == nil {
		return nil
	}
	return &inspect.Finding{Severity: inspect.Harm, File: p.Meta.Path, Position: -1, FirstOffset: -1, LastOffset: -1,
		What: "nobody can tell whose data directory this is: no broker starts with it", Found: err.Error()}
}

// indexInterval gives index.interval.bytes of a partition, as far as the catalogue knows.
func (k *known) indexInterval(p *inspect.Partition) int {
	if k.image != nil {
		if t := k.image.TopicByID(catalog.TopicID(p.TopicID)); t != nil {
			if n, err := strconv.Atoi(t.Configs["index.interval.bytes"]); err == nil && n >= 0 {
				return n
			}
		}
	}
	return 4096
}

// short is a path below a place.
func short(p *inspect.Place, file string) string {
	if rel, err := filepath.Rel(p.Path, file); err == nil && !strings.HasPrefix(rel, "..") {
		return rel
	}
	return file
}
