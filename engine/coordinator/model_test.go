package coordinator

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/engine/group"
)

// TestModel lets members come and go, die without a word, join again under their instance ids, and commit, over a log
// that fails at times and a coordinator that restarts. It holds, whatever happens:
//
//   - no two members own the same partition in the same generation
//   - what was acknowledged is read by whoever owns the partition next: offsets never step back
//   - when the trouble ends, the group becomes stable with the members that are left
func TestModel(t *testing.T) {
	seeds := 30
	if testing.Short() {
		seeds = 5
	}
	handovers := 0
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { handovers += playModel(t, seed) })
		})
	}
	if handovers < 20*seeds {
		t.Errorf("only %d assignments in %d plays: the model does not say much", handovers, seeds)
	}
}

const modelPartitions = 6

// model is what must hold, told by all members.
type model struct {
	*bench
	random    *rand.Rand
	randomMu  sync.Mutex
	pick      func() (co *Coordinator, leads func() bool) // nil: the bench's, which always does
	calm      chan struct{}                               // the trouble has ended
	over      chan struct{}                               // members leave
	coMu      sync.RWMutex                                // the coordinator is replaced under it
	mu        sync.Mutex
	owners    map[string]string // member by generation and partition
	acked     [modelPartitions]int64
	handovers int
}

func (m *model) chance(percent int) bool {
	m.randomMu.Lock()
	defer m.randomMu.Unlock()
	return m.random.IntN(100) < percent
}

func (m *model) pause(most time.Duration) {
	m.randomMu.Lock()
	d := time.Duration(m.random.Int64N(int64(most)))
	m.randomMu.Unlock()
	time.Sleep(d)
}

func (m *model) co() *Coordinator {
	co, _ := m.find()
	return co
}

// find is whom a member asks, and whether that one is the coordinator now.
func (m *model) find() (co *Coordinator, leads func() bool) {
	m.coMu.RLock()
	defer m.coMu.RUnlock()
	if m.pick != nil {
		return m.pick()
	}
	return m.c, func() bool { return true }
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{
		bench: newBench(t, 1), random: rand.New(rand.NewPCG(seed, 1)),
		calm: make(chan struct{}), over: make(chan struct{}), owners: map[string]string{},
	}
	for p := range m.acked {
		m.acked[p] = -1
	}
	m.opts.MinRewrite = 20 << 10
	m.opts.Groups.InitialRebalanceDelay = time.Duration(seed%3) * time.Second
	m.log.fail = func([]byte) error {
		if m.quiet() || !m.chance(3) {
			return nil
		}
		return errors.New("the model's disk")
	}
	return m
}

// playModel plays once, and counts the assignments that were handed out.
func playModel(t *testing.T, seed uint64) int {
	m := newModel(t, seed)
	m.open()
	var wg sync.WaitGroup
	for i := range 5 {
		wg.Go(func() { m.consume(fmt.Sprint("c", i), i%2 == 0) })
	}
	for range 3 {
		m.pause(60 * time.Second)
		m.coMu.Lock()
		m.restart()
		m.coMu.Unlock()
	}
	m.pause(60 * time.Second)
	close(m.calm)
	time.Sleep(3 * time.Minute)
	if d, err := m.c.Describe("g"); err != nil || d.State != group.Stable || len(d.Members) != 5 {
		t.Errorf("the group is %s with %d members, %v", d.State, len(d.Members), err)
	}
	close(m.over)
	wg.Wait()
	m.restart()
	synctest.Wait()
	for p, acked := range m.acked {
		if have := m.fetch("g", "t", int32(p)); have < acked {
			t.Errorf("partition %d is at %d after a restart; %d was acknowledged", p, have, acked)
		}
	}
	m.close()
	return m.handovers
}

func (m *model) quiet() bool {
	select {
	case <-m.calm:
		return true
	default:
		return false
	}
}

// consume is a consumer for as long as the model lasts. Its process may die and start again.
func (m *model) consume(name string, static bool) {
	for {
		m.live(name, static)
		select {
		case <-m.over:
			return
		default:
			m.pause(5 * time.Second)
		}
	}
}

// live is one life of a consumer: it ends with its death, or with the model.
func (m *model) live(name string, static bool) {
	ctx, die := context.WithCancel(background)
	defer die()
	memberID := ""
	var instance *string
	if static {
		instance = &name
	}
	for {
		join := joining(memberID)
		join.ClientID, join.InstanceID, join.KnownIDRequired, join.CanSkipAssignment = name, instance, true, m.chance(50)
		timeout, cancel := context.WithTimeout(ctx, 30*time.Second)
		j := m.co().Join(timeout, "g", join)
		cancel()
		switch {
		case errors.Is(j.Err, group.ErrMemberIDRequired):
			memberID = j.MemberID
		case errors.Is(j.Err, group.ErrUnknownMemberID), errors.Is(j.Err, group.ErrFencedInstanceID):
			memberID = ""
		case j.Err == nil:
			memberID = j.MemberID
			if !m.generation(ctx, name, instance, j) {
				return
			}
		}
		select {
		case <-m.over:
			return
		default:
			m.pause(time.Second)
		}
	}
}

