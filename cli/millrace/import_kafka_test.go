package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/segment/vfs"
)

// TestImportFromKafka fills a real Kafka with all that its log can hold, has it stopped, imports its log directory and compares what
// a client reads then with what it read from Kafka:
//
//	MILLRACE_IMPORT_KAFKA=HOST:PORT MILLRACE_IMPORT_DIR=KAFKA_LOG_DIR MILLRACE_IMPORT_STOP='COMMAND THAT STOPS IT' go test -run TestImportFromKafka ./cli/millrace
func TestImportFromKafka(t *testing.T) {
	bootstrap, dir, stop := os.Getenv("MILLRACE_IMPORT_KAFKA"), os.Getenv("MILLRACE_IMPORT_DIR"), os.Getenv("MILLRACE_IMPORT_STOP")
	if bootstrap == "" || dir == "" || stop == "" {
		t.Skip("needs a real Kafka: MILLRACE_IMPORT_KAFKA, MILLRACE_IMPORT_DIR, MILLRACE_IMPORT_STOP")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	k := &importedKafka{t: t, ctx: ctx, bootstrap: bootstrap}
	k.fill()
	before := k.look(bootstrap)
	if out, err := exec.Command("sh", "-c", stop).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", stop, err, out)
	}
	k.awaitStop(dir)

	data := t.TempDir()
	out, code := runMillrace(t, "segment", "import", dir, "--into", data, "--open", "drop")
	t.Logf("%s", out)
	if code != 0 {
		t.Fatalf("exit code %d", code)
	}
	b := startBroker(t, data)
	after := k.look(b.address)
	k.compare(before, after)
	k.produceMore(b.address)
	b.stop()
	b = startBroker(t, data) // and again from what it has written itself
	defer b.stop()
	k.compareGrown(after, k.look(b.address))
}

// importedKafka is what the test does with both.
type importedKafka struct {
	t         *testing.T
	ctx       context.Context
	bootstrap string
}

func (k *importedKafka) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

func (k *importedKafka) client(bootstrap string, opts ...kgo.Opt) *kgo.Client {
	k.t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(bootstrap)}, opts...)...)
	k.must(err)
	return cl
}

var importedCodecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

func (k *importedKafka) fill() {
	cl := k.client(k.bootstrap)
	defer cl.Close()
	adm := kadm.NewClient(cl)
	create := func(name string, partitions int32, configs map[string]string) {
		k.t.Helper()
		pointers := map[string]*string{}
		for key, value := range configs {
			pointers[key] = &value
		}
		resp, err := adm.CreateTopic(k.ctx, partitions, 1, pointers, name)
		k.must(errors.Join(err, resp.Err))
	}
	for codec := range importedCodecs {
		create("codec-"+codec, 2, map[string]string{"retention.ms": "-1", "message.timestamp.type": "CreateTime"})
	}
	create("orders", 2, map[string]string{"retention.ms": "-1", "cleanup.policy": "delete"})
	large, each := 6000, 300
	if os.Getenv("MILLRACE_IMPORT_SMALL") != "" { // what testdata/kafka-4.3.1 is made of
		large, each = 40, 20
	}
	create("large", 1, map[string]string{"segment.bytes": "1048576", "retention.ms": "-1"})
	create("gone", 1, nil)
	create("empty", 3, map[string]string{"cleanup.policy": "compact"})
	create("transactions", 2, map[string]string{"retention.bytes": "1000000000"})
	create("compacted", 1, map[string]string{"cleanup.policy": "compact", "segment.ms": "500", "min.cleanable.dirty.ratio": "0.001", "delete.retention.ms": "0", "max.compaction.lag.ms": "1000"})
	create("appended", 1, map[string]string{"message.timestamp.type": "LogAppendTime", "min.insync.replicas": "1"})

	for codec, compression := range importedCodecs {
		k.produce("codec-"+codec, 2, each, 200, kgo.ProducerBatchCompression(compression), kgo.ProducerBatchMaxBytes(4096))
	}
	k.produce("large", 1, large, 1000, kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerBatchMaxBytes(65536))
	k.produce("gone", 1, 50, 100)
	k.produce("appended", 1, 50, 100)
	offsets := kadm.Offsets{}
	k.produce("orders", 2, 60, 40, kgo.ProducerBatchCompression(kgo.ZstdCompression()))
	offsets.AddOffset("large", 0, int64(large*535/1000), -1)
	offsets.AddOffset("orders", 0, 7, -1)
	offsets.AddOffset("gone", 0, 50, -1)
	deleted, err := adm.DeleteRecords(k.ctx, offsets)
	k.must(errors.Join(err, deleted.Error()))

	committed := kadm.Offsets{}
	committed.Add(kadm.Offset{Topic: "large", Partition: 0, At: int64(large * 2 / 3), LeaderEpoch: 0, Metadata: "half way"})
	committed.AddOffset("codec-zstd", 1, 17, -1)
	k.must(adm.CommitAllOffsets(k.ctx, "readers", committed))
	other := kadm.Offsets{}
	other.AddOffset("codec-none", 0, 5, 0)
	k.must(adm.CommitAllOffsets(k.ctx, "others", other))

	k.transactions()

	for round := range 3 { // the keys that are not written again stay behind
		for i := range 40 {
			if i%(round+1) == 0 {
				r := &kgo.Record{Topic: "compacted", Key: fmt.Appendf(nil, "key-%d", i), Value: fmt.Appendf(nil, "round %d", round)}
				if round == 2 && i%2 == 0 {
					r.Value = nil
				}
				k.must(cl.ProduceSync(k.ctx, r).FirstErr())
			}
		}
		time.Sleep(600 * time.Millisecond)
	}
	k.must(cl.ProduceSync(k.ctx, &kgo.Record{Topic: "compacted", Key: []byte("last"), Value: []byte("last")}).FirstErr())
	for range 90 { // the cleaner comes every 15 s
		if n := len(k.read(k.bootstrap, "compacted", 0, false, 0, k.end(adm, "compacted"))); n < 60 {
			break
		}
		time.Sleep(500 * time.Millisecond)
	}
}

