package segment

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// oldBatches makes a log of batches of about these sizes, one record each, that are in
// the file alone.
func oldBatches(t *testing.T, d *testDir, sizes ...int) (l *Log, batches [][]byte) {
	t.Helper()
	l = d.open(t, "old", 0, DefaultLogConfig())
	for i, size := range sizes {
		b := makeBatch(t, 1, fmt.Sprint(i, strings.Repeat("x", size)), 1)
		l.mustAppend(t, b)
		batches = append(batches, b)
	}
	d.flush(t) // the tail is emptied behind the round
	if len(l.active().tailChunks()) > 0 {
		t.Fatal("the tail is not empty")
	}
	return l, batches
}

// untailed keeps nothing in memory.
func untailed(o *DirOptions) { o.DirectBytes, o.TailBytes = 1, 1 }

// What is read ahead may be short, when the batch behind it is large: then it has no buffer of the pool.
func TestLittleIsReadAhead(t *testing.T) {
	d := openDir(t, newMem(t), untailed)
	defer d.close(t)
	l, batches := oldBatches(t, d, 100<<10, 10<<10, 1500<<10)
	for i, want := range batches {
		got, err := l.Read(nil, int64(i), 3, len(want), true)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("at %d: %d bytes, %v; want %d", i, len(got), err, len(want))
		}
	}
}

// Readers that go through a segment together take what was read ahead from each other,
// and each gets what it has asked for: not what lies behind it, since another was faster.
func TestReadersTogetherMissNothing(t *testing.T) {
	d := openDir(t, newMem(t), untailed)
	defer d.close(t)
	sizes := make([]int, 60)
	for i := range sizes {
		sizes[i] = 30 << 10
	}
	l, _ := oldBatches(t, d, sizes...)
	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			for range 10 {
				for from := int64(0); from < int64(len(sizes)); {
					b, err := l.Read(nil, from, int64(len(sizes)), 1, true)
					h, herr := batch.Check(b)
					if err != nil || herr != nil || h.BaseOffset != from {
						t.Errorf("at %d: batch of offset %d, %v, %v", from, h.BaseOffset, err, herr)
						return
					}
					from = h.NextOffset()
				}
			}
		})
	}
	readers.Wait()
}

// Whoever has looked at what was read ahead, and takes it, finds what it was: also when
// somebody has taken some of it and put the rest back in between.
func TestWhatWasReadAheadIsPutBackAsSomethingElse(t *testing.T) {
	d := openDir(t, newMem(t), untailed)
	defer d.close(t)
	l, batches := oldBatches(t, d, 100<<10, 100<<10, 100<<10, 100<<10)
	read := func(from int64) {
		t.Helper()
		if b, err := l.Read(nil, from, 4, 1, true); err != nil || !bytes.Equal(b, batches[from]) {
			t.Fatalf("at %d: %d bytes, %v", from, len(b), err)
		}
	}
	read(0)
	seen := l.active().ahead.Load()
	if seen == nil || seen.offset != 1 {
		t.Fatal("nothing was read ahead")
	}
	read(1)
	if rest := l.active().ahead.Load(); rest == nil || rest == seen || rest.offset != 2 || seen.offset != 1 {
		t.Errorf("what was seen is for offset %d now; put back as the same: %v", seen.offset, rest == seen)
	}
	read(2)
}

// An index that is wrong about where a batch begins makes nobody stop before what is
// intact, nor call it damaged.
func TestAWrongIndexHidesNothing(t *testing.T) {
	for _, wrong := range []int64{10, 100, 70 << 10} {
		t.Run(fmt.Sprint(wrong), func(t *testing.T) {
			d := openDir(t, newMem(t), untailed)
			defer d.close(t)
			l, batches := oldBatches(t, d, 300<<10, 300<<10)
			x := *l.active().index.Load()
			x.offsets = []offsetEntry{{offset: 1, position: wrong}}
			l.active().index.Store(&x)
			for _, most := range []int{1, 100 << 10, 400 << 10} {
				if got, err := l.Read(nil, 0, 2, most, true); err != nil || !bytes.Equal(got, batches[0]) {
					t.Errorf("at most %d: %d bytes, %v", most, len(got), err)
				}
			}
		})
	}
}

