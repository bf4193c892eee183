package command

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/urfave/cli/v2"
)

// maxLineBytes bounds one line of input; a broker takes records of 1 MiB unless told otherwise.
const maxLineBytes = 64 << 20

// bufferedBytes bounds the records that wait for the broker while more lines are read.
const bufferedBytes = 128 << 20

func produceCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "produce",
		Usage:     "write records to a topic, one per line of standard input",
		ArgsUsage: "TOPIC",
		Description: `Examples:
  echo 'hello' | millrace produce demo
  millrace produce demo --key-separator : < pairs.txt
  millrace produce demo --key user-7 --header source=cli < events.jsonl
  printf 'user-7:\N\n' | millrace produce demo --key-separator : --null-value '\N'
  seq 1000 | millrace produce demo --compression zstd --output json

It ends with 0 when every record has been acknowledged.`,
		Flags: clientFlags(
			&cli.StringFlag{Name: "key", Aliases: []string{"k"}, Usage: "the key of every record"},
			&cli.StringFlag{Name: "key-separator", Usage: "each line is a key, this separator, and a value; a line without it is an error"},
			&cli.StringSliceFlag{Name: "header", Aliases: []string{"H"}, Usage: "a header of every record, `KEY=VALUE`; may be repeated"},
			&cli.StringFlag{Name: "null-value", Usage: "a value (or a line) that is exactly this `TEXT` is sent as null"},
			&cli.StringFlag{Name: "acks", Value: "all", Usage: "who has stored a record before it counts: all, 1 (the leader) or 0 (do not wait)"},
			&cli.StringFlag{Name: "compression", Aliases: []string{"z"}, Value: "none", Usage: "none, gzip, snappy, lz4 or zstd"},
			&cli.IntFlag{Name: "max-message-bytes", Value: 1_000_012, Usage: "the largest batch to send; for topics whose max.message.bytes is raised"},
			&cli.IntFlag{Name: "partition", Aliases: []string{"p"}, Value: -1, DefaultText: "by key, or any", Usage: "write to this partition"},
			&cli.BoolFlag{Name: "idempotent", Value: true, Usage: "no duplicates and no gaps when a request is sent again; needs --acks all"},
			outputFlag("plain"),
		),
		Action: e.produce,
	}
}

// producing is what the flags of produce ask for.
type producing struct {
	topic        string
	acks         string
	partition    int32 // -1: the partitioner decides
	key          []byte
	keySeparator string
	nullValue    string
	hasNull      bool
	headers      []kgo.RecordHeader
	opts         []kgo.Opt
	json         bool
}

