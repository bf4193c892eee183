package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/engine/config"
	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// taken is a BatchSource of batches in memory, which fails behind the last when it is to.
type taken struct {
	batches [][]byte
	fails   error
}

func (s *taken) NextBatches(buf []byte) ([]byte, error) {
	if len(s.batches) == 0 {
		if s.fails != nil {
			return buf, s.fails
		}
		return buf, io.EOF
	}
	buf = append(buf, s.batches[0]...)
	s.batches = s.batches[1:]
	return buf, nil
}

// someBatches are batches of two records each, from an offset on, with gaps of one between them.
func someBatches(t *testing.T, from int64, n, size int) *taken {
	t.Helper()
	s := &taken{}
	for i := range int64(n) {
		base := from + 3*i
		b := batch.NewBuilder(batch.BuilderOptions{BaseOffset: base, LeaderEpoch: int32(i / 4), Idempotent: true, ProducerID: 900, BaseSequence: int32(2 * i)})
		for r := range int64(2) {
			b.Append(1_700_000_000_000, nil, fmt.Append(nil, base+r, strings.Repeat("x", size)), nil)
		}
		built, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		s.batches = append(s.batches, built)
	}
	return s
}

var takenID = catalog.TopicID{0: 1, 1: 2, 15: 3}

// aTopic has a partition with records and an end behind the last of them, one whose records are all deleted, one that begins within
// a batch, and one that was never used.
func aTopic(t *testing.T, size int) TakenTopic {
	return TakenTopic{Name: "orders", ID: takenID, Configs: map[string]string{"retention.ms": "-1", "segment.bytes": "1048576"}, Partitions: []TakenPartition{
		{Start: 0, End: 200, First: 6, Epoch: 4, Batches: someBatches(t, 6, 20, size)},
		{Start: 50, End: 50, First: 50, Epoch: 1},
		{Start: 11, End: 10 + 60 - 1, First: 10, Epoch: 9, Batches: someBatches(t, 10, 20, size)},
		{Epoch: -1},
	}}
}

// checkTaken looks at what aTopic has become.
func checkTaken(t *testing.T, what string, e *Engine, size int) {
	t.Helper()
	topic := e.Image().Topic("orders")
	if topic == nil || topic.ID != takenID || topic.Configs["retention.ms"] != "-1" {
		t.Fatalf("%s: %+v", what, topic)
	}
	for i, want := range []struct {
		start, end int64
		epoch      int32
		records    int
	}{{6, 200, 5, 40}, {50, 50, 2, 0}, {11, 69, 10, 39}, {0, 0, 0, 0}} {
		p := partitionOf(e, topic.ID, int32(i))
		start := p.LogStartOffset()
		if i == 0 && start == 0 {
			start = 6 // without records before that, both are true
		}
		got := map[int64]string{}
		for from := p.LogStartOffset(); from < p.HighWatermark(); {
			next, err := values(p, from, got)
			if err != nil {
				t.Fatalf("%s: partition %d at %d: %v", what, i, from, err)
			}
			if next == from { // behind the last record
				break
			}
			from = next
		}
		if start != want.start || p.HighWatermark() != want.end || topic.Partitions[i].LeaderEpoch != want.epoch || len(got) != want.records {
			t.Errorf("%s: partition %d: %d..%d, epoch %d, %d records, want %+v", what, i, start, p.HighWatermark(), topic.Partitions[i].LeaderEpoch, len(got), want)
		}
		for offset, value := range got {
			if value != fmt.Sprint(offset, strings.Repeat("x", size)) {
				t.Errorf("%s: partition %d: at %d is %.20q", what, i, offset, value)
			}
		}
	}
}

