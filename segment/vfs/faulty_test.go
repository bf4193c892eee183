package vfs

import (
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
)

func TestFaultsHitWhatTheyDescribe(t *testing.T) {
	errDisk := errors.New("disk on fire")
	// Each case makes the operations open a.log, write it, sync it, write it, sync it, open b.log, write b.log;
	// hit tells by their place which of them fail. What is opened there is closed at once.
	tests := []struct {
		name  string
		fault Fault
		hit   string
	}{
		{"a kind", Fault{Op: OpSync, Err: errDisk}, "..x.x.."},
		{"the first of a kind", Fault{Op: OpSync, Nth: 1, Err: errDisk}, "..x...."},
		{"the second of a kind", Fault{Op: OpWrite, Nth: 2, Err: errDisk}, "...x..."},
		{"from the second on", Fault{Op: OpWrite, Nth: -2, Err: errDisk}, "...x..x"},
		{"a name", Fault{Op: OpWrite, Path: "b*", Err: errDisk}, "......x"},
		{"the first of a name", Fault{Op: OpWrite, Path: "b.log", Nth: 1, Err: errDisk}, "......x"},
		{"a whole name", Fault{Path: "dir/a.log", Err: errDisk}, "xxxxx.."},
		{"a whole pattern", Fault{Op: OpOpen, Path: "*/*.log", Err: errDisk}, "x....x."},
		{"any operation, the third", Fault{Nth: 3, Err: errDisk}, ".x....."}, // after open and its close
		{"a name that is not there", Fault{Path: "c.log", Err: errDisk}, "......."},
		{"another directory", Fault{Path: "other/*", Err: errDisk}, "......."},
		{"a kind that is not made", Fault{Op: OpTruncate, Err: errDisk}, "......."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := NewMem()
			must(t, m.MkdirAll("dir", 0o755))
			fsys := NewFaulty(m)
			a, b := mustOpen(t, fsys, "dir/a.log"), mustOpen(t, fsys, "dir/b.log")
			fsys.Inject(tt.fault)
			open := func(name string) error {
				f, err := fsys.OpenFile(name, ReadWrite, 0)
				if err == nil {
					f.Close()
				}
				return err
			}
			write := func(f File) error {
				_, err := f.WriteAt([]byte("x"), 0)
				return err
			}
			hit := ""
			for _, do := range []func() error{
				func() error { return open("dir/a.log") },
				func() error { return write(a) },
				a.Sync,
				func() error { return write(a) },
				a.Sync,
				func() error { return open("dir/b.log") },
				func() error { return write(b) },
			} {
				switch err := do(); {
				case err == nil:
					hit += "."
				case errors.Is(err, errDisk) && strings.Contains(err.Error(), ".log"):
					hit += "x"
				default:
					t.Errorf("unexpected: %v", err)
				}
			}
			if hit != tt.hit {
				t.Errorf("hit %s, want %s", hit, tt.hit)
			}
			fsys.Heal()
			must(t, a.Sync(), write(b))
		})
	}
}

func TestEveryKindFailsAndCounts(t *testing.T) {
	kinds := map[Op]func(fsys FS, f File) error{
		OpOpen:     func(fsys FS, f File) error { _, err := fsys.OpenFile("a", ReadOnly, 0); return err },
		OpMkdir:    func(fsys FS, f File) error { return fsys.MkdirAll("a", 0o755) },
		OpRemove:   func(fsys FS, f File) error { return fsys.Remove("a") },
		OpRename:   func(fsys FS, f File) error { return fsys.Rename("a", "b") },
		OpReadDir:  func(fsys FS, f File) error { _, err := fsys.ReadDir("a"); return err },
		OpStat:     func(fsys FS, f File) error { _, err := fsys.Stat("a"); return err },
		OpSyncDir:  func(fsys FS, f File) error { return fsys.SyncDir("a") },
		OpLock:     func(fsys FS, f File) error { _, err := fsys.Lock("a"); return err },
		OpSpace:    func(fsys FS, f File) error { _, _, err := fsys.Space("a"); return err },
		OpRead:     func(fsys FS, f File) error { _, err := f.ReadAt(make([]byte, 1), 0); return err },
		OpWrite:    func(fsys FS, f File) error { _, err := f.WriteAt([]byte("x"), 0); return err },
		OpTruncate: func(fsys FS, f File) error { return f.Truncate(1) },
		OpAllocate: func(fsys FS, f File) error { return f.Allocate(100) },
		OpSync:     func(fsys FS, f File) error { return f.Sync() },
		OpSize:     func(fsys FS, f File) error { _, err := f.Size(); return err },
		OpClose:    func(fsys FS, f File) error { return f.Close() },
	}
	if len(kinds) != len(opNames)-1 {
		t.Fatalf("%d kinds tested of %d", len(kinds), len(opNames)-1)
	}
	run := func(op Op, do func(fsys FS, f File) error) {
		t.Run(op.String(), func(t *testing.T) {
			m := NewMem()
			fsys := NewFaulty(m)
			f := mustOpen(t, fsys, "a")
			write(t, f, "text", 0)
			before, count := show(t, m), fsys.Count(op, "")
			fsys.Inject(Fault{Op: op})
			if err := do(fsys, f); !errors.Is(err, ErrInjected) || !strings.Contains(err.Error(), op.String()) {
				t.Errorf("error %v", err)
			}
			if show(t, m) != before {
				t.Errorf("it has done something: %s, before %s", show(t, m), before)
			}
			if n := fsys.Count(op, "a"); n != count+1 {
				t.Errorf("count %d, before %d", n, count)
			}
		})
	}
	for op, do := range kinds {
		run(op, do)
	}
	run(OpRemove, func(fsys FS, f File) error { return fsys.RemoveAll("a") })
	run(OpWrite, func(fsys FS, f File) error { _, err := f.WriteVAt([][]byte{{1}, {2}}, 0); return err })
}

