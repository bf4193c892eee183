package command

import (
	"context"
	"encoding/base64"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/inspect"
	"github.com/millrace/millrace/segment/vfs"
)

func segmentStat(e *env) *cli.Command {
	return &cli.Command{
		Name:      "stat",
		Usage:     "measure records: sizes, keys, compression, gaps, rates",
		ArgsUsage: "[PATH…]",
		Description: `Examples:
  millrace segment stat ./data
  millrace segment stat ./data --by topic --topic 'orders*'
  millrace segment stat /var/lib/kafka/data --by partition --fast
  millrace segment stat ./data --top 20 --output json | jq '.stats[0].keys'

To plan with: how large batches and records are, which keys have the most records, what compression brings, when nothing
came, how much came at the busiest time. Every record is decompressed, unless --fast asks for batch
headers alone. Sizes are told to four percent. Keys are counted in constant memory: a count may be
too large by what stands behind ±, never too small. Internal topics are left out unless they are named.`,
		Flags: append(filterFlags(),
			&cli.StringFlag{Name: "by", Value: "all", Usage: "one result for all, or for each topic, or partition"},
			&cli.IntFlag{Name: "top", Value: 10, Usage: "show so many keys"},
			&cli.BoolFlag{Name: "fast", Usage: "read batch headers alone: nothing of records, keys and compression ratios"},
			formFlag("tabs: result, measure, value"),
		),
		Action: e.segmentStat,
	}
}

// statOf is one result.
type statOf struct {
	name  string
	mu    sync.Mutex
	stats *inspect.Stats
}

func (e *env) segmentStat(c *cli.Context) error {
	form, err := outputForm(c)
	if err != nil {
		return err
	}
	f, err := parseFilter(c)
	if err != nil {
		return err
	}
	by := c.String("by")
	if !slices.Contains([]string{"all", "topic", "partition"}, by) {
		return usagef(commandPath(c), "--by %q is not one of all, topic, partition", by)
	}
	logs, err := e.logs(c, vfs.OS(), &f)
	if err != nil {
		return err
	}
	results, err := e.measure(c.Context, logs, by, !c.Bool("fast"))
	if err != nil {
		return err
	}
	if form != "table" {
		out := struct {
			Stats []statJSON `json:"stats"`
		}{[]statJSON{}}
		for _, r := range results {
			out.Stats = append(out.Stats, statJSONOf(r, c.Int("top")))
		}
		if form == "json" {
			return writeJSON(e.Out, out)
		}
		return writeTabs(e.Out, statTabs(out.Stats))
	}
	for i, r := range results {
		if i > 0 {
			fmt.Fprintln(e.Out)
		}
		if err := e.writeStat(r, c.Int("top"), by); err != nil {
			return err
		}
	}
	return nil
}

// measure reads all logs, two at a time.
func (e *env) measure(ctx context.Context, logs []foundLog, by string, decode bool) ([]*statOf, error) {
	var results []*statOf
	into := map[string]*statOf{}
	var read, total atomic.Int64
	for _, l := range logs {
		name := map[string]string{"all": "all", "topic": l.part.Topic, "partition": l.part.Name()}[by]
		if into[l.part.Path] = findStat(results, name); into[l.part.Path] == nil {
			r := &statOf{name: name, stats: inspect.NewStats(decode)}
			results, into[l.part.Path] = append(results, r), r
		}
		total.Add(l.part.Bytes())
	}
	done := e.progress(func() string { return "reading " + portion(read.Load(), total.Load()) })
	defer done()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(2)
	for _, l := range logs {
		group.Go(func() error {
			log := l.open(func(n int64) { read.Add(n) }, !decode)
			defer log.Close()
			one := inspect.NewStats(decode)
			if err := one.Add(ctx, l.part.Name(), log); err != nil {
				return fmt.Errorf("%s: %w", l.part.Path, err)
			}
			r := into[l.part.Path]
			r.mu.Lock()
			defer r.mu.Unlock()
			r.stats.Merge(one)
			return nil
		})
	}
	return results, group.Wait()
}

func findStat(results []*statOf, name string) *statOf {
	if i := slices.IndexFunc(results, func(r *statOf) bool { return r.name == name }); i >= 0 {
		return results[i]
	}
	return nil
}

