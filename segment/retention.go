package segment

import (
	"context"
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// view is what the plan has to know about a segment.
type view struct{ base, size int64 }

// plan says how many segments are to go, always from the front of the log: first
// those that lie before the log start offset, then those that are too much by
// retention.bytes, then those that are too old by retention.ms.
type plan struct{ breached, surplus, expired int }

func (p plan) segments() int { return p.breached + p.surplus + p.expired }

// planRetention decides as Kafka 4.3.1 does (UnifiedLog.deleteOldSegments). The last
// of segments is active, and end is the log end offset. When the active one is to
// go too, a new one has to be begun first. Nothing at or behind the high watermark
// goes, and no empty active segment. largest gives the timestamp that a
// segment counts as, false when it cannot be told: then the segment stays. It is
// asked about those alone whose age decides.
func planRetention(now time.Time, segments []view, start, end, highWatermark int64, cfg *LogConfig, largest func(i int) (int64, bool)) (p plan) {
	next := func(i int) int64 { // the offset behind segment i
		if i+1 < len(segments) {
			return segments[i+1].base
		}
		return end
	}
	may := func(i int) bool {
		return i < len(segments) && highWatermark >= next(i) && (i+1 < len(segments) || segments[i].size > 0)
	}
	i := 0
	for i+1 < len(segments) && may(i) && next(i) <= start {
		i, p.breached = i+1, p.breached+1
	}
	if cfg.RetentionBytes >= 0 {
		surplus := -cfg.RetentionBytes
		for _, s := range segments[i:] {
			surplus += s.size
		}
		for may(i) && surplus >= segments[i].size {
			surplus -= segments[i].size
			i, p.surplus = i+1, p.surplus+1
		}
	}
	if cfg.Retention >= 0 {
		for may(i) {
			timestamp, known := largest(i)
			if !known || now.UnixMilli()-timestamp <= cfg.Retention.Milliseconds() {
				break
			}
			i, p.expired = i+1, p.expired+1
		}
	}
	return p
}

// retention is what a log has for it.
type retention struct {
	limit atomic.Pointer[func() int64]

	// Of recovery alone.
	leftovers []string // names in the folder that are neither segments nor snapshots

	// Of the janitor alone.
	said       time.Time    // when the last log line about deletions was written
	unsaid     [3]deletions // since then, for each reason
	saidFuture time.Time
}

// deletions sums up segments that went for one reason.
type deletions struct {
	segments    int
	bytes       int64
	first, last int64 // base offsets
}

// KeepFrom lets retention delete segments of the log, as its LogConfig says, but nothing
// at or behind the offset that limit gives: the high watermark. limit must not
// block. Without it only what lies before the log start offset goes.
func (l *Log) KeepFrom(limit func() int64) { l.retention.limit.Store(&limit) }

// retain goes through all logs. What it finds it does at once; between two logs it does
// the jobs that have come in, since somebody may be waiting for them.
func (d *Dir) retain() {
	d.mu.Lock()
	logs := make([]*Log, 0, len(d.logs))
	for _, l := range d.logs {
		logs = append(logs, l)
	}
	d.mu.Unlock()
	failed := 0
	for _, l := range logs {
		if d.stopping() || d.Err() != nil { // after a failed sync nobody knows what the disk holds
			return
		}
		worked, err := l.retain(d.opts.Now())
		if err != nil && !errors.Is(err, ErrHeld) {
			if failed++; failed == 1 {
				d.log.Error("retention cannot delete old segments: they stay until the next look", "partition", l.id.String(), "error", err)
			}
		}
		if worked {
			d.runJobs()
		}
	}
	if failed > 1 {
		d.log.Error("retention cannot delete old segments of more partitions", "partitions", failed-1)
	}
}

// retain deletes the segments of one log that are to go. It runs on the janitor.
func (l *Log) retain(now time.Time) (worked bool, err error) {
	defer l.sayDeleted(now)
	segments, views, p := l.plan(now)
	n := p.segments()
	if n == 0 {
		return false, nil
	}
	if n == len(segments) && !l.leaveIdle(segments[n-1], views[n-1].size) {
		// Something was appended meanwhile, or there is no room for a new segment.
		if n--; p.expired > 0 {
			p.expired--
		} else {
			p.surplus--
		}
		if n == 0 {
			return true, nil
		}
	}
	if upTo := (*l.segments.Load())[n].base; upTo <= l.start.Load() {
		l.removeSegments(upTo, l.config.Load().DeleteDelay)
	} else if upTo > (*l.retention.limit.Load())() {
		return true, nil // of an active segment that was just left more is there than is committed
	} else if err := l.moveStart(upTo); err != nil {
		return true, err
	}
	for reason, count := range []int{p.breached, p.surplus, p.expired} {
		l.retention.unsaid[reason].add(views[:count])
		views = views[count:]
	}
	return true, nil
}

// plan looks at the log as it is now.
func (l *Log) plan(now time.Time) ([]*segmentFile, []view, plan) {
	segments := *l.segments.Load()
	if len(segments) == 0 {
		return nil, nil, plan{}
	}
	cfg, highWatermark := *l.config.Load(), l.start.Load()
	if limit := l.retention.limit.Load(); limit != nil {
		highWatermark = (*limit)()
	} else {
		cfg.Retention, cfg.RetentionBytes = -1, -1
	}
	views := make([]view, len(segments))
	for i, s := range segments {
		views[i] = view{base: s.base, size: s.size.Load()}
	}
	return segments, views, planRetention(now, views, l.start.Load(), l.LogEndOffset(), highWatermark, &cfg, func(i int) (int64, bool) {
		timestamp, known := l.largestTimestamp(segments[i], i+1 == len(segments))
		if known && now.UnixMilli()-timestamp > cfg.Retention.Milliseconds() {
			timestamp, known = l.confirmLargest(segments[i], timestamp)
		}
		if known && timestamp > now.UnixMilli() {
			l.sayFuture(now, segments[i], timestamp)
		}
		return timestamp, known
	})
}

// leaveIdle begins a new segment, so that the active one can go, unless there was an
// append since s had this size.
func (l *Log) leaveIdle(s *segmentFile, size int64) (left bool) {
	ctx, cancel := context.WithTimeout(context.Background(), committerPatience)
	defer cancel()
	err := l.dir.onCommitter(ctx, func() {
		l.mu.Lock()
		refused := l.refusal()
		l.mu.Unlock()
		if l.active() == s && s.size.Load() == size && refused == nil && l.dir.fenced() == nil {
			left = l.leave() == nil
		}
	})
	return err == nil && left
}

// committerPatience is how long retention waits for a round to end before it leaves
// the active segment to the next look.
const committerPatience = 10 * time.Second

func (n *deletions) add(views []view) {
	for _, v := range views {
		if n.segments == 0 {
			n.first = v.base
		}
		n.last = v.base
		n.segments++
		n.bytes += v.size
	}
}

// sayDeleted puts into the log what has gone, at most once a minute for each partition.
func (l *Log) sayDeleted(now time.Time) {
	r := &l.retention
	if r.unsaid == [3]deletions{} || now.Sub(r.said) < time.Minute && !now.Before(r.said) {
		return
	}
	cfg := l.config.Load()
	why := [3]string{
		"they lie before the log start offset",
		"retention.bytes=" + strconv.FormatInt(cfg.RetentionBytes, 10),
		"retention.ms=" + strconv.FormatInt(cfg.Retention.Milliseconds(), 10),
	}
	for reason, n := range r.unsaid {
		if n.segments > 0 {
			l.dir.log.Info("deleted old segments", "partition", l.id.String(), "why", why[reason], "segments", n.segments,
				"first", n.first, "last", n.last, "bytes", n.bytes, "logStartOffset", l.LogStartOffset(), "bytesLeft", l.SizeBytes())
		}
	}
	r.said, r.unsaid = now, [3]deletions{}
}

// sayFuture warns, at most once an hour for each partition, of what Kafka warns of too.
func (l *Log) sayFuture(now time.Time, s *segmentFile, timestamp int64) {
	if now.Sub(l.retention.saidFuture) < time.Hour && !now.Before(l.retention.saidFuture) {
		return
	}
	l.retention.saidFuture = now
	l.dir.log.Warn("a segment holds records with timestamps in the future, and is kept until retention.ms has passed after those",
		"partition", l.id.String(), "segment", s.base, "timestamp", time.UnixMilli(timestamp).UTC().Format(time.RFC3339))
}

// sweep removes what deletions that a crash or a close has cut short have left in the
// folder: files with a ….deleted name, and indexes of segments that are gone.
func (l *Log) sweep() {
	names := l.retention.leftovers
	l.retention.leftovers = nil
	segments := *l.segments.Load()
	var doomed []string
	for _, name := range names {
		number, suffix, _ := strings.Cut(name, ".")
		base, _ := strconv.ParseInt(number, 10, 64) // findFiles has read it
		switch suffix {
		case "index", "timeindex", "sealed":
			if i := segmentOf(segments, base); base < l.start.Load() && (len(segments) == 0 || segments[i].base != base) {
				doomed = append(doomed, name)
			}
		case "log.deleted", "index.deleted", "timeindex.deleted", "sealed.deleted", "checkpoint.deleted", "checkpoint.tmp":
			doomed = append(doomed, name)
		case "checkpoint":
			if n := len(segments); n > 0 && base < segments[n-1].base {
				doomed = append(doomed, name)
			}
		}
	}
	if len(doomed) == 0 {
		return
	}
	l.dir.toJanitor(func() {
		for _, name := range doomed {
			l.dir.remove(trashed{path: filepath.Join(l.path, name)})
		}
	})
}
