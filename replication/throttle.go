package replication

import (
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/engine/config"
)

// pacer spreads bytes over time.
type pacer struct {
	mu   sync.Mutex // guards free
	free time.Time  // when all that was sent has had its time
}

// longestPause lets a change of the rate be noticed.
const longestPause = time.Second

// after notes bytes that are sent, and says how long to wait before the next are, at so many a second.
func (p *pacer) after(bytes int, perSecond int64, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.free.Before(now) {
		p.free = now
	}
	cost := time.Duration(math.MaxInt64)
	if perSecond > 0 {
		cost = time.Duration(float64(bytes) / float64(perSecond) * float64(time.Second))
	}
	p.free = p.free.Add(min(cost, longestPause))
	return min(p.free.Sub(now), longestPause)
}

// throttle says how long to wait after bytes for a follower that is far behind: leader.replication.throttled.rate of this
// broker, for all followers together, and follower.replication.throttled.rate of that one. Kafka throttles the replicas that
// the topic names in (leader|follower).replication.throttled.replicas; here it is all that have fallen far behind.
func (r *replicator) throttle(follower int32, bytes int) time.Duration {
	now, wait := r.now(), time.Duration(0)
	if rate := r.engine.Config().LeaderBytesPerSecond(); rate < math.MaxInt64 {
		wait = r.outgoing.after(bytes, rate, now)
	}
	image := r.engine.Image()
	rate := config.RateIn("follower.replication.throttled.rate",
		image.Config(catalog.ResourceBroker, strconv.Itoa(int(follower))), image.Config(catalog.ResourceBroker, ""))
	if rate < math.MaxInt64 {
		wait = max(wait, r.pacerOf(follower).after(bytes, rate, now))
	}
	return wait
}

func (r *replicator) pacerOf(follower int32) *pacer {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &r.pushes[follower].incoming
}
