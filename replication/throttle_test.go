package replication

import (
	"testing"
	"time"
)

func TestPacer(t *testing.T) {
	var p pacer
	now := time.Unix(0, 0)
	waits := func(bytes int, rate int64, want time.Duration) {
		t.Helper()
		if got := p.after(bytes, rate, now); got != want {
			t.Errorf("%v, want %v", got, want)
		}
	}
	waits(100, 1000, 100*time.Millisecond)
	waits(100, 1000, 200*time.Millisecond) // two streams share it
	now = now.Add(150 * time.Millisecond)
	waits(100, 1000, 150*time.Millisecond)
	now = now.Add(time.Hour) // what was not used is not saved
	waits(500, 1000, 500*time.Millisecond)
	now = now.Add(time.Hour)
	waits(1<<30, 1000, time.Second) // and then again, so that another rate is noticed
	now = now.Add(time.Hour)
	waits(1, 0, time.Second)
}
