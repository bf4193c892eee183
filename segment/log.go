package segment

import (
	"context"
	"encoding/base64"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/millrace/millrace/segment/producer"
)

// LogID names the log of one partition. The topic id and the partition identify
// it; the topic's name is for people.
type LogID struct {
	Topic     string
	TopicID   [16]byte
	Partition int32
}

// String is NAME-PARTITION, as Kafka writes a partition.
func (id LogID) String() string { return id.Topic + "-" + strconv.Itoa(int(id.Partition)) }

// maxFolderName is what file systems allow for one name; longer topic names are
// cut in the folder's name, where the topic id alone counts.
const maxFolderName = 255 - len(deletedSuffix)

func (id LogID) folder() string {
	tail := fmt.Sprintf("-%d.%s", id.Partition, base64.RawURLEncoding.EncodeToString(id.TopicID[:]))
	name := id.Topic
	if over := len(name) + len(tail) - maxFolderName; over > 0 {
		name = name[:len(name)-over]
	}
	return name + tail
}

// parseFolder is the reverse of folder; the topic's name may come back cut.
func parseFolder(name string) (LogID, bool) {
	dot := strings.LastIndexByte(name, '.')
	dash := strings.LastIndexByte(name[:max(dot, 0)], '-')
	if dash < 1 {
		return LogID{}, false
	}
	id := LogID{Topic: name[:dash]}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(name[dot+1:])
	if err != nil || copy(id.TopicID[:], raw) != len(id.TopicID) || len(raw) != len(id.TopicID) {
		return LogID{}, false
	}
	partition, err := strconv.ParseInt(name[dash+1:dot], 10, 32)
	if err != nil || partition < 0 {
		return LogID{}, false
	}
	id.Partition = int32(partition)
	return id, id.folder() == name
}

// LogConfig holds the settings of one log.
type LogConfig struct {
	SegmentBytes       int64         // roll when the active segment would become larger; Kafka's segment.bytes
	SegmentAge         time.Duration // roll when its first record is older, by record timestamps; segment.ms
	SegmentJitter      time.Duration // at most this much is taken off SegmentAge at random, per segment; segment.jitter.ms
	IndexIntervalBytes int           // log bytes between two index entries; index.interval.bytes
	IndexBytes         int           // roll when an index would become larger; segment.index.bytes
	QueueBytes         int64         // appends that may wait for the committer; Append blocks beyond
	// FlushMessages is how many records may be acknowledged before they are synced, and FlushAfter how
	// long they may wait for that; flush.messages and flush.ms. Both at their largest, which is
	// Kafka's default, mean here that nothing is acknowledged before it is synced.
	FlushMessages      int64
	FlushAfter         time.Duration
	ProducerExpiration time.Duration // idempotent producers are forgotten so long after their last batch; producer.id.expiration.ms
	Retention          time.Duration // segments go when their largest timestamp is older; negative: never; retention.ms
	RetentionBytes     int64         // the oldest segments go when the others hold as much; negative: never; retention.bytes
	DeleteDelay        time.Duration // files go so long after what they held was deleted; file.delete.delay.ms
}

// DefaultLogConfig is Kafka's defaults, but for retention: a log that nobody has
// configured yet loses nothing.
func DefaultLogConfig() LogConfig {
	return LogConfig{
		SegmentBytes:       1 << 30,
		SegmentAge:         7 * 24 * time.Hour,
		IndexIntervalBytes: 4096,
		IndexBytes:         10 << 20,
		QueueBytes:         16 << 20,
		FlushMessages:      math.MaxInt64,
		FlushAfter:         math.MaxInt64,
		ProducerExpiration: 24 * time.Hour,
		Retention:          -1,
		RetentionBytes:     -1,
		DeleteDelay:        time.Minute,
	}
}

// flushesLate tells whether records are acknowledged before they are synced.
func (c *LogConfig) flushesLate() bool {
	return c.FlushMessages > 1 && c.FlushAfter > 0 && (c.FlushMessages < math.MaxInt64 || c.FlushAfter < math.MaxInt64)
}

