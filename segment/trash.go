package segment

import (
	"container/heap"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// bin is what a directory has for its trash.
type bin struct {
	trash    trash        // of the janitor alone
	trashLen atomic.Int64 // its length, for others
	hurried  atomic.Bool  // makeRoom has asked for it to be emptied
}

// The trash holds what is deleted and still on the disk: files of segments and
// folders of partitions, renamed to ….deleted, each until file.delete.delay.ms has
// passed, as in Kafka. Nothing is written down about it: the next open removes what
// it finds under such a name.
type trash []trashed

type trashed struct {
	due   time.Time
	path  string // where it lies now
	was   string // of an index: the name that a reader who was building it may have written again
	again bool   // removing it has failed before, and that was said
}

// trashRetry is when to try again to remove what could not be removed.
const trashRetry = time.Minute

func (t trash) Len() int           { return len(t) }
func (t trash) Less(i, j int) bool { return t[i].due.Before(t[j].due) }
func (t trash) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }
func (t *trash) Push(x any)        { *t = append(*t, x.(trashed)) }
func (t *trash) Pop() any {
	old := *t
	last := old[len(old)-1]
	old[len(old)-1] = trashed{}
	*t = old[:len(old)-1]
	return last
}

// discard gives a file that nothing in the log refers to any more its ….deleted name,
// and removes it when delay has passed. Readers that have it open read on.
func (d *Dir) discard(name string, delay time.Duration) {
	item := trashed{path: name}
	if strings.HasSuffix(name, "index") {
		item.was = name
	}
	if delay > 0 {
		switch err := d.fs.Rename(name, name+deletedSuffix); {
		case errors.Is(err, os.ErrNotExist):
			return
		case err == nil:
			item.path = name + deletedSuffix
		} // else it goes under its own name
	}
	d.throwAway(item, delay)
}

// throwAway removes item when delay has passed.
func (d *Dir) throwAway(item trashed, delay time.Duration) {
	if delay <= 0 {
		d.remove(item)
		return
	}
	item.due = d.opts.Now().Add(delay)
	heap.Push(&d.trash, item)
	d.trashLen.Store(int64(len(d.trash)))
}

// emptyTrash removes what is due, and tells how long until the next is; ok is
// false when nothing is left.
func (d *Dir) emptyTrash() (wait time.Duration, ok bool) {
	for len(d.trash) > 0 && !d.stopping() {
		now := d.opts.Now()
		if wait = d.trash[0].due.Sub(now); wait > 0 {
			return wait, true
		}
		item := heap.Pop(&d.trash).(trashed)
		d.trashLen.Store(int64(len(d.trash)))
		d.remove(item)
	}
	return 0, false
}

// remove tries again later what it could not remove.
func (d *Dir) remove(item trashed) {
	err := d.fs.RemoveAll(item.path)
	if err == nil && item.was != "" && item.was != item.path {
		err = d.fs.RemoveAll(item.was)
	}
	if err == nil || errors.Is(err, os.ErrNotExist) {
		return
	}
	if !item.again {
		d.log.Error("cannot remove what was deleted: it takes up room until that works", "file", item.path, "error", err)
	}
	item.again = true
	d.throwAway(item, trashRetry)
}

// makeRoom has the janitor empty the trash without delay, as the disk is full.
func (d *Dir) makeRoom() {
	if d.trashLen.Load() == 0 || !d.hurried.CompareAndSwap(false, true) {
		return
	}
	d.toJanitor(func() {
		d.hurried.Store(false)
		all := d.trash
		d.trash = nil
		d.trashLen.Store(0)
		for _, item := range all {
			d.remove(item)
		}
	})
}

func (d *Dir) stopping() bool {
	select {
	case <-d.stop:
		return true
	default:
		return false
	}
}
