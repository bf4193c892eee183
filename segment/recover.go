package segment

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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
	if err := d.replayJournal(clean); err != nil {
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
			l.path = path
			l.named.Store(true)
			logs = append(logs, l)
		case strings.HasSuffix(entry.Name(), straySuffix):
		default:
			d.log.Warn(SaidForeign, "path", path)
		}
	}
	if len(logs) > 0 {
		// A killed process may have left names that nothing has made durable.
		if err := d.fs.SyncDir(d.topics); err != nil {
			return fmt.Errorf("open log directory: %w", err)
		}
	}
	if len(logs) > 0 && !clean {
		d.log.Info("the last shutdown was not clean: checking what every partition got since its last checkpoint", "partitions", len(logs))
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
	if d.scanned.Load() {
		// Before anybody sees a record: one sync for all of them.
		if err := d.fs.SyncAll(d.topics); err != nil {
			return fmt.Errorf("open log directory: %w", err)
		}
	}
	for _, l := range logs {
		d.logs[l.id.key()] = l
	}
	return nil
}

// recover opens one log: what was acknowledged is readable afterwards, and the
// next offset follows the last whole batch.
func (l *Log) recover(clean bool) error {
	cut, err := l.finishCut()
	if err != nil {
		return err
	}
	if err := l.findFiles(); err != nil {
		return err
	}
	seals, err := l.readSeals()
	if err != nil {
		return err
	}
	segments := *l.segments.Load()
	for i, s := range segments {
		size, err := l.fileSize(s)
		if err != nil {
			return err
		}
		s.size.Store(size)
		s.flushed, s.created, s.named = size, true, true
		l.w.next = s.base
		if i < len(segments)-1 { // sealed: synced before the next one was made
			if size, err = l.checkSeal(s, seals[i], size, segments[i+1].base); err != nil {
				return err
			}
			s.size.Store(size)
			continue
		}
		if cut == nil { // else the journal has filled what is gone now
			l.w.known = l.dir.known[s.name(".log")]
		}
		if err := l.resume(s, size); err != nil {
			return err
		}
		if err := l.scan(s, size, clean); err != nil {
			return err
		}
		l.comparePromise(s.name(".log"), size)
	}
	if err := l.recoverStart(); err != nil {
		return err
	}
	if err := l.findMissing(); err != nil {
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
	l.w.resumed = nil
	return nil
}

// comparePromise says when records that were durable are not in the last segment any more. Others get their offsets.
func (l *Log) comparePromise(file string, size int64) {
	if l.w.next < l.w.promised {
		l.dir.log.Error(SaidShortened, "partition", l.id.String(),
			"file", file, "bytes", size, "bytesThen", l.w.known, "firstOffset", l.w.next, "lastOffset", l.w.promised-1)
	}
}

// findMissing looks whether the last segment is gone, and its checkpoint has stayed, which must not be taken for that
// of the next segment.
func (l *Log) findMissing() error {
	segments := *l.segments.Load()
	for _, name := range l.retention.leftovers {
		base, suffix, _ := parseFile(name)
		if n := len(segments); suffix != checkpointSuffix[1:] || n > 0 && base <= segments[n-1].base {
			continue
		}
		gone := newSegmentFile(l.path, base)
		cp, err := l.readCheckpoint(gone)
		if err != nil && !errors.Is(err, errDamaged) && !errors.Is(err, ErrFormat) {
			return err
		}
		if err := errors.Join(l.dir.fs.Remove(gone.name(checkpointSuffix)), l.dir.fs.SyncDir(l.path)); err != nil {
			return err
		}
		if cp == nil {
			continue
		}
		if l.w.known, l.w.promised = cp.position, cp.next; cp.next > l.start.Load() {
			l.comparePromise(gone.name(".log"), 0)
		}
	}
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
		offset, suffix, ok := parseFile(entry.Name())
		switch {
		case entry.Name() == voidFile:
			if err := l.recoverVoid(); err != nil {
				return err
			}
		case !ownName(entry.Name()):
			l.dir.log.Warn(SaidForeign, "path", filepath.Join(l.path, entry.Name()))
		case !ok:
		case suffix == "log":
			segments = append(segments, newSegmentFile(l.path, offset))
		case suffix == "snapshot":
			l.w.snapshots = append(l.w.snapshots, offset)
		default:
			l.retention.leftovers = append(l.retention.leftovers, entry.Name())
		}
	}
	l.segments.Store(&segments)
	return nil
}

// ownName tells whether a name in a partition's folder is one that millrace gives.
func ownName(name string) bool {
	name = strings.TrimSuffix(name, ".tmp")
	switch name {
	case epochsFile, startFile, cutFile, voidFile:
		return true
	}
	_, suffix, ok := parseFile(strings.TrimSuffix(name, deletedSuffix))
	switch "." + suffix {
	case ".log", ".index", ".timeindex", ".txnindex", ".snapshot", sealedSuffix, checkpointSuffix:
		return ok
	}
	return false
}

