package vfs

import (
	"errors"
	"maps"
	"testing"
	"time"
)

type sum struct {
	seconds float64
	n       int
}

func (s *sum) Observe(v float64) { s.seconds += v; s.n++ }

func TestTimed(t *testing.T) {
	var now time.Duration
	read, write, sync, syncDir := &sum{}, &sum{}, &sum{}, &sum{}
	failed := map[Op]int{}
	slow := func(d time.Duration) func() { return func() { now += d } }
	broken := errors.New("broken")
	faulty := NewFaulty(NewMem(),
		Fault{Op: OpRead, Do: slow(time.Second)}, Fault{Op: OpWrite, Do: slow(2 * time.Second)},
		Fault{Op: OpSync, Nth: 1, Do: slow(4 * time.Second)}, Fault{Op: OpSync, Nth: 2, Err: broken}, Fault{Op: OpSyncDir, Do: slow(8 * time.Second)})
	fs := Timed(faulty, &Times{
		Clock: func() time.Duration { return now }, Read: read, Write: write, Sync: sync, SyncDir: syncDir,
		Failed: func(op Op) { failed[op]++ },
	})
	f, err := fs.OpenFile("/x", Create|ReadWrite, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("ab"), 0); err != nil {
		t.Fatal(err)
	}
	if n, err := f.WriteVAt([][]byte{[]byte("c"), []byte("d")}, 2); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := f.ReadAt(make([]byte, 9), 0); n != 4 || err == nil { // the end of the file is no failure
		t.Fatal(n, err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if err := fs.SyncDir("/"); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ got, want sum }{
		"read": {*read, sum{1, 1}}, "write": {*write, sum{4, 2}}, "sync": {*sync, sum{4, 2}}, "syncdir": {*syncDir, sum{8, 1}},
	} {
		if c.got != c.want {
			t.Errorf("%s: %+v, want %+v", name, c.got, c.want)
		}
	}
	if want := map[Op]int{OpSync: 1}; !maps.Equal(failed, want) {
		t.Errorf("failed %v, want %v", failed, want)
	}
}