func (k *importedKafka) end(adm *kadm.Client, topic string) int64 {
	ends, err := adm.ListEndOffsets(k.ctx, topic)
	k.must(errors.Join(err, ends.Error()))
	o, _ := ends.Lookup(topic, 0)
	return o.Offset
}

func (k *importedKafka) produce(topic string, partitions int32, records, size int, opts ...kgo.Opt) {
	k.t.Helper()
	cl := k.client(k.bootstrap, append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(time.Millisecond))...)
	defer cl.Close()
	for i := range records {
		r := &kgo.Record{Topic: topic, Partition: int32(i) % partitions, Key: fmt.Appendf(nil, "key %d", i), Value: bytes.Repeat(fmt.Appendf(nil, "%d ", i), size/4)}
		switch i % 10 {
		case 1:
			r.Key = nil
		case 2:
			r.Value = nil
		case 3:
			r.Key, r.Value = []byte{}, []byte{}
		case 4:
			r.Headers = []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "a", Value: nil}, {Key: "", Value: []byte{0, 255}}}
		case 5:
			r.Value = []byte{0xff, 0xfe, 0, '\n', '"'}
		case 6:
			r.Timestamp = time.UnixMilli(1_700_000_000_000 + int64(i))
		}
		cl.Produce(k.ctx, r, func(_ *kgo.Record, err error) {
			if err != nil {
				k.t.Error(err)
			}
		})
		if i%97 == 96 {
			k.must(cl.Flush(k.ctx))
		}
	}
	k.must(cl.Flush(k.ctx))
}

// transactions leaves some that were committed, some that were aborted, and one that is still open, side by side.
func (k *importedKafka) transactions() {
	k.produce("transactions", 2, 20, 40)
	one := k.client(k.bootstrap, kgo.TransactionalID("one"), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionTimeout(4*time.Minute))
	two := k.client(k.bootstrap, kgo.TransactionalID("two"), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionTimeout(4*time.Minute))
	send := func(cl *kgo.Client, what string, n int) {
		for i := range n {
			k.must(cl.ProduceSync(k.ctx, &kgo.Record{Topic: "transactions", Partition: int32(i) % 2, Value: fmt.Appendf(nil, "%s %d", what, i)}).FirstErr())
		}
	}
	k.must(one.BeginTransaction())
	k.must(two.BeginTransaction())
	send(one, "committed", 4)
	send(two, "aborted", 4)
	send(one, "committed", 4)
	k.must(one.EndTransaction(k.ctx, kgo.TryCommit))
	send(two, "aborted", 2)
	k.must(two.EndTransaction(k.ctx, kgo.TryAbort))
	k.must(one.BeginTransaction())
	send(one, "aborted", 6)
	k.must(one.EndTransaction(k.ctx, kgo.TryAbort))
	k.must(two.BeginTransaction())
	send(two, "open", 3)
	k.must(one.BeginTransaction())
	send(one, "committed", 2)
	k.must(one.EndTransaction(k.ctx, kgo.TryCommit))
	time.Sleep(500 * time.Millisecond) // the markers come after the answer
	send(two, "open at the end", 1)
	// Neither is closed: that would abort what is open. They end with the test.
}

// seenKafka is what a client sees of a broker.
type seenKafka struct {
	start, end map[string]int64             // by topic-partition
	epochs     map[string]int32             // leader epochs
	all        map[string]map[int64]string  // records by offset, control records too
	committed  map[string]map[int64]string  // what read_committed gets
	configs    map[string]map[string]string // dynamic ones
	ids        map[string]string            // topic ids
	groups     map[string]string
}

