package liveness

import (
	"slices"
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	one, two := Standing{1, 10}, Standing{2, 20}
	overdue := func(j *Judge, ms int, want ...Standing) {
		t.Helper()
		if got := j.Overdue(at(ms)); !slices.Equal(got, want) {
			t.Errorf("at %d: %v, want %v", ms, got, want)
		}
	}
	j := NewJudge(2 * time.Second)
	if _, any := j.Next(); any {
		t.Error("a deadline for nobody")
	}
	j.Know([]Standing{one, two}, at(0))
	overdue(j, 1999)
	j.Heard(one, at(1500))
	j.Heard(Standing{2, 19}, at(1500)) // an earlier registration
	j.Heard(Standing{3, 1}, at(1500))  // nobody
	overdue(j, 2000, two)
	overdue(j, 3500, one, two)
	if next, any := j.Next(); !any || !next.Equal(at(2000)) {
		t.Errorf("next %v", next)
	}
	j.Know([]Standing{one, {2, 21}}, at(3000)) // 1 keeps its lease, 2 has registered again
	overdue(j, 3500, one)
	j.Gone(Standing{2, 20}, at(3100)) // of the one before
	overdue(j, 3200)
	j.Gone(Standing{2, 21}, at(3200))
	overdue(j, 3200, Standing{2, 21})
	j.Know(nil, at(4000))
	overdue(j, 9000)
}
