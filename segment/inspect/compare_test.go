package inspect

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// writtenLog is a partition of batches, one list for each segment.
func writtenLog(t *testing.T, fsys vfs.FS, folder string, segments ...[][]byte) *Partition {
	t.Helper()
	if err := fsys.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, batches := range segments {
		h, err := batch.ReadHeader(batches[0])
		if err != nil {
			t.Fatal(err)
		}
		f, err := fsys.OpenFile(folder+"/"+segment.FileName(h.BaseOffset, "log"), vfs.Create|vfs.ReadWrite, fs.FileMode(0o644))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(slices.Concat(batches...), 0); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	place, err := Find(fsys, folder)
	if err != nil {
		t.Fatal(err)
	}
	return &place.Partitions[0]
}

type oneRecord struct {
	offset int64
	value  string
}

// builtBatch holds records that come one after the other, perhaps with gaps.
func builtBatch(t *testing.T, o batch.BuilderOptions, records []oneRecord) []byte {
	t.Helper()
	o.BaseOffset = records[0].offset
	b := batch.NewBuilder(o)
	for _, r := range records {
		b.AppendAt(int32(r.offset-o.BaseOffset), 1000+r.offset, nil, []byte(r.value), nil)
	}
	built, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return built
}

// TestCompare holds the comparison of random logs against a dull one, record by record.
func TestCompare(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 1))
		fsys := vfs.NewMem()
		var values [2]map[int64]string
		var logs [2]*Partition
		var batches [2]map[string]bool
		for i := range logs {
			values[i], batches[i] = map[int64]string{}, map[string]bool{}
			var segments [][][]byte
			var next []oneRecord
			codec := batch.Codec(random.IntN(2) * random.IntN(5))
			flush := func() {
				if len(next) == 0 {
					return
				}
				b := builtBatch(t, batch.BuilderOptions{Compression: batch.Compression{Codec: codec}, LeaderEpoch: int32(random.IntN(12) / 11)}, next)
				batches[i][string(b)] = true
				if next = nil; len(segments) == 0 || random.IntN(8) == 0 {
					segments = append(segments, nil)
				}
				segments[len(segments)-1] = append(segments[len(segments)-1], b)
			}
			from, to := int64(random.IntN(6)), int64(60-random.IntN(6)*random.IntN(2))
			for offset := from; offset < to; offset++ {
				value := fmt.Sprint("value ", offset)
				switch random.IntN(40) {
				case 0:
					value = "another"
				case 1:
					continue // compacted
				}
				values[i][offset] = value
				next = append(next, oneRecord{offset, value})
				if random.IntN(3) == 0 || random.IntN(2) == 0 && offset%4 == 3 {
					flush()
				}
			}
			flush()
			logs[i] = writtenLog(t, fsys, fmt.Sprintf("/%c/orders-0", 'a'+i), segments...)
		}
		start := [2]int64{logs[0].Segments[0].Base, logs[1].Segments[0].Base}
		a, b := OpenLog(fsys, logs[0], LogOptions{Start: start[0]}), OpenLog(fsys, logs[1], LogOptions{Start: start[1]})
		c, err := Compare(context.Background(), a, b)
		if err != nil {
			t.Fatal(err)
		}
		story := fmt.Sprintf("seed %d:\n%v\n%v\n%+v", seed, values[0], values[1], c.Differences)
		equal := int64(0)
		for b := range batches[0] {
			if batches[1][b] {
				equal++
			}
		}
		if c.Equal != equal {
			t.Fatalf("%s\n%d batches are the same, not %d", story, equal, c.Equal)
		}
		said := map[int64]DifferenceKind{}
		for _, d := range c.Differences {
			for offset := d.First; offset <= d.Last; offset++ {
				if said[offset] != "" {
					t.Fatalf("%s\noffset %d is told twice", story, offset)
				}
				said[offset] = d.Kind
			}
		}
		for offset := range int64(60) {
			inA, inB := values[0][offset], values[1][offset]
			kind, ok := said[offset], true
			switch {
			case inA != inB:
				ok = kind == OtherBytes || kind == OnlyInA && inB == "" || kind == OnlyInB && inA == ""
			case inA != "":
				ok = kind == "" || kind == OtherBytes || kind == OtherForm || kind == OtherEpoch
			}
			if !ok {
				t.Fatalf("%s\noffset %d: %q in A, %q in B, told as %q", story, offset, inA, inB, kind)
			}
		}
		for _, d := range c.Differences {
			if d.Kind == OtherForm || d.Kind == OtherEpoch {
				for offset := d.First; offset <= d.Last; offset++ {
					if values[0][offset] != values[1][offset] {
						t.Fatalf("%s\noffset %d is told to be the same", story, offset)
					}
				}
			}
		}
		a.Close()
		b.Close()
	}
}

// Damage in one hides what the other has, which is then no difference that anybody knows of.
func TestCompareDamaged(t *testing.T) {
	fsys := vfs.NewMem()
	var whole, hurt [][]byte
	for i := range int64(6) {
		b := builtBatch(t, batch.BuilderOptions{}, []oneRecord{{2 * i, "a"}, {2*i + 1, "b"}})
		whole = append(whole, b)
		if b = slices.Clone(b); i == 2 || i == 3 {
			b[len(b)-1] ^= 1
		}
		hurt = append(hurt, b)
	}
	a := writtenLog(t, fsys, "/a/orders-0", whole)
	b := writtenLog(t, fsys, "/b/orders-0", hurt)
	c, err := Compare(context.Background(), OpenLog(fsys, a, LogOptions{}), OpenLog(fsys, b, LogOptions{}))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Differences) != 1 || c.Differences[0].Kind != HiddenInB || c.Differences[0].First != 4 || c.Differences[0].Last != 7 || !c.Hidden() || c.Same() || c.Equal != 4 || c.EqualTo != 4 {
		t.Errorf("%+v", c)
	}
	torn := writtenLog(t, fsys, "/c/orders-0", append(slices.Clone(whole[:3]), whole[3][:40]))
	c, err = Compare(context.Background(), OpenLog(fsys, a, LogOptions{}), OpenLog(fsys, torn, LogOptions{}))
	if err != nil {
		t.Fatal(err)
	}
	if c.TornB == nil || c.Damaged != 0 || c.Hidden() || len(c.Differences) != 1 || c.Differences[0].Kind != OnlyInA || c.EqualTo != 6 || c.EndB != 6 {
		t.Errorf("%+v", c)
	}
}
