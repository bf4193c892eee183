package bench

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// digest counts latencies in buckets that are narrower than one percent of what they hold, so that its memory does not grow with
// the records. All methods may be called concurrently.
//
//	below 256 µs     one bucket for each microsecond
//	above            128 buckets for each doubling
type digest struct {
	buckets [digestBuckets]atomic.Int64
	most    atomic.Int64 // exact, in nanoseconds
}

const (
	digestBits    = 7  // log2 of the buckets for each doubling
	digestLargest = 36 // bits of the largest latency in microseconds: 19 hours
	digestBuckets = (digestLargest - digestBits + 1) << digestBits
)

func (d *digest) add(latency time.Duration) {
	latency = max(latency, 0)
	d.buckets[digestBucket(latency.Microseconds())].Add(1)
	for {
		most := d.most.Load()
		if int64(latency) <= most || d.most.CompareAndSwap(most, int64(latency)) {
			return
		}
	}
}

func digestBucket(us int64) int {
	us = min(us, 1<<digestLargest-1)
	shift := max(bits.Len64(uint64(us))-digestBits-1, 0)
	return shift<<digestBits + int(us>>shift)
}

// digestValue is the middle of a bucket, in microseconds.
func digestValue(bucket int) float64 {
	if bucket < 2<<digestBits {
		return float64(bucket)
	}
	shift := bucket>>digestBits - 1
	low := int64(bucket-shift<<digestBits) << shift
	return float64(low) + float64(int64(1)<<shift)/2
}

// latency reads the percentiles off, nil without measurements.
func (d *digest) latency() *Latency {
	var n int64
	for i := range d.buckets {
		n += d.buckets[i].Load()
	}
	if n == 0 {
		return nil
	}
	most := float64(time.Duration(d.most.Load()).Microseconds()) / 1000
	l := &Latency{Max: most}
	quantiles := []struct {
		share float64
		to    *float64
	}{{.5, &l.P50}, {.9, &l.P90}, {.99, &l.P99}, {.999, &l.P999}}
	var seen int64
	for i, q := 0, 0; i < len(d.buckets) && q < len(quantiles); i++ {
		seen += d.buckets[i].Load()
		for q < len(quantiles) && seen > min(int64(float64(n)*quantiles[q].share), n-1) {
			*quantiles[q].to = min(digestValue(i)/1000, most)
			q++
		}
	}
	return l
}
