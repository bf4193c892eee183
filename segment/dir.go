package segment

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/millrace/millrace/segment/bounded"
	"github.com/millrace/millrace/segment/vfs"
)

const (
	topicsFolder  = "topics"
	cleanMarker   = "clean-shutdown"
	deletedSuffix = ".deleted" // of a partition's folder that waits for its removal
	straySuffix   = ".stray"   // of one that belongs to no topic that is known
)

// DirOptions says how to open a log directory.
type DirOptions struct {
	FS     vfs.FS
	Path   string
	Logger *slog.Logger
	// QueueBytes bounds the appends that wait for the committer, over all logs. Default 64 MiB.
	QueueBytes int64
	// TailBytes bounds the newest records of all logs that are kept in memory, but for those that are
	// on their way to the disk. Default 64 MiB.
	TailBytes int64
	// DirectBytes is how many bytes of one log in one round go straight into its segment; fewer go
	// through the journal. Default 128 KiB.
	DirectBytes int64
	// JournalBytes bounds the journal; appends wait for a flush beyond. Default 64 MiB.
	JournalBytes int64
	// JournalFileBytes is the length at which a file of the journal is left. Default 16 MiB.
	JournalFileBytes int64
	// FlushInterval is how long records may be in the journal alone. Default 1 s.
	FlushInterval time.Duration
	// FlushLogs is how many logs a flush writes at once, in turns; a close during a flush waits for one
	// turn. Default 256.
	FlushLogs int
	// Buffered keeps from direct I/O even where the file system has it.
	Buffered bool
	// OpenFiles is how many log files may be open while nobody uses them. Default 512.
	OpenFiles int
	Now       func() time.Time
	// StallTimeout is how long a file operation may take before appends are refused. Default 10 s.
	StallTimeout time.Duration
	// Stalled is called when the directory has become stalled. It must not block. May be nil.
	Stalled func()
	// Jitter draws a number in [0, n) for segment.jitter.ms. Default: none.
	Jitter func(n int64) int64
	// RetentionInterval is how often to look for segments that retention no longer keeps, for the
	// first time after RetentionDelay. 0: never.
	RetentionInterval, RetentionDelay time.Duration
	// CheckpointBytes is how much of a log is written between two checkpoints of it, so how much an open
	// reads of each after a crash; less when there are many logs. Default 64 MiB.
	CheckpointBytes int64
	// SyncEach is up to how many logs are synced one by one at a clean close. The one sync for
	// more of them waits for what others have written to the file system, too. Default 32.
	SyncEach int
	// Metrics is told what the directory measures. Default: nothing is measured.
	Metrics *Metrics
}

func (o *DirOptions) setDefaults() {
	if o.QueueBytes == 0 {
		o.QueueBytes = 64 << 20
	}
	if o.TailBytes == 0 {
		o.TailBytes = 64 << 20
	}
	if o.DirectBytes == 0 {
		o.DirectBytes = directBytes
	}
	if o.JournalBytes == 0 {
		o.JournalBytes = 64 << 20
	}
	if o.JournalFileBytes == 0 {
		o.JournalFileBytes = 16 << 20
	}
	if o.FlushInterval == 0 {
		o.FlushInterval = time.Second
	}
	if o.FlushLogs == 0 {
		o.FlushLogs = 256
	}
	if o.StallTimeout == 0 {
		o.StallTimeout = 10 * time.Second
	}
	if o.Stalled == nil {
		o.Stalled = func() {}
	}
	if o.CheckpointBytes == 0 {
		o.CheckpointBytes = 64 << 20
	}
	if o.SyncEach == 0 {
		o.SyncEach = 32
	}
	if o.OpenFiles == 0 {
		o.OpenFiles = 512
	}
	if o.Jitter == nil {
		o.Jitter = func(int64) int64 { return 0 }
	}
	if o.Metrics == nil {
		o.Metrics = new(Metrics)
	}
}

