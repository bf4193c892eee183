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

// fakeLog is a partition in memory, on all nodes at once. What has gathered becomes durable together, after a round's
// time; what comes meanwhile gathers for the next round. Durable is committed, but for what an election finds
// that no former leader got committed (see elect).
type fakeLog struct {
	mu        sync.Mutex
	epoch     int32
	batches   [][]byte
	start     int64
	next      int64
	committed chan struct{}        // the high watermark is behind the end until it is closed; nil when it is not
	acked     int64                // the end of what was ever acknowledged
	behind    int64                // where it is until then
	waiting   []waitingAppend      // for the next round
	writing   []waitingAppend      // in this one
	syncing   bool                 // a round is on
	rounds    int                  // commits of what has gathered
	held      bool                 // nothing becomes durable
	fail      func(b []byte) error // of a batch that would become durable
	refuse    error                // of Append itself
	reading   chan struct{}        // Read waits for it to be closed
	keep      bool                 // DeleteRecordsBefore fails, as if a crash came first
	appends   [][]byte             // all that were handed over
}

type waitingAppend struct {
	b    []byte
	done func(base, last int64, err error)
}

const roundTime = time.Millisecond

// ledLog is the log as the node sees it that leads it in an epoch.
type ledLog struct {
	*fakeLog
	epoch int32
}

func (l ledLog) Append(ctx context.Context, b []byte, done func(base, last int64, err error)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if l.epoch != l.fakeLog.epoch {
		return ErrNotLeader
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
	l.writing, l.waiting = l.waiting, nil
	l.syncing = true
	l.rounds++
	time.AfterFunc(roundTime, l.end)
}

// end makes what waited durable, or fails it.
func (l *fakeLog) end() {
	l.mu.Lock()
	writing := l.writing
	l.writing, l.syncing = nil, false
	var done []func()
	for _, w := range writing {
		var err error
		if l.fail != nil {
			err = l.fail(w.b)
		}
		if err != nil {
			done = append(done, func() { w.done(-1, -1, err) })
			continue
		}
		base, last := l.put(w.b)
		done = append(done, func() { w.done(base, last, nil) })
	}
	if len(writing) > 0 {
		l.acked = l.next
	}
	l.begin()
	l.mu.Unlock()
	for _, f := range done {
		f()
	}
}

// put appends a batch. The lock is held.
func (l *fakeLog) put(one []byte) (base, last int64) {
	h, err := batch.Check(one)
	if err != nil {
		panic(err)
	}
	b := slices.Clone(one)
	batch.PutBaseOffset(b, l.next)
	base, last = l.next, l.next+int64(h.LastOffsetDelta)
	l.next = last + 1
	l.batches = append(l.batches, b)
	return base, last
}

// elect begins another epoch. Of what the leader before has not got committed, as many batches as survive come to lie in
// the log all the same. The new leader knows the high watermark to be lag batches behind what was there, until commit: the one
// before has acknowledged more than it could tell. That one hears that it leads no longer.
func (l *fakeLog) elect(epoch int32, survive, lag int) {
	l.mu.Lock()
	l.epoch = epoch
	lost := slices.Concat(l.writing, l.waiting)
	l.writing, l.waiting = nil, nil
	if l.committed == nil {
		l.behind = l.next
		for _, b := range l.batches[max(len(l.batches)-lag, 0):] {
			h, err := batch.ReadHeader(b)
			if err != nil {
				panic(err)
			}
			l.behind = max(min(l.behind, h.BaseOffset), l.start)
		}
	}
	for _, w := range lost[:min(survive, len(lost))] {
		l.put(w.b)
	}
	if l.committed == nil && l.behind < l.next {
		l.committed = make(chan struct{})
	}
	l.mu.Unlock()
	for _, w := range lost {
		w.done(-1, -1, ErrNotLeader)
	}
}

// cut loses what nobody has acknowledged, as when a leader is elected that does not have it.
func (l *fakeLog) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.next > l.acked {
		last := len(l.batches) - 1
		h, err := batch.ReadHeader(l.batches[last])
		if err != nil {
			panic(err)
		}
		l.batches, l.next = l.batches[:last], h.BaseOffset
	}
}

// commit lets the high watermark reach the end.
func (l *fakeLog) commit() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.committed != nil {
		close(l.committed)
		l.committed = nil
		l.acked = l.next
	}
}

// finish makes durable what is on its way, as closing a log does.
func (l *fakeLog) finish() {
	l.mu.Lock()
	if l.held {
		l.mu.Unlock()
		return
	}
	l.writing, l.waiting = slices.Concat(l.writing, l.waiting), nil
	l.mu.Unlock()
	l.end()
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
func (l *fakeLog) LogEndOffset() int64   { l.mu.Lock(); defer l.mu.Unlock(); return l.next }

func (l *fakeLog) HighWatermark() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.committed != nil {
		return l.behind
	}
	return l.next
}

func (l ledLog) WaitCommitted(ctx context.Context, offset int64) error {
	for {
		l.mu.Lock()
		committed, epoch, behind := l.committed, l.fakeLog.epoch, l.behind
		l.mu.Unlock()
		switch {
		case epoch != l.epoch:
			return ErrNotLeader
		case committed == nil || behind >= offset:
			return nil
		}
		select {
		case <-committed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (l *fakeLog) Read(from int64, maxBytes int) ([]byte, error) {
	if l.reading != nil {
		<-l.reading
	}
	end := l.HighWatermark()
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
		if h.LastOffset() < from || h.LastOffset() >= end {
			continue
		}
		if len(out) > 0 && len(out)+len(b) > maxBytes {
			break
		}
		out = append(out, b...)
	}
	return out, nil
}

func (l ledLog) DeleteRecordsBefore(offset int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.epoch != l.fakeLog.epoch {
		return ErrNotLeader
	}
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
	created func() // what the catalogue's goroutine does when the topic is made; it may come later than the answer
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
	f.created()
	return nil
}

func (f *fakeTopics) OffsetsLog(p, epoch int32) Log {
	if int(p) >= len(f.logs) || f.logs[p] == nil {
		return nil
	}
	return ledLog{f.logs[p], epoch}
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
	epoch  int32
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

// open begins to use a coordinator that leads all partitions, as a node does that is alone and has started.
func (b *bench) open() *bench {
	b.epoch++
	for _, l := range b.topics.logs {
		l.elect(b.epoch, 0, 0)
	}
	c := New(b.opts)
	b.c = c
	b.c.Open()
	b.topics.created = func() {
		c.TopicCreated(int32(len(b.topics.logs)))
		for p := range b.topics.logs {
			c.Elected(int32(p), b.epoch)
		}
	}
	if b.topics.exists {
		b.topics.created()
	}
	return b
}

func (b *bench) close() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := b.c.Close(ctx); err != nil {
		b.t.Error(err)
	}
	for _, l := range b.topics.logs {
		l.finish()
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
