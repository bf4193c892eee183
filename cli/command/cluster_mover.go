package command

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/millrace/millrace/cli/placement"
)

const (
	movePoll     = 300 * time.Millisecond // between two looks at what moves
	moveSizePoll = 2 * time.Second        // between two questions how much of it there is
	moveSay      = 10 * time.Second       // between two lines of progress where there is no terminal
)

// mover has a plan done by the brokers.
type mover struct {
	*env
	k        *clusterClient
	changes  []placement.Change
	throttle int64 // bytes a second; 0: no bound
	atOnce   int
	stall    time.Duration

	flying  []placement.Change // told to the brokers, and not done
	failed  []error
	ledAnew int
	moved   atomic.Int64 // partitions
	copied  atomic.Int64 // bytes of those that are done
	partial atomic.Int64 // bytes of those under way, as far as they are told
}

// run moves everything, or takes back what is under way when ctx ends or nothing moves for too long.
func (m *mover) run(ctx context.Context) (err error) {
	if m.throttle > 0 {
		if err := m.setThrottle(ctx); err != nil {
			return errors.Join(fmt.Errorf("setting the throttle, nothing was moved: %w", err), m.removeThrottle(context.WithoutCancel(ctx)))
		}
		defer func() { err = errors.Join(err, m.removeThrottle(context.WithoutCancel(ctx))) }()
	}
	endProgress := m.progress(m.line)
	err = m.moveAll(ctx)
	endProgress()
	if err != nil {
		m.takeBack(context.WithoutCancel(ctx))
		return err
	}
	if err := m.elect(ctx); err != nil {
		m.failed = append(m.failed, fmt.Errorf("everything is in place, but preferred leaders could not be elected: %w", err))
	}
	return errors.Join(m.failed...)
}

func (m *mover) line() string {
	total := int64(0)
	for _, ch := range m.changes {
		total += ch.CopiedBytes()
	}
	return fmt.Sprintf("%d of %s moved, %s of about %s", m.moved.Load(), count(len(m.changes), "partition"), sizeOf(m.copied.Load()+m.partial.Load()), sizeOf(total))
}

