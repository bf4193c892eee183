package main

import (
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/millrace/millrace/segment/inspect/injure"
	"github.com/millrace/millrace/segment/vfs"
)

// fill makes a data directory whose bytes are always the same: fill DIR closed|reopened|killed|journaled. A
// reopened one was closed well, and has lost the mark of that.
func fill(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg)
	if len(args) != 2 {
		ts.Fatalf("usage: fill DIR closed|reopened|killed|journaled")
	}
	from := map[string]injure.From{"closed": injure.Closed, "killed": injure.Killed, "reopened": injure.Closed, "journaled": injure.Journaled}
	_, err := injure.Fill(inWork{vfs.OS(), ts.MkAbs(".")}, args[0], from[args[1]], args[1] == "closed")
	ts.Check(err)
}

// inflict harms what fill has made: injure DIR NAME [SEED].
func inflict(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg)
	if len(args) < 2 {
		ts.Fatalf("usage: injure DIR NAME [SEED]")
	}
	seed := uint64(1)
	if len(args) > 2 {
		n, err := strconv.ParseUint(args[2], 10, 64)
		ts.Check(err)
		seed = n
	}
	injury, ok := injure.Find(args[1])
	if !ok {
		ts.Fatalf("there is no injury %q", args[1])
	}
	p, err := injure.Admit(vfs.OS(), ts.MkAbs(args[0]), "orders-0", rand.New(rand.NewPCG(seed, 0)))
	ts.Check(err)
	ts.Check(injury.Do(p))
}

// inWork is a file system whose relative paths begin in a script's directory.
type inWork struct {
	vfs.FS
	dir string
}

func (w inWork) abs(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(w.dir, name)
}

func (w inWork) OpenFile(name string, flag int, perm os.FileMode) (vfs.File, error) {
	return w.FS.OpenFile(w.abs(name), flag, perm)
}
func (w inWork) MkdirAll(name string, perm os.FileMode) error {
	return w.FS.MkdirAll(w.abs(name), perm)
}
func (w inWork) Stat(name string) (os.FileInfo, error) { return w.FS.Stat(w.abs(name)) }
func (w inWork) Remove(name string) error              { return w.FS.Remove(w.abs(name)) }
func (w inWork) Rename(from, to string) error          { return w.FS.Rename(w.abs(from), w.abs(to)) }
func (w inWork) SyncDir(name string) error             { return w.FS.SyncDir(w.abs(name)) }

// damagedFixture is what the README looks at: made by fill and injure, always the same bytes.
const damagedFixture = "testdata/segments/damaged"

// The damaged directory is what fill and injure make of it.
func TestDamagedFixture(t *testing.T) {
	made := inWork{vfs.OS(), t.TempDir()}
	if _, err := injure.Fill(made, damagedFixture, injure.Closed, true); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"bit-in-payload", "foreign-file"} {
		injury, _ := injure.Find(name)
		p, err := injure.Admit(vfs.OS(), made.abs(damagedFixture), "orders-0", rand.New(rand.NewPCG(uint64(i), 0)))
		if err != nil {
			t.Fatal(err)
		}
		if err := injury.Do(p); err != nil {
			t.Fatal(err)
		}
	}
	if os.Getenv("UPDATE_SCRIPTS") != "" {
		if err := os.RemoveAll("../../" + damagedFixture); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS("../../"+damagedFixture, os.DirFS(made.abs(damagedFixture))); err != nil {
			t.Fatal(err)
		}
	}
	got, want := tree(t, "../../"+damagedFixture), tree(t, made.abs(damagedFixture))
	if !maps.Equal(got, want) {
		t.Errorf("%s holds %d files, not these %d: UPDATE_SCRIPTS=1 makes it anew", damagedFixture, len(got), len(want))
	}
}

// tree gives the files below a directory.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		rel, _ := filepath.Rel(dir, name) // name is below it
		files[rel] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
