package main

import (
	"os"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"
)

// shorten takes bytes off the end of a file: shorten FILE BYTES.
func shorten(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg)
	name, n := fileAndNumber(ts, args)
	info, err := os.Stat(name)
	ts.Check(err)
	ts.Check(os.Truncate(name, info.Size()-int64(n)))
}

func fileAndNumber(ts *testscript.TestScript, args []string) (name string, n int) {
	if len(args) != 2 {
		ts.Fatalf("a file and a number")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	return ts.MkAbs(args[0]), n
}

// copyTree copies a directory of the repository's testdata: tree FROM TO.
func copyTree(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg)
	if len(args) != 2 {
		ts.Fatalf("from where, and to where")
	}
	ts.Check(os.CopyFS(ts.MkAbs(args[1]), os.DirFS(args[0])))
}
