package stream

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// scene is one leader, one follower, some partitions in memory, virtual time.
type scene struct {
	t         *testing.T
	leaders   []*memLog
	followers []*memLog
	parts     []*Partition
	host      *follower
	story     *story
	push      *Push
	recv      *Receiver
}

func newScene(t *testing.T, n int, change func(leader, follower *Config)) *scene {
	s := &scene{t: t, host: &follower{logs: map[Key]Sink{}, epoch: map[Key]int32{}}, story: newStory()}
	lead, foll := testConfig(1), testConfig(2)
	if change != nil {
		change(&lead, &foll)
	}
	s.push, s.recv = NewPush(lead, 2, s.story), NewReceiver(foll, s.host)
	for i := range n {
		l, f := newMemLog(), newMemLog()
		s.leaders, s.followers = append(s.leaders, l), append(s.followers, f)
		s.host.logs[key(i)], s.host.epoch[key(i)] = f, 5
		p := s.push.Lead(key(i), l, 5)
		l.advanced = p.Wake
		s.parts = append(s.parts, p)
	}
	return s
}

// connect runs a connection; cut makes it lose everything from then on, without an end.
func (s *scene) connect(bulk bool) (c *connection, leaderSide, followerSide *weak) {
	a, b := net2(s.t)
	return connect(s.t, s.push, s.recv, bulk, a, b), a, b
}

func net2(t testing.TB) (*weak, *weak) {
	a, b := wires(t, false)
	return &weak{Conn: a}, &weak{Conn: b}
}

// weak is a connection that can be made to swallow what is written, or to change it.
type weak struct {
	Conn
	mu     sync.Mutex
	silent bool
	spoil  func(b []byte) []byte
}

func (w *weak) Write(b []byte) (int, error) {
	w.mu.Lock()
	silent, spoil := w.silent, w.spoil
	w.mu.Unlock()
	if silent {
		return len(b), nil
	}
	if spoil != nil {
		if _, err := w.Conn.Write(spoil(bytes.Clone(b))); err != nil {
			return 0, err
		}
		return len(b), nil
	}
	return w.Conn.Write(b)
}

func (w *weak) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// settle lets everything happen that does within a while.
func (s *scene) settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (s *scene) same() {
	s.t.Helper()
	for i := range s.leaders {
		if !bytes.Equal(s.leaders[i].bytes(), s.followers[i].bytes()) {
			s.t.Errorf("partition %d: the follower's log ends at %d, the leader's at %d; %v", i, s.followers[i].LogEndOffset(), s.leaders[i].LogEndOffset(), s.story.told())
		}
	}
}

func (s *scene) heard(what string) bool {
	return slices.ContainsFunc(s.story.told(), func(l string) bool { return strings.Contains(l, what) })
}

// inBubble runs a test in virtual time, which goes on at the end until the logs have come to rest.
func inBubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { time.Sleep(time.Second) })
		f(t)
	})
}