func parseProducing(c *cli.Context) (*producing, error) {
	topic, err := oneTopic(c)
	if err != nil {
		return nil, err
	}
	p := &producing{
		topic: topic, acks: c.String("acks"), partition: int32(c.Int("partition")), keySeparator: c.String("key-separator"), nullValue: c.String("null-value"), hasNull: c.IsSet("null-value"),
	}
	if p.json, err = wantsJSON(c); err != nil {
		return nil, err
	}
	if c.IsSet("key") {
		if p.keySeparator != "" {
			return nil, usagef(commandPath(c), "either --key or --key-separator, not both")
		}
		p.key = []byte(c.String("key"))
	}
	if c.IsSet("key-separator") && p.keySeparator == "" {
		return nil, usagef(commandPath(c), "--key-separator must not be empty")
	}
	pairs, err := keyValues(c, "header")
	if err != nil {
		return nil, err
	}
	for _, kv := range pairs {
		p.headers = append(p.headers, kgo.RecordHeader{Key: kv[0], Value: []byte(kv[1])})
	}
	if c.IsSet("partition") {
		if p.partition < 0 {
			return nil, usagef(commandPath(c), "--partition must be 0 or more")
		}
		p.opts = append(p.opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	}
	acks, err := acksOpts(c.String("acks"), c.Bool("idempotent"), c.IsSet("idempotent"))
	if err != nil {
		return nil, usagef(commandPath(c), "%v", err)
	}
	codec, err := compressionOpt(c.String("compression"))
	if err != nil {
		return nil, usagef(commandPath(c), "%v", err)
	}
	largest := c.Int("max-message-bytes")
	if largest < 1<<10 || largest > maxLineBytes {
		return nil, usagef(commandPath(c), "--max-message-bytes must be between 1 KiB and %d MiB", maxLineBytes>>20)
	}
	p.opts = append(append(p.opts, acks...), codec,
		kgo.ProducerBatchMaxBytes(int32(largest)),
		kgo.AllowAutoTopicCreation(),
		kgo.MaxBufferedBytes(bufferedBytes),
		kgo.ProduceRequestTimeout(c.Duration("timeout")),
		kgo.RecordDeliveryTimeout(max(c.Duration("timeout"), time.Second)), // the least that kgo takes
		kgo.AllowIdempotentProduceCancellation(),                           // a broker that is gone must not hold the command for ever
	)
	return p, nil
}

// acksOpts maps --acks and --idempotent. Asking for fewer acks turns idempotence off, unless it was asked for by name.
func acksOpts(acks string, idempotent, asked bool) ([]kgo.Opt, error) {
	levels := map[string]kgo.Acks{"all": kgo.AllISRAcks(), "-1": kgo.AllISRAcks(), "1": kgo.LeaderAck(), "0": kgo.NoAck()}
	level, ok := levels[acks]
	if !ok {
		return nil, fmt.Errorf("--acks %q is not one of all, 1, 0", acks)
	}
	if acks != "all" && acks != "-1" {
		if idempotent && asked {
			return nil, errors.New("--idempotent needs --acks all")
		}
		idempotent = false
	}
	opts := []kgo.Opt{kgo.RequiredAcks(level)}
	if !idempotent {
		opts = append(opts, kgo.DisableIdempotentWrite())
	}
	return opts, nil
}

func compressionOpt(name string) (kgo.Opt, error) {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	codec, ok := codecs[name]
	if !ok {
		return nil, fmt.Errorf("--compression %q is not one of none, gzip, snappy, lz4, zstd", name)
	}
	return kgo.ProducerBatchCompression(codec), nil
}

func (e *env) produce(c *cli.Context) error {
	p, err := parseProducing(c)
	if err != nil {
		return err
	}
	typed := isTerminal(e.In)
	if typed {
		p.opts = append(p.opts, kgo.ProducerLinger(0))
	}
	cl, err := e.connect(c, p.opts...)
	if err != nil {
		return err
	}
	defer cl.Close()
	if p.partition >= 0 {
		if err := checkPartition(c.Context, cl, c.Duration("timeout"), p.topic, p.partition); err != nil {
			return err
		}
	}
	if typed {
		fmt.Fprintln(e.Err, "one record per line; end with Ctrl-D")
	}
	return e.sendLines(c.Context, cl, p)
}

// checkPartition says by name which partition is missing; an absent topic is left to the broker, which may create it.
func checkPartition(ctx context.Context, cl *kgo.Client, timeout time.Duration, topic string, partition int32) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	d, err := topicPartitions(ctx, kadm.NewClient(cl), topic)
	var missing *notFoundError
	if errors.As(err, &missing) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, ok := d.Partitions[partition]; !ok {
		return &notFoundError{Topic: topic, Partition: partition}
	}
	return nil
}