func (m *mover) moveAll(ctx context.Context) error {
	waiting := slices.Clone(m.changes)
	tick := time.NewTicker(movePoll)
	defer tick.Stop()
	progressed, sized, said := time.Now(), time.Now(), time.Now()
	var lastErr error
	for len(waiting)+len(m.flying) > 0 {
		if n := min(len(waiting), m.atOnce-len(m.flying)); n > 0 {
			if err := m.submit(ctx, waiting[:n]); err == nil {
				waiting, progressed = waiting[n:], time.Now()
			} else {
				lastErr = err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		before := len(m.flying)
		if err := m.landed(ctx); err != nil {
			lastErr = err // the brokers may be busy with an election; --stall bounds that
		}
		if len(m.flying) < before {
			progressed, lastErr = time.Now(), nil
		}
		if time.Since(sized) >= moveSizePoll && len(m.flying) > 0 {
			sized = time.Now()
			if m.measure(ctx) {
				progressed = time.Now()
			}
		}
		if time.Since(said) >= moveSay && !isTerminal(m.Err) {
			said = time.Now()
			fmt.Fprintln(m.Err, m.line())
		}
		if time.Since(progressed) > m.stall {
			return errors.Join(fmt.Errorf("nothing has moved for %v, of %s", m.stall, m.names(m.flying)), lastErr)
		}
	}
	return nil
}

// submit tells the brokers to move partitions. Those that they refuse are failures; an error is none of them.
func (m *mover) submit(ctx context.Context, batch []placement.Change) error {
	req := kadm.AlterPartitionAssignmentsReq{}
	for _, ch := range batch {
		req.Assign(ch.Topic, ch.Partition, ch.To)
	}
	resp, err := ask(ctx, m.k, func(ctx context.Context) (kadm.AlterPartitionAssignmentsResponses, error) {
		return m.k.adm.AlterPartitionAssignments(ctx, req)
	})
	if err != nil {
		return err
	}
	for _, ch := range batch {
		answer, found := resp[ch.Topic][ch.Partition]
		switch {
		case !found:
			m.failed = append(m.failed, fmt.Errorf("%s-%d: the broker does not say whether it is moved", ch.Topic, ch.Partition))
		case answer.Err != nil:
			m.failed = append(m.failed, fmt.Errorf("%s-%d to %s: %w", ch.Topic, ch.Partition, numbers(ch.To), withNote(answer.Err, answer.ErrMessage)))
		default:
			m.flying = append(m.flying, ch)
		}
	}
	return nil
}

// withNote adds a broker's own message, which says more than the code.
func withNote(err error, note string) error {
	if note == "" {
		return err
	}
	return fmt.Errorf("%w (%s)", err, note)
}

// landed takes out of flying what is done: no reassignment is listed, and the metadata shows the new replicas.
func (m *mover) landed(ctx context.Context) error {
	if len(m.flying) == 0 {
		return nil
	}
	under, err := m.k.reassignments(ctx)
	if err != nil {
		return err
	}
	details, err := m.details(ctx, m.flying)
	if err != nil {
		return err
	}
	m.flying = slices.DeleteFunc(m.flying, func(ch placement.Change) bool {
		if t, found := details[ch.Topic]; !found || errors.Is(t.Err, kerr.UnknownTopicOrPartition) {
			m.failed = append(m.failed, fmt.Errorf("%s-%d: the topic was deleted meanwhile", ch.Topic, ch.Partition))
			return true
		}
		_, moving := under[ch.Topic][ch.Partition]
		if moving || !slices.Equal(details[ch.Topic].Partitions[ch.Partition].Replicas, ch.To) {
			return false
		}
		m.moved.Add(1)
		m.copied.Add(ch.CopiedBytes())
		return true
	})
	return nil
}

// details asks for the metadata of the topics of changes.
func (m *mover) details(ctx context.Context, changes []placement.Change) (kadm.TopicDetails, error) {
	var topics []string
	for _, ch := range changes {
		topics = append(topics, ch.Topic)
	}
	slices.Sort(topics)
	return ask(ctx, m.k, func(ctx context.Context) (kadm.TopicDetails, error) {
		return m.k.adm.ListTopicsWithInternal(ctx, slices.Compact(topics)...)
	})
}

// measure adds up how much of what is under way has been copied, and tells whether it is more than before.
func (m *mover) measure(ctx context.Context) bool {
	set := kadm.TopicsSet{}
	for _, ch := range m.flying {
		set.Add(ch.Topic, ch.Partition)
	}
	sizes, _, err := m.k.sizes(ctx, set)
	if err != nil {
		return false
	}
	var bytes int64
	for _, ch := range m.flying {
		for _, id := range ch.Adding() {
			bytes += min(sizes[ch.Topic][ch.Partition][id], ch.SizeBytes)
		}
	}
	return m.partial.Swap(bytes) < bytes
}

// takeBack cancels what is under way. What has ended by itself in the last moment is moved.
func (m *mover) takeBack(ctx context.Context) {
	req := kadm.AlterPartitionAssignmentsReq{}
	for _, ch := range m.flying {
		req.CancelAssign(ch.Topic, ch.Partition)
	}
	resp, err := ask(ctx, m.k, func(ctx context.Context) (kadm.AlterPartitionAssignmentsResponses, error) {
		return m.k.adm.AlterPartitionAssignments(ctx, req)
	})
	var back, on []placement.Change
	failed := []error{err}
	for _, ch := range m.flying {
		answer, found := resp[ch.Topic][ch.Partition]
		switch {
		case found && answer.Err == nil:
			back = append(back, ch)
		case errors.Is(answer.Err, kerr.NoReassignmentInProgress):
			m.moved.Add(1)
		default:
			on = append(on, ch)
			if found {
				failed = append(failed, fmt.Errorf("%s-%d: %w", ch.Topic, ch.Partition, withNote(answer.Err, answer.ErrMessage)))
			}
		}
	}
	done := fmt.Sprintf("%d of %s moved", m.moved.Load(), count(len(m.changes), "partition"))
	if len(back) > 0 {
		done += "; what was under way was taken back: " + m.names(back)
	}
	fmt.Fprintln(m.Err, done)
	if len(on) > 0 {
		fmt.Fprintf(m.Err, "these go on, as they could not be taken back: %s: %v\n", m.names(on), errors.Join(failed...))
	}
}

// names lists a few partitions.
func (m *mover) names(changes []placement.Change) string {
	const shown = 5
	var names []string
	for _, ch := range changes[:min(len(changes), shown)] {
		names = append(names, fmt.Sprintf("%s-%d", ch.Topic, ch.Partition))
	}
	if more := len(changes) - shown; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}

// elect has the preferred replicas lead what was moved, where another does.
func (m *mover) elect(ctx context.Context) error {
	details, err := m.details(ctx, m.changes)
	if err != nil {
		return err
	}
	set := kadm.TopicsSet{}
	for _, ch := range m.changes {
		if p, found := details[ch.Topic].Partitions[ch.Partition]; found && len(p.Replicas) > 0 && p.Leader != p.Replicas[0] {
			set.Add(ch.Topic, ch.Partition)
		}
	}
	if len(set) == 0 { // none would mean all
		return nil
	}
	results, err := ask(ctx, m.k, func(ctx context.Context) (kadm.ElectLeadersResults, error) {
		return m.k.adm.ElectLeaders(ctx, kadm.ElectPreferredReplica, set)
	})
	if err != nil {
		return err
	}
	var failed []error
	for _, partitions := range results {
		for _, r := range partitions {
			switch {
			case r.Err == nil:
				m.ledAnew++
			case !errors.Is(r.Err, kerr.ElectionNotNeeded):
				failed = append(failed, fmt.Errorf("%s-%d: %w", r.Topic, r.Partition, withNote(r.Err, r.ErrMessage)))
			}
		}
	}
	return errors.Join(failed...)
}

// Kafka's keys for throttled copies: the rates of brokers, and the replicas of topics to which they apply.
const (
	leaderRate       = "leader.replication.throttled.rate"
	followerRate     = "follower.replication.throttled.rate"
	leaderReplicas   = "leader.replication.throttled.replicas"
	followerReplicas = "follower.replication.throttled.replicas"
)

// throttled returns the brokers that take part in copies, and for each topic which replicas send and which receive.
func (m *mover) throttled() (brokers []int32, leaders, followers map[string][]string) {
	leaders, followers = map[string][]string{}, map[string][]string{}
	for _, ch := range m.changes {
		adding := ch.Adding()
		if len(adding) == 0 {
			continue
		}
		for _, id := range ch.From {
			leaders[ch.Topic] = append(leaders[ch.Topic], fmt.Sprintf("%d:%d", ch.Partition, id))
		}
		for _, id := range adding {
			followers[ch.Topic] = append(followers[ch.Topic], fmt.Sprintf("%d:%d", ch.Partition, id))
		}
		brokers = append(append(brokers, ch.From...), adding...)
	}
	slices.Sort(brokers)
	return slices.Compact(brokers), leaders, followers
}

func (m *mover) setThrottle(ctx context.Context) error {
	rate := strconv.FormatInt(m.throttle, 10)
	return m.alterThrottle(ctx, func(key string, value []string) kadm.AlterConfig {
		text := strings.Join(value, ",")
		if value == nil {
			text = rate
		}
		return kadm.AlterConfig{Op: kadm.SetConfig, Name: key, Value: &text}
	})
}

func (m *mover) removeThrottle(ctx context.Context) error {
	err := m.alterThrottle(ctx, func(key string, _ []string) kadm.AlterConfig {
		return kadm.AlterConfig{Op: kadm.DeleteConfig, Name: key}
	})
	if err != nil {
		return fmt.Errorf("the throttle could not be removed, see %s and %s of brokers and topics: %w", leaderRate, leaderReplicas, err)
	}
	return nil
}

// alterThrottle sets or removes the four keys. A broker that is gone has none.
func (m *mover) alterThrottle(ctx context.Context, alter func(key string, value []string) kadm.AlterConfig) error {
	brokers, leaders, followers := m.throttled()
	v, err := m.k.look(ctx)
	if err != nil {
		return err
	}
	brokers = slices.DeleteFunc(brokers, func(id int32) bool {
		return !slices.ContainsFunc(v.Brokers, func(b brokerView) bool { return b.Node == id && b.State == "active" })
	})
	var failed []error
	check := func(what string, resp kadm.AlterConfigsResponses, err error) {
		if err != nil {
			failed = append(failed, err)
		}
		for _, r := range resp {
			if r.Err != nil && !errors.Is(r.Err, kerr.UnknownTopicOrPartition) {
				failed = append(failed, fmt.Errorf("%s %s: %w", what, r.Name, withNote(r.Err, r.ErrMessage)))
			}
		}
	}
	if len(brokers) > 0 { // none would mean all
		rates := []kadm.AlterConfig{alter(leaderRate, nil), alter(followerRate, nil)}
		resp, err := ask(ctx, m.k, func(ctx context.Context) (kadm.AlterConfigsResponses, error) {
			return m.k.adm.AlterBrokerConfigs(ctx, rates, brokers...)
		})
		check("node", resp, err)
	}
	for topic := range leaders {
		replicas := []kadm.AlterConfig{alter(leaderReplicas, leaders[topic]), alter(followerReplicas, followers[topic])}
		resp, err := ask(ctx, m.k, func(ctx context.Context) (kadm.AlterConfigsResponses, error) {
			return m.k.adm.AlterTopicConfigs(ctx, replicas, topic)
		})
		check("topic", resp, err)
	}
	return errors.Join(failed...)
}
