package command

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/urfave/cli/v2"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/inspect"
	"github.com/millrace/millrace/segment/vfs"
)

// dumpParts are what --what takes, in the order in which a folder's are shown.
var dumpParts = []string{"meta", "catalog", "journal", "start", "epochs", "log", "index", "timeindex", "txnindex", "snapshot", "sealed", "checkpoint"}

// dirParts are those that belong to a directory, and not to one of its partitions.
var dirParts = []string{"meta", "catalog", "journal"}

func segmentDump(e *env) *cli.Command {
	return &cli.Command{
		Name:      "dump",
		Usage:     "show what files hold: batches, records, indexes, snapshots, the journal, the catalogue",
		ArgsUsage: "[PATH…]",
		Description: `Examples:
  millrace segment dump ./data --topic orders --offsets 100..200
  millrace segment dump ./data --topic orders --grep 'id=17\b' --since 2h --records
  millrace segment dump ./data --topic __consumer_offsets --output json
  millrace segment dump ./data --what journal,catalog
  millrace segment dump /var/lib/kafka/data/orders-0/00000000000000000000.log --batches
  millrace segment dump /var/lib/kafka/data/orders-0/00000000000000000000.timeindex
  millrace segment dump ./data --topic orders --what all --output json

A file is shown as what it is; of a folder or a data directory the records are shown, unless
--what says otherwise. Every batch's CRC is checked; damage is said where it lies, what
is intact behind it is shown, and the exit code is then 1.

--output plain writes the lines of Kafka's own kafka-dump-log --deep-iteration --print-data-log,
letter for letter; json one document a line. Records of __consumer_offsets and __transaction_state
are decoded, unless --raw is given or the output is plain.

Of a directory that was not closed cleanly, records are shown where the next start would put them
that the journal alone has.`,
		Flags: append(filterFlags(),
			&cli.StringSliceFlag{Name: "what", Usage: "`PART`s to show: " + strings.Join(dumpParts, ", ") + ", or all; may be repeated, or with commas between them"},
			&cli.StringFlag{Name: "offsets", Usage: "only records with these offsets, both included: `A..B`, A.., ..B or A"},
			&cli.StringFlag{Name: "since", Usage: "only records with this `TIME` or a later one, or not older than a duration, as in 2026-03-01T08:00:00Z, 15m"},
			&cli.StringFlag{Name: "until", Usage: "only records with this `TIME` or an earlier one"},
			&cli.StringFlag{Name: "grep", Usage: "only records in whose key, value or headers the regular `EXPRESSION` matches"},
			&cli.Int64Flag{Name: "max", Usage: "end after so many records, or batches with --batches"},
			&cli.BoolFlag{Name: "batches", Usage: "batches without their records, which are then not decompressed"},
			&cli.BoolFlag{Name: "records", Usage: "records without their batches"},
			&cli.BoolFlag{Name: "control", Usage: "only control records: ends of transactions, changes of leaders"},
			&cli.BoolFlag{Name: "keys-only", Usage: "leave values and headers out"},
			&cli.StringFlag{Name: "format", Value: "text", Usage: "of keys, values and headers: text, hex, base64, or json (as it is where it is JSON)"},
			&cli.BoolFlag{Name: "raw", Usage: "do not decode the records of internal topics"},
			formFlag("the lines of Kafka's kafka-dump-log"),
		),
		Action: e.segmentDump,
	}
}

// dumpOptions are the flags.
type dumpOptions struct {
	filter
	what                            []string // nil: by what the path is
	from, to                        int64    // offsets, both included
	since, until                    int64    // milliseconds; -1: none
	grep                            *regexp.Regexp
	max                             int64 // 0: all
	batches, records, control, keys bool
	raw                             bool
	format                          byteFormat
	output                          string
	picks                           bool // single records are chosen
}

