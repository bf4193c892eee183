package command

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// pollRecords bounds the records taken, printed and committed in one step.
const pollRecords = 10_000

// reader prints the records of one run of consume.
type reader struct {
	e      *env
	cl     *kgo.Client
	adm    *kadm.Client
	q      *consuming
	spans  map[int32]span
	out    *bufio.Writer
	joined chan struct{} // closed when the group has assigned partitions, perhaps none, for the first time

	mu      sync.Mutex
	next    map[int32]int64 // the offset to read next, of the partitions being read
	joinErr error

	printed int64
	gone    bool // the broker was seen to be gone, and that was said
}

// options makes a client that fetches what is to be read: partitions directly, or as a member of the group.
func (r *reader) options() []kgo.Opt {
	opts := []kgo.Opt{kgo.KeepControlRecords(), kgo.FetchMaxWait(500 * time.Millisecond)}
	if r.q.group != "" {
		reset := kgo.NewOffset().AtStart()
		if r.q.from.kind == 'e' {
			reset = kgo.NewOffset().AtEnd()
		}
		return append(opts, kgo.ConsumerGroup(r.q.group), kgo.ConsumeTopics(r.q.topic), kgo.ConsumeResetOffset(reset), kgo.DisableAutoCommit(),
			kgo.BlockRebalanceOnPoll(), kgo.OnPartitionsAssigned(r.assigned), kgo.OnPartitionsRevoked(r.revoked), kgo.OnPartitionsLost(r.revoked))
	}
	assign := map[int32]kgo.Offset{}
	for p, s := range r.spans {
		if r.q.follow || s.begin < s.end {
			r.next[p] = s.begin
			assign[p] = kgo.NewOffset().At(s.begin)
		}
	}
	close(r.joined)
	return append(opts, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{r.q.topic: assign}))
}

// assigned notes where this member begins in the partitions that the group gives it.
func (r *reader) assigned(ctx context.Context, _ *kgo.Client, got map[string][]int32) {
	bounded, cancel := context.WithTimeout(ctx, r.q.timeout)
	defer cancel()
	committed, err := r.adm.FetchOffsetsForTopics(bounded, r.q.group, r.q.topic)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range got[r.q.topic] {
		r.next[p] = r.spans[p].begin
		if o, ok := committed.Lookup(r.q.topic, p); ok && o.Err == nil && o.At >= 0 {
			r.next[p] = o.At
		}
	}
	r.joinErr = err
	select {
	case <-r.joined:
	default:
		close(r.joined)
	}
}

// revoked forgets partitions that another member reads from now on.
func (r *reader) revoked(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range lost[r.q.topic] {
		delete(r.next, p)
	}
}

// run prints until the end, --max, Ctrl-C (which is how --follow ends) or a failure.
func (r *reader) run(ctx context.Context) error {
	if !isTerminal(r.e.Out) {
		endProgress := r.e.progress(func() string { return "reading" })
		defer endProgress()
	}
	select {
	case <-r.joined:
	case <-ctx.Done():
	}
	for ctx.Err() == nil {
		done, err := r.finished()
		if done || err != nil {
			return err
		}
		polling, cancel := context.WithTimeout(ctx, r.q.timeout)
		fetches := r.cl.PollRecords(polling, pollRecords)
		cancel()
		if err := r.take(ctx, fetches); err != nil {
			return err
		}
		if fetches.NumRecords() == 0 && ctx.Err() == nil {
			if err := r.quiet(ctx); err != nil {
				return err
			}
		}
		r.cl.AllowRebalance()
	}
	if r.q.follow {
		return nil
	}
	return ctx.Err()
}

// finished reports whether there is nothing more to print.
func (r *reader) finished() (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.joinErr != nil {
		return false, r.joinErr
	}
	if r.q.max > 0 && r.printed >= r.q.max {
		return true, nil
	}
	if r.q.follow {
		return false, nil
	}
	for p, next := range r.next {
		if next < r.spans[p].end {
			return false, nil
		}
	}
	return true, nil
}

// take prints what was fetched, then commits it when in a group.
func (r *reader) take(ctx context.Context, fetches kgo.Fetches) error {
	for _, fe := range fetches.Errors() {
		if errors.Is(fe.Err, context.DeadlineExceeded) || errors.Is(fe.Err, context.Canceled) {
			continue
		}
		return topicError(r.q.topic, fe.Err, "")
	}
	taken := map[int32]kgo.EpochOffset{}
	for it := fetches.RecordIter(); !it.Done(); {
		rec := it.Next()
		if r.q.max > 0 && r.printed >= r.q.max {
			break
		}
		if !r.q.follow && rec.Offset >= r.spans[rec.Partition].end {
			continue
		}
		taken[rec.Partition] = kgo.EpochOffset{Epoch: rec.LeaderEpoch, Offset: rec.Offset + 1}
		if rec.Attrs.IsControl() {
			continue
		}
		r.printed++
		if err := r.q.print.record(r.out, rec); err != nil {
			return err
		}
	}
	r.mu.Lock()
	for p, at := range taken {
		r.next[p] = at.Offset
	}
	r.mu.Unlock()
	if err := r.out.Flush(); err != nil || r.q.group == "" || len(taken) == 0 {
		return err
	}
	return r.commit(ctx, taken)
}

// commit commits what was printed, also when Ctrl-C came in between.
func (r *reader) commit(ctx context.Context, taken map[int32]kgo.EpochOffset) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.q.timeout)
	defer cancel()
	var failed error
	r.cl.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{r.q.topic: taken}, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
		failed = firstError(err, commitError(resp))
	})
	if failed != nil {
		return fmt.Errorf("committing offsets of group %q: %w", r.q.group, failed)
	}
	return nil
}

// commitError returns the first error of a commit's answer.
func commitError(resp *kmsg.OffsetCommitResponse) error {
	if resp == nil {
		return nil
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return err
			}
		}
	}
	return nil
}

// quiet runs when nothing arrived for a while: is the broker still there?
func (r *reader) quiet(ctx context.Context) error {
	err := ping(ctx, r.cl, r.q.timeout)
	var gone *unreachableError
	if errors.As(err, &gone) && r.q.follow {
		if !r.gone {
			fmt.Fprintf(r.e.Err, "millrace: no answer from the broker (%s); still trying\n", plainCause(gone.Err))
		}
		r.gone = true
		return nil
	}
	if err == nil && r.gone {
		fmt.Fprintln(r.e.Err, "millrace: the broker answers again")
		r.gone = false
	}
	return err
}
