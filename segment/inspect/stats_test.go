package inspect

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// TestSpread holds quantiles against those of the sorted sizes.
func TestSpread(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for _, most := range []int{1, 60, 5000, 1 << 30} {
		var one, two Spread
		var sizes []int64
		for i := range 5000 {
			size := int64(random.IntN(most) * random.IntN(2))
			sizes = append(sizes, size)
			if i%3 == 0 {
				one.Add(size)
			} else {
				two.Add(size)
			}
		}
		one.merge(&two)
		slices.Sort(sizes)
		if one.N != 5000 || one.Min != sizes[0] || one.Max != sizes[4999] {
			t.Errorf("%+v", one.N)
		}
		for _, q := range []float64{0, .5, .9, .99, 1} {
			want := float64(sizes[min(int(q*5000), 4999)])
			if got := float64(one.Quantile(q)); math.Abs(got-want) > want*.04 {
				t.Errorf("quantile %v of sizes up to %d: %v, want %v", q, most, got, want)
			}
		}
	}
}

// TestTalkers counts keys of which few have most records, in one and in two halves: no count is too small, none larger than it admits.
func TestTalkers(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	zipf := rand.NewZipf(random, 1.3, 1, 50_000)
	exact := map[string]int64{}
	var whole Talkers
	var halves [2]Talkers
	for i := range 200_000 {
		key := fmt.Appendf(nil, "key %d", zipf.Uint64())
		exact[string(key)]++
		whole.add(key, 10)
		halves[i%2].add(key, 10)
	}
	halves[0].merge(&halves[1])
	for name, talkers := range map[string]*Talkers{"one": &whole, "merged": &halves[0]} {
		for i, x := range talkers.Top(20) {
			if n := exact[x.Key]; x.Count < n || x.Count-x.Over > n || x.Bytes > 10*n || i > 0 && x.Count > talkers.Top(20)[i-1].Count {
				t.Errorf("%s: %q %d ±%d, has %d", name, x.Key, x.Count, x.Over, n)
			}
		}
		if got, want := float64(talkers.Distinct()), float64(len(exact)); math.Abs(got-want) > want*.06 {
			t.Errorf("%s: about %v keys, there are %v", name, got, want)
		}
	}
	if top := whole.Top(1)[0]; exact[top.Key] != slices.Max(slices.Collect(func(yield func(int64) bool) {
		for _, n := range exact {
			if !yield(n) {
				return
			}
		}
	})) {
		t.Errorf("first is %q", top.Key)
	}
}

// TestRate holds a month in as many slices as a second.
func TestRate(t *testing.T) {
	var one, two Rate
	for minute := range int64(30 * 24 * 60) {
		(&one).add(minute*60_000, 1, 100)
	}
	two.add(1000, 5, 7_000_000)
	two.merge(&one)
	at, records, bytes, ok := two.Busiest()
	if !ok || at != 0 || two.Active() > maxSlices || two.Width != 3_600_000 || records != 65 || bytes != 7_006_000 {
		t.Errorf("%d slices of %d: %d records, %d bytes at %d", two.Active(), two.Width, records, bytes, at)
	}
}

func TestStats(t *testing.T) {
	fsys := vfs.NewMem()
	var batches [][]byte
	for i, codec := range []batch.Codec{batch.None, batch.Gzip, batch.None} {
		b := batch.NewBuilder(batch.BuilderOptions{BaseOffset: int64(10 * i), Compression: batch.Compression{Codec: codec}})
		for r := range 10 {
			b.Append(int64(1000+100_000*i+r), []byte{byte('a' + r%2)}, make([]byte, 100), []batch.RecordHeader{{Key: "h", Value: nil}})
		}
		built, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		batches = append(batches, built)
	}
	batches[2][100] ^= 1
	part := writtenLog(t, fsys, "/a/orders-0", batches)
	s := NewStats(true)
	if err := s.Add(context.Background(), "orders-0", OpenLog(fsys, part, LogOptions{})); err != nil {
		t.Fatal(err)
	}
	gz := s.Codecs[batch.Gzip]
	if s.Records != 20 || s.Batches != 2 || s.Damaged != 1 || s.First != 1000 || s.Last != 101_009 || s.RecordSize.Sum != 20*102 || gz.Records != 10 || gz.Plain < 8*gz.Stored || s.Headers != 20 {
		t.Errorf("%+v %+v", s.Records, gz)
	}
	if top := s.Keys.Top(5); len(top) != 2 || top[0].Count != 10 || top[0].Over != 0 || s.Keys.Distinct() != 2 {
		t.Errorf("%+v", top)
	}
	if len(s.Gaps) != 1 || s.Gaps[0].To-s.Gaps[0].From != 100_000 || s.Gaps[0].Offset != 10 {
		t.Errorf("%+v", s.Gaps)
	}
}
