package segment

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/producer"
	"github.com/millrace/millrace/segment/vfs"
)

// often makes a checkpoint after every append.
func often(o *DirOptions) { o.DirectBytes, o.CheckpointBytes = 1, 16 }

// settle waits until the janitor has done what it was given, checkpoints too.
func (d *testDir) settle(t testing.TB) {
	t.Helper()
	if err := d.onCommitter(context.Background(), func() {}); err != nil { // behind the round, which captures one at its end
		t.Fatal(err)
	}
	for saves := 1; saves > 0; {
		d.mu.Lock()
		saves = len(d.saves)
		d.mu.Unlock()
		if err := d.onJanitor(context.Background(), nothing); err != nil { // behind a checkpoint that is being written
			t.Fatal(err)
		}
	}
}

// killed gives the disk as a killed process leaves it.
func killed(fs *vfs.Mem) *vfs.Mem { return fs.Crash(1, 1) }

// tenBatches has ten batches of an idempotent producer in one segment, the first seven of which are in a checkpoint.
func tenBatches(t *testing.T) (fs *vfs.Mem, name string, size int64) {
	t.Helper()
	fs = newMem(t)
	d := openDir(t, fs, often)
	l := d.open(t, "orders", 0, DefaultLogConfig())
	for i := range int32(10) {
		d.settle(t)
		if i == 7 {
			if err := d.onCommitter(context.Background(), func() { d.Dir.opts.CheckpointBytes = 1 << 30 }); err != nil {
				t.Fatal(err)
			}
		}
		b := producedBatch(t, 3*i, 3)
		size = int64(len(b))
		l.appendIn(t, b, 1+i/4)
	}
	return killed(fs), l.active().name(""), size
}

// appendIn appends under a leader epoch.
func (l *Log) appendIn(t testing.TB, b []byte, epoch int32) {
	t.Helper()
	done := make(chan Result, 1)
	if err := l.Append(context.Background(), &Append{Batches: b, LeaderEpoch: epoch, Done: func(r Result) { done <- r }}); err != nil {
		t.Fatal(err)
	}
	if r := <-done; r.Err != nil {
		t.Fatal(r.Err)
	}
}

// intact compares a log opened again with what tenBatches has put into it.
func intact(t *testing.T, d *testDir, from int64) {
	t.Helper()
	l := d.open(t, "orders", 0, DefaultLogConfig())
	if got, err := l.readAll(from); err != nil || int64(len(got)) != 30-from {
		t.Errorf("from %d: %d records, %v", from, len(got), err)
	}
	for offset, epoch := range map[int64]int32{0: 1, 11: 1, 12: 2, 23: 2, 24: 3, 29: 3} {
		if got := l.EpochAt(offset); got != epoch {
			t.Errorf("epoch of offset %d is %d, want %d", offset, got, epoch)
		}
	}
	if r := l.mustAppend(t, producedBatch(t, 27, 3)); !r.Duplicate || r.BaseOffset != 27 {
		t.Errorf("the last batch again: %+v", r)
	}
	if r := l.mustAppend(t, producedBatch(t, 30, 3)); r.BaseOffset != 30 {
		t.Errorf("the next batch: %+v", r)
	}
}

// An open after a crash reads on from the checkpoint, and knows all the same.
func TestCheckpointIsWhereRecoveryBegins(t *testing.T) {
	fs, name, size := tenBatches(t)
	rewriteInPlace(t, fs, name+".log", 2*size+batch.HeaderSize) // a full scan would say so
	d := openDir(t, fs)
	if strings.Contains(d.log.String(), "damaged") {
		t.Errorf("what the checkpoint knows was read: %s", d.log)
	}
	intact(t, d, 9)
	d.close(t)
}

func TestBadCheckpointsAreNotUsed(t *testing.T) {
	damage := map[string]func(t *testing.T, fs *vfs.Mem, name string, size int64){
		"a bit": func(t *testing.T, fs *vfs.Mem, name string, _ int64) {
			rewriteInPlace(t, fs, name+checkpointSuffix, 100)
		},
		"version": func(t *testing.T, fs *vfs.Mem, name string, _ int64) {
			rewriteInPlace(t, fs, name+checkpointSuffix, 11)
		},
		"of another segment": func(t *testing.T, fs *vfs.Mem, name string, _ int64) {
			changeCheckpoint(t, fs, name, func(cp *checkpoint) { cp.base++ })
		},
		"of another file": func(t *testing.T, fs *vfs.Mem, name string, _ int64) {
			changeCheckpoint(t, fs, name, func(cp *checkpoint) { cp.index.offsets = append(cp.index.offsets, offsetEntry{20, cp.position - 7}) })
		},
		"ends within a batch": func(t *testing.T, fs *vfs.Mem, name string, _ int64) {
			changeCheckpoint(t, fs, name, func(cp *checkpoint) { cp.position += 5 })
		},
		"empty": func(t *testing.T, fs *vfs.Mem, name string, _ int64) {
			if err := vfs.WriteFileAtomic(fs, name+checkpointSuffix, nil); err != nil {
				t.Fatal(err)
			}
		},
	}
	for what, do := range damage {
		t.Run(what, func(t *testing.T) {
			fs, name, size := tenBatches(t)
			do(t, fs, name, size)
			d := openDir(t, fs)
			if !strings.Contains(d.log.String(), "checkpoint is not used") {
				t.Errorf("the log does not say it: %s", d.log)
			}
			intact(t, d, 0)
			d.close(t)
		})
	}
}

