package main

import (
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"time"
)

// noDisk says what is missing for a file system of its own.
func noDisk() string {
	if !isRoot() {
		return "it takes root to mount and freeze a file system"
	}
	for _, tool := range []string{"mkfs.ext4", "mount", "umount", "fsfreeze", "losetup"} {
		if _, err := exec.LookPath(tool); err != nil {
			return tool + " is not here"
		}
	}
	if err := exec.Command("losetup", "-f").Run(); err != nil {
		return "there is no loop device"
	}
	return ""
}

// disk is an ext4 in a file.
type disk struct {
	mount  string
	rescue *exec.Cmd // thaws when this process cannot
	frozen atomic.Bool
}

func mountDisk(work string, size int64) (*disk, error) {
	image, mount := filepath.Join(work, "disk.img"), filepath.Join(work, "mnt")
	if err := os.Mkdir(mount, 0o755); err != nil {
		return nil, err
	}
	f, err := os.Create(image)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return nil, err
	}
	for _, command := range [][]string{{"mkfs.ext4", "-q", image}, {"mount", "-o", "loop", image, mount}} {
		if err := tool(command...); err != nil {
			return nil, err
		}
	}
	return &disk{mount: mount}, nil
}

// freeze blocks every write to the file system until thaw, and for not much longer than length.
func (d *disk) freeze(length time.Duration) error {
	d.rescue = exec.Command("sh", "-c", fmt.Sprintf("sleep %d; exec fsfreeze -u %s", int(length.Seconds())+60, d.mount))
	if err := d.rescue.Start(); err != nil {
		return err
	}
	d.frozen.Store(true)
	return tool("fsfreeze", "-f", d.mount)
}

func (d *disk) thaw() {
	if !d.frozen.Swap(false) {
		return
	}
	if err := tool("fsfreeze", "-u", d.mount); err != nil {
		log.Print(err)
	}
	d.rescue.Process.Kill()
	d.rescue.Wait()
}

// fill takes all the room there is, with a file that is given back.
func (d *disk) fill() (filler string, err error) {
	filler = filepath.Join(d.mount, "filler")
	f, err := os.Create(filler)
	if err != nil {
		return filler, err
	}
	defer f.Close()
	for size := 1 << 20; size >= 4096; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	return filler, nil
}

func (d *disk) unmount() error {
	d.thaw()
	return tool("umount", d.mount)
}
