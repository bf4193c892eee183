package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/semaphore"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/replication/raftlog"
)

// Options say what a controller works with. All but Forward, Logger and Settings must be given.
type Options struct {
	NodeID    int32
	Log       raftlog.Store      // of this node alone; the caller closes it after the controller
	Snapshots raft.SnapshotStore // likewise
	Transport Transport          // likewise; the controller does not close it
	Forward   Forward            // nil: only the leader takes proposals
	Now       func() time.Time   // a clock that does not jump
	Logger    *slog.Logger
	Settings  Settings
}

// Transport is raft's. Its calls must come back within a bound of their own, a heartbeat within the election timeout. One
// that passes heartbeats to the handler it is given, beside a call that is being served, keeps
// a follower with a slow disk from holding elections.
type Transport interface {
	raft.Transport
	raft.WithPreVote
}

// Forward hands proposals to the leader over whatever connects brokers.
type Forward interface {
	// Forward has the proposal taken up by [Controller.Accept] on that node, and returns what Accept
	// does. An error for which errors.Is(err, ErrRefused) holds is final; with any other the outcome is unknown, and
	// the proposal may be sent again.
	Forward(ctx context.Context, leader int32, proposal []byte) error
}

// Settings are times and sizes; what is zero gets its default.
type Settings struct {
	HeartbeatTimeout time.Duration // without a word from the leader a follower holds an election; 300 ms
	ElectionTimeout  time.Duration // an election without a result is held again; 300 ms
	LeaderLease      time.Duration // a leader that reaches no majority steps down; 250 ms
	DiskBound        time.Duration // a write that takes longer ends this node's part; raftlog.DefaultBound
	ProposalTimeout  time.Duration // deadline of proposals that have none; 30 s
	DeadAfter        time.Duration // a voter that has not answered for so long is replaced; 30 s
	Voters           int           // at most, odd; 5
	SnapshotEntries  uint64        // a snapshot after so many entries; 8192
	SnapshotBytes    int64         // or after so many bytes of entries; 16 MiB
	InFlightBytes    int64         // of proposals; others wait; 16 MiB
}

func (s *Settings) fill() {
	or(&s.HeartbeatTimeout, 300*time.Millisecond)
	or(&s.ElectionTimeout, s.HeartbeatTimeout)
	or(&s.LeaderLease, s.HeartbeatTimeout*5/6)
	or(&s.DiskBound, raftlog.DefaultBound)
	or(&s.ProposalTimeout, 30*time.Second)
	or(&s.DeadAfter, 30*time.Second)
	or(&s.Voters, 5)
	or(&s.SnapshotEntries, 8192)
	or(&s.SnapshotBytes, 16<<20)
	or(&s.InFlightBytes, 16<<20)
}

