package catalog

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dgraph-io/badger/v4"
)

func open(t *testing.T, dir string) *Catalog {
	t.Helper()
	c, err := Open(Options{Dir: dir, ClusterID: "cluster"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func propose(t *testing.T, c *Catalog, cmd Command) Result {
	t.Helper()
	res, err := c.Propose(t.Context(), cmd)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// TestReopen: what was proposed is there again, whatever the history.
func TestReopen(t *testing.T) {
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(3, 4))
	for round := range 4 {
		c := open(t, dir)
		for range 20 {
			propose(t, c, randomCommand(r, c.Image()))
		}
		before := c.Image()
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		again := open(t, dir)
		if have, want := dump(again.Image()), dump(before); have != want {
			t.Fatalf("round %d: have\n%s\nwant\n%s", round, have, want)
		}
		again.Close()
	}
}

func TestClusterID(t *testing.T) {
	dir := t.TempDir()
	open(t, dir).Close()
	if _, err := Open(Options{Dir: dir, ClusterID: "another"}); !errors.Is(err, ErrClusterMismatch) {
		t.Errorf("have %v", err)
	}
	c, err := Open(Options{Dir: dir})
	if err != nil || c.Image().ClusterID() != "cluster" {
		t.Fatalf("have %v", err)
	}
	c.Close()
}

func TestDirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if _, err := Open(Options{Dir: dir}); err == nil {
		t.Error("one directory was opened twice")
	}
}

// TestOpenRefuses damages a stored value and expects the error that names it.
func TestOpenRefuses(t *testing.T) {
	tests := []struct {
		name   string
		damage func(txn *badger.Txn) error
		want   error // nil: a CorruptError
	}{
		{"future value", func(txn *badger.Txn) error { return txn.Set(topicKey(id(1)), []byte{formatVersion + 1}) }, ErrFutureFormat},
		{"future kind of key", func(txn *badger.Txn) error { return txn.Set([]byte("zebra"), []byte{1}) }, ErrFutureFormat},
		{"empty value", func(txn *badger.Txn) error { return txn.Set(keyState, nil) }, nil},
		{"cut JSON", func(txn *badger.Txn) error { return txn.Set(topicKey(id(1)), []byte("\x01{")) }, nil},
		{"missing partitions", func(txn *badger.Txn) error { return txn.Delete(partitionsKey(id(1), 1)) }, nil},
		{"missing first chunk", func(txn *badger.Txn) error { return txn.Delete(partitionsKey(id(1), 0)) }, nil},
		{"missing topic", func(txn *badger.Txn) error { return txn.Delete(topicKey(id(1))) }, nil},
		{"two topics of one name", func(txn *badger.Txn) error {
			if err := txn.Set(partitionsKey(id(2), 0), encodePartitions(parts(1))); err != nil {
				return err
			}
			return txn.Set(topicKey(id(2)), encodeTopic(&Topic{Name: "a", ID: id(2), Partitions: parts(1)}))
		}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			c := open(t, dir)
			propose(t, c, CreateTopics{[]NewTopic{{Name: "a", ID: id(1), Partitions: parts(chunkPartitions + 1)}}})
			if err := c.store.(*store).db.Update(tt.damage); err != nil {
				t.Fatal(err)
			}
			c.Close()
			_, err := Open(Options{Dir: dir})
			var corrupt *CorruptError
			if !errors.As(err, &corrupt) || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("have %v", err)
			}
		})
	}
}

// TestTooLarge: a command that no transaction holds changes nothing and harms nothing.
func TestTooLarge(t *testing.T) {
	c := open(t, t.TempDir())
	before := c.Image()
	big := CreateTopics{[]NewTopic{{Name: "big", ID: id(1), Partitions: parts(1), Configs: map[string]string{"k": strings.Repeat("v", 4<<20)}}}}
	if _, err := c.Propose(t.Context(), big); !errors.Is(err, ErrTooLarge) {
		t.Errorf("have %v", err)
	}
	if c.Image() != before {
		t.Error("the image changed")
	}
	propose(t, c, CreateTopics{[]NewTopic{{Name: "small", ID: id(1), Partitions: parts(10000)}}})
	var many CreateTopics
	for i := range 5000 { // Kafka's own bound
		many.Topics = append(many.Topics, NewTopic{Name: fmt.Sprintf("one-of-many-topics-%d", i), ID: TopicID{2, byte(i), byte(i >> 8)}, Partitions: parts(1)})
	}
	propose(t, c, many)
}

