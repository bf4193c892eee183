package segment

import (
	"bytes"
	"testing"

	"github.com/millrace/millrace/segment/vfs"
)

// aRound is a journal round as the committer writes it.
func aRound(t testing.TB, entries ...string) []byte {
	t.Helper()
	d, err := tryOpenDir(newMem(t), byJournal)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close(t)
	var j journal
	j.init(d.Dir, 6)
	for i, e := range entries {
		j.add(testID("orders", int32(i)), 10, 20, []byte(e[:len(e)/2]), []byte(e[len(e)/2:]))
	}
	if err := j.write(); err != nil {
		t.Fatal(err)
	}
	b, err := vfs.ReadFile(d.fs, j.current.name)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.close(true); err != nil {
		t.Fatal(err)
	}
	return b[vfs.BlockSize:][:roundLength(b[vfs.BlockSize:])]
}

// A round is read as it was written, and with any bit of it changed, or of another generation or
// sequence, it is none.
func TestJournalRound(t *testing.T) {
	b := aRound(t, "some batches", "others")
	read := func(b []byte, generation, sequence uint64) (entries []journalEntry, whole bool) {
		whole = decodeRound(b, generation, sequence, func(_ uint64, e journalEntry) { entries = append(entries, e) })
		return entries, whole
	}
	got, whole := read(b, 7, 0)
	if !whole || len(got) != 2 || got[0].id != testID("orders", 0) || got[1].id != testID("orders", 1) ||
		string(got[0].bytes) != "some batches" || string(got[1].bytes) != "others" || got[0].base != 10 || got[0].position != 20 {
		t.Errorf("%+v, whole %v", got, whole)
	}
	if _, whole := read(b, 8, 0); whole {
		t.Error("taken for another generation's")
	}
	if _, whole := read(b, 7, 1); whole {
		t.Error("taken for a later one")
	}
	for i := range b {
		damaged := bytes.Clone(b)
		damaged[i] ^= 0x10
		if _, whole := read(damaged, 7, 0); whole {
			t.Errorf("byte %d is damaged, and nobody sees it", i)
		}
		if _, whole := read(b[:i], 7, 0); whole {
			t.Errorf("cut to %d bytes, and nobody sees it", i)
		}
	}
}

func FuzzDecodeRound(f *testing.F) {
	f.Add(aRound(f, "some batches", "others"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		decodeRound(b, 7, 0, func(_ uint64, e journalEntry) {
			if len(e.bytes)+len(e.id.Topic) > len(b) {
				t.Errorf("an entry of %d bytes in a round of %d", len(e.bytes), len(b))
			}
		})
		// What the checksum keeps from the entries in practice.
		for rest := b; ; {
			e, n := decodeEntry(rest)
			if n == 0 {
				break
			}
			if n < entryHeader || len(e.bytes) > n {
				t.Errorf("an entry of %d bytes, of which %d are batches", n, len(e.bytes))
			}
			rest = rest[n:]
		}
		if generation, err := decodeJournalHeader(b); err == nil {
			block := make([]byte, vfs.BlockSize)
			encodeJournalHeader(block, generation)
			if again, err := decodeJournalHeader(block); err != nil || again != generation {
				t.Errorf("generation %d is read as %d, %v", generation, again, err)
			}
		}
	})
}
