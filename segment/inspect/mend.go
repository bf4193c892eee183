package inspect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"path/filepath"
	"strings"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// Apply does what the plan says, step by step; done is told of each, and may be nil. The caller holds the directory's lock.
// It ends between two steps when ctx does. After an error, or a crash, the repair is planned anew.
func (p *Plan) Apply(ctx context.Context, done func(n int, s Step)) error {
	if len(p.Steps) == 0 {
		return nil
	}
	m := &mender{fs: p.fs, root: filepath.Dir(filepath.Dir(p.Quarantine)), quarantine: p.Quarantine}
	if p.Place.Kind == WholeDirectory {
		m.root = p.Place.Path
	}
	if err := m.note(p); err != nil {
		return err
	}
	for n, s := range p.Steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.apply(m); err != nil {
			return fmt.Errorf("%s %s: %w", s.Do, s.File, err)
		}
		if done != nil {
			done(n, s)
		}
	}
	return nil
}

// mender carries steps out.
type mender struct {
	fs         vfs.FS
	root       string // what lies below it has the same path below the quarantine
	quarantine string
}

// note writes the plan down beside what it removes.
func (m *mender) note(p *Plan) error {
	if err := vfs.MkdirAllDurable(m.fs, m.quarantine, 0o755); err != nil {
		return err
	}
	var text strings.Builder
	for _, f := range p.Findings {
		fmt.Fprintln(&text, f.String())
	}
	for i, s := range p.Steps {
		fmt.Fprintf(&text, "step %d: %s %s", i+1, s.Do, s.File)
		if s.Position >= 0 {
			fmt.Fprintf(&text, " at byte %d", s.Position)
		}
		for _, r := range s.Offsets {
			fmt.Fprintf(&text, " [offsets %d to %d]", r.First, r.Last)
		}
		fmt.Fprintf(&text, " (%s)\n", s.Why)
	}
	return vfs.WriteFileAtomic(m.fs, filepath.Join(m.quarantine, "plan.txt"), []byte(text.String()))
}

// keep gives the name below the quarantine for a file, and makes its folder.
func (m *mender) keep(file string) (string, error) {
	rel, err := filepath.Rel(m.root, file)
	if err != nil || strings.HasPrefix(rel, "..") {
		rel = filepath.Base(file)
	}
	name := filepath.Join(m.quarantine, rel)
	return name, vfs.MkdirAllDurable(m.fs, filepath.Dir(name), 0o755)
}

// move takes a file or folder away, into the quarantine.
func (m *mender) move(file string) error {
	to, err := m.keep(file)
	if err != nil {
		return err
	}
	if err := m.fs.Rename(file, to); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // an earlier step has taken it
		}
		return err
	}
	if err := m.fs.SyncDir(filepath.Dir(to)); err != nil {
		return err
	}
	return m.fs.SyncDir(filepath.Dir(file))
}

// moveAll moves files away, one after the other.
func (m *mender) moveAll(files []File) error {
	for _, f := range files {
		if err := m.move(f.Path); err != nil {
			return err
		}
	}
	return nil
}

