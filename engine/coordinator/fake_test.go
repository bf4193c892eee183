package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/engine/group"
	"github.com/millrace/millrace/segment/batch"
)

// fakeLog is a partition in memory. What has gathered becomes durable together, after a round's time; what comes
// meanwhile gathers for the next round.
type fakeLog struct {
	mu      sync.Mutex
	batches [][]byte
	start   int64
	next    int64
	waiting []waitingAppend
	syncing bool                 // a round is on
	rounds  int                  // commits of what has gathered
	held    bool                 // nothing becomes durable
	fail    func(b []byte) error // of a batch that would become durable
	refuse  error                // of Append itself
	reading chan struct{}        // Read waits for it to be closed
	keep    bool                 // DeleteRecordsBefore fails, as if a crash came first
	appends [][]byte             // all that were handed over
}

type waitingAppend struct {
	b    []byte
	done func(base, last int64, err error)
}

const roundTime = time.Millisecond

func (l *fakeLog) Append(ctx context.Context, b []byte, done func(base, last int64, err error)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if l.refuse != nil {
		return l.refuse
	}
	l.appends = append(l.appends, b)
	l.waiting = append(l.waiting, waitingAppend{b, done})
	l.begin()
	return nil
}

// begin starts a round with what has gathered, unless one is on. The lock is held.
func (l *fakeLog) begin() {
	if l.syncing || l.held || len(l.waiting) == 0 {
		return
	}
	waiting := l.waiting
	l.waiting = nil
	l.syncing = true
	l.rounds++
	time.AfterFunc(roundTime, func() { l.end(waiting) })
}

// end makes what waited durable, or fails it.
func (l *fakeLog) end(waiting []waitingAppend) {
	l.mu.Lock()
	l.syncing = false
	var done []func()
	for _, w := range waiting {
		var err error
		if l.fail != nil {
			err = l.fail(w.b)
		}
		if err != nil {
			done = append(done, func() { w.done(-1, -1, err) })
			continue
		}
		h, err := batch.Check(w.b)
		if err != nil {
			panic(err)
		}
		b := slices.Clone(w.b)
		batch.PutBaseOffset(b, l.next)
		base, last := l.next, l.next+int64(h.LastOffsetDelta)
		l.next = last + 1
		l.batches = append(l.batches, b)
		done = append(done, func() { w.done(base, last, nil) })
	}
	l.begin()
	l.mu.Unlock()
	for _, f := range done {
		f()
	}
}

// hold keeps appends from becoming durable until release.
func (l *fakeLog) hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = true
}

func (l *fakeLog) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = false
	l.begin()
}

func (l *fakeLog) set(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

func (l *fakeLog) LogStartOffset() int64 { l.mu.Lock(); defer l.mu.Unlock(); return l.start }
func (l *fakeLog) HighWatermark() int64  { l.mu.Lock(); defer l.mu.Unlock(); return l.next }

func (l *fakeLog) Read(from int64, maxBytes int) ([]byte, error) {
	if l.reading != nil {
		<-l.reading
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if from < l.start {
		return nil, fmt.Errorf("offset %d is before the start %d", from, l.start)
	}
	var out []byte
	for _, b := range l.batches {
		h, err := batch.ReadHeader(b)
		if err != nil {
			return nil, err
		}
		if h.LastOffset() < from {
			continue
		}
		if len(out) > 0 && len(out)+len(b) > maxBytes {
			break
		}
		out = append(out, b...)
	}
	return out, nil
}

func (l *fakeLog) DeleteRecordsBefore(offset int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.keep {
		return errors.New("kept")
	}
	if offset > l.next {
		return fmt.Errorf("offset %d is beyond the end %d", offset, l.next)
	}
	l.start = max(l.start, offset)
	return nil
}

// records lists what the log holds from an offset on.
func (l *fakeLog) records(t testing.TB, from int64) []group.Record {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []group.Record
	for _, b := range l.batches {
		h, err := batch.Check(b)
		if err != nil {
			t.Fatal(err)
		}
		for r, err := range batch.Records(b, 0) {
			if err != nil {
				t.Fatal(err)
			}
			if h.Offset(&r) < from {
				continue
			}
			rec, err := group.DecodeRecord(r.Key, r.Value)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, rec)
		}
	}
	return all
}

// fakeTopics has __consumer_offsets once it is made.
type fakeTopics struct {
	mu      sync.Mutex
	logs    []*fakeLog
	exists  bool
	creates int
	refuse  error
	ids     map[string][16]byte
}

func (f *fakeTopics) EnsureOffsetsTopic(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.creates++
	if f.refuse != nil {
		return f.refuse
	}
	f.exists = true
	return nil
}

func (f *fakeTopics) OffsetsPartitions() int32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.exists {
		return 0
	}
	return int32(len(f.logs))
}

