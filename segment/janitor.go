package segment

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// The janitor is the goroutine that removes files, moves log start offsets and looks
// for what retention no longer keeps, one after the other, so that none of it delays
// an append. It sleeps until there is a job, the next look, or something in the trash is
// due; without trash and retention it has no timer. It ends when the directory is closed.
func (d *Dir) runJanitor() {
	var look, due <-chan time.Time
	if d.opts.RetentionInterval > 0 {
		look = time.After(d.opts.RetentionDelay)
	}
	for {
		select {
		case <-d.janitorWake:
			d.runJobs()
		case <-look:
			d.retain()
			look = time.After(d.opts.RetentionInterval)
		case <-due:
		case <-d.stop:
			return
		}
		due = nil
		if wait, ok := d.emptyTrash(); ok {
			due = time.After(wait)
		}
	}
}

// runJobs does the jobs, and in between, when there is none, writes the checkpoints that wait for that.
func (d *Dir) runJobs() {
	for {
		d.mu.Lock()
		jobs := d.jobs
		d.jobs = nil
		if len(jobs) == 0 && len(d.saves) > 0 && !d.stopping() {
			jobs = append(jobs, d.saves[0])
			d.saves = d.saves[1:]
		}
		d.mu.Unlock()
		if len(jobs) == 0 {
			return
		}
		for _, job := range jobs {
			job()
		}
	}
}

// toJanitor queues a job. The queue needs no bound of its own: a job is one
// folder, or one caller that waits.
func (d *Dir) toJanitor(job func()) {
	d.mu.Lock()
	d.jobs = append(d.jobs, job)
	d.mu.Unlock()
	d.wakeJanitor()
}

func (d *Dir) wakeJanitor() {
	select {
	case d.janitorWake <- struct{}{}:
	default:
	}
}

// Delete takes the log out of the directory: queued and later appends fail with
// ErrDeleted at once, readers that are at work finish, and the files are
// removed in the background, when DeleteDelay has passed. A crash before that leaves a folder that the next
// Found lists, or one that the next open removes.
func (l *Log) Delete() {
	d := l.dir
	waiting := l.refuse(ErrDeleted)
	d.mu.Lock()
	if d.logs[l.id.key()] == l {
		delete(d.logs, l.id.key())
	}
	if d.doomed != nil { // nil once the directory is closed
		d.doomed[l] = struct{}{}
	}
	d.mu.Unlock()
	d.committer.refuse(l, waiting, ErrDeleted)
	d.toJanitor(func() {
		l.dropped = true
		// Behind the round that may be writing to the log, nothing does any more.
		if d.onCommitter(context.Background(), func() { d.committer.forget(l) }) != nil {
			return // finishDeletes goes on with it
		}
		d.mu.Lock()
		delete(d.doomed, l)
		d.mu.Unlock()
		for _, s := range *l.segments.Load() {
			d.files.forget(s)
		}
		d.removeFolder(l.path, l.config.Load().DeleteDelay)
	})
}

// finishDeletes marks the folders of deleted logs that the janitor did not come to, so
// that the next open removes them and takes them for nothing else. Committer and
// janitor have ended.
func (d *Dir) finishDeletes() {
	d.mu.Lock()
	doomed := d.doomed
	d.doomed = nil
	d.mu.Unlock()
	marked := false
	for l := range doomed {
		err := d.fs.Rename(l.path, l.path+deletedSuffix)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			d.log.Error("cannot mark the files of a deleted partition: the next start sets them aside", "folder", l.path, "error", err)
		}
		marked = marked || err == nil
	}
	if !marked {
		return
	}
	if err := d.fs.SyncDir(d.topics); err != nil {
		d.log.Error("cannot sync the names of deleted partitions", "folder", d.topics, "error", err)
	}
}

// removeFolder marks a folder for removal durably, and removes it when delay has passed.
func (d *Dir) removeFolder(path string, delay time.Duration) {
	doomed := strings.TrimSuffix(path, deletedSuffix) + deletedSuffix
	if doomed != path {
		err := d.fs.Rename(path, doomed)
		if errors.Is(err, os.ErrNotExist) {
			return // nothing was ever appended
		}
		if err == nil {
			err = d.fs.SyncDir(d.topics)
		}
		if err != nil {
			d.log.Error("cannot remove the files of a deleted partition: they take up room until the next start tries again", "folder", doomed, "error", err)
			return
		}
	}
	d.throwAway(trashed{path: doomed}, delay)
}

// Quarantine sets aside the folder of a log that was found but belongs to nothing
// that is known: it is renamed, never removed. It blocks on the disk.
func (l *Log) Quarantine() error {
	d := l.dir
	l.refuse(ErrDeleted)
	d.mu.Lock()
	delete(d.logs, l.id.key())
	d.mu.Unlock()
	for _, s := range *l.segments.Load() {
		d.files.forget(s)
	}
	if err := d.fs.Rename(l.path, l.path+straySuffix); err != nil {
		return fmt.Errorf("quarantine %s: %w", l.path, err)
	}
	return d.fs.SyncDir(d.topics)
}