func (e *env) writeStat(r *statOf, top int, by string) error {
	s := r.stats
	if by != "all" {
		fmt.Fprintf(e.Out, "%s %s\n", by, r.name)
	}
	words := []string{count(s.Partitions, "partition"), count(s.Segments, "segment"), batchCount(s.Batches), count(s.Records, "record"), sizeOf(s.Bytes)}
	if s.Control > 0 {
		words = append(words, count(s.Control, "transaction marker"))
	}
	if s.Damaged > 0 {
		words = append(words, fmt.Sprintf("%d damaged places passed over: see 'segment verify'", s.Damaged))
	}
	fmt.Fprintln(e.Out, strings.Join(words, ", "))
	if s.Records == 0 {
		return nil
	}
	fmt.Fprintln(e.Out)
	rows := [][]string{spreadRow("batch bytes", &s.BatchSize), spreadRow("batch records", &s.BatchRecords)}
	for _, each := range []struct {
		name   string
		spread *inspect.Spread
	}{{"record bytes", &s.RecordSize}, {"key bytes", &s.KeySize}, {"value bytes", &s.ValueSize}} {
		if each.spread.N > 0 {
			rows = append(rows, spreadRow(each.name, each.spread))
		}
	}
	if err := writeTable(e.Out, []string{"SIZES", "COUNT", "MEAN", "MIN", "P50", "P90", "P99", "MAX"}, rows); err != nil {
		return err
	}
	fmt.Fprintln(e.Out)
	rows = nil
	for i := range s.Codecs {
		if x := &s.Codecs[i]; x.Batches > 0 {
			rows = append(rows, []string{batch.Codec(i).String(), strconv.FormatInt(x.Batches, 10), strconv.FormatInt(x.Records, 10), sizeOf(x.Stored), plainSize(x), ratioText(x)})
		}
	}
	if err := writeTable(e.Out, []string{"CODEC", "BATCHES", "RECORDS", "STORED", "PLAIN", "RATIO"}, rows); err != nil {
		return err
	}
	if err := e.writeKeys(s, top); err != nil {
		return err
	}
	e.writeTimes(s)
	return nil
}

func spreadRow(name string, d *inspect.Spread) []string {
	row := []string{name, strconv.FormatInt(d.N, 10), strconv.FormatFloat(d.Mean(), 'f', 1, 64), strconv.FormatInt(d.Min, 10)}
	for _, q := range []float64{.5, .9, .99} {
		row = append(row, strconv.FormatInt(d.Quantile(q), 10))
	}
	return append(row, strconv.FormatInt(d.Max, 10))
}

func plainSize(x *inspect.CodecStats) string {
	if x.Plain == 0 {
		return "-"
	}
	return sizeOf(x.Plain)
}

func ratioText(x *inspect.CodecStats) string {
	if x.Plain == 0 || x.Stored == 0 {
		return "-"
	}
	return strconv.FormatFloat(float64(x.Plain)/float64(x.Stored), 'f', 2, 64)
}

func (e *env) writeKeys(s *inspect.Stats, top int) error {
	if s.RecordSize.N == 0 {
		return nil
	}
	about := ""
	if s.Keys.Distinct() >= 1000 {
		about = "about "
	}
	fmt.Fprintf(e.Out, "\n%s%s, %s without a key, %d with a null value, %s\n", about, count(s.Keys.Distinct(), "distinct key"), count(s.NoKey, "record"), s.NoValue, count(s.Headers, "header"))
	var rows [][]string
	for _, x := range s.Keys.Top(top) {
		n := strconv.FormatInt(x.Count, 10)
		if x.Over > 0 {
			n += " ±" + strconv.FormatInt(x.Over, 10)
		}
		rows = append(rows, []string{keyText(x.Key), n, fmt.Sprintf("%.1f %%", 100*float64(x.Count)/float64(s.RecordSize.N)), sizeOf(x.Bytes)})
	}
	if len(rows) == 0 {
		return nil
	}
	return writeTable(e.Out, []string{"KEY", "RECORDS", "SHARE", "BYTES"}, rows)
}

// keyText writes a key so that it stays on one line.
func keyText(key string) string {
	const longest = 40
	text := key
	if !utf8.ValidString(key) {
		text = fmt.Sprintf("0x%x", key)
	} else if q := strconv.Quote(key); q != `"`+key+`"` || key == "" {
		text = q
	}
	if r := []rune(text); len(r) > longest {
		return string(r[:longest-1]) + "…"
	}
	return text
}