// slowStorage is storage whose save waits until it is let go.
type slowStorage struct {
	saving chan struct{} // receives when a save begins
	goOn   chan error
	closed bool
}

func (s *slowStorage) save(_, _ *Image) error { s.saving <- struct{}{}; return <-s.goOn }
func (s *slowStorage) tidy()                  {}
func (s *slowStorage) close() error           { s.closed = true; return nil }

func startSlow() (*Catalog, *slowStorage) {
	s := &slowStorage{saving: make(chan struct{}), goOn: make(chan error)}
	c := newCatalog(s, NewImage(), slog.New(slog.DiscardHandler))
	go c.write()
	return c, s
}

// TestStalledDisk (audit 1, 6, 10): while a write hangs, readers go on and every
// proposer is let go at its own deadline; what hung still takes effect, once.
func TestStalledDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := startSlow()
		changes := 0
		c.Subscribe(func(_, _ *Image) { changes++ })
		var wg sync.WaitGroup
		for n := range 5 {
			wg.Go(func() {
				deadline := time.Duration(n+1) * time.Second
				ctx, cancel := context.WithTimeout(t.Context(), deadline)
				defer cancel()
				start := time.Now()
				_, err := c.Propose(ctx, AllocateProducerIDs{1, 10})
				if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != deadline {
					t.Errorf("have %v after %v, want the deadline of %v", err, time.Since(start), deadline)
				}
			})
		}
		<-s.saving
		if c.Image().NextProducerID() != 0 {
			t.Error("an image was published before it was durable")
		}
		wg.Wait()
		s.goOn <- nil
		synctest.Wait()
		if c.Image().NextProducerID() != 10 || changes != 1 {
			t.Errorf("have %d after %d changes", c.Image().NextProducerID(), changes)
		}
		c.Close()
	})
}

// TestFailedWrite: after a write that failed the catalog is read-only, and says so.
func TestFailedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := startSlow()
		go func() { <-s.saving; s.goOn <- errors.New("input/output error") }()
		for range 2 {
			_, err := c.Propose(t.Context(), AllocateProducerIDs{1, 10})
			if !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), "input/output error") {
				t.Errorf("have %v", err)
			}
		}
		if c.Image().NextProducerID() != 0 {
			t.Error("a change that may not be on the disk was published")
		}
		c.Close()
	})
}

// TestClose waits for the change under way, refuses the next, and ends the writer.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := startSlow()
		var first, second error
		go func() { _, first = c.Propose(t.Context(), AllocateProducerIDs{1, 10}) }()
		<-s.saving
		closed := false
		go func() { c.Close(); closed = true }()
		synctest.Wait()
		if closed {
			t.Fatal("closed in the middle of a write")
		}
		go func() { _, second = c.Propose(t.Context(), AllocateProducerIDs{1, 10}) }()
		synctest.Wait()
		s.goOn <- nil
		synctest.Wait()
		if !closed || !s.closed || first != nil {
			t.Errorf("closed %t, store closed %t, first %v", closed, s.closed, first)
		}
		if !errors.Is(second, ErrClosed) {
			t.Errorf("a change was taken up after Close: %v", second)
		}
		if err := c.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
	})
}

