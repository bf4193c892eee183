package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// begins has a partition moved, and is done when that is recorded.
func begins(t *testing.T, e *Engine, p *Partition, dir string) {
	t.Helper()
	if errs := e.MoveReplicas(context.Background(), []Move{{p, dir}}); errs[0] != nil {
		t.Fatal(errs[0])
	}
}

// eventually waits for what has no signal of its own.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// holdsAll checks how many records a partition has.
func holdsAll(t *testing.T, p *Partition, records int) {
	t.Helper()
	if got := all(t, p); len(got) != records {
		t.Errorf("%d records, want %d", len(got), records)
	}
}

// moved waits until a partition lies in dir, and nothing of it anywhere else.
func moved(t *testing.T, e *Engine, p *Partition, dir string) {
	t.Helper()
	eventually(t, p.name+" lies in "+dir, func() bool { return p.LogDir() == dir })
	eventually(t, "nothing is left of the move of "+p.name, func() bool { return idle(e) && alone(t, e, p) })
	placed := e.Image().TopicByID(p.topicID).Partitions[p.index]
	if e.pathOf(placed.Dir(1)) != dir || placed.Futures != nil {
		t.Errorf("the catalogue says %s, future %v", e.pathOf(placed.Dir(1)), placed.Futures)
	}
}

func idle(e *Engine) bool {
	e.mover.mu.Lock()
	defer e.mover.mu.Unlock()
	return len(e.mover.jobs) == 0 && e.mover.workers == 0
}

// alone tells whether only the directory that p lies in has anything of it.
func alone(t *testing.T, e *Engine, p *Partition) bool {
	t.Helper()
	for _, d := range e.dirs {
		entries, err := e.options.FS.ReadDir(filepath.Join(d.path, "topics"))
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			if strings.HasPrefix(entry.Name(), p.name+".") && (d.path != p.LogDir() || strings.HasSuffix(entry.Name(), ".deleted") || strings.HasSuffix(entry.Name(), ".stray")) {
				return false
			}
		}
	}
	return true
}

// idempotent is a batch with one record of a producer.
func idempotent(t testing.TB, producer int64, sequence int32, value string) []byte {
	t.Helper()
	b := batch.NewBuilder(batch.BuilderOptions{Idempotent: true, ProducerID: producer, BaseSequence: sequence})
	b.Append(time.Now().UnixMilli(), nil, []byte(value), nil) // producers are forgotten by that
	built, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return built
}

func send(p *Partition, records []byte) <-chan ProduceResult {
	done := make(chan ProduceResult, 1)
	p.Produce(context.Background(), Produce{Records: records, Acks: -1, RequestVersion: 9, Timeout: 30 * time.Second}, func(r ProduceResult) { done <- r })
	return done
}

// values reads the records from an offset on, up to where View ends.
func values(p *Partition, from int64, into map[int64]string) (next int64, err error) {
	var v segment.View
	defer v.Release()
	if _, err := p.View(&v, from, 1<<20, true); err != nil {
		return from, err
	}
	for one, err := range batch.All(bytes.Join(v.Pieces, nil)) {
		if err != nil {
			return from, err
		}
		h, err := batch.Check(one)
		if err != nil {
			return from, err
		}
		for r, err := range batch.Records(one, 1<<20) {
			if err != nil {
				return from, err
			}
			if offset := h.Offset(&r); offset >= from {
				if _, twice := into[offset]; twice {
					return from, fmt.Errorf("offset %d came twice", offset)
				}
				into[offset] = string(r.Value)
			}
		}
		from = h.NextOffset()
	}
	return from, nil
}

// all reads the whole partition.
func all(t *testing.T, p *Partition) map[int64]string {
	t.Helper()
	got := map[int64]string{}
	for from := p.LogStartOffset(); from < p.HighWatermark(); {
		next, err := values(p, from, got)
		if err != nil || next == from {
			t.Fatalf("%s at %d: %v", p.name, from, err)
		}
		from = next
	}
	return got
}

