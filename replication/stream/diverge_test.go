package stream

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// run is some batches of one record, of one epoch.
type run struct {
	epoch int32
	n     int
}

// logOf makes a log that starts at an offset.
func logOf(t testing.TB, start int64, runs ...run) *memLog {
	l := newMemLog()
	l.start, l.end = start, start
	for _, r := range runs {
		for range r.n {
			l.lead(t, r.epoch, 1, 8)
		}
	}
	return l
}

// TestDivergence: what a follower has to give up. A batch is what its offset and epoch say, so two logs differ where epochs do.
func TestDivergence(t *testing.T) {
	tests := []struct {
		name             string
		leader, follower *memLog
		truncated, reset int64 // -1: it is not
	}{
		{"both empty", logOf(t, 0), logOf(t, 0), -1, -1},
		{"the same", logOf(t, 0, run{1, 10}), logOf(t, 0, run{1, 10}), -1, -1},
		{"new follower", logOf(t, 0, run{1, 10}), logOf(t, 0), -1, -1},
		{"behind", logOf(t, 0, run{1, 10}, run{2, 5}), logOf(t, 0, run{1, 7}), -1, -1},
		// KIP-101, scenario 1: the follower has what is not known to be committed, restarts, and keeps it.
		{"nothing goes for being above the high watermark", logOf(t, 0, run{0, 2}), logOf(t, 0, run{0, 2}), -1, -1},
		// KIP-101, scenario 2: both lost power, the one that had less led on.
		{"the one with less led on", logOf(t, 0, run{0, 1}, run{1, 1}), logOf(t, 0, run{0, 2}), 1, -1},
		{"… and has written more than was lost", logOf(t, 0, run{0, 1}, run{1, 9}), logOf(t, 0, run{0, 4}), 1, -1},
		{"the leader's log is shorter", logOf(t, 0, run{3, 5}), logOf(t, 0, run{3, 8}), 5, -1},
		// KIP-279: fast changes of leaders. The follower has epochs that the leader has never seen, and the other way round.
		{"an epoch of its own at the end", logOf(t, 0, run{0, 10}, run{3, 10}), logOf(t, 0, run{0, 10}, run{2, 5}), 10, -1},
		{"epochs of its own, after a shared one that it had less of", logOf(t, 0, run{0, 10}, run{1, 10}, run{4, 3}), logOf(t, 0, run{0, 10}, run{1, 4}, run{2, 5}, run{3, 5}), 14, -1},
		{"epochs of its own, after a shared one that it had more of", logOf(t, 0, run{0, 10}, run{1, 4}, run{4, 30}), logOf(t, 0, run{0, 10}, run{1, 9}, run{2, 5}), 14, -1},
		{"the leader's answer is an epoch that the follower lacks", logOf(t, 0, run{0, 5}, run{1, 5}, run{3, 5}), logOf(t, 0, run{0, 8}, run{2, 8}), 5, -1},
		{"a later epoch than any record of the leader", logOf(t, 0, run{1, 10}), logOf(t, 0, run{1, 10}, run{2, 3}), 10, -1},
		{"nothing in common", logOf(t, 0, run{5, 3}), logOf(t, 0, run{4, 3}), 0, -1},
		{"nothing in common, the follower's is empty at the end", logOf(t, 0, run{5, 3}), logOf(t, 3), -1, -1},
		{"ends before the leader's log starts", logOf(t, 50, run{5, 10}), logOf(t, 0, run{5, 20}), -1, 50},
		{"new follower of a log that starts late", logOf(t, 50, run{5, 10}), logOf(t, 0), -1, 50},
		{"starts behind the leader's end", logOf(t, 0, run{5, 10}), logOf(t, 50, run{5, 10}), -1, 0},
		{"starts behind the fork", logOf(t, 0, run{1, 10}, run{3, 10}), logOf(t, 15, run{2, 10}), -1, 0},
		{"starts later, for its own retention", logOf(t, 0, run{1, 10}, run{3, 10}), logOf(t, 5, run{1, 5}, run{3, 2}), -1, -1},
		{"the leader has nothing", logOf(t, 0), logOf(t, 0, run{1, 10}), -1, 0},
		{"the leader has nothing left", logOf(t, 10), logOf(t, 0, run{1, 12}), -1, 10},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				together(t, tt.leader, tt.follower, 9)
				var truncated, reset int64 = -1, -1
				if n := len(tt.follower.truncated); n > 0 {
					truncated = tt.follower.truncated[n-1]
				}
				if n := len(tt.follower.reset); n > 0 {
					reset = tt.follower.reset[n-1]
				}
				if truncated != tt.truncated || reset != tt.reset {
					t.Errorf("truncated to %d, reset to %d; want %d, %d", truncated, reset, tt.truncated, tt.reset)
				}
			})
		})
	}
}