func (e *env) writeTimes(s *inspect.Stats) {
	if s.First < 0 {
		return
	}
	whole := time.Duration(s.Last-s.First) * time.Millisecond
	fmt.Fprintf(e.Out, "\nfirst    %s\nlast     %s, %s later\n", moment(s.First), moment(s.Last), durationText(whole))
	if seconds := whole.Seconds(); seconds >= 1 {
		fmt.Fprintf(e.Out, "mean     %.1f records/s, %sB/s\n", float64(s.Records)/seconds, sizeOf(int64(float64(s.Bytes)/seconds)))
	}
	if at, records, bytes, ok := s.Rate.Busiest(); ok {
		width := time.Duration(s.Rate.Width) * time.Millisecond
		fmt.Fprintf(e.Out, "busiest  %s, for %s: %.1f records/s, %sB/s\n", moment(at), durationText(width), float64(records)/width.Seconds(), sizeOf(int64(float64(bytes)/width.Seconds())))
		if whole > width {
			fmt.Fprintf(e.Out, "active   %.1f %% of the time, in steps of %s\n", min(100, 100*float64(s.Rate.Active())/(whole.Seconds()/width.Seconds()+1)), durationText(width))
		}
	}
	if s.Late > 0 {
		fmt.Fprintf(e.Out, "late     %s with a smaller timestamp than one before\n", batchCount(s.Late))
	}
	const few = 3
	for _, g := range s.Gaps[:min(len(s.Gaps), few)] {
		if d := time.Duration(g.To-g.From) * time.Millisecond; d >= time.Second {
			fmt.Fprintf(e.Out, "gap      %s without records in %s, until %s (offset %d)\n", durationText(d), g.Partition, moment(g.To), g.Offset)
		}
	}
}

// durationText writes a time as people do: 15ms, 3.2s, 4m10s, 7d3h.
func durationText(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return strings.TrimSuffix(strconv.FormatFloat(d.Seconds(), 'f', 1, 64), ".0") + "s"
	case d < time.Hour:
		return trimUnits(d.Round(time.Second).String(), "0s")
	case d < 24*time.Hour:
		return trimUnits(strings.TrimSuffix(d.Round(time.Minute).String(), "0s"), "0m")
	}
	days, hours := d/(24*time.Hour), d%(24*time.Hour)/time.Hour
	if hours == 0 {
		return fmt.Sprintf("%dd", days)
	}
	return fmt.Sprintf("%dd%dh", days, hours)
}

// trimUnits takes a last part off that says nothing: 4m0s is 4m, but 4m10s stays.
func trimUnits(s, zero string) string {
	if rest, ok := strings.CutSuffix(s, zero); ok && rest != "" && (rest[len(rest)-1] < '0' || rest[len(rest)-1] > '9') {
		return rest
	}
	return s
}

type statJSON struct {
	Name         string              `json:"name"`
	Partitions   int64               `json:"partitions"`
	Segments     int64               `json:"segments"`
	Batches      int64               `json:"batches"`
	Records      int64               `json:"records"`
	Control      int64               `json:"control_records"`
	Bytes        int64               `json:"bytes"`
	Damaged      int                 `json:"damaged"`
	BatchBytes   spreadJSON          `json:"batch_bytes"`
	BatchRecords spreadJSON          `json:"batch_records"`
	RecordBytes  *spreadJSON         `json:"record_bytes"`
	KeyBytes     *spreadJSON         `json:"key_bytes"`
	ValueBytes   *spreadJSON         `json:"value_bytes"`
	Codecs       map[string]statPack `json:"codecs"`
	Keys         *statKeys           `json:"keys"`
	NullValues   *int64              `json:"null_values"`
	Headers      *int64              `json:"headers"`
	First        *string             `json:"first_timestamp"`
	Last         *string             `json:"last_timestamp"`
	Late         int64               `json:"late_batches"`
	Untimed      int64               `json:"records_without_timestamp"`
	Busiest      *statBusiest        `json:"busiest"`
	Gaps         []statGap           `json:"gaps"`
}

type spreadJSON struct {
	Count int64   `json:"count"`
	Mean  float64 `json:"mean"`
	Min   int64   `json:"min"`
	P50   int64   `json:"p50"`
	P90   int64   `json:"p90"`
	P99   int64   `json:"p99"`
	Max   int64   `json:"max"`
}

type statPack struct {
	Batches int64    `json:"batches"`
	Records int64    `json:"records"`
	Stored  int64    `json:"stored_bytes"`
	Plain   *int64   `json:"plain_bytes"`
	Ratio   *float64 `json:"ratio"`
}

type statKeys struct {
	Distinct int64     `json:"distinct"`
	Null     int64     `json:"null"`
	Top      []statKey `json:"top"`
}

type statKey struct {
	Key       *string `json:"key"`
	KeyBase64 string  `json:"key_base64,omitempty"`
	Records   int64   `json:"records"`
	Over      int64   `json:"records_too_many_at_most"`
	Bytes     int64   `json:"bytes"`
}

type statBusiest struct {
	At           string  `json:"at"`
	Seconds      float64 `json:"seconds"`
	RecordsPerS  float64 `json:"records_per_second"`
	BytesPerS    float64 `json:"bytes_per_second"`
	MeanRecordsS float64 `json:"mean_records_per_second"`
	MeanBytesS   float64 `json:"mean_bytes_per_second"`
}

