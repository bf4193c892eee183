package command

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/urfave/cli/v2"

	"github.com/millrace/millrace/engine/source"
	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/inspect"
	"github.com/millrace/millrace/segment/vfs"
)

func segmentExport(e *env) *cli.Command {
	return &cli.Command{
		Name:      "export",
		Usage:     "write records as JSON or CSV, or whole partitions into another directory",
		ArgsUsage: "[PATH…]",
		Description: `Examples:
  millrace segment export ./data --topic orders > orders.jsonl
  millrace segment export ./data --topic orders --partition 3 --offsets 100..200
  millrace segment export /var/lib/kafka/data --topic payments --committed --format csv --file payments.csv
  millrace segment export ./data --topic logs --since 2h --format values | grep ERROR
  millrace segment export ./data --topic 'orders*' --format log --to /backup/orders

json is what consume --output json prints, one record a line: "segment import" and other programs
read it. csv has a line of names first; null stands as \N, and --encoding base64 is for keys and values
that are no text. values prints values alone. log copies partitions as they are, batch by batch at
their offsets, into --to DIR: a log directory as Kafka's, which "segment import" takes over and all
segment commands read; partitions that are there already are an error. Internal topics are left out
unless they are named. Damaged records are passed over, which is said and makes the exit code 1.`,
		Flags: append(filterFlags(),
			&cli.StringFlag{Name: "format", Value: "json", Usage: "json, csv, values or log"},
			&cli.StringFlag{Name: "file", Usage: "write to `FILE` instead of standard output; it must not be there yet"},
			&cli.StringFlag{Name: "to", Usage: "with --format log: the `DIR` to write to; made when it is not there"},
			&cli.StringFlag{Name: "offsets", Usage: "only offsets from A up to B: `A..B`, A.., ..B or A"},
			&cli.StringFlag{Name: "since", Usage: "only records of this time or later, or not older than a duration, as in 2026-03-01, 15m"},
			&cli.StringFlag{Name: "until", Usage: "only records of this time or earlier"},
			&cli.Int64Flag{Name: "max", Aliases: []string{"n"}, Usage: "end after `N` records"},
			&cli.BoolFlag{Name: "committed", Usage: "leave out records of transactions that were aborted or have not ended; everything is then read twice"},
			&cli.StringFlag{Name: "encoding", Value: "text", Usage: "of keys, values and headers in csv: text or base64"},
			&cli.StringFlag{Name: "null-value", Value: `\N`, Usage: "what stands for null in csv and values"},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "table", EnvVars: []string{"MILLRACE_OUTPUT"},
				Usage: "how to say what was done: table, plain (tabs: records, partitions, damaged places) or json; on standard error, unless --file or --to take what is exported"},
		),
		Action: e.segmentExport,
	}
}

// exporting is one run of export.
type exporting struct {
	e             *env
	from, to      int64 // offsets, both included
	since, until  int64 // -1: none
	max           int64 // 0: no limit
	committed     bool
	base64        bool
	null          string
	format        string
	form          string // of what is said at the end: table, plain or json
	elsewhere     bool   // what is exported does not go to standard output
	write         func(r *kgo.Record) error
	out           *bufio.Writer
	read          atomic.Int64
	records       int64
	damaged       int
	finishWriting func() error
}

func (e *env) segmentExport(c *cli.Context) (err error) {
	x, err := e.parseExport(c)
	if err != nil {
		return err
	}
	f, err := parseFilter(c)
	if err != nil {
		return err
	}
	fsys := vfs.OS()
	logs, err := e.logs(c, fsys, &f)
	if err != nil {
		return err
	}
	var total int64
	for _, l := range logs {
		total += l.part.Bytes()
	}
	if x.format != "log" {
		if err := x.open(c.String("file")); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, x.finishWriting()) }()
	}
	done := func() {}
	if c.String("file") != "" || c.String("to") != "" || !isTerminal(e.Out) {
		done = e.progress(func() string { return "exporting " + portion(x.read.Load(), total) })
	}
	defer done()
	if x.format == "log" {
		return x.logs(c.Context, fsys, logs, c.String("to"))
	}
	for _, l := range logs {
		if err := x.log(c.Context, &l); err != nil {
			return err
		}
		if x.full() {
			break
		}
	}
	done()
	if err := x.out.Flush(); err != nil {
		return err
	}
	return x.report(len(logs), fmt.Sprintf("%s of %s exported\n", count(x.records, "record"), count(len(logs), "partition")))
}