// Dir is one log directory: its logs, and the one committer through which
// everything is written. All methods may be called concurrently.
type Dir struct {
	opts        DirOptions
	fs          vfs.FS
	topics      string
	log         *slog.Logger
	files       *fileCache
	memory      *memory
	readBuffers readBuffers
	aheadWork   chan *ahead
	aheadMu     sync.Mutex // guards the two below; a leaf
	aheadSlots  [aheads]*ahead
	aheadNext   int
	direct      bool           // log files and journal are written past the page cache
	queue       *bounded.Bytes // of Append
	fault       atomic.Pointer[error]
	watched     *vfs.Watched
	slowSaid    atomic.Int64 // unix nanoseconds of the last log line about a slow operation
	stalls      atomic.Int64
	refusalSaid atomic.Int64 // unix seconds of the last log line about refused appends

	mu      sync.Mutex // guards the fields below; never held across a file operation
	logs    map[logKey]*Log
	ready   []*Log              // logs with something queued
	jobs    []func()            // of the janitor
	saves   []func()            // of the janitor, when it has no job: checkpoints, at most one for each log
	doomed  map[*Log]struct{}   // deleted, and the janitor has not begun with their folders
	haunted map[logKey]struct{} // deleted, and the journal does not say so: until a restart no such log is begun
	shut    bool

	wake        chan struct{} // capacity 1: ready is not empty
	janitorWake chan struct{} // capacity 1: jobs is not empty
	calls       chan func()
	stop        chan struct{}
	flushes     chan *portion
	running     sync.WaitGroup
	flusher     sync.WaitGroup
	committer   committer
	counts      counts
	scanned     atomic.Bool      // recovery has left something that is not durable yet
	generation  uint64           // the latest of the journal that recovery has found
	known       map[string]int64 // by file: how far the journal has filled it, while recovery runs
	saveSaid    time.Time        // of the janitor: when the last log line about a checkpoint was written
	bin
}

type logKey struct {
	topic     [16]byte
	partition int32
}

func (id LogID) key() logKey { return logKey{id.TopicID, id.Partition} }

// OpenDir opens a log directory, making it when it is missing, and recovers
// every log in it, several side by side: what a crash has left behind the last
// whole batch is cut, and said in the log. It blocks until all logs are open.
//
// The caller keeps other processes away from the directory. Errors: those of
// the file system, and ErrFormat.
func OpenDir(ctx context.Context, opts DirOptions) (*Dir, error) {
	opts.setDefaults()
	d := &Dir{
		opts:        opts,
		topics:      filepath.Join(opts.Path, topicsFolder),
		log:         opts.Logger.With("dir", opts.Path),
		files:       &fileCache{limit: opts.OpenFiles},
		memory:      newMemory(),
		aheadWork:   make(chan *ahead, aheads),
		flushes:     make(chan *portion, 1),
		queue:       bounded.NewBytes(opts.QueueBytes),
		logs:        make(map[logKey]*Log),
		doomed:      make(map[*Log]struct{}),
		haunted:     make(map[logKey]struct{}),
		known:       make(map[string]int64),
		wake:        make(chan struct{}, 1),
		janitorWake: make(chan struct{}, 1),
		calls:       make(chan func()),
		stop:        make(chan struct{}),
	}
	d.fs = thriftyFS{d.watch(opts.FS), d.files}
	d.files.fs = d.fs
	if err := d.fs.MkdirAll(d.topics, 0o755); err != nil {
		return nil, fmt.Errorf("open log directory: %w", err)
	}
	if err := d.fs.SyncDir(opts.Path); err != nil {
		return nil, fmt.Errorf("open log directory: %w", err)
	}
	d.probe()
	if err := d.recover(ctx); err != nil {
		d.files.close()
		return nil, err
	}
	d.known = nil
	if err := d.makeJournalFolder(); err != nil {
		d.files.close()
		return nil, fmt.Errorf("open log directory: %w", err)
	}
	d.committer.init(d, writers(), d.generation)
	d.flusher.Go(d.runFlusher)
	for range aheadReaders {
		d.running.Go(d.runAhead)
	}
	d.running.Add(2)
	go func() { defer d.running.Done(); d.committer.run() }()
	go func() { defer d.running.Done(); d.runJanitor() }()
	return d, nil
}