func or[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// Controller is one node's part in the metadata of a cluster. All methods may be called concurrently.
type Controller struct {
	opts     Options
	settings Settings
	log      *slog.Logger
	fsm      *fsm
	roles    roles
	link     *link
	budget   *semaphore.Weighted // bytes of proposals in flight

	current  atomic.Pointer[instance] // nil while there is none
	trouble  atomic.Pointer[error]    // why there is none, or why it takes no part
	kicked   chan struct{}            // wakes the keeper, capacity one
	changing chan struct{}            // holds one token: one change of members at a time
	stop     chan struct{}            // closed by Close
	done     chan struct{}            // closed when the keeper has ended
	closing  atomic.Bool
}

func serverID(node int32) raft.ServerID { return raft.ServerID(strconv.Itoa(int(node))) }

// nodeOf reads a server id, -1 when it is none of ours.
func nodeOf(id raft.ServerID) int32 {
	n, err := strconv.ParseInt(string(id), 10, 32)
	if err != nil {
		return -1
	}
	return int32(n)
}

// Open starts this node's part: a member of a cluster goes on with what is stored, see also [Bootstrap]; a new node waits until
// the leader is told of it by [Controller.Join].
func Open(opts Options) (*Controller, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Controller{opts: opts, settings: opts.Settings, log: opts.Logger, fsm: newFSM(),
		kicked: make(chan struct{}, 1), changing: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	c.settings.fill()
	c.budget = semaphore.NewWeighted(c.settings.InFlightBytes)
	c.changing <- struct{}{}
	c.roles.init(serverID(opts.NodeID))
	c.link = &link{Transport: opts.Transport, now: opts.Now, peers: map[raft.ServerID]peer{}}
	c.fsm.halt = func(err error) {
		c.log.Error("an entry of the metadata log cannot be applied: this node takes no part from now on", "error", err)
		if in := c.current.Load(); in != nil {
			in.end(err)
		}
	}
	c.fsm.moved = c.applied
	c.fsm.members = c.kick
	in, err := c.start()
	if err != nil {
		return nil, err
	}
	go c.keep(in)
	return c, nil
}

// Image returns this node's current state. Hold one image for the length of a request.
func (c *Controller) Image() *catalog.Image { return c.fsm.image.Load() }

// Subscribe has fn called after every change that this node applies, in their order and never
// concurrently; new.Events() says what changed. When a node that was far behind gets a whole
// image, fn is called once with all that is different. fn runs on the goroutine that applies: it must not block, nor call Propose or Close.
func (c *Controller) Subscribe(fn func(old, new *catalog.Image)) (stop func()) {
	return c.fsm.subscribe(fn)
}

// Leader is the node that leads as far as this one knows.
func (c *Controller) Leader() (node int32, known bool) {
	leader, _ := c.roles.now()
	return nodeOf(leader), leader != ""
}

// Leadership is Leader, with a channel that is closed when the leader may be another one.
func (c *Controller) Leadership() (node int32, known bool, changed <-chan struct{}) {
	leader, generation := c.roles.now()
	return nodeOf(leader), leader != "", generation.Done()
}

// Leads tells whether this node leads as far as it knows.
func (c *Controller) Leads() bool { return c.leads() }

func (c *Controller) leads() bool {
	leader, _ := c.roles.now()
	return leader == c.roles.self
}

// Err is nil while this node can have changes made. Otherwise it is ErrNoLeader or catalog.ErrStalled, which go
// by themselves, or catalog.ErrFailed, which stays, or catalog.ErrClosed.
func (c *Controller) Err() error {
	if c.closing.Load() {
		return catalog.ErrClosed
	}
	if err := c.trouble.Load(); err != nil {
		return *err
	}
	if _, known := c.Leader(); !known {
		return ErrNoLeader
	}
	return nil
}

// Close gives leadership up, if another can take it, and ends this node's part. Images stay readable.
func (c *Controller) Close() error {
	if c.closing.CompareAndSwap(false, true) {
		c.roles.changed()
		close(c.stop)
	}
	<-c.done
	if in := c.current.Load(); in != nil { // its disk has not come back
		return fmt.Errorf("%w: an operation is still under way", catalog.ErrStalled)
	}
	return nil
}

// Propose has a command applied by the cluster, and returns when that is decided, this node's image shows it, and every subscriber of
// this node has been told. There is one deadline, the context's, for everything; a proposal is sent again, to whoever leads, until then, and
// is applied once. ErrUnknownOutcome means that the deadline, or the end of this node's part, came first; any other error that nothing was done. Errors of single
// items are in the result, whose Image is the one that the command led to.
func (c *Controller) Propose(ctx context.Context, cmd catalog.Command) (catalog.Result, error) {
	body, err := catalog.EncodeCommand(cmd)
	if err != nil {
		return catalog.Result{}, err
	}
	return c.propose(ctx, kindCommand, body)
}

// Sync returns when this node's image shows everything that had been acknowledged, by whatever node, before it was called.
func (c *Controller) Sync(ctx context.Context) error {
	_, err := c.propose(ctx, kindNothing, nil)
	return err
}

func (c *Controller) propose(ctx context.Context, kind proposalKind, body []byte) (catalog.Result, error) {
	if err := ctx.Err(); err != nil {
		return catalog.Result{}, err
	}
	if len(body) > MaxProposalBytes {
		return catalog.Result{}, fmt.Errorf("%w: %d bytes", catalog.ErrTooLarge, len(body))
	}
	ctx, cancel := context.WithTimeout(ctx, c.settings.ProposalTimeout)
	defer cancel()
	cost := min(int64(proposalHeader+len(body)), c.settings.InFlightBytes)
	if err := c.budget.Acquire(ctx, cost); err != nil {
		return catalog.Result{}, err // nothing was sent
	}
	defer c.budget.Release(cost)
	p := newProposal(kind, c.fsm.applied.Load(), body)
	return c.press(ctx, p.id, p.encode(), false)
}

// Accept takes up a proposal that another node has handed on (see Forward), and returns when it has been applied here. It does so
// on the leader; elsewhere it returns ErrNotLeader at once.
func (c *Controller) Accept(ctx context.Context, encoded []byte) error {
	p, err := decodeProposal(encoded)
	if err == nil {
		_, err = p.command()
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if len(p.body) > MaxProposalBytes {
		return fmt.Errorf("%w: %w: %d bytes", ErrRefused, catalog.ErrTooLarge, len(p.body))
	}
	ctx, cancel := context.WithTimeout(ctx, c.settings.ProposalTimeout)
	defer cancel()
	cost := min(int64(len(encoded)), c.settings.InFlightBytes)
	if err := c.budget.Acquire(ctx, cost); err != nil {
		return err
	}
	defer c.budget.Release(cost)
	_, err = c.press(ctx, p.id, encoded, true)
	return err
}

// resendAfter is when a proposal that was taken up, and of which nothing was heard, is sent again: raft drops some without a word.
const resendAfter = 2 * time.Second

// press sends a proposal until this node has applied it, or the context ends. It is sent again when the leader has changed, after an error, and now and
// then. When it may be sent here only, another's leading is the end of it.
func (c *Controller) press(ctx context.Context, id proposalID, encoded []byte, hereOnly bool) (catalog.Result, error) {
	sending, wake := context.WithCancel(ctx) // ends also when the outcome is known
	defer wake()
	heard, stop := c.fsm.await(id, wake)
	defer stop()
	wait := 20 * time.Millisecond
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	sent := false
	failed := func(err error) (catalog.Result, error) {
		select {
		case o := <-heard: // at the last moment
			return o.res, o.err
		default:
		}
		if sent {
			err = fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
		}
		return catalog.Result{}, err
	}
	for {
		leader, changed := c.roles.now()
		if err := c.refusal(leader, hereOnly); err != nil {
			return failed(err)
		}
		err := c.under(sending, changed, func(ctx context.Context) error { return c.send(ctx, leader, encoded) })
		sent = sent || !errors.Is(err, ErrNoLeader)
		again := resendAfter
		switch {
		case errors.Is(err, ErrRefused):
			return failed(err)
		case errors.Is(err, ErrNoLeader):
			again = time.Hour // until there is one
		case err != nil:
			again = wait
			wait = min(2*wait, resendAfter)
		}
		timer.Reset(again)
		select {
		case o := <-heard:
			return o.res, o.err
		case <-ctx.Done():
			return failed(errors.Join(ctx.Err(), err))
		case <-changed.Done():
		case <-timer.C:
		}
	}
}

// refusal is why a proposal cannot be sent from here, nil when it can or may soon be.
func (c *Controller) refusal(leader raft.ServerID, hereOnly bool) error {
	if c.closing.Load() {
		return catalog.ErrClosed
	}
	if failed := c.trouble.Load(); failed != nil && errors.Is(*failed, catalog.ErrFailed) {
		return *failed
	}
	switch {
	case leader == c.roles.self:
		return nil
	case hereOnly:
		return ErrNotLeader
	case leader != "" && c.opts.Forward == nil:
		return fmt.Errorf("%w: node %d leads, and nothing leads to it", ErrNotLeader, nodeOf(leader))
	}
	return nil
}

// under runs f with a context that ends also when the leader changes, or when nothing has been heard for long.
func (c *Controller) under(ctx, changed context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, resendAfter)
	defer cancel()
	defer context.AfterFunc(changed, cancel)()
	return f(ctx)
}

// send gives a proposal to raft here, or to the leader.
func (c *Controller) send(ctx context.Context, leader raft.ServerID, encoded []byte) error {
	switch {
	case leader == "":
		return ErrNoLeader
	case leader == c.roles.self:
		return c.enqueue(ctx, encoded)
	}
	return c.opts.Forward.Forward(ctx, nodeOf(leader), encoded)
}

// enqueue puts a proposal into raft's queue, or gives up with the context's deadline. What becomes of it is heard from the state machine: raft's own answer may never come. It
// blocks while the queue is full, which is as long as the disk takes at most.
func (c *Controller) enqueue(ctx context.Context, encoded []byte) error {
	in := c.current.Load()
	if in == nil {
		return ErrNoLeader
	}
	deadline, _ := ctx.Deadline() // there is one
	if left := deadline.Sub(c.opts.Now()); left > 0 {
		in.raft.ApplyLog(raft.Log{Data: encoded}, left)
	}
	return nil
}

// kick wakes the keeper.
func (c *Controller) kick() {
	select {
	case c.kicked <- struct{}{}:
	default:
	}
}
