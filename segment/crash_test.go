package segment

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/segment/vfs"
)

// history is what a workload was told: which value is at which offset of which
// log, and how many operations the file system had seen by then.
type history struct {
	fs    *vfs.Mem
	seed  uint64
	sent  map[int32]map[string]bool
	acked []ackedRecord
	start []ackedStart
	cuts  []ackedCut
}

// variety opens a directory with settings that a seed picks, so that records take every
// way to the disk: straight, through a journal that is left and used again all the
// time, both; flushed soon, late or by hand; kept in memory or not at all.
func variety(seed uint64) func(*DirOptions) {
	pick := rand.New(rand.NewPCG(seed, 7))
	return func(o *DirOptions) {
		o.DirectBytes = []int64{1, 130, 300, 1 << 20}[pick.IntN(4)]
		o.JournalFileBytes = []int64{4096, 20_000, 1 << 20}[pick.IntN(3)]
		o.JournalBytes = []int64{16_000, 100_000, 1 << 24}[pick.IntN(3)]
		o.FlushInterval = []time.Duration{time.Millisecond, time.Hour}[pick.IntN(2)]
		o.TailBytes = []int64{1, 40_000, 1 << 24}[pick.IntN(3)]
		o.Buffered = pick.IntN(4) == 0
		o.SyncEach = []int{1, 32}[pick.IntN(2)]
		o.CheckpointBytes = []int64{1, 2000, 1 << 20}[pick.IntN(3)]
		o.FlushLogs = 1 + pick.IntN(3)
	}
}

// segments gives settings of logs: tiny segments, or ones that take many blocks.
func segments(seed uint64) LogConfig {
	cfg := smallSegments()
	if seed%2 == 1 {
		cfg.SegmentBytes = 20_000
	}
	return cfg
}

func lateLog(seed uint64) LogConfig {
	cfg := segments(seed)
	cfg.FlushMessages, cfg.FlushAfter = 10, time.Hour
	return cfg
}

type ackedRecord struct {
	partition int32
	offset    int64
	value     string
	ops       int
}

type ackedStart struct {
	partition int32
	offset    int64
	ops       int
}

// ackedCut is a truncation, or a reset: how many operations there were when it began and when it was done.
type ackedCut struct {
	partition             int32
	before, start, end    int64 // log end offset before, and what came of it
	whole                 bool
	records, starts       int // of history.acked and history.start that came before it
	begunAfter, doneAfter int
}