// parseFile takes the name of a file apart that is called by an offset.
func parseFile(name string) (offset int64, suffix string, ok bool) {
	number, suffix, _ := strings.Cut(name, ".")
	offset, err := strconv.ParseInt(number, 10, 64)
	return offset, suffix, err == nil && len(number) == 20 && offset >= 0
}

func (l *Log) fileSize(s *segmentFile) (int64, error) {
	f, err := l.dir.files.acquire(&s.handle)
	if err != nil {
		return 0, err
	}
	defer l.dir.files.release(&s.handle)
	return f.Size()
}

// scan checks the batches of the active segment after a crash, from its checkpoint on, builds its
// indexes, and cuts the file behind the last whole batch. What remains is synced:
// a reader must not see what a power cut could still take away. What cannot be
// the incomplete end that a crash leaves is damage, and stays for its readers to
// meet, as long as something intact lies behind it.
func (l *Log) scan(s *segmentFile, size int64, clean bool) error {
	f, err := l.dir.files.acquire(&s.handle)
	if err != nil {
		return err
	}
	defer l.dir.files.release(&s.handle)
	l.w.next = s.base
	walk := walker{file: f, end: size, whole: !clean, expect: s.base}
	if cp := l.w.resumed; cp != nil {
		s.writer, s.firstTimestamp, l.w.next = cp.index, cp.firstTimestamp, cp.next
		s.sum, s.summed, s.saved = cp.sum, cp.summed, cp.position
		if cp.position == size {
			s.publish(size, true)
			return nil
		}
		walk.position, walk.expect = cp.position, cp.next
	}
	interval := l.config.Load().IndexIntervalBytes
	for {
		for walk.next() {
			s.note(walk.header, walk.position, interval)
			s.sumUp(walk.header)
			l.w.scanned = l.w.scanned.assign(walk.header.PartitionLeaderEpoch, walk.header.BaseOffset)
			l.w.next = walk.header.NextOffset()
		}
		if walk.err == nil {
			break
		}
		if errors.Is(walk.err, errRead) {
			return walk.err
		}
		damage := walk.position
		intact := int64(-1)
		if clean || damage < l.w.known || size-damage > tornBytes || errors.Is(walk.err, errMisplaced) { // a crash leaves none of these
			if intact, err = nextIntact(f, damage, size, l.w.next); err != nil {
				return err
			}
		}
		if intact < 0 {
			if err := l.cut(f, damage, size, clean, walk.err); err != nil {
				return err
			}
			break
		}
		h, err := readHeader(f, intact)
		if err != nil {
			return err
		}
		what := SaidDamaged
		if errors.Is(walk.err, errMisplaced) {
			what = SaidOffsetWrong
		}
		l.dir.log.Error(what, "partition", l.id.String(), "file", f.Name(),
			"position", damage, "bytes", intact-damage, "firstOffset", l.w.next, "lastOffset", h.BaseOffset-1, "found", walk.err)
		l.w.next, s.summed = h.BaseOffset, false
		s.writer.sinceEntry = interval + 1 // readers step over the damage by the index
		walk = walker{file: f, position: intact, end: size, whole: walk.whole, expect: h.BaseOffset}
	}
	l.dir.scanned.Store(true)
	l.w.changed = true
	s.flushed = walk.position
	s.publish(walk.position, true)
	return nil
}

// tornBytes is more than a crash can leave incomplete at the end of a segment:
// one round of one log, whose last append may be as large as a request.
const tornBytes = roundBytes + 128<<20

// cut makes the file end where its last whole batch ends.
func (l *Log) cut(f vfs.File, end, size int64, clean bool, found error) error {
	padding, err := zeros(f, end, size)
	if err != nil {
		return err
	}
	say, what := l.dir.log.Warn, SaidTornEnd
	if clean || end < l.w.known {
		say, what = l.dir.log.Error, SaidDamagedEnd
	}
	if padding { // whole blocks are written
		say = l.dir.log.Debug
	}
	say(what, "partition", l.id.String(), "file", f.Name(), "position", end, "bytes", size-end, "logEndOffset", l.w.next, "found", found)
	return f.Truncate(end)
}

// nextIntact finds the first intact batch behind damaged bytes that begin at a
// position; offset is the least that it may begin with. -1 when there is none.
func nextIntact(f vfs.File, damage, end, offset int64) (int64, error) {
	if at, err := behindLength(f, damage, end, offset); at >= 0 || err != nil {
		return at, err
	}
	window := make([]byte, walkWindow+batch.HeaderSize)
	for at := damage + 1; at < end; at += walkWindow {
		n, err := f.ReadAt(window, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return -1, fmt.Errorf("%w: %s at %d: %w", errRead, f.Name(), at, err)
		}
		for i := 0; i < walkWindow && i+batch.HeaderSize <= n; i++ {
			if window[i+batch.MagicAt] != batch.Magic {
				continue
			}
			h, err := batch.ReadHeader(window[i:n])
			if err != nil || h.BaseOffset < offset || int64(h.Size()) > end-at-int64(i) {
				continue
			}
			one := walker{file: f, position: at + int64(i), end: end, whole: true}
			if one.next() {
				return one.position, nil
			}
			if errors.Is(one.err, errRead) {
				return -1, one.err
			}
		}
	}
	return -1, nil
}