func parseDump(c *cli.Context) (*dumpOptions, error) {
	path := commandPath(c)
	o := &dumpOptions{from: 0, to: math.MaxInt64, max: c.Int64("max"), batches: c.Bool("batches"), records: c.Bool("records"),
		control: c.Bool("control"), keys: c.Bool("keys-only"), raw: c.Bool("raw"), output: c.String("output")}
	var err error
	if o.filter, err = parseFilter(c); err != nil {
		return nil, err
	}
	if !slices.Contains([]string{"table", "plain", "json"}, o.output) {
		return nil, usagef(path, "--output %q is not one of table, plain, json", o.output)
	}
	for _, list := range c.StringSlice("what") {
		for part := range strings.SplitSeq(list, ",") {
			if part = strings.TrimSpace(part); part == "all" {
				o.what = append(o.what, dumpParts...)
			} else if slices.Contains(dumpParts, part) {
				o.what = append(o.what, part)
			} else {
				return nil, usagef(path, "--what %q is not one of %s, all%s", part, strings.Join(dumpParts, ", "), didYouMean(part, dumpParts))
			}
		}
	}
	if c.IsSet("offsets") {
		if o.from, o.to, err = parseOffsets(c.String("offsets")); err != nil {
			return nil, usagef(path, "--offsets %v", err)
		}
	}
	if o.since, o.until, err = parseTimes(c); err != nil {
		return nil, err
	}
	if c.IsSet("grep") {
		if o.grep, err = regexp.Compile(c.String("grep")); err != nil {
			return nil, usagef(path, "--grep %v", err)
		}
	}
	var known bool
	if o.format, known = byteFormats[c.String("format")]; !known {
		return nil, usagef(path, "--format %q is not one of text, hex, base64, json", c.String("format"))
	}
	switch {
	case c.IsSet("max") && o.max < 1:
		return nil, usagef(path, "--max must be at least 1")
	case o.batches && (o.records || o.keys || o.grep != nil):
		return nil, usagef(path, "--batches shows no records: it goes without --records, --keys-only and --grep")
	}
	o.raw = o.raw || o.output == "plain"
	o.picks = o.grep != nil || o.since >= 0 || o.until >= 0 || o.from > 0 || o.to < math.MaxInt64
	return o, nil
}

// parseOffsets reads A..B, both included.
func parseOffsets(s string) (from, to int64, err error) {
	a, b, ranged := strings.Cut(s, "..")
	if !ranged {
		b = a
	}
	number := func(s string, otherwise int64) (n int64) {
		if s == "" && ranged {
			return otherwise
		}
		n, failed := strconv.ParseInt(s, 10, 64)
		if failed != nil || n < 0 {
			err = fmt.Errorf("%q is not A..B, A.., ..B or an offset", s)
		}
		return n
	}
	from, to = number(a, 0), number(b, math.MaxInt64)
	if err == nil && from > to {
		err = fmt.Errorf("%q: the first is larger than the last", s)
	}
	return from, to, err
}

// errEnough ends a dump that has shown --max records.
var errEnough = errors.New("enough")

// dumper shows the files of places.
type dumper struct {
	fsys    vfs.FS
	o       *dumpOptions
	out     *bufio.Writer
	sink    dumpSink
	ctx     context.Context
	held    bool // a server may be writing to what is read
	shown   int64
	damage  int
	reading atomic.Pointer[string] // the file, for the progress line
	read    atomic.Int64           // bytes of it
	overlay *inspect.Overlay       // what fsys shows of the journal
	scratch recordView
}

func (e *env) segmentDump(c *cli.Context) error {
	o, err := parseDump(c)
	if err != nil {
		return err
	}
	fsys := vfs.OS()
	places, err := e.places(c, fsys)
	if err != nil {
		return err
	}
	d := &dumper{fsys: fsys, o: o, out: bufio.NewWriterSize(e.Out, 256<<10), ctx: c.Context}
	d.sink = newSink(o, d.out)
	if !isTerminal(e.Out) {
		defer e.progress(d.progress)()
	}
	matched := false
	for _, p := range places {
		d.held = p.Held
		took, err := d.place(p)
		if matched = matched || took; err != nil {
			if errors.Is(err, errEnough) {
				matched = true
				break
			}
			return errors.Join(err, d.out.Flush())
		}
	}
	if err := d.out.Flush(); err != nil {
		return err
	}
	if o.narrow() && !matched {
		return &exitError{ExitNotFound, errors.New("no partition here is what was asked for")}
	}
	if d.damage > 0 {
		return &exitError{ExitFailed, fmt.Errorf("damage in %s; 'millrace segment verify' tells what it means", count(d.damage, "place"))}
	}
	return nil
}

// progress is the line that a terminal shows while the output goes elsewhere.
func (d *dumper) progress() string {
	name := d.reading.Load()
	if name == nil {
		return ""
	}
	return fmt.Sprintf("%s: %s bytes", *name, sizeOf(d.read.Load()))
}