// cut truncates or resets a log.
func (h *history) cut(t *testing.T, l *Log, to int64, reset bool) {
	t.Helper()
	c := ackedCut{
		partition: l.id.Partition, before: l.LogEndOffset(), whole: reset, records: len(h.acked), starts: len(h.start), begunAfter: h.fs.Ops(),
	}
	err := error(nil)
	if reset {
		err = l.Reset(context.Background(), 0, to)
	} else {
		err = l.Truncate(context.Background(), 0, to)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.start, c.end, c.doneAfter = l.LogStartOffset(), l.LogEndOffset(), h.fs.Ops()
	h.cuts = append(h.cuts, c)
}

// cutBy gives the cut that was begun within ops operations and took away what the history's record i was, nil when it stays.
func (h *history) cutBy(i, ops int) *ackedCut {
	for n := range h.cuts {
		c := &h.cuts[n]
		if r := h.acked[i]; c.partition == r.partition && c.records > i && c.begunAfter < ops && (c.whole || r.offset >= c.end) {
			return c
		}
	}
	return nil
}

// runWorkload appends, rolls, moves log start offsets and restarts, at random.
func runWorkload(t *testing.T, seed uint64, steps int) *history {
	t.Helper()
	return runWorkloadOn(t, seed, steps, func(fs vfs.FS) vfs.FS { return fs })
}

func runWorkloadOn(t *testing.T, seed uint64, steps int, wrap func(vfs.FS) vfs.FS) *history {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 0))
	h := &history{fs: newMem(t), seed: seed, sent: make(map[int32]map[string]bool)}
	h.fs.Record()
	fs := wrap(h.fs)
	d := openDir(t, fs, variety(seed))
	const partitions = 3
	for step := range steps {
		p := random.Int32N(partitions)
		l := d.open(t, "orders", p, segments(seed))
		switch n := random.IntN(40); {
		case n == 0:
			d.close(t)
			d = openDir(t, fs, variety(seed+uint64(step)))
		case n == 2 || n == 3:
			d.flush(t)
		case n == 4:
			// A topic that comes and goes: nothing of it may be in the way of the others.
			gone := d.open(t, fmt.Sprint("gone", step), 9, segments(seed))
			gone.mustAppend(t, makeBatch(t, 1, "gone", int64(step)))
			gone.Delete()
			h.note(9, "gone", 1)
		case n == 1:
			to := l.LogStartOffset() + random.Int64N(1+(l.LogEndOffset()-l.LogStartOffset())/2)
			if err := l.DeleteRecordsBefore(context.Background(), to); err != nil {
				t.Fatal(err)
			}
			h.start = append(h.start, ackedStart{p, to, h.fs.Ops()})
		case n == 6 || n == 7: // mostly of what came last
			end := l.LogEndOffset()
			h.cut(t, l, max(l.LogStartOffset(), end-1-random.Int64N(1+int64(2*n)*(1+end/20))), false)
		case n == 8 && random.IntN(3) == 0:
			h.cut(t, l, random.Int64N(2*l.LogEndOffset()+10), true)
		case n == 9:
			late := d.open(t, "late", 7, lateLog(seed))
			late.mustTruncate(t, late.LogEndOffset()-random.Int64N(1+late.LogEndOffset()/2))
		case n == 5:
			// What is acknowledged before it is synced may be lost, from some record on.
			d.open(t, "late", 7, lateLog(seed)).mustAppend(t, makeBatch(t, 1+random.IntN(6), fmt.Sprint("late", step, strings.Repeat("x", random.IntN(int(segments(seed).SegmentBytes/30)))), int64(step)))
		default:
			prefix := fmt.Sprintf("s%d", step)
			count := 1 + random.IntN(6)
			if segments(seed).SegmentBytes > 10_000 && random.IntN(10) == 0 {
				prefix += strings.Repeat("x", random.IntN(5000))
				count = 1
			}
			h.note(p, prefix, count)
			done := make(chan struct{})
			err := l.Append(context.Background(), &Append{Batches: makeBatch(t, count, prefix, int64(step)), Done: func(r Result) {
				if r.Err != nil {
					t.Errorf("append: %v", r.Err)
				}
				for i := range count {
					h.acked = append(h.acked, ackedRecord{p, r.BaseOffset + int64(i), fmt.Sprintf("%s-%d", prefix, i), h.fs.Ops()})
				}
				close(done)
			}})
			if err != nil {
				t.Fatal(err)
			}
			<-done
		}
	}
	d.close(t)
	return h
}

// note remembers what is sent to a partition.
func (h *history) note(partition int32, prefix string, count int) {
	if h.sent[partition] == nil {
		h.sent[partition] = make(map[string]bool)
	}
	for i := range count {
		h.sent[partition][fmt.Sprintf("%s-%d", prefix, i)] = true
	}
}

