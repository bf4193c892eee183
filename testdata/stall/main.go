// Command stall freezes a real file system under a loaded broker, and looks whether the audit's first and sixth fault
// are absent: while the disk does not answer, producers hear so in time, consumers, metadata and health are answered, a
// garbage collection ends, and after the thaw everything that was acknowledged is there, without a restart.
//
//	go run ./testdata/stall -millrace bin/millrace -for 60s
//
// It needs root on Linux, and loop devices, mount, mkfs.ext4 and fsfreeze; where one is absent it says so and ends
// with 0, or with 1 when -must is given. The file system is an image in a temporary directory.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(log.Ltime)
	binary := flag.String("millrace", "bin/millrace", "the broker")
	length := flag.Duration("for", 20*time.Second, "how long the file system is frozen")
	times := flag.Int("times", 1, "how often")
	limit := flag.Duration("limit", 5*time.Second, "log.dir.stall.timeout.ms of the broker")
	must := flag.Bool("must", false, "fail where it cannot be run")
	create := flag.Bool("create", true, "topics are created all the time, so that the freeze meets the catalogue at work")
	flag.Parse()
	if why := unable(); why != "" {
		log.Printf("skipped: %s", why)
		if *must {
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *binary, *times, *length, *limit, *create)
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

// unable says what is missing.
func unable() string {
	if os.Geteuid() != 0 {
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

func run(ctx context.Context, binary string, times int, length, limit time.Duration, create bool) (err error) {
	work, err := os.MkdirTemp("", "millrace-stall-")
	if err != nil {
		return err
	}
	d, err := mountDisk(work)
	if err != nil {
		return errors.Join(err, os.RemoveAll(work))
	}
	defer func() {
		if unmounted := d.unmount(); unmounted != nil {
			err = errors.Join(err, unmounted) // and the image stays
		} else {
			err = errors.Join(err, os.RemoveAll(work))
		}
	}()
	b, err := startBroker(binary, filepath.Join(d.mount, "data"), filepath.Join(work, "broker.log"), limit)
	if err != nil {
		return err
	}
	defer func() {
		d.thaw()
		err = errors.Join(err, b.stop())
		if err != nil {
			b.showLog()
		}
	}()
	if err := b.awaitReady(ctx, 10*time.Second); err != nil {
		return err
	}
	l, err := startLoad(ctx, b.address, create)
	if err != nil {
		return err
	}
	defer l.end()
	time.Sleep(3 * time.Second)
	for range times {
		if err := stall(ctx, d, b, l, length, limit); err != nil {
			return err
		}
	}
	l.end()
	return l.verify(ctx)
}

// stall freezes the disk once.
func stall(ctx context.Context, d *disk, b *broker, l *load, length, limit time.Duration) error {
	before := l.count()
	log.Printf("%d records acknowledged; freezing for %s", before, length)
	if err := d.freeze(length); err != nil {
		return err
	}
	frozen := time.Now()
	err := watch(ctx, b, l, limit, frozen, length)
	d.thaw()
	log.Printf("thawed after %.1f s", time.Since(frozen).Seconds())
	if err != nil {
		return err
	}
	thawed := time.Now()
	if err := b.awaitReady(ctx, 10*time.Second); err != nil {
		return fmt.Errorf("after the thaw: %w", err)
	}
	log.Printf("ready again %.2f s after the thaw, %d records acknowledged by now", time.Since(thawed).Seconds(), l.count())
	for after := l.count(); l.count() <= max(before, after); time.Sleep(10 * time.Millisecond) {
		if time.Since(thawed) > 10*time.Second { // clients wait a little before they try again
			return fmt.Errorf("nothing was acknowledged in ten seconds after the thaw (%d)", after)
		}
	}
	time.Sleep(time.Second)
	return nil
}

// disk is an ext4 in a file.
type disk struct {
	mount  string
	rescue *exec.Cmd // thaws when this process cannot
	frozen atomic.Bool
}

func mountDisk(work string) (*disk, error) {
	image, mount := filepath.Join(work, "disk.img"), filepath.Join(work, "mnt")
	if err := os.Mkdir(mount, 0o755); err != nil {
		return nil, err
	}
	f, err := os.Create(image)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(2<<30), f.Close()); err != nil {
		return nil, err
	}
	for _, command := range [][]string{{"mkfs.ext4", "-q", image}, {"mount", "-o", "loop", image, mount}} {
		if err := tool(command...); err != nil {
			return nil, err
		}
	}
	return &disk{mount: mount}, nil
}

func tool(command ...string) error {
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w: %s", command, err, out)
	}
	return nil
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

func (d *disk) unmount() error {
	d.thaw()
	return tool("umount", d.mount)
}
