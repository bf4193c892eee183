package segment

import (
	"os"

	"github.com/millrace/millrace/segment/vfs"
)

// fileWrite brings bytes of a segment from its tail into its file, in whole
// blocks: what is behind the end in the last one is padding, which a later write
// overwrites, and the next flush or a roll trims. The committer prepares and applies it; run may be
// called on any goroutine in between, while the log is appended to.
type fileWrite struct {
	log     *Log
	segment *segmentFile
	from    int64 // bytes of the file that are there already
	to      int64
	sync    bool // make it durable
	trim    bool // cut the padding
	err     error
	wrote   bool // something, perhaps not all

	checkpoint *checkpoint // true once it is durable; of a flush

	started int64 // block where writing begins
	chunks  []*chunk
	bufs    [][]byte
	last    *chunk // a copy of the last block, which appends may go on to fill
}

// prepare says what is to be written: bytes flushed up to to. Committer only.
func (w *fileWrite) prepare(c *committer, l *Log, s *segmentFile, to int64) {
	w.log, w.segment, w.from, w.to = l, s, s.flushed, to
	w.started = w.from &^ (vfs.BlockSize - 1)
	if w.from == to {
		return
	}
	for _, ch := range s.chunks {
		if ch.end() <= w.started || ch.at >= to {
			continue
		}
		ch.hold()
		w.chunks = append(w.chunks, ch)
		w.bufs = append(w.bufs, ch.mem[max(0, w.started-ch.at):min(int64(len(ch.mem)), roundUp(to-ch.at))])
	}
	if part := to % vfs.BlockSize; part > 0 {
		n := len(w.bufs) - 1
		whole := len(w.bufs[n]) - vfs.BlockSize
		w.last = c.dir.memory.getBlock(nil, 0)
		block := w.last.mem
		clear(block[copy(block, w.bufs[n][whole:whole+int(part)]):])
		if whole == 0 {
			w.bufs[n] = block
		} else {
			w.bufs[n] = w.bufs[n][:whole]
			w.bufs = append(w.bufs, block)
		}
	}
}

func roundUp(n int64) int64 { return (n + vfs.BlockSize - 1) &^ (vfs.BlockSize - 1) }

// run does the writing. It blocks on the disk.
func (w *fileWrite) run() {
	d, s := w.log.dir, w.segment
	h := d.writeHandle(s)
	if !w.sync {
		h = &s.handle // whoever does not wait for the disk wants the page cache
	}
	f, err := w.open(h)
	if err != nil {
		w.err = d.failed("open", s.name(".log"), err)
		return
	}
	defer d.files.release(h)
	if len(w.bufs) > 0 {
		w.wrote = true
		if _, err := f.WriteVAt(w.bufs, w.started); err != nil {
			w.err = d.failed("write", f.Name(), err)
			return
		}
	}
	if w.trim && w.to%vfs.BlockSize > 0 {
		if err := f.Truncate(w.to); err != nil {
			w.err = d.failed("truncate", f.Name(), err)
			return
		}
	}
	if !w.sync {
		return
	}
	if err := f.Sync(); err != nil {
		w.err = d.fence("sync", f.Name(), err)
		return
	}
	if !s.named {
		if err := d.fs.SyncDir(w.log.path); err != nil {
			w.err = d.failedSync(w.log.path, err)
		}
	}
}

// open gives the file, and makes it and its folder when it is not there.
func (w *fileWrite) open(h *handle) (vfs.File, error) {
	d := w.log.dir
	if w.segment.created {
		return d.files.acquire(h)
	}
	if err := d.fs.MkdirAll(w.log.path, 0o755); err != nil {
		return nil, err
	}
	f, err := d.fs.OpenFile(w.segment.name(".log"), h.flags|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, err
	}
	return d.files.adopt(h, f), nil
}

// apply takes over what run has done. Committer only.
func (w *fileWrite) apply() {
	s := w.segment
	s.created, s.flushed = true, w.to
	s.unsynced = !w.sync
	s.padded = !w.trim && w.to%vfs.BlockSize > 0
	s.named = s.named || w.sync
}

// undo makes the file as long as it was before a run that failed: bytes left
// behind here could be taken for records by a later recovery.
func (w *fileWrite) undo() error {
	if !w.wrote {
		return nil
	}
	d := w.log.dir
	h := d.writeHandle(w.segment)
	f, err := d.files.acquire(h)
	if err != nil {
		return err
	}
	defer d.files.release(h)
	return f.Truncate(w.from)
}

// done gives back what prepare took. Committer only.
func (w *fileWrite) done() {
	for _, ch := range w.chunks {
		ch.release()
	}
	if w.last != nil {
		w.last.release()
	}
	*w = fileWrite{chunks: w.chunks[:0], bufs: w.bufs[:0]}
}