func (k *importedKafka) look(bootstrap string) *seenKafka {
	k.t.Helper()
	cl := k.client(bootstrap)
	defer cl.Close()
	adm := kadm.NewClient(cl)
	s := &seenKafka{map[string]int64{}, map[string]int64{}, map[string]int32{}, map[string]map[int64]string{}, map[string]map[int64]string{}, map[string]map[string]string{}, map[string]string{}, map[string]string{}}
	topics, err := adm.ListTopics(k.ctx)
	k.must(errors.Join(err, topics.Error()))
	starts, err := adm.ListStartOffsets(k.ctx, topics.Names()...)
	k.must(errors.Join(err, starts.Error()))
	ends, err := adm.ListEndOffsets(k.ctx, topics.Names()...)
	k.must(errors.Join(err, ends.Error()))
	for _, topic := range topics.Sorted() {
		if strings.HasPrefix(topic.Topic, "__") {
			continue
		}
		s.ids[topic.Topic] = topic.ID.String()
		for _, p := range topic.Partitions.Sorted() {
			name := fmt.Sprintf("%s-%d", topic.Topic, p.Partition)
			from, _ := starts.Lookup(topic.Topic, p.Partition)
			to, _ := ends.Lookup(topic.Topic, p.Partition)
			s.start[name], s.end[name], s.epochs[name] = from.Offset, to.Offset, p.LeaderEpoch
			s.all[name] = k.read(bootstrap, topic.Topic, p.Partition, false, from.Offset, to.Offset)
			s.committed[name] = k.read(bootstrap, topic.Topic, p.Partition, true, from.Offset, to.Offset)
		}
		described, err := adm.DescribeTopicConfigs(k.ctx, topic.Topic)
		k.must(err)
		s.configs[topic.Topic] = map[string]string{}
		for _, c := range described[0].Configs {
			if c.Source.String() == "DYNAMIC_TOPIC_CONFIG" {
				s.configs[topic.Topic][c.Key] = c.MaybeValue()
			}
		}
	}
	for _, group := range []string{"readers", "others"} {
		offsets, err := adm.FetchOffsets(k.ctx, group)
		k.must(errors.Join(err, offsets.Error()))
		for _, o := range offsets.Offsets().Sorted() {
			s.groups[group] += fmt.Sprintf("%s-%d %d %d %q\n", o.Topic, o.Partition, o.At, o.LeaderEpoch, o.Metadata)
		}
	}
	return s
}

// read reads a partition up to an offset, or as far as an isolated reader gets.
func (k *importedKafka) read(bootstrap, topic string, partition int32, isolated bool, from, to int64) map[int64]string {
	k.t.Helper()
	got := map[int64]string{}
	if from >= to {
		return got
	}
	opts := []kgo.Opt{kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(from)}}), kgo.KeepControlRecords()}
	if isolated {
		opts = append(opts, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	}
	cl := k.client(bootstrap, opts...)
	defer cl.Close()
	for quiet := 0; quiet < 2; {
		ctx, cancel := context.WithTimeout(k.ctx, time.Second)
		fetches := cl.PollFetches(ctx)
		cancel()
		last := int64(-1)
		fetches.EachRecord(func(r *kgo.Record) {
			sum := sha256.New()
			fmt.Fprintf(sum, "%t %q %t %q %q %d", r.Key == nil, r.Key, r.Value == nil, r.Value, r.Headers, r.Timestamp.UnixMilli())
			got[r.Offset] = fmt.Sprintf("%x %v %d %d %d", sum.Sum(nil)[:8], r.Attrs, r.ProducerID, r.ProducerEpoch, r.LeaderEpoch)
			last = r.Offset
		})
		if last >= to-1 {
			return got
		}
		if quiet++; last >= 0 {
			quiet = 0
		}
	}
	return got
}

