package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"strings"
	"syscall"
	"testing"
)

// script drives one file system and writes down what it answered, so that two of them can be compared.
type script struct {
	t    *testing.T
	fs   FS
	root string
	log  strings.Builder
}

func (s *script) in(name string) string { return path.Join(s.root, name) }

// say writes a line; errors are reduced to what callers may rely on.
func (s *script) say(format string, args ...any) {
	for i, a := range args {
		if err, ok := a.(error); ok {
			args[i] = errorClass(err)
		}
	}
	fmt.Fprintf(&s.log, format+"\n", args...)
}

func errorClass(err error) string {
	for _, class := range []error{io.EOF, fs.ErrNotExist, fs.ErrExist, fs.ErrClosed, ErrLocked, ErrAppendFlag,
		syscall.ENOTEMPTY, syscall.ENOTDIR, syscall.EISDIR, syscall.EINVAL, syscall.EBADF} {
		if errors.Is(err, class) {
			return class.Error()
		}
	}
	return "some error: " + err.Error()
}

// tree lists everything, with the contents of files.
func (s *script) tree(name string) {
	list, err := s.fs.ReadDir(s.in(name))
	if err != nil {
		s.say("%s: %v", name, err)
		return
	}
	for _, e := range list {
		child := path.Join(name, e.Name())
		if e.IsDir() {
			s.say("%s/", child)
			s.tree(child)
			continue
		}
		data, err := ReadFile(s.fs, s.in(child))
		info, err2 := s.fs.Stat(s.in(child))
		if err != nil || err2 != nil {
			s.say("%s: %v %v", child, err, err2)
			continue
		}
		s.say("%s %d %s %q", info.Name(), info.Size(), info.Mode().Type(), data)
	}
}

func (s *script) open(name string, flag int) File {
	f, err := s.fs.OpenFile(s.in(name), flag, 0o644)
	s.say("open %s %v", name, err)
	if err != nil {
		return nil
	}
	s.t.Cleanup(func() { f.Close() })
	if f.Name() != s.in(name) {
		s.t.Errorf("Name = %q, want %q", f.Name(), s.in(name))
	}
	return f
}

// compare runs a script on the real file system and in memory.
func compare(t *testing.T, run func(s *script)) {
	t.Helper()
	real := &script{t: t, fs: OS(), root: t.TempDir()}
	run(real)
	mem := NewMem()
	if err := mem.MkdirAll("some/where", 0o755); err != nil {
		t.Fatal(err)
	}
	inMem := &script{t: t, fs: mem, root: "/some/where"}
	run(inMem)
	faulty := &script{t: t, fs: NewFaulty(mem), root: "/some/other"} // without faults it must not be seen
	if err := mem.MkdirAll("some/other", 0o755); err != nil {
		t.Fatal(err)
	}
	run(faulty)
	want := strings.Split(real.log.String(), "\n")
	for name, got := range map[string]string{"Mem": inMem.log.String(), "Faulty": faulty.log.String()} {
		for i, line := range strings.Split(got, "\n") {
			if i >= len(want) || line != want[i] {
				t.Errorf("%s, line %d: %q; OS says %q", name, i, line, want[min(i, len(want)-1)])
				break
			}
		}
	}
	if testing.Verbose() {
		t.Log("\n" + real.log.String())
	}
}

