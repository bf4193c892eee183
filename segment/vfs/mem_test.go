package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// must is for steps of a test that are not what it tests.
func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func mustOpen(t *testing.T, fsys FS, name string) File {
	t.Helper()
	f, err := fsys.OpenFile(name, ReadWrite|Create, 0o644)
	must(t, err)
	return f
}

func write(t *testing.T, f File, text string, off int64) {
	t.Helper()
	_, err := f.WriteAt([]byte(text), off)
	must(t, err)
}

// save writes a file and makes it and its name safe.
func save(t *testing.T, m *Mem, dir, name, text string) File {
	t.Helper()
	f := mustOpen(t, m, dir+"/"+name)
	write(t, f, text, 0)
	must(t, f.Sync(), m.SyncDir(dir))
	return f
}

// show lists all files with their contents, and directories, in one line.
func show(t *testing.T, m *Mem) string {
	t.Helper()
	var out []string
	var walk func(dir string)
	walk = func(dir string) {
		list, err := m.ReadDir(dir)
		must(t, err)
		for _, e := range list {
			name := strings.TrimPrefix(dir+"/"+e.Name(), "./")
			if e.IsDir() {
				out = append(out, name+"/")
				walk(name)
				continue
			}
			data, err := ReadFile(m, name)
			must(t, err)
			out = append(out, name+"="+string(data))
		}
	}
	walk(".")
	return strings.Join(out, " ")
}