// together pushes a log until the follower has all, and compares them.
func together(t *testing.T, leader, log *memLog, epoch int32) {
	t.Helper()
	host := &follower{logs: map[Key]Sink{key(0): log}, epoch: map[Key]int32{key(0): epoch}}
	o := newStory()
	u := NewPush(testConfig(1), 2, o)
	leader.advanced = nil
	p := u.Lead(key(0), leader, epoch)
	ctx, cancel := context.WithCancel(context.Background())
	a, b := wires(t, false)
	c := &connection{cancel: cancel, leads: make(chan error, 1), follows: make(chan error, 1)}
	r := NewReceiver(testConfig(2), host)
	go func() { c.leads <- u.Run(ctx, false, a) }()
	go func() { c.follows <- r.Serve(ctx, b) }()
	defer c.stop()
	for range 100 {
		synctest.Wait()
		if p.Acked() == leader.end {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if p.Acked() != leader.end || log.end != leader.end {
		t.Fatalf("the follower's log ends at %d, acknowledged %d, leader's at %d; %v", log.end, p.Acked(), leader.end, o.told())
	}
	mine, its := leader.bytes(), log.bytes()
	if log.start >= leader.start && !bytes.HasSuffix(mine, its) || log.start < leader.start && !bytes.HasSuffix(its, mine) {
		t.Errorf("logs differ")
	}
}

// TestManyEpochs: more epochs than fit one STATE are asked for bit by bit.
func TestManyEpochs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leader, log := newMemLog(), newMemLog()
		for e := range int32(300) {
			leader.lead(t, 2*e, 1, 8)
			if e < 20 {
				log.lead(t, 2*e, 1, 8)
			} else {
				log.lead(t, 2*e+1, 1, 8)
			}
		}
		together(t, leader, log, 1000)
		if len(log.truncated) != 1 || log.truncated[0] != 20 {
			t.Errorf("truncated to %v", log.truncated)
		}
	})
}

// TestCompareAgainstRecords: for random histories of leaders, what compare says is where the logs part, found record by record.
func TestCompareAgainstRecords(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 7))
		// Three logs of epochs, one entry a record. A leader has its log and appends; another copies from it as replication
		// does, after dropping what differs.
		logs := [3][]int32{}
		for epoch := int32(1); epoch < 12; epoch++ {
			leads := r.IntN(3)
			for i := range logs {
				if i != leads && r.IntN(2) == 0 {
					logs[i] = follow(logs[leads], logs[i], r.IntN(4))
				}
			}
			for range r.IntN(4) {
				logs[leads] = append(logs[leads], epoch)
			}
			if i := r.IntN(3); i != leads {
				logs[i] = follow(logs[leads], logs[i], r.IntN(4))
			}
		}
		leader, other := fromEpochs(t, logs[0]), fromEpochs(t, logs[1])
		common := 0
		for common < min(len(logs[0]), len(logs[1])) && logs[0][common] == logs[1][common] {
			common++
		}
		v, to := compare(leader, 0, other.end, other.epochs(), false)
		switch {
		case v == agree && int64(common) == other.end:
		case v == truncate && int64(common) == to:
		case v == reset && common == 0 && to == 0:
		default:
			t.Fatalf("seed %d: %v and %v part at %d: %v, %d", seed, logs[0], logs[1], common, v, to)
		}
	}
}

// follow is what a follower's log becomes: the fork, and up to n records behind it.
func follow(leader, log []int32, n int) []int32 {
	fork := 0
	for fork < min(len(leader), len(log)) && leader[fork] == log[fork] {
		fork++
	}
	return append([]int32(nil), leader[:min(len(leader), fork+n)]...)
}

func fromEpochs(t testing.TB, epochs []int32) *memLog {
	l := newMemLog()
	for _, e := range epochs {
		l.lead(t, e, 1, 0)
	}
	return l
}
