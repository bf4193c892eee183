package segment

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/producer"
	"github.com/millrace/millrace/segment/vfs"
)

// A log moves to another directory as a copy: begun there with Begin, filled with
// appends that keep what they are (Append.Keep), and finished with FinishCopy while the log
// that it is a copy of is held. What a crash leaves of it is a log like any other.

// ErrHeld says that the log takes no appends for a moment, since it is about to lie elsewhere.
var ErrHeld = errors.New("segment: log is held")

// ErrOutOfOrder says that batches that were to keep their offsets do not belong behind
// the end of the log.
var ErrOutOfOrder = errors.New("segment: batches do not follow the end of the log")

// ErrExists says that there is such a log already, or one whose files are not removed yet.
var ErrExists = errors.New("segment: log exists")

// Begin makes a new log that goes on where another one is: its first record will have
// the offset next or a later one, and what lies before start cannot be read. start
// may lie behind next, within the first batch. It is durable when Begin returns, unless both are
// 0. ErrExists when there are files of such a log. Blocks on the disk, and until deletions that were
// asked for before are done, or ctx ends.
func (d *Dir) Begin(ctx context.Context, id LogID, cfg LogConfig, start, next int64) (*Log, error) {
	// Until it is finished, all that is appended is on the disk when that is told.
	cfg.FlushMessages, cfg.FlushAfter = math.MaxInt64, math.MaxInt64
	l := newLog(d, id, cfg)
	l.w.next, l.w.copied = next, true
	l.start.Store(start)
	l.end.Store(next)
	if err := d.add(l); err != nil {
		return nil, err
	}
	err := d.onJanitor(ctx, func() error { return l.beginFiles(start) }) // behind deletions
	if errors.Is(err, ErrExists) {
		d.mu.Lock()
		delete(d.logs, id.key())
		d.mu.Unlock()
	} else if err != nil {
		l.Delete()
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}

// add puts a new log into the directory.
func (d *Dir) add(l *Log) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := l.id.key()
	if d.shut {
		return ErrClosed
	}
	if d.logs[key] != nil {
		return fmt.Errorf("%w: %s", ErrExists, l.path)
	}
	d.logs[key] = l
	return nil
}

// beginFiles writes what a new log that begins at start needs. It runs on the janitor.
func (l *Log) beginFiles(start int64) error {
	d := l.dir
	d.mu.Lock()
	_, haunted := d.haunted[l.id.key()]
	d.mu.Unlock()
	if haunted {
		return fmt.Errorf("%w: the journal does not say that %s was deleted", ErrExists, l.path)
	}
	for _, path := range []string{l.path, l.path + deletedSuffix} {
		if _, err := d.fs.Stat(path); err == nil {
			return fmt.Errorf("%w: %s", ErrExists, path)
		} else if !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	// Removals of such files must not come undone.
	if err := d.fs.SyncDir(d.topics); err != nil {
		return d.failedSync(d.topics, err)
	}
	if start > 0 {
		if err := l.writeStart(start); err != nil {
			return d.failed("begin", l.path, err)
		}
	}
	return nil
}

// checkAll checks batches that keep what they are.
func checkAll(batches []byte) error {
	for rest := batches; len(rest) > 0; {
		h, err := batch.Check(rest)
		if err != nil {
			return fmt.Errorf("%w: at byte %d of an append: %w", ErrCorrupt, len(batches)-len(rest), err)
		}
		rest = rest[h.Size():]
	}
	return nil
}

// kept is nil when a, which keeps the offsets of its batches, belongs behind the end of the log.
func (p *part) kept(a *Append) error {
	next := p.log.w.next
	if a.Follows && a.From != next {
		return fmt.Errorf("%w: they follow %d, the log ends at %d", ErrOutOfOrder, a.From, next)
	}
	for rest := a.Batches; len(rest) > 0; {
		h, err := batch.ReadHeader(rest)
		if err == nil && h.Size() > len(rest) {
			err = fmt.Errorf("%w: batch of %d bytes, %d are there", batch.ErrTruncated, h.Size(), len(rest))
		}
		if err != nil {
			return err
		}
		if h.BaseOffset < next {
			return fmt.Errorf("%w: a batch begins at %d, the log ends at %d", ErrOutOfOrder, h.BaseOffset, next)
		}
		next = h.NextOffset()
		rest = rest[h.Size():]
	}
	if s := p.segment; s.size.Load()+p.bytes == 0 && next-1-s.base > maxRelativeOffset {
		return fmt.Errorf("%w: offset %d is too far behind the end at %d", ErrOutOfOrder, next-1, s.base)
	}
	return nil
}

// lastOffset is that of the last of batches whose headers have been read before.
func lastOffset(batches []byte) (last int64) {
	for len(batches) > 0 {
		h, _ := batch.ReadHeader(batches)
		last = h.LastOffset()
		batches = batches[h.Size():]
	}
	return last
}

// Hold has all appends fail with ErrHeld from now on, and moves of the log start offset
// too. It returns when those that came before are done: until Unhold, or ErrDeleted,
// the log does not change. It waits for the disk, at most until ctx ends; the log is
// held then, too.
func (l *Log) Hold(ctx context.Context) error {
	l.mu.Lock()
	l.held = true
	l.mu.Unlock()
	if err := l.dir.onJanitor(ctx, nothing); err != nil { // which cuts, while appends wait
		return err
	}
	for queued := true; queued; {
		err := l.dir.onCommitter(ctx, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			queued = len(l.pending) > 0
		})
		if err != nil {
			return err
		}
	}
	return l.dir.onJanitor(ctx, nothing) // which moves log start offsets
}

