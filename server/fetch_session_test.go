package server

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"
)

func sessionParts(n int, name string) []*sessionPartition {
	parts := make([]*sessionPartition, n)
	for i := range parts {
		parts[i] = &sessionPartition{key: fetchKey{name: name, partition: int32(i)}, name: name, highWatermark: -1, logStartOffset: -1}
	}
	return parts
}

func TestSessionEpochs(t *testing.T) {
	for epoch, want := range map[int32]int32{0: 1, 1: 2, math.MaxInt32: 1, -1: -1, -7: -1} {
		if got := nextSessionEpoch(epoch); got != want {
			t.Errorf("after %d comes %d, want %d", epoch, got, want)
		}
	}
}

func TestSessionCacheMakesRoom(t *testing.T) {
	// Two slots. What was made first, when it was used last, and whether a session
	// of three partitions finds room after a further while.
	type made struct {
		partitions int
		usedAfter  time.Duration // 0: never again
	}
	tests := []struct {
		name  string
		first [2]made
		wait  time.Duration
		gone  int // index of the one that has to go; -1: the new one is refused
	}{
		{"young ones stay", [2]made{{1, 0}, {1, 0}}, time.Minute, -1},
		{"one that was idle for long goes, large as it is", [2]made{{100, 0}, {1, 90 * time.Second}}, 121 * time.Second, 0},
		{"exactly two minutes is not long", [2]made{{1, 0}, {1, 0}}, 2 * time.Minute, -1},
		{"a smaller one that is old and busy goes", [2]made{{2, 3 * time.Minute}, {5, 3 * time.Minute}}, time.Minute, 0},
		{"an equal one that is old and busy stays", [2]made{{3, 3 * time.Minute}, {5, 3 * time.Minute}}, time.Minute, -1},
		{"the smallest counts", [2]made{{2, 3 * time.Minute}, {1, 3 * time.Minute}}, time.Minute, 1},
		{"a smaller one that was young when last used stays", [2]made{{1, time.Minute}, {1, time.Minute}}, time.Minute, -1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			now := time.Unix(1000, 0)
			c := newSessionCache(2, func() time.Time { return now })
			var ids [2]int32
			start, last := now, now
			for i, m := range test.first {
				ids[i] = c.create(false, sessionParts(m.partitions, fmt.Sprint(i)))
			}
			for i, m := range test.first {
				if m.usedAfter > 0 {
					now = start.Add(m.usedAfter)
					last = now
					if _, _, code := c.resume(ids[i], 1, false, nil, nil, func([]*sessionPartition) {}); code != codeNone {
						t.Fatalf("resume: %d", code)
					}
				}
			}
			if test.gone == 0 && test.first[0].usedAfter == 0 {
				last = start
			}
			now = last.Add(test.wait)
			id := c.create(false, sessionParts(3, "new"))
			if (id == noSession) != (test.gone < 0) {
				t.Fatalf("new session has id %d", id)
			}
			for i, id := range ids {
				if (c.sessions[id] == nil) != (test.gone == i) {
					t.Errorf("session %d: kept=%v", i, c.sessions[id] != nil)
				}
			}
		})
	}
}

func TestSessionResume(t *testing.T) {
	c := newSessionCache(10, time.Now)
	id := c.create(true, sessionParts(3, "a"))
	var listed []int32
	list := func(parts []*sessionPartition) {
		listed = nil
		for _, p := range parts {
			listed = append(listed, p.key.partition)
		}
	}
	steps := []struct {
		name   string
		epoch  int32
		byID   bool
		wanted []*sessionPartition
		forget []fetchKey
		code   int16
		listed []int32
	}{
		{"as it was", 1, true, nil, nil, codeNone, []int32{0, 1, 2}},
		{"the same epoch again", 1, true, nil, nil, codeInvalidFetchSessionEpoch, nil},
		{"by name", 2, false, nil, nil, codeFetchSessionTopicIDError, nil},
		{"one is forgotten", 2, true, nil, []fetchKey{{name: "a", partition: 1}}, codeNone, []int32{0, 2}},
		{"and comes back, last", 3, true, sessionParts(2, "a")[1:], nil, codeNone, []int32{0, 2, 1}},
		{"one that is not there is forgotten", 4, true, nil, []fetchKey{{name: "b"}}, codeNone, []int32{0, 2, 1}},
		{"added and forgotten at once", 5, true, sessionParts(1, "c"), []fetchKey{{name: "c"}}, codeNone, []int32{0, 2, 1}},
		{"all are forgotten", 6, true, nil, []fetchKey{{name: "a"}, {name: "a", partition: 1}, {name: "a", partition: 2}}, codeNone, nil},
		{"so it has ended", 7, true, nil, nil, codeFetchSessionIDNotFound, nil},
	}
	for _, step := range steps {
		listed = nil
		_, epoch, code := c.resume(id, step.epoch, step.byID, step.wanted, step.forget, list)
		if code != step.code || !slices.Equal(listed, step.listed) {
			t.Errorf("%s: code %d, listed %v; want %d, %v", step.name, code, listed, step.code, step.listed)
		}
		if listed != nil && epoch != step.epoch+1 {
			t.Errorf("%s: next epoch %d", step.name, epoch)
		}
	}
	if len(c.sessions) != 0 || c.partitions != 0 {
		t.Errorf("%d sessions with %d partitions left", len(c.sessions), c.partitions)
	}
}

func TestSessionsAreBoundedInPartitions(t *testing.T) {
	c := newSessionCache(10, time.Now)
	if c.create(false, make([]*sessionPartition, maxSessionPartitions+1)) != noSession {
		t.Error("a session beyond the bound was made")
	}
	id := c.create(false, sessionParts(10, "a"))
	c.partitions = maxSessionPartitions - 5 // others have the rest
	if _, _, code := c.resume(id, 1, false, sessionParts(10, "b"), nil, func([]*sessionPartition) {}); code != codeFetchSessionIDNotFound {
		t.Errorf("code %d", code)
	}
	if c.sessions[id] != nil {
		t.Error("the session is still there")
	}
}

func TestSessionTellsOnlyChanges(t *testing.T) {
	p := sessionParts(1, "a")[0]
	steps := []struct {
		name   string
		result fetchResult
		want   bool
	}{
		{"first answer", fetchResult{highWatermark: 0}, true},
		{"the same", fetchResult{highWatermark: 0}, false},
		{"high watermark moves", fetchResult{highWatermark: 5}, true},
		{"the same again", fetchResult{highWatermark: 5}, false},
		{"records", fetchResult{highWatermark: 5, size: 1}, true},
		{"log start moves", fetchResult{highWatermark: 5, logStartOffset: 2}, true},
		{"an error", fetchResult{highWatermark: 5, logStartOffset: 2, code: 1}, true},
		{"the error stays", fetchResult{highWatermark: 5, logStartOffset: 2, code: 1}, true},
		{"the error ends", fetchResult{highWatermark: 5, logStartOffset: 2}, true},
		{"quiet", fetchResult{highWatermark: 5, logStartOffset: 2}, false},
		{"divergence", fetchResult{highWatermark: 5, logStartOffset: 2, diverging: true}, true},
	}
	for _, step := range steps {
		if got := p.changed(&step.result); got != step.want {
			t.Errorf("%s: sent=%v", step.name, got)
		}
	}
}
