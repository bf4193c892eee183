package segment

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/millrace/millrace/segment/vfs"
)

// The file log-start-offset is there once records were deleted. It is a line (see encodeLine)
// with the offset:
//
//	1 77 942d4941
const (
	startFile    = "log-start-offset"
	startVersion = "1"
)

func encodeStart(offset int64) []byte { return encodeLine(fmt.Sprint(startVersion, " ", offset)) }

// decodeStart fails with errDamaged, or with ErrFormat for a later version.
func decodeStart(line []byte) (int64, error) {
	fields, err := decodeLine(line, startVersion, 1)
	if err != nil {
		return 0, err
	}
	offset, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil || offset < 0 {
		return 0, fmt.Errorf("%w: %q", errDamaged, line)
	}
	return offset, nil
}

// recoverStart reads the log start offset. When its file is damaged, the log begins
// with the first record there is: what was deleted may show again, but nothing
// that was not is hidden.
func (l *Log) recoverStart() error {
	if s := *l.segments.Load(); len(s) > 0 {
		l.start.Store(s[0].base)
	}
	name := filepath.Join(l.path, startFile)
	text, err := vfs.ReadFile(l.dir.fs, name)
	if errors.Is(err, os.ErrNotExist) {
		l.sayLateStart(0)
		return nil
	}
	if err != nil {
		return err
	}
	start, err := decodeStart(text)
	if errors.Is(err, errDamaged) {
		l.dir.log.Error(SaidLogStart,
			"partition", l.id.String(), "file", name, "logStartOffset", l.start.Load(), "error", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	l.sayLateStart(start)
	l.start.Store(max(start, l.start.Load()))
	// Never give out again what was deleted, whatever the files have lost.
	l.w.next = max(l.w.next, start)
	return nil
}

// sayLateStart says when the first segment begins behind the log start offset.
func (l *Log) sayLateStart(start int64) {
	if first := l.start.Load(); start < first {
		l.dir.log.Error(SaidLateStart,
			"partition", l.id.String(), "folder", l.path, "firstOffset", start, "lastOffset", first-1)
	}
}

// DeleteRecordsBefore moves the log start offset up, durably, and then removes the
// segments that lie wholly before it. It waits for the disk, at most until
// ctx ends or the directory is stalled; the move may then still happen. Moving back is no error and does
// nothing. ErrOffsetOutOfRange when offset lies behind the log end offset.
func (l *Log) DeleteRecordsBefore(ctx context.Context, offset int64) error {
	if offset > l.LogEndOffset() {
		return fmt.Errorf("%w: delete before %d, log ends at %d", ErrOffsetOutOfRange, offset, l.LogEndOffset())
	}
	ctx, end := l.dir.unlessStalled(ctx)
	defer end()
	if err := l.dir.stalled(); err != nil {
		return err // the janitor's queue must not grow meanwhile
	}
	done := make(chan error, 1)
	l.dir.toJanitor(func() { done <- l.moveStart(offset) })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-l.dir.stop:
		return ErrClosed
	}
}

// moveStart runs on the janitor.
func (l *Log) moveStart(offset int64) error {
	if offset <= l.start.Load() {
		return nil
	}
	l.mu.Lock()
	refused := l.refusal()
	l.mu.Unlock()
	if refused != nil {
		return refused
	}
	l.leaveActive(offset)
	err := l.writeStart(offset)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		// Whole segments may go first, since without them the log begins behind them.
		if first := segmentOf(*l.segments.Load(), offset); first > 0 {
			if err := l.dir.fs.SyncDir(l.path); err != nil { // the name of the segment that stays
				return fmt.Errorf("log start offset of %s: %w", l.id, err)
			}
			l.start.Store(max(l.start.Load(), (*l.segments.Load())[first].base))
			l.removeSegments(offset, 0)
			err = l.writeStart(offset)
		}
	}
	if err != nil {
		return fmt.Errorf("log start offset of %s: %w", l.id, err)
	}
	l.start.Store(offset)
	l.removeSegments(offset, l.config.Load().DeleteDelay)
	return nil
}

func (l *Log) writeStart(offset int64) error {
	if err := l.nameFolder(); err != nil {
		return err
	}
	return vfs.WriteFileAtomic(l.dir.fs, filepath.Join(l.path, startFile), encodeStart(offset))
}

// worthLeaving is how many bytes before the log start offset make it worth while to
// leave the active segment, unless a segment is smaller.
const worthLeaving = 512 << 10

// leaveActive begins a new segment when much of the active one lies before offset,
// which would otherwise stay until that is full: a log whose records are deleted
// as they come takes up little room. The rest of what is left goes with a later
// move. The new file's name becomes durable together with the log start offset,
// before anything is removed.
func (l *Log) leaveActive(offset int64) {
	s := l.active()
	if s == nil || s.base >= offset {
		return
	}
	n, err := l.BytesFrom(s.base, offset)
	if err != nil || n < min(worthLeaving, l.config.Load().SegmentBytes/2) {
		return
	}
	// When it cannot be done, the log says so, and what is deleted is deleted all the same.
	l.dir.onCommitter(context.Background(), func() {
		if l.active() == s {
			l.leave()
		}
	})
}

// removeSegments takes those that lie wholly before offset, which is not behind the log
// start offset, out of the log, and removes their files when delay has passed.
func (l *Log) removeSegments(offset int64, delay time.Duration) {
	for _, s := range l.dropSegments(offset) {
		s.rebuilt.Store(true) // a reader that is still there writes no indexes
		l.dir.files.forget(s)
		for _, suffix := range []string{".log", ".index", ".timeindex", sealedSuffix, checkpointSuffix} {
			l.dir.discard(s.name(suffix), delay)
		}
	}
}

// nameFolder makes the log's folder, durably: until now all may be in the journal.
func (l *Log) nameFolder() error {
	if l.named.Load() {
		return nil
	}
	if err := l.dir.fs.MkdirAll(l.path, 0o755); err != nil {
		return err
	}
	if err := l.dir.fs.SyncDir(l.dir.topics); err != nil {
		return err
	}
	l.named.Store(true)
	return nil
}
