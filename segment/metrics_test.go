package segment

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/segment/vfs"
)

// samples keeps what it is told.
type samples struct {
	mu   sync.Mutex
	seen []float64
}

func (s *samples) Observe(v float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, v)
}

func (s *samples) take() []float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := s.seen
	s.seen = nil
	return seen
}

// One append is held by its sync, three more on two logs gather meanwhile: the second
// round is of three appends and two files, and every second is found in its stage.
func TestMetricsOfRounds(t *testing.T) {
	var clock atomic.Int64
	var queue, write, sync, publish, appends, bytes, files samples
	m := &Metrics{
		Clock:        func() time.Duration { return time.Duration(clock.Load()) },
		QueueSeconds: &queue, WriteSeconds: &write, SyncSeconds: &sync, PublishSeconds: &publish,
		RoundAppends: &appends, RoundBytes: &bytes, RoundFiles: &files,
	}
	pass := func(d time.Duration) func() { return func() { clock.Add(int64(d)) } }
	faulty := vfs.NewFaulty(newMem(t))
	d := openDir(t, faulty, func(o *DirOptions) { o.Metrics = m })
	defer d.close(t)
	a, b := d.open(t, "a", 0, DefaultLogConfig()), d.open(t, "b", 0, DefaultLogConfig())
	a.mustAppend(t, makeBatch(t, 1, "first", 1))
	b.mustAppend(t, makeBatch(t, 1, "first", 1))
	settle(t, d) // publishing ends after the answer
	for _, s := range []*samples{&queue, &write, &sync, &publish, &appends, &bytes, &files} {
		if got := s.take(); len(got) != 2 {
			t.Fatalf("%v measured by two rounds", got)
		}
	}

	held, release := make(chan struct{}), make(chan struct{})
	faulty.Inject(
		vfs.Fault{Op: vfs.OpWrite, Path: "*.journal", Nth: 1, Do: pass(time.Second)},
		vfs.Fault{Op: vfs.OpSync, Path: "*.journal", Nth: 1, Do: func() { close(held) }, Stall: release})
	size := int64(len(makeBatch(t, 1, "held", 1)))
	done := make(chan Result, 4)
	put := func(l *Log) {
		if err := l.Append(context.Background(), &Append{Batches: makeBatch(t, 1, "held", 1), Done: func(r Result) { done <- r }}); err != nil {
			t.Fatal(err)
		}
	}
	put(a)
	<-held
	put(a)
	put(a)
	put(b)
	if s := d.Stats(); s.QueueBytes != 4*size || s.QueueBound != 64<<20 || s.OpenFiles != 0 || s.Logs != 2 {
		t.Errorf("while the disk stalls: %+v", s)
	}
	clock.Add(int64(4 * time.Second))
	close(release)
	for range 4 {
		if r := <-done; r.Err != nil {
			t.Error(r.Err)
		}
	}
	settle(t, d)
	for _, c := range []struct {
		name string
		got  []float64
		want []float64
	}{
		{"queue", queue.take(), []float64{0, 4, 4, 4}},
		{"write", write.take(), []float64{1, 0}},
		{"sync", sync.take(), []float64{4, 0}},
		{"publish", publish.take(), []float64{0, 0}},
		{"appends", appends.take(), []float64{1, 3}},
		{"bytes", bytes.take(), []float64{float64(size), float64(3 * size)}},
		{"files", files.take(), []float64{1, 2}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, c.got, c.want)
		}
	}
	if s := d.Stats(); s.QueueBytes != 0 {
		t.Errorf("idle, with %d bytes queued", s.QueueBytes)
	}
}

// settle waits until the committer has ended its round.
func settle(t *testing.T, d *testDir) {
	t.Helper()
	if err := d.onCommitter(t.Context(), func() {}); err != nil {
		t.Fatal(err)
	}
}
