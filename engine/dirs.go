package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/vfs"
)

// catalogFolder lies in one of the log directories.
const catalogFolder = "catalog"

// logDir is one of this node's log directories. One that cannot be opened takes down
// the partitions in it, and nothing else, until a restart finds it well again.
type logDir struct {
	path   string
	meta   meta
	lock   io.Closer
	dir    *segment.Dir // nil when it could not be opened
	fault  error        // why
	placed atomic.Int32 // partitions

	spaceAsked atomic.Bool // a question for the room on the disk has not been answered yet
}

// fail notes why the directory cannot be used.
func (d *logDir) fail(err error) { d.fault = fmt.Errorf("%w: %s: %w", ErrDirOffline, d.path, err) }

// err is what keeps the directory from taking appends, nil while it does.
func (d *logDir) err() error {
	if d.dir == nil {
		return d.fault
	}
	return d.dir.Err()
}

// logDirs are those of a node.
type logDirs []*logDir

// byID finds the directory with an id, nil when none of those that could be read has it.
func (all logDirs) byID(id catalog.DirID) *logDir {
	return all.find(func(d *logDir) bool { return d.meta.DirID == id })
}

// byPath finds the directory with a path, nil when log.dirs does not name it.
func (all logDirs) byPath(path string) *logDir {
	return all.find(func(d *logDir) bool { return d.path == path })
}

func (all logDirs) find(is func(*logDir) bool) *logDir {
	if i := slices.IndexFunc(all, is); i >= 0 {
		return all[i]
	}
	return nil
}

// space is what the directory's file system has free, and how large it is; -1 is not known.
func (d *logDir) space() (free, total int64) {
	f, t, err := d.dir.Space()
	if err != nil {
		return -1, -1
	}
	return int64(min(f, math.MaxInt64)), int64(min(t, math.MaxInt64))
}

// lockDirs locks the directories and finds out whose they are. The first of e.dirs
// afterwards is the one with the catalogue, which nothing works without.
func (e *Engine) lockDirs(ctx context.Context) error {
	for _, path := range e.options.Config.LogDirs {
		d := &logDir{path: path}
		e.dirs = append(e.dirs, d)
		if err := e.lockDir(d); errors.Is(err, ErrDirectoryInUse) {
			return err
		} else if err != nil {
			d.fail(err)
		}
	}
	if err := e.findCatalog(); err != nil {
		return err
	}
	for i, d := range e.dirs {
		if d.fault != nil {
			continue
		}
		var err error
		if i == 0 {
			err = e.loadIdentity(ctx, d)
		} else {
			d.meta, err = loadMeta(e.options.FS, d.path, e.options.Config.NodeID, e.dirs[0].meta.ClusterID)
		}
		switch {
		case err == nil:
		case i == 0 || errors.Is(err, ErrIdentity) || errors.Is(err, ErrFormat):
			return fmt.Errorf("data directory: %w", err)
		default:
			d.fail(err)
		}
		for _, other := range e.dirs[:i] {
			if other.fault == nil && other.meta.DirID == d.meta.DirID {
				return fmt.Errorf("%w: %s is a copy of %s, of which one is to be removed from log.dirs", ErrIdentity, d.path, other.path)
			}
		}
	}
	return nil
}

func (e *Engine) lockDir(d *logDir) error {
	fs := e.options.FS
	if err := vfs.MkdirAllDurable(fs, d.path, 0o755); err != nil {
		return err
	}
	var err error
	if d.lock, err = fs.Lock(filepath.Join(d.path, lockFile)); errors.Is(err, vfs.ErrLocked) {
		return fmt.Errorf("%w: %s", ErrDirectoryInUse, d.path)
	} else if err != nil {
		return fmt.Errorf("lock data directory: %w", err)
	}
	return nil
}