// Append is one or more whole, valid record batches on their way into a log.
type Append struct {
	// Batches lie back to back. The committer patches base offset and leader epoch
	// in place; the bytes belong to the log until Done is called.
	Batches []byte
	// LeaderEpoch is the epoch under which the batches are appended, or, with Keep, that of the leader who sends them.
	LeaderEpoch int32
	// Keep has the batches keep their base offsets and leader epochs, as a follower or a copy does. They must begin
	// at or behind the end of the log, in order, else Result.Err is ErrOutOfOrder; gaps may be between them. Log.Append checks their
	// shape and CRC, on its caller's goroutine: ErrCorrupt. Sequence numbers are remembered, and not checked.
	Keep bool
	// Follows, with Keep, has the append fail with ErrOutOfOrder unless the log ends at From when its turn comes: behind
	// one that has failed nothing is to be stored, since batches that keep their offsets may leave a gap.
	Follows bool
	From    int64
	// Patience bounds how long Append waits for room in the queues; 0 leaves that to its context.
	Patience time.Duration
	// Done is called exactly once, mostly by the committer's goroutine. It must not block.
	Done func(Result)

	result  Result
	charged int64 // bytes taken from the queues
	queued  time.Duration
}

// Result tells what has become of an append.
type Result struct {
	BaseOffset     int64 // of the first record
	LastOffset     int64 // of the last record, inclusive
	LogStartOffset int64
	// Duplicate says that an idempotent producer had already appended this batch:
	// nothing was written, and the offsets are those of the first time.
	Duplicate bool
	// Timestamp is, for a duplicate, the largest timestamp of the original batch.
	Timestamp int64
	// Err is nil when the records are on the disk. Otherwise none of them is: a
	// producer.Err…, ErrNoSpace, ErrFenced, ErrStalled, ErrDeleted, ErrClosed, ErrTooLarge or ErrOutOfOrder.
	Err error
}

// Log holds the records of one partition. All methods may be called
// concurrently.
type Log struct {
	dir    *Dir
	id     LogID
	path   string
	config atomic.Pointer[LogConfig]
	queue  *semaphore.Weighted // bytes of Append

	// Published: by the committer (end, epochs), the janitor (start) or either (segments).
	start    atomic.Int64
	end      atomic.Int64
	epochs   atomic.Pointer[epochs]
	segments atomic.Pointer[[]*segmentFile] // rising base offsets; the last is active
	cuts     atomic.Int64                   // rises when segments get shorter or go at the end of the log, and what has been read may be wrong
	advanced atomic.Pointer[func(end int64)]

	retention retention

	named       atomic.Bool  // the folder's name is durable
	saving      atomic.Bool  // a checkpoint is on its way to the disk
	dropped     bool         // its files go; of the janitor alone
	outdated    bool         // its files were cut when the committer had ended, which does not know; of the janitor, then of Close
	corruptSaid atomic.Int64 // unix seconds of the last log line about damage

	mu      sync.Mutex // guards the fields below and swaps of segments; never held across a file operation
	pending []*Append
	gone    error         // set once the log takes no more appends
	held    bool          // it takes none for a moment
	resumed chan struct{} // not nil while those that come go to later; closed when they do no longer
	later   []*Append
	fence   int32 // appends of an older leader epoch are refused

	w writer
}

// writer is the state of a log that only the committer touches (and recovery,
// before the committer runs).
type writer struct {
	next      int64 // offset of the next record
	producers *producer.State
	expireAt  time.Time     // when to look next for producers to forget
	expiry    time.Duration // ProducerExpiration at the last look
	changed   bool          // since the last clean close
	snapshots []int64       // offsets of the producer snapshots on the disk, rising
	epochs    int           // entries of the leader epoch checkpoint on the disk
	spare     []*Append

	stamped   bool      // has a part in the round that is under way
	dirty     bool      // in committer.dirty
	flushing  bool      // a flush under way writes to the active segment
	flushAt   time.Time // when the next flush is to take it
	unflushed int64     // records acknowledged before their sync
	journaled uint64    // the latest generation of the journal that has something of the log
	unvoided  bool      // it has something that the file journal-void does not know
	deleted   bool
	copied    bool        // it is being filled with what lies elsewhere
	known     int64       // bytes of the active segment that recovery knows to have been acknowledged
	promised  int64       // offset behind the last record that recovery knows to have been durable
	resumed   *checkpoint // what recovery goes on from
	scanned   epochs      // of the batches that it has checked
}

