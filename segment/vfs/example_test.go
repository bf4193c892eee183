package vfs_test

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/millrace/millrace/segment/vfs"
)

// What was synced survives the power cut; the rest does not have to.
func ExampleMem_Crash() {
	disk := vfs.NewMem()
	_ = vfs.WriteFileAtomic(disk, "safe", []byte("written, synced, renamed, directory synced"))
	f, _ := disk.OpenFile("unsafe", vfs.ReadWrite|vfs.Create, 0o644)
	_, _ = f.WriteAt([]byte("written and synced, but its name is not"), 0)
	_ = f.Sync()
	fmt.Println("unsynced:", disk.Unsynced())

	after := disk.Crash(1, 0)
	list, _ := after.ReadDir(".")
	for _, e := range list {
		fmt.Println("survived:", e.Name())
	}
	// Output:
	// unsynced: [.]
	// survived: safe
}

// Every state that the disk has been in can be looked at.
func ExampleMem_Replay() {
	disk := vfs.NewMem()
	disk.Record()
	_ = vfs.WriteFileAtomic(disk, "f", []byte("data"))
	for n := 1; n <= disk.Ops(); n++ {
		data, err := vfs.ReadFile(disk.Replay(n).Crash(1, 0), "f")
		fmt.Printf("%-28s power cut: %q %v\n", disk.Op(n), data, err == nil)
	}
	// Output:
	// create f.tmp                 power cut: "" false
	// write f.tmp at 0, 4 bytes    power cut: "" false
	// sync f.tmp                   power cut: "" false
	// rename f.tmp to f            power cut: "" false
	// syncdir .                    power cut: "data" true
}

// The second write of any segment hits a full disk.
func ExampleNewFaulty() {
	disk := vfs.NewFaulty(vfs.NewMem(), vfs.Fault{Op: vfs.OpWrite, Path: "*.log", Nth: 2, Short: 3, Err: syscall.ENOSPC})
	f, _ := disk.OpenFile("0.log", vfs.ReadWrite|vfs.Create, 0o644)
	_, _ = f.WriteAt([]byte("first"), 0)
	n, err := f.WriteAt([]byte("second"), 5)
	fmt.Println(n, errors.Is(err, syscall.ENOSPC), disk.Count(vfs.OpWrite, "*.log"))
	// Output: 3 true 2
}
