package vfs

import (
	"errors"
	"io/fs"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

func TestAllocateReservesBlocks(t *testing.T) {
	const size = 1 << 20
	f := mustOpen(t, OS(), filepath.Join(t.TempDir(), "a"))
	defer f.Close()
	must(t, f.Allocate(size))
	info, err := OS().Stat(f.Name())
	must(t, err)
	st := info.Sys().(*syscall.Stat_t)
	if st.Blocks == 0 {
		t.Skip("this file system does not know fallocate")
	}
	if st.Blocks*512 < size {
		t.Errorf("%d bytes reserved, want %d", st.Blocks*512, size)
	}
}

// TestExtend is Allocate where fallocate is not known.
func TestExtend(t *testing.T) {
	f := mustOpen(t, OS(), filepath.Join(t.TempDir(), "a"))
	defer f.Close()
	for _, step := range []struct{ to, want int64 }{{100, 100}, {50, 100}, {200, 200}} {
		must(t, f.(*osFile).extend(step.to))
		if size, err := f.Size(); size != step.want || err != nil {
			t.Errorf("extend to %d: %d, %v", step.to, size, err)
		}
	}
}

func TestFullDisk(t *testing.T) {
	f, err := OS().OpenFile("/dev/full", WriteOnly, 0)
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	n, err := f.WriteVAt([][]byte{{1}, {2}}, 0)
	var pathErr *fs.PathError
	if n != 0 || !errors.Is(err, syscall.ENOSPC) || !errors.As(err, &pathErr) || pathErr.Path != "/dev/full" {
		t.Errorf("%d, %v", n, err)
	}
}

// TestCloseDuringUse is for the race detector, and for descriptors that are used after they belong to another file.
func TestCloseDuringUse(t *testing.T) {
	for name, fsys := range map[string]FS{"OS": OS(), "Mem": NewMem(), "Faulty": NewFaulty(NewMem())} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, fsys.MkdirAll(dir, 0o755))
			f := mustOpen(t, fsys, dir+"/a")
			var users sync.WaitGroup
			for i := range 4 {
				users.Go(func() {
					for {
						_, err := f.WriteVAt([][]byte{{1, 2}, {3}}, int64(i*3))
						if err == nil {
							_, err = f.ReadAt(make([]byte, 3), int64(i*3))
						}
						if err == nil && i == 0 {
							err = f.Sync()
						}
						if err != nil {
							if !errors.Is(err, fs.ErrClosed) {
								t.Error(err)
							}
							return
						}
					}
				})
			}
			must(t, f.Close())
			users.Wait()
		})
	}
}

func TestSkip(t *testing.T) {
	text := func(bufs [][]byte) (s string) {
		for _, b := range bufs {
			s += string(b) + "|"
		}
		return s
	}
	for n, want := range []string{"ab|c||def|", "b|c||def|", "c||def|", "def|", "ef|", "f|", ""} {
		bufs := [][]byte{nil, []byte("ab"), []byte("c"), {}, []byte("def")}
		if got := text(skip(bufs, n)); got != want {
			t.Errorf("skip %d: %q, want %q", n, got, want)
		}
	}
}
