package inspect_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/inspect"
	"github.com/millrace/millrace/segment/vfs"
)

// kafkaDir gives what a broker of Kafka's has left, as "data".
func kafkaDir(t testing.TB) *vfs.Mem {
	t.Helper()
	const from = "../../testdata/segments/kafka"
	m := vfs.NewMem()
	err := filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join("data", strings.TrimPrefix(path, from))
		if d.IsDir() {
			return vfs.MkdirAllDurable(m, to, 0o755)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return vfs.WriteFileAtomic(m, to, b)
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

const (
	txnIndex = "data/txn-0/00000000000000000001.txnindex"
	txnLog   = "data/txn-0/00000000000000000001.log"
)

func read(t testing.TB, fsys vfs.FS, name string) []byte {
	t.Helper()
	b, err := vfs.ReadFile(fsys, name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func put(t testing.TB, fsys vfs.FS, name string, b []byte) {
	t.Helper()
	if err := vfs.WriteFileAtomic(fsys, name, b); err != nil {
		t.Fatal(err)
	}
}

// harm is what verify finds, but for notes.
func harm(t testing.TB, fsys vfs.FS) []inspect.Finding {
	t.Helper()
	list, _ := verify(t, fsys, inspect.VerifyOptions{})
	return slices.DeleteFunc(list, func(f inspect.Finding) bool { return f.Severity == inspect.Note })
}

// An index of aborted transactions that is missing, torn, or wrong in any bit that matters, is found, and made again as it was.
func TestTxnIndex(t *testing.T) {
	whole := read(t, kafkaDir(t), txnIndex)
	entries := len(whole) / inspect.TxnEntrySize
	if list := harm(t, kafkaDir(t)); len(list) > 0 || entries != 14 {
		t.Fatalf("%d entries, %v", entries, list)
	}
	try := func(name string, change func(m *vfs.Mem)) {
		m := kafkaDir(t)
		change(m)
		if list := harm(t, m); len(list) != 1 || list[0].What != inspect.SaidTxnIndex {
			t.Errorf("%s: %v", name, list)
		}
		if plan := repair(t, m, false, "1"); len(plan.Steps) == 0 || plan.Steps[0].Do != "set aside" || !strings.HasSuffix(plan.Steps[0].File, ".kafka_cleanshutdown") {
			t.Errorf("%s: %s", name, steps(plan))
		}
		if got := read(t, m, txnIndex); !bytes.Equal(got, whole) {
			t.Errorf("%s: the repair makes\n%x of\n%x", name, got, whole)
		}
		if plan := repair(t, m, false, "2"); len(plan.Steps)+len(plan.Left) > 0 {
			t.Errorf("%s: the second repair does %s, leaves %v", name, steps(plan), plan.Left)
		}
	}
	try("missing", func(m *vfs.Mem) {
		if err := m.Remove(txnIndex); err != nil {
			t.Fatal(err)
		}
	})
	try("torn", func(m *vfs.Mem) { put(t, m, txnIndex, whole[:len(whole)-5]) })
	try("short", func(m *vfs.Mem) { put(t, m, txnIndex, whole[:len(whole)-inspect.TxnEntrySize]) })
	try("long", func(m *vfs.Mem) { put(t, m, txnIndex, append(slices.Clone(whole), whole[:inspect.TxnEntrySize]...)) })
	try("without the first", func(m *vfs.Mem) { put(t, m, txnIndex, whole[inspect.TxnEntrySize:]) })
	for at := range whole {
		if field := at % inspect.TxnEntrySize; field >= 26 {
			continue // a last stable offset that is too small only makes a broker look further
		}
		try(fmt.Sprint("a bit at ", at), func(m *vfs.Mem) {
			b := slices.Clone(whole)
			b[at] ^= 1 << (at % 8)
			put(t, m, txnIndex, b)
		})
	}
}

// Compaction takes what an aborted transaction has written, and its entry in the index with the next pass, and leaves the marker for
// a day: that is no damage.
func TestTxnIndexOfACompactedLog(t *testing.T) {
	m := kafkaDir(t)
	first := inspect.DecodeTxnEntry(read(t, m, txnIndex))
	without := func(drop func(h batch.Header) bool) (b []byte) {
		for whole, err := range batch.All(read(t, kafkaDir(t), txnLog)) {
			if err != nil {
				t.Fatal(err)
			}
			h, err := batch.ReadHeader(whole)
			if err != nil {
				t.Fatal(err)
			}
			if !drop(h) {
				b = append(b, whole...)
			}
		}
		return b
	}
	of := func(h batch.Header) bool {
		return h.ProducerID == first.ProducerID && !h.IsControl() && h.BaseOffset >= first.FirstOffset && h.BaseOffset <= first.LastOffset
	}
	for _, name := range []string{"index", "timeindex"} { // as after a power cut: a broker, and a repair, make them anew
		if err := m.Remove(strings.TrimSuffix(txnLog, "log") + name); err != nil {
			t.Fatal(err)
		}
	}
	index := read(t, m, txnIndex)
	put(t, m, txnLog, without(of))
	put(t, m, txnIndex, index[inspect.TxnEntrySize:])
	if list := harm(t, m); len(list) > 0 {
		t.Errorf("compacted twice: %v", list)
	}
	put(t, m, txnIndex, index)
	if list := harm(t, m); len(list) > 0 {
		t.Errorf("compacted once: %v", list)
	}
}

// Whatever bit is flipped in a directory of Kafka's: it is found where that is possible, one repair mends all of it, and what is left is what was written.
func TestRandomInjuriesOfKafkaAreMended(t *testing.T) {
	seeds := uint64(300)
	if testing.Short() {
		seeds = 30
	}
	whole := map[string]string{} // records by partition and offset
	each := func(m *vfs.Mem, visit func(key, text string)) {
		place, err := inspect.Find(m, "data")
		if err != nil {
			t.Fatal(err)
		}
		for i := range place.Partitions {
			p := &place.Partitions[i]
			l := inspect.OpenLog(m, p, inspect.LogOptions{})
			for l.Next() {
				b, err := l.Bytes()
				if err != nil {
					t.Fatal(err)
				}
				for r, err := range batch.Records(b, 0) {
					if err != nil {
						t.Fatal(err)
					}
					visit(fmt.Sprint(p.Name(), "@", l.Header().BaseOffset+int64(r.OffsetDelta)), fmt.Sprintf("%q=%q", r.Key, r.Value))
				}
			}
			l.Close()
		}
	}
	each(kafkaDir(t), func(key, text string) { whole[key] = text })
	var names []string
	for name, text := range contents(t, kafkaDir(t), "data") {
		if len(text) > 0 && strings.Count(name, "/") > 1 && !strings.Contains(name, "partition.metadata") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for seed := range seeds {
		m, random := kafkaDir(t), rand.New(rand.NewPCG(seed, 1))
		var hit []string
		for range 1 + seed%3 {
			name := names[random.IntN(len(names))]
			b := read(t, m, name)
			at := random.IntN(len(b))
			b[at] ^= 1 << random.IntN(8)
			put(t, m, name, b)
			hit = append(hit, fmt.Sprintf("%s at %d of %d", name, at, len(b)))
		}
		found := harm(t, m)
		salvage := seed%2 == 0
		plan := repair(t, m, salvage, "1")
		for _, f := range harm(t, m) {
			if f.What != inspect.SaidSequence {
				t.Errorf("after the repair: %v", f)
			}
		}
		if again := repair(t, m, salvage, "2"); len(again.Steps) > 0 {
			t.Errorf("the second repair does %v", steps(again))
		}
		n := 0
		each(m, func(key, text string) {
			if n++; whole[key] != text {
				t.Errorf("%s is %s, and was %s", key, text, whole[key])
			}
		})
		if lost := len(whole) - n; salvage && lost > 70*len(hit) {
			t.Errorf("%d records are lost", lost)
		}
		if t.Failed() {
			t.Fatalf("seed %d, salvage %v: %v\nfound %v\n%s", seed, salvage, hit, found, steps(plan))
		}
	}
}

// When the marker of an aborted transaction is gone, its entry stays, and the plan says what a broker may make of its records.
func TestTxnIndexWithoutAMarker(t *testing.T) {
	m := kafkaDir(t)
	index := read(t, m, txnIndex)
	first := inspect.DecodeTxnEntry(index)
	at, log := 0, read(t, m, txnLog)
	for b, err := range batch.All(log) {
		h, herr := batch.ReadHeader(b)
		if err != nil || herr != nil {
			t.Fatal(err, herr)
		}
		if h.BaseOffset == first.LastOffset {
			break
		}
		at += len(b)
	}
	log[at+70] ^= 1
	put(t, m, txnLog, log)
	plan := repair(t, m, true, "1")
	if len(plan.Left) != 1 || plan.Left[0].What != inspect.SaidEndless || plan.Left[0].FirstOffset != first.FirstOffset {
		t.Errorf("left: %v", plan.Left)
	}
	if !bytes.Equal(read(t, m, txnIndex), index) {
		t.Error("the index has changed")
	}
	if list := harm(t, m); len(list) > 0 {
		t.Error(list)
	}
}

// What a plan says to be lost is what is damaged, not what lies between.
func TestPlanCountsWhatIsLost(t *testing.T) {
	const log = "data/codecs-0/00000000000000000000.log"
	m := kafkaDir(t)
	b := read(t, m, log)
	b[len(b)/4] ^= 1
	b[3*len(b)/4] ^= 1
	put(t, m, log, b)
	var damaged int64
	for _, f := range harm(t, m) {
		damaged += f.Lost()
	}
	plan := repair(t, m, true, "1")
	if offsets, records := plan.Lost(); offsets != damaged || records != 0 || damaged < 2 {
		t.Errorf("%d offsets are lost, and %d records; %d are damaged\n%s", offsets, records, damaged, steps(plan))
	}
}

// A repair of one folder leaves nothing beside it in the broker's directory, which would not start with it, and takes the mark of a
// clean close away, too, though the broker has taken its lock file with it.
func TestRepairOfAFolderOfKafkas(t *testing.T) {
	m := kafkaDir(t)
	for _, name := range []string{"data/.lock", txnIndex} {
		if err := m.Remove(name); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	place, err := inspect.Find(m, "data/txn-0")
	if err != nil {
		t.Fatal(err)
	}
	plan, err := inspect.PlanRepair(t.Context(), m, place, inspect.RepairOptions{Stamp: "1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := plan.Apply(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Stat("data/.kafka_cleanshutdown"); !os.IsNotExist(err) || len(plan.Steps) < 2 {
		t.Errorf("the mark is there still; %s", steps(plan))
	}
	if list := harm(t, m); len(list) > 0 {
		t.Error(list)
	}
	if _, err := m.Stat("data.quarantine/1/plan.txt"); err != nil {
		t.Error(err)
	}
}
