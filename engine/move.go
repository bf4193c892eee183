package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/segment"
)

const (
	movesAtOnce  = 2 // partitions that are being copied side by side
	holdPatience = 5 * time.Second
	moveProposal = 5 * time.Second
	// heldPatience is the longest that an append waits for a log that is held.
	heldPatience = 30 * time.Second
	// removePatience is how long to wait until what a move leaves is removed.
	removePatience = 30 * time.Second

	firstMoveBackoff, maxMoveBackoff = time.Second, time.Minute
)

// ErrMoving says that the partition is about to lie in another log directory, and the
// catalogue has not answered yet: nothing can be appended until it does.
var ErrMoving = errors.New("engine: partition is being moved to another log directory")

// ErrUnknownLogDir says that no log directory of this node has that path.
var ErrUnknownLogDir = errors.New("engine: unknown log directory")

// CheckLogDir is nil when a partition may be moved to the log directory with this path.
// ErrUnknownLogDir when there is none, ErrDirOffline and errors of segment when it takes
// no appends. It does not block.
func (e *Engine) CheckLogDir(path string) error {
	if d := e.dirs.byPath(path); d != nil {
		return d.err()
	}
	return fmt.Errorf("%w: %s", ErrUnknownLogDir, path)
}

// usable finds the directory with an id, nil when it is not among log.dirs or could not be opened.
func (e *Engine) usable(id catalog.DirID) *logDir {
	if d := e.dirs.byID(id); d != nil && d.dir != nil {
		return d
	}
	return nil
}

// Move is a partition and the path of the log directory in which it is to lie.
type Move struct {
	Partition *Partition
	Dir       string
}

// MoveReplicas begins moves of partitions to other log directories, which go on after it
// has returned, and after a restart; one to where the partition lies already ends a move that is
// under way. It returns an error for each when the catalogue has recorded all, or ctx
// ends; in that case they may still be recorded.
func (e *Engine) MoveReplicas(ctx context.Context, moves []Move) []error {
	errs := make([]error, len(moves))
	open := make([]int, len(moves)) // those that are to be decided
	for i := range open {
		open[i] = i
	}
	for range 3 { // a conflict is with a move that has just ended
		if open = e.beginMoves(ctx, moves, open, errs); len(open) == 0 {
			break
		}
	}
	return errs
}

// beginMoves proposes moves, and gives those of them back that are to be tried again.
func (e *Engine) beginMoves(ctx context.Context, moves []Move, open []int, errs []error) (again []int) {
	image := e.Image()
	var replicas []catalog.ReplicaDir
	var of []int
	for _, i := range open {
		if errs[i] = e.CheckLogDir(moves[i].Dir); errs[i] != nil {
			continue
		}
		p, to := moves[i].Partition, e.dirs.byPath(moves[i].Dir)
		topic := image.TopicByID(p.topicID)
		if topic == nil || p.Gone() {
			errs[i] = ErrUnknownPartition
			continue
		}
		r := catalog.ReplicaDir{Topic: p.topicID, Partition: p.index, Broker: e.NodeID(), Dir: p.at.Load().dir.meta.DirID}
		if to.meta.DirID != r.Dir {
			r.Future = to.meta.DirID
		}
		if topic.Partitions[p.index].Future(e.NodeID()) == r.Future {
			continue // as it is
		}
		replicas, of = append(replicas, r), append(of, i)
	}
	for n, err := range e.proposeMoves(ctx, replicas) {
		if errs[of[n]] = err; errors.Is(err, catalog.ErrConflict) {
			again = append(again, of[n])
		}
	}
	return again
}

// proposeMoves has the catalogue record moves, in as few changes as it takes.
func (e *Engine) proposeMoves(ctx context.Context, replicas []catalog.ReplicaDir) []error {
	if len(replicas) == 0 {
		return nil
	}
	result, err := e.catalog.Propose(ctx, catalog.AssignDirs{Replicas: replicas})
	if errors.Is(err, catalog.ErrTooLarge) && len(replicas) > 1 {
		half := len(replicas) / 2
		return append(e.proposeMoves(ctx, replicas[:half]), e.proposeMoves(ctx, replicas[half:])...)
	}
	if err != nil {
		return slices.Repeat([]error{err}, len(replicas))
	}
	return result.Errors
}

// Moving is how far a partition has come on its way to another log directory.
type Moving struct {
	Dir       string // where it is being moved to
	SizeBytes int64  // of the copy
	OffsetLag int64  // that the copy is behind
}

