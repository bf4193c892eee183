package inspect_test

import (
	"bytes"
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/inspect"
	"github.com/millrace/millrace/segment/inspect/injure"
	"github.com/millrace/millrace/segment/vfs"
)

// said is the log of a server, which a test reads.
type said struct {
	mu sync.Mutex
	bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Buffer.Write(p)
}

func (s *said) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.String()
}

func serve(t testing.TB, fsys vfs.FS, more ...func(*segment.DirOptions)) (*segment.Dir, *said) {
	t.Helper()
	var log said
	o := segment.DirOptions{
		FS: fsys, Path: "data", Now: func() time.Time { return time.Unix(1_700_000_000, 0) },
		Logger: slog.New(slog.NewTextHandler(&log, nil)), DirectBytes: 1,
	}
	for _, change := range more {
		change(&o)
	}
	d, err := segment.OpenDir(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return d, &log
}

func stop(t testing.TB, d *segment.Dir) {
	t.Helper()
	if err := d.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func openLog(t testing.TB, d *segment.Dir) *segment.Log {
	t.Helper()
	l, err := d.Log(injure.Orders, injure.Settings())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// healthy makes a directory with a partition of several segments; whole is what it holds.
func healthy(t testing.TB, from injure.From) (m *vfs.Mem, whole map[int64]string) {
	t.Helper()
	m = vfs.NewMem()
	whole, err := injure.Fill(m, "data", from, false)
	if err != nil {
		t.Fatal(err)
	}
	return m, whole
}

func admit(t testing.TB, m vfs.FS, seed uint64) *injure.Patient {
	t.Helper()
	p, err := injure.Admit(m, "data", "orders-0", rand.New(rand.NewPCG(seed, 0)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// readAll gives the values that can be read, by offset. What is damaged is stepped over, one offset after the other.
func readAll(t testing.TB, l *segment.Log) map[int64]string {
	t.Helper()
	values := map[int64]string{}
	for from := l.LogStartOffset(); from < l.LogEndOffset(); {
		b, err := l.Read(nil, from, l.LogEndOffset(), 1000, true)
		if err != nil || len(b) == 0 {
			from++
			continue
		}
		for one, err := range batch.All(b) {
			if err != nil {
				t.Fatal(err)
			}
			h, err := batch.Check(one)
			if err != nil {
				t.Fatal(err)
			}
			for r, err := range batch.Records(one, 0) {
				if err != nil {
					t.Fatal(err)
				}
				if o := h.Offset(&r); o >= from {
					values[o] = string(r.Value)
				}
			}
			if h.NextOffset() > from {
				from = h.NextOffset()
			}
		}
	}
	return values
}

func verify(t testing.TB, fsys vfs.FS, o inspect.VerifyOptions) (list []inspect.Finding, counts inspect.Counts) {
	t.Helper()
	place, err := inspect.Find(fsys, "data")
	if err != nil {
		t.Fatal(err)
	}
	o.Found = func(f inspect.Finding) { list = append(list, f) }
	counts, err = inspect.Verify(context.Background(), fsys, place, o)
	if err != nil {
		t.Fatal(err)
	}
	return list, counts
}
