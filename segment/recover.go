package segment

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/producer"
	"github.com/millrace/millrace/segment/vfs"
)

// recover opens every log of the directory, several side by side.
func (d *Dir) recover(ctx context.Context) error {
	clean, err := d.takeCleanMarker()
	if err != nil {
		return fmt.Errorf("open log directory: %w", err)
	}
	entries, err := d.fs.ReadDir(d.topics)
	if err != nil {
		return fmt.Errorf("open log directory: %w", err)
	}
	var logs []*Log
	for _, entry := range entries {
		path := filepath.Join(d.topics, entry.Name())
		unmarked, deleted := strings.CutSuffix(entry.Name(), deletedSuffix)
		id, ok := parseFolder(unmarked)
		switch {
		case deleted && ok:
			d.toJanitor(func() { d.removeFolder(path, 0) })
		case ok && entry.IsDir():
			l := newLog(d, id, DefaultLogConfig())
			l.path, l.w.named = path, true
			logs = append(logs, l)
		case strings.HasSuffix(entry.Name(), straySuffix):
		default:
			d.log.Warn("what is this? it is not a partition's folder, and stays as it is", "path", path)
		}
	}
	if len(logs) > 0 {
		// A killed process may have left names that nothing has made durable.
		if err := d.fs.SyncDir(d.topics); err != nil {
			return fmt.Errorf("open log directory: %w", err)
		}
	}
	if len(logs) > 0 && !clean {
		d.log.Info("the last shutdown was not clean: checking the last segment of every partition", "partitions", len(logs))
	}
	var done atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(2 * runtime.GOMAXPROCS(0))
	for _, l := range logs {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := l.recover(clean); err != nil {
				return fmt.Errorf("open log %s: %w", l.id, err)
			}
			if n := done.Add(1); n%1000 == 0 {
				d.log.Info("opening logs", "done", n, "of", len(logs))
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, l := range logs {
		d.logs[l.id.key()] = l
	}
	return nil
}

// recover opens one log: what was acknowledged is readable afterwards, and the
// next offset follows the last whole batch.
func (l *Log) recover(clean bool) error {
	if err := l.findFiles(); err != nil {
		return err
	}
	segments := *l.segments.Load()
	for i, s := range segments {
		size, err := l.fileSize(s)
		if err != nil {
			return err
		}
		s.size.Store(size)
		l.w.next = s.base
		if i < len(segments)-1 {
			continue // sealed: synced before the next one was made
		}
		if clean && l.resume(s, size) == nil {
			continue
		}
		if err := l.scan(s, size, clean); err != nil {
			return err
		}
	}
	if err := l.recoverStart(); err != nil {
		return err
	}
	l.sweep()
	if err := l.recoverEpochs(); err != nil {
		return err
	}
	if err := l.recoverProducers(); err != nil {
		return err
	}
	l.end.Store(l.w.next)
	return nil
}

// findFiles lists the segments and the producer snapshots of the folder.
func (l *Log) findFiles() error {
	entries, err := l.dir.fs.ReadDir(l.path)
	if err != nil {
		return err
	}
	var segments []*segmentFile
	for _, entry := range entries { // sorted, and all numbers have 20 digits
		number, suffix, _ := strings.Cut(entry.Name(), ".")
		offset, err := strconv.ParseInt(number, 10, 64)
		if err != nil || len(number) != 20 || offset < 0 {
			continue
		}
		switch suffix {
		case "log":
			segments = append(segments, newSegmentFile(l.path, offset))
		case "snapshot":
			l.w.snapshots = append(l.w.snapshots, offset)
		default:
			l.retention.leftovers = append(l.retention.leftovers, entry.Name())
		}
	}
	l.segments.Store(&segments)
	return nil
}

func (l *Log) fileSize(s *segmentFile) (int64, error) {
	f, err := l.dir.files.acquire(s)
	if err != nil {
		return 0, err
	}
	defer l.dir.files.release(s)
	return f.Size()
}

// resume takes the active segment as a clean close has left it: the indexes are
// there, and the headers behind the last entry lead exactly to the file's end.
func (l *Log) resume(s *segmentFile, size int64) error {
	x := s.readIndexes(l.dir.fs, size)
	if x == nil {
		return errors.New("no usable index")
	}
	f, err := l.dir.files.acquire(s)
	if err != nil {
		return err
	}
	defer l.dir.files.release(s)
	s.writer.indexes = *x
	s.writer.largest = x.maxTimestamp()
	from := int64(0)
	if n := len(x.offsets); n > 0 {
		from = x.offsets[n-1].position
		first, err := readHeader(f, 0)
		if err != nil {
			return err
		}
		s.firstTimestamp = first.MaxTimestamp
	}
	walk := walker{file: f, position: from, end: size}
	for walk.next() {
		if s.firstTimestamp < 0 {
			s.firstTimestamp = walk.header.MaxTimestamp
		}
		s.writer.sinceEntry += walk.header.Size()
		l.w.next = walk.header.NextOffset()
	}
	if walk.err != nil {
		return walk.err
	}
	s.fromIndex = true
	s.publish(size, true)
	return nil
}

// scan checks every batch of the active segment after a crash, builds its indexes
// anew, and cuts the file behind the last whole batch. What remains is synced:
// a reader must not see what a power cut could still take away. After a clean
// close nothing can be incomplete: what is damaged then stays, for the reader to
// meet, as long as what lies behind it can be found.
func (l *Log) scan(s *segmentFile, size int64, clean bool) error {
	f, err := l.dir.files.acquire(s)
	if err != nil {
		return err
	}
	defer l.dir.files.release(s)
	fresh := newSegmentFile(s.folder, s.base)
	s.writer, s.firstTimestamp, l.w.next = fresh.writer, fresh.firstTimestamp, s.base
	walk := walker{file: f, end: size, whole: !clean}
	interval := l.config.Load().IndexIntervalBytes
	for walk.next() {
		if walk.header.BaseOffset < l.w.next {
			walk.err = fmt.Errorf("offset %d follows %d", walk.header.BaseOffset, l.w.next-1)
			break
		}
		s.note(walk.header, walk.position, interval)
		l.w.next = walk.header.NextOffset()
	}
	end := walk.position
	if walk.err != nil {
		if errors.Is(walk.err, errRead) {
			return walk.err
		}
		say, what := l.dir.log.Warn, "cut the incomplete end of a log, as a crash leaves it behind what was acknowledged"
		if clean {
			say, what = l.dir.log.Error, "cut the end of a log behind a damaged batch: the last shutdown was clean, so these may be acknowledged records"
		}
		say(what, "partition", l.id.String(), "file", f.Name(), "position", end, "bytes", size-end, "logEndOffset", l.w.next, "found", walk.err)
		if err := f.Truncate(end); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := l.dir.fs.SyncDir(l.path); err != nil {
		return err
	}
	l.w.changed = true
	s.publish(end, true)
	return nil
}

func (l *Log) recoverEpochs() error {
	known := epochs{}
	text, err := vfs.ReadFile(l.dir.fs, filepath.Join(l.path, epochsFile))
	if err == nil {
		known, err = decodeEpochs(text)
	}
	segments := *l.segments.Load()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		l.dir.log.Warn("leader epochs are read from the records, since their checkpoint is damaged", "partition", l.id.String(), "error", err)
		known, l.w.changed = epochs{}, true
	} else {
		l.w.epochs = len(known)
	}
	if len(known) > 0 && !l.w.changed {
		l.epochs.Store(&known)
		return nil
	}
	if len(known) > 0 && len(segments) > 0 {
		segments = segments[len(segments)-1:]
	}
	known = known.truncateTo(l.w.next)
	err = l.walkBatches(segments, func(h batch.Header) { known = known.assign(h.PartitionLeaderEpoch, h.BaseOffset) })
	l.epochs.Store(&known)
	return err
}

// recoverProducers starts from the newest snapshot that is whole, and replays the
// batches behind it.
func (l *Log) recoverProducers() error {
	from := int64(0)
	for n := len(l.w.snapshots); n > 0; n = len(l.w.snapshots) {
		offset := l.w.snapshots[n-1]
		text, err := vfs.ReadFile(l.dir.fs, l.snapshotName(offset))
		state := l.w.producers
		if err == nil && offset <= l.w.next {
			state, err = producer.Decode(text)
		}
		if err == nil && offset <= l.w.next {
			l.w.producers, from = state, offset
			break
		}
		l.w.snapshots = l.w.snapshots[:n-1]
		l.dir.log.Warn("producer snapshot is not used: what it held is read from the records", "partition", l.id.String(), "file", l.snapshotName(offset), "error", err)
		if err := l.dir.fs.Remove(l.snapshotName(offset)); err != nil {
			return err
		}
	}
	segments := *l.segments.Load()
	for len(segments) > 1 && segments[1].base <= from {
		segments = segments[1:]
	}
	if from == l.w.next {
		return nil
	}
	return l.walkBatches(segments, func(h batch.Header) {
		if h.BaseOffset >= from && h.ProducerID >= 0 {
			l.w.producers.Update(h, h.BaseOffset)
		}
	})
}

// walkBatches visits the headers of all batches in segments. Damage hides those
// behind it in the same segment; it keeps no log from being opened.
func (l *Log) walkBatches(segments []*segmentFile, visit func(batch.Header)) error {
	for _, s := range segments {
		f, err := l.dir.files.acquire(s)
		if err != nil {
			return err
		}
		walk := walker{file: f, end: s.size.Load()}
		for walk.next() {
			visit(walk.header)
		}
		l.dir.files.release(s)
		if errors.Is(walk.err, errRead) {
			return walk.err
		}
		if walk.err != nil {
			l.dir.sayCorrupt(l, &CorruptError{File: f.Name(), Position: walk.position, Cause: walk.err})
		}
	}
	return nil
}
