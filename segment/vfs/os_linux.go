package vfs

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// maxVectors is IOV_MAX of Linux: how many buffers one pwritev takes.
const maxVectors = 1024

// directFlag opens a file past the page cache.
const directFlag = unix.O_DIRECT

// control calls fn with the descriptor, again while a signal interrupts it.
func (f *osFile) control(op string, fn func(fd int) error) error {
	var err error
	closed := f.raw.Control(func(fd uintptr) {
		for {
			if err = fn(int(fd)); err != unix.EINTR {
				return
			}
		}
	})
	if closed != nil {
		err = os.ErrClosed
	}
	if err != nil {
		return &os.PathError{Op: op, Path: f.Name(), Err: err}
	}
	return nil
}

// WriteVAt writes with pwritev, going on where the kernel has stopped short.
func (f *osFile) WriteVAt(bufs [][]byte, off int64) (int, error) {
	if off < 0 {
		return 0, &os.PathError{Op: "pwritev", Path: f.Name(), Err: unix.EINVAL}
	}
	total := 0
	rest := append(make([][]byte, 0, len(bufs)), bufs...)
	for rest = skip(rest, 0); len(rest) > 0; {
		n := 0
		err := f.control("pwritev", func(fd int) (err error) {
			n, err = unix.Pwritev(fd, rest[:min(len(rest), maxVectors)], off+int64(total))
			return err
		})
		if err != nil {
			return total, err
		}
		if n <= 0 {
			return total, &os.PathError{Op: "pwritev", Path: f.Name(), Err: io.ErrShortWrite}
		}
		total += n
		rest = skip(rest, n)
	}
	return total, nil
}

// skip drops the first n bytes and the buffers that are empty then; it changes the slice it is given.
func skip(bufs [][]byte, n int) [][]byte {
	for len(bufs) > 0 && n >= len(bufs[0]) {
		n -= len(bufs[0])
		bufs = bufs[1:]
	}
	if n > 0 {
		bufs[0] = bufs[0][n:]
	}
	return bufs
}

// Sync is fdatasync: it leaves out the times, which would cost a second write.
func (f *osFile) Sync() error { return f.control("fdatasync", unix.Fdatasync) }

// Allocate is fallocate, or ftruncate where the file system does not know it.
func (f *osFile) Allocate(size int64) error {
	if size == 0 { // fallocate takes no empty range
		return nil
	}
	err := f.control("fallocate", func(fd int) error { return unix.Fallocate(fd, 0, 0, size) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return f.extend(size)
	}
	return err
}

// syncFS is syncfs. Since Linux 5.8 it tells of errors that nobody has been told of.
func syncFS(d *os.File) error {
	for {
		err := unix.Syncfs(int(d.Fd()))
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return &os.PathError{Op: "syncfs", Path: d.Name(), Err: err}
		}
	}
}
