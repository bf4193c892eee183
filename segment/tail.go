package segment

import (
	"fmt"
	"io"

	"github.com/millrace/millrace/segment/vfs"
)

// The tail of a segment is its newest bytes, in memory: a row of chunks without
// a gap, the last of which is being filled. It holds at least all that is not in
// the file yet. What is flushed leaves it, the oldest first over all logs, when
// the directory's tails together pass DirOptions.TailBytes.
//
// A tail begins with up to four chunks of one block each, as long as what comes fits into them:
// of ten thousand logs that get a record now and then, 40 MB are in memory, not 160.
//
// The committer alone changes it. Readers take the published row and hold each
// chunk while they copy from it; one that is gone by then is in the file.

// tailChunks gives the chunks that are published now.
func (s *segmentFile) tailChunks() []*chunk {
	if t := s.tail.Load(); t != nil {
		return *t
	}
	return nil
}

func (s *segmentFile) publishTail() {
	if len(s.chunks) == len(s.tailChunks()) && (len(s.chunks) == 0 || s.chunks[0] == s.tailChunks()[0]) {
		return
	}
	row := s.chunks
	s.tail.Store(&row)
}

// put copies b to file position at, which is where the tail ends. It blocks on
// the disk when the tail is empty and the file ends within a block. Committer only.
func (c *committer) put(s *segmentFile, at int64, b []byte) error {
	for len(b) > 0 {
		var last *chunk
		if n := len(s.chunks); n > 0 {
			last = s.chunks[n-1]
		}
		if last == nil || at >= last.end() {
			var err error
			if last, err = c.extend(s, at, len(b)); err != nil {
				return err
			}
		}
		n := copy(last.mem[at-last.at:], b)
		b, at = b[n:], at+int64(n)
		s.filled = at
	}
	return nil
}

// smallChunks is how many chunks of a tail may be of one block.
const smallChunks = chunkSize / vfs.BlockSize

// extend adds a chunk that holds file position at, where n bytes come.
func (c *committer) extend(s *segmentFile, at int64, n int) (*chunk, error) {
	start := at &^ (vfs.BlockSize - 1)
	var ch *chunk
	if before := at - start; len(s.chunks) < smallChunks && before+int64(n) <= vfs.BlockSize {
		ch = c.dir.memory.getBlock(s, start)
	} else {
		ch = c.dir.memory.get(s, start)
	}
	if before := at - start; before > 0 {
		// Blocks are written whole. The page cache may be behind the disk here.
		if err := c.dir.readDisk(s, ch.mem[:vfs.BlockSize], ch.at, int(before)); err != nil {
			ch.release()
			return nil, err
		}
	}
	ch.join()
	s.chunks = append(s.chunks, ch)
	c.resident = append(c.resident, ch)
	return ch, nil
}

// readDisk reads at least the first want bytes of a block past the page cache,
// where there is a way past it.
func (d *Dir) readDisk(s *segmentFile, block []byte, at int64, want int) error {
	h := d.writeHandle(s)
	f, err := d.files.acquire(h)
	if err != nil {
		return d.failed("open", s.name(".log"), err)
	}
	defer d.files.release(h)
	if n, err := f.ReadAt(block, at); n < want {
		return d.fence("read", s.name(".log"), fmt.Errorf("%d of %d bytes: %w", n, want, err))
	}
	return nil
}

// shrink takes back what put has added behind file position end.
func (c *committer) shrink(s *segmentFile, end int64) {
	s.filled = min(s.filled, end)
	for n := len(s.chunks); n > 0 && s.chunks[n-1].at >= end; n-- {
		// Not published yet, and the newest of the resident ones.
		last := s.chunks[n-1]
		s.chunks[n-1] = nil
		s.chunks = s.chunks[:n-1]
		last.owner = nil // evict passes over it
		last.leave()
	}
}

// sweep is evict for when something has come to the files: what is not there yet is passed over, so that the
// tails keep to their bound but for that. It looks at all chunks at most.
func (c *committer) sweep() {
	if c.evict(); c.dir.memory.used.Load() <= c.dir.opts.TailBytes {
		return
	}
	kept := c.resident[:0]
	for _, ch := range c.resident {
		s := ch.owner
		switch {
		case s == nil: // it has left
		case c.dir.memory.used.Load() <= c.dir.opts.TailBytes || ch != s.chunks[0] || s.flushed < min(ch.end(), s.filled):
			kept = append(kept, ch)
		default:
			s.chunks = s.chunks[1:]
			s.publishTail()
			ch.leave()
		}
	}
	clear(c.resident[len(kept):])
	c.resident = kept
}

// evict makes the tails smaller until they keep to their bound, or until the
// oldest chunk is not in its file yet: then a flush is due.
func (c *committer) evict() {
	for c.dir.memory.used.Load() > c.dir.opts.TailBytes && len(c.resident) > 0 {
		oldest := c.resident[0]
		if s := oldest.owner; s != nil {
			if s.flushed < min(oldest.end(), s.filled) {
				c.due = true
				return
			}
			s.chunks = s.chunks[1:]
			s.publishTail()
			oldest.leave()
		}
		c.resident[0] = nil
		c.resident = c.resident[1:]
	}
}

// segmentReader reads a segment's bytes, from memory where they are there, else from the
// file. It is for one goroutine; close it after use.
type segmentReader struct {
	dir     *Dir
	segment *segmentFile
	file    vfs.File // opened when it is needed
}

func (d *Dir) reader(s *segmentFile) segmentReader { return segmentReader{dir: d, segment: s} }

func (v *segmentReader) close() {
	if v.file != nil {
		v.dir.files.release(&v.segment.handle)
	}
}

// Name is the file's.
func (v *segmentReader) Name() string { return v.segment.name(".log") }

// ReadAt reads published bytes: it is not asked for others.
func (v *segmentReader) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) {
		row := v.segment.tailChunks()
		if len(row) == 0 || off+int64(n) < row[0].at {
			want := p[n:]
			if len(row) > 0 && off+int64(len(p)) > row[0].at {
				want = p[n : row[0].at-off]
			}
			got, err := v.readFile(want, off+int64(n))
			n += got
			if err != nil {
				return n, err
			}
			continue
		}
		got := copyChunks(row, p[n:], off+int64(n))
		n += got
		if got == 0 && off+int64(n) >= v.segment.size.Load() { // else what was sought has left the row
			return n, io.EOF
		}
	}
	return n, nil
}

// holding tells which chunk of a row holds a file position that is not before it; len(row) if none does.
func holding(row []*chunk, position int64) int {
	// At most smallChunks of them are smaller, since only the first so many of a row can be.
	i := min(int((position-row[0].at)/chunkSize), len(row))
	for i < len(row) && row[i].end() <= position {
		i++
	}
	return i
}

// copyChunks copies what the chunks hold from file position off on; it stops
// before one that was taken out of the tail meanwhile.
func copyChunks(row []*chunk, p []byte, off int64) (n int) {
	for n < len(p) {
		i := holding(row, off+int64(n))
		if i == len(row) || !row[i].hold() {
			return n
		}
		n += copy(p[n:], row[i].mem[off+int64(n)-row[i].at:])
		row[i].release()
	}
	return n
}

func (v *segmentReader) readFile(p []byte, off int64) (int, error) {
	if v.file == nil {
		f, err := v.dir.files.acquire(&v.segment.handle)
		if err != nil {
			return 0, err
		}
		v.file = f
	}
	n, err := v.file.ReadAt(p, off)
	if n > 0 && n < len(p) && err == io.EOF {
		return n, nil
	}
	return n, err
}