// Producers and a consumer go on while the partition moves to and fro: every acknowledged record is
// there once, at its offset, in the order of its producer; nobody sees an error.
func TestMoveUnderLoad(t *testing.T) {
	a, b, both := twoDirs(t)
	e := mustOpen(t, vfs.OS(), both)
	id := createTopic(t, e, "orders", 1, nil)
	p := partitionOf(e, id, 0)
	filling := strings.Repeat("x", 20_000)
	for i := range int32(300) { // about 6 MB, which are copied before the log is held
		if r := <-send(p, idempotent(t, 1, i, filling)); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	if _, err := p.DeleteRecordsBefore(context.Background(), 33); err != nil {
		t.Fatal(err)
	}
	const producers = 3
	var acked [producers]map[int64]string
	stop, written := make(chan struct{}), make(chan struct{})
	var group, reading sync.WaitGroup
	for n := range producers {
		acked[n] = map[int64]string{}
		group.Go(func() { // up to five in flight, as a client has
			type flight struct {
				value string
				done  <-chan ProduceResult
			}
			var flying []flight
			for sequence, last := int32(0), int64(-1); ; sequence++ {
				over := false
				select {
				case <-stop:
					over = true
				default:
					value := fmt.Sprintf("%d-%d", n, sequence)
					flying = append(flying, flight{value, send(p, idempotent(t, int64(10+n), sequence, value))})
				}
				for len(flying) > 0 && (over || len(flying) == 5) {
					r := <-flying[0].done
					if r.Err != nil || r.BaseOffset <= last {
						t.Errorf("%s: %+v behind %d", flying[0].value, r, last)
						return
					}
					last = r.BaseOffset
					acked[n][r.BaseOffset] = flying[0].value
					flying = flying[1:]
				}
				if over {
					return
				}
			}
		})
	}
	seen := map[int64]string{}
	reading.Go(func() {
		w := NewWaiter()
		p.Watch(w)
		defer p.Unwatch(w)
		for from := int64(300); ; {
			next, err := values(p, from, seen)
			if err != nil {
				t.Errorf("consumer at %d: %v", from, err)
				return
			}
			if next > from {
				from = next
				continue
			}
			select {
			case <-w.C:
			case <-written:
				if from == p.HighWatermark() {
					return
				}
			}
		}
	})
	for _, dir := range []string{b, a, b} {
		begins(t, e, p, dir)
		moved(t, e, p, dir)
	}
	close(stop)
	group.Wait()
	close(written)
	reading.Wait()
	total := 0
	for n := range acked {
		total += len(acked[n])
	}
	if total < 10 || int64(total) != p.HighWatermark()-300 || len(seen) != total {
		t.Fatalf("%d acknowledged, %d seen, log ends at %d", total, len(seen), p.HighWatermark())
	}
	stored := all(t, p)
	for n := range acked {
		for offset, value := range acked[n] {
			if stored[offset] != value || seen[offset] != value {
				t.Errorf("offset %d: acknowledged %q, stored %q, seen %q", offset, value, stored[offset], seen[offset])
			}
		}
		last := int32(len(acked[n]) - 1)
		if r := <-send(p, idempotent(t, int64(10+n), last, fmt.Sprintf("%d-%d", n, last))); r.Err != nil || acked[n][r.BaseOffset] == "" || int64(total) != p.HighWatermark()-300 {
			t.Errorf("the last batch again: %+v", r)
		}
	}
	if p.LogStartOffset() != 33 || len(stored) != total+300-33 {
		t.Errorf("log begins at %d, %d records", p.LogStartOffset(), len(stored))
	}
	t.Logf("%d records during three moves", total)
}

// What is remembered beside the records, and what may happen to a partition afterwards, is as before.
func TestMoveCarriesEverything(t *testing.T) {
	a, b, both := twoDirs(t)
	e := mustOpen(t, vfs.OS(), both)
	id := createTopic(t, e, "orders", 1, map[string]string{"segment.bytes": "1048576"})
	p := partitionOf(e, id, 0)
	for i := range int32(10) {
		<-send(p, idempotent(t, 5, i, fmt.Sprint("early ", i)))
	}
	led(p, 3, 1)
	for i := range int32(10) {
		<-send(p, idempotent(t, 6, i, strings.Repeat("late", 100_000)))
	}
	if _, err := p.DeleteRecordsBefore(context.Background(), 10); err != nil {
		t.Fatal(err)
	}
	want := all(t, p)
	begins(t, e, p, b)
	moved(t, e, p, b)
	check := func(what string, e *Engine) {
		t.Helper()
		p := partitionOf(e, id, 0)
		led(p, 3, 1)
		got := all(t, p)
		if len(got) != 10 || got[19] != want[19] || p.LogStartOffset() != 10 || p.HighWatermark() != 20 || p.LogDir() != b {
			t.Errorf("%s: %d records, %d to %d in %s", what, len(got), p.LogStartOffset(), p.HighWatermark(), p.LogDir())
		}
		if epoch := p.EpochAt(12); epoch != 3 {
			t.Errorf("%s: epoch %d", what, epoch)
		}
		if r := <-send(p, idempotent(t, 5, 9, "early 9")); r.Err != nil || r.BaseOffset != 9 {
			t.Errorf("%s: the last batch of a producer whose records are deleted: %+v", what, r)
		}
		if at, found, err := p.OffsetForTimestamp(1000); err != nil || !found || at.Offset != 10 {
			t.Errorf("%s: by timestamp %+v %v %v", what, at, found, err)
		}
		if max := p.at.Load().log.SizeBytes(); max < 1<<20 {
			t.Errorf("%s: %d bytes", what, max)
		}
	}
	check("after the move", e)
	if n := [2]int32{e.dirs.byPath(a).placed.Load(), e.dirs.byPath(b).placed.Load()}; n != [2]int32{0, 1} {
		t.Errorf("partitions in the directories: %v", n)
	}
	closeNow(t, e)
	e = mustOpen(t, vfs.OS(), both)
	check("after a restart", e)
	p = partitionOf(e, id, 0)
	if start, err := p.DeleteRecordsBefore(context.Background(), -1); err != nil || start != 20 {
		t.Errorf("delete all: %d, %v", start, err)
	}
	begins(t, e, p, a) // with nothing in it
	moved(t, e, p, a)
	closeNow(t, e)
	e = mustOpen(t, vfs.OS(), both)
	p = partitionOf(e, id, 0)
	if p.LogStartOffset() != 20 || p.HighWatermark() != 20 {
		t.Errorf("an empty log that ends at 20: %d to %d", p.LogStartOffset(), p.HighWatermark())
	}
	if r := <-send(p, idempotent(t, 6, 10, "next")); r.Err != nil || r.BaseOffset != 20 {
		t.Errorf("the next batch: %+v", r)
	}
}

// A partition without a record moves without a file, and several in one change.
func TestMoveOfEmptyPartitions(t *testing.T) {
	_, b, both := twoDirs(t)
	e := mustOpen(t, vfs.OS(), both)
	id := createTopic(t, e, "orders", 20, nil)
	var moves []Move
	for i := range int32(20) {
		moves = append(moves, Move{partitionOf(e, id, i), b})
	}
	before := e.Image().Version()
	for _, err := range e.MoveReplicas(context.Background(), moves) {
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range int32(20) {
		moved(t, e, partitionOf(e, id, i), b)
	}
	if changes := e.Image().Version() - before; changes != 21 {
		t.Errorf("%d changes of the catalogue", changes)
	}
	for _, err := range e.MoveReplicas(context.Background(), moves) { // they are there
		if err != nil {
			t.Error(err)
		}
	}
	closeNow(t, e)
	e = mustOpen(t, vfs.OS(), both)
	if where := whereAbouts(e, id, 20); where != strings.Repeat("b", 20) {
		t.Errorf("after a restart: %s", where)
	}
}

// Refused before anything is recorded.
func TestMovesThatAreRefused(t *testing.T) {
	_, b, both := twoDirs(t)
	e := mustOpen(t, vfs.OS(), both)
	p := partitionOf(e, createTopic(t, e, "orders", 1, nil), 0)
	before := e.Image().Version()
	gone := partitionOf(e, createTopic(t, e, "gone", 1, nil), 0)
	if _, err := e.Topics().Delete(context.Background(), []TopicRef{{ID: gone.topicID}}); err != nil {
		t.Fatal(err)
	}
	errs := e.MoveReplicas(context.Background(), []Move{{p, "/nowhere"}, {gone, b}, {p, p.LogDir()}})
	if !errors.Is(errs[0], ErrUnknownLogDir) || !errors.Is(errs[1], ErrUnknownPartition) || errs[2] != nil {
		t.Errorf("%v", errs)
	}
	if changes := e.Image().Version() - before; changes != 2 {
		t.Errorf("%d changes", changes)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if errs := e.MoveReplicas(ctx, []Move{{p, b}}); !errors.Is(errs[0], context.Canceled) {
		t.Errorf("%v", errs)
	}
}

// The limit on how fast partitions move holds, and to lift it has an effect at once.
func TestMoveIsPaced(t *testing.T) {
	a, b, both := twoDirs(t)
	e := mustOpen(t, vfs.OS(), both)
	p := partitionOf(e, createTopic(t, e, "orders", 1, nil), 0)
	for i := range int32(40) { // 8 MB, of which about a half is copied before the log is held
		<-send(p, idempotent(t, 5, i, strings.Repeat("x", 200_000)))
	}
	limit := func(configs map[string]string) {
		t.Helper()
		change := catalog.ConfigChange{Type: catalog.ResourceBroker, Name: "1", Configs: configs}
		res, err := e.Catalog().Propose(context.Background(), catalog.AlterConfigs{Base: e.Image().Version(), Changes: []catalog.ConfigChange{change}})
		if err != nil || res.Errors[0] != nil {
			t.Fatal(err, res.Errors)
		}
	}
	limit(map[string]string{"replica.alter.log.dirs.io.max.bytes.per.second": "1000"})
	begins(t, e, p, b)
	eventually(t, "something is copied", func() bool { m, ok := e.Moving(e.Image().Topic("orders"), 0); return ok && m.SizeBytes > 0 })
	time.Sleep(100 * time.Millisecond)
	if m, ok := e.Moving(e.Image().Topic("orders"), 0); !ok || m.SizeBytes > 2<<20 || p.LogDir() != a {
		t.Errorf("in %s, %v %+v", p.LogDir(), ok, m)
	}
	limit(nil)
	moved(t, e, p, b)
}

// A reader that has found its log, and not its files any more, reads on where the partition lies now.
func TestReadersOfALogThatHasMoved(t *testing.T) {
	for name, read := range map[string]func(*Partition) error{
		"view": func(p *Partition) error {
			got := map[int64]string{}
			next, err := values(p, 0, got)
			if err == nil && next == 0 {
				err = errors.New("nothing")
			}
			return err
		},
		"read": func(p *Partition) error {
			b, err := p.Read(nil, 0, 1<<20, true)
			if err == nil && len(b) == 0 {
				err = errors.New("nothing")
			}
			return err
		},
		"available": func(p *Partition) error {
			n, err := p.AvailableBytes(0)
			if err == nil && n < 2_000_000 {
				err = fmt.Errorf("%d bytes", n)
			}
			return err
		},
	} {
		_, b, both := twoDirs(t)
		e := mustOpen(t, vfs.OS(), both)
		p := partitionOf(e, createTopic(t, e, "orders", 1, map[string]string{"segment.bytes": "1048576"}), 0)
		for i := range int32(10) {
			<-send(p, idempotent(t, 5, i, strings.Repeat("x", 200_000)))
		}
		closeNow(t, e)
		faulty := vfs.NewFaulty(vfs.OS())
		e = mustOpen(t, faulty, both)
		p = partitionOf(e, p.topicID, 0)
		happened := false
		faulty.Inject(vfs.Fault{Op: vfs.OpOpen, Path: "00000000000000000000.index", Nth: 1, Do: func() {
			happened = true
			begins(t, e, p, b)
			moved(t, e, p, b)
		}})
		if err := read(p); err != nil || !happened {
			t.Errorf("%s: %v (moved meanwhile: %v)", name, err, happened)
		}
	}
}

// A log that is truncated while it is copied, as a follower's may be, and has grown to the same length since, is not taken for its copy.
func TestTruncatedDuringAMove(t *testing.T) {
	_, _, both := twoDirs(t)
	e := mustOpen(t, vfs.OS(), both)
	p := partitionOf(e, createTopic(t, e, "orders", 1, nil), 0)
	for i := range 3 {
		if r := produce(t, p, 1, fmt.Sprint("value ", i)); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	at, to := p.at.Load(), e.dirs[0]
	if to == at.dir {
		to = e.dirs[1]
	}
	truncations := at.log.Truncations()
	f, err := e.mover.begin(t.Context(), p, at, to)
	if err != nil {
		t.Fatal(err)
	}
	c := &copier{from: at.log, to: f.log, truncations: truncations, stalled: to.dir.StallContext}
	if err := c.some(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := at.log.Truncate(t.Context(), p.LeaderEpoch(), 2); err != nil {
		t.Fatal(err)
	}
	if r := produce(t, p, 1, "another"); r.Err != nil || r.BaseOffset != 2 || f.log.LogEndOffset() != at.log.LogEndOffset() {
		t.Fatalf("%+v", r)
	}
	if err := e.mover.hold(t.Context(), at, f, c); !errors.Is(err, errTruncated) || !mayPass(err) {
		t.Errorf("%v", err)
	}
	at.log.Unhold()
	e.mover.remove(p, f)
}