// check opens what a crash after ops operations has left and compares it with
// the history.
func (h *history) check(t testing.TB, fs *vfs.Mem, ops int) error {
	if err := checkSeals(fs, "data/topics"); err != nil {
		return err
	}
	d, err := tryOpenDir(fs, variety(h.seed+uint64(ops)))
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer d.Close(context.Background())
	logs := make(map[int32]*Log)
	contents := make(map[int32]map[int64]string)
	for _, id := range d.Found() {
		l, err := d.Dir.Log(id, segments(h.seed))
		if err != nil {
			return err
		}
		if id.Topic == "late" {
			if got, err := l.readAll(0); err != nil || int64(len(got)) != l.LogEndOffset() {
				return fmt.Errorf("read %s: %d of %d records, %w", id, len(got), l.LogEndOffset(), err)
			}
		}
		if id.Topic != "orders" {
			continue
		}
		got, err := l.readAll(l.LogStartOffset())
		if err != nil {
			return fmt.Errorf("read %s: %w", id, err)
		}
		for offset, value := range got {
			if !h.sent[id.Partition][value] {
				return fmt.Errorf("%s holds %q at %d, which nobody sent", id, value[:min(20, len(value))], offset)
			}
		}
		if n := l.LogEndOffset() - l.LogStartOffset(); n != int64(len(got)) {
			return fmt.Errorf("%s holds %d records between %d and %d", id, len(got), l.LogStartOffset(), l.LogEndOffset())
		}
		for _, ask := range []int{ops % 140, 7 * ops % 140, 31 * ops % 140} {
			at, found, err := l.OffsetForTimestamp(int64(ask), l.LogEndOffset())
			if want := firstAt(got, ask); err != nil || found != (want >= 0) || found && at.Offset != want {
				return fmt.Errorf("%s: first record at or behind timestamp %d: %d (%v), %w; want %d", id, ask, at.Offset, found, err, want)
			}
		}
		logs[id.Partition], contents[id.Partition] = l, got
	}
	for i, s := range h.start {
		if slices.ContainsFunc(h.cuts, func(c ackedCut) bool {
			return c.partition == s.partition && c.starts > i && c.start < s.offset && c.begunAfter < ops
		}) {
			continue
		}
		if s.ops <= ops && (logs[s.partition] == nil && s.offset > 0 || logs[s.partition] != nil && logs[s.partition].LogStartOffset() < s.offset) {
			return fmt.Errorf("the log start offset %d of partition %d was lost", s.offset, s.partition)
		}
	}
	for _, c := range h.cuts {
		if l := logs[c.partition]; l != nil && c.begunAfter < ops && ops < c.doneAfter && l.LogEndOffset() != c.before && l.LogEndOffset() != c.end {
			return fmt.Errorf("partition %d ends at %d, in the midst of being cut from %d to %d", c.partition, l.LogEndOffset(), c.before, c.end)
		}
	}
	for i, r := range h.acked {
		if c := h.cutBy(i, ops); c != nil {
			done := c.doneAfter <= ops || logs[r.partition] != nil && logs[r.partition].LogEndOffset() == c.end && c.end != c.before
			if got := contents[r.partition][r.offset]; done && got == r.value {
				return fmt.Errorf("partition %d offset %d: %.20q was cut, and is back", r.partition, r.offset, r.value)
			}
			if done || c.before == c.end {
				continue
			}
		}
		if r.ops > ops || logs[r.partition] != nil && r.offset < logs[r.partition].LogStartOffset() {
			continue
		}
		if got := contents[r.partition][r.offset]; got != r.value {
			return fmt.Errorf("partition %d offset %d: acknowledged %.20q, found %.20q", r.partition, r.offset, r.value, got)
		}
	}
	// The directory goes on from there.
	l, err := d.Dir.Log(testID("orders", 0), segments(h.seed))
	if err != nil {
		return err
	}
	next := l.LogEndOffset()
	done := make(chan Result, 1)
	if err := l.Append(context.Background(), &Append{Batches: makeBatch(t, 1, "next", 1), Done: func(r Result) { done <- r }}); err != nil {
		return err
	}
	if r := <-done; r.Err != nil || r.BaseOffset != next {
		return fmt.Errorf("append after the crash: offset %d, %w; want %d", r.BaseOffset, r.Err, next)
	}
	return nil
}

// firstAt finds the first record whose timestamp, which its value tells, is at least
// ask; -1 when there is none.
func firstAt(values map[int64]string, ask int) int64 {
	first := int64(-1)
	for offset, value := range values {
		var step, n int
		name, number, _ := strings.Cut(value, "-")
		fmt.Sscanf(strings.TrimRight(name, "x"), "s%d", &step)
		fmt.Sscan(number, &n)
		if step+n >= ask && (first < 0 || offset < first) {
			first = offset
		}
	}
	return first
}