// place shows what was asked for of a place; took tells whether a partition was among it.
func (d *dumper) place(p *inspect.Place) (took bool, err error) {
	if p.Kind == inspect.OneFile {
		return true, d.file(p)
	}
	parts := d.o.what
	if parts == nil {
		parts = []string{"log"}
	}
	if p.Kind == inspect.WholeDirectory {
		if err := d.directory(p, parts); err != nil {
			return false, err
		}
		took = !slices.ContainsFunc(parts, func(part string) bool { return !slices.Contains(dirParts, part) }) // partitions were not asked for
	}
	below := d.fsys
	defer func() { d.fsys, d.overlay = below, nil }()
	if d.overlay, err = inspect.NewOverlay(below, p); err != nil {
		return false, err
	}
	d.fsys = d.overlay.FS(below)
	for i := range p.Partitions {
		part := &p.Partitions[i]
		if !d.o.takes(part) {
			continue
		}
		took = true
		if err := d.partition(part, parts); err != nil {
			return took, err
		}
	}
	return took, nil
}

// directory shows what belongs to no partition.
func (d *dumper) directory(p *inspect.Place, parts []string) error {
	for _, part := range dirParts {
		if !slices.Contains(parts, part) {
			continue
		}
		var err error
		switch part {
		case "meta":
			for _, f := range append([]inspect.File{p.Meta}, p.Checkpoints...) {
				if f.There() && err == nil {
					err = d.text(f)
				}
			}
		case "catalog":
			if p.Catalog != "" {
				err = d.catalog(p.Catalog)
			}
		case "journal":
			for _, f := range p.Journal {
				if err == nil {
					err = d.journal(f.Path)
				}
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// partition shows parts of a partition's folder.
func (d *dumper) partition(p *inspect.Partition, parts []string) error {
	wants := func(part string) bool { return slices.Contains(parts, part) }
	type small struct {
		part string
		file inspect.File
	}
	for _, s := range []small{{"meta", p.Metadata}, {"meta", p.Quorum}, {"start", p.LogStart}, {"epochs", p.Epochs}} {
		if wants(s.part) && s.file.There() {
			if err := d.smallFile(s.file, 0); err != nil {
				return err
			}
		}
	}
	for i := range p.Segments {
		s := &p.Segments[i]
		if wants("log") && s.Log.There() && !(i+1 < len(p.Segments) && p.Segments[i+1].Base <= d.o.from) && s.Base <= d.o.to {
			if err := d.log(p, s); err != nil {
				return err
			}
		}
		for _, f := range []small{{"index", s.Index}, {"timeindex", s.TimeIndex}, {"txnindex", s.TxnIndex}, {"sealed", s.Sealed}, {"checkpoint", s.Checkpoint}} {
			if wants(f.part) && f.file.There() {
				if err := d.smallFile(f.file, s.Base); err != nil {
					return err
				}
			}
		}
	}
	if wants("snapshot") {
		for _, s := range p.Snapshots {
			if err := d.smallFile(s.File, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// file shows a single file as what its name says it is.
func (d *dumper) file(p *inspect.Place) error {
	base := int64(0)
	if len(p.Partitions) == 1 {
		part := &p.Partitions[0]
		if len(part.Segments) == 1 {
			s := &part.Segments[0]
			base = s.Base
			if s.Log.There() {
				if err := d.besides(part, s); err != nil {
					return err
				}
				return d.log(part, s)
			}
		}
		if len(part.Images) == 1 {
			return d.log(part, &inspect.Segment{Log: part.Images[0]})
		}
	}
	if segment.JournalNumber(filepath.Base(p.Path)) > 0 {
		return d.journal(p.Path)
	}
	return d.smallFile(p.File, base)
}

// besides finds the index of a single log, to seek with.
func (d *dumper) besides(p *inspect.Partition, s *inspect.Segment) error {
	path := filepath.Join(p.Path, segment.FileName(s.Base, "index"))
	info, err := d.fsys.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	s.Index = inspect.File{Path: path, Size: info.Size(), Modified: info.ModTime()}
	return nil
}

// topicOf is the topic whose formats decide how records are decoded.
func (d *dumper) topicOf(p *inspect.Partition) string {
	if d.o.raw {
		return ""
	}
	return cmp.Or(p.Topic, "")
}
