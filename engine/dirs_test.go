package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/vfs"
)

// twoDirs are two log directories of one node, and how log.dirs names them.
func twoDirs(t *testing.T) (a, b, both string) {
	a, b = filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	return a, b, a + "," + b
}

// spread creates a topic by the rules for clients, with a record in each partition.
func spread(t *testing.T, e *Engine, name string, partitions int32) catalog.TopicID {
	t.Helper()
	created := e.Topics().Create(context.Background(), []NewTopic{{Name: name, Partitions: partitions, ReplicationFactor: 1}}, false)
	if created[0].Err != nil {
		t.Fatal(created[0].Err)
	}
	for i := range partitions {
		if r := produce(t, partitionOf(e, created[0].ID, i), -1, fmt.Sprint("record of ", i)); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	return created[0].ID
}

func closeNow(t *testing.T, e *Engine) {
	t.Helper()
	if err := e.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func mustOpen(t *testing.T, fs vfs.FS, dirs string) *Engine {
	t.Helper()
	e, err := openOn(t, fs, dirs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close(context.Background()) })
	return e
}

// whereAbouts lists the directories of a topic's partitions, by their last name; "-" for one that is offline.
func whereAbouts(e *Engine, id catalog.TopicID, partitions int32) string {
	var all []string
	for i := range partitions {
		p, err := e.Partition(id, i)
		switch {
		case errors.Is(err, ErrDirOffline):
			all = append(all, "-")
		case err != nil:
			all = append(all, err.Error())
		default:
			all = append(all, filepath.Base(p.LogDir()))
		}
	}
	return strings.Join(all, "")
}

func holds(t *testing.T, p *Partition, value string) {
	t.Helper()
	b, err := p.Read(nil, 0, 1<<20, true)
	if err != nil || !strings.Contains(string(b), value) {
		t.Errorf("%s in %s: %v, %q", p.name, p.LogDir(), err, b)
	}
}

// New partitions go to the directory with the fewest, and are found there again, whatever the order of log.dirs.
func TestPartitionsAreSpreadOverLogDirs(t *testing.T) {
	a, b, both := twoDirs(t)
	e := mustOpen(t, vfs.OS(), both)
	id := spread(t, e, "orders", 4)
	if where := whereAbouts(e, id, 4); where != "abab" {
		t.Errorf("placed in %s", where)
	}
	one := spread(t, e, "odd", 1)
	two := spread(t, e, "even", 1)
	if where := whereAbouts(e, one, 1) + whereAbouts(e, two, 1); where != "ab" {
		t.Errorf("single ones placed in %s", where)
	}
	closeNow(t, e)
	for _, order := range []string{both, b + "," + a} {
		e = mustOpen(t, vfs.OS(), order)
		if where := whereAbouts(e, id, 4); where != "abab" {
			t.Errorf("log.dirs=%s: found in %s", order, where)
		}
		for i := range int32(4) {
			holds(t, partitionOf(e, id, i), fmt.Sprint("record of ", i))
		}
		closeNow(t, e)
	}
}

// A directory that joins one in use takes new partitions; the old ones stay where they are, also those without a record.
func TestSecondLogDirIsAdded(t *testing.T) {
	a, _, both := twoDirs(t)
	e := mustOpen(t, vfs.OS(), a)
	id := spread(t, e, "old", 2)
	empty := createTopic(t, e, "empty", 1, nil)
	closeNow(t, e)
	e = mustOpen(t, vfs.OS(), both)
	if where := whereAbouts(e, id, 2) + whereAbouts(e, empty, 1); where != "aaa" {
		t.Errorf("old ones in %s", where)
	}
	if where := whereAbouts(e, spread(t, e, "new", 3), 3); where != "bbb" {
		t.Errorf("new ones in %s: there are three in the other", where)
	}
}

// What fails in one directory at run time stays there: it refuses appends and is read on, the other serves.
func TestOneLogDirIsFenced(t *testing.T) {
	_, b, both := twoDirs(t)
	faulty := vfs.NewFaulty(vfs.OS())
	e := mustOpen(t, faulty, both)
	id := spread(t, e, "orders", 2)
	faulty.Inject(vfs.Fault{Op: vfs.OpSync, Path: filepath.Join(b, "journal", "*"), Err: syscall.EIO})
	if r := produce(t, partitionOf(e, id, 1), -1, "x"); !errors.Is(r.Err, segment.ErrFenced) {
		t.Errorf("append to the failing directory: %v", r.Err)
	}
	if r := produce(t, partitionOf(e, id, 0), -1, "x"); r.Err != nil {
		t.Errorf("append to the other: %v", r.Err)
	}
	holds(t, partitionOf(e, id, 1), "record of 1")
	var unhealthy *Unhealthy
	if err := e.Health(); !errors.As(err, &unhealthy) || len(unhealthy.Troubles) != 1 || unhealthy.Troubles[0].Dir != b || unhealthy.Troubles[0].State != "fenced" {
		t.Errorf("health: %v", err)
	}
	if where := whereAbouts(e, spread(t, e, "more", 3), 3); where != "aaa" {
		t.Errorf("new ones placed in %s", where)
	}
}

// A directory that cannot be opened takes down its own partitions, which are not made anew elsewhere, and is back
// after a restart that finds it well.
func TestOneLogDirIsOffline(t *testing.T) {
	a, b, both := twoDirs(t)
	e := mustOpen(t, vfs.OS(), both)
	id := spread(t, e, "orders", 4)
	closeNow(t, e)

	aside := b + ".aside"
	broken := map[string]func() (vfs.FS, string){
		"cannot be read": func() (vfs.FS, string) {
			faulty := vfs.NewFaulty(vfs.OS())
			faulty.Inject(vfs.Fault{Op: vfs.OpReadDir, Path: filepath.Join(b, "topics"), Err: syscall.EIO})
			return faulty, both
		},
		"is not named": func() (vfs.FS, string) { return vfs.OS(), a },
		"is a new disk": func() (vfs.FS, string) {
			if err := os.Rename(b, aside); err != nil {
				t.Fatal(err)
			}
			return vfs.OS(), both
		},
	}
	for name, breakIt := range broken {
		fs, dirs := breakIt()
		e = mustOpen(t, fs, dirs)
		if where := whereAbouts(e, id, 4); where != "a-a-" {
			t.Errorf("%s: %s", name, where)
		}
		if !e.Offline(id, 1) || e.Offline(id, 0) {
			t.Errorf("%s: offline %v, %v", name, e.Offline(id, 1), e.Offline(id, 0))
		}
		if r := produce(t, partitionOf(e, id, 2), -1, "x"); r.Err != nil {
			t.Errorf("%s: append to the other directory: %v", name, r.Err)
		}
		gone := spread(t, e, "gone-"+strings.ReplaceAll(name, " ", "-"), 1)
		if where := whereAbouts(e, gone, 1); where == "-" {
			t.Errorf("%s: a new partition is placed where nothing can be", name)
		}
		closeNow(t, e)
		if _, err := os.Stat(aside); err == nil {
			os.RemoveAll(b)
			if err := os.Rename(aside, b); err != nil {
				t.Fatal(err)
			}
		}
	}
	e = mustOpen(t, vfs.OS(), both)
	for i := range int32(4) {
		holds(t, partitionOf(e, id, i), fmt.Sprint("record of ", i))
	}
}

// A topic with partitions in a directory that is offline can be deleted; they are set aside when it comes back.
func TestTopicOfAnOfflineLogDirIsDeleted(t *testing.T) {
	a, b, both := twoDirs(t)
	e := mustOpen(t, vfs.OS(), both)
	id := spread(t, e, "orders", 2)
	closeNow(t, e)
	e = mustOpen(t, vfs.OS(), a)
	deleted, err := e.Topics().Delete(context.Background(), []TopicRef{{ID: id}})
	if err != nil || deleted[0].Err != nil {
		t.Fatal(err, deleted)
	}
	closeNow(t, e)
	closeNow(t, mustOpen(t, vfs.OS(), both))
	if found, err := filepath.Glob(filepath.Join(b, "topics", "*.stray")); err != nil || len(found) != 1 {
		t.Errorf("set aside: %v, %v", found, err)
	}
}

// Directories that do not belong together are refused before anything in them is changed.
func TestLogDirsOfOthersAreRefused(t *testing.T) {
	a, b, both := twoDirs(t)
	closeNow(t, mustOpen(t, vfs.OS(), a))
	closeNow(t, mustOpen(t, vfs.OS(), b))
	if _, err := openOn(t, vfs.OS(), both); !errors.Is(err, ErrIdentity) {
		t.Errorf("two nodes: %v", err)
	}
	os.RemoveAll(filepath.Join(b, catalogFolder))
	if _, err := openOn(t, vfs.OS(), both); !errors.Is(err, ErrIdentity) {
		t.Errorf("a directory of another cluster: %v", err)
	}
	if _, err := openOn(t, vfs.OS(), b); !errors.Is(err, ErrIdentity) {
		t.Errorf("a directory without its catalogue: %v", err)
	}
	os.RemoveAll(b)
	if err := os.MkdirAll(b, 0o755); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(a, metaFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b, metaFile), text, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := openOn(t, vfs.OS(), both); !errors.Is(err, ErrIdentity) {
		t.Errorf("a copy: %v", err)
	}
}

// While one directory cannot be read no other becomes the one with the catalogue: it may lie there.
func TestNoCatalogueIsBegunBesideADirThatFails(t *testing.T) {
	a, b, _ := twoDirs(t)
	e := mustOpen(t, vfs.OS(), a)
	id := spread(t, e, "orders", 1)
	closeNow(t, e)
	for _, op := range []vfs.Op{vfs.OpLock, vfs.OpStat} {
		faulty := vfs.NewFaulty(vfs.OS())
		faulty.Inject(vfs.Fault{Op: op, Path: filepath.Join(a, "*"), Err: syscall.EIO})
		if _, err := openOn(t, faulty, b+","+a); !errors.Is(err, syscall.EIO) {
			t.Errorf("%v fails: %v", op, err)
		}
		if _, err := os.Stat(filepath.Join(b, metaFile)); err == nil {
			t.Errorf("%v fails: the other directory was given an identity", op)
		}
	}
	e = mustOpen(t, vfs.OS(), b+","+a)
	holds(t, partitionOf(e, id, 0), "record of 0")
}

// The planner fills up what has fewer.
func TestChooseDirs(t *testing.T) {
	_, _, both := twoDirs(t)
	e := mustOpen(t, vfs.OS(), both)
	a, b := e.dirs[0], e.dirs[1]
	a.placed.Store(3)
	var got []bool
	for _, id := range e.chooseDirs(5) {
		got = append(got, id == b.meta.DirID)
	}
	if !slices.Equal(got, []bool{true, true, true, false, true}) {
		t.Errorf("chosen: %v", got)
	}
}
