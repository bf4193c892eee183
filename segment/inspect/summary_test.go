package inspect

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// openDir opens a log directory whose journal keeps what goes through it for so long.
func openDir(t *testing.T, m *vfs.Mem, flush time.Duration) *segment.Dir {
	t.Helper()
	if err := vfs.MkdirAllDurable(m, "/d", 0o755); err != nil {
		t.Fatal(err)
	}
	d, err := segment.OpenDir(context.Background(), segment.DirOptions{FS: m, Path: "/d", Logger: slog.New(slog.DiscardHandler), FlushInterval: flush,
		Now: func() time.Time { return time.Unix(1_700_000_000, 0) }})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func logID(i int) segment.LogID {
	return segment.LogID{Topic: fmt.Sprint("t", i), TopicID: [16]byte{1, byte(i)}, Partition: int32(i)}
}

// fillDir appends to a few logs, mostly what goes through the journal, and waits for each append.
func fillDir(t *testing.T, d *segment.Dir, random *rand.Rand, logs, appends int) {
	t.Helper()
	cfg := segment.DefaultLogConfig()
	cfg.SegmentBytes = 400 << 10
	for range appends {
		l, err := d.Log(logID(random.IntN(logs)), cfg)
		if err != nil {
			t.Fatal(err)
		}
		b := batch.NewBuilder(batch.BuilderOptions{Idempotent: true, ProducerID: random.Int64(), BaseSequence: 0})
		size := 1 << random.IntN(16)
		if random.IntN(8) == 0 {
			size = 130 << 10 // goes straight into its segment
		}
		for range 1 + random.IntN(3) {
			b.Append(1000+random.Int64N(100000), []byte("k"), make([]byte, size), nil)
		}
		out, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan segment.Result, 1)
		if err := l.Append(context.Background(), &segment.Append{Batches: out, Done: func(r segment.Result) { done <- r }}); err != nil {
			t.Fatal(err)
		}
		if r := <-done; r.Err != nil {
			t.Fatal(r.Err)
		}
		if random.IntN(20) == 0 {
			if err := l.DeleteRecordsBefore(context.Background(), random.Int64N(l.LogEndOffset()+1)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// survey makes summaries by partition number.
func survey(t *testing.T, fsys vfs.FS, count bool) map[int32]*Summary {
	t.Helper()
	p, err := Find(fsys, "/d")
	if err != nil {
		t.Fatal(err)
	}
	o, err := NewOverlay(fsys, p)
	if err != nil {
		t.Fatal(err)
	}
	v := Surveyor{FS: o.FS(fsys), Count: count, Overlay: o}
	out := map[int32]*Summary{}
	for i := range p.Partitions {
		s, err := v.Partition(&p.Partitions[i])
		if err != nil {
			t.Fatal(err)
		}
		if s.Damage > 0 {
			t.Fatalf("%s: %v", s.Name(), s.Segments)
		}
		if s.State == Live {
			out[s.Number] = s
		}
	}
	return out
}

// TestSurveyLikeAnOpen crashes directories and compares what is told of their files with what an open makes of them; then the same
// after a clean close, where nothing is in the journal.
func TestSurveyLikeAnOpen(t *testing.T) {
	journaled := 0
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 1))
		m := vfs.NewMem()
		d := openDir(t, m, []time.Duration{time.Hour, time.Millisecond}[seed%2])
		fillDir(t, d, random, 4, 60)
		if seed%3 == 0 {
			if l, err := d.Log(logID(3), segment.DefaultLogConfig()); err == nil {
				l.Delete()
			}
			for range random.IntN(2) * 1000 { // until the janitor has come to it, or not
				if _, err := m.Stat("/d/topics/" + logID(3).FolderName() + segment.DeletedSuffix); err == nil {
					break
				}
				fillDir(t, d, random, 3, 1)
			}
			fillDir(t, d, random, 3, random.IntN(10))
		}
		crashed := m.Crash(seed, random.Float64())
		if err := d.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		for _, fsys := range []*vfs.Mem{crashed, m} {
			quick, counted := survey(t, fsys, false), survey(t, fsys, true)
			d := openDir(t, fsys, time.Hour)
			found := d.Found()
			if len(found) != len(quick) || len(found) != len(counted) {
				t.Fatalf("seed %d: %d logs, told of %d and %d", seed, len(found), len(quick), len(counted))
			}
			for _, id := range found {
				l, err := d.Log(id, segment.DefaultLogConfig())
				if err != nil {
					t.Fatal(err)
				}
				q, c := quick[id.Partition], counted[id.Partition]
				for _, s := range []*Summary{q, c} {
					if s.Next != l.LogEndOffset() || s.LogStart != l.LogStartOffset() {
						t.Fatalf("seed %d: %s has [%d, %d), told %+v", seed, id, l.LogStartOffset(), l.LogEndOffset(), s.Contents)
					}
				}
				if !c.Counted || q.First != c.First || q.FirstTimestamp != c.FirstTimestamp || q.MaxTimestamp != c.MaxTimestamp || q.Contents.Bytes != c.Contents.Bytes || q.Journaled != c.Journaled ||
					c.Records != q.Records || len(c.Producers) != int(c.Batches) {
					t.Fatalf("seed %d: %s by its ends\n%+v, counted\n%+v", seed, id, q.Contents, c.Contents)
				}
				journaled += int(q.Journaled)
			}
			if err := d.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if journaled == 0 {
		t.Fatal("the journal never had anything for itself")
	}
}

// TestSurveyDamage looks at what is told of segments that are not what they should be.
func TestSurveyDamage(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	first, second := makeBatch(t, random, 10, 3, 100), makeBatch(t, random, 13, 1, 100)
	for name, tt := range map[string]struct {
		pieces  [][]byte
		records int64
		what    string
	}{
		"well":         {[][]byte{first, second}, 4, ""},
		"padded":       {[][]byte{first, second, make([]byte, 1000)}, 4, ""},
		"torn":         {[][]byte{first, second[:100]}, 3, fmt.Sprintf("%d of %d bytes", 100, len(second))},
		"zeroed":       {[][]byte{first, make([]byte, 8192), second}, 3, "magic 0"},
		"out of order": {[][]byte{second, first}, 1, "offset 10 follows 13"},
	} {
		fsys, _ := write(t, tt.pieces...)
		p, err := Find(fsys, "/d")
		if err != nil {
			t.Fatal(err)
		}
		for _, count := range []bool{false, true} {
			s, err := (&Surveyor{FS: fsys, Count: count}).Partition(&p.Partitions[0])
			if err != nil {
				t.Fatal(err)
			}
			what := ""
			if d := s.Segments[0].Damage; d != nil {
				what = d.What
			}
			if s.Records != tt.records || what != tt.what {
				t.Errorf("%s: %d records, damage %q", name, s.Records, what)
			}
		}
	}
}

// TestSeek looks for every offset of a log by its index, a damaged one, and none.
func TestSeek(t *testing.T) {
	m := vfs.NewMem()
	d := openDir(t, m, time.Hour)
	fillDir(t, d, rand.New(rand.NewPCG(9, 9)), 4, 120)
	if err := d.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	p, err := Find(m, "/d")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for i := range p.Partitions {
		for _, s := range p.Partitions[i].Segments {
			next := s.Base
			for offset := s.Base; offset < s.Base+50; offset++ {
				at, err := Seek(m, &s, offset)
				if err != nil {
					t.Fatal(err)
				}
				b, err := OpenBatches(m, s.Log.Path, Options{From: at, Base: s.Base})
				if err != nil {
					t.Fatal(err)
				}
				if at > 0 {
					found++
				}
				if b.Next() && b.Header().BaseOffset > max(offset, next) || b.Err() != nil {
					t.Fatalf("offset %d of %s: position %d, batch %d, %v", offset, s.Log.Path, at, b.Header().BaseOffset, b.Err())
				}
				b.Close()
			}
			s.Index = s.TimeIndex // of another form
			if at, err := Seek(m, &s, s.Base+20); at != 0 || err != nil {
				if h := headerAt(t, m, s.Log.Path, at); h.LastOffset() >= s.Base+20 {
					t.Fatalf("position %d by an index that is none: %v", at, err)
				}
			}
		}
	}
	if found == 0 {
		t.Fatal("no index has helped")
	}
}

func headerAt(t *testing.T, fsys vfs.FS, name string, at int64) batch.Header {
	t.Helper()
	b, err := OpenBatches(fsys, name, Options{From: at, Unordered: true})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if !b.Next() {
		t.Fatal(b.Err())
	}
	return b.Header()
}
