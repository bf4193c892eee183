package raftlog

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/millrace/millrace/segment/vfs"
)

var oneVoter = raft.Configuration{Servers: []raft.Server{{ID: "1", Address: "a"}}}

func openSnapshots(t *testing.T, fsys vfs.FS) *Snapshots {
	t.Helper()
	s, err := OpenSnapshots(fsys, "raft/snapshots", nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func take(s raft.SnapshotStore, index uint64, state string) error {
	sink, err := s.Create(1, index, 3, oneVoter, index-1, nil)
	if err != nil {
		return err
	}
	for part := range strings.SplitSeq(state, " ") {
		if _, err := io.WriteString(sink, part); err != nil {
			return errors.Join(err, sink.Cancel())
		}
	}
	return sink.Close()
}

func read(s raft.SnapshotStore, id string) (string, error) {
	_, r, err := s.Open(id)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(r)
	return string(b), errors.Join(err, r.Close())
}

// TestSnapshots: the latest two are kept, in order, with what raft wants to know of them.
func TestSnapshots(t *testing.T) {
	fsys := vfs.NewMem()
	s := openSnapshots(t, fsys)
	if metas, err := s.List(); err != nil || len(metas) != 0 {
		t.Fatal(metas, err)
	}
	for _, index := range []uint64{9, 10, 200} {
		if err := take(s, index, "the state"); err != nil {
			t.Fatal(err)
		}
	}
	if err := take(s, 200, "again, the state"); err != nil {
		t.Fatal(err)
	}
	cancelled, err := s.Create(1, 300, 3, oneVoter, 1, nil)
	if err = errors.Join(err, cancelled.Cancel(), cancelled.Close()); err != nil {
		t.Fatal(err)
	}
	metas, err := openSnapshots(t, fsys).List()
	if err != nil || len(metas) != 2 || metas[0].Index != 200 || metas[1].Index != 10 {
		t.Fatal(metas, err)
	}
	if m := metas[0]; m.Term != 3 || m.ConfigurationIndex != 199 || len(m.Configuration.Servers) != 1 || m.Size != int64(len("again,thestate")) {
		t.Fatalf("%+v", m)
	}
	if state, err := read(s, metas[0].ID); state != "again,thestate" || err != nil {
		t.Fatal(state, err)
	}
	if entries, _ := fsys.ReadDir("raft/snapshots"); len(entries) != 2 {
		t.Fatal(entries)
	}
}

// TestSnapshotDamage: no flipped bit and no lost end is given out, and the older snapshot is still there.
func TestSnapshotDamage(t *testing.T) {
	fsys := vfs.NewMem()
	s := openSnapshots(t, fsys)
	if err := errors.Join(take(s, 1, "older"), take(s, 2, "newer state")); err != nil {
		t.Fatal(err)
	}
	name := "raft/snapshots/00000000000000000002-00000000000000000003.snap"
	whole, err := vfs.ReadFile(fsys, name)
	if err != nil {
		t.Fatal(err)
	}
	usable := func() (states []string) {
		metas, err := s.List()
		if err != nil && !errors.Is(err, ErrFutureFormat) {
			t.Fatal(err)
		}
		for _, m := range metas {
			state, err := read(s, m.ID)
			if err == nil {
				states = append(states, state)
			} else if !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
		}
		return states
	}
	for i := range whole {
		damaged := append([]byte{}, whole...)
		damaged[i] ^= 1 << (i % 8)
		for _, b := range [][]byte{damaged, whole[:i]} {
			if err := vfs.WriteFileAtomic(fsys, name, b); err != nil {
				t.Fatal(err)
			}
			if states := usable(); len(states) > 1 || len(states) == 1 && states[0] != "older" {
				t.Fatalf("byte %d: %q", i, states)
			}
		}
	}
	if err := vfs.WriteFileAtomic(fsys, name, whole); err != nil || len(usable()) != 2 {
		t.Fatal(err)
	}
}

// TestSnapshotCrash: cut the power at every step of a third snapshot. The one before it is always there, and the
// third is there once Close has returned.
func TestSnapshotCrash(t *testing.T) {
	for n := 1; ; n++ {
		fsys := vfs.NewMem()
		var crashed []*vfs.Mem
		faulty := vfs.NewFaulty(fsys)
		s := openSnapshots(t, faulty)
		if err := errors.Join(take(s, 1, "one"), take(s, 2, "two")); err != nil {
			t.Fatal(err)
		}
		crash := func() {
			for seed := range uint64(8) {
				crashed = append(crashed, fsys.Crash(seed, float64(seed)/7))
			}
		}
		faulty.Inject(vfs.Fault{Nth: n, Do: crash})
		if err := take(s, 3, "three"); err != nil {
			t.Fatal(err)
		}
		done := len(crashed) == 0 // there was no n-th step
		if done {
			crash()
		}
		for i, c := range crashed {
			again := openSnapshots(t, c)
			metas, err := again.List()
			if err != nil || len(metas) == 0 || done && metas[0].Index != 3 {
				t.Fatalf("step %d, crash %d: %v %v", n, i, metas, err)
			}
			want := map[uint64]string{1: "one", 2: "two", 3: "three"}
			for _, m := range metas {
				if state, err := read(again, m.ID); err != nil || state != want[m.Index] {
					t.Fatalf("step %d, crash %d: snapshot %d: %q %v", n, i, m.Index, state, err)
				}
			}
			if metas[0].Index < 2 {
				t.Fatalf("step %d, crash %d: the second is lost", n, i)
			}
			if entries, _ := c.ReadDir("raft/snapshots"); len(entries) != len(metas) {
				t.Fatalf("step %d, crash %d: leftovers %v", n, i, entries)
			}
		}
		if done {
			t.Logf("%d steps", n-1)
			return
		}
	}
}

// TestSnapshotFails: at whatever step the disk fails, the snapshot does not count and the one before does.
func TestSnapshotFails(t *testing.T) {
	for n := 1; ; n++ {
		faulty := vfs.NewFaulty(vfs.NewMem())
		s := openSnapshots(t, faulty)
		if err := take(s, 2, "two"); err != nil {
			t.Fatal(err)
		}
		faulty.Inject(vfs.Fault{Nth: n})
		err := take(s, 3, "three")
		faulty.Heal()
		if err == nil { // it failed while removing old ones, or not at all
			return
		}
		metas, listErr := s.List()
		if listErr != nil || len(metas) == 0 {
			t.Fatal(n, metas, listErr)
		}
		if state, err := read(s, metas[len(metas)-1].ID); state != "two" || err != nil {
			t.Fatal(n, state, err)
		}
	}
}
