package segment

import (
	"container/list"
	"os"
	"sync"

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
	idle list.List // of *segmentFile, least recently used first
}

// handle is a segment file's entry in the cache.
type handle struct {
	file vfs.File
	refs int
	idle *list.Element // set while refs == 0 and file is open
}

// acquire opens the log file of s, or shares the one that is open. Every
// acquire is followed by one release.
func (c *fileCache) acquire(s *segmentFile) (vfs.File, error) {
	if f := c.share(s); f != nil {
		return f, nil
	}
	f, err := c.fs.OpenFile(s.name(".log"), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return c.adopt(s, f), nil
}

func (c *fileCache) share(s *segmentFile) vfs.File {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.handle.file == nil {
		return nil
	}
	c.use(s)
	return s.handle.file
}

// use counts one more user; c.mu is held.
func (c *fileCache) use(s *segmentFile) {
	s.handle.refs++
	if s.handle.idle != nil {
		c.idle.Remove(s.handle.idle)
		s.handle.idle = nil
	}
}

// adopt puts a file that was just opened into the cache, or closes it when
// another goroutine was faster.
func (c *fileCache) adopt(s *segmentFile, f vfs.File) vfs.File {
	var surplus []vfs.File
	c.mu.Lock()
	if s.handle.file != nil {
		surplus = append(surplus, f)
	} else {
		s.handle.file = f
		c.open++
	}
	c.use(s)
	f = s.handle.file
	for c.open > c.limit && c.idle.Len() > 0 {
		surplus = append(surplus, c.drop(c.idle.Front().Value.(*segmentFile)))
	}
	c.mu.Unlock()
	for _, f := range surplus {
		f.Close() // nothing unsynced is in a file that nobody uses
	}
	return f
}

// drop takes an idle file out of the cache; c.mu is held, the caller closes it.
func (c *fileCache) drop(s *segmentFile) vfs.File {
	f := s.handle.file
	c.idle.Remove(s.handle.idle)
	s.handle.idle, s.handle.file = nil, nil
	c.open--
	return f
}

func (c *fileCache) release(s *segmentFile) {
	c.mu.Lock()
	s.handle.refs--
	if s.handle.refs == 0 {
		s.handle.idle = c.idle.PushBack(s)
	}
	c.mu.Unlock()
}

// forget closes the file of s when nobody uses it; otherwise it is closed in
// its turn, as the least recently used.
func (c *fileCache) forget(s *segmentFile) error {
	c.mu.Lock()
	var f vfs.File
	if s.handle.idle != nil {
		f = c.drop(s)
	}
	c.mu.Unlock()
	if f == nil {
		return nil
	}
	return f.Close()
}

// close closes every file that nobody uses.
func (c *fileCache) close() error {
	var first error
	for {
		c.mu.Lock()
		if c.idle.Len() == 0 {
			c.mu.Unlock()
			return first
		}
		f := c.drop(c.idle.Front().Value.(*segmentFile))
		c.mu.Unlock()
		if err := f.Close(); err != nil && first == nil {
			first = err
		}
	}
}