// findCatalog puts the directory with the catalogue first. Where there is none yet
// it is the first that is named.
func (e *Engine) findCatalog() error {
	found, used := -1, -1
	for i, d := range e.dirs {
		if d.fault != nil {
			continue
		}
		_, whose := e.options.FS.Stat(filepath.Join(d.path, metaFile))
		if whose == nil {
			used = i
		}
		_, err := e.options.FS.Stat(filepath.Join(d.path, catalogFolder))
		if errors.Is(err, os.ErrNotExist) {
			_, err = e.options.FS.Stat(filepath.Join(d.path, ClusterFolder))
		}
		switch {
		case whose != nil && !errors.Is(whose, os.ErrNotExist):
			d.fail(whose)
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			d.fail(err)
		case found >= 0:
			return fmt.Errorf("%w: both %s and %s hold a catalogue: one of them belongs to another node", ErrIdentity, e.dirs[found].path, d.path)
		default:
			found = i
		}
	}
	if found < 0 && used >= 0 {
		return fmt.Errorf("%w: the directory with the catalogue is not among log.dirs, or cannot be read; %s belongs to it", ErrIdentity, e.dirs[used].path)
	}
	if found < 0 {
		// Perhaps it lies in one that cannot be read: nobody begins another one beside it.
		for _, d := range e.dirs {
			if d.fault != nil {
				return fmt.Errorf("data directory: %w", d.fault)
			}
		}
		found = 0
	}
	first := e.dirs[found]
	e.dirs = slices.Insert(slices.Delete(e.dirs, found, found+1), 0, first)
	return nil
}

// openDir opens the logs of a directory.
func (e *Engine) openDir(ctx context.Context, d *logDir) error {
	cfg, n := e.options.Config, len(e.dirs)
	openFiles := e.options.OpenFiles
	if openFiles > 0 {
		openFiles = max(openFiles/n, 1)
	}
	var err error
	d.dir, err = segment.OpenDir(ctx, segment.DirOptions{
		TailBytes: cfg.LogTailBytes / int64(n), StallTimeout: cfg.LogDirStallTimeout, Stalled: e.tellStall,
		FS: e.options.FS, Path: d.path, Now: e.options.Now, Logger: e.log, OpenFiles: openFiles, Jitter: rand.Int64N,
		RetentionInterval: cfg.RetentionCheckInterval, RetentionDelay: cfg.InitialTaskDelay,
		Metrics: &e.options.Metrics.Log,
	})
	if err == nil || d == e.dirs[0] || ctx.Err() != nil || errors.Is(err, segment.ErrFormat) {
		return err
	}
	d.dir = nil
	d.fail(err)
	return nil
}

// sayOffline tells of the directories that cannot be used.
func (e *Engine) sayOffline() {
	for _, d := range e.dirs {
		if d.fault != nil {
			e.log.Error("a log directory cannot be used: its partitions are offline until a restart finds it well again, all others are served",
				"dir", d.path, "error", d.fault)
		}
	}
}

// placement tells where the logs of partitions are to lie.
type placement struct {
	dirs  logDirs
	found map[placeKey]*logDir
}

type placeKey struct {
	topic     [16]byte
	partition int32
}

// look finds the logs that are there already. It removes what a move between directories has left
// behind, and sets aside what nobody will use: logs of topics that the catalogue does
// not know, and those that lie elsewhere.
func (e *Engine) look(image *catalog.Image) (placement, error) {
	at := placement{dirs: e.dirs, found: map[placeKey]*logDir{}}
	for _, d := range e.dirs {
		if d.dir == nil {
			continue
		}
		for _, id := range d.dir.Found() {
			key, topic := placeKey{id.TopicID, id.Partition}, image.TopicByID(id.TopicID)
			if topic == nil && e.adopts(id.TopicID) {
				if err := e.removeCopy(d, id, "what an import that was cut short has left"); err != nil {
					return at, err
				}
				continue
			}
			var err error
			if topic == nil || int(id.Partition) >= len(topic.Partitions) {
				err = e.setAside(d, id, segment.SaidNoTopic)
			} else if placed := &topic.Partitions[id.Partition]; placed.Future(e.NodeID()) == d.meta.DirID {
				err = e.clearCopy(d, id, placed.Dir(e.NodeID()))
			} else if own := placed.Dir(e.NodeID()); own != (catalog.DirID{}) && own != d.meta.DirID {
				err = e.clearMoved(d, id, own)
			} else if at.found[key] != nil {
				err = e.setAside(d, id, "the partition lies in "+at.found[key].path+" too, which is used")
			} else {
				at.found[key] = d
			}
			if err != nil {
				return at, err
			}
		}
	}
	return at, nil
}