func changeCheckpoint(t *testing.T, fs vfs.FS, name string, change func(*checkpoint)) {
	t.Helper()
	b, err := vfs.ReadFile(fs, name+checkpointSuffix)
	if err != nil {
		t.Fatal(err)
	}
	cp, err := decodeCheckpoint(b)
	if err != nil {
		t.Fatal(err)
	}
	change(cp)
	if err := vfs.WriteFileAtomic(fs, name+checkpointSuffix, cp.encode()); err != nil {
		t.Fatal(err)
	}
}

// What is damaged in front of the checkpoint's end is no torn end: a file that has become shorter is told.
func TestCheckpointKnowsAFileThatIsTooShort(t *testing.T) {
	fs, name, size := tenBatches(t)
	truncate(t, fs, name+".log", 5*size+20)
	d := openDir(t, fs)
	for _, want := range []string{"level=ERROR", "shorter than what was durable", fmt.Sprint("bytes=", 5*size+20), "lastOffset=20"} {
		if !strings.Contains(d.log.String(), want) {
			t.Errorf("the log does not say %q: %s", want, d.log)
		}
	}
	if got, err := d.open(t, "orders", 0, DefaultLogConfig()).readAll(0); err != nil || len(got) != 15 {
		t.Errorf("%d records, %v", len(got), err)
	}
	d.close(t)
}

