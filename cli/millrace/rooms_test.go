package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/millrace/millrace"

// rooms says for every room which others it may import.
// What is not in the list may not exist, so a new room is a decision that shows here.
var rooms = map[string][]string{
	"cli/millrace":  {"cli/command"},
	"cli/command":   {"cli/bench", "cli/placement", "cli/serve", "engine/config", "engine/coordinator", "engine/source", "segment", "segment/inspect", "segment/batch", "segment/producer", "segment/vfs", "engine", "engine/catalog", "engine/group"},
	"cli/bench":     {},
	"cli/placement": {},
	"cli/serve":     {"server", "replication", "engine", "engine/catalog", "engine/config", "segment/vfs"},
	"server":        {"engine", "engine/coordinator", "engine/group", "engine/catalog", "engine/config", "segment", "segment/batch", "segment/producer", "segment/bounded"},
	"engine":        {"engine/coordinator", "engine/group", "engine/catalog", "engine/config", "segment", "segment/batch", "segment/producer", "segment/vfs"},
	"replication":   {"engine", "engine/catalog", "engine/config", "segment", "replication/controller", "replication/gossip", "replication/isr", "replication/liveness", "replication/peer", "replication/raftlog", "replication/stream"},

	"replication/controller": {"engine/catalog", "replication/raftlog"},
	"replication/raftlog":    {"segment/vfs"},
	"replication/isr":        {},
	"replication/stream":     {"segment", "segment/batch"},
	"replication/gossip":     {"replication/peer"},
	"replication/peer":       {},
	"replication/liveness":   {"engine/catalog", "replication/peer"},

	"engine/coordinator": {"engine/group", "engine/catalog", "engine/config", "segment/batch"},
	"engine/group":       {"segment/batch"},
	"engine/catalog":     {"engine/config"},
	"engine/source":      {"engine/group", "engine/catalog", "segment", "segment/inspect", "segment/batch", "segment/vfs"},
	"engine/config":      {},
	"segment":            {"segment/vfs", "segment/batch", "segment/producer", "segment/bounded"},
	// Harms directories, for tests alone.
	"segment/inspect/injure": {"segment", "segment/inspect", "segment/batch", "segment/vfs"},
	"segment/inspect":        {"segment", "segment/batch", "segment/producer", "segment/vfs"},
	"segment/producer":       {"segment/batch"},
	"segment/batch":          {},
	"segment/bounded":        {},
	"segment/vfs":            {},
}

// homes says in which rooms a library may be imported; a library that is not listed belongs nowhere.
var homes = map[string][]string{
	"github.com/twmb/franz-go/pkg/kmsg":   {"server", "cli/command", "cli/bench", "engine/group", "engine/coordinator"},
	"github.com/twmb/franz-go/pkg/kgo":    {"cli/command", "cli/bench"},
	"github.com/twmb/franz-go/pkg/kadm":   {"cli/command", "cli/bench"},
	"github.com/twmb/franz-go/pkg/kerr":   {"server", "cli/command", "cli/bench"},
	"github.com/dgraph-io/badger/v4":      {"engine/catalog", "replication/raftlog"},
	"github.com/hashicorp/raft":           {"replication/controller", "replication/raftlog", "replication/peer"},
	"github.com/hashicorp/go-hclog":       {"replication/controller", "replication/peer"}, // raft's logger is one
	"github.com/hashicorp/memberlist":     {"replication/gossip"},
	"github.com/klauspost/compress":       {"segment/batch"},
	"github.com/pierrec/lz4/v4":           {"segment/batch"},
	"github.com/urfave/cli/v2":            {"cli/command"},
	"golang.org/x/sys":                    {"segment", "segment/vfs"},
	"golang.org/x/sync":                   {"cli/command", "segment", "segment/inspect", "segment/bounded", "engine", "engine/coordinator", "engine/catalog", "server", "replication/controller", "replication/peer"},
	"github.com/google/uuid":              {"engine", "engine/catalog", "server"},
	"github.com/prometheus/client_golang": {"cli/serve"},
	"github.com/rogpeppe/go-internal":     {}, // tests only
}

// std says in which rooms parts of the standard library may be imported; "cli" means every room below it.
var std = map[string][]string{
	"net":      {"server", "replication/peer", "replication/gossip", "cli"}, // gossip opens no socket, memberlist's interface has net's types
	"net/http": {"cli"},
	"os/exec":  {},
	"unsafe":   {"segment/vfs"},
	"syscall":  {"segment", "segment/vfs", "server", "replication/peer", "cli"},
}

// seamWords are the names of package os that the file system's interface is written in; they touch no file.
var seamWords = []string{
	"O_RDONLY", "O_WRONLY", "O_RDWR", "O_APPEND", "O_CREATE", "O_EXCL", "O_TRUNC", "FileMode", "FileInfo", "DirEntry", "PathError",
	"ErrNotExist", "ErrExist", "ErrClosed", "ErrPermission", "ErrInvalid", "ErrDeadlineExceeded",
}

// TestRooms reads the imports and uses of every file of the module and compares them with the tables above.
func TestRooms(t *testing.T) {
	for _, complaint := range inspectModule(t, os.DirFS("../..")) {
		t.Error(complaint)
	}
}