// clearCopy removes a copy that a move has not finished, which is begun anew; but not
// while what it was copied from cannot be read.
func (e *Engine) clearCopy(d *logDir, id segment.LogID, own catalog.DirID) error {
	if e.usable(own) == nil {
		e.log.Warn("an unfinished copy is kept, since the log directory that the partition lies in is offline", "partition", id.String(), "dir", d.path)
		return nil
	}
	return e.removeCopy(d, id, "the copy that a move has not finished: it is begun anew")
}

// clearMoved removes a log that was moved to another directory, if that has all of it.
func (e *Engine) clearMoved(d *logDir, id segment.LogID, own catalog.DirID) error {
	old, err := d.dir.Log(id, segment.DefaultLogConfig())
	if err != nil {
		return err
	}
	there := e.usable(own)
	if there == nil {
		return e.setAside(d, id, "the partition was moved to a log directory that is offline")
	}
	l, err := there.dir.Log(id, segment.DefaultLogConfig())
	if err != nil {
		return err
	}
	if l.LogEndOffset() < old.LogEndOffset() {
		return e.setAside(d, id, "the partition was moved to "+there.path+", and ends sooner there")
	}
	return e.removeCopy(d, id, "what a move to "+there.path+" has left")
}

// removeCopy removes a log without delay, in the background.
func (e *Engine) removeCopy(d *logDir, id segment.LogID, what string) error {
	cfg := segment.DefaultLogConfig()
	cfg.DeleteDelay = 0
	l, err := d.dir.Log(id, cfg)
	if err != nil {
		return err
	}
	e.log.Info("removing "+what, "partition", id.String(), "dir", d.path)
	l.Delete()
	return nil
}

func (e *Engine) setAside(d *logDir, id segment.LogID, why string) error {
	l, err := d.dir.Log(id, segment.DefaultLogConfig())
	if err != nil {
		return err
	}
	e.log.Warn(segment.SaidSetAside+why,
		"partition", id.String(), "topicID", catalog.TopicID(id.TopicID).String(), "dir", d.path)
	if err := l.Quarantine(); err != nil {
		e.log.Error("the folder cannot be set aside: it stays as it is, and nothing uses it", "partition", id.String(), "dir", d.path, "error", err)
	}
	return nil
}

// of gives the directory of a partition: the one that the catalogue says; where it says
// nothing, the one that has it, else the one with the catalogue. An ErrDirOffline when
// that cannot be used.
func (at placement) of(topic *catalog.Topic, index, node int32) (*logDir, error) {
	id := topic.Partitions[index].Dir(node)
	d := at.dirs[0]
	if id == (catalog.DirID{}) {
		if found := at.found[placeKey{topic.ID, index}]; found != nil {
			d = found
		}
		return d, nil
	}
	if d = at.dirs.byID(id); d == nil {
		return nil, fmt.Errorf("%w: %s-%d lies in the log directory with the id %s, which is not among log.dirs or cannot be read", ErrDirOffline, topic.Name, index, id)
	}
	if d.dir == nil {
		return nil, d.fault
	}
	return d, nil
}

// chooseDirs picks the directories of new partitions: those with the fewest that take
// appends. None is chosen where there is only one.
func (e *Engine) chooseDirs(count int) []catalog.DirID {
	if len(e.dirs) == 1 {
		return nil
	}
	var usable []*logDir
	var load []int32
	for _, d := range e.dirs {
		if d.err() == nil {
			usable, load = append(usable, d), append(load, d.placed.Load())
		}
	}
	if len(usable) == 0 {
		usable, load = e.dirs[:1], []int32{0}
	}
	chosen := make([]catalog.DirID, count)
	for i := range chosen {
		least := 0
		for n := range load {
			if load[n] < load[least] {
				least = n
			}
		}
		load[least]++
		chosen[i] = usable[least].meta.DirID
	}
	return chosen
}