func (k *importedKafka) awaitStop(dir string) {
	for range 100 {
		held, err := vfs.Held(vfs.OS(), dir+"/.lock")
		if k.must(err); !held {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	k.t.Fatal("Kafka does not stop")
}

// compare is strict, but for what an import leaves out: records of transactions that were not committed.
func (k *importedKafka) compare(before, after *seenKafka) {
	t := k.t
	t.Helper()
	records := 0
	for name, want := range before.all {
		if before.start[name] != after.start[name] && len(want) > 0 || before.end[name] != after.end[name] {
			t.Errorf("%s: offsets %d..%d, want %d..%d", name, after.start[name], after.end[name], before.start[name], before.end[name])
		}
		if after.epochs[name] <= before.epochs[name] { // the end of Kafka was one, too
			t.Errorf("%s: leader epoch %d after %d", name, after.epochs[name], before.epochs[name])
		}
		have := after.all[name]
		left := 0
		for offset, record := range want {
			switch {
			case have[offset] == record:
				records++
			case strings.HasPrefix(name, "transactions-") && (have[offset] == "" || offset == before.end[name]-1): // where an abort stands now
				left++
			default:
				t.Errorf("%s: offset %d is %q, want %q", name, offset, have[offset], record)
			}
		}
		for offset := range have {
			if want[offset] == "" {
				t.Errorf("%s: offset %d was not there", name, offset)
			}
		}
		if left > 0 {
			t.Logf("%s: %d records of aborted and open transactions are not there", name, left)
		}
		isolated := before.committed[name]
		for offset, record := range isolated {
			if after.committed[name][offset] != record {
				t.Errorf("%s: read_committed: offset %d is %q, want %q", name, offset, after.committed[name][offset], record)
			}
		}
		stable := int64(-1) // such a reader of Kafka's does not get past a transaction that is open
		for offset := range isolated {
			stable = max(stable, offset)
		}
		for offset := range after.committed[name] {
			if isolated[offset] == "" && offset <= stable {
				t.Errorf("%s: read_committed: offset %d should not be there", name, offset)
			}
		}
	}
	t.Logf("%d records of %d partitions are the same, at their offsets", records, len(before.all))
	for topic, want := range before.configs {
		if fmt.Sprint(after.configs[topic]) != fmt.Sprint(want) {
			t.Errorf("%s: configs %v, want %v", topic, after.configs[topic], want)
		}
		if before.ids[topic] != after.ids[topic] {
			t.Errorf("%s: topic id %s, want %s", topic, after.ids[topic], before.ids[topic])
		}
	}
	for group, want := range before.groups {
		if after.groups[group] != want {
			t.Errorf("group %s: %s, want %s", group, after.groups[group], want)
		}
	}
}

// produceMore writes on where the imported logs end, as a new idempotent producer.
func (k *importedKafka) produceMore(bootstrap string) {
	cl := k.client(bootstrap, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer cl.Close()
	for _, topic := range []string{"codec-zstd", "large", "gone", "empty", "transactions", "appended"} {
		r := cl.ProduceSync(k.ctx, &kgo.Record{Topic: topic, Partition: 0, Key: []byte("more"), Value: []byte("more")})
		if err := r.FirstErr(); err != nil {
			k.t.Errorf("%s: %v", topic, err)
		}
	}
}

func (k *importedKafka) compareGrown(before, after *seenKafka) {
	for name, have := range after.all {
		if grown := after.end[name] - before.end[name]; grown < 0 || grown > 1 {
			k.t.Errorf("%s ends at %d, was %d", name, after.end[name], before.end[name])
		}
		for offset, record := range have {
			if offset < before.end[name] && before.all[name][offset] != record {
				k.t.Errorf("%s: offset %d is %q after a restart, want %q", name, offset, record, before.all[name][offset])
			}
		}
	}
}

// runMillrace runs a command as a process of its own.
func runMillrace(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	cmd := exec.Command(millraceBinary(t), args...)
	b, err := cmd.CombinedOutput()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		t.Fatal(err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

// millraceBinary builds it once.
func millraceBinary(t *testing.T) string {
	t.Helper()
	name := t.TempDir() + "/millrace"
	if out, err := exec.Command("go", "build", "-o", name, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return name
}

// startedBroker is a broker of its own process.
type startedBroker struct {
	t       *testing.T
	cmd     *exec.Cmd
	address string
}

func startBroker(t *testing.T, data string) *startedBroker {
	t.Helper()
	b := &startedBroker{t: t, cmd: exec.Command(millraceBinary(t), "serve", "--data", data, "--listen", "127.0.0.1:0")}
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	b.cmd.Stderr = os.Stderr
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.cmd.Process.Kill() })
	text := make([]byte, 0, 4096)
	for !slices.ContainsFunc(strings.Split(string(text), "\n"), func(line string) bool { return strings.HasPrefix(strings.TrimSpace(line), "listening") }) {
		n, err := out.Read(text[len(text):cap(text)])
		if text = text[:len(text)+n]; err != nil {
			t.Fatalf("the broker does not start: %v\n%s", err, text)
		}
	}
	for line := range strings.Lines(string(text)) {
		if address, ok := strings.CutPrefix(strings.TrimSpace(line), "listening"); ok {
			b.address = strings.TrimSpace(address)
		}
	}
	return b
}

func (b *startedBroker) stop() {
	b.cmd.Process.Signal(os.Interrupt)
	if err := b.cmd.Wait(); err != nil {
		b.t.Errorf("the broker ended with %v", err)
	}
}
