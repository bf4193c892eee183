package vfs

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
)

// tree is the disk under a Mem: nodes by number, as inodes are, so that a file keeps its identity
// through renames and in a replay. It changes through apply only. Not for concurrent use.
type tree struct {
	nodes   map[uint64]*node
	last    uint64   // the number given last
	pending []change // changes of names that no SyncDir has saved, oldest first
}

// node is a file or a directory.
type node struct {
	mode     fs.FileMode       // with fs.ModeDir for a directory
	contents *contents         // of a file
	now      map[string]uint64 // of a directory: its entries
	synced   map[string]uint64 // and those that would survive
}

// entry is a name in a directory; the zero value stands for none.
type entry struct {
	dir  uint64
	name string
}

// change moves a node between names: none to one when created, one to none when removed.
type change struct {
	from, to entry
	node     uint64
}

func (c change) touches(dir uint64) bool { return c.from.dir == dir || c.to.dir == dir }

// opKind is what an operation does.
type opKind int

const (
	opCreate opKind = iota
	opMkdir
	opRemove
	opRename
	opWrite
	opTruncate
	opAllocate
	opSync
	opFailSync
	opSyncDir
)

// op is one operation that changes the tree, or what of it is safe.
type op struct {
	kind opKind
	path string // for people
	node uint64 // the file or directory it is about
	from entry  // rename, remove
	to   entry  // rename, create, mkdir
	mode fs.FileMode
	data []byte // write
	at   int64  // offset of a write, or length
}

// String tells what the operation does, for a test that failed after it.
func (o op) String() string {
	switch o.kind {
	case opCreate:
		return "create " + o.path
	case opMkdir:
		return "mkdir " + o.path
	case opRemove:
		return "remove " + o.path
	case opRename:
		return "rename " + o.path
	case opWrite:
		return fmt.Sprintf("write %s at %d, %d bytes", o.path, o.at, len(o.data))
	case opTruncate:
		return fmt.Sprintf("truncate %s to %d", o.path, o.at)
	case opAllocate:
		return fmt.Sprintf("allocate %s to %d", o.path, o.at)
	case opSync:
		return "sync " + o.path
	case opFailSync:
		return "failed sync " + o.path
	case opSyncDir:
		return "syncdir " + o.path
	}
	return fmt.Sprintf("op %d %s", o.kind, o.path)
}

const rootNode = 1

func newTree() *tree {
	return &tree{nodes: map[uint64]*node{rootNode: newDir(0o755)}, last: rootNode}
}

func newDir(perm fs.FileMode) *node {
	return &node{mode: fs.ModeDir | perm, now: map[string]uint64{}, synced: map[string]uint64{}}
}

func newFile(perm fs.FileMode) *node { return &node{mode: perm, contents: newContents()} }

func (n *node) isDir() bool { return n.contents == nil }

func (t *tree) clone() *tree {
	c := &tree{nodes: make(map[uint64]*node, len(t.nodes)), last: t.last, pending: slices.Clone(t.pending)}
	for id, n := range t.nodes {
		if n.isDir() {
			c.nodes[id] = &node{mode: n.mode, now: maps.Clone(n.now), synced: maps.Clone(n.synced)}
		} else {
			c.nodes[id] = &node{mode: n.mode, contents: n.contents.clone()}
		}
	}
	return c
}

// apply carries out an operation that has been found valid. What it does depends on the tree and
// the operation alone, which is what makes a replay exact.
func (t *tree) apply(o op) {
	switch o.kind {
	case opCreate, opMkdir:
		t.last = o.node
		if o.kind == opCreate {
			t.nodes[o.node] = newFile(o.mode)
		} else {
			t.nodes[o.node] = newDir(o.mode)
		}
		t.rename(change{to: o.to, node: o.node})
	case opRemove, opRename:
		t.rename(change{from: o.from, to: o.to, node: o.node})
	case opWrite:
		t.nodes[o.node].contents.writeAt(o.data, o.at)
	case opTruncate:
		t.nodes[o.node].contents.truncate(o.at)
	case opAllocate:
		c := t.nodes[o.node].contents
		c.truncate(max(c.size, o.at))
	case opSync:
		t.nodes[o.node].contents.sync()
	case opFailSync:
		t.nodes[o.node].contents.failSync()
	case opSyncDir:
		t.syncDir(o.node)
	}
}

func (t *tree) rename(c change) {
	if c.from.dir != 0 {
		delete(t.nodes[c.from.dir].now, c.from.name)
	}
	if c.to.dir != 0 {
		t.nodes[c.to.dir].now[c.to.name] = c.node
	}
	t.pending = append(t.pending, c)
}

// save makes a change of names part of what survives.
func (t *tree) save(c change) {
	if c.from.dir != 0 {
		delete(t.nodes[c.from.dir].synced, c.from.name)
	}
	if c.to.dir != 0 {
		t.nodes[c.to.dir].synced[c.to.name] = c.node
	}
}

// syncDir saves all that concerns the directory. A rename is one step even between two directories:
// what came before it in the other one goes with it.
func (t *tree) syncDir(dir uint64) {
	saved := make([]bool, len(t.pending))
	needed := map[entry]bool{}
	for i, c := range slices.Backward(t.pending) {
		if c.touches(dir) || needed[c.from] || needed[c.to] {
			saved[i] = true
			mark(needed, c)
		}
	}
	rest := t.pending[:0:0]
	for i, c := range t.pending {
		if saved[i] {
			t.save(c)
		} else {
			rest = append(rest, c)
		}
	}
	t.pending = rest
}

// mark adds the names that a change is about.
func mark(set map[entry]bool, c change) {
	for _, e := range []entry{c.from, c.to} {
		if e.dir != 0 {
			set[e] = true
		}
	}
}

// crash gives the tree after a power cut. Each unsaved change of names is kept or lost on its own,
// but one is lost when an earlier one of the same name is: so a rename never leaves two names, nor none.
func (t *tree) crash(rng *rand.Rand, keep float64) *tree {
	whole := t.clone()
	lost := map[entry]bool{}
	for _, c := range t.pending {
		if rng.Float64() < keep && !lost[c.from] && !lost[c.to] {
			whole.save(c)
		} else {
			mark(lost, c)
		}
	}
	after := &tree{nodes: map[uint64]*node{}, last: t.last}
	var survive func(id uint64)
	survive = func(id uint64) {
		n := whole.nodes[id]
		if !n.isDir() {
			after.nodes[id] = &node{mode: n.mode, contents: n.contents.crash(rng, keep)}
			return
		}
		after.nodes[id] = &node{mode: n.mode, now: maps.Clone(n.synced), synced: n.synced}
		for _, name := range slices.Sorted(maps.Keys(n.synced)) {
			survive(n.synced[name])
		}
	}
	survive(rootNode)
	return after
}

// dirty tells whether a power cut could take something that is in the node itself.
func (t *tree) dirty(id uint64) bool {
	if n := t.nodes[id]; !n.isDir() {
		return n.contents.isDirty()
	}
	return slices.ContainsFunc(t.pending, func(c change) bool { return c.touches(id) })
}
