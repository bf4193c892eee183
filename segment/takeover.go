package segment

import (
	"context"
	"fmt"
)

// EndAt completes a log that Begin has begun and appends that keep their offsets have filled: from now on it
// is a log like any other, and its next record gets the offset end, which may lie behind the last
// one that there is, when those between are no longer there. Durable when it returns. ErrOutOfOrder when the log ends behind end. Blocks on the disk; an error of ctx
// says that the log may be either.
func (l *Log) EndAt(ctx context.Context, end int64) error {
	var failure error
	err := l.dir.onCommitter(ctx, func() {
		if failure = l.skipTo(end); failure == nil {
			l.w.copied = false
		}
	})
	if err != nil {
		return err
	}
	return failure
}

// skipTo leaves the active segment, if there is one, and begins another at next: an open goes on where the name of
// the last segment says. Committer only.
func (l *Log) skipTo(next int64) error {
	switch {
	case next == l.w.next:
		return nil
	case next < l.w.next:
		return fmt.Errorf("%w: the log is to end at %d, it ends at %d", ErrOutOfOrder, next, l.w.next)
	}
	if err := l.dir.fenced(); err != nil {
		return err
	}
	if err := l.dir.committer.sealActive(l, true); err != nil {
		return err
	}
	before := l.w.next
	l.w.next = next // which the note of the segment says, too, so that nobody looks for what is between
	if s := l.active(); s != nil && s.size.Load() > 0 {
		if err := l.roll(); err != nil {
			l.w.next = before
			return err
		}
	} else {
		l.addSegmentFile()
	}
	s := l.active()
	err := s.create(l)
	if err == nil {
		err = l.nameFolder()
	}
	if err != nil {
		return err
	}
	if err := l.dir.fs.SyncDir(l.path); err != nil {
		return l.dir.failedSync(l.path, err)
	}
	s.named = true
	l.w.changed = true
	l.end.Store(next)
	if advanced := l.advanced.Load(); advanced != nil {
		(*advanced)(next)
	}
	return nil
}
