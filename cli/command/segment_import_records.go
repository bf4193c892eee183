package command

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/batch"
)

// A file of records is brought into the form of a log directory as Kafka's first, beside the data directory: its lines come in any
// order of partitions, and a topic's records are to be whole before there is a topic.

const (
	spoolBatch  = 256 << 10 // bytes of records in a batch
	spoolMemory = 64 << 20  // of all batches that are not full yet
	spoolMark   = ".millrace-import"
)

// ofRecords tells whether the source is a file of records: a file that is no .log, or standard input.
func (im *importing) ofRecords(paths []string) (bool, error) {
	n := 0
	for _, p := range paths {
		info, err := os.Stat(p)
		if p == "-" || err == nil && !info.IsDir() && filepath.Ext(p) != ".log" {
			n++
		}
	}
	if n > 0 && n < len(paths) {
		return false, usagef(commandPath(im.c), "either files of records or directories, not both at once")
	}
	im.spooled = n > 0
	return im.spooled, nil
}

// spooler makes partitions of records.
type spooler struct {
	im         *importing
	folder     string
	topic      string // to which all records go; "": to the one that they name
	codec      batch.Compression
	partitions int32
	null       string
	base64     bool
	now        int64
	logs       map[string]*spooled
	held       int
	turn       int32 // of records without a key and a partition
}

// spooled is one partition.
type spooled struct {
	folder  string
	base    int64 // of the file
	size    int64
	next    int64 // offset
	first   int64 // of the batch
	builder *batch.Builder
}

// inputRecord is a record as a line of JSON has it: what consume and export write, or less.
type inputRecord struct {
	Topic       string          `json:"topic"`
	Partition   *int32          `json:"partition"`
	Offset      *int64          `json:"offset"`
	Timestamp   json.RawMessage `json:"timestamp"`
	Key         *string         `json:"key"`
	KeyBase64   *string         `json:"key_base64"`
	Value       *string         `json:"value"`
	ValueBase64 *string         `json:"value_base64"`
	Headers     []inputHeader   `json:"headers"`
}

type inputHeader struct {
	Key         string  `json:"key"`
	Value       *string `json:"value"`
	ValueBase64 *string `json:"value_base64"`
}

// spool reads the files, and gives the folder, which is there with an error, too.
func (im *importing) spool(paths []string) (folder string, err error) {
	s := &spooler{im: im, folder: strings.TrimRight(im.broker.LogDirs[0], "/") + ".importing", partitions: int32(im.c.Int("partitions")),
		null: im.c.String("null-value"), base64: im.c.String("encoding") == "base64", now: time.Now().UnixMilli(), logs: map[string]*spooled{}}
	const most = 10_000 // of partitions, as for a request
	if s.partitions < 1 || s.partitions > most {
		return "", usagef(commandPath(im.c), "--partitions must be between 1 and %d", most)
	}
	codec, known := map[string]batch.Codec{"none": batch.None, "gzip": batch.Gzip, "snappy": batch.Snappy, "lz4": batch.LZ4, "zstd": batch.Zstd}[im.c.String("compression")]
	if !known {
		return "", usagef(commandPath(im.c), "--compression %q is not one of none, gzip, snappy, lz4, zstd", im.c.String("compression"))
	}
	s.codec = batch.Compression{Codec: codec}
	switch topics := im.c.StringSlice("topic"); len(topics) {
	case 0:
	case 1:
		s.topic = topics[0]
		if err := engine.CheckTopicName(s.topic); err != nil {
			return "", usagef(commandPath(im.c), "--topic %q: %v", s.topic, err)
		}
	default:
		return "", usagef(commandPath(im.c), "records go to one topic, or to those that they name")
	}
	mark := filepath.Join(s.folder, spoolMark)
	if _, err := os.Stat(s.folder); err == nil {
		if _, err := os.Stat(mark); err != nil {
			return "", fmt.Errorf("%s is in the way: records are brought into their form there, and it is nothing that an import has left", s.folder)
		}
	}
	if err := os.RemoveAll(s.folder); err != nil {
		return "", err
	}
	if err := os.MkdirAll(s.folder, 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(mark, nil, 0o644); err != nil {
		return s.folder, err
	}
	// So that a segment command sees whose form it has, even when there is no record.
	if err := os.WriteFile(filepath.Join(s.folder, "log-start-offset-checkpoint"), []byte("0\n0\n"), 0o644); err != nil {
		return s.folder, err
	}
	for _, p := range paths {
		if err := s.file(p); err != nil {
			return s.folder, err
		}
	}
	for _, l := range s.logs {
		if err := s.flush(l); err != nil {
			return s.folder, err
		}
	}
	if len(s.logs) == 0 {
		return s.folder, errors.New("there is no record to import")
	}
	return s.folder, nil
}

// file reads one file.
func (s *spooler) file(name string) error {
	var in io.Reader = s.im.e.In
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	format := s.im.c.String("format")
	if format == "auto" {
		format = "json"
		if strings.HasSuffix(strings.ToLower(name), ".csv") {
			format = "csv"
		}
	}
	var err error
	line := 0
	if format == "csv" {
		line, err = s.csv(bufio.NewReaderSize(in, 1<<20))
	} else {
		line, err = s.json(in)
	}
	if err != nil && s.im.c.Context.Err() == nil {
		return fmt.Errorf("%s: line %d: %w; nothing was imported", name, line, err)
	}
	return errors.Join(err, s.im.c.Context.Err())
}

func (s *spooler) json(in io.Reader) (line int, err error) {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 64<<10), maxLineBytes)
	for lines.Scan() {
		line++
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		if line%1000 == 0 && s.im.c.Context.Err() != nil {
			return line, s.im.c.Context.Err()
		}
		var r inputRecord
		d := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		d.DisallowUnknownFields()
		if err := d.Decode(&r); err != nil {
			return line, fmt.Errorf("it is no record in JSON: %w", err)
		}
		if d.More() {
			return line, errors.New("something follows the record")
		}
		if err := s.take(&r); err != nil {
			return line, err
		}
	}
	return line + 1, lines.Err()
}