func newLog(dir *Dir, id LogID, cfg LogConfig) *Log {
	l := &Log{dir: dir, id: id, path: filepath.Join(dir.topics, id.folder()), queue: semaphore.NewWeighted(cfg.QueueBytes)}
	l.config.Store(&cfg)
	l.epochs.Store(&epochs{})
	l.segments.Store(&[]*segmentFile{})
	l.w.producers = new(producer.State)
	return l
}

// ID names the log.
func (l *Log) ID() LogID { return l.id }

// LogStartOffset is the first offset that may be read.
func (l *Log) LogStartOffset() int64 { return l.start.Load() }

// LogEndOffset is the offset behind the last record that is on the disk.
func (l *Log) LogEndOffset() int64 { return l.end.Load() }

// SetConfig changes the settings from the next append on, but for QueueBytes,
// which stays as it was when the log was opened.
func (l *Log) SetConfig(cfg LogConfig) { l.config.Store(&cfg) }

// OnAdvance sets the function that the committer calls after the log end offset
// has moved and before the appends that moved it are told. It must not block.
func (l *Log) OnAdvance(f func(end int64)) { l.advanced.Store(&f) }

// SizeBytes is the length of all segments together.
func (l *Log) SizeBytes() int64 {
	var n int64
	for _, s := range *l.segments.Load() {
		n += s.size.Load()
	}
	return n
}

// EndOffsetForEpoch answers OffsetForLeaderEpoch: the largest known epoch that is
// not above the one asked for, and the offset at which it ended. (-1, -1)
// when there is none.
func (l *Log) EndOffsetForEpoch(epoch int32) (foundEpoch int32, endOffset int64) {
	return l.epochs.Load().endOffset(epoch, l.LogEndOffset())
}

// Epochs lists the leader epochs that the log knows and where each began, rising in both: for who looks where two logs
// part. The list is the caller's.
func (l *Log) Epochs() []EpochEntry { return l.epochs.Load().entries() }

// EpochAt is the leader epoch under which the record at offset was appended,
// -1 when unknown.
func (l *Log) EpochAt(offset int64) int32 { return l.epochs.Load().at(offset) }

// Producers lists the idempotent producers that the log remembers. It waits for
// the committer's current round, at most until ctx ends or the directory is stalled.
func (l *Log) Producers(ctx context.Context) (list []producer.Info, err error) {
	ctx, end := l.dir.unlessStalled(ctx)
	defer end()
	err = l.dir.onCommitter(ctx, func() {
		l.expireProducers()
		list = l.w.producers.Active()
	})
	return list, err
}

// expiryInterval is how often producers are looked through for those to forget, as in
// Kafka, unless they are forgotten sooner than that.
const expiryInterval = 10 * time.Minute

// expireProducers forgets the producers that have not written for long, if it is
// time to look. Appends and questions ask for it, so that no timer is needed: what
// a log remembers does not grow while nobody writes to it. Committer only.
func (l *Log) expireProducers() {
	now, after := l.dir.opts.Now(), l.config.Load().ProducerExpiration
	if now.Before(l.w.expireAt) && after >= l.w.expiry {
		return
	}
	l.w.expireAt, l.w.expiry = now.Add(min(expiryInterval, after)), after
	l.w.producers.Expire(now.UnixMilli(), after)
}