// onJanitor has the janitor do something, behind what it was given so far, and waits for that
// until ctx ends or the directory is stalled; it may then still be done.
func (d *Dir) onJanitor(ctx context.Context, f func() error) error {
	ctx, end := d.unlessStalled(ctx)
	defer end()
	done := make(chan error, 1)
	d.toJanitor(func() { done <- f() })
	select {
	case err := <-done:
		return err
	case <-d.stop:
		return ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func nothing() error { return nil }

// Unhold ends Hold.
func (l *Log) Unhold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = false
}

// refusal is what keeps the log from being changed; l.mu is held.
func (l *Log) refusal() error {
	if l.gone == nil && l.held {
		return ErrHeld
	}
	return l.gone
}

// FinishCopy completes l as a copy of from, which is held and ends where l does: the log
// start offset moves to where it is there, and the idempotent producers are those that from remembers, which may know
// some whose batches it holds no more. All of that is durable when it returns. Blocks on the disk; an
// ErrOutOfOrder when the logs do not end at the same offset.
func (l *Log) FinishCopy(ctx context.Context, from *Log) error {
	end := l.LogEndOffset()
	if end != from.LogEndOffset() {
		return fmt.Errorf("%w: one log ends at %d, the other at %d", ErrOutOfOrder, end, from.LogEndOffset())
	}
	if err := l.DeleteRecordsBefore(ctx, from.LogStartOffset()); err != nil {
		return err
	}
	var state *producer.State
	if err := from.dir.onCommitter(ctx, func() { state = from.w.producers.Clone() }); err != nil {
		return err
	}
	snapshot := state.Len() > 0
	if snapshot {
		name := l.snapshotName(end)
		err := l.dir.onJanitor(ctx, func() error {
			err := l.nameFolder()
			if err == nil {
				err = vfs.WriteFileAtomic(l.dir.fs, name, state.Encode())
			}
			if err != nil {
				return l.dir.failed("write", name, err)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return l.dir.onCommitter(ctx, func() {
		l.w.producers, l.w.copied, l.w.changed = state, false, true
		if n := len(l.w.snapshots); snapshot && (n == 0 || l.w.snapshots[n-1] != end) {
			l.w.snapshots = append(l.w.snapshots, end)
		}
	})
}

// Discard is Delete without the delay, and waits until the files are gone, at most until
// ctx ends.
func (l *Log) Discard(ctx context.Context) error {
	cfg := *l.config.Load()
	cfg.DeleteDelay = 0
	l.SetConfig(cfg)
	l.Delete()
	if err := l.dir.onJanitor(ctx, nothing); err != nil {
		return err
	}
	for _, path := range []string{l.path, l.path + deletedSuffix} {
		if _, err := l.dir.fs.Stat(path); err == nil {
			return fmt.Errorf("%w: %s", ErrExists, path)
		}
	}
	return nil
}

// thin takes out of memory what of a copy is in its file: it is old, and would drive out what
// others have written last. Committer only.
func (c *committer) thin(s *segmentFile) {
	n := 0
	for n < len(s.chunks) && s.chunks[n].end() <= s.flushed {
		n++
	}
	c.dropTail(s, n)
}

// dropTail takes the first n chunks, which are in the file, out of a tail. Committer only.
func (c *committer) dropTail(s *segmentFile, n int) {
	if n == 0 {
		return
	}
	leaving := s.chunks[:n]
	s.chunks = s.chunks[n:]
	s.publishTail()
	for _, ch := range leaving {
		ch.owner = nil // evict passes over it
		ch.leave()
	}
	if c.thinned += n; c.thinned > len(c.resident)/2 {
		c.resident = removeOwnerless(c.resident)
		c.thinned = 0
	}
}

func removeOwnerless(chunks []*chunk) []*chunk {
	kept := chunks[:0]
	for _, ch := range chunks {
		if ch.owner != nil {
			kept = append(kept, ch)
		}
	}
	clear(chunks[len(kept):])
	return kept
}