// report says what was done; sentence is that for people.
func (x *exporting) report(partitions int, sentence string) (err error) {
	out := x.e.Err
	if x.form != "table" && x.elsewhere {
		out = x.e.Out
	}
	switch x.form {
	case "json":
		err = writeJSON(out, map[string]int64{"records": x.records, "partitions": int64(partitions), "damaged": int64(x.damaged)})
	case "plain":
		_, err = fmt.Fprintf(out, "%d\t%d\t%d\n", x.records, partitions, x.damaged)
	default:
		_, err = io.WriteString(out, sentence)
	}
	if err != nil {
		return err
	}
	if x.damaged > 0 {
		return fmt.Errorf("%d damaged places were passed over: 'millrace segment verify' says which", x.damaged)
	}
	return nil
}

func (x *exporting) full() bool { return x.max > 0 && x.records >= x.max }

func (e *env) parseExport(c *cli.Context) (*exporting, error) {
	x := &exporting{e: e, to: math.MaxInt64, max: c.Int64("max"), committed: c.Bool("committed"), format: c.String("format"), null: c.String("null-value")}
	wrong := func(format string, args ...any) (*exporting, error) {
		return nil, usagef(commandPath(c), format, args...)
	}
	if !slices.Contains([]string{"json", "csv", "values", "log"}, x.format) {
		return wrong("--format %q is not one of json, csv, values, log", x.format)
	}
	switch c.String("encoding") {
	case "text":
	case "base64":
		x.base64 = true
	default:
		return wrong("--encoding %q is not one of text, base64", c.String("encoding"))
	}
	if c.IsSet("max") && x.max < 1 {
		return wrong("--max must be at least 1")
	}
	var err error
	if x.form, err = outputForm(c); err != nil {
		return nil, err
	}
	x.elsewhere = c.String("file") != "" || x.format == "log"
	if c.IsSet("offsets") {
		if x.from, x.to, err = parseOffsets(c.String("offsets")); err != nil {
			return wrong("--offsets %v", err)
		}
	}
	if x.since, x.until, err = parseTimes(c); err != nil {
		return nil, err
	}
	if x.format == "log" {
		for _, flag := range []string{"offsets", "since", "until", "max", "committed", "file"} {
			if c.IsSet(flag) {
				return wrong("--format log copies whole partitions: it goes without --%s", flag)
			}
		}
		if c.String("to") == "" {
			return wrong("--format log needs --to DIR")
		}
	} else if c.IsSet("to") {
		return wrong("--to is for --format log; --file names a file")
	}
	return x, nil
}

// open readies the writer of records.
func (x *exporting) open(name string) error {
	x.finishWriting = func() error { return nil }
	var to io.Writer = x.e.Out
	if name != "" {
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		to, x.finishWriting = f, func() error { return errors.Join(f.Sync(), f.Close()) }
	}
	x.out = bufio.NewWriterSize(to, 1<<18)
	switch x.format {
	case "json":
		x.write = func(r *kgo.Record) error { return writeJSONRecord(x.out, r) }
	case "values":
		p := printer{null: x.null}
		x.write = func(r *kgo.Record) error { p.bytes(x.out, r.Value); return x.out.WriteByte('\n') }
	case "csv":
		w := csv.NewWriter(x.out)
		x.write = func(r *kgo.Record) error {
			line, err := x.csv(r)
			if err == nil {
				err = w.Write(line)
			}
			w.Flush() // into x.out
			return errors.Join(err, w.Error())
		}
		if err := errors.Join(w.Write(csvColumns)); err != nil {
			return err
		}
		w.Flush()
	}
	return nil
}

