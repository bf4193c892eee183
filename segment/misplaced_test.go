package segment

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// flip changes one bit of a file.
func flip(t testing.TB, fs vfs.FS, name string, position int64, bit uint) {
	t.Helper()
	f, err := fs.OpenFile(name, vfs.ReadWrite, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], position); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1 << bit
	if _, err := f.WriteAt(b[:], position); err != nil {
		t.Fatal(err)
	}
}

// readFrom reads on from an offset until the end or an error, and compares all records.
func readFrom(l *Log, from int64, want func(offset int64) string) (next int64, err error) {
	for from < l.LogEndOffset() {
		b, err := l.Read(nil, from, l.LogEndOffset(), 2000, true)
		if err != nil {
			return from, err
		}
		for one, err := range batch.All(b) {
			if err != nil {
				return from, err
			}
			h, _ := batch.ReadHeader(one)
			for r, err := range batch.Records(one, 1<<20) {
				if err != nil {
					return from, err
				}
				if got := string(r.Value); got != want(h.Offset(&r)) {
					return from, fmt.Errorf("offset %d is served as %q, it was %q", h.Offset(&r), got, want(h.Offset(&r)))
				}
			}
			if h.BaseOffset > from {
				return from, fmt.Errorf("behind %d the reader is given %d", from, h.BaseOffset)
			}
			from = h.NextOffset()
		}
		if len(b) == 0 {
			return from, errors.New("nothing is given")
		}
	}
	return from, nil
}

// A base offset, which no CRC covers, with a wrong bit: nothing is served under an offset that is not its own,
// nothing is left out in silence, and all that lies around it is served, wherever a reader begins.
func TestMisplacedBatches(t *testing.T) {
	const batches, each = 12, 4
	want := func(offset int64) string { return fmt.Sprintf("%d-%d", offset/each, offset%each) }
	for _, interval := range []int{1, 1 << 20} {
		for _, perSegment := range []int64{4 * 110, 1 << 20} {
			for victim := range int64(batches) {
				for _, bit := range []uint{0, 1, 2, 3, 4, 5, 6, 20, 21, 40, 62} {
					const first int64 = 1 << 20 // so that offsets have low and high bits
					fs := newMem(t)
					d := openDir(t, fs, straightOnly)
					cfg := DefaultLogConfig()
					cfg.IndexIntervalBytes, cfg.SegmentBytes = interval, perSegment
					l, err := d.Begin(t.Context(), testID("orders", 0), cfg, first, first)
					if err != nil {
						t.Fatal(err)
					}
					for i := range int64(batches) {
						l.mustAppend(t, makeBatch(t, each, fmt.Sprint(first/each+i), i))
					}
					damaged := first + victim*each
					segments := *l.segments.Load()
					s := segments[segmentOf(segments, damaged)]
					at, _, err := l.find(s, &appetite{from: damaged}, s.size.Load())
					if err != nil {
						t.Fatal(err)
					}
					d.close(t)
					flip(t, fs, s.name(".log"), at+int64(7-bit/8), bit%8)
					d = openDir(t, fs, straightOnly)
					l = d.open(t, "orders", 0, cfg)
					for from := first; from < l.LogEndOffset(); from++ {
						next, err := readFrom(l, from, want)
						switch {
						case from >= damaged+each && (err != nil || next != first+batches*each):
							t.Fatalf("victim %d bit %d interval %d segment %d, from %d: stopped at %d: %v", victim, bit, interval, perSegment, from, next, err)
						case from < damaged+each && (next < damaged || next >= damaged+each || !errors.Is(err, ErrCorrupt)):
							t.Fatalf("victim %d bit %d interval %d segment %d, from %d: stopped at %d: %v", victim, bit, interval, perSegment, from, next, err)
						}
					}
					d.close(t)
				}
			}
		}
	}
}

// A crash leaves no such thing, so it is not cut, and nothing behind it.
func TestRecoveryStepsOverAMisplacedBatch(t *testing.T) {
	for _, bit := range []uint{0, 1, 2, 4, 40} {
		fs := newMem(t)
		d := openDir(t, fs, straightOnly)
		l := d.open(t, "orders", 0, DefaultLogConfig())
		size := 0
		for i := range 8 {
			b := makeBatch(t, 3, fmt.Sprint(i), 1)
			size = len(b)
			l.mustAppend(t, b)
		}
		name := l.active().name(".log")
		fs = killed(fs)
		flip(t, fs, name, int64(4*size)+int64(7-bit/8), bit%8)
		d = openDir(t, fs, straightOnly)
		l = d.open(t, "orders", 0, DefaultLogConfig())
		if l.LogEndOffset() != 24 || !strings.Contains(d.log.String(), "firstOffset=12 lastOffset=14") {
			t.Errorf("bit %d: the log ends at %d: %s", bit, l.LogEndOffset(), d.log)
		}
		if got, err := l.readAll(15); err != nil || len(got) != 9 {
			t.Errorf("bit %d: %d records behind it, %v", bit, len(got), err)
		}
		d.close(t)
	}
}