func (s *spooler) csv(in io.Reader) (line int, err error) {
	lines := csv.NewReader(in)
	names, err := lines.Read()
	if err != nil {
		return 1, fmt.Errorf("no line with the names of the columns: %w", err)
	}
	for _, name := range names {
		if !slices.Contains(csvColumns, name) {
			return 1, fmt.Errorf("a column %q; known are %s", name, strings.Join(csvColumns, ", "))
		}
	}
	lines.ReuseRecord = true
	for {
		cells, err := lines.Read()
		if errors.Is(err, io.EOF) {
			return line, nil
		}
		if bad := (*csv.ParseError)(nil); errors.As(err, &bad) {
			return bad.StartLine, err // of a line that breaks off in its first cell the reader has no position
		}
		if err != nil {
			return line, err
		}
		line, _ = lines.FieldPos(0)
		if s.im.c.Context.Err() != nil {
			return line, s.im.c.Context.Err()
		}
		r, err := s.cells(names, cells)
		if err == nil {
			err = s.take(r)
		}
		if err != nil {
			return line, err
		}
	}
}

// cells makes a record of a line of CSV.
func (s *spooler) cells(names, cells []string) (*inputRecord, error) {
	r := &inputRecord{}
	text := func(cell string, plain, encoded **string) {
		switch {
		case cell == s.null:
		case s.base64:
			*encoded = &cell
		default:
			*plain = &cell
		}
	}
	for i, cell := range cells {
		var err error
		switch names[i] {
		case "topic":
			r.Topic = cell
		case "partition":
			n, failed := strconv.ParseInt(cell, 10, 32)
			p := int32(n)
			r.Partition, err = &p, failed
		case "offset":
			n, failed := strconv.ParseInt(cell, 10, 64)
			r.Offset, err = &n, failed
		case "timestamp":
			if r.Timestamp = json.RawMessage(cell); cell != "" && strings.ContainsAny(cell, "T:") {
				r.Timestamp = json.RawMessage(strconv.Quote(cell))
			}
		case "key":
			text(cell, &r.Key, &r.KeyBase64)
		case "value":
			text(cell, &r.Value, &r.ValueBase64)
		case "headers":
			err = s.headers(r, cell, text)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", names[i], err)
		}
	}
	return r, nil
}

func (s *spooler) headers(r *inputRecord, cell string, text func(string, **string, **string)) error {
	if cell == "" {
		return nil
	}
	var pairs [][2]*string
	if err := json.Unmarshal([]byte(cell), &pairs); err != nil {
		return err
	}
	for _, pair := range pairs {
		if pair[0] == nil {
			return errors.New("a header without a name")
		}
		h := inputHeader{Key: *pair[0]}
		if pair[1] != nil {
			text(*pair[1], &h.Value, &h.ValueBase64)
		}
		r.Headers = append(r.Headers, h)
	}
	return nil
}