// Append queues batches and returns; the queue's order is the log's order. It
// blocks only while the queues of the log or the directory are full, until
// a.Patience has passed (ErrQueueFull), ctx ends or the directory is stalled (ErrStalled). ErrHeld between Hold and Unhold, ErrStaleEpoch
// below the fence (see FenceBelow). When it returns nil, Done
// has been or will be called; otherwise never.
func (l *Log) Append(ctx context.Context, a *Append) error {
	a.queued = l.dir.opts.Metrics.now()
	if a.Keep {
		if err := checkAll(a.Batches); err != nil {
			return err
		}
	}
	if err := l.charge(ctx, a); err != nil {
		return err
	}
	l.mu.Lock()
	err := l.refusal()
	if err == nil {
		err = l.dir.Err()
	}
	if err == nil && a.LeaderEpoch < l.fence {
		err = fmt.Errorf("%w: %d, the current one is %d", ErrStaleEpoch, a.LeaderEpoch, l.fence)
	}
	first := false
	switch {
	case err != nil:
	case l.resumed != nil:
		l.later = append(l.later, a)
	default:
		l.pending = append(l.pending, a)
		first = len(l.pending) == 1
	}
	l.mu.Unlock()
	if err != nil {
		l.discharge(a)
		return err
	}
	if first {
		l.dir.schedule(l)
	}
	return nil
}

// FenceBelow has appends of a leader epoch below epoch fail with ErrStaleEpoch from now on, so that nothing of a leader that
// was succeeded comes to lie behind what its successor sends. What is queued already stays. It does not block.
func (l *Log) FenceBelow(epoch int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fence = max(l.fence, epoch)
}

// charge takes room in both queues for a.
func (l *Log) charge(ctx context.Context, a *Append) error {
	a.charged = min(int64(len(a.Batches)), l.dir.opts.QueueBytes, l.config.Load().QueueBytes)
	if l.queue.TryAcquire(a.charged) {
		if l.dir.queue.TryAcquire(a.charged) {
			return nil
		}
		l.queue.Release(a.charged)
	}
	ctx, end := l.dir.unlessStalled(ctx)
	defer end()
	if a.Patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, a.Patience, ErrQueueFull)
		defer cancel()
	}
	if l.queue.Acquire(ctx, a.charged) != nil {
		return context.Cause(ctx)
	}
	if l.dir.queue.Acquire(ctx, a.charged) != nil {
		l.queue.Release(a.charged)
		return context.Cause(ctx)
	}
	return nil
}

func (l *Log) discharge(a *Append) {
	l.dir.queue.Release(a.charged)
	l.queue.Release(a.charged)
}

// take takes what is queued, but not much more than most bytes; more tells whether
// something is left.
func (l *Log) take(most int64) (taken []*Append, more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken = l.pending
	l.pending, l.w.spare = l.w.spare[:0], nil
	for i, a := range taken {
		if most -= int64(len(a.Batches)); most <= 0 && i+1 < len(taken) {
			l.pending = append(l.pending, taken[i+1:]...)
			clear(taken[i+1:])
			return taken[:i+1], true
		}
	}
	return taken, false
}

// giveBack lets the next round use the queue's memory again.
func (l *Log) giveBack(appends []*Append) {
	clear(appends)
	if cap(appends) <= 1024 {
		l.mu.Lock()
		l.w.spare = appends
		l.mu.Unlock()
	}
}

// refuse makes later appends fail, and gives back those that are queued.
func (l *Log) refuse(why error) []*Append {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone == nil {
		l.gone = why
	}
	return l.queued()
}

// queued takes all that is queued; l.mu is held.
func (l *Log) queued() []*Append {
	taken := append(l.pending, l.later...)
	l.pending, l.later = nil, nil
	return taken
}

// active is the segment that is appended to, nil before the first append.
func (l *Log) active() *segmentFile {
	if s := *l.segments.Load(); len(s) > 0 {
		return s[len(s)-1]
	}
	return nil
}

// addSegment makes s the active segment.
func (l *Log) addSegment(s *segmentFile) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := *l.segments.Load()
	grown := append(old[:len(old):len(old)], s)
	l.segments.Store(&grown)
}

// dropSegments takes the segments that lie wholly before offset out of the log,
// but never the active one.
func (l *Log) dropSegments(offset int64) []*segmentFile {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := *l.segments.Load()
	n := 0
	for n+1 < len(all) && all[n+1].base <= offset {
		n++
	}
	rest := all[n:]
	l.segments.Store(&rest)
	return all[:n]
}
