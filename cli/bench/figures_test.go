package bench

import (
	"math"
	"os"
	"testing"
	"time"
)

func TestDigest(t *testing.T) {
	var d digest
	if d.latency() != nil {
		t.Error("no measurements, but a latency")
	}
	for i := 1000; i >= 1; i-- {
		d.add(time.Duration(i) * time.Millisecond)
	}
	got := *d.latency()
	for _, c := range []struct{ got, want float64 }{{got.P50, 501}, {got.P90, 901}, {got.P99, 991}, {got.P999, 1000}} {
		if math.Abs(c.got-c.want) > c.want/100 {
			t.Errorf("%v, want %v within 1 %%", c.got, c.want)
		}
	}
	if got.Max != 1000 || got.P999 > got.Max {
		t.Errorf("%+v", got)
	}
}

// Every latency falls into the bucket whose middle is within one percent of it, and a larger one never into a lower bucket.
func TestDigestBuckets(t *testing.T) {
	last := -1
	for us := int64(0); us < 1<<digestLargest; us += max(1, us/1000) {
		b := digestBucket(us)
		if b < last || b >= digestBuckets {
			t.Fatalf("%d µs is in bucket %d, after %d, of %d", us, b, last, digestBuckets)
		}
		if v := digestValue(b); math.Abs(v-float64(us)) > float64(us)/100 {
			t.Fatalf("%d µs is told as %v", us, v)
		}
		last = b
	}
	if digestBucket(1<<50) != digestBuckets-1 {
		t.Error("what is too large is not in the last bucket")
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