func TestCrashTakesWhatWasNotSynced(t *testing.T) {
	// Each case begins with a=old, b=other and the empty directory d/, all of them safe.
	const start = "a=old b=other d/"
	tests := []struct {
		name string
		do   func(t *testing.T, m *Mem, a File)
		none string // after Crash(_, 0)
		all  string // after Crash(_, 1)
	}{
		{"nothing", func(t *testing.T, m *Mem, a File) {}, start, start},
		{"write", func(t *testing.T, m *Mem, a File) { write(t, a, "newer", 0) }, start, "a=newer b=other d/"},
		{"write and sync", func(t *testing.T, m *Mem, a File) {
			write(t, a, "newer", 0)
			must(t, a.Sync())
		}, "a=newer b=other d/", "a=newer b=other d/"},
		{"write, sync, write", func(t *testing.T, m *Mem, a File) {
			write(t, a, "newer", 0)
			must(t, a.Sync())
			write(t, a, "est", 3)
		}, "a=newer b=other d/", "a=newest b=other d/"},
		{"truncate", func(t *testing.T, m *Mem, a File) { must(t, a.Truncate(1)) }, start, "a=o b=other d/"},
		{"truncate and sync", func(t *testing.T, m *Mem, a File) { must(t, a.Truncate(1), a.Sync()) },
			"a=o b=other d/", "a=o b=other d/"},
		{"open with Trunc", func(t *testing.T, m *Mem, a File) {
			_, err := m.OpenFile("a", ReadWrite|Trunc, 0)
			must(t, err)
		}, start, "a= b=other d/"},
		{"truncate and grow again", func(t *testing.T, m *Mem, a File) { must(t, a.Truncate(1), a.Truncate(3)) },
			start, "a=o\x00\x00 b=other d/"},
		{"allocate", func(t *testing.T, m *Mem, a File) { must(t, a.Allocate(4)) }, start, "a=old\x00 b=other d/"},
		{"allocate and sync", func(t *testing.T, m *Mem, a File) { must(t, a.Allocate(4), a.Sync()) },
			"a=old\x00 b=other d/", "a=old\x00 b=other d/"},
		{"create", func(t *testing.T, m *Mem, a File) { mustOpen(t, m, "c") }, start, "a=old b=other c= d/"},
		{"create with only the file synced", func(t *testing.T, m *Mem, a File) {
			c := mustOpen(t, m, "c")
			write(t, c, "text", 0)
			must(t, c.Sync())
		}, start, "a=old b=other c=text d/"},
		{"create with only the directory synced", func(t *testing.T, m *Mem, a File) {
			write(t, mustOpen(t, m, "c"), "text", 0)
			must(t, m.SyncDir("."))
		}, "a=old b=other c= d/", "a=old b=other c=text d/"},
		{"create with another directory synced", func(t *testing.T, m *Mem, a File) {
			mustOpen(t, m, "c")
			must(t, m.SyncDir("d"))
		}, start, "a=old b=other c= d/"},
		{"remove", func(t *testing.T, m *Mem, a File) { must(t, m.Remove("a")) }, start, "b=other d/"},
		{"remove and sync", func(t *testing.T, m *Mem, a File) { must(t, m.Remove("a"), m.SyncDir(".")) },
			"b=other d/", "b=other d/"},
		{"remove and create", func(t *testing.T, m *Mem, a File) {
			must(t, m.Remove("a"))
			mustOpen(t, m, "a")
		}, start, "a= b=other d/"},
		{"rename", func(t *testing.T, m *Mem, a File) { must(t, m.Rename("a", "c")) }, start, "b=other c=old d/"},
		{"rename over another", func(t *testing.T, m *Mem, a File) { must(t, m.Rename("a", "b")) }, start, "b=old d/"},
		{"rename over another and sync", func(t *testing.T, m *Mem, a File) { must(t, m.Rename("a", "b"), m.SyncDir(".")) },
			"b=old d/", "b=old d/"},
		{"rename of what was not synced", func(t *testing.T, m *Mem, a File) {
			write(t, a, "newer", 0)
			must(t, m.Rename("a", "b"), m.SyncDir("."))
		}, "b=old d/", "b=newer d/"},
		{"rename to another directory, its sync", func(t *testing.T, m *Mem, a File) { must(t, m.Rename("a", "d/a"), m.SyncDir("d")) },
			"b=other d/ d/a=old", "b=other d/ d/a=old"},
		{"rename to another directory, sync of the old", func(t *testing.T, m *Mem, a File) { must(t, m.Rename("a", "d/a"), m.SyncDir(".")) },
			"b=other d/ d/a=old", "b=other d/ d/a=old"},
		{"two renames, the second to another directory", func(t *testing.T, m *Mem, a File) {
			must(t, m.Rename("a", "c"), m.Rename("c", "d/a"), m.SyncDir("d"))
		}, "b=other d/ d/a=old", "b=other d/ d/a=old"},
		{"file in a directory that is not synced", func(t *testing.T, m *Mem, a File) {
			must(t, m.MkdirAll("x/y", 0o755))
			save(t, m, "x/y", "f", "text")
			must(t, m.SyncDir("x"))
		}, start, "a=old b=other d/ x/ x/y/ x/y/f=text"},
		{"directory made durable", func(t *testing.T, m *Mem, a File) {
			must(t, MkdirAllDurable(m, "x/y", 0o755))
			save(t, m, "x/y", "f", "text")
		}, "a=old b=other d/ x/ x/y/ x/y/f=text", "a=old b=other d/ x/ x/y/ x/y/f=text"},
		{"directory removed with all in it", func(t *testing.T, m *Mem, a File) {
			save(t, m, "d", "f", "text")
			must(t, m.RemoveAll("d"))
		}, "a=old b=other d/ d/f=text", "a=old b=other"},
		{"write file atomic", func(t *testing.T, m *Mem, a File) { must(t, WriteFileAtomic(m, "a", []byte("new"))) },
			"a=new b=other d/", "a=new b=other d/"},
		{"open file whose name has gone", func(t *testing.T, m *Mem, a File) {
			must(t, m.Remove("a"), m.SyncDir("."))
			write(t, a, "newer", 0)
			must(t, a.Sync())
		}, "b=other d/", "b=other d/"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := NewMem()
			must(t, MkdirAllDurable(m, "d", 0o755))
			a := save(t, m, ".", "a", "old")
			save(t, m, ".", "b", "other")
			if dirty := m.Unsynced(); len(dirty) > 0 {
				t.Fatalf("dirty at first: %v", dirty)
			}
			tt.do(t, m, a)
			before := show(t, m)
			for seed := range uint64(4) {
				if got := show(t, m.Crash(seed, 0)); got != tt.none {
					t.Errorf("keeping nothing: %q, want %q", got, tt.none)
				}
				if got := show(t, m.Crash(seed, 1)); got != tt.all {
					t.Errorf("keeping all: %q, want %q", got, tt.all)
				}
			}
			if before != show(t, m) || before != tt.all {
				t.Errorf("Crash has changed the original to %q", show(t, m))
			}
			if dirty := m.Unsynced(); (len(dirty) > 0) != (tt.none != tt.all) {
				t.Errorf("dirty: %v, but a crash gives %q or %q", dirty, tt.none, tt.all)
			}
			if dirty := m.Crash(1, 0.5).Unsynced(); len(dirty) > 0 {
				t.Errorf("dirty after a crash: %v", dirty)
			}
		})
	}
}

