package segment

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/millrace/millrace/segment/vfs"
)

const (
	epochsFile = "leader-epoch-checkpoint"
	// maxRelativeOffset is what an index entry can hold.
	maxRelativeOffset = math.MaxInt32
	// keptSnapshots is how many producer snapshots stay: the newest, and the one
	// before it in case the newest is damaged.
	keptSnapshots = 2
)

// roll leaves the active segment, all of which is in its file and durable, and
// begins the next one. A crash in its middle leaves a segment without indexes,
// which are built again. Committer only.
func (l *Log) roll() error {
	s := l.active()
	err := l.writeDerived(overwrite, vfs.WriteFileAtomic)
	if err == nil {
		err = l.writeSeal()
	}
	if err != nil {
		return l.dir.failed("roll", s.name(".log"), err)
	}
	if s.saved > 0 {
		l.dir.toJanitor(func() { l.dir.remove(trashed{path: s.name(checkpointSuffix)}) })
	}
	l.addSegmentFile()
	return nil
}

// leave flushes and rolls, when there is something to leave. Committer only.
func (l *Log) leave() error {
	s := l.active()
	if s == nil || s.size.Load() == 0 {
		return nil
	}
	if err := l.dir.fenced(); err != nil {
		return err
	}
	if err := l.dir.committer.sealActive(l, true); err != nil {
		return err
	}
	if err := l.roll(); err != nil {
		return err
	}
	// Without a file a restart would go on with the segment that was left.
	return l.active().create(l)
}

// create makes the empty file of a new segment. Its name is not durable yet. Committer only.
func (s *segmentFile) create(l *Log) error {
	w := fileWrite{log: l, segment: s}
	f, err := w.open(l.dir.writeHandle(s))
	if err != nil {
		return l.dir.failed("create", s.name(".log"), err)
	}
	l.dir.files.release(l.dir.writeHandle(s))
	s.created = f != nil
	return nil
}

// addSegmentFile begins the segment that the next record goes to. Its file comes
// with the first flush.
func (l *Log) addSegmentFile() {
	s := newSegmentFile(l.path, l.w.next)
	l.startAge(s)
	s.publish(0, true)
	l.addSegment(s)
}

// startAge draws the jitter of an active segment and notes when it was made or opened. Before
// the committer has to do with the segment, or on it.
func (l *Log) startAge(s *segmentFile) {
	cfg := l.config.Load()
	s.begun = l.dir.opts.Now()
	if jitter := min(cfg.SegmentJitter, cfg.SegmentAge); jitter > 0 {
		s.jitter = time.Duration(l.dir.opts.Jitter(int64(jitter)))
	}
}

// reopened does for a log that was found on the disk, and now has its settings, what
// create does for a new one. Before its first append.
func (l *Log) reopened() {
	if s := l.active(); s != nil && s.begun.IsZero() {
		l.startAge(s)
	}
}

// aged tells whether segment.ms has passed between the first record of the active segment
// and one that is to be appended, by their timestamps; when they have none, since the
// segment was made. Committer only.
func (l *Log) aged(s *segmentFile, timestamp int64) bool {
	most := l.config.Load().SegmentAge - s.jitter
	if s.firstTimestamp < 0 {
		return l.dir.opts.Now().Sub(s.begun) > most
	}
	return timestamp-s.firstTimestamp > most.Milliseconds()
}

// writeDerived writes down what could be derived from the log again: the indexes
// of the active segment, the producers as of now, the leader epochs. A crash
// in the middle of write leaves anything, which the next start finds out; replace is to keep it from having to
// read the epochs from the records. Committer only.
func (l *Log) writeDerived(write, replace func(fs vfs.FS, name string, data []byte) error) error {
	fs, s := l.dir.fs, l.active()
	if s == nil {
		return nil
	}
	s.writer.addTime()
	s.publish(s.size.Load(), true)
	if err := s.writeIndexes(fs, s.index.Load(), write); err != nil {
		return err
	}
	if err := l.writeSnapshot(write); err != nil {
		return err
	}
	if e := *l.epochs.Load(); len(e) != l.w.epochs {
		if err := replace(fs, filepath.Join(l.path, epochsFile), e.encode()); err != nil {
			return err
		}
		l.w.epochs = len(e)
	}
	l.w.changed = false
	return nil
}

// unclean tells whether close has anything to do. It runs when the committer has ended.
func (l *Log) unclean() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.changed && l.gone != ErrDeleted && !l.outdated
}

// close brings everything into the files of a log that has changed since the
// last clean close. Unless each is to be durable by itself, its caller makes all
// logs durable with one sync, and calls saveClosed. It runs when the committer has ended.
func (l *Log) close(each bool) error {
	if err := l.dir.committer.sealActive(l, each); err != nil {
		return err
	}
	if !each {
		return l.writeDerived(putFile, putFile)
	}
	if err := l.writeDerived(overwrite, vfs.WriteFileAtomic); err != nil {
		return err
	}
	return l.saveClosed(func(fs vfs.FS, name string, data []byte) error { return replace(fs, name, data, overwrite) })
}

// saveClosed writes the checkpoint of a log that is closed and durable.
func (l *Log) saveClosed(write func(fs vfs.FS, name string, data []byte) error) error {
	if s := l.active(); s != nil && s.size.Load() > 0 {
		return write(l.dir.fs, s.name(checkpointSuffix), l.checkpoint(s).encode())
	}
	return nil
}

func (l *Log) snapshotName(offset int64) string {
	return filepath.Join(l.path, fmt.Sprintf("%020d.snapshot", offset))
}

func (l *Log) writeSnapshot(write func(fs vfs.FS, name string, data []byte) error) error {
	if n := len(l.w.snapshots); n > 0 && l.w.snapshots[n-1] == l.w.next {
		return nil
	}
	if err := write(l.dir.fs, l.snapshotName(l.w.next), l.w.producers.Encode()); err != nil {
		return err
	}
	l.w.snapshots = append(l.w.snapshots, l.w.next)
	for len(l.w.snapshots) > keptSnapshots {
		if err := l.dir.fs.Remove(l.snapshotName(l.w.snapshots[0])); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		l.w.snapshots = l.w.snapshots[1:]
	}
	return nil
}