func truncate(t *testing.T, fs vfs.FS, name string, size int64) {
	t.Helper()
	f, err := fs.OpenFile(name, vfs.ReadWrite, 0)
	if err == nil {
		err = f.Truncate(size)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestSealedSegmentsThatHaveChanged(t *testing.T) {
	tests := map[string]struct {
		change func(t *testing.T, fs *vfs.Mem, folder string)
		says   string
	}{
		"shorter": {func(t *testing.T, fs *vfs.Mem, folder string) {
			truncate(t, fs, folder+"/00000000000000000010.log", 100)
		},
			"has become shorter"},
		"longer": {func(t *testing.T, fs *vfs.Mem, folder string) {
			truncate(t, fs, folder+"/00000000000000000010.log", 5000)
		}, "has become longer"},
		"missing": {func(t *testing.T, fs *vfs.Mem, folder string) {
			if err := fs.Remove(folder + "/00000000000000000010.log"); err != nil {
				t.Fatal(err)
			}
		}, "firstOffset=10 lastOffset=19"},
		"note damaged": {func(t *testing.T, fs *vfs.Mem, folder string) {
			rewriteInPlace(t, fs, folder+"/00000000000000000010.sealed", 3)
		}, "is damaged: changes of its length"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			fs := newMem(t)
			d := openDir(t, fs)
			cfg := smallSegments()
			l := d.open(t, "orders", 0, cfg)
			for range 9 {
				l.mustAppend(t, makeBatch(t, 5, "some text of a record that fills", 1))
			}
			var bases []int64
			for _, s := range *l.segments.Load() {
				bases = append(bases, s.base)
			}
			if fmt.Sprint(bases) != "[0 10 20 30 40]" {
				t.Fatalf("segments begin at %v", bases)
			}
			d.close(t)
			tt.change(t, fs, l.path)
			d = openDir(t, fs)
			if !strings.Contains(d.log.String(), tt.says) {
				t.Errorf("the log does not say %q: %s", tt.says, d.log)
			}
			if got, err := d.open(t, "orders", 0, cfg).readAll(20); err != nil || len(got) != 25 {
				t.Errorf("behind it: %d records, %v", len(got), err)
			}
			d.close(t)
		})
	}
}

// checkSeals compares every note of a segment with the segment.
func checkSeals(fs vfs.FS, topics string) error {
	folders, err := fs.ReadDir(topics)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, folder := range folders {
		files, err := fs.ReadDir(filepath.Join(topics, folder.Name()))
		if err != nil {
			return err
		}
		if slices.ContainsFunc(files, func(f os.DirEntry) bool { return f.Name() == cutFile }) {
			continue // what it says has been begun with, perhaps
		}
		for _, file := range files {
			name, isSeal := strings.CutSuffix(filepath.Join(topics, folder.Name(), file.Name()), sealedSuffix)
			if !isSeal {
				continue
			}
			line, err := vfs.ReadFile(fs, name+sealedSuffix)
			if err != nil {
				return err
			}
			x, err := decodeSeal(line)
			if err != nil {
				continue // a crash may leave anything
			}
			log, err := vfs.ReadFile(fs, name+".log")
			if errors.Is(err, os.ErrNotExist) {
				continue // deleted
			}
			if err != nil {
				return err
			}
			if int64(len(log)) != x.length || crc32.Checksum(log, castagnoli) != x.sum {
				return fmt.Errorf("%s: %d bytes with CRC %08x, the note says %+v (CRC %08x)", name, len(log), crc32.Checksum(log, castagnoli), x, x.sum)
			}
		}
	}
	return nil
}

// Whatever happens before a segment is left, the CRC in its note is that of the file.
func TestSealsAreOfTheWholeFile(t *testing.T) {
	for seed := range uint64(30) {
		random := rand.New(rand.NewPCG(seed, 5))
		fs := newMem(t)
		faulty := vfs.NewFaulty(fs)
		d := openDir(t, faulty, variety(seed))
		cfg := segments(seed)
		for i := range 40 {
			l := d.open(t, "orders", 0, cfg)
			switch random.IntN(8) {
			case 0:
				faulty.Inject(vfs.Fault{Op: vfs.OpWrite, Path: "*.log", Err: syscall.ENOSPC}, vfs.Fault{Op: vfs.OpWrite, Path: "*.journal", Err: syscall.ENOSPC})
			case 1:
				faulty.Heal()
				d.close(t)
				d = openDir(t, faulty, variety(seed))
				continue
			case 2:
				d.flush(t)
			}
			l.appendAndWait(t, makeBatch(t, 1+random.IntN(5), fmt.Sprint(i), 1))
		}
		faulty.Heal()
		d.close(t)
		if err := checkSeals(fs, "data/topics"); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func TestCheckpointComesBackAsItWas(t *testing.T) {
	cp := &checkpoint{base: 7, position: 900, next: 50, sum: 0xfeed, summed: true, firstTimestamp: 12,
		index: newIndexer(), epochs: epochs{{1, 7}, {3, 20}}, producers: new(producer.State).EncodeAll()}
	cp.index.add(9, 100, 10, 50, 0)
	cp.index.add(30, 200, 400, 50, 0)
	got, err := decodeCheckpoint(cp.encode())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.encode(), cp.encode()) || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", cp) {
		t.Errorf("got %+v\nwant %+v", got, cp)
	}
}

func FuzzDecodeCheckpoint(f *testing.F) {
	cp := &checkpoint{base: 7, position: 900, next: 50, index: newIndexer(), epochs: epochs{{1, 7}}, producers: []byte{}}
	cp.index.add(9, 100, 10, 50, 0)
	f.Add(cp.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 16 { // else nothing passes the checksum
			sum := crc32.Checksum(b[16:], castagnoli)
			b[12], b[13], b[14], b[15] = byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum)
		}
		if cp, err := decodeCheckpoint(b); err == nil {
			cp.encode()
		}
	})
}

func FuzzDecodeSeal(f *testing.F) {
	f.Add(seal{1000, 77, 0xfeed}.encode())
	f.Fuzz(func(t *testing.T, line []byte) {
		if x, err := decodeSeal(line); err == nil && (x.length < 0 || x.next < 0) {
			t.Errorf("%q gives %+v", line, x)
		}
	})
}

// What is acknowledged before it is synced is in no checkpoint.
func TestCheckpointOfWhatIsSynced(t *testing.T) {
	fs := newMem(t)
	d := openDir(t, fs, often)
	cfg := DefaultLogConfig()
	cfg.FlushMessages, cfg.FlushAfter = 5, time.Hour
	l := d.open(t, "orders", 0, cfg)
	for i := range 7 {
		l.mustAppend(t, makeBatch(t, 1, fmt.Sprint(i), 1))
		d.settle(t)
	}
	changeCheckpoint(t, fs, l.active().name(""), func(cp *checkpoint) {
		if cp.next != 5 {
			t.Errorf("the checkpoint ends at %d, the last sync was behind 5", cp.next)
		}
	})
}
