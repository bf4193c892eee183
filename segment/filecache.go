package segment

import (
	"container/list"
	"errors"
	"os"
	"sync"
	"syscall"

	"github.com/millrace/millrace/segment/vfs"
)

// fileCache bounds how many log files are open at once: the least recently used
// file that nobody is using is closed when another is opened. Files in use are
// never closed, so the bound is passed while more than that are in use.
type fileCache struct {
	fs    vfs.FS
	limit int

	mu   sync.Mutex // guards everything below and every handle; never held across a file operation
	open int
	idle list.List // of *handle, least recently used first
}

// handle is an entry in the cache: one way to have a segment's file open. Its
// first two fields never change.
type handle struct {
	segment *segmentFile
	flags   int // of vfs.FS.OpenFile

	file vfs.File
	refs int
	idle *list.Element // set while refs == 0 and file is open
	gone bool          // the file is removed: its last user closes it
}

// acquire opens the log file of h, or shares the one that is open. Every
// acquire is followed by one release.
func (c *fileCache) acquire(h *handle) (vfs.File, error) {
	if f := c.share(h); f != nil {
		return f, nil
	}
	f, err := c.fs.OpenFile(h.segment.name(".log"), h.flags, 0o644)
	if err != nil {
		return nil, err
	}
	return c.adopt(h, f), nil
}

func (c *fileCache) share(h *handle) vfs.File {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.file == nil {
		return nil
	}
	c.use(h)
	return h.file
}

// use counts one more user; c.mu is held.
func (c *fileCache) use(h *handle) {
	h.refs++
	if h.idle != nil {
		c.idle.Remove(h.idle)
		h.idle = nil
	}
}

// adopt puts a file that was just opened into the cache, or closes it when
// another goroutine was faster.
func (c *fileCache) adopt(h *handle, f vfs.File) vfs.File {
	var surplus []vfs.File
	c.mu.Lock()
	if h.file != nil {
		surplus = append(surplus, f)
	} else {
		h.file = f
		c.open++
	}
	c.use(h)
	f = h.file
	for c.open > c.limit && c.idle.Len() > 0 {
		surplus = append(surplus, c.drop(c.idle.Front().Value.(*handle)))
	}
	c.mu.Unlock()
	for _, f := range surplus {
		f.Close() // nothing unsynced is in a file that nobody uses
	}
	return f
}

// drop takes an idle file out of the cache; c.mu is held, the caller closes it.
func (c *fileCache) drop(h *handle) vfs.File {
	f := h.file
	c.idle.Remove(h.idle)
	h.idle, h.file = nil, nil
	c.open--
	return f
}

func (c *fileCache) release(h *handle) {
	var f vfs.File
	c.mu.Lock()
	h.refs--
	if h.refs == 0 {
		h.idle = c.idle.PushBack(h)
		if h.gone {
			f = c.drop(h)
		}
	}
	c.mu.Unlock()
	if f != nil {
		f.Close() // as above
	}
}

// forget closes the file of s, which is about to be removed, as soon as nobody
// uses it: as long as it is open the disk keeps its bytes.
func (c *fileCache) forget(s *segmentFile) {
	var files []vfs.File
	c.mu.Lock()
	for _, h := range []*handle{&s.handle, &s.direct} {
		h.gone = true
		if h.idle != nil {
			files = append(files, c.drop(h))
		}
	}
	c.mu.Unlock()
	for _, f := range files {
		f.Close() // as above
	}
}

// close closes every file that nobody uses, and tells how many those were.
func (c *fileCache) close() (closed int) {
	for {
		c.mu.Lock()
		if c.idle.Len() == 0 {
			c.mu.Unlock()
			return closed
		}
		f := c.drop(c.idle.Front().Value.(*handle))
		c.mu.Unlock()
		f.Close() // as above
		closed++
	}
}

// thriftyFS is the file system as a log directory uses it: when the process has no
// descriptor left, the files that nobody uses make room.
type thriftyFS struct {
	vfs.FS
	files *fileCache
}

func (fs thriftyFS) again(err error) bool { return noDescriptors(err) && fs.files.close() > 0 }

func (fs thriftyFS) OpenFile(name string, flag int, perm os.FileMode) (vfs.File, error) {
	f, err := fs.FS.OpenFile(name, flag, perm)
	if fs.again(err) {
		return fs.FS.OpenFile(name, flag, perm)
	}
	return f, err
}

func (fs thriftyFS) SyncDir(name string) error {
	err := fs.FS.SyncDir(name)
	if fs.again(err) {
		return fs.FS.SyncDir(name)
	}
	return err
}

func (fs thriftyFS) SyncAll(name string) error {
	err := fs.FS.SyncAll(name)
	if fs.again(err) {
		return fs.FS.SyncAll(name)
	}
	return err
}

func (fs thriftyFS) ReadDir(name string) ([]os.DirEntry, error) {
	entries, err := fs.FS.ReadDir(name)
	if fs.again(err) {
		return fs.FS.ReadDir(name)
	}
	return entries, err
}

// noDescriptors tells whether an operation has failed before it began.
func noDescriptors(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}