// Moving tells whether a partition of topic is being moved, or is to be. It does not block.
func (e *Engine) Moving(topic *catalog.Topic, index int32) (Moving, bool) {
	id := topic.Partitions[index].Future(e.NodeID())
	if id == (catalog.DirID{}) {
		return Moving{}, false
	}
	d := e.usable(id)
	p, err := e.Partition(topic.ID, index)
	if d == nil || err != nil || p.at.Load().dir == d {
		return Moving{}, false
	}
	m := Moving{Dir: d.path, OffsetLag: p.LogEndOffset()}
	if f := p.future.Load(); f != nil && f.dir == d {
		m.SizeBytes, m.OffsetLag = f.log.SizeBytes(), max(p.LogEndOffset()-f.log.LogEndOffset(), 0)
	}
	return m, true
}

// followMove makes true what the catalogue says about where a partition lies. It runs on
// the catalogue's goroutine, as does all that changes a log's settings or deletes
// a partition, and touches no disk.
func (e *Engine) followMove(topic *catalog.Topic, index int32) {
	if topic == nil {
		return
	}
	p, err := e.Partition(topic.ID, index)
	if err != nil {
		return // it cannot be read
	}
	placed := &topic.Partitions[index]
	own := placed.Dir(e.NodeID())
	if at, f := p.at.Load(), p.future.Load(); f != nil && f.dir.meta.DirID == own && at.dir != f.dir {
		f.log.SetConfig(logConfig(p.topic, p.config.Load(), e.Config()))
		p.growIn(f.log)
		f.log.FenceBelow(p.LeaderEpoch())
		p.at.Store(f)
		p.future.Store(nil)
		at.dir.placed.Add(-1)
		f.dir.placed.Add(1)
	}
	e.mover.want(p, placed.Future(e.NodeID()))
}

// change does something to the partition's log: when that is held, once it is not, or to
// the log that has taken its place; f is called until then. It waits until ctx ends, but not for ever.
func (p *Partition) change(ctx context.Context, f func(*segment.Log) error) error {
	for {
		at := p.at.Load()
		err := f(at.log)
		if err == nil || !p.movedFrom(at, err) {
			return err
		}
		if held := p.held.Load(); held != nil && p.at.Load() == at {
			if err := awaitMove(ctx, *held); err != nil {
				return err
			}
		}
	}
}

// movedFrom tells whether err comes from a move: the log is held, or lies elsewhere by now.
func (p *Partition) movedFrom(at *place, err error) bool {
	return errors.Is(err, segment.ErrHeld) || p.at.Load() != at
}

func awaitMove(ctx context.Context, held <-chan struct{}) error {
	timer := time.NewTimer(heldPatience)
	defer timer.Stop()
	select {
	case <-held:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return ErrMoving
	}
}

// mover moves partitions to other log directories, a few at a time. It has goroutines only
// while there is something to move.
type mover struct {
	e    *Engine
	ctx  context.Context // ends with close
	stop context.CancelFunc
	busy sync.WaitGroup
	// How long to wait for the catalogue at a time, and how long a log may be held, so that the
	// copy comes to have all of it, before the move is put off.
	proposal, patience time.Duration

	mu      sync.Mutex // guards the fields below and those of jobs; never held across a call
	jobs    map[*Partition]*job
	ready   []*job
	workers int
	shut    bool
}

// job is one partition that is to be moved. It is in ready, or carried out, or waits for its timer.
type job struct {
	partition *Partition
	to        catalog.DirID // where to; zero: it is to stay
	queued    bool
	cancel    context.CancelFunc // of the attempt that is under way
	timer     *time.Timer
	failures  int
}

func newMover(e *Engine) *mover {
	m := &mover{e: e, jobs: map[*Partition]*job{}, proposal: moveProposal, patience: holdPatience}
	m.ctx, m.stop = context.WithCancel(context.Background())
	return m
}

// resume begins the moves that were under way when the node was stopped.
func (m *mover) resume(image *catalog.Image) {
	for topic := range image.EachTopic() {
		for i := range topic.Partitions {
			if topic.Partitions[i].Futures == nil {
				continue
			}
			if p, err := m.e.Partition(topic.ID, int32(i)); err == nil {
				m.want(p, topic.Partitions[i].Future(m.e.NodeID()))
			}
		}
	}
}

// want has p moved to a directory; the zero value has it stay. It does not block.
func (m *mover) want(p *Partition, to catalog.DirID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	j, none := m.jobs[p], catalog.DirID{}
	switch {
	case m.shut, j == nil && to == none, j != nil && j.to == to:
		return
	case j == nil:
		j = &job{partition: p, to: to}
		m.jobs[p] = j
		m.push(j)
		return
	}
	j.to, j.failures = to, 0
	switch {
	case j.cancel != nil:
		j.cancel() // the worker sees then what is wanted
	case j.queued:
	default:
		j.timer.Stop()
		m.push(j)
	}
}