// behindLength is where the damaged batch ends as it says itself, when the intact batch that belongs there begins so:
// what looks like a batch before it is one that a record holds. Otherwise -1.
func behindLength(f vfs.File, damage, end, offset int64) (int64, error) {
	h, err := readHeader(f, damage)
	at := damage + int64(h.Size())
	if err != nil || h.NextOffset() < offset || at+batch.HeaderSize > end {
		if errors.Is(err, errRead) && !errors.Is(err, io.EOF) {
			return -1, err
		}
		return -1, nil
	}
	one := walker{file: f, position: at, end: end, whole: true}
	if one.next() && one.header.BaseOffset == h.NextOffset() {
		return at, nil
	}
	if errors.Is(one.err, errRead) {
		return -1, one.err
	}
	return -1, nil
}

// maxPadding is more than can lie between the last batch and the end of a file
// that was written well: the rest of a block.
const maxPadding = vfs.BlockSize

// zeros tells whether a file has nothing but zeros from a position on.
func zeros(f vfs.File, from, end int64) (bool, error) {
	if end-from > maxPadding {
		return false, nil
	}
	rest := make([]byte, end-from)
	if _, err := f.ReadAt(rest, from); err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("%w: %s at %d: %w", errRead, f.Name(), from, err)
	}
	return len(bytes.Trim(rest, "\x00")) == 0, nil
}

func (l *Log) recoverEpochs() error {
	known := epochs{}
	text, err := vfs.ReadFile(l.dir.fs, filepath.Join(l.path, epochsFile))
	if err == nil {
		known, err = decodeEpochs(text)
	}
	segments := *l.segments.Load()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		l.dir.log.Warn(SaidEpochs, "partition", l.id.String(), "error", err)
		known, l.w.changed = epochs{}, true
	} else {
		l.w.epochs = len(known)
	}
	if cp := l.w.resumed; cp != nil && len(cp.epochs) > len(known) {
		known, l.w.changed = cp.epochs, true
	}
	if len(known) > 0 && !l.w.changed {
		l.epochs.Store(&known)
		return nil
	}
	if known = known.truncateTo(l.w.next); len(known) == 0 && len(segments) > 1 { // else the file has those of sealed segments
		err := l.walkBatches(segments[:len(segments)-1], func(h batch.Header) { known = known.assign(h.PartitionLeaderEpoch, h.BaseOffset) })
		if err != nil {
			return err
		}
	}
	for _, e := range l.w.scanned {
		known = known.assign(e.epoch, e.start)
	}
	l.w.scanned = nil
	l.epochs.Store(&known)
	return nil
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
		l.dir.log.Warn(SaidSnapshot, "partition", l.id.String(), "file", l.snapshotName(offset), "error", err)
		if err := l.dir.fs.Remove(l.snapshotName(offset)); err != nil {
			return err
		}
	}
	if cp := l.w.resumed; cp != nil && cp.next >= from { // a snapshot knows less
		state, err := producer.DecodeAll(cp.producers)
		if err != nil {
			return fmt.Errorf("checkpoint of %s: %w", l.id, err)
		}
		l.w.producers, from = state, cp.next
	}
	if from == l.w.next {
		return nil
	}
	segments := *l.segments.Load()
	for len(segments) > 1 && segments[1].base <= from {
		segments = segments[1:]
	}
	return l.walkBatches(segments, func(h batch.Header) {
		if h.BaseOffset >= from && h.ProducerID >= 0 {
			l.w.producers.Update(h, h.BaseOffset)
		}
	})
}

// walkBatches visits the headers of all batches in segments, but for those that the checkpoint
// knows. Damage hides those behind it in the same segment; it keeps no log from being opened.
func (l *Log) walkBatches(segments []*segmentFile, visit func(batch.Header)) error {
	for _, s := range segments {
		f, err := l.dir.files.acquire(&s.handle)
		if err != nil {
			return err
		}
		walk := walker{file: f, end: s.size.Load()}
		if cp := l.w.resumed; cp != nil && cp.base == s.base {
			walk.position = cp.position
		}
		for {
			for walk.next() {
				visit(walk.header)
			}
			if walk.err != nil && !errors.Is(walk.err, errRead) {
				l.dir.sayCorrupt(l, &CorruptError{File: f.Name(), Position: walk.position, Cause: walk.err})
			}
			if !errors.Is(walk.err, errMisplaced) {
				break
			}
		}
		l.dir.files.release(&s.handle)
		if errors.Is(walk.err, errRead) {
			return walk.err
		}
	}
	return nil
}