var sameTests = []struct {
	name string
	run  func(s *script)
}{
	{"create, write, read", func(s *script) {
		f := s.open("a", ReadWrite|Create|Exclusive)
		n, err := f.WriteAt([]byte("hello"), 3)
		s.say("%d %v", n, err)
		for _, at := range []int64{0, 6, 8, 100} {
			p := make([]byte, 4)
			n, err := f.ReadAt(p, at)
			s.say("read at %d: %d %q %v", at, n, p[:n], err)
		}
		if _, err := f.ReadAt(make([]byte, 4), -1); err == nil {
			s.t.Error("read at a negative offset")
		}
		n, err = f.WriteAt([]byte("x"), -1)
		if err == nil {
			s.t.Error("write at a negative offset")
		}
		s.say("%d", n)
		size, err := f.Size()
		s.say("%d %v %v", size, err, f.Sync())
		s.tree(".")
	}},
	{"flags", func(s *script) {
		s.open("missing", ReadWrite)
		s.open("no/dir", ReadWrite|Create)
		s.open("a", ReadWrite|Create|os.O_APPEND)
		f := s.open("a", ReadWrite|Create)
		f.WriteAt([]byte("full"), 0)
		s.open("a", ReadWrite|Create|Exclusive)
		s.open("a", ReadOnly|Create)
		s.tree(".")
		s.open("a", WriteOnly|Trunc)
		s.tree(".")
		s.open("a/b", ReadWrite|Create)
		s.open(".", ReadOnly)
		s.open(".", ReadWrite)
		w := s.open("a", WriteOnly)
		_, err := w.ReadAt(make([]byte, 1), 0)
		s.say("read of a write-only file: %v", err)
		r := s.open("a", ReadOnly)
		_, err = r.WriteAt([]byte("x"), 0)
		s.say("write to a read-only file: %v", err)
		_, err = r.WriteVAt([][]byte{{1}}, 0)
		s.say("vectors to a read-only file: %v", err)
	}},
	{"vectors", func(s *script) {
		f := s.open("a", ReadWrite|Create)
		var bufs [][]byte
		for i := range 3000 { // more than one system call takes
			bufs = append(bufs, nil, fmt.Appendf(nil, "<%d>", i))
		}
		n, err := f.WriteVAt(bufs, 7)
		s.say("%d %v", n, err)
		n, err = f.WriteVAt(nil, 7)
		s.say("%d %v", n, err)
		n, err = f.WriteVAt([][]byte{nil, {}}, 7)
		s.say("%d %v", n, err)
		if _, err := f.WriteVAt([][]byte{{1}}, -1); err == nil {
			s.t.Error("write at a negative offset")
		}
		if string(bufs[1]) != "<0>" || string(bufs[5999]) != "<2999>" {
			s.t.Error("the buffers were changed")
		}
		s.tree(".")
	}},
	{"truncate and allocate", func(s *script) {
		f := s.open("a", ReadWrite|Create)
		f.WriteAt([]byte(strings.Repeat("0123456789", 120)), 0)
		for _, size := range []int64{1100, 1030, 1024, 513, 2000, 0, 3} {
			s.say("truncate to %d: %v", size, f.Truncate(size))
			s.tree(".")
		}
		s.say("truncate to -1: %v", f.Truncate(-1))
		f.WriteAt([]byte("data"), 0)
		for _, size := range []int64{0, 2, 1000, 500, 5000} {
			s.say("allocate to %d: %v", size, f.Allocate(size))
			s.tree(".")
		}
		s.say("allocate to -1: %v", f.Allocate(-1))
	}},
	{"closed", func(s *script) {
		f := s.open("a", ReadWrite|Create)
		s.say("close %v", f.Close())
		s.say("close %v", f.Close())
		_, err := f.ReadAt(make([]byte, 1), 0)
		s.say("read %v", err)
		_, err = f.WriteAt([]byte("x"), 0)
		s.say("write %v", err)
		_, err = f.WriteVAt([][]byte{{1}}, 0)
		s.say("vectors %v", err)
		_, err = f.Size()
		s.say("size %v", err)
		s.say("%v %v %v", f.Truncate(0), f.Allocate(1), f.Sync())
	}},
	{"directories", func(s *script) {
		s.say("%v", s.fs.MkdirAll(s.in("a/b/c"), 0o755))
		s.say("%v", s.fs.MkdirAll(s.in("a/b"), 0o755))
		s.open("a/b/file", ReadWrite|Create)
		s.say("%v", s.fs.MkdirAll(s.in("a/b/file"), 0o755))
		s.say("%v", s.fs.MkdirAll(s.in("a/b/file/d"), 0o755))
		s.say("remove of a full one: %v", s.fs.Remove(s.in("a/b")))
		s.say("remove of an empty one: %v", s.fs.Remove(s.in("a/b/c")))
		s.say("remove of nothing: %v", s.fs.Remove(s.in("a/b/c")))
		for _, name := range []string{"a", "a/b/file", "a/none", "a/b/file/x"} {
			s.say("syncdir %s: %v", name, s.fs.SyncDir(s.in(name)))
			_, err := s.fs.Stat(s.in(name))
			s.say("stat %s: %v", name, err)
			_, err = s.fs.ReadDir(s.in(name))
			s.say("readdir %s: %v", name, err)
		}
		s.tree(".")
		s.say("%v", s.fs.RemoveAll(s.in("a")))
		s.say("%v", s.fs.RemoveAll(s.in("a")))
		s.say("%v", s.fs.RemoveAll(s.in("none/deep")))
		s.tree(".")
	}},
	{"rename", func(s *script) {
		s.fs.MkdirAll(s.in("dir/sub"), 0o755)
		s.fs.MkdirAll(s.in("full"), 0o755)
		s.open("full/x", ReadWrite|Create)
		for _, name := range []string{"a", "b", "dir/c"} {
			s.open(name, ReadWrite|Create).WriteAt([]byte(name), 0)
		}
		for _, names := range [][2]string{
			{"none", "a"}, {"a", "a"}, {"a", "b"}, {"b", "dir/b"}, {"dir/c", "dir"}, {"dir", "dir/sub/in"}, {"dir", "dir"},
			{"dir", "full"}, {"dir", "full/x"}, {"dir", "moved"}, {"moved/b", "none/b"}, {"none", "full"}, {"moved", "moved2"},
		} {
			s.say("rename %v: %v", names, s.fs.Rename(s.in(names[0]), s.in(names[1])))
			s.tree(".")
		}
	}},
	{"open files outlive their names", func(s *script) {
		f := s.open("a", ReadWrite|Create)
		f.WriteAt([]byte("old"), 0)
		s.say("%v", s.fs.Rename(s.in("a"), s.in("b")))
		f.WriteAt([]byte("new"), 3)
		s.tree(".")
		s.say("%v", s.fs.Remove(s.in("b")))
		p := make([]byte, 6)
		n, err := f.ReadAt(p, 0)
		s.say("%q %v %v", p[:n], err, f.Sync())
		s.tree(".")
	}},
	{"locks", func(s *script) {
		l, err := s.fs.Lock(s.in(".lock"))
		s.say("%v", err)
		_, err = s.fs.Lock(s.in(".lock"))
		s.say("%v", err)
		if err == nil || !strings.Contains(err.Error(), s.in(".lock")) {
			s.t.Errorf("the error does not name the file: %v", err)
		}
		other, err := s.fs.Lock(s.in("other"))
		s.say("%v %v %v", err, other.Close(), other.Close())
		_, err = s.fs.Lock(s.in("none/.lock"))
		s.say("%v", err)
		s.say("%v", l.Close())
		l, err = s.fs.Lock(s.in(".lock"))
		s.say("%v %v", err, l.Close())
		s.tree(".")
	}},
	{"free space", func(s *script) {
		free, total, err := s.fs.Space(s.root)
		s.say("%v %v %v", free > 0, total >= free, err)
		_, _, err = s.fs.Space(s.in("none"))
		s.say("%v", err)
	}},
	{"helpers", func(s *script) {
		_, err := ReadFile(s.fs, s.in("f"))
		s.say("%v", err)
		for _, text := range []string{"one", "", "three"} {
			s.say("%v", WriteFileAtomic(s.fs, s.in("f"), []byte(text)))
			s.tree(".")
		}
		s.say("%v", WriteFileAtomic(s.fs, s.in("none/f"), nil))
		s.say("%v", MkdirAllDurable(s.fs, s.in("x/y/z"), 0o755))
		s.say("%v", MkdirAllDurable(s.fs, s.in("x/y/z"), 0o755))
		s.say("%v", MkdirAllDurable(s.fs, s.in("f/y"), 0o755))
		s.say("%v", WriteFileAtomic(s.fs, s.in("x"), nil))
		s.tree(".")
	}},
}