func openAdopting(t *testing.T, fs vfs.FS, dir string, adopt func(catalog.TopicID) bool) *Engine {
	t.Helper()
	cfg, _, err := config.ParseBroker(map[string]string{"log.dirs": dir, "node.id": "1"})
	if err != nil {
		t.Fatal(err)
	}
	e, err := Open(context.Background(), Options{FS: fs, Config: cfg, Now: time.Now, Logger: slog.New(slog.DiscardHandler), Adopt: adopt})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestTakeOver(t *testing.T) {
	dir := t.TempDir()
	e := openEngine(t, dir, nil)
	ctx := context.Background()
	if err := e.TakeOver(ctx, aTopic(t, 100)); err != nil {
		t.Fatal(err)
	}
	checkTaken(t, "at once", e, 100)
	if err := e.TakeOver(ctx, aTopic(t, 100)); !errors.Is(err, ErrTopicExists) {
		t.Errorf("again: %v", err)
	}
	if err := errors.Join(e.ReserveProducerIDs(ctx, 901), e.ReserveProducerIDs(ctx, 5)); err != nil || e.Image().NextProducerID() != 901 {
		t.Errorf("next producer id %d, %v", e.Image().NextProducerID(), err)
	}
	r := <-send(partitionOf(e, takenID, 0), idempotent(t, 901, 0, "more"))
	if r.Err != nil || r.BaseOffset != 200 {
		t.Errorf("more: %+v", r)
	}
	closeNow(t, e)
	e = openEngine(t, dir, nil)
	p := partitionOf(e, takenID, 0)
	if got := all(t, p); len(got) != 41 || got[200] != "more" || p.HighWatermark() != 201 {
		t.Errorf("after a restart: %d records, end %d", len(got), p.HighWatermark())
	}
}

// What fails leaves nothing: neither a topic nor a folder, and works the next time.
func TestTakeOverFails(t *testing.T) {
	dir := t.TempDir()
	fault := errors.New("no more")
	for _, test := range []struct {
		name   string
		change func(*TakenTopic)
		want   error
	}{
		{"source", func(x *TakenTopic) { x.Partitions[2].Batches.(*taken).fails = fault }, fault},
		{"order", func(x *TakenTopic) { b := x.Partitions[2].Batches.(*taken).batches; b[3], b[5] = b[5], b[3] }, segment.ErrOutOfOrder},
		{"end", func(x *TakenTopic) { x.Partitions[0].End = 20 }, segment.ErrOutOfOrder},
		{"offsets", func(x *TakenTopic) { x.Partitions[1].Start = 51 }, ErrInvalidRequest},
		{"config", func(x *TakenTopic) { x.Configs["nope"] = "1" }, ErrInvalidConfig},
		{"name", func(x *TakenTopic) { x.Name = "no name" }, ErrInvalidTopicName},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := openEngine(t, filepath.Join(dir, test.name), nil)
			defer closeNow(t, e)
			topic := aTopic(t, 100)
			test.change(&topic)
			if err := e.TakeOver(context.Background(), topic); !errors.Is(err, test.want) {
				t.Fatalf("%v, want %v", err, test.want)
			}
			if left, err := os.ReadDir(filepath.Join(dir, test.name, "topics")); err != nil || len(left) > 0 || e.Image().TopicCount() > 0 {
				t.Errorf("left: %v, %v, %d topics", left, err, e.Image().TopicCount())
			}
			if err := e.TakeOver(context.Background(), aTopic(t, 100)); err != nil {
				t.Fatal(err)
			}
			checkTaken(t, "then", e, 100)
		})
	}
}

// A kill, or a power cut, at any operation: the topic is there as a whole, or nothing of it, and the next attempt makes it.
func TestCrashDuringATakeOver(t *testing.T) {
	for _, size := range []int{10, 80_000} { // through the journal, and straight
		t.Run(fmt.Sprint(size), func(t *testing.T) { crashDuringATakeOver(t, size) })
	}
}

func crashDuringATakeOver(t *testing.T, size int) {
	dir := t.TempDir()
	inCatalog := filepath.Join(dir, catalogFolder)
	if err := os.MkdirAll(inCatalog, 0o755); err != nil {
		t.Fatal(err)
	}
	open := func(fs *vfs.Mem, adopt bool) *Engine { // Badger is on the real file system
		t.Helper()
		if err := vfs.MkdirAllDurable(fs, inCatalog, 0o755); err != nil {
			t.Fatal(err)
		}
		return openAdopting(t, fs, dir, func(id catalog.TopicID) bool { return adopt && id == takenID })
	}
	mem := vfs.NewMem()
	mem.Record()
	e := open(mem, true)
	begun := mem.Ops()
	empty, whole, created := t.TempDir(), t.TempDir(), 0
	if err := os.CopyFS(empty, os.DirFS(inCatalog)); err != nil {
		t.Fatal(err)
	}
	stop := e.Catalog().Subscribe(func(_, _ *catalog.Image) { // the catalogue stands still meanwhile
		created = mem.Ops()
		if err := os.CopyFS(whole, os.DirFS(inCatalog)); err != nil {
			t.Error(err)
		}
	})
	if err := e.TakeOver(context.Background(), aTopic(t, size)); err != nil {
		t.Fatal(err)
	}
	stop()
	closeNow(t, e)
	ops := mem.Ops()
	step := max((ops-begun)/10, 1)
	if testing.Short() {
		step *= 4
	}
	for n := begun; n <= ops; n += step {
		for _, keep := range []float64{0, 0.5, 1} {
			state := empty
			if n >= created {
				state = whole
			}
			if err := os.RemoveAll(inCatalog); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(inCatalog, os.DirFS(state)); err != nil {
				t.Fatal(err)
			}
			what := fmt.Sprintf("crash at %d of %d (%s), keep %v", n, ops, mem.Op(n), keep)
			crashed := mem.Replay(n).Crash(uint64(n), keep)
			if n%2 == 1 { // a server is started in between
				closeNow(t, open(crashed, false))
			}
			e := open(crashed, true)
			if n < created {
				if err := e.TakeOver(context.Background(), aTopic(t, size)); err != nil {
					t.Fatalf("%s: again: %v", what, err)
				}
			}
			checkTaken(t, what, e, size)
			closeNow(t, e)
			left, err := crashed.ReadDir(filepath.Join(dir, "topics"))
			if err != nil || len(left) != 3 {
				t.Errorf("%s: folders %v, %v", what, left, err)
			}
			if t.Failed() {
				return
			}
		}
	}
}