// push readies a job; m.mu is held.
func (m *mover) push(j *job) {
	j.queued, j.timer = true, nil
	m.ready = append(m.ready, j)
	if m.workers < movesAtOnce {
		m.workers++
		m.busy.Add(1)
		go m.work()
	}
}

// next gives a job to carry out, nil when there is none: then the worker ends.
func (m *mover) next() (j *job, to catalog.DirID, ctx context.Context) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.ready) > 0 && !m.shut {
		j, m.ready = m.ready[0], m.ready[1:]
		j.queued = false
		if j.to == (catalog.DirID{}) {
			delete(m.jobs, j.partition)
			continue
		}
		ctx, j.cancel = context.WithCancel(m.ctx)
		return j, j.to, ctx
	}
	m.workers--
	return nil, to, nil
}

// work is a worker. It ends when there is nothing to move, or with close.
func (m *mover) work() {
	defer m.busy.Done()
	for {
		j, to, ctx := m.next()
		if j == nil {
			return
		}
		err := m.attempt(ctx, j.partition, to)
		if err != nil && ctx.Err() == nil {
			err = m.judge(j.partition, to, err)
		}
		m.settle(j, to, err)
	}
}

// settle decides how a job goes on whose attempt to move to a directory has ended: an error
// says that it is to be tried again.
func (m *mover) settle(j *job, to catalog.DirID, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	j.cancel()
	j.cancel = nil
	switch {
	case m.shut:
	case j.to == (catalog.DirID{}), j.to == to && err == nil:
		delete(m.jobs, j.partition)
	case j.to != to:
		m.push(j)
	default:
		wait := min(firstMoveBackoff<<min(j.failures, 10), maxMoveBackoff)
		j.failures++
		var t *time.Timer
		t = time.AfterFunc(wait, func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			if j.timer == t && !m.shut { // nobody else has pushed it
				m.push(j)
			}
		})
		j.timer = t
	}
}

// judge finds out what a failed attempt means: nil when the move is given up, or has to wait for a
// restart; an error when it is to be tried again.
func (m *mover) judge(p *Partition, to catalog.DirID, err error) error {
	log := m.e.log.With("partition", p.name, "from", p.LogDir(), "to", m.e.pathOf(to), "error", err)
	switch {
	case p.Gone(), errors.Is(err, catalog.ErrConflict), errors.Is(err, catalog.ErrUnknownTopic):
		return nil // something else is wanted by now, and was told to the mover
	case errors.Is(err, catalog.ErrFailed):
		log.Error("a partition cannot be moved, since the catalogue has failed: it stays where it is until a restart")
		return nil
	case errors.Is(err, ErrDirOffline):
		log.Warn("a partition cannot be moved while the log directory that it is to go to is offline: it stays where it is until a restart finds that well again")
		return nil
	case mayPass(err):
		log.Warn("a partition could not be moved to another log directory: it goes on where it is, and the move is tried again")
		return err
	}
	ctx, cancel := context.WithTimeout(m.ctx, m.proposal)
	defer cancel()
	errs := m.e.proposeMoves(ctx, []catalog.ReplicaDir{{
		Topic: p.topicID, Partition: p.index, Broker: m.e.NodeID(), Dir: p.at.Load().dir.meta.DirID, Expect: to,
	}})
	if errs[0] != nil && !errors.Is(errs[0], catalog.ErrConflict) && !errors.Is(errs[0], catalog.ErrUnknownTopic) {
		return errs[0] // it is tried again, and given up then
	}
	log.Error("a partition cannot be moved to another log directory: it stays where it is, the move is given up")
	return nil
}

// mayPass tells whether what has failed for this reason may succeed later.
func mayPass(err error) bool {
	return slices.ContainsFunc([]error{
		context.DeadlineExceeded, segment.ErrNoSpace, segment.ErrNoDescriptors, segment.ErrStalled, segment.ErrQueueFull, segment.ErrExists,
		segment.ErrClosed, errOvertaken, errTruncated, catalog.ErrStalled, catalog.ErrNoSpace, catalog.ErrClosed,
	}, func(passing error) bool { return errors.Is(err, passing) })
}

func (e *Engine) pathOf(id catalog.DirID) string {
	if d := e.dirs.byID(id); d != nil && d.fault == nil {
		return d.path
	}
	return id.String()
}

// close ends the moves that are under way; the next start begins them anew. It waits
// until ctx ends.
func (m *mover) close(ctx context.Context) error {
	m.mu.Lock()
	m.shut = true
	for _, j := range m.jobs {
		if j.timer != nil {
			j.timer.Stop()
		}
	}
	m.mu.Unlock()
	m.stop()
	done := make(chan struct{})
	go func() { m.busy.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("a partition is being moved, and its disk does not answer: %w", ctx.Err())
	}
}
