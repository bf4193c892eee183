package segment

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/segment/vfs"
)

// ErrStalled says that a file operation of the log directory has not come back for
// longer than StallTimeout: appends are refused until it does. Then they are taken
// again, and nothing that was acknowledged is lost.
var ErrStalled = errors.New("segment: log directory stalled")

// sayEvery is how often the same kind of trouble with the disk is put into the log.
const sayEvery = time.Minute

// watch has the directory's file system watched from outside.
func (d *Dir) watch(fs vfs.FS) vfs.FS {
	d.watched = vfs.Watch(fs, vfs.WatchOptions{Now: d.opts.Now, Stall: d.opts.StallTimeout, Told: d.told})
	return d.watched
}

// told runs on the goroutine of a timer, or of an operation that has ended.
func (d *Dir) told(e vfs.WatchEvent) {
	switch e.Kind {
	case vfs.Slow:
		now := d.opts.Now().UnixNano()
		if said := d.slowSaid.Load(); said != 0 && now-said < int64(sayEvery) || !d.slowSaid.CompareAndSwap(said, now) {
			return
		}
		d.log.Warn("a file operation is slow: when it is one that writing needs and takes longer than log.dir.stall.timeout.ms, appends are refused until it comes back",
			"operation", e.Op.String(), "file", e.Name, "seconds", e.Took.Seconds(), "limit", d.opts.StallTimeout.String())
	case vfs.Stalled:
		d.stalls.Add(1)
		d.log.Error("log directory stalled: appends are refused until the operation comes back, reads go on",
			"operation", e.Op.String(), "file", e.Name, "seconds", e.Took.Seconds())
		d.refuseQueued()
		d.opts.Stalled()
	case vfs.Recovered:
		d.log.Warn("log directory no longer stalled: appends are taken again, nothing that was acknowledged is lost",
			"operation", e.Op.String(), "file", e.Name, "seconds", e.Took.Seconds())
	}
}

// refuseQueued tells the appends that the committer has not taken yet. Those of its
// round stay: the disk may still be reading their memory, and they may yet be written.
func (d *Dir) refuseQueued() {
	d.mu.Lock()
	logs := make([]*Log, 0, len(d.logs))
	for _, l := range d.logs {
		logs = append(logs, l)
	}
	d.mu.Unlock()
	for _, l := range logs {
		l.mu.Lock()
		err := d.stalled()
		var waiting []*Append
		if err != nil { // otherwise it is over already
			waiting = l.queued()
		}
		l.mu.Unlock()
		d.committer.refuse(l, waiting, err)
	}
}

// stalled is nil or an ErrStalled that says where.
func (d *Dir) stalled() error {
	if err := d.watched.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrStalled, err)
	}
	return nil
}

// fenced is nil, or the I/O error after which nothing is written until a restart.
func (d *Dir) fenced() error {
	if err := d.fault.Load(); err != nil {
		return *err
	}
	return nil
}

// Err is nil while the directory accepts appends. Otherwise it is an ErrFenced, which
// stays, or an ErrStalled, which goes when the disk answers; both say which
// operation on which file. It does not touch the disk.
func (d *Dir) Err() error {
	if err := d.fenced(); err != nil {
		return err
	}
	return d.stalled()
}

// Stalled tells whether appends are refused since the disk does not answer, be it fenced
// as well or not. It does not touch the disk.
func (d *Dir) Stalled() bool { return d.watched.Err() != nil }

// Slow is nil, or names the operation that keeps appends waiting for a second or longer,
// as an ErrStalled: what to tell a client whose time is up. It does not touch the disk.
func (d *Dir) Slow() error {
	if err := d.Err(); err != nil {
		return err
	}
	if oldest := d.watched.Oldest(); oldest != nil {
		return fmt.Errorf("%w: %w", ErrStalled, oldest)
	}
	return nil
}

// Stall tells which operation of the write path is under way for so long that it is
// slow (a second), and since when.
func (d *Dir) Stall() (op, file string, since time.Time, ok bool) {
	if oldest := d.watched.Oldest(); oldest != nil {
		return oldest.Op.String(), oldest.Name, oldest.Since, true
	}
	return "", "", time.Time{}, false
}

// Stalls counts how often the directory has become stalled.
func (d *Dir) Stalls() int64 { return d.stalls.Load() }

// StallContext ends when the directory becomes stalled. It stays ended; when the disk
// answers again, the next call gives a new one.
func (d *Dir) StallContext() context.Context { return d.watched.Context() }

// unlessStalled gives a context that ends with ctx, and with an ErrStalled as its cause
// when the directory is or becomes stalled. end is to be called.
func (d *Dir) unlessStalled(ctx context.Context) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	begun := d.watched.Context()
	stop := context.AfterFunc(begun, func() { cancel(fmt.Errorf("%w: %w", ErrStalled, context.Cause(begun))) })
	return ctx, func() { stop(); cancel(nil) }
}