// A batch whose damage says that it goes on behind the end of the log is damaged, not
// one to wait for.
func TestDamagedLastOffset(t *testing.T) {
	const lastOffsetDelta = 23
	for name, sizes := range map[string][]int{"small": {100, 100}, "large": {100 << 10, 100 << 10}, "larger than a read": {1500 << 10, 10}} {
		t.Run(name, func(t *testing.T) {
			fs := newMem(t)
			d := openDir(t, fs, untailed)
			defer d.close(t)
			l, _ := oldBatches(t, d, sizes...)
			rewriteInPlace(t, fs, l.active().name(".log"), lastOffsetDelta)
			if got, err := l.Read(nil, 0, 2, 1<<20, true); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	t.Run("half in the tail", func(t *testing.T) {
		fs := newMem(t)
		d := openDir(t, fs, straightOnly)
		defer d.close(t)
		l := d.open(t, "old", 0, DefaultLogConfig())
		l.mustAppend(t, makeBatch(t, 1, strings.Repeat("x", 5*chunkSize/2), 1))
		d.onCommitter(t.Context(), func() {
			d.opts.TailBytes = 2 * chunkSize
			d.committer.evict()
		})
		if tail := l.active().tailChunks(); len(tail) != 2 {
			t.Fatalf("%d chunks in the tail", len(tail))
		}
		rewriteInPlace(t, fs, l.active().name(".log"), lastOffsetDelta)
		if got, err := l.Read(nil, 0, 1, 1<<20, true); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

// brokenFS cannot read the byte of a log file at a position: what comes before it is read.
type brokenFS struct {
	vfs.FS
	at int64
}

func (fs *brokenFS) OpenFile(name string, flag int, perm os.FileMode) (vfs.File, error) {
	f, err := fs.FS.OpenFile(name, flag, perm)
	if err == nil && strings.HasSuffix(name, ".log") {
		f = &brokenFile{f, fs}
	}
	return f, err
}

type brokenFile struct {
	vfs.File
	fs *brokenFS
}

func (f *brokenFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	if at := f.fs.at; at >= off && at < off+int64(len(p)) {
		return min(n, int(at-off)), syscall.EIO
	}
	return n, err
}

// A disk that cannot read is told from a file that is damaged; what comes before is served.
func TestReadErrorInTheMiddle(t *testing.T) {
	for name, size := range map[string]int{"small": 10_000, "large": 100 << 10} {
		t.Run(name, func(t *testing.T) {
			fs := &brokenFS{newMem(t), 1 << 40}
			d := openDir(t, fs, untailed)
			defer d.close(t)
			l, batches := oldBatches(t, d, size, size)
			fs.at = int64(len(batches[0]) + size/2)
			if got, err := l.Read(nil, 0, 2, 3*size, true); err != nil || !bytes.Equal(got, batches[0]) {
				t.Errorf("before it: %d bytes, %v", len(got), err)
			}
			if got, err := l.Read(nil, 1, 2, 3*size, true); !errors.Is(err, syscall.EIO) || errors.Is(err, ErrCorrupt) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if strings.Contains(d.log.String(), "damaged") {
				t.Errorf("the log says: %s", d.log)
			}
			fs.at = 1 << 40
			if got, err := l.Read(nil, 1, 2, 3*size, true); err != nil || !bytes.Equal(got, batches[1]) {
				t.Errorf("once it can: %d bytes, %v", len(got), err)
			}
		})
	}
}

// What a view holds stays what it was until it is released, whatever is appended, refused,
// taken back, evicted and read meanwhile.
func TestAViewDoesNotChange(t *testing.T) {
	for _, buffered := range []bool{false, true} {
		t.Run(fmt.Sprint("buffered ", buffered), func(t *testing.T) {
			faulty := vfs.NewFaulty(newMem(t))
			d := openDir(t, faulty, func(o *DirOptions) {
				o.TailBytes, o.DirectBytes, o.FlushInterval, o.Buffered = 4*chunkSize, 20_000, 1, buffered
			})
			defer d.close(t)
			cfg := DefaultLogConfig()
			cfg.SegmentBytes = 1 << 20
			l := d.open(t, "orders", 0, cfg)
			var all sync.WaitGroup
			done := make(chan struct{})
			all.Go(func() {
				defer close(done)
				random, refused := rand.New(rand.NewPCG(1, 1)), 0
				defer func() {
					if refused == 0 {
						t.Error("nothing was taken back")
					}
				}()
				for i := range 200 {
					if i%7 == 3 {
						faulty.Inject(vfs.Fault{Op: vfs.OpWrite, Path: "*.journal", Nth: 1, Err: syscall.ENOSPC}, vfs.Fault{Op: vfs.OpWrite, Path: "*.log", Nth: 1, Err: syscall.ENOSPC, Short: 70})
					}
					r := l.appendAndWait(t, makeBatch(t, 1+random.IntN(3), fmt.Sprint(i, strings.Repeat("x", random.IntN(15_000))), 1))
					if r.Err != nil && !errors.Is(r.Err, ErrNoSpace) {
						t.Errorf("append: %v", r.Err)
						return
					}
					if r.Err != nil {
						refused++
					}
					if i%50 == 49 {
						l.DeleteRecordsBefore(t.Context(), l.LogEndOffset()/2)
					}
				}
			})
			for r := range 4 {
				all.Go(func() {
					random := rand.New(rand.NewPCG(2, uint64(r)))
					from := int64(0)
					var views [5]View
					var read [5]struct {
						from int64
						was  []byte
					}
					defer func() {
						for i := range views {
							views[i].Release()
						}
					}()
					for i := 0; ; i++ {
						v, was := &views[i%len(views)], &read[i%len(read)]
						if now := bytes.Join(v.Pieces, nil); !bytes.Equal(now, was.was) {
							t.Errorf("what was read at %d has changed", was.from)
							return
						}
						v.Release()
						select {
						case <-done:
							if i%len(views) == 0 {
								return
							}
						default:
						}
						if random.IntN(20) == 0 {
							from = l.LogStartOffset() + random.Int64N(1+l.LogEndOffset()-l.LogStartOffset())
						}
						n, err := l.View(v, from, 1<<40, 1+random.IntN(200_000), random.IntN(5) > 0)
						if errors.Is(err, ErrOffsetOutOfRange) {
							from = l.LogStartOffset()
						} else if err != nil {
							t.Errorf("at %d: %v", from, err)
							return
						}
						was.from, was.was = from, bytes.Join(v.Pieces, nil)
						if len(was.was) != n {
							t.Errorf("at %d: %d bytes, said to be %d", from, len(was.was), n)
						}
						records := int64(0)
						for one, err := range batch.All(was.was) {
							h, herr := batch.Check(one)
							if err != nil || herr != nil || h.BaseOffset > from || h.LastOffset() < from {
								t.Errorf("at %d: offsets %d to %d, %v, %v", from, h.BaseOffset, h.LastOffset(), err, herr)
								return
							}
							from = h.NextOffset()
							records += int64(h.RecordCount)
						}
						if v.Records != records {
							t.Errorf("%d records, said to be %d", records, v.Records)
						}
					}
				})
			}
			all.Wait()
			faulty.Heal()
			d.flush(t)
			m := d.memory
			if free, all := int64(len(m.free))*chunkSize+int64(len(m.blocks))*vfs.BlockSize, int64(len(m.slabs.free))*slabSize; free+m.used.Load() != all {
				t.Errorf("of %d bytes, %d are free and %d in the tails", all, free, m.used.Load())
			}
		})
	}
}

// Little that is sent does not hold much memory: it is charged for what it is.
func TestLittleHoldsLittle(t *testing.T) {
	d := openDir(t, newMem(t), untailed)
	defer d.close(t)
	old, _ := oldBatches(t, d, 20<<10, 60<<10, 60<<10, 60<<10, 500<<10, 500<<10)
	held := func(v *View) (n int) {
		for _, c := range v.chunks {
			n += len(c.mem)
		}
		for _, b := range v.bufs {
			n += len(b.mem)
		}
		if n == 0 {
			for _, p := range v.Pieces {
				n += cap(p)
			}
		}
		return n
	}
	look := func(l *Log, from int64, most int) {
		t.Helper()
		var v View
		defer v.Release()
		n, err := l.View(&v, from, l.LogEndOffset(), most, true)
		if all := held(&v); err != nil || n == 0 || all > mostHeld*n {
			t.Errorf("at %d: %d bytes hold %d, %v", from, n, all, err)
		}
	}
	for from := range int64(6) { // from 1 on it was read ahead
		look(old, from, 1)
	}
	look(old, 0, 64<<10-1)
	d.onCommitter(t.Context(), func() { d.opts.TailBytes = 1 << 20 })
	tail := d.open(t, "tail", 0, DefaultLogConfig())
	for i := range 5 {
		tail.mustAppend(t, makeBatch(t, 1, strings.Repeat("x", 1500*i), 1))
	}
	for from := range int64(5) {
		look(tail, from, 1)
	}
}

// A reader may have the row of chunks of an instant ago: with one that was taken back since, behind
// one that has left the tail.
func TestReaderOfARowThatIsGone(t *testing.T) {
	d := openDir(t, newMem(t), straightOnly)
	defer d.close(t)
	l := d.open(t, "orders", 0, DefaultLogConfig())
	b := makeBatch(t, 1, strings.Repeat("x", 3*chunkSize/2), 1)
	l.mustAppend(t, b)
	s := l.active()
	var row, empty []*chunk
	d.onCommitter(t.Context(), func() {
		c := &d.committer
		if err := c.put(s, s.size.Load(), make([]byte, chunkSize)); err != nil { // a round that will fail
			t.Error(err)
		}
		d.opts.TailBytes = 2 * chunkSize
		c.evict()
		row = s.tailChunks()
		c.shrink(s, s.size.Load())
		d.opts.TailBytes = 0
		c.evict()
	})
	if len(row) != 2 || len(s.tailChunks()) != 0 {
		t.Fatalf("a row of %d, %d are left", len(row), len(s.tailChunks()))
	}
	s.tail.Store(&row)
	read := make(chan error, 1)
	go func() {
		r := d.reader(s)
		defer r.close()
		got := make([]byte, len(b))
		_, err := r.ReadAt(got, 0)
		if err == nil && !bytes.Equal(got, b) {
			err = errors.New("something else")
		}
		read <- err
	}()
	time.Sleep(10 * time.Millisecond)
	s.tail.Store(&empty)
	if err := <-read; err != nil {
		t.Error(err)
	}
}