func TestSameOutcomeOnDiskAndInMemory(t *testing.T) {
	for _, tt := range sameTests {
		t.Run(tt.name, func(t *testing.T) { compare(t, tt.run) })
	}
}

// TestSameOutcomeAtRandom makes random operations on few names, so that they meet.
func TestSameOutcomeAtRandom(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			compare(t, func(s *script) { randomScript(s, rand.New(rand.NewPCG(seed, 1)), 120) })
		})
	}
}

func randomScript(s *script, rng *rand.Rand, steps int) {
	names := []string{"a", "b", "d", "d/a", "d/b", "d/e", "d/e/a"}
	name := func() string { return names[rng.IntN(len(names))] }
	var files []File
	for range steps {
		if rng.IntN(4) > 0 && len(files) > 0 {
			f := files[rng.IntN(len(files))]
			at, length := rng.Int64N(3000), rng.IntN(1500)
			switch rng.IntN(5) {
			case 0, 1:
				p := []byte(strings.Repeat(string(rune('a'+rng.IntN(26))), length))
				n, err := f.WriteVAt([][]byte{p[:length/3], p[length/3:]}, at)
				s.say("write %d at %d: %d %v", length, at, n, err)
			case 2:
				p := make([]byte, length)
				n, err := f.ReadAt(p, at)
				s.say("read %d at %d: %q %v", length, at, p[:n], err)
			case 3:
				s.say("truncate %d: %v", at, f.Truncate(at))
			case 4:
				s.say("allocate %d: %v", at, f.Allocate(at))
			}
			continue
		}
		switch rng.IntN(8) {
		case 0, 1, 2:
			flag := []int{0, Create, Create | Trunc, Create | Exclusive}[rng.IntN(4)]
			if f := s.open(name(), ReadWrite|flag); f != nil {
				files = append(files, f)
			}
		case 3:
			n := name()
			s.say("mkdir %s: %v", n, s.fs.MkdirAll(s.in(n), 0o755))
		case 4:
			n := name()
			s.say("remove %s: %v", n, s.fs.Remove(s.in(n)))
		case 5, 6:
			from, to := name(), name()
			s.say("rename %s %s: %v", from, to, s.fs.Rename(s.in(from), s.in(to)))
		case 7:
			if n := name(); rng.IntN(3) == 0 {
				s.say("removeall %s: %v", n, s.fs.RemoveAll(s.in(n)))
			}
		}
		s.tree(".")
	}
}