// probe finds out how the directory's files are written.
func (d *Dir) probe() {
	if d.opts.Buffered {
		return
	}
	if err := vfs.ProbeDirect(d.fs, d.opts.Path); err != nil {
		d.log.Warn("no direct I/O in this directory: it is written through the page cache, which is slower and as durable", "error", err)
		return
	}
	d.direct = true
}

// writers is how many files are written and synced side by side.
func writers() int { return min(8, 2+2*runtime.GOMAXPROCS(0)) }

// Log gives the log of a partition, opened from the disk or new and empty. A new
// one touches no file before its first append.
func (d *Dir) Log(id LogID, cfg LogConfig) (*Log, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shut {
		return nil, ErrClosed
	}
	l := d.logs[id.key()]
	if l == nil {
		l = newLog(d, id, cfg)
		d.logs[id.key()] = l
		return l, nil
	}
	l.queue = semaphore.NewWeighted(cfg.QueueBytes)
	l.id.Topic = id.Topic
	l.SetConfig(cfg)
	l.reopened()
	return l, nil
}

// Found lists the logs that were in the directory when it was opened.
func (d *Dir) Found() []LogID {
	d.mu.Lock()
	defer d.mu.Unlock()
	ids := make([]LogID, 0, len(d.logs))
	for _, l := range d.logs {
		ids = append(ids, l.id)
	}
	return ids
}

// Space is what the directory's file system has left, and how large it is, in bytes.
func (d *Dir) Space() (free, total uint64, err error) { return d.fs.Space(d.opts.Path) }

// Path is where the directory lies.
func (d *Dir) Path() string { return d.opts.Path }

// fence refuses all appends from now on: after a failed write or sync nobody
// knows what the disk holds until it is read again.
func (d *Dir) fence(op, file string, cause error) error {
	err := fmt.Errorf("%w: %s %s: %w", ErrFenced, op, file, cause)
	if d.fault.CompareAndSwap(nil, &err) {
		d.log.Error("log directory fenced: appends are refused until a restart, reads go on",
			"operation", op, "file", file, "error", cause)
	}
	return err
}

// failed judges a failed file operation: a full disk, or that the process has no
// descriptor left, is an error of the append alone, anything else fences the
// directory.
func (d *Dir) failed(op, file string, cause error) error {
	if noDescriptors(cause) {
		d.sayRefused("no file descriptor left: appends are refused until there is one", op, file, cause)
		return fmt.Errorf("%w: %s %s: %w", ErrNoDescriptors, op, file, cause)
	}
	if !vfs.Full(cause) {
		return d.fence(op, file, cause)
	}
	d.makeRoom()
	d.sayRefused("no space left in log directory: appends are refused until there is room, reads go on", op, file, cause)
	return fmt.Errorf("%w: %s %s: %w", ErrNoSpace, op, file, cause)
}

// sayRefused puts into the log why appends are refused, at most once a minute.
func (d *Dir) sayRefused(why, op, file string, cause error) {
	now := d.opts.Now().Unix()
	if said := d.refusalSaid.Load(); now-said >= 60 && d.refusalSaid.CompareAndSwap(said, now) {
		d.log.Error(why, "operation", op, "file", file, "error", cause)
	}
}

// failedSync judges a failed sync of a folder: unless that could not even begin,
// nobody knows what the disk holds.
func (d *Dir) failedSync(folder string, cause error) error {
	if noDescriptors(cause) {
		return d.failed("sync", folder, cause)
	}
	return d.fence("sync", folder, cause)
}