func (f *fakeTopics) OffsetsLog(p int32) Log {
	if f.logs[p] == nil {
		return nil
	}
	return f.logs[p]
}

func (f *fakeTopics) TopicID(name string) ([16]byte, bool) {
	id, ok := f.ids[name]
	return id, ok
}

// bench is a coordinator over fake logs.
type bench struct {
	t      testing.TB
	topics *fakeTopics
	log    *fakeLog // of the first partition
	opts   Options
	c      *Coordinator
	said   *safeText
	ids    int
	mu     sync.Mutex
}

type safeText struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *safeText) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeText) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// newBench makes a coordinator over n partitions that exist; open begins to use it.
func newBench(t testing.TB, n int) *bench {
	b := &bench{t: t, topics: &fakeTopics{exists: true, ids: map[string][16]byte{}}, said: &safeText{}}
	for range n {
		b.topics.logs = append(b.topics.logs, &fakeLog{})
	}
	b.log = b.topics.logs[0]
	cfg := group.DefaultConfig()
	cfg.InitialRebalanceDelay = 0
	b.opts = Options{
		Topics: b.topics, Groups: cfg, CommitTimeout: 5 * time.Second, Now: time.Now,
		NewID: func() string {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.ids++
			return fmt.Sprint(b.ids)
		},
		Logger: slog.New(slog.NewTextHandler(io.MultiWriter(b.said), nil)),
	}
	return b
}

func (b *bench) open() *bench {
	b.c = New(b.opts)
	b.c.Open()
	return b
}

func (b *bench) close() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := b.c.Close(ctx); err != nil {
		b.t.Error(err)
	}
}

// restart opens another coordinator over the same logs.
func (b *bench) restart() {
	b.t.Helper()
	b.close()
	b.open()
}

func (b *bench) commit(groupID, topic string, partition int32, offset int64) error {
	return b.commitCtx(context.Background(), groupID, topic, partition, offset)
}

func (b *bench) commitCtx(ctx context.Context, groupID, topic string, partition int32, offset int64) error {
	return commitErr(b.c.Commit(ctx, groupID, simpleCommit(topic, partition, offset)))
}

func simpleCommit(topic string, partition int32, offset int64) group.Commit {
	return group.Commit{Generation: -1, RetentionMs: -1, Topics: []group.CommitTopic{{
		Topic: topic, Partitions: []group.CommitPartition{{Partition: partition, Offset: offset, LeaderEpoch: -1}}}}}
}

func commitErr(r group.CommitResponse) error {
	if r.Err != nil {
		return r.Err
	}
	return r.Topics[0].Partitions[0].Err
}

func (b *bench) fetch(groupID, topic string, partition int32) int64 {
	b.t.Helper()
	got, err := b.c.FetchOffsets(context.Background(), groupID, []FetchTopic{{Topic: topic, Partitions: []int32{partition}}}, false, false)
	if err != nil {
		b.t.Errorf("fetch of %s %s/%d: %v", groupID, topic, partition, err)
		return -2
	}
	return got[0].Offsets[0].Offset
}

func (b *bench) wantOffset(groupID, topic string, partition int32, want int64) {
	b.t.Helper()
	if have := b.fetch(groupID, topic, partition); have != want {
		b.t.Errorf("%s has %s/%d at %d, want %d", groupID, topic, partition, have, want)
	}
}

func joining(memberID string) group.Join {
	return group.Join{
		MemberID: memberID, ClientID: "c", ClientHost: "/h", SessionTimeoutMs: 10_000, RebalanceTimeoutMs: 20_000,
		ProtocolType: "consumer", Protocols: []group.Protocol{{Name: "range", Metadata: []byte{0, 0, 0, 0, 0, 1, 0, 1, 't'}}},
	}
}

// stable brings a group with one member to its first generation, and gives the member's id.
func (b *bench) stable(groupID string) (memberID string, generation int32) {
	b.t.Helper()
	j := b.c.Join(context.Background(), groupID, joining(""))
	if j.Err != nil {
		b.t.Fatal(j.Err)
	}
	s := b.c.Sync(context.Background(), groupID, group.Sync{
		MemberID: j.MemberID, Generation: j.Generation, Assignments: map[string][]byte{j.MemberID: []byte("all")}})
	if s.Err != nil || string(s.Assignment) != "all" {
		b.t.Fatalf("sync: %v %q", s.Err, s.Assignment)
	}
	return j.MemberID, j.Generation
}