func TestCount(t *testing.T) {
	fsys := NewFaulty(NewMem())
	must(t, fsys.MkdirAll("d", 0o755))
	for _, name := range []string{"d/a.log", "d/b.log", "d/b.index"} {
		must(t, mustOpen(t, fsys, name).Sync())
	}
	must(t, mustOpen(t, fsys, "d/a.log").Sync(), fsys.Rename("d/a.log", "d/c.log"))
	for _, tt := range []struct {
		op      Op
		pattern string
		want    int
	}{
		{OpSync, "", 4}, {OpSync, "a.log", 2}, {OpSync, "*.log", 3}, {OpSync, "d/b.*", 2}, {OpSync, "e/*", 0},
		{OpWrite, "", 0}, {OpAny, "a.log", 5}, {OpAny, "", 10}, {OpRename, "a.log", 1}, {OpRename, "c.log", 0},
	} {
		if got := fsys.Count(tt.op, tt.pattern); got != tt.want {
			t.Errorf("Count(%v, %q) = %d, want %d", tt.op, tt.pattern, got, tt.want)
		}
	}
}

// TestFaultsCountSideBySide checks that the second write is the second, though another fault has taken the first.
func TestFaultsCountSideBySide(t *testing.T) {
	fsys := NewFaulty(NewMem(),
		Fault{Op: OpWrite, Nth: 1, Err: syscall.EIO},
		Fault{Op: OpWrite, Nth: 2, Err: syscall.ENOSPC},
		Fault{Op: OpWrite, Nth: 2, Err: syscall.EROFS}) // comes too late
	f := mustOpen(t, fsys, "a")
	for i, want := range []error{syscall.EIO, syscall.ENOSPC, nil} {
		if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, want) {
			t.Errorf("write %d: %v, want %v", i+1, err, want)
		}
	}
}

func TestRenameMatchesEitherName(t *testing.T) {
	fsys := NewFaulty(NewMem(), Fault{Op: OpRename, Path: "*.final", Err: syscall.EIO})
	mustOpen(t, fsys, "a")
	if err := fsys.Rename("a", "b.final"); !errors.Is(err, syscall.EIO) {
		t.Errorf("error %v", err)
	}
	must(t, fsys.Rename("a", "b"))
}

func TestShortWrite(t *testing.T) {
	tests := []struct {
		name  string
		fault Fault
		n     int
		err   error
	}{
		{"some", Fault{Short: 4}, 4, io.ErrShortWrite},
		{"with an error", Fault{Short: 4, Err: syscall.ENOSPC}, 4, syscall.ENOSPC},
		{"more than there is", Fault{Short: 100}, 5, io.ErrShortWrite},
		{"nothing", Fault{Err: syscall.ENOSPC}, 0, syscall.ENOSPC},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := NewMem()
			tt.fault.Op = OpWrite
			fsys := NewFaulty(m, tt.fault)
			for name, do := range map[string]func(f File) (int, error){
				"at":      func(f File) (int, error) { return f.WriteAt([]byte("abcdef"), 0) },
				"vectors": func(f File) (int, error) { return f.WriteVAt([][]byte{[]byte("ab"), []byte("cdef")}, 0) },
			} {
				n, err := do(mustOpen(t, fsys, name))
				if n != tt.n || !errors.Is(err, tt.err) {
					t.Errorf("%s: %d, %v; want %d, %v", name, n, err, tt.n, tt.err)
				}
				data, err := ReadFile(m, name)
				if string(data) != "abcdef"[:tt.n] || err != nil {
					t.Errorf("%s: wrote %q, %v", name, data, err)
				}
			}
		})
	}
}