// replace writes a small file anew; what stood there is copied first.
func (m *mender) replace(file string, contents func(*mender) ([]byte, error)) error {
	b, err := contents(m)
	if err != nil {
		return err
	}
	old, err := vfs.ReadFile(m.fs, file)
	if err == nil {
		to, err := m.keep(file)
		if err != nil {
			return err
		}
		if err := vfs.WriteFileAtomic(m.fs, to, old); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return vfs.WriteFileAtomic(m.fs, file, b)
}

// replay brings the journal into the segments, durably, and sets it aside.
func (m *mender) replay(dir, folder string) error {
	if _, err := segment.ReplayJournal(m.fs, dir, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	entries, err := m.fs.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if segment.JournalNumber(e.Name()) > 0 {
			if err := m.move(filepath.Join(folder, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// cut makes a log end at a position, when what follows is safe in the quarantine.
func (m *mender) cut(file string, at int64) (err error) {
	f, err := m.fs.OpenFile(file, vfs.ReadWrite, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil || size <= at {
		return err
	}
	if err := m.save(f, at, size); err != nil {
		return err
	}
	if err := f.Truncate(at); err != nil {
		return err
	}
	return f.Sync()
}

// save copies bytes of a log into a file of the quarantine, whose name says where they were.
func (m *mender) save(f vfs.File, from, to int64) error {
	name, err := m.keep(f.Name())
	if err != nil {
		return err
	}
	return m.make(fmt.Sprintf("%s@%d-%d", name, from, to), func(out vfs.File) error {
		return copyBytes(out, 0, f, from, to)
	})
}

// make writes a file, durably.
func (m *mender) make(name string, write func(out vfs.File) error) (err error) {
	out, err := m.fs.OpenFile(name, vfs.ReadWrite|vfs.Create|vfs.Trunc, 0o644)
	if err != nil {
		return err
	}
	if err = write(out); err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	return m.fs.SyncDir(filepath.Dir(name))
}

// copyBytes copies a range, a MiB at a time.
func copyBytes(out vfs.File, at int64, in vfs.File, from, to int64) error {
	buf := make([]byte, min(1<<20, max(to-from, 0)))
	for from < to {
		b := buf[:min(int64(len(buf)), to-from)]
		if n, err := in.ReadAt(b, from); n < len(b) {
			return err
		}
		if _, err := out.WriteAt(b, at); err != nil {
			return err
		}
		from, at = from+int64(len(b)), at+int64(len(b))
	}
	return nil
}

// rewrite puts a log without some ranges, and with some fields put right, in the place of one, in one step. What it
// leaves out, and the headers that it changes, are in the quarantine before.
func (m *mender) rewrite(file string, bad []badRange, fixes []fix) (err error) {
	in, err := m.fs.OpenFile(file, vfs.ReadOnly, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	size, err := in.Size()
	if err != nil {
		return err
	}
	for _, b := range bad {
		if err := m.save(in, b.from, min(b.to, size)); err != nil {
			return err
		}
	}
	for _, x := range fixes {
		if err := m.save(in, x.position, x.position+batch.HeaderSize); err != nil {
			return err
		}
	}
	temp := file + tempSuffix
	if err := m.make(temp, func(out vfs.File) error { return m.assemble(out, in, size, bad, fixes) }); err != nil {
		return err
	}
	if err := m.fs.Rename(temp, file); err != nil {
		return err
	}
	return m.fs.SyncDir(filepath.Dir(file))
}

// assemble writes what stays.
func (m *mender) assemble(out, in vfs.File, size int64, bad []badRange, fixes []fix) error {
	from, at := int64(0), int64(0)
	gone := make([]int64, 0, len(fixes)) // by how much each fix has moved
	piece := func(to int64) error {
		for _, x := range fixes {
			if x.position >= from && x.position < to {
				gone = append(gone, from-at)
			}
		}
		err := copyBytes(out, at, in, from, to)
		at += max(to-from, 0)
		return err
	}
	for _, b := range bad {
		if err := piece(b.from); err != nil {
			return err
		}
		from = min(b.to, size)
	}
	if err := piece(size); err != nil {
		return err
	}
	for i, x := range fixes {
		var head [batch.ChecksumFrom]byte
		if _, err := out.ReadAt(head[:], x.position-gone[i]); err != nil {
			return err
		}
		if x.offset >= 0 {
			batch.PutBaseOffset(head[:], x.offset)
		}
		if x.epoch >= 0 {
			batch.PutLeaderEpoch(head[:], x.epoch)
		}
		if _, err := out.WriteAt(head[:], x.position-gone[i]); err != nil {
			return err
		}
	}
	return nil
}

// walked is what a log comes to, batch by batch.
type walked struct {
	index  *segment.Indexer
	sum    uint32
	length int64
	next   int64
	first  int64 // timestamp of the first batch
}

// walk goes through the batches of a log that is well.
func (m *mender) walk(s *Segment, interval int) (w walked, err error) {
	b, err := OpenBatches(m.fs, s.Log.Path, Options{})
	if err != nil {
		return w, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	w = walked{index: segment.NewIndexer(), next: s.Base, first: -1}
	for b.Next() {
		h := b.Header()
		var prefix [batch.HeaderSize]byte
		batch.PutHeader(prefix[:], h)
		w.sum = batch.ExtendSum(w.sum, prefix[:], h)
		w.index.Add(h.LastOffset(), h.MaxTimestamp, b.Position(), h.Size(), interval)
		if w.first < 0 {
			w.first = h.MaxTimestamp
		}
		w.length, w.next = b.Position()+int64(h.Size()), h.NextOffset()
	}
	return w, b.Err()
}

// rebuild writes the indexes of a segment anew.
func (m *mender) rebuild(s *Segment, interval int) error {
	w, err := m.walk(s, interval)
	if err != nil {
		return err
	}
	offsets, times := w.index.Files(s.Base)
	if err := m.replace(sidePath(s, ".index"), always(offsets)); err != nil {
		return err
	}
	return m.replace(sidePath(s, ".timeindex"), always(times))
}

// seal says what a segment holds.
func (m *mender) seal(s *Segment, next int64) ([]byte, error) {
	w, err := m.walk(s, math.MaxInt)
	if err != nil {
		return nil, err
	}
	return segment.EncodeSealed(segment.Sealed{Length: w.length, Next: next, Sum: w.sum}), nil
}

func (m *mender) checkpoint(s *Segment, interval int, epochs []segment.EpochEntry, producers []byte) ([]byte, error) {
	w, err := m.walk(s, interval)
	if err != nil {
		return nil, err
	}
	return w.index.Checkpoint(s.Base, w.length, w.next, w.sum, w.first, epochs, producers), nil
}