// TestCrashTearsWrites checks that a crash takes any set of sectors, and only whole ones.
func TestCrashTearsWrites(t *testing.T) {
	m := NewMem()
	f := save(t, m, ".", "a", strings.Repeat("o", 3*SectorSize))
	write(t, f, strings.Repeat("n", 3*SectorSize), 100) // sectors 0 to 3, the last one new
	seen := map[string]bool{}
	sizes := map[int]bool{}
	for seed := range uint64(400) {
		data, err := ReadFile(m.Crash(seed, 0.5), "a")
		must(t, err)
		again, err := ReadFile(m.Crash(seed, 0.5), "a")
		must(t, err)
		if !bytes.Equal(data, again) {
			t.Fatalf("seed %d: two results", seed)
		}
		sizes[len(data)] = true
		state := ""
		for i := range 3 {
			part := data[i*SectorSize : (i+1)*SectorSize]
			if i == 0 {
				if strings.Trim(string(part[:100]), "o") != "" {
					t.Fatalf("seed %d: bytes before the write have changed", seed)
				}
				part = part[100:]
			}
			if bytes.Count(part, part[:1]) != len(part) {
				t.Fatalf("seed %d: sector %d is torn", seed, i)
			}
			state += string(part[:1])
		}
		if tail := data[3*SectorSize:]; strings.Trim(string(tail), "n") != "" && strings.Trim(string(tail), "\x00") != "" {
			t.Fatalf("seed %d: the last sector is torn: %q", seed, tail)
		}
		seen[state] = true
	}
	if len(seen) != 8 {
		t.Errorf("not all sets of sectors have come up: %v", seen)
	}
	if !sizes[3*SectorSize] || !sizes[3*SectorSize+100] || len(sizes) < 4 {
		t.Errorf("lengths: %v", sizes)
	}
}

func TestCrashKeepsRenamesWhole(t *testing.T) {
	m := NewMem()
	save(t, m, ".", "a", "1")
	must(t, m.Rename("a", "b"), m.Rename("b", "c"))
	mustOpen(t, m, "a")
	seen := map[string]bool{}
	for seed := range uint64(200) {
		seen[show(t, m.Crash(seed, 0.5))] = true
	}
	want := map[string]bool{"a=1": true, "b=1": true, "c=1": true, "a= b=1": true, "a= c=1": true}
	if fmt.Sprint(seen) != fmt.Sprint(want) {
		t.Errorf("states %v, want %v", seen, want)
	}
}

