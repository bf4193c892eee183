package segment

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// testDir opens a directory with a logger that a test can read.
type testDir struct {
	*Dir
	fs  vfs.FS
	log *bytes.Buffer
}

func openDir(t testing.TB, fs vfs.FS, more ...func(*DirOptions)) *testDir {
	t.Helper()
	d, err := tryOpenDir(fs, more...)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return d
}

func tryOpenDir(fs vfs.FS, more ...func(*DirOptions)) (*testDir, error) {
	var said lockedBuffer
	opts := DirOptions{
		FS: fs, Path: "data", Now: func() time.Time { return time.Unix(1_700_000_000, 0) },
		Logger: slog.New(slog.NewTextHandler(&said, nil)),
	}
	for _, change := range more {
		change(&opts)
	}
	d, err := OpenDir(context.Background(), opts)
	return &testDir{Dir: d, fs: fs, log: &said.Buffer}, err
}

// flush brings what is in the journal alone into the segments.
func (d *testDir) flush(t testing.TB) {
	t.Helper()
	err := d.onCommitter(context.Background(), func() {
		if d.committer.flush != nil {
			d.committer.flushAll()
		}
		d.committer.flushAll()
	})
	if err != nil {
		t.Fatal(err)
	}
}

// straightOnly has every append go into its segment at once.
func straightOnly(o *DirOptions) { o.DirectBytes = 1 }

// byJournal has every append go through the journal, and stay there for long.
func byJournal(o *DirOptions) { o.DirectBytes, o.FlushInterval = 1<<40, time.Hour }

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func newMem(t testing.TB) *vfs.Mem {
	t.Helper()
	m := vfs.NewMem()
	if err := vfs.MkdirAllDurable(m, "data", 0o755); err != nil {
		t.Fatal(err)
	}
	return m
}

func (d *testDir) close(t testing.TB) {
	t.Helper()
	if err := d.Close(context.Background()); err != nil {
		t.Fatalf("close: %v", err)
	}
	inTails := int64(0)
	for _, c := range d.committer.resident {
		if c.owner != nil {
			inTails += int64(len(c.mem))
		}
	}
	if used := d.memory.used.Load(); used != inTails {
		t.Errorf("%d bytes are counted in the tails, %d are there", used, inTails)
	}
}

func (d *testDir) open(t testing.TB, name string, partition int32, cfg LogConfig) *Log {
	t.Helper()
	l, err := d.Dir.Log(testID(name, partition), cfg)
	if err != nil {
		t.Fatalf("log: %v", err)
	}
	return l
}

func testID(name string, partition int32) LogID {
	id := LogID{Topic: name, Partition: partition}
	copy(id.TopicID[:], name)
	return id
}

// smallSegments rolls after a few batches and indexes every one.
func smallSegments() LogConfig {
	cfg := DefaultLogConfig()
	cfg.SegmentBytes, cfg.IndexIntervalBytes = 600, 200
	return cfg
}

// makeBatch holds n records with the values prefix-0, prefix-1 and so on.
func makeBatch(t testing.TB, n int, prefix string, timestamp int64) []byte {
	t.Helper()
	b := batch.NewBuilder(batch.BuilderOptions{})
	for i := range n {
		b.Append(timestamp+int64(i), nil, fmt.Appendf(nil, "%s-%d", prefix, i), nil)
	}
	built, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return built
}

// append waits until the batch is durable.
func (l *Log) appendAndWait(t testing.TB, b []byte) Result {
	t.Helper()
	done := make(chan Result, 1)
	if err := l.Append(context.Background(), &Append{Batches: b, Done: func(r Result) { done <- r }}); err != nil {
		return Result{BaseOffset: -1, LastOffset: -1, Err: err}
	}
	return <-done
}

func (l *Log) mustAppend(t testing.TB, b []byte) Result {
	t.Helper()
	r := l.appendAndWait(t, b)
	if r.Err != nil {
		t.Fatalf("append: %v", r.Err)
	}
	return r
}

// readAll gives the value of every record from offset on, by offset.
func (l *Log) readAll(from int64) (map[int64]string, error) {
	values := make(map[int64]string)
	for from < l.LogEndOffset() {
		b, err := l.Read(nil, from, l.LogEndOffset(), 1000, true)
		if err != nil {
			return values, err
		}
		if len(b) == 0 {
			return values, fmt.Errorf("nothing at %d, log ends at %d: %w", from, l.LogEndOffset(), io.ErrNoProgress)
		}
		for one, err := range batch.All(b) {
			if err != nil {
				return values, err
			}
			h, err := batch.Check(one)
			if err != nil {
				return values, err
			}
			for r, err := range batch.Records(one, 1<<20) {
				if err != nil {
					return values, err
				}
				if offset := h.Offset(&r); offset >= from {
					values[offset] = string(r.Value)
				}
			}
			from = h.NextOffset()
		}
	}
	return values, nil
}