// sayCorrupt puts damage into the log, at most once a minute for each partition:
// a consumer that stands before it asks again and again.
func (d *Dir) sayCorrupt(l *Log, damage error) {
	now := d.opts.Now().Unix()
	if said := l.corruptSaid.Load(); now-said >= 60 && l.corruptSaid.CompareAndSwap(said, now) {
		what := SaidDamaged
		if errors.Is(damage, errMisplaced) {
			what = SaidOffsetWrong
		}
		d.log.Error(what, "partition", l.id.String(), "error", damage)
	}
}

// schedule tells the committer that l has something queued.
func (d *Dir) schedule(l *Log) {
	d.mu.Lock()
	d.ready = append(d.ready, l)
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// onCommitter runs f between two rounds. f must not block.
func (d *Dir) onCommitter(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case d.calls <- func() { f(); close(done) }:
	case <-d.stop:
		return ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	<-done // f runs at once and does not block
	return nil
}

// Close writes what makes the next start quick (indexes, producer snapshots, the
// clean-shutdown marker) and stops the goroutines. Appends that are queued are
// committed first, later ones fail with ErrClosed. When ctx ends before that,
// Close returns its error and the next open recovers as after a crash.
func (d *Dir) Close(ctx context.Context) error {
	d.mu.Lock()
	if d.shut {
		d.mu.Unlock()
		return nil
	}
	d.shut = true
	logs := make([]*Log, 0, len(d.logs))
	for _, l := range d.logs {
		logs = append(logs, l)
	}
	d.mu.Unlock()
	for _, l := range logs {
		l.mu.Lock()
		if l.gone == nil {
			l.gone = ErrClosed
		}
		l.mu.Unlock()
	}
	close(d.stop)
	done := make(chan error, 1)
	go func() {
		d.running.Wait()
		d.committer.stopWriters()
		close(d.flushes)
		d.flusher.Wait()
		for _, l := range logs {
			// An append may have been queued just behind the last round.
			d.committer.refuse(l, l.refuse(ErrClosed), ErrClosed)
		}
		d.finishDeletes()
		done <- d.writeClean(logs)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("close log directory %s: %w", d.opts.Path, ctx.Err())
	}
}

// writeClean runs alone: committer and janitor have ended.
func (d *Dir) writeClean(logs []*Log) error {
	defer d.files.close()
	defer d.committer.journal.close(false) // closes what a failure has left open
	if err := d.fenced(); err != nil {
		return err
	}
	logs = slices.DeleteFunc(logs, func(l *Log) bool { return !l.unclean() })
	each := len(logs) <= d.opts.SyncEach
	var group errgroup.Group
	group.SetLimit(writers())
	for _, l := range logs {
		group.Go(func() error {
			if err := l.close(each); err != nil {
				return fmt.Errorf("close log %s: %w", l.id, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if !each {
		if err := d.fs.SyncAll(d.topics); err != nil {
			return fmt.Errorf("close log directory: %w", err)
		}
		for _, l := range logs { // not before what they speak of is durable
			group.Go(func() error { return l.saveClosed(putFile) })
		}
		if err := group.Wait(); err != nil {
			return fmt.Errorf("close log directory: %w", err)
		}
	}
	if err := d.committer.journal.close(true); err != nil {
		return fmt.Errorf("close the journal: %w", err)
	}
	return vfs.WriteFileAtomic(d.fs, filepath.Join(d.opts.Path, cleanMarker), []byte("1\n"))
}

// takeCleanMarker tells whether the directory was closed cleanly, and removes
// the marker durably, so that a crash from here on is seen as one.
func (d *Dir) takeCleanMarker() (bool, error) {
	name := filepath.Join(d.opts.Path, cleanMarker)
	if _, err := d.fs.Stat(name); errors.Is(err, os.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	if err := d.fs.Remove(name); err != nil {
		return false, err
	}
	return true, d.fs.SyncDir(d.opts.Path)
}