// TestCrashKeepsWhatWasSyncedAtRandom makes random writes and syncs and keeps, beside them, what
// each byte may be after a crash: what it was at the last sync, or anything written to it since.
func TestCrashKeepsWhatWasSyncedAtRandom(t *testing.T) {
	const size = 4000
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 2))
		m := NewMem()
		f := save(t, m, ".", "a", strings.Repeat("_", size))
		now, synced := bytes.Repeat([]byte("_"), size), bytes.Repeat([]byte("_"), size)
		for step := range 60 {
			if rng.IntN(5) == 0 {
				must(t, f.Sync())
				copy(synced, now)
			} else {
				at := rng.IntN(size)
				p := bytes.Repeat([]byte{byte('a' + rng.IntN(26))}, rng.IntN(size-at))
				write(t, f, string(p), int64(at))
				copy(now[at:], p)
			}
			got, err := ReadFile(m.Crash(uint64(step), 0.5), "a")
			must(t, err)
			for i := 0; i < size; i += SectorSize {
				end := min(i+SectorSize, size)
				if !bytes.Equal(got[i:end], now[i:end]) && !bytes.Equal(got[i:end], synced[i:end]) {
					t.Fatalf("seed %d step %d: the sector at %d is neither the old nor the new one", seed, step, i)
				}
			}
			if got, err := ReadFile(m.Crash(uint64(step), 0), "a"); err != nil || !bytes.Equal(got, synced) {
				t.Fatalf("seed %d step %d: what was synced is not there (%v)", seed, step, err)
			}
			if !m.Dirty("a") && !bytes.Equal(now, synced) {
				t.Fatalf("seed %d step %d: not dirty", seed, step)
			}
		}
	}
}

func TestCrashReleasesLocks(t *testing.T) {
	m := NewMem()
	_, err := m.Lock(".lock")
	must(t, err)
	after := m.Crash(1, 1)
	if _, err := after.Lock(".lock"); err != nil {
		t.Error(err)
	}
	if _, err := m.Lock(".lock"); !errors.Is(err, ErrLocked) {
		t.Errorf("the lock of the original: %v", err)
	}
}

func TestDirty(t *testing.T) {
	m := NewMem()
	must(t, m.MkdirAll("d/e", 0o755))
	f := mustOpen(t, m, "d/a")
	write(t, f, "x", 0)
	check := func(want ...string) {
		t.Helper()
		if got := m.Unsynced(); !slices.Equal(got, want) {
			t.Errorf("Unsynced = %q, want %q", got, want)
		}
		for _, name := range want {
			if !m.Dirty(name) {
				t.Errorf("%s is not dirty", name)
			}
		}
	}
	check(".", "d", "d/a")
	must(t, f.Sync())
	check(".", "d")
	must(t, m.SyncDir("."))
	check("d")
	must(t, m.SyncDir("d"))
	check()
	must(t, f.Truncate(0))
	check("d/a")
	must(t, m.Rename("d/a", "d/b"))
	check("d", "d/b")
	if m.Dirty("d/a") || m.Dirty("d/e") {
		t.Error("a name without anything to lose is dirty")
	}
}