// TestSubscribers (audit 5): every change is told once, in order, never two at a
// time, and before its proposer goes on.
func TestSubscribers(t *testing.T) {
	c := open(t, t.TempDir())
	var mu sync.Mutex
	var versions []uint64
	stop := c.Subscribe(func(old, img *Image) {
		if !mu.TryLock() {
			t.Error("two calls at a time")
			return
		}
		defer mu.Unlock()
		if old.Version()+1 != img.Version() || len(img.Events()) == 0 {
			t.Errorf("told of %d after %d with %d events", img.Version(), old.Version(), len(img.Events()))
		}
		versions = append(versions, img.Version())
	})
	first := c.Image().Version() + 1
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 25 {
				res, err := c.Propose(t.Context(), AllocateProducerIDs{1, 1})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if !slices.Contains(versions, res.Image.Version()) {
					t.Errorf("proposer of %d went on before subscribers were told", res.Image.Version())
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(versions) != 100 || versions[0] != first || !slices.IsSorted(versions) {
		t.Errorf("told of %v", versions)
	}
	stop()
	propose(t, c, AllocateProducerIDs{1, 1})
	if len(versions) != 100 {
		t.Error("told after stop")
	}
	if propose(t, c, DeleteTopics{[]TopicID{id(9)}}).Image != c.Image() {
		t.Error("a command that changed nothing made an image")
	}
}

// TestOneWritePerCommand (audit 9): a topic of 1,000 partitions is one transaction.
func TestOneWritePerCommand(t *testing.T) {
	s := &countingStorage{}
	c := newCatalog(s, NewImage(), slog.New(slog.DiscardHandler))
	go c.write()
	defer c.Close()
	propose(t, c, CreateTopics{[]NewTopic{{Name: "a", ID: id(1), Partitions: parts(1000)}}})
	if s.saves != 1 || len(c.Image().Topic("a").Partitions) != 1000 {
		t.Errorf("%d writes", s.saves)
	}
}

type countingStorage struct{ saves int }

func (s *countingStorage) save(_, _ *Image) error { s.saves++; return nil }
func (s *countingStorage) tidy()                  {}
func (s *countingStorage) close() error           { return nil }

// TestManyStarts: starts that end without a close leave tables behind, and tidy
// keeps their number down.
func TestManyStarts(t *testing.T) {
	dir := t.TempDir()
	most := 0
	for n := range 4 * flattenAt {
		c := open(t, dir)
		propose(t, c, RegisterBroker{Broker: Broker{ID: 1, Rack: fmt.Sprint(n)}})
		most = max(most, c.store.(*store).db.Levels()[0].NumTables)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if most == 0 || most > flattenAt+1 {
		t.Errorf("up to %d tables at level 0", most)
	}
	if c := open(t, dir); c.Image().Version() != 4*flattenAt+1 {
		t.Errorf("version %d", c.Image().Version())
	}
}

const childEnv = "MILLRACE_CATALOG_CHILD"

// TestKill kills a process in the middle of its proposals. Everything that it was
// told is durable must be there, and every command whole or not at all.
func TestKill(t *testing.T) {
	if dir := os.Getenv(childEnv); dir != "" {
		proposeForEver(dir)
		return
	}
	dir := t.TempDir()
	acknowledged := uint64(0)
	for round := range 3 {
		child := exec.Command(os.Args[0], "-test.run=^TestKill$")
		child.Env = append(os.Environ(), childEnv+"="+dir)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if _, err := fmt.Sscanf(lines.Text(), "durable %d", &acknowledged); err != nil {
				t.Fatalf("the child says %q", lines.Text())
			}
			if n == 30+17*round {
				if err := child.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = child.Wait() // it was killed
		c := open(t, dir)
		img := c.Image()
		if img.Version() < acknowledged {
			t.Fatalf("round %d: version %d, %d was acknowledged", round, img.Version(), acknowledged)
		}
		// Command n makes a topic of n%700+1 partitions, with a config of the same number.
		for v := uint64(2); v <= img.Version(); v++ {
			topic := img.Topic(fmt.Sprint("t", v))
			if topic == nil || len(topic.Partitions) != int(v%700)+1 || topic.Configs["n"] != fmt.Sprint(v) || topic.Version != v {
				t.Fatalf("round %d: version %d of %d is missing or not whole: %+v", round, v, img.Version(), topic)
			}
		}
		if img.TopicCount() != int(img.Version())-1 {
			t.Fatalf("round %d: %d topics at version %d", round, img.TopicCount(), img.Version())
		}
		c.Close()
	}
}

func proposeForEver(dir string) {
	c, err := Open(Options{Dir: dir, ClusterID: "cluster"})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for {
		v := c.Image().Version() + 1
		topic := NewTopic{Name: fmt.Sprint("t", v), ID: TopicID{byte(v), byte(v >> 8), 1}, Partitions: parts(int(v%700) + 1), Configs: map[string]string{"n": fmt.Sprint(v)}}
		res, err := c.Propose(context.Background(), CreateTopics{[]NewTopic{topic}})
		if err != nil || res.Errors[0] != nil {
			fmt.Println(err, res.Errors)
			os.Exit(1)
		}
		fmt.Println("durable", res.Image.Version())
	}
}

// testDisk is a disk whose room the test decides.
type testDisk struct {
	free     uint64
	reserved int // calls
	synced   int
}

func (d *testDisk) SyncDir(string) error               { d.synced++; return nil }
func (d *testDisk) Probe(string) error                 { return nil }
func (d *testDisk) Begin(_, _ string) func()           { return func() {} }
func (d *testDisk) Stall() context.Context             { return context.Background() }
func (d *testDisk) FreeBytes(string) (uint64, error)   { return d.free, nil }
func (d *testDisk) Reserve(_, _ string, _ int64) error { d.reserved++; return nil }

// TestFullDisk: on a full disk changes go on in the log that is reserved, are
// refused before Badger would have to begin another, and go on when there is room.
func TestFullDisk(t *testing.T) {
	dir, disk := t.TempDir(), &testDisk{free: roomBytes - 1}
	if _, err := Open(Options{Dir: dir, Disk: disk}); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("opened on a full disk: %v", err)
	}
	disk.free = roomBytes
	c, err := Open(Options{Dir: dir, Disk: disk})
	if err != nil {
		t.Fatal(err)
	}
	if disk.reserved == 0 || disk.synced == 0 {
		t.Error("nothing was reserved before the first change")
	}
	disk.free = 0
	wide := strings.Repeat("v", 100<<10)
	change := func(n int) error {
		_, err := c.Propose(t.Context(), AlterConfigs{c.Image().Version(), []ConfigChange{{ResourceGroup, "g", map[string]string{"k": fmt.Sprint(n, wide)}}}})
		return err
	}
	done := 0
	for err == nil && done < 1000 {
		if err = change(done); err == nil {
			done++
		}
	}
	if !errors.Is(err, ErrNoSpace) || done*len(wide) < turnBytes/2 || done*len(wide) > memtableBytes {
		t.Errorf("%d changes, then %v", done, err)
	}
	if c.store.(*store).db.Levels()[0].NumTables > 0 {
		t.Error("Badger had to write a table")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if c.store.(*store).db.IsClosed() {
		t.Error("Badger was closed, which writes a table")
	}
	disk.free = roomBytes
	if err := c.store.close(); err != nil { // gives back the lock on the directory
		t.Fatal(err)
	}
	again, err := Open(Options{Dir: dir, Disk: disk})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if want := fmt.Sprint(done-1, wide); again.Image().Config(ResourceGroup, "g")["k"] != want {
		t.Error("the last change is lost")
	}
}

// TestRoomAgain: a refusal for lack of room is not for ever.
func TestRoomAgain(t *testing.T) {
	disk := &testDisk{free: roomBytes}
	c, err := Open(Options{Dir: t.TempDir(), Disk: disk})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.store.(*store).written = turnBytes
	disk.free = 0
	if _, err := c.Propose(t.Context(), AllocateProducerIDs{1, 1}); !errors.Is(err, ErrNoSpace) {
		t.Errorf("have %v", err)
	}
	disk.free = roomBytes
	propose(t, c, AllocateProducerIDs{1, 1})
}