// LogDir describes a log directory for DescribeLogDirs.
type LogDir struct {
	Path       string
	TotalBytes int64 // -1: unknown
	FreeBytes  int64 // -1: unknown
	Err        error // what keeps it from taking appends, nil while it does
}

// LogDirs describes the log directories. It asks the file system.
func (e *Engine) LogDirs() []LogDir {
	all := make([]LogDir, 0, len(e.dirs))
	for _, d := range e.dirs {
		told := LogDir{Path: d.path, TotalBytes: -1, FreeBytes: -1, Err: d.err()}
		if told.Err == nil { // otherwise its disk may not answer
			told.FreeBytes, told.TotalBytes = d.space()
		}
		all = append(all, told)
	}
	return all
}

// stats asks the file system for free space, until ctx ends.
func (d *logDir) stats(ctx context.Context) DirStats {
	s := DirStats{Path: d.path, Err: d.err(), FreeBytes: -1, TotalBytes: -1}
	if d.dir == nil {
		return s
	}
	s.Stats = d.dir.Stats()
	type answer struct{ free, total int64 }
	if !d.spaceAsked.CompareAndSwap(false, true) {
		return s
	}
	answered := make(chan answer, 1)
	go func() { // ends with the system call
		defer d.spaceAsked.Store(false)
		free, total := d.space()
		answered <- answer{free, total}
	}()
	select {
	case a := <-answered:
		s.FreeBytes, s.TotalBytes = a.free, a.total
	case <-ctx.Done():
	}
	return s
}

// Stalls counts how often log directories have become stalled since the start, and tells
// the operation of the write path that is slow now (a second or more), if there is one:
// for those who measure.
func (e *Engine) Stalls() (count int64, op, file string, since time.Time, slow bool) {
	for _, d := range e.dirs {
		if d.dir == nil {
			continue
		}
		count += d.dir.Stalls()
		if !slow {
			op, file, since, slow = d.dir.Stall()
		}
	}
	return count, op, file, since, slow
}

// Stalled tells whether a log directory refuses appends since its disk does not answer.
func (e *Engine) Stalled() bool {
	for _, d := range e.dirs {
		if d.dir != nil && d.dir.Stalled() {
			return true
		}
	}
	return false
}

// Fault is what keeps a log directory from taking appends, nil while all take them. It asks no disk.
func (e *Engine) Fault() error {
	for _, d := range e.dirs {
		if err := d.err(); err != nil {
			return err
		}
	}
	return nil
}

// OnStall has f called when a log directory stops accepting appends since its disk
// stalls, so that those who wait for one can be told. f must not block. There is one
// such function; the last one given counts.
func (e *Engine) OnStall(f func()) { e.onStall.Store(&f) }

func (e *Engine) tellStall() {
	if f := e.onStall.Load(); f != nil {
		(*f)()
	}
}

// closeDirs closes the logs of all directories, side by side.
func (e *Engine) closeDirs(ctx context.Context) error {
	errs := make([]error, len(e.dirs))
	done := make(chan struct{}, len(e.dirs))
	for i, d := range e.dirs {
		go func() {
			if d.dir != nil {
				errs[i] = d.dir.Close(ctx)
			}
			done <- struct{}{}
		}()
	}
	for range e.dirs {
		<-done // each ends with ctx
	}
	return errors.Join(errs...)
}

// unlockDirs lets another process have the directories.
func (e *Engine) unlockDirs() error {
	var errs []error
	for _, d := range e.dirs {
		if d.lock != nil {
			errs = append(errs, d.lock.Close())
		}
	}
	return errors.Join(errs...)
}