// inspectModule returns what is wrong with the Go files of a module tree, tests and testdata left out.
func inspectModule(t *testing.T, tree fs.FS) (complaints []string) {
	t.Helper()
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := path.Base(name); name != "." && (base == "testdata" || base[0] == '.' || base == "data" || base == "bin") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		src, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, src, parser.SkipObjectResolution)
		if err != nil {
			complaints = append(complaints, err.Error())
			return nil
		}
		complaints = append(complaints, inspectFile(path.Dir(name), name, file)...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return complaints
}

func inspectFile(room, name string, file *ast.File) (complaints []string) {
	complain := func(what string) { complaints = append(complaints, name+": "+what) }
	below, known := rooms[room]
	if !known {
		complain("room " + room + " is not in the list of rooms")
		return complaints
	}
	for _, spec := range file.Imports {
		imported, _ := strconv.Unquote(spec.Path.Value) // the parser has checked it
		if spec.Name != nil && spec.Name.Name == "." {
			complain("dot import of " + imported)
		}
		if rest, ours := strings.CutPrefix(imported, module+"/"); ours {
			if !slices.Contains(below, rest) {
				complain("room " + room + " may not import " + rest)
			}
			continue
		}
		if allowed, listed := homeOf(imported); listed && !inRoom(room, allowed) {
			complain("room " + room + " is not the home of " + imported)
		} else if !listed && strings.Contains(strings.Split(imported, "/")[0], ".") {
			complain("library " + imported + " is not in the list of homes")
		}
	}
	inCLI, inVFS := strings.HasPrefix(room, "cli/"), room == "segment/vfs"
	ast.Inspect(file, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		pkg, ok := sel.X.(*ast.Ident)
		if !ok {
			return true
		}
		switch word := sel.Sel.Name; importedAs(file, pkg.Name) {
		case "time":
			if !inCLI && (word == "Now" || word == "Since" || word == "Until") {
				complain("time." + word + " outside of cli: use the clock that was handed in")
			}
		case "os":
			if !inCLI && !inVFS && !slices.Contains(seamWords, word) {
				complain("os." + word + " outside of segment/vfs and cli")
			}
			if word == "Rename" && !inVFS {
				complain("os.Rename is not durable: use the file system's Rename and SyncDir")
			}
		}
		return true
	})
	return complaints
}

// importedAs returns the path of the package that a file calls by this name, when it is time or os.
func importedAs(file *ast.File, name string) string {
	for _, spec := range file.Imports {
		imported, _ := strconv.Unquote(spec.Path.Value)
		called := path.Base(imported)
		if spec.Name != nil {
			called = spec.Name.Name
		}
		if called == name && (imported == "time" || imported == "os") {
			return imported
		}
	}
	return ""
}

// homeOf finds the rooms of a library or of a part of the standard library.
func homeOf(imported string) (allowed []string, listed bool) {
	if allowed, listed = std[imported]; listed {
		return allowed, true
	}
	for library, rooms := range homes {
		if imported == library || strings.HasPrefix(imported, library+"/") {
			return rooms, true
		}
	}
	return nil, false
}

// inRoom reports whether the room is one of those allowed, or inside of one called "cli".
func inRoom(room string, allowed []string) bool {
	return slices.Contains(allowed, room) || (slices.Contains(allowed, "cli") && strings.HasPrefix(room, "cli/"))
}

// TestRoomsPointDown checks the table itself: no room may reach itself.
func TestRoomsPointDown(t *testing.T) {
	var visit func(room string, way []string)
	visit = func(room string, way []string) {
		if slices.Contains(way, room) {
			t.Fatalf("the rooms form a circle: %s", strings.Join(append(way, room), " -> "))
		}
		for _, below := range rooms[room] {
			if _, ok := rooms[below]; !ok {
				t.Fatalf("room %s may import %s, which is no room", room, below)
			}
			visit(below, append(slices.Clone(way), room))
		}
	}
	for room := range rooms {
		visit(room, nil)
	}
}

// TestRoomsComplain puts each fault into a small tree and expects to hear of it.
func TestRoomsComplain(t *testing.T) {
	tests := []struct{ name, room, body, want string }{
		{"arrow upwards", "segment", `import _ "` + module + `/engine"`, "may not import engine"},
		{"leaf imports ours", "segment/batch", `import _ "` + module + `/segment"`, "may not import segment"},
		{"library outside of its home", "engine", `import _ "github.com/dgraph-io/badger/v4"`, "is not the home of"},
		{"library without a home", "server", `import _ "github.com/example/x"`, "not in the list of homes"},
		{"sockets in the engine", "engine", `import _ "net"`, "is not the home of net"},
		{"clock", "server", `import "time"; var x = time.Now()`, "time.Now outside"},
		{"clock by another name", "server", `import t "time"; var x = t.Now`, "time.Now outside"},
		{"hidden clock", "segment", `import "time"; var x = time.Since(time.Time{})`, "time.Since outside"},
		{"file access", "segment", `import "os"; var f, err = os.Open("x")`, "os.Open outside"},
		{"bare rename", "cli/serve", `import "os"; var err = os.Rename("a", "b")`, "os.Rename is not durable"},
		{"room without a place", "storage", "", "not in the list of rooms"},
		{"fine", "segment", `import ("os"; "` + module + `/segment/vfs"); var x = os.O_RDWR; var _ vfs.FS`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			at := filepath.Join(dir, filepath.FromSlash(tt.room))
			if err := os.MkdirAll(at, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(at, "x.go"), []byte("package x\n"+tt.body+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			got := strings.Join(inspectModule(t, os.DirFS(dir)), "\n")
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Fatalf("complaints %q, want %q", got, tt.want)
			}
		})
	}
}
