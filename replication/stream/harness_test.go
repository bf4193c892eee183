package stream

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/vfs"
)

func key(n int) Key { return Key{TopicID: [16]byte{15: 7}, Partition: int32(n)} }

func testConfig(broker int32) Config {
	return Config{Self: Identity{Cluster: "c", Broker: broker, BrokerEpoch: int64(broker) * 100}, Now: time.Now}
}

// follower is the host of a receiver, with its logs.
type follower struct {
	mu    sync.Mutex
	logs  map[Key]Sink
	epoch map[Key]int32 // the current one
	fail  error
	asked int
}

func (f *follower) Follow(_ context.Context, key Key, _, epoch int32) (Sink, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	l, ok := f.logs[key]
	switch current := f.epoch[key]; {
	case f.fail != nil:
		return nil, f.fail
	case !ok:
		return nil, ErrUnknownPartition
	case epoch < current:
		return nil, &EpochError{Current: current}
	case epoch > current:
		return nil, ErrNotFollower
	}
	return l, nil
}

func (f *follower) set(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

// story is an observer that writes down what it hears.
type story struct {
	mu    sync.Mutex
	lines []string
	acked map[Key]int64
	news  chan struct{}
	slow  time.Duration // Lost takes as long
	hear  func(p *Partition, end int64)
}

func newStory() *story { return &story{acked: make(map[Key]int64), news: make(chan struct{}, 1)} }

func (o *story) note(p *Partition, end int64, line string) {
	o.mu.Lock()
	o.acked[p.Key()] = end
	if line != "" {
		o.lines = append(o.lines, fmt.Sprintf("%d %s", p.Key().Partition, line))
	}
	o.mu.Unlock()
	select {
	case o.news <- struct{}{}:
	default:
	}
}

func (o *story) Acked(p *Partition, epoch, end int64) {
	o.note(p, end, "")
	if o.hear != nil {
		o.hear(p, end)
	}
}
func (o *story) Lost(p *Partition) {
	time.Sleep(o.slow)
	o.note(p, -1, "lost")
}

func (o *story) Fenced(p *Partition, epoch int32) { o.note(p, -1, fmt.Sprint("fenced by ", epoch)) }
func (o *story) Failed(p *Partition, err error)   { o.note(p, -1, err.Error()) }

func (o *story) told() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.lines...)
}

// await waits until something holds.
func await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// tcpConn writes many pieces at once.
type tcpConn struct{ *net.TCPConn }

func (c tcpConn) WriteBuffers(pieces [][]byte) (int64, error) {
	b := net.Buffers(pieces)
	return b.WriteTo(c.TCPConn)
}

// wires makes both ends of a connection.
func wires(t testing.TB, tcp bool) (a, b Conn) {
	t.Helper()
	if !tcp {
		return net.Pipe()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return tcpConn{c.(*net.TCPConn)}, tcpConn{d.(*net.TCPConn)}
}

// connection is one that runs, with what both sides said at its end.
type connection struct {
	cancel     context.CancelFunc
	leads      chan error
	follows    chan error
	leadErr    error
	followErr  error
	waitedOnce sync.Once
}

func connect(t testing.TB, u *Push, r *Receiver, bulk bool, a, b Conn) *connection {
	ctx, cancel := context.WithCancel(context.Background())
	c := &connection{cancel: cancel, leads: make(chan error, 1), follows: make(chan error, 1)}
	go func() { c.leads <- u.Run(ctx, bulk, a) }()
	go func() { c.follows <- r.Serve(ctx, b) }()
	t.Cleanup(c.stop)
	return c
}

// wait waits until both sides have ended.
func (c *connection) wait() {
	c.waitedOnce.Do(func() { c.leadErr, c.followErr = <-c.leads, <-c.follows })
}

func (c *connection) stop() { c.cancel(); c.wait() }

// realLog is a segment log with a high watermark, as a leader and a follower have one.
type realLog struct {
	*segment.Log
	mark atomic.Int64
}

func (l *realLog) HighWatermark() int64 { return l.mark.Load() }
func (l *realLog) SetHighWatermark(o int64) {
	for {
		old := l.mark.Load()
		if o <= old || l.mark.CompareAndSwap(old, o) {
			return
		}
	}
}

func (l *realLog) Truncate(ctx context.Context, offset int64) error {
	return l.Log.Truncate(ctx, 0, offset)
}
func (l *realLog) Reset(ctx context.Context, offset int64) error { return l.Log.Reset(ctx, 0, offset) }
func (l *realLog) MoveStart(ctx context.Context, offset int64) error {
	return l.DeleteRecordsBefore(ctx, offset)
}

func openDir(t testing.TB, fs vfs.FS, path string) *segment.Dir {
	t.Helper()
	d, err := segment.OpenDir(context.Background(), segment.DirOptions{FS: fs, Path: path, Now: time.Now, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close(context.Background()) })
	return d
}

func memDir(t testing.TB) *segment.Dir {
	t.Helper()
	fs := vfs.NewMem()
	if err := fs.MkdirAll("/d", 0o755); err != nil {
		t.Fatal(err)
	}
	return openDir(t, fs, "/d")
}

func openLog(t testing.TB, d *segment.Dir, n int) *realLog {
	t.Helper()
	l, err := d.Log(segment.LogID{Topic: "t", TopicID: key(n).TopicID, Partition: int32(n)}, segment.DefaultLogConfig())
	if err != nil {
		t.Fatal(err)
	}
	return &realLog{Log: l}
}

// produce appends a batch to a leader's log; done is called when it is on the disk.
func (l *realLog) produce(t testing.TB, b []byte, epoch int32, done func()) {
	err := l.Append(context.Background(), &segment.Append{Batches: b, LeaderEpoch: epoch, Done: func(r segment.Result) {
		if r.Err != nil {
			t.Error(r.Err)
		}
		done()
	}})
	if err != nil {
		t.Fatal(err)
	}
}

func (l *realLog) all(t testing.TB) []byte {
	t.Helper()
	var b []byte
	for at := l.LogStartOffset(); at < l.LogEndOffset(); {
		n := len(b)
		var err error
		if b, err = l.Read(b, at, l.LogEndOffset(), 1<<20, true); err != nil || len(b) == n {
			t.Fatalf("at %d: %v", at, err)
		}
		at = lastOffset(b[n:]) + 1
	}
	return b
}

// produceThen appends a batch of epoch 1, and tells its offset once it is on the leader's disk.
func (l *realLog) produceThen(t testing.TB, b []byte, then func(offset int64)) error {
	return l.Append(context.Background(), &segment.Append{Batches: b, LeaderEpoch: 1, Done: func(r segment.Result) {
		if r.Err != nil {
			t.Error(r.Err)
		}
		then(r.LastOffset)
	}})
}