type statGap struct {
	Partition string  `json:"partition"`
	From      string  `json:"from"`
	To        string  `json:"to"`
	Seconds   float64 `json:"seconds"`
	Offset    int64   `json:"offset"`
}

// statTabs is what JSON says, a measure a line: its name is the way to it.
func statTabs(list []statJSON) (rows [][]string) {
	for _, s := range list {
		var walk func(v reflect.Value, name []string)
		walk = func(v reflect.Value, name []string) {
			switch v.Kind() {
			case reflect.Pointer:
				if !v.IsNil() {
					walk(v.Elem(), name)
				}
			case reflect.Struct:
				for i := range v.NumField() {
					key, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
					if key != "name" {
						walk(v.Field(i), append(name, key))
					}
				}
			case reflect.Map:
				for _, key := range slices.SortedFunc(slices.Values(v.MapKeys()), func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) }) {
					walk(v.MapIndex(key), append(name, key.String()))
				}
			case reflect.Slice:
				for i := range v.Len() {
					walk(v.Index(i), append(name, strconv.Itoa(i)))
				}
			case reflect.Float64:
				rows = append(rows, []string{s.Name, strings.Join(name, "."), strconv.FormatFloat(v.Float(), 'f', 3, 64)})
			case reflect.String:
				if text := v.String(); text != "" {
					rows = append(rows, []string{s.Name, strings.Join(name, "."), strings.NewReplacer("\t", `\t`, "\n", `\n`, "\r", `\r`).Replace(text)})
				}
			default:
				rows = append(rows, []string{s.Name, strings.Join(name, "."), fmt.Sprint(v.Interface())})
			}
		}
		walk(reflect.ValueOf(s), nil)
	}
	return rows
}

func spreadJSONOf(d *inspect.Spread) *spreadJSON {
	return &spreadJSON{d.N, d.Mean(), d.Min, d.Quantile(.5), d.Quantile(.9), d.Quantile(.99), d.Max}
}

func statJSONOf(r *statOf, top int) statJSON {
	s := r.stats
	j := statJSON{
		Name: r.name, Partitions: s.Partitions, Segments: s.Segments, Batches: s.Batches, Records: s.Records, Control: s.Control, Bytes: s.Bytes, Damaged: s.Damaged,
		BatchBytes: *spreadJSONOf(&s.BatchSize), BatchRecords: *spreadJSONOf(&s.BatchRecords), Codecs: map[string]statPack{}, Late: s.Late, Untimed: s.NoTimestamp, Gaps: []statGap{},
	}
	for i := range s.Codecs {
		x := &s.Codecs[i]
		if x.Batches == 0 {
			continue
		}
		pack := statPack{Batches: x.Batches, Records: x.Records, Stored: x.Stored}
		if x.Plain > 0 && x.Stored > 0 {
			ratio := float64(x.Plain) / float64(x.Stored)
			pack.Plain, pack.Ratio = &x.Plain, &ratio
		}
		j.Codecs[batch.Codec(i).String()] = pack
	}
	if s.RecordSize.N > 0 {
		j.RecordBytes, j.KeyBytes, j.ValueBytes = spreadJSONOf(&s.RecordSize), spreadJSONOf(&s.KeySize), spreadJSONOf(&s.ValueSize)
		j.NullValues, j.Headers = &s.NoValue, &s.Headers
		j.Keys = &statKeys{Distinct: s.Keys.Distinct(), Null: s.NoKey, Top: []statKey{}}
		for _, x := range s.Keys.Top(top) {
			k := statKey{Records: x.Count, Over: x.Over, Bytes: x.Bytes}
			if utf8.ValidString(x.Key) {
				k.Key = &x.Key
			} else {
				k.KeyBase64 = base64.StdEncoding.EncodeToString([]byte(x.Key))
			}
			j.Keys.Top = append(j.Keys.Top, k)
		}
	}
	if s.First >= 0 {
		first, last := moment(s.First), moment(s.Last)
		j.First, j.Last = &first, &last
	}
	if at, records, bytes, ok := s.Rate.Busiest(); ok {
		width, whole := float64(s.Rate.Width)/1000, max(float64(s.Last-s.First)/1000, 1)
		j.Busiest = &statBusiest{moment(at), width, float64(records) / width, float64(bytes) / width, float64(s.Records) / whole, float64(s.Bytes) / whole}
	}
	for _, g := range s.Gaps {
		j.Gaps = append(j.Gaps, statGap{g.Partition, moment(g.From), moment(g.To), float64(g.To-g.From) / 1000, g.Offset})
	}
	return j
}
