package inspect

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace/millrace/segment/vfs"
)

const testID = "AAAAAAAAAAAAAAAAAAAAAQ"

// tree makes a file system of files that hold their own names.
func tree(t *testing.T, names ...string) *vfs.Mem {
	t.Helper()
	m := vfs.NewMem()
	for _, name := range names {
		if err := m.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		f, err := m.OpenFile(name, vfs.Create|vfs.ReadWrite, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		text := name
		if strings.HasSuffix(name, kafkaPartitionMeta) {
			text = "version: 0\ntopic_id: " + testID + "\n"
		}
		if _, err := f.WriteAt([]byte(text), 0); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return m
}

// describe writes a place down, a line for each part.
func describe(p *Place) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d meta=%t clean=%t journal=%d catalog=%t checkpoints=%d foreign=%d+%d leftovers=%d held=%t\n", p.Layout, p.Kind, p.Meta.There(), p.Clean.There(),
		len(p.Journal), p.Catalog != "", len(p.Checkpoints), len(p.Foreign), len(p.Folders), len(p.Leftovers), p.Held)
	for _, part := range p.Partitions {
		fmt.Fprintf(&b, "%s %s id=%t snapshots=%d epochs=%t start=%t foreign=%d+%d leftovers=%d:", part.Name(), part.State, part.TopicID != [16]byte{},
			len(part.Snapshots), part.Epochs.There(), part.LogStart.There(), len(part.Foreign), len(part.Folders), len(part.Leftovers))
		for _, s := range part.Segments {
			fmt.Fprintf(&b, " %d", s.Base)
			for _, f := range []File{s.Log, s.Index, s.TimeIndex, s.TxnIndex, s.Sealed, s.Checkpoint} {
				if f.There() {
					b.WriteString(filepath.Ext(f.Path))
				}
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestFind(t *testing.T) {
	const zero, ten = "00000000000000000000", "00000000000000000010"
	ours := []string{"/d/meta", "/d/lock", "/d/clean-shutdown", "/d/journal/00000002.journal", "/d/journal/00000010.journal", "/d/catalog/x", "/d/what", "/d/ever/x", "/d/meta.tmp",
		"/d/topics/a-b-1." + testID + "/" + zero + ".log", "/d/topics/a-b-1." + testID + "/" + zero + ".index", "/d/topics/a-b-1." + testID + "/" + zero + ".timeindex",
		"/d/topics/a-b-1." + testID + "/" + zero + ".sealed", "/d/topics/a-b-1." + testID + "/" + ten + ".log", "/d/topics/a-b-1." + testID + "/" + ten + ".checkpoint",
		"/d/topics/a-b-1." + testID + "/" + ten + ".snapshot", "/d/topics/a-b-1." + testID + "/leader-epoch-checkpoint", "/d/topics/a-b-1." + testID + "/log-start-offset",
		"/d/topics/a-b-1." + testID + "/" + ten + ".odd", "/d/topics/a-b-1." + testID + "/" + zero + ".log.deleted", "/d/topics/a-b-1." + testID + "/dir/x",
		"/d/topics/a-b-0." + testID + ".deleted/" + zero + ".log", "/d/topics/c-0." + testID + ".stray/" + zero + ".log", "/d/topics/nothing/x"}
	kafka := []string{"/k/meta.properties", "/k/.lock", "/k/.kafka_cleanshutdown", "/k/recovery-point-offset-checkpoint", "/k/bootstrap.checkpoint",
		"/k/t-0/" + zero + ".log", "/k/t-0/" + zero + ".index", "/k/t-0/" + zero + ".txnindex", "/k/t-0/partition.metadata",
		"/k/t-1.0123456789abcdef0123456789abcdef-delete/" + zero + ".log", "/k/t-2.0123456789abcdef0123456789abcdef-future/" + zero + ".log",
		"/k/__cluster_metadata-0/" + zero + ".log", "/k/__cluster_metadata-0/" + zero + "-0000000000.checkpoint"}
	tests := []struct{ name, path, want string }{
		{"ours", "/d/", `millrace 0 meta=true clean=true journal=2 catalog=true checkpoints=0 foreign=1+2 leftovers=1 held=true
a-b-0 deleted id=true snapshots=0 epochs=false start=false foreign=0+0 leftovers=0: 0.log
a-b-1 live id=true snapshots=1 epochs=true start=true foreign=1+1 leftovers=1: 0.log.index.timeindex.sealed 10.log.checkpoint
c-0 stray id=true snapshots=0 epochs=false start=false foreign=0+0 leftovers=0: 0.log
`},
		{"our partition", "/d/topics/a-b-1." + testID, `millrace 1 meta=false clean=false journal=0 catalog=false checkpoints=0 foreign=0+0 leftovers=0 held=true
a-b-1 live id=true snapshots=1 epochs=true start=true foreign=1+1 leftovers=1: 0.log.index.timeindex.sealed 10.log.checkpoint
`},
		{"our file", "/d/topics/a-b-1." + testID + "/" + ten + ".log", `millrace 2 meta=false clean=false journal=0 catalog=false checkpoints=0 foreign=0+0 leftovers=0 held=true
a-b-1 live id=true snapshots=0 epochs=false start=false foreign=0+0 leftovers=0: 10.log
`},
		{"Kafka's", "/k", `kafka 0 meta=true clean=true journal=0 catalog=false checkpoints=2 foreign=0+0 leftovers=0 held=false
__cluster_metadata-0 live id=false snapshots=0 epochs=false start=false foreign=0+0 leftovers=0: 0.log
t-0 live id=true snapshots=0 epochs=false start=false foreign=0+0 leftovers=0: 0.log.index.txnindex
t-1 deleted id=false snapshots=0 epochs=false start=false foreign=0+0 leftovers=0: 0.log
t-2 future id=false snapshots=0 epochs=false start=false foreign=0+0 leftovers=0: 0.log
`},
	}
	m := tree(t, append(ours, kafka...)...)
	lock, err := m.Lock("/d/lock")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	for _, tt := range tests {
		p, err := Find(m, tt.path)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		} else if got := describe(p); got != tt.want {
			t.Errorf("%s:\n%s\nwant\n%s", tt.name, got, tt.want)
		}
	}
	if _, err := Find(m, "/d/ever"); !errors.Is(err, ErrNothing) {
		t.Error(err)
	}
	// The journal's files are in the order of their numbers.
	p, err := Find(m, "/d")
	if err != nil || filepath.Base(p.Journal[1].Path) != "00000010.journal" {
		t.Error(p.Journal, err)
	}
}

func TestHeld(t *testing.T) {
	dir := t.TempDir()
	fsys := vfs.OS()
	name := filepath.Join(dir, "lock")
	if held, err := vfs.Held(fsys, name); held || err != nil {
		t.Error(held, err)
	}
	lock, err := fsys.Lock(name)
	if err != nil {
		t.Fatal(err)
	}
	if held, err := vfs.Held(fsys, name); !held || err != nil {
		t.Error(held, err)
	}
	lock.Close()
	if held, err := vfs.Held(fsys, name); held || err != nil {
		t.Error(held, err)
	}
}