func TestReplayGivesEveryPrefix(t *testing.T) {
	m := NewMem()
	before := save(t, m, ".", "kept", "k")
	write(t, before, "K", 0) // dirty when the record begins
	m.Record()
	type moment struct{ now, synced, dirty string }
	look := func(m *Mem) moment {
		return moment{show(t, m), show(t, m.Crash(1, 0)), strings.Join(m.Unsynced(), " ")}
	}
	moments := map[int]moment{0: look(m)}
	step := func(errs ...error) {
		t.Helper()
		must(t, errs...)
		moments[m.Ops()] = look(m)
	}
	step(m.MkdirAll("d/e", 0o755))
	f := mustOpen(t, m, "d/a")
	step()
	write(t, f, strings.Repeat("x", 1200), 10)
	step()
	step(f.Sync())
	step(f.Truncate(700))
	step(m.SyncDir("."))
	step(m.Rename("d/a", "d/e/b"))
	step(f.Allocate(900))
	step(m.SyncDir("d"))
	step(before.Sync())
	step(WriteFileAtomic(m, "kept", []byte("new")))
	step(m.RemoveAll("d"))
	step(m.SyncDir("."))
	_, err := m.OpenFile("none", ReadOnly, 0)
	if err == nil || m.Remove("none") == nil {
		t.Fatal("a file that does not exist")
	}
	step() // what fails is no operation
	for n := 0; n <= m.Ops(); n++ {
		replayed := m.Replay(n)
		want, ok := moments[n]
		if ok && look(replayed) != want {
			t.Errorf("after %d operations (%s): %+v, want %+v", n, m.Op(max(n, 1)), look(replayed), want)
		}
		if show(t, replayed.Crash(uint64(n), 0.5)) != show(t, m.Replay(n).Crash(uint64(n), 0.5)) {
			t.Errorf("after %d operations: two results of one crash", n)
		}
	}
	if len(moments) < 12 {
		t.Errorf("only %d moments compared", len(moments))
	}
	if got, want := m.Op(1), "mkdir d"; got != want {
		t.Errorf("Op(1) = %q, want %q", got, want)
	}
	m.Record()
	if m.Ops() != 0 || show(t, m.Replay(0)) != show(t, m) {
		t.Error("a second record does not begin anew")
	}
}

func TestRemoveAllIsManyOperations(t *testing.T) {
	m := NewMem()
	must(t, m.MkdirAll("d/e", 0o755))
	for _, name := range []string{"d/c", "d/a", "d/e/x", "d/f"} {
		mustOpen(t, m, name)
	}
	m.Record()
	must(t, m.RemoveAll("d"))
	var got []string
	for n := range m.Ops() {
		got = append(got, m.Op(n+1))
	}
	want := []string{"remove d/a", "remove d/c", "remove d/e/x", "remove d/e", "remove d/f", "remove d"}
	if !slices.Equal(got, want) {
		t.Errorf("operations %q, want %q", got, want)
	}
}

// TestAtomicWriteAtEveryPrefix is the use that Record is made for: whatever the moment and whatever
// is lost, the file is whole, and it is the new one once that was acknowledged.
func TestAtomicWriteAtEveryPrefix(t *testing.T) {
	m := NewMem()
	values := []string{"", strings.Repeat("1", 700), "2", strings.Repeat("3", 2000)}
	must(t, WriteFileAtomic(m, "f", []byte(values[0])))
	m.Record()
	ackedAt := []int{0}
	for _, v := range values[1:] {
		must(t, WriteFileAtomic(m, "f", []byte(v)))
		ackedAt = append(ackedAt, m.Ops())
	}
	for n := 0; n <= m.Ops(); n++ {
		acked := 0
		for i, at := range ackedAt {
			if at <= n {
				acked = i
			}
		}
		for seed := range uint64(20) {
			got, err := ReadFile(m.Replay(n).Crash(seed, 0.5), "f")
			must(t, err)
			if i := slices.Index(values, string(got)); i < acked || i > acked+1 {
				t.Fatalf("after %d operations (%s), seed %d: value %d (%d bytes), acknowledged was %d",
					n, m.Op(max(n, 1)), seed, i, len(got), acked)
			}
		}
	}
}

func TestErrorsNameTheFile(t *testing.T) {
	m := NewMem()
	_, err := m.OpenFile("some/file", ReadOnly, 0)
	var pathErr *fs.PathError
	if !errors.As(err, &pathErr) || pathErr.Path != "some/file" {
		t.Errorf("open: %v", err)
	}
	for name, err := range map[string]error{
		"remove of the root": m.Remove("/"), "removal of all": m.RemoveAll("."), "rename of the root": m.Rename("/", "a"),
	} {
		if !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSpaceIsWhatWasSet(t *testing.T) {
	m := NewMem()
	m.SetSpace(42, 43)
	if free, total, err := m.Crash(1, 1).Space("."); free != 42 || total != 43 || err != nil {
		t.Errorf("Space = %d, %d, %v", free, total, err)
	}
}