// take adds a record to its partition.
func (s *spooler) take(r *inputRecord) error {
	key, err := bytesOf(r.Key, r.KeyBase64)
	if err != nil {
		return fmt.Errorf("key_base64: %w", err)
	}
	value, err := bytesOf(r.Value, r.ValueBase64)
	if err != nil {
		return fmt.Errorf("value_base64: %w", err)
	}
	var headers []batch.RecordHeader
	for _, h := range r.Headers {
		v, err := bytesOf(h.Value, h.ValueBase64)
		if err != nil {
			return fmt.Errorf("header %q: %w", h.Key, err)
		}
		headers = append(headers, batch.RecordHeader{Key: h.Key, Value: v})
	}
	at, err := s.timestamp(r.Timestamp)
	if err != nil {
		return err
	}
	l, err := s.log(r, key)
	if err != nil {
		return err
	}
	offset := l.next
	if r.Offset != nil {
		offset = *r.Offset
	}
	if offset >= math.MaxInt64-1 || l.next == math.MaxInt64 {
		return fmt.Errorf("no record can follow one with offset %d in %s", offset, filepath.Base(l.folder))
	}
	if offset < l.next || offset < 0 {
		return fmt.Errorf("offset %d follows %d in %s", offset, l.next-1, filepath.Base(l.folder))
	}
	if l.builder.Len() > 0 && (l.builder.Size() > spoolBatch || offset-l.first > 1<<20 || s.held > spoolMemory) {
		if err := s.flush(l); err != nil {
			return err
		}
	}
	if l.builder.Len() == 0 {
		if l.first = offset; l.size == 0 {
			l.base = offset
		}
	}
	before := l.builder.Size()
	l.builder.AppendAt(int32(offset-l.first), at, key, value, headers)
	s.held += l.builder.Size() - before
	l.next = offset + 1
	return nil
}

// bytesOf is text, or bytes in base64, or null.
func bytesOf(text, encoded *string) ([]byte, error) {
	switch {
	case encoded != nil:
		b, err := base64.StdEncoding.DecodeString(*encoded)
		if b == nil {
			b = []byte{}
		}
		return b, err
	case text != nil:
		return []byte(*text), nil
	}
	return nil, nil
}

// timestamp reads a time as text, or milliseconds since 1970; without one it is now.
func (s *spooler) timestamp(raw json.RawMessage) (int64, error) {
	text := string(raw)
	if text == "" || text == "null" {
		return s.now, nil
	}
	if text[0] != '"' {
		ms, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("timestamp %s is neither a time nor milliseconds", text)
		}
		return ms, nil
	}
	at, err := time.Parse(time.RFC3339Nano, strings.Trim(text, `"`))
	if err != nil {
		return 0, fmt.Errorf("timestamp %s is no time as in 2026-03-01T08:00:00.000Z", text)
	}
	return at.UnixMilli(), nil
}

// log finds the partition of a record: the one that it names, or the one that producers choose by its key, or any.
func (s *spooler) log(r *inputRecord, key []byte) (*spooled, error) {
	topic := r.Topic
	if s.topic != "" {
		topic = s.topic
	}
	if topic == "" {
		return nil, errors.New("the record names no topic: give --topic")
	}
	var number int32
	switch {
	case r.Partition != nil:
		number = *r.Partition
	case key != nil:
		number = int32(murmur2(key)&0x7fffffff) % s.partitions
	default:
		number = s.turn % s.partitions
		s.turn++
	}
	if number < 0 || number >= 10_000 {
		return nil, fmt.Errorf("there is no partition %d", number)
	}
	name := topic + "-" + strconv.Itoa(int(number))
	l := s.logs[name]
	if l != nil {
		return l, nil
	}
	if err := engine.CheckTopicName(topic); err != nil {
		return nil, fmt.Errorf("topic %q: %w", topic, err)
	}
	l = &spooled{folder: filepath.Join(s.folder, name), builder: batch.NewBuilder(batch.BuilderOptions{Compression: s.codec})}
	s.logs[name] = l
	return l, os.MkdirAll(l.folder, 0o755)
}

// flush writes the batch that is being built. Nothing here has to survive a crash.
func (s *spooler) flush(l *spooled) (err error) {
	if l.builder.Len() == 0 {
		return nil
	}
	s.held -= l.builder.Size() - batch.HeaderSize
	b, err := l.builder.Build()
	if err != nil {
		return err
	}
	l.builder.Reset()
	batch.PutBaseOffset(b, l.first)
	f, err := os.OpenFile(filepath.Join(l.folder, segment.FileName(l.base, "log")), os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	n, err := f.WriteAt(b, l.size)
	l.size += int64(n)
	return err
}

// murmur2 is the hash by which Kafka's producers choose a key's partition.
func murmur2(b []byte) uint32 {
	const m = 0x5bd1e995
	h := uint32(0x9747b28c) ^ uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		k := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
		k *= m
		k ^= k >> 24
		k *= m
		h = h*m ^ k
	}
	switch len(b) {
	case 3:
		h ^= uint32(b[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(b[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(b[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}
