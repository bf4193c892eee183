package segment

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/segment/vfs"
)

// The files of a deleted segment and of a deleted topic stay for file.delete.delay.ms under a name that
// tells, and go then; a reader that has one open reads on.
func TestDeletedFilesGoAfterTheirDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newMem(t)
		d := openDir(t, fs, inBubble)
		defer d.close(t)
		cfg := smallSegments()
		cfg.DeleteDelay = 20 * time.Second
		l := d.open(t, "orders", 0, cfg)
		for range 12 {
			l.mustAppend(t, makeBatch(t, 3, "x", 1))
		}
		first := (*l.segments.Load())[0]
		held, err := d.files.acquire(&first.handle)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.DeleteRecordsBefore(context.Background(), 30); err != nil {
			t.Fatal(err)
		}
		count := func() (n int) {
			for _, name := range namesIn(t, fs, l) {
				if strings.HasSuffix(name, deletedSuffix) {
					n++
				} else if strings.HasPrefix(name, "00000000000000000000.") {
					t.Errorf("%s is still there", name)
				}
			}
			return n
		}
		if n := count(); n == 0 || n%4 != 0 { // .log, .index, .timeindex, .sealed
			t.Errorf("%d files wait for their removal", n)
		}
		time.Sleep(19 * time.Second)
		synctest.Wait()
		if count() == 0 {
			t.Error("the files went before their time")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := count(); n != 0 {
			t.Errorf("%d files are still there", n)
		}
		if _, err := held.ReadAt(make([]byte, 10), 0); err != nil {
			t.Errorf("a reader that has the file open: %v", err)
		}
		d.files.release(&first.handle)

		l.Delete()
		again := d.open(t, "orders-again", 0, cfg) // another topic id
		again.mustAppend(t, makeBatch(t, 1, "y", 1))
		d.flush(t)
		synctest.Wait()
		if entries, _ := fs.ReadDir("data/topics"); len(entries) != 2 || !strings.HasSuffix(entries[1].Name(), deletedSuffix) && !strings.HasSuffix(entries[0].Name(), deletedSuffix) {
			t.Errorf("the folders are %v", entries)
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if entries, _ := fs.ReadDir("data/topics"); len(entries) != 1 {
			t.Errorf("the folders are %v", entries)
		}
	})
}

// What could not be removed is tried again, and said once.
func TestRemovalIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newMem(t)
		faulty := vfs.NewFaulty(fs)
		d := openDir(t, faulty, inBubble)
		defer d.close(t)
		l := d.open(t, "orders", 0, smallSegments())
		for range 12 {
			l.mustAppend(t, makeBatch(t, 3, "x", 1))
		}
		faulty.Inject(vfs.Fault{Op: vfs.OpRemove, Path: "*.deleted", Err: syscall.EIO}, vfs.Fault{Op: vfs.OpRename, Path: "*.timeindex", Err: syscall.EACCES})
		if err := l.DeleteRecordsBefore(context.Background(), 20); err != nil {
			t.Fatal(err)
		}
		before := len(namesIn(t, fs, l))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := strings.Count(d.log.String(), "00000000000000000000.log.deleted error="); n != 1 {
			t.Errorf("it was said %d times: %s", n, d.log)
		}
		faulty.Heal()
		time.Sleep(time.Minute)
		synctest.Wait()
		if names := namesIn(t, fs, l); len(names) >= before || strings.Contains(fmt.Sprint(names), "00000000000000000000.") {
			t.Errorf("%v is left", names)
		}
	})
}

// On a full disk nothing waits for its delay.
func TestFullDiskEmptiesTheTrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newMem(t)
		faulty := vfs.NewFaulty(fs)
		d := openDir(t, faulty, inBubble)
		defer d.close(t)
		cfg := smallSegments()
		cfg.DeleteDelay = time.Hour
		l := d.open(t, "orders", 0, cfg)
		for range 12 {
			l.mustAppend(t, makeBatch(t, 3, "x", 1))
		}
		if err := l.DeleteRecordsBefore(context.Background(), 20); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(fmt.Sprint(namesIn(t, fs, l)), deletedSuffix) {
			t.Fatal("nothing waits: nothing is tested")
		}
		faulty.Inject(vfs.Fault{Op: vfs.OpRemove, Path: "*.log.deleted", Nth: 1, Do: faulty.Heal}, vfs.Fault{Op: vfs.OpWrite, Path: "*.log", Err: syscall.ENOSPC})
		if r := l.appendAndWait(t, makeBatch(t, 1, "y", 1)); !errors.Is(r.Err, ErrNoSpace) {
			t.Fatalf("append to a full disk: %v", r.Err)
		}
		synctest.Wait()
		if names := fmt.Sprint(namesIn(t, fs, l)); strings.Contains(names, deletedSuffix) {
			t.Errorf("%s is left", names)
		}
		l.mustAppend(t, makeBatch(t, 1, "z", 1))
	})
}
