package segment

import (
	"context"
	"strings"
	"testing"

	"github.com/millrace/millrace/segment/vfs"
)

// A topic that is deleted just before a clean close is gone after it: its folder is
// not set aside as one that nobody knows.
func TestDeletedLogIsNotForgottenByAClose(t *testing.T) {
	fs := newMem(t)
	d := openDir(t, fs)
	l := d.open(t, "orders", 0, DefaultLogConfig())
	l.mustAppend(t, makeBatch(t, 1, "x", 1))
	hold, holding := make(chan struct{}), make(chan struct{})
	d.toJanitor(func() { close(holding); <-hold })
	<-holding
	l.Delete()
	closed := make(chan error, 1)
	go func() { closed <- d.Close(context.Background()) }()
	<-d.stop
	close(hold)
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	l.Delete() // too late for anything
	d = openDir(t, fs.Crash(1, 0))
	defer d.close(t)
	if found := d.Found(); len(found) != 0 {
		t.Errorf("the directory still holds %v", found)
	}
	waitForJanitor(t, d)
	if entries, err := d.fs.ReadDir("data/topics"); err != nil || len(entries) != 0 {
		t.Errorf("files are left: %v, %v", entries, err)
	}
}

// What is not millrace's own is left as it is, whatever it is called.
func TestForeignFilesStay(t *testing.T) {
	fs := newMem(t)
	d := openDir(t, fs)
	d.open(t, "orders", 0, DefaultLogConfig()).mustAppend(t, makeBatch(t, 1, "x", 1))
	folder := testID("orders", 0).folder()
	d.close(t)
	foreign := []string{
		"backup.deleted", "lost+found", "orders-0", "orders-0.short", "orders-0x." + folder[len(folder)-22:],
		"-0." + folder[len(folder)-22:], folder + ".old", folder[:len(folder)-1], folder + ".stray",
	}
	for _, name := range foreign {
		if err := fs.MkdirAll("data/topics/"+name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"notes.txt", "00000000000000000001.txt", "1.log"} {
		f, err := fs.OpenFile("data/topics/"+folder+"/"+name, vfs.ReadWrite|vfs.Create, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	d = openDir(t, fs)
	defer d.close(t)
	waitForJanitor(t, d)
	entries, err := fs.ReadDir("data/topics")
	if err != nil || len(entries) != len(foreign)+1 {
		t.Errorf("%v remains, %v; want %v and %s", entries, err, foreign, folder)
	}
	if found := d.Found(); len(found) != 1 || d.open(t, "orders", 0, DefaultLogConfig()).LogEndOffset() != 1 {
		t.Errorf("found %v", found)
	}
	if !strings.Contains(d.log.String(), "lost+found") {
		t.Errorf("the log does not say it: %s", d.log)
	}
}

// Names as long as a topic's may be, that differ in their last letters alone, are kept apart.
func TestLongestTopicNames(t *testing.T) {
	fs := newMem(t)
	long := strings.Repeat("n", 248)
	d := openDir(t, fs)
	for _, last := range []string{"a", "b"} {
		id := LogID{Topic: long + last, Partition: 1<<31 - 1}
		copy(id.TopicID[:], last)
		l, err := d.Log(id, DefaultLogConfig())
		if err != nil {
			t.Fatal(err)
		}
		l.mustAppend(t, makeBatch(t, 1, last, 1))
		if n := len(id.folder()) + len(deletedSuffix); n > 255 {
			t.Errorf("the folder's name has %d bytes", n)
		}
	}
	d.close(t)
	d = openDir(t, fs)
	defer d.close(t)
	for _, id := range d.Found() {
		full := id
		full.Topic = long + string(id.TopicID[:1])
		l, err := d.Log(full, DefaultLogConfig())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := l.readAll(0); err != nil || got[0] != string(id.TopicID[:1])+"-0" || l.ID() != full {
			t.Errorf("%v: %v, %v", l.ID(), got, err)
		}
	}
}