// sendLines sends every line and waits for the acknowledgements. It stops reading at the first failure or at Ctrl-C.
func (e *env) sendLines(ctx context.Context, cl *kgo.Client, p *producing) error {
	reading, stopReading := context.WithCancelCause(ctx)
	defer stopReading(nil)
	var (
		sent, acked atomic.Int64
		out         = bufio.NewWriter(e.Out)
		mu          sync.Mutex // guards out
	)
	// Sending goes on after Ctrl-C, so that what was read is acknowledged; RecordDeliveryTimeout bounds it.
	sending := context.WithoutCancel(ctx)
	done := func(r *kgo.Record, err error) {
		if err != nil {
			stopReading(recordError(p.topic, r, err))
			return
		}
		acked.Add(1)
		if p.json {
			mu.Lock()
			defer mu.Unlock()
			writeAcked(out, r)
		}
	}
	endProgress := e.progress(func() string {
		return fmt.Sprintf("%s read, %d acknowledged", count(sent.Load(), "record"), acked.Load())
	})
	defer endProgress()
	lines, readErr := readLines(reading, e.In)
	for line, ok := next(reading, lines); ok; line, ok = next(reading, lines) {
		r, err := p.record(line, sent.Load()+1)
		if err != nil {
			stopReading(err)
			break
		}
		sent.Add(1)
		cl.Produce(sending, r, done)
	}
	flushErr := cl.Flush(sending)
	endProgress()
	mu.Lock()
	defer mu.Unlock()
	word := "acknowledged"
	if p.acks == "0" {
		word = "sent, without waiting for an answer"
	}
	fmt.Fprintf(e.Err, "%d of %s %s\n", acked.Load(), count(sent.Load(), "record"), word)
	if cause := context.Cause(reading); cause != nil {
		return errors.Join(cause, out.Flush())
	}
	return firstError(readErr(), flushErr, out.Flush())
}

// record makes the record of one line; n is its number, for the message of a line without a separator.
func (p *producing) record(line string, n int64) (*kgo.Record, error) {
	r := &kgo.Record{Topic: p.topic, Key: p.key, Headers: p.headers}
	if p.partition >= 0 {
		r.Partition = p.partition
	}
	if p.keySeparator != "" {
		key, value, ok := strings.Cut(line, p.keySeparator)
		if !ok {
			return nil, fmt.Errorf("line %d has no key separator %q; what came before it was sent", n, p.keySeparator)
		}
		r.Key, line = []byte(key), value
	}
	if !p.hasNull || line != p.nullValue {
		r.Value = []byte(line)
	}
	return r, nil
}

// readLines reads lines in a goroutine of its own, so that a reader blocked on a terminal does not hold the command when ctx
// ends. The goroutine ends at the end of input, or with the first line read after ctx has ended; err is valid once lines is closed.
func readLines(ctx context.Context, in io.Reader) (lines <-chan string, err func() error) {
	ch := make(chan string, 256)
	var failed error
	go func() {
		defer close(ch)
		s := bufio.NewScanner(in)
		s.Buffer(make([]byte, 64<<10), maxLineBytes)
		for s.Scan() {
			select {
			case ch <- s.Text():
			case <-ctx.Done():
				return
			}
		}
		failed = s.Err()
		if errors.Is(failed, bufio.ErrTooLong) {
			failed = fmt.Errorf("a line is longer than %d MiB", maxLineBytes>>20)
		}
	}()
	return ch, func() error { return failed }
}

// next returns the next line, or false at the end of the input or of ctx.
func next(ctx context.Context, lines <-chan string) (string, bool) {
	select {
	case line, ok := <-lines:
		return line, ok && ctx.Err() == nil
	case <-ctx.Done():
		return "", false
	}
}

// recordError says why a record was not acknowledged.
func recordError(topic string, r *kgo.Record, err error) error {
	switch {
	case errors.Is(err, kerr.MessageTooLarge):
		return fmt.Errorf("a record of %d bytes is too large for topic %q; raise its max.message.bytes and give --max-message-bytes", len(r.Key)+len(r.Value), topic)
	case errors.Is(err, kgo.ErrRecordTimeout), errors.Is(err, context.DeadlineExceeded):
		return errors.New("a record was not acknowledged within the time given by --timeout")
	}
	return topicError(topic, err, "")
}

func writeAcked(w io.Writer, r *kgo.Record) {
	line, _ := json.Marshal(struct { // cannot fail: strings and numbers
		Topic     string `json:"topic"`
		Partition int32  `json:"partition"`
		Offset    int64  `json:"offset"`
		Timestamp string `json:"timestamp"`
	}{r.Topic, r.Partition, r.Offset, r.Timestamp.UTC().Format(timestampLayout)})
	w.Write(append(line, '\n'))
}