// At every prefix of what was written, opening yields what was acknowledged by
// then and nothing that was not sent: with all that was written (a killed
// process), with nothing unsynced and with some of it (a power cut).
func TestCrashAtEveryOperation(t *testing.T) {
	seeds, steps := uint64(2), 40
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		h := runWorkload(t, seed, steps)
		for n := range h.fs.Ops() + 1 {
			if n < 1 {
				continue // before the data directory itself
			}
			for _, keep := range []float64{0, 0.5, 1} {
				if err := h.check(t, h.fs.Replay(n).Crash(uint64(n), keep), n); err != nil {
					t.Fatalf("seed %d, keep %v, crash after operation %d (%s): %v", seed, keep, n, h.fs.Op(n), err)
				}
			}
		}
	}
}

// A crash in the middle of a recovery is recovered from like any other.
func TestCrashDuringRecovery(t *testing.T) {
	h := runWorkload(t, 11, 60)
	all := h.fs.Ops()
	for n := all / 2; n <= all; n += 11 {
		first := h.fs.Replay(n).Crash(uint64(n), 0.5)
		first.Record()
		if d, err := tryOpenDir(first); err != nil {
			t.Fatal(err)
		} else if err := d.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		for m := range first.Ops() + 1 {
			if err := h.check(t, first.Replay(m).Crash(uint64(m), 0.5), n); err != nil {
				t.Fatalf("crash after operation %d, and again after operation %d (%s) of the recovery: %v", n, m, first.Op(m), err)
			}
		}
	}
}

// What a restart has shown to readers, a power cut behind it must not take away,
// even if it was never acknowledged.
func TestRecoveredRecordsSurviveAPowerCut(t *testing.T) {
	fs := newMem(t)
	fs.Record()
	faulty := vfs.NewFaulty(fs)
	d := openDir(t, faulty)
	l := d.open(t, "orders", 0, DefaultLogConfig())
	l.mustAppend(t, makeBatch(t, 1, "acknowledged", 1))
	var killed *vfs.Mem
	faulty.Inject(vfs.Fault{Op: vfs.OpSync, Path: "*.journal", Nth: 1, Do: func() { killed = fs.Replay(fs.Ops()) }})
	l.mustAppend(t, makeBatch(t, 1, "written", 1))
	d.close(t)
	restarted := openDir(t, killed)
	if end := restarted.open(t, "orders", 0, DefaultLogConfig()).LogEndOffset(); end != 2 {
		t.Fatalf("after the kill the log ends at %d: nothing is tested", end)
	}
	again := openDir(t, killed.Crash(2, 0))
	if end := again.open(t, "orders", 0, DefaultLogConfig()).LogEndOffset(); end != 2 {
		t.Errorf("after the power cut the log ends at %d, readers had seen 2", end)
	}
	restarted.close(t)
	again.close(t)
}

// A torn tail is cut in the file too: what is left there could be taken for
// records once new ones are written before it.
func TestTornTailIsCutAndSaid(t *testing.T) {
	fs := newMem(t)
	d := openDir(t, fs)
	l := d.open(t, "orders", 0, DefaultLogConfig())
	b := makeBatch(t, 2, "x", 1)
	for range 3 {
		l.mustAppend(t, append([]byte(nil), b...))
	}
	name, size := l.active().name(".log"), l.SizeBytes()
	d.close(t)
	f, err := fs.OpenFile(name, vfs.ReadWrite, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(b[:len(b)-1], size); err != nil {
		t.Fatal(err)
	}
	if err := fs.Remove("data/" + cleanMarker); err != nil {
		t.Fatal(err)
	}
	d = openDir(t, fs)
	defer d.close(t)
	if end := d.open(t, "orders", 0, DefaultLogConfig()).LogEndOffset(); end != 6 {
		t.Errorf("log ends at %d, want 6", end)
	}
	if n, _ := f.Size(); n != size {
		t.Errorf("file has %d bytes, want %d", n, size)
	}
	for _, word := range []string{"orders-0", "position=" + fmt.Sprint(size), fmt.Sprintf("bytes=%d", len(b)-1), "logEndOffset=6"} {
		if !strings.Contains(d.log.String(), word) {
			t.Errorf("the log does not say %s: %s", word, d.log)
		}
	}
}