func TestStall(t *testing.T) {
	for _, failing := range []error{nil, syscall.EIO} {
		synctest.Test(t, func(t *testing.T) {
			m := NewMem()
			release := make(chan struct{})
			fsys := NewFaulty(m, Fault{Op: OpSync, Path: "a", Nth: 1, Stall: release, Err: failing})
			f := save(t, m, ".", "a", "old")
			must(t, f.Close())
			f = mustOpen(t, fsys, "a")
			write(t, f, "new", 0)
			done := make(chan error, 1)
			go func() { done <- f.Sync() }()
			synctest.Wait()
			if fsys.Stalled() != 1 || len(done) != 0 || !m.Dirty("a") {
				t.Fatalf("stalled %d, done %d, dirty %v", fsys.Stalled(), len(done), m.Dirty("a"))
			}
			must(t, mustOpen(t, fsys, "b").Sync()) // others go on
			fsys.Heal()
			synctest.Wait()
			if fsys.Stalled() != 1 {
				t.Error("Heal has let go of it")
			}
			close(release)
			if err := <-done; !errors.Is(err, failing) {
				t.Errorf("error %v, want %v", err, failing)
			}
			if fsys.Stalled() != 0 || m.Dirty("a") != (failing != nil) {
				t.Errorf("stalled %d, dirty %v", fsys.Stalled(), m.Dirty("a"))
			}
		})
	}
}

// TestDoSeesTheMomentBefore takes the crash that happens right before the second rename.
func TestDoSeesTheMomentBefore(t *testing.T) {
	m := NewMem()
	var crashed *Mem
	fsys := NewFaulty(m, Fault{Op: OpRename, Nth: 2, Do: func() { crashed = m.Crash(1, 0) }})
	must(t, WriteFileAtomic(fsys, "f", []byte("one")), WriteFileAtomic(fsys, "f", []byte("two")))
	if got := show(t, crashed); got != "f=one" {
		t.Errorf("at the rename: %q", got)
	}
	if got := show(t, m); got != "f=two" {
		t.Errorf("in the end: %q", got)
	}
}

// TestFailedSyncLosesTrack shows the trap: the second sync succeeds and saves nothing of what the
// first one was to save, while reads still show it.
func TestFailedSyncLosesTrack(t *testing.T) {
	m := NewMem()
	save(t, m, ".", "a", strings.Repeat("o", 2*SectorSize))
	fsys := NewFaulty(NewFaulty(m, Fault{Op: OpSync, Nth: 1, Err: syscall.EIO})) // through any number of wrappers
	f := mustOpen(t, fsys, "a")
	write(t, f, strings.Repeat("n", 2*SectorSize), 0)
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("error %v", err)
	}
	write(t, f, strings.Repeat("N", SectorSize), SectorSize) // written again: saved by the next sync
	must(t, f.Sync())
	old, first, second := strings.Repeat("o", SectorSize), strings.Repeat("n", SectorSize), strings.Repeat("N", SectorSize)
	if got := show(t, m); got != "a="+first+second {
		t.Errorf("read: %q", got)
	}
	if got := show(t, m.Crash(1, 0)); got != "a="+old+second {
		t.Errorf("after a crash: %q", got)
	}
	if !m.Dirty("a") {
		t.Error("not dirty")
	}
}

func TestAtomicWriteFails(t *testing.T) {
	for _, op := range []Op{OpOpen, OpWrite, OpSync, OpClose, OpRename, OpSyncDir} {
		for _, short := range []int{0, 3} {
			m := NewMem()
			must(t, WriteFileAtomic(m, "f", []byte("old")))
			fsys := NewFaulty(m, Fault{Op: op, Err: syscall.EIO, Short: short})
			if err := WriteFileAtomic(fsys, "f", []byte("newer")); !errors.Is(err, syscall.EIO) {
				t.Errorf("%v: error %v", op, err)
			}
			want := "f=old"
			if op == OpSyncDir {
				want = "f=newer" // there, but not known to be safe
			}
			if got := show(t, m); got != want {
				t.Errorf("%v: %q, want %q", op, got, want)
			}
		}
	}
}

func TestBadPatternPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	NewFaulty(NewMem(), Fault{Path: "[a"})
}