// generation lives through one generation; false when the process has died.
func (m *model) generation(ctx context.Context, name string, instance *string, j group.JoinResponse) bool {
	sync := group.Sync{MemberID: j.MemberID, InstanceID: instance, Generation: j.Generation, Assignments: map[string][]byte{}}
	if j.Leader == j.MemberID && !j.SkipAssignment {
		for p := range modelPartitions {
			to := j.Members[p%len(j.Members)].ID
			sync.Assignments[to] = fmt.Appendf(sync.Assignments[to], "%d ", p)
		}
	}
	if !m.quiet() && m.chance(5) {
		return false // died between join and sync
	}
	timeout, cancel := context.WithTimeout(ctx, 30*time.Second)
	s := m.co().Sync(timeout, "g", sync)
	cancel()
	if s.Err != nil {
		return true
	}
	owned := m.own(name, j, string(s.Assignment))
	next, ok := m.resume(ctx, owned)
	if !ok {
		return true
	}
	for {
		m.pause(2 * time.Second)
		select {
		case <-m.over:
			return true
		default:
		}
		if !m.quiet() && m.chance(3) {
			if m.chance(50) {
				m.co().Leave(ctx, "g", group.Leave{Members: []group.LeavingMember{{ID: j.MemberID, InstanceID: instance}}})
			}
			return false
		}
		if len(owned) > 0 && !m.commitNext(ctx, j, instance, owned, next) {
			return true
		}
		if err := m.co().Heartbeat(ctx, "g", group.Heartbeat{MemberID: j.MemberID, InstanceID: instance, Generation: j.Generation}); err != nil {
			if !errors.Is(err, ErrNotCoordinator) && !errors.Is(err, ErrLoading) {
				return true
			}
		}
	}
}

// own notes what a member was assigned.
func (m *model) own(name string, j group.JoinResponse, assignment string) []int32 {
	var owned []int32
	m.mu.Lock()
	defer m.mu.Unlock()
	m.handovers++
	for _, word := range strings.Fields(assignment) {
		p, err := strconv.Atoi(word)
		if err != nil {
			m.t.Errorf("assignment %q", assignment)
			return nil
		}
		owned = append(owned, int32(p))
		key := fmt.Sprintf("generation %d partition %d", j.Generation, p)
		if other, taken := m.owners[key]; taken && other != name {
			m.t.Errorf("%s is owned by %s and by %s", key, other, name)
		}
		m.owners[key] = name
	}
	return owned
}

// resume reads where the partitions' former owners have left off.
func (m *model) resume(ctx context.Context, owned []int32) (map[int32]int64, bool) {
	m.mu.Lock()
	acked := m.acked
	m.mu.Unlock()
	co, leads := m.find()
	got, err := co.FetchOffsets(ctx, "g", []FetchTopic{{Topic: "t", Partitions: owned}}, false, true)
	if err != nil || !leads() {
		return nil, false // one that does not know yet that another leads may answer with what it knows
	}
	next := map[int32]int64{}
	for _, o := range got[0].Offsets {
		if o.Offset < acked[o.Partition] {
			m.t.Errorf("partition %d steps back from %d to %d", o.Partition, acked[o.Partition], o.Offset)
		}
		next[o.Partition] = o.Offset + 1
	}
	return next, true
}

// commitNext commits the next offsets; false when the member has to join again.
func (m *model) commitNext(ctx context.Context, j group.JoinResponse, instance *string, owned []int32, next map[int32]int64) bool {
	topic := group.CommitTopic{Topic: "t"}
	for _, p := range owned {
		topic.Partitions = append(topic.Partitions, group.CommitPartition{Partition: p, Offset: next[p], LeaderEpoch: -1})
	}
	r := m.co().Commit(ctx, "g", group.Commit{
		MemberID: j.MemberID, InstanceID: instance, Generation: j.Generation, RetentionMs: -1, Topics: []group.CommitTopic{topic}})
	if r.Err != nil {
		return !slices.ContainsFunc([]error{group.ErrUnknownMemberID, group.ErrIllegalGeneration, group.ErrFencedInstanceID,
			group.ErrRebalanceInProgress}, func(err error) bool { return errors.Is(r.Err, err) })
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range owned {
		m.acked[p] = max(m.acked[p], next[p])
		next[p]++
	}
	return true
}
