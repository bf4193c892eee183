package vfs

import "errors"

// Held tells whether a lock file is held, by whoever: with flock, as Lock does it, or with fcntl, as Java does. It
// writes nothing, so that it works on a read-only disk; a file that is missing is held by nobody. What
// somebody does a moment later it cannot know. For an instant it stands in the way of a Lock of the same file. A file system that
// cannot tell gives errors.ErrUnsupported.
func Held(fsys FS, name string) (bool, error) {
	if h, ok := fsys.(interface {
		Held(name string) (bool, error)
	}); ok {
		return h.Held(name)
	}
	return false, errors.ErrUnsupported
}

// Cached tells how many of the n bytes at off of a file are in the page cache, so that reading
// them past it would be slower; ok is false where nobody knows.
func Cached(f File, off, n int64) (cached int64, ok bool) {
	if c, able := f.(interface {
		cached(off, n int64) (int64, bool)
	}); able {
		return c.cached(off, n)
	}
	return 0, false
}