// csvColumns are the names in the first line of csv.
var csvColumns = []string{"topic", "partition", "offset", "timestamp", "key", "value", "headers"}

// csv makes the line of a record. Headers are a JSON list of pairs.
func (x *exporting) csv(r *kgo.Record) ([]string, error) {
	line := []string{r.Topic, strconv.Itoa(int(r.Partition)), strconv.FormatInt(r.Offset, 10), r.Timestamp.UTC().Format(timestampLayout), "", "", ""}
	var err error
	text := func(b []byte) string {
		switch s := string(b); {
		case b == nil:
			return x.null
		case x.base64:
			return base64.StdEncoding.EncodeToString(b)
		case !utf8.Valid(b) || s == x.null || strings.ContainsRune(s, '\r'): // csv readers make a newline of it
			err = fmt.Errorf("%s-%d: the record at offset %d is no text that CSV could hold: give --encoding base64, or --format json", r.Topic, r.Partition, r.Offset)
			return ""
		default:
			return s
		}
	}
	line[4], line[5] = text(r.Key), text(r.Value)
	if len(r.Headers) > 0 {
		pairs := make([][2]*string, len(r.Headers))
		for i, h := range r.Headers {
			pairs[i][0] = &h.Key
			if h.Value != nil {
				value := text(h.Value)
				pairs[i][1] = &value
			}
		}
		list, _ := json.Marshal(pairs) // strings alone
		line[6] = string(list)
	}
	return line, err
}

// log exports one partition.
func (x *exporting) log(ctx context.Context, l *foundLog) error {
	takes := func(batch.Header) bool { return true }
	if x.committed {
		p := source.NewPartition(l.fs, l.part, l.opts.Start)
		if err := p.Check(ctx, source.Rules{}, func(int64) {}); err != nil {
			return err
		}
		takes = p.Takes()
	}
	l.opts.From = max(l.opts.From, x.from)
	log := l.open(func(n int64) { x.read.Add(n) }, false)
	defer log.Close()
	first := max(x.from, l.opts.Start)
	for log.Next() && !x.full() {
		if err := ctx.Err(); err != nil {
			return err
		}
		h := log.Header()
		if taken := takes(h); h.BaseOffset > x.to {
			break
		} else if !taken || h.IsControl() || h.NextOffset() <= first || x.since >= 0 && h.MaxTimestamp >= 0 && h.MaxTimestamp < x.since {
			continue
		}
		whole, err := log.Bytes()
		if err != nil {
			return err
		}
		if err := x.batch(l.part, h, whole, first); err != nil {
			return err
		}
	}
	x.damaged += log.Damaged()
	return log.Err()
}

// batch exports the records of a batch from an offset on.
func (x *exporting) batch(p *inspect.Partition, h batch.Header, whole []byte, first int64) error {
	for r, err := range batch.Records(whole, 0) {
		if err != nil {
			x.damaged++
			return nil
		}
		offset, at := h.Offset(&r), h.Timestamp(&r)
		if offset < first || offset > x.to || x.since >= 0 && at < x.since || x.until >= 0 && at > x.until {
			continue
		}
		record := &kgo.Record{Topic: p.Topic, Partition: p.Number, Offset: offset, Timestamp: time.UnixMilli(at), Key: r.Key, Value: r.Value}
		for _, header := range r.Headers {
			record.Headers = append(record.Headers, kgo.RecordHeader{Key: header.Key, Value: header.Value})
		}
		if err := x.write(record); err != nil {
			return err
		}
		if x.records++; x.full() {
			return nil
		}
	}
	return nil
}
