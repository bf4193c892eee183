package vfs

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// TestHeldLeavesNothing looks at locks of all kinds without making a file or keeping a lock.
func TestHeldLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	for name, fsys := range map[string]FS{"os": OS(), "mem": NewMem()} {
		if err := fsys.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		lock := filepath.Join(dir, "lock-of-"+name)
		if held, err := Held(fsys, lock); held || err != nil {
			t.Errorf("%s: a lock that is not there: %v, %v", name, held, err)
		}
		if _, err := fsys.Stat(lock); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: looking has made it: %v", name, err)
		}
		l, err := fsys.Lock(lock)
		if err != nil {
			t.Fatal(err)
		}
		if held, err := Held(fsys, lock); !held || err != nil {
			t.Errorf("%s: held: %v, %v", name, held, err)
		}
		l.Close()
		if held, err := Held(fsys, lock); held || err != nil {
			t.Errorf("%s: let go: %v, %v", name, held, err)
		}
		if l, err = fsys.Lock(lock); err != nil {
			t.Errorf("%s: looking has kept it: %v", name, err)
		} else {
			l.Close()
		}
	}
	if held, err := Held(struct{ FS }{OS()}, dir); held || !errors.Is(err, errors.ErrUnsupported) {
		t.Error(held, err)
	}
}

func TestCached(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there is no cachestat")
	}
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, make([]byte, 100_000), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := OS().OpenFile(name, ReadOnly, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n, ok := Cached(f, 0, 100_000)
	if !ok {
		t.Skip("this kernel has no cachestat")
	}
	if n != 100_000 { // it has just been written
		t.Error(n)
	}
}
