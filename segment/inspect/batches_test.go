package inspect

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"testing"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// makeBatch gives a batch with records at an offset, whose one value is of random bytes.
func makeBatch(t *testing.T, random *rand.Rand, offset int64, records, size int) []byte {
	t.Helper()
	b := batch.NewBuilder(batch.BuilderOptions{BaseOffset: offset})
	for i := range records {
		value := make([]byte, size)
		for j := range value {
			value[j] = byte(random.Uint32())
		}
		b.Append(1000+offset+int64(i), []byte("k"), value, nil)
	}
	out, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

const logName = "/d/00000000000000000010.log"

// write puts pieces into the log file, and tells where each begins.
func write(t *testing.T, pieces ...[]byte) (vfs.FS, []int64) {
	t.Helper()
	m := vfs.NewMem()
	if err := m.MkdirAll("/d", 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := m.OpenFile(logName, vfs.Create|vfs.ReadWrite, fs.FileMode(0o644))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	at := int64(0)
	var starts []int64
	for _, p := range pieces {
		starts = append(starts, at)
		if _, err := f.WriteAt(p, at); err != nil {
			t.Fatal(err)
		}
		at += int64(len(p))
	}
	return m, starts
}

// story reads a log and says what it met.
func story(t *testing.T, fsys vfs.FS, o Options) string {
	t.Helper()
	b, err := OpenBatches(fsys, logName, o)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	var out bytes.Buffer
	for {
		for b.Next() {
			whole, err := b.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := batch.Check(whole); err != nil && !o.Structure || len(whole) != b.Header().Size() {
				t.Fatalf("at %d: %v, %d bytes", b.Position(), err, len(whole))
			}
			fmt.Fprintf(&out, "%d@%d ", b.Header().BaseOffset, b.Position())
		}
		var damage *Damage
		if errors.As(b.Err(), &damage) {
			fmt.Fprintf(&out, "[%d at %d: %s torn=%v] ", damage.Offset, damage.Position, damage.What, damage.Torn)
		} else if b.Err() != nil {
			t.Fatal(b.Err())
		}
		if !b.Resume() {
			return out.String()
		}
	}
}

func TestBatches(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	small := func(offset int64) []byte { return makeBatch(t, random, offset, 1, 10) }
	t.Run("well", func(t *testing.T) {
		m, at := write(t, small(10), small(11), small(20), make([]byte, 500))
		if got, want := story(t, m, Options{}), fmt.Sprintf("10@0 11@%d 20@%d ", at[1], at[2]); got != want {
			t.Error(got, want)
		}
	})
	t.Run("damage", func(t *testing.T) {
		bad := small(11)
		bad[len(bad)-1] ^= 1
		m, at := write(t, small(10), bad, small(12), small(11), small(13)[:70])
		got := story(t, m, Options{})
		want := fmt.Sprintf("10@0 [11 at %d: stored CRC", at[1])
		if len(got) < len(want) || got[:len(want)] != want {
			t.Error(got, want)
		}
		tail := fmt.Sprintf("12@%d [13 at %d: offset 11 follows 12 torn=false] ", at[2], at[3])
		if !bytes.Contains([]byte(got), []byte(tail)) {
			t.Error(got, tail)
		}
		// Structure does not see the CRC, and the end is torn.
		m, at = write(t, bad, small(12)[:70])
		if got, want := story(t, m, Options{Structure: true}), fmt.Sprintf("11@0 [12 at %d: batch of %d bytes, file ends after 70 torn=true] ", at[1], len(bad)); got != want {
			t.Error(got, want)
		}
	})
	t.Run("announced", func(t *testing.T) {
		huge := small(11)
		huge[8], huge[9] = 0x7f, 0xff
		m, at := write(t, huge, make([]byte, 5<<20), small(12))
		got, want := story(t, m, Options{}), fmt.Sprintf("[10 at 0: batch of 2147418187 bytes, file ends after %d torn=true] 12@%d ", at[2]+int64(len(huge)), at[2])
		if len(got) != len(want) || got[30:] != want[30:] {
			t.Error(got, want)
		}
	})
}

// TestBatchesOfAnySize reads batches that lie across the borders of chunks in every way.
func TestBatchesOfAnySize(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for round := range 6 {
		var pieces [][]byte
		want := ""
		at, offset := 0, int64(10)
		for at < 14<<20 {
			size := random.IntN(1 << (8 + random.IntN(15)))
			records := 1 + random.IntN(3)
			b := makeBatch(t, random, offset, records, size/records)
			want += fmt.Sprintf("%d@%d ", offset, at)
			pieces = append(pieces, b)
			at, offset = at+len(b), offset+int64(records)
		}
		m, _ := write(t, pieces...)
		if got := story(t, m, Options{Structure: round%2 == 1}); got != want {
			t.Fatalf("round %d:\n%s\n%s", round, got, want)
		}
	}
}

// TestBatchesOfAFileThatShrinks cuts the padding off a file, or a batch in two, while it is read.
func TestBatchesOfAFileThatShrinks(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	first, second := makeBatch(t, random, 10, 1, 3<<20), makeBatch(t, random, 11, 1, 9<<20)
	for _, structure := range []bool{false, true} {
		for cut, torn := range map[int]bool{len(first) + len(second): false, len(first): false, len(first) + 100: true, len(first) + 30: true} {
			m, _ := write(t, first, second, make([]byte, 500))
			b, err := OpenBatches(m, logName, Options{Structure: structure})
			if err != nil {
				t.Fatal(err)
			}
			if !b.Next() {
				t.Fatal(b.Err())
			}
			f, err := m.OpenFile(logName, vfs.ReadWrite, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Truncate(int64(cut)); err != nil {
				t.Fatal(err)
			}
			for b.Next() {
			}
			torn := torn && !structure // the header that was read ahead says that all is well
			var damage *Damage
			if errors.As(b.Err(), &damage) != torn || torn && !damage.Torn || !torn && b.Err() != nil {
				t.Errorf("cut at %d: %v", cut, b.Err())
			}
			b.Close()
		}
	}
}
