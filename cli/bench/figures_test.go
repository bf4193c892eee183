package bench

import (
	"os"
	"testing"
	"time"
)

func TestSummarize(t *testing.T) {
	if summarize(nil) != nil {
		t.Error("no samples, but a latency")
	}
	var samples []time.Duration
	for i := 1000; i >= 1; i-- {
		samples = append(samples, time.Duration(i)*time.Millisecond)
	}
	want := Latency{P50: 501, P90: 901, P99: 991, P999: 1000, Max: 1000}
	if got := *summarize(samples); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestUsageOfThisProcess(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("no /proc here")
	}
	u := measure([]int{os.Getpid()})
	for begun := time.Now(); time.Since(begun) < 50*time.Millisecond; { // use some
	}
	s := u.since(1_000_000)
	if s.CPUSeconds <= 0 || s.CPUSeconds > 10 || s.CPUSecondsPerMillion != s.CPUSeconds || s.PeakRSSBytes < 1<<20 {
		t.Errorf("implausible: %+v", s)
	}
	if measure(nil).since(1) != nil {
		t.Error("no process, but figures")
	}
}

func TestAtRateKeepsToItsTimes(t *testing.T) {
	begun := time.Now()
	var dues []time.Duration
	atRate(t.Context(), begun, 5, 1000, func(i int, due time.Time) {
		if time.Now().Before(due) {
			t.Errorf("record %d was sent early", i)
		}
		dues = append(dues, due.Sub(begun))
	})
	for i, d := range dues {
		if d != time.Duration(i)*time.Millisecond {
			t.Errorf("record %d was due after %v", i, d)
		}
	}
	if len(dues) != 5 {
		t.Errorf("%d records, want 5", len(dues))
	}
}
